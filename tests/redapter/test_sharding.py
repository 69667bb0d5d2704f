"""Processes that hold a part of each weight equal one that holds all (law 5), and their checkpoints are the same.

Every world of processes is run once, by `world.py`; the tests look at what it left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reasonembed.beir import Collection, write_beir
from reasonembed.encoder.lora import LoraSettings
from reasonembed.encoder.model import Encoder
from reasonembed.errors import ConfigError
from reasonembed.files import read_jsonl
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gather import join_ranks
from reasonembed.redapter.log import ValidationRecord, read_log
from reasonembed.redapter.validation import VALIDATION_LOG, best_of

if TYPE_CHECKING:
    from conftest import Worlds

SIZE = 3  # by which nothing divides: parts are uneven
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
STEP = TrainConfig(
    start_step=0, max_query_tokens=48, max_passage_tokens=32, temperature=0.05, global_queries=6, shard=True
)
WHOLE = TrainConfig(
    start_step=2,
    learning_rate=2e-3,
    max_query_tokens=48,
    max_passage_tokens=32,
    checkpoint_every_steps=2,
    validate_every_steps=2,
    shard=True,
)
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"lora": LoraSettings(rank=2, alpha=4), "base_share": 0.25},
    "last layer, recomputed": {
        "train_layers": 1,
        "activation_checkpointing": True,
        "weight_decay": 0.1,
        "base_share": 0.4,
    },
}
SHARED_BY = {"lora": 3, "last layer, recomputed": 2}  # of rank 2 adapters three cannot all have a part


def _cases() -> Iterator[tuple[str, str, str, TrainConfig]]:
    """Name, model, type, settings."""
    for budget, model, dtype in ((80, "bert", "float64"), (120, "qwen3", "float32"), (100_000, "bert", "float64")):
        yield f"{model}-{budget}", model, dtype, msgspec.structs.replace(STEP, micro_batch_tokens=budget)
    yield "few", "bert", "float64", msgspec.structs.replace(STEP, global_queries=1, micro_batch_tokens=100)
    yield "recomputed", "qwen3", "float32", msgspec.structs.replace(STEP, activation_checkpointing=True)
    yield "bf16", "qwen3", "float32", msgspec.structs.replace(STEP, activation_checkpointing=True, bf16=True)
    yield "packed", "qwen3", "float32", msgspec.structs.replace(STEP, activation_checkpointing=True, packed=True)


CASES = {name: (model, dtype, config) for name, model, dtype, config in _cases()}


@pytest.fixture(scope="module")
def worlds(
    tiny_models: dict[str, Path],
    rows: list[TrainingExample],
    collections: dict[str, Collection],
    run_worlds: Callable[[Path, list[dict[str, Any]]], Worlds],
    tmp_path_factory: pytest.TempPathFactory,
) -> Worlds:
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "examples.json").write_bytes(msgspec.json.encode(rows))
    for name, collection in (collections | {"robotics": _one_query_of(collections["robotics"])}).items():
        write_beir(folder / "validation" / name, collection)
    cases = {
        name: {"model": str(tiny_models[model]), "dtype": dtype, "config": config}
        for name, (model, dtype, config) in CASES.items()
    }

    def job(name: str, size: int, run: str, **arguments: Any) -> dict[str, Any]:
        arguments = {"data": str(folder / "examples.json"), "out": str(folder / name), **arguments}
        return {"name": name, "size": size, "run": run, "arguments": arguments}

    def training(
        name: str, size: int, *, into: str | None = None, happens: Any = None, dtype: str = "float64", **changes: Any
    ) -> dict[str, Any]:
        config = msgspec.structs.replace(WHOLE, **changes)
        arguments = {"base": str(tiny_models["qwen3"]), "config": config, "happens": happens, "dtype": dtype}
        return job(name, size, "train", out=str(folder / (into or name)), **arguments)

    def validated(name: str, size: int, **options: Any) -> dict[str, Any]:
        made = training(name, size, **options)
        made["arguments"]["validation"] = str(folder / "validation")
        return made

    stop = {"rank": 0, "step": 3, "what": "SIGTERM"}
    jobs = [
        *(job(f"steps-{size}", size, "step", cases=cases) for size in (1, SIZE)),
        *(validated(f"all-{size}", size) for size in (1, 2)),
        *(training(f"{kind}-1", 1, **changes) for kind, changes in KINDS.items()),
        *(training(f"{kind}-{SHARED_BY[kind]}", SHARED_BY[kind], **changes) for kind, changes in KINDS.items()),
        *(
            training(f"one step-{size}", size, dtype="float32", global_queries=14, learning_rate=1e-3)
            for size in (1, 2)
        ),
        validated("killed", 2, happens={"rank": 1, "step": 3, "what": "SIGKILL"}),
        validated("killed, resumed", 2, into="killed"),
        validated("stopped", 2, happens=stop),
        validated("stopped, resumed alone", 1, into="stopped", shard=False),
        validated("alone", 1, happens=stop, shard=False),
        validated("alone, resumed sharded", 2, into="alone"),
        training("no memory", 2, happens={"rank": 1, "step": 1, "what": "no memory"}),
    ]
    for size in (1, SIZE):
        (folder / f"steps-{size}").mkdir()
    return run_worlds(folder, jobs)


def _close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        scale = max(1.0, float(tensor.abs().max()))
        assert (found[key] - tensor).abs().max() <= tolerance * scale, key


def _same_training(one: Path, other: Path) -> None:
    _close(load_file(one / "model.safetensors"), load_file(other / "model.safetensors"), 1e-8)
    for a, b in zip(read_log(one / "train_log.jsonl"), read_log(other / "train_log.jsonl"), strict=True):
        assert (a.step, a.domain, a.tokens) == (b.step, b.domain, b.tokens)
        for name in ("loss", "mean_loss", "gradient_norm", "learning_rate"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-8)


def _one_query_of(collection: Collection) -> Collection:
    """With the first query alone: of two processes one has none to encode."""
    first = next(iter(collection.queries))
    return msgspec.structs.replace(
        collection, queries={first: collection.queries[first]}, qrels={first: collection.qrels[first]}
    )


def _validations(model: Path) -> list[ValidationRecord]:
    rows = read_jsonl(model / VALIDATION_LOG, ValidationRecord)
    return [msgspec.structs.replace(row, seconds=0) for row in rows]


@pytest.mark.parametrize("case", CASES)
def test_loss_weights_and_summed_gradient_are_those_of_one_process(worlds: Worlds, case: str) -> None:
    alone = load_file(worlds.folder / "steps-1" / f"{case}-0.safetensors")
    assert float(alone["loss"]) > 0 and len(alone) > 20
    assert worlds.codes[f"steps-{SIZE}"] == [0] * SIZE, worlds.said
    for rank in range(SIZE):
        left = load_file(worlds.folder / f"steps-{SIZE}" / f"{case}-{rank}.safetensors")
        del left["held"]
        if case == "bf16":  # which rounds otherwise in other micro-batches
            assert left.keys() == alone.keys()
            assert all((left[key] - tensor).norm() <= 0.15 * tensor.norm() + 1e-3 for key, tensor in alone.items())
        else:
            _close(left, alone, TOLERANCE[CASES[case][1]])


def test_each_process_holds_its_part_of_the_weights_only(worlds: Worlds, tiny_models: dict[str, Path]) -> None:
    total = sum(parameter.numel() for parameter in Encoder.load(tiny_models["qwen3"]).model.parameters())
    paths = [worlds.folder / f"steps-{SIZE}" / f"qwen3-120-{rank}.safetensors" for rank in range(SIZE)]
    held = [int(load_file(path)["held"]) for path in paths]
    assert sum(held) == total and max(held) < 1.1 * total / SIZE


def test_one_step_in_float32_leaves_the_weights_of_one_process(worlds: Worlds) -> None:
    one, two = (load_file(worlds.folder / f"one step-{size}" / "model.safetensors") for size in (1, 2))
    _close(two, one, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_training_is_that_of_one_process(worlds: Worlds, kind: str) -> None:
    size = SHARED_BY[kind]
    assert worlds.codes[f"{kind}-{size}"] == [0] * size, worlds.said
    _same_training(worlds.folder / f"{kind}-{size}", worlds.folder / f"{kind}-1")


def test_a_sharded_training_saves_the_best_weights_of_one_process_by_its_scores(worlds: Worlds) -> None:
    assert worlds.codes["all-2"] == [0, 0], worlds.said
    one, two = (_validations(worlds.folder / name) for name in ("all-1", "all-2"))
    assert [record.step for record in two] == [0, 2, 4, 5]
    assert 0 < best_of(one).step < 5, "weights that are neither the first nor the last are told apart from both"
    assert [record.per_domain for record in two] == [pytest.approx(record.per_domain) for record in one]
    _same_training(worlds.folder / "all-2", worlds.folder / "all-1")


def test_after_a_kill_the_same_command_ends_in_the_same_bytes_and_scores(worlds: Worlds) -> None:
    survivor, killed = worlds.codes["killed"]
    assert survivor != 0 and killed == -9
    assert worlds.codes["killed, resumed"] == [0, 0], worlds.said
    one, other = (worlds.folder / name / "model.safetensors" for name in ("killed", "all-2"))
    assert one.read_bytes() == other.read_bytes()
    assert _validations(one.parent) == _validations(other.parent)


def test_a_checkpoint_goes_on_sharded_or_not_in_any_number_of_processes(worlds: Worlds) -> None:
    assert worlds.codes["stopped"] == [130, 130] and worlds.codes["alone"] == [130]
    assert worlds.codes["stopped, resumed alone"] == [0] and worlds.codes["alone, resumed sharded"] == [0, 0]
    for name in ("stopped", "alone"):
        _same_training(worlds.folder / name, worlds.folder / "all-1")


def test_memory_that_runs_out_ends_a_sharded_training_with_the_cure(worlds: Worlds) -> None:
    assert 0 not in worlds.codes["no memory"]
    assert "no memory 1: ReasonEmbedError: memory ran out" in worlds.said
    assert "Lower micro_batch_tokens, which is 2,048, or set activation_checkpointing" in worlds.said


def test_fsdp_asked_of_accelerate_is_refused_with_the_key_that_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    cure = r"configured for FSDP.*MULTI_GPU \(docs/accelerate/gpus\.yaml\).*set shard = true"
    with pytest.raises(ConfigError, match=cure):
        join_ranks()
