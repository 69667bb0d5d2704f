"""Processes that hold a part of each weight equal one that holds all (law 5), and their checkpoints are the same.

Every world of processes is run once, by `world.py`; the tests look at what it left.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reasonembed.encoder.lora import LoraSettings
from reasonembed.encoder.model import Encoder
from reasonembed.errors import ConfigError
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gather import join_ranks
from reasonembed.redapter.log import read_log

SIZES = (2, 3)  # by three nothing divides: parts are uneven
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
STEP = TrainConfig(
    start_step=0, max_query_tokens=48, max_passage_tokens=32, temperature=0.05, global_queries=8, shard=True
)
WHOLE = TrainConfig(
    start_step=5,
    epochs=2,
    learning_rate=2e-3,
    max_query_tokens=48,
    max_passage_tokens=32,
    checkpoint_every_steps=2,
    shard=True,
)
KINDS: dict[str, dict[str, Any]] = {
    "all": {},
    "lora": {"lora": LoraSettings(rank=2, alpha=4)},
    "last layer, recomputed": {"train_layers": 1, "activation_checkpointing": True, "weight_decay": 0.1},
}
SHARED_BY = {"all": 2, "lora": 3, "last layer, recomputed": 2}  # of rank 2 adapters three cannot all have a part


def _cases() -> Iterator[tuple[str, str, str, TrainConfig]]:
    """Name, model, type, settings."""
    for budget, model, dtype in ((60, "bert", "float64"), (100, "qwen3", "float32"), (100_000, "bert", "float64")):
        yield f"{model}-{budget}", model, dtype, msgspec.structs.replace(STEP, micro_batch_tokens=budget)
    yield "few", "bert", "float64", msgspec.structs.replace(STEP, global_queries=1, micro_batch_tokens=100)
    yield "recomputed", "qwen3", "float32", msgspec.structs.replace(STEP, activation_checkpointing=True)
    yield "bf16", "qwen3", "float32", msgspec.structs.replace(STEP, activation_checkpointing=True, bf16=True)


CASES = {name: (model, dtype, config) for name, model, dtype, config in _cases()}


class Worlds(NamedTuple):
    """What the worlds left."""

    folder: Path
    codes: dict[str, list[int]]  # job -> exit codes of its processes
    stderr: str


@pytest.fixture(scope="module")
def worlds(
    tiny_models: dict[str, Path], rows: list[TrainingExample], tmp_path_factory: pytest.TempPathFactory
) -> Worlds:
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "examples.json").write_bytes(msgspec.json.encode(rows))
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

    stop = {"rank": 0, "step": 5, "what": "SIGTERM"}
    jobs = [
        *(job(f"steps-{size}", size, "step", cases=cases) for size in (1, *SIZES)),
        *(training(f"{kind}-1", 1, **changes) for kind, changes in KINDS.items()),
        *(training(f"{kind}-many", SHARED_BY[kind], **changes) for kind, changes in KINDS.items()),
        *(
            training(f"one step-{size}", size, dtype="float32", epochs=1, global_queries=14, learning_rate=1e-3)
            for size in (1, 2)
        ),
        training("killed", 2, happens={"rank": 1, "step": 5, "what": "SIGKILL"}),
        training("killed, resumed", 2, into="killed"),
        training("stopped", 2, happens=stop),
        training("stopped, resumed alone", 1, into="stopped", shard=False),
        training("alone", 1, happens=stop, shard=False),
        training("alone, resumed sharded", 2, into="alone"),
        training("no memory", 2, happens={"rank": 1, "step": 3, "what": "no memory"}),
    ]
    for size in (1, *SIZES):
        (folder / f"steps-{size}").mkdir()
    (folder / "jobs.json").write_bytes(msgspec.json.encode(jobs))
    script = Path(__file__).with_name("world.py")
    command = [sys.executable, str(script), str(folder / "jobs.json"), str(folder / "results.json")]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Worlds(folder, msgspec.json.decode((folder / "results.json").read_bytes()), done.stderr)


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


@pytest.mark.parametrize("case", CASES)
def test_loss_weights_and_summed_gradient_are_those_of_one_process(worlds: Worlds, case: str) -> None:
    alone = load_file(worlds.folder / "steps-1" / f"{case}-0.safetensors")
    assert float(alone["loss"]) > 0 and len(alone) > 20
    for size in SIZES:
        assert worlds.codes[f"steps-{size}"] == [0] * size, worlds.stderr
        for rank in range(size):
            left = load_file(worlds.folder / f"steps-{size}" / f"{case}-{rank}.safetensors")
            del left["held"]
            _close(left, alone, 1e-2 if case == "bf16" else TOLERANCE[CASES[case][1]])


def test_each_process_holds_its_part_of_the_weights_only(worlds: Worlds, tiny_models: dict[str, Path]) -> None:
    total = sum(parameter.numel() for parameter in Encoder.load(tiny_models["qwen3"]).model.parameters())
    for size in SIZES:
        paths = [worlds.folder / f"steps-{size}" / f"qwen3-100-{rank}.safetensors" for rank in range(size)]
        held = [int(load_file(path)["held"]) for path in paths]
        assert sum(held) == total and max(held) < 1.1 * total / size


def test_one_step_in_float32_leaves_the_weights_of_one_process(worlds: Worlds) -> None:
    one, two = (load_file(worlds.folder / f"one step-{size}" / "model.safetensors") for size in (1, 2))
    _close(two, one, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_training_is_that_of_one_process(worlds: Worlds, kind: str) -> None:
    assert worlds.codes[f"{kind}-many"] == [0] * SHARED_BY[kind], worlds.stderr
    _same_training(worlds.folder / f"{kind}-many", worlds.folder / f"{kind}-1")


def test_after_a_kill_the_same_command_ends_in_the_same_bytes(worlds: Worlds) -> None:
    survivor, killed = worlds.codes["killed"]
    assert survivor != 0 and killed == -9
    assert worlds.codes["killed, resumed"] == [0, 0], worlds.stderr
    one, other = (worlds.folder / name / "model.safetensors" for name in ("killed", "all-many"))
    assert one.read_bytes() == other.read_bytes()


def test_a_checkpoint_goes_on_sharded_or_not_in_any_number_of_processes(worlds: Worlds) -> None:
    assert worlds.codes["stopped"] == [130, 130] and worlds.codes["alone"] == [130]
    assert worlds.codes["stopped, resumed alone"] == [0] and worlds.codes["alone, resumed sharded"] == [0, 0]
    for name in ("stopped", "alone"):
        _same_training(worlds.folder / name, worlds.folder / "all-1")


def test_memory_that_runs_out_ends_a_sharded_training_with_the_cure(worlds: Worlds) -> None:
    assert 0 not in worlds.codes["no memory"]
    assert "no memory 1: ReasonEmbedError: memory ran out" in worlds.stderr
    assert "Lower micro_batch_tokens, which is 2,048, or set activation_checkpointing" in worlds.stderr


def test_fsdp_asked_of_accelerate_is_refused_with_the_key_that_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    cure = r"configured for FSDP.*MULTI_GPU \(docs/accelerate/gpus\.yaml\); shard = true"
    with pytest.raises(ConfigError, match=cure):
        join_ranks()
