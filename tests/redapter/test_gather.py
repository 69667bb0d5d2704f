"""W processes equal one (law 5): loss, weights, gradient and whole trainings; they stop, resume and fail together.

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

from reasonembed.encoder.lora import LoraSettings
from reasonembed.encoder.model import Encoder
from reasonembed.redapter.batches import Batch, epoch_batches, not_negatives
from reasonembed.redapter.checkpoint import newest_checkpoint
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import read_log

if TYPE_CHECKING:
    from conftest import Worlds

SIZES = (1, 2, 8)
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
STEP = TrainConfig(start_step=0, max_query_tokens=48, max_passage_tokens=32, temperature=0.05, global_queries=8)
WHOLE = TrainConfig(
    start_step=5, epochs=3, learning_rate=2e-3, max_query_tokens=48, max_passage_tokens=32, checkpoint_every_steps=2
)
PLENTY_MB = 1 << 20


def _cases() -> Iterator[tuple[str, str, str, TrainConfig]]:
    """Name, model, type, settings: small and large micro-batches, with the graph kept and without."""
    for kept in (0, PLENTY_MB):
        for budget in (1, 100, 100_000):
            how = {"micro_batch_tokens": budget, "kept_graph_mb": kept}
            for loss, masked in (("ri-infonce", True), ("infonce", False)):
                config = msgspec.structs.replace(STEP, loss=loss, mask_positives=masked, **how)
                yield f"bert-{loss}-{budget}-{kept}", "bert", "float64", config
        how = {"micro_batch_tokens": 100, "kept_graph_mb": kept}
        yield f"qwen3-{kept}", "qwen3", "float32", msgspec.structs.replace(STEP, **how)
        options = {"multi_positive": True, "distill_weight": 0.5, "matryoshka_dims": (16,), "mask_margin": 0.1}
        yield f"options-{kept}", "bert", "float64", msgspec.structs.replace(STEP, **options, **how)
        yield f"few-{kept}", "bert", "float64", msgspec.structs.replace(STEP, global_queries=1, **how)


CASES = {name: (model, dtype, config) for name, model, dtype, config in _cases()}


@pytest.fixture(scope="module")
def worlds(
    tiny_models: dict[str, Path],
    rows: list[TrainingExample],
    run_worlds: Callable[[Path, list[dict[str, Any]]], Worlds],
    tmp_path_factory: pytest.TempPathFactory,
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
        name: str, size: int, *, into: str | None = None, happens: Any = None, **changes: Any
    ) -> dict[str, Any]:
        base = tiny_models["qwen3" if changes.get("lora") else "bert"]
        config = msgspec.structs.replace(WHOLE, **changes)
        out = str(folder / (into or name))
        return job(name, size, "train", base=str(base), config=config, happens=happens, out=out)

    lora = LoraSettings(rank=2, alpha=4)
    jobs = [
        *(job(f"steps-{size}", size, "step", cases=cases) for size in SIZES),
        *(training(f"whole-{size}", size) for size in (1, 2)),
        *(training(f"lora-{size}", size, lora=lora) for size in (1, 2)),
        training("killed", 2, happens={"rank": 1, "step": 5, "what": "SIGKILL"}),
        training("killed, resumed", 2, into="killed"),
        training("stopped", 2, happens={"rank": 1, "step": 5, "what": "SIGTERM"}, checkpoint_every_steps=0),
        training("stopped, resumed alone", 1, into="stopped", checkpoint_every_steps=0),
        training("memory", 2, happens={"rank": 1, "step": 3, "what": "no memory"}),
        {"name": "left", "size": 2, "run": "leave", "arguments": {}},
    ]
    for size in SIZES:
        (folder / f"steps-{size}").mkdir()
    return run_worlds(folder, jobs)


def _textbook(encoder: Encoder, batch: Batch, config: TrainConfig) -> dict[str, torch.Tensor]:
    """Loss, weights and gradient in one graph over all texts as drawn, by cross entropy."""
    prompts = [f"Instruct: {example.instruction}\nQuery: " for example in batch.examples]
    pairs = list(zip(prompts, batch.examples, strict=True))
    texts = [text for group in batch.passages for text in group]
    passages = encoder.embed(encoder.tokenize(texts, config.max_passage_tokens))
    mask = torch.from_numpy(not_negatives(batch)) & torch.tensor(config.mask_positives)

    def loss_of(queries: list[str]) -> torch.Tensor:
        scores = encoder.embed(encoder.tokenize(queries, config.max_query_tokens)) @ passages.T / config.temperature
        targets = torch.arange(len(queries)) * batch.group_size
        return torch.nn.functional.cross_entropy(scores.masked_fill(mask, -torch.inf), targets, reduction="none")

    loss = loss_of([prompt + example.query for prompt, example in pairs])
    weights = torch.full_like(loss, 1 / len(loss)).detach()
    if config.loss == "ri-infonce":
        with torch.no_grad():
            intensity = (loss / (loss_of([p + e.reasoning_query for p, e in pairs]) + 1e-6)).clamp(max=5)
            weights = intensity / intensity.sum() if intensity.sum() > 0 else weights
    total = (weights * loss).sum()
    total.backward()
    found = {name: p.grad for name, p in encoder.model.named_parameters() if p.grad is not None}
    return found | {"loss": total.detach(), "weight_B": weights}


def _close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        scale = max(1.0, float(tensor.abs().max()))
        assert (found[key] - tensor).abs().max() <= tolerance * scale, key


def _left(worlds: Worlds, size: int, case: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(worlds.folder / f"steps-{size}" / f"{case}-{rank}.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_loss_weights_and_gradient_are_the_same_on_one_two_and_eight_processes(worlds: Worlds, case: str) -> None:
    tolerance = TOLERANCE[CASES[case][1]]
    alone = _left(worlds, 1, case)
    assert float(alone["loss"]) > 0 and len(alone) > 20
    for size in SIZES[1:]:
        _close(_left(worlds, size, case), alone, tolerance)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("options")])
def test_eight_processes_equal_the_textbook(
    worlds: Worlds, tiny_models: dict[str, Path], rows: list[TrainingExample], case: str
) -> None:
    model, dtype, config = CASES[case]
    queries = config.global_queries or 0
    (batch,) = epoch_batches(rows[:queries], seed=3, epoch=0, group_size=4, global_queries=queries)
    assert not_negatives(batch).any() == (queries > 1), "hard negatives that are others' positives"
    _close(
        _left(worlds, 8, case),
        _textbook(Encoder.load(tiny_models[model], dtype=dtype), batch, config),
        TOLERANCE[dtype],
    )


def test_every_process_ends_a_step_with_the_same_bits(worlds: Worlds) -> None:
    assert all(codes == [0] * len(codes) for name, codes in worlds.codes.items() if name.startswith("steps"))
    for case in CASES:
        first = _left(worlds, 8, case)
        for rank in range(1, 8):
            other = _left(worlds, 8, case, rank)
            assert first.keys() == other.keys() and all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("kind", ["whole", "lora"])
def test_a_whole_training_on_two_processes_is_that_on_one(worlds: Worlds, kind: str) -> None:
    assert worlds.codes[f"{kind}-2"] == [0, 0]
    _same_training(worlds.folder / f"{kind}-2", worlds.folder / f"{kind}-1")


def _same_training(one: Path, other: Path) -> None:
    _close(load_file(one / "model.safetensors"), load_file(other / "model.safetensors"), 1e-8)
    for a, b in zip(read_log(one / "train_log.jsonl"), read_log(other / "train_log.jsonl"), strict=True):
        for name in ("step", "domain", "queries", "tokens", "truncated", "graph_kept"):
            assert getattr(a, name) == getattr(b, name)
        for name in ("loss", "mean_loss", "gradient_norm", "learning_rate"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-8)
        assert a.intensities == pytest.approx(b.intensities)


def test_processes_part_before_they_end(worlds: Worlds) -> None:
    assert worlds.codes["left"] == [0, 0], worlds.said


def test_a_killed_process_ends_the_other_with_an_error_and_the_same_command_ends_in_the_same_bytes(
    worlds: Worlds,
) -> None:
    assert worlds.codes["killed"] == [1, -9]
    assert "another process of this training is gone" in worlds.said
    assert worlds.codes["killed, resumed"] == [0, 0]
    killed, whole = (worlds.folder / name / "model.safetensors" for name in ("killed", "whole-2"))
    assert killed.read_bytes() == whole.read_bytes()


def test_a_signal_to_any_process_stops_all_after_the_step_and_one_process_goes_on(worlds: Worlds) -> None:
    assert worlds.codes["stopped"] == [130, 130]
    for rank in (0, 1):
        assert f"stopped {rank}: TrainingStopped: stopped by SIGTERM after step 5 of" in worlds.said
    checkpoints = worlds.folder / "stopped.training"
    assert [path.name for path in checkpoints.glob("step-*")] == ["step-00000005"]
    assert worlds.codes["stopped, resumed alone"] == [0]
    _same_training(worlds.folder / "stopped", worlds.folder / "whole-1")


def test_memory_that_runs_out_in_one_process_halves_the_micro_batches_of_all_and_changes_nothing(
    worlds: Worlds,
) -> None:
    assert worlds.codes["memory"] == [0, 0]
    state = newest_checkpoint(worlds.folder / "memory.training")
    assert state is not None and state[1].halvings == 2, "once in each pass"
    one, other = (load_file(worlds.folder / name / "model.safetensors") for name in ("memory", "whole-1"))
    _close(one, other, 1e-8)
    log = read_log(worlds.folder / "memory" / "train_log.jsonl")
    assert [record.graph_kept for record in log] == [True] * 2 + [False] * (len(log) - 2)
