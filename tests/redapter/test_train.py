"""A training learns, writes what it did, stops cleanly, and refuses what it cannot do."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reasonembed.encoder.lora import LoraSettings
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.tokens import TokenIds
from reasonembed.errors import InputError, ReasonEmbedError, StageChanged
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import StepRecord, read_log
from reasonembed.redapter.train import TrainConfig, TrainingStopped, train

CONFIG = TrainConfig(
    start_step=0,
    epochs=3,
    learning_rate=2e-3,
    max_query_tokens=128,
    max_passage_tokens=64,
    checkpoint_every_steps=0,
)


def _changed(**changes: object) -> TrainConfig:
    return msgspec.structs.replace(CONFIG, **changes)


def _weights(folder: Path) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()}


def _equal(one: Path, other: Path) -> bool:
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["bert", "qwen3", "llama"])
def test_training_lowers_the_loss_and_leaves_a_folder_that_loads(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, name: str
) -> None:
    result = train(examples, tiny_models[name], tmp_path / "model", _changed(epochs=8, learning_rate=5e-3))
    records = read_log(result.log_path)
    assert [record.step for record in records] == list(range(1, 33)), "4 batches an epoch, 8 epochs"
    assert np.mean([r.mean_loss for r in records[-4:]]) < 0.5 * np.mean([r.mean_loss for r in records[:4]])
    encoder = Encoder.load(result.model_folder)
    assert encoder.prompts["biology"] == f"Instruct: {examples[0].instruction}\nQuery: "
    assert encoder.prompts["document"] == ""
    assert (tmp_path / "model" / "README.md").read_text().count("RI-InfoNCE") == 1
    assert not (tmp_path / "model.training").exists()


def test_the_log_tells_each_step_and_the_intensity_of_each_example(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    result = train(
        examples,
        tiny_models["bert"],
        tmp_path / "m",
        CONFIG,
        progress=lambda r, steps: seen.append((r.step, steps)),
    )
    assert seen == [(step, 12) for step in range(1, 13)]
    for record in read_log(result.log_path):
        assert record.intensity is not None and record.intensities is not None
        assert len(record.intensities) == record.queries
        values = sorted(record.intensities.values())
        assert 0 <= values[0] == record.intensity.min and values[-1] == record.intensity.max <= 5
        assert record.intensity.clipped_share == sum(value >= 5 for value in values) / len(values)
        assert 1 <= record.intensity.effective_samples <= record.queries + 1e-9
        assert record.passages == record.queries * 4
    assert result.totals.steps == 12
    assert 0 <= result.totals.padding_share < 0.5
    names = {name for record in read_log(result.log_path) for name in record.intensities or ()}
    assert names == {example.example_id for example in examples}


def test_plain_info_nce_measures_intensity_only_when_asked_and_trains_alike(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    for name, measured in (("silent", False), ("measured", True)):
        config = _changed(loss="infonce", measure_intensity=measured, epochs=1)
        result = train(examples, tiny_models["bert"], tmp_path / name, config)
        records = read_log(result.log_path)
        assert all((record.intensity is not None) == measured for record in records)
    one, other = _weights(tmp_path / "silent"), _weights(tmp_path / "measured")
    assert all(np.allclose(one[key], other[key], atol=1e-5) for key in one)


def test_ri_weights_change_what_is_learned(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    for loss in ("infonce", "ri-infonce"):
        train(examples, tiny_models["bert"], tmp_path / loss, _changed(loss=loss, epochs=1))
    assert not _equal(tmp_path / "infonce", tmp_path / "ri-infonce")


def test_the_same_seed_gives_the_same_bytes_and_row_order_does_not_matter(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    train(examples, tiny_models["qwen3"], tmp_path / "a", _changed(epochs=1))
    train(examples[::-1], tiny_models["qwen3"], tmp_path / "b", _changed(epochs=1))
    train(examples, tiny_models["qwen3"], tmp_path / "c", _changed(epochs=1, seed=7))
    assert _equal(tmp_path / "a", tmp_path / "b")
    assert not _equal(tmp_path / "a", tmp_path / "c")


def test_only_the_last_layers_move_when_asked(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    train(examples, tiny_models["bert"], tmp_path / "m", _changed(epochs=1, train_layers=1))
    before, after = _weights(tiny_models["bert"]), _weights(tmp_path / "m")
    moved = {key for key in before if not np.array_equal(before[key], after[key])}
    assert moved and all("layer.1." in key for key in moved)


def test_the_schedule_is_what_the_optimiser_follows(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    moved = {}
    for rate in (1e-5, 1e-3):
        config = _changed(epochs=1, learning_rate=rate, warmup_share=1.0)
        result = train(examples[:3], tiny_models["bert"], tmp_path / str(rate), config)
        (record,) = read_log(result.log_path)
        assert record.learning_rate == rate
        before, after = _weights(tiny_models["bert"]), _weights(tmp_path / str(rate))
        moved[rate] = max(np.abs(after[key] - before[key]).max() for key in before)
    assert moved[1e-5] == pytest.approx(1e-5, rel=0.05), "Adam's first step moves by the rate"
    assert moved[1e-3] == pytest.approx(1e-3, rel=0.05)
    config = _changed(epochs=2, learning_rate=1.0, warmup_share=0.5, loss="infonce", temperature=1.0)
    seen: list[float] = []
    train(
        examples[:8],
        tiny_models["bert"],
        tmp_path / "m",
        config,
        progress=lambda record, _: seen.append(record.learning_rate),
    )
    assert seen == pytest.approx([1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3])


def test_lora_trains_and_is_merged(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    config = _changed(lora=LoraSettings(rank=4, alpha=8), learning_rate=1e-2)
    result = train(examples, tiny_models["qwen3"], tmp_path / "m", config)
    records = read_log(result.log_path)
    assert np.mean([r.mean_loss for r in records[-4:]]) < 0.8 * np.mean([r.mean_loss for r in records[:4]])
    before, after = _weights(tiny_models["qwen3"]), _weights(tmp_path / "m")
    assert before.keys() == after.keys()
    moved = {key for key in before if not np.allclose(before[key], after[key], atol=1e-7)}
    assert len(moved) == 14 and all("_proj" in key for key in moved)
    assert (tmp_path / "m" / "adapter" / "adapter_config.json").exists()


def test_bf16_autocast_trains_near_float32(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    losses = []
    for bf16 in (False, True):
        config = _changed(bf16=bf16, epochs=1, temperature=0.2)
        result = train(examples, tiny_models["bert"], tmp_path / str(bf16), config)
        losses.append([record.mean_loss for record in read_log(result.log_path)])
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0] != losses[1]


def test_another_pooling_than_the_bases_own_is_trained_saved_and_warned_of(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train(examples, tiny_models["bert"], tmp_path / "m", _changed(epochs=1, pooling="cls"))
        assert Encoder.load(tmp_path / "m").pooling == "cls"
        train(examples, tiny_models["qwen3"], tmp_path / "q", _changed(epochs=1, pooling="last_token"))
    said = [record.message for record in caplog.records if "pooled" in record.message]
    assert [line.split(" is ", 1)[1] for line in said] == ["pooled by cls as asked for; its own pooling is mean."]


def test_a_second_run_does_nothing_and_a_changed_one_is_refused_by_key(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    config = _changed(epochs=1)
    first = train(examples, tiny_models["bert"], tmp_path / "m", config)

    def never(_record: StepRecord, _steps: int) -> None:
        raise AssertionError("nothing was to be trained")

    again = train(examples, tiny_models["bert"], tmp_path / "m", config, progress=never)
    assert again == first
    train(
        examples,
        tiny_models["bert"],
        tmp_path / "m",
        _changed(epochs=1, micro_batch_tokens=64),
        progress=never,
    )
    with pytest.raises(StageChanged, match=r"temperature was 0\.02 and is 0\.05 now"):
        train(examples, tiny_models["bert"], tmp_path / "m", _changed(epochs=1, temperature=0.05))
    with pytest.raises(StageChanged, match="training examples"):
        train(examples[:-1], tiny_models["bert"], tmp_path / "m", config)
    with pytest.raises(StageChanged, match="base model was bert and is llama"):
        train(examples, tiny_models["llama"], tmp_path / "m", config)
    anew = train(examples, tiny_models["bert"], tmp_path / "m", _changed(epochs=1, seed=1), resume=False)
    assert anew.totals.steps == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_the_same_call_goes_on(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, number: signal.Signals
) -> None:
    def stop(record: StepRecord, _steps: int) -> None:
        if record.step == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(TrainingStopped, match=f"{number.name} after step 3 of 12"):
        train(examples, tiny_models["bert"], tmp_path / "m", CONFIG, progress=stop)
    assert signal.getsignal(number) == before
    assert not (tmp_path / "m").exists()
    steps: list[int] = []
    train(examples, tiny_models["bert"], tmp_path / "m", CONFIG, progress=lambda r, _: steps.append(r.step))
    assert steps == list(range(4, 13))


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_models["bert"], tmp_path / "broken"))
    weights = load_file(base / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ReasonEmbedError, match=r"not finite at step 1 .*diverged\.json"):
        train(examples, base, tmp_path / "m", CONFIG)
    report = json.loads((tmp_path / "m.training" / "diverged.json").read_text())
    known = {example.example_id for example in examples}
    assert report["examples"] and {row["example_id"] for row in report["examples"]} <= known
    assert not (tmp_path / "m").exists()


def _memory_for(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on memory holds micro-batches of so many padded tokens, in training."""
    embed = Encoder.embed

    def limited(self: Encoder, ids: Sequence[TokenIds], **options: object) -> torch.Tensor:
        if len(ids) * max(map(len, ids)) > tokens and not torch.is_inference_mode_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(self, ids, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Encoder, "embed", limited)


def test_when_memory_runs_out_the_micro_batch_is_halved_and_the_step_repeated(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = _changed(micro_batch_tokens=520)
    plenty = train(examples, tiny_models["bert"], tmp_path / "plenty", config)
    _memory_for(130, monkeypatch)
    with caplog.at_level(logging.WARNING):
        little = train(examples, tiny_models["bert"], tmp_path / "little", config)
    said = [record.message for record in caplog.records if "Memory ran out" in record.message]
    assert [line.split("have ")[1].split(" tokens")[0] for line in said] == ["260", "130"]
    assert all("at step 2;" in line for line in said)
    log = read_log(little.log_path)
    assert [record.loss for record in log] == pytest.approx([r.loss for r in read_log(plenty.log_path)], abs=1e-3)
    assert [record.graph_kept for record in log] == [True] + [False] * 11


def test_a_resumed_training_remembers_that_memory_ran_out_unless_another_size_is_asked_for(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(record: StepRecord, _steps: int) -> None:
        if record.step in (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)

    _memory_for(130, monkeypatch)
    for asked, heard in ((520, 2), (520, 0), (200, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING), contextlib.suppress(TrainingStopped):
            train(examples, tiny_models["bert"], tmp_path / "m", _changed(micro_batch_tokens=asked), progress=stop)
        assert sum("Memory ran out" in record.message for record in caplog.records) == heard


def test_memory_for_not_even_one_text_is_an_error_with_its_cure(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _memory_for(20, monkeypatch)
    with pytest.raises(ReasonEmbedError, match=r"longest text of \d+ stands alone\. Lower max_query_tokens"):
        train(examples, tiny_models["bert"], tmp_path / "m", CONFIG)


def test_cut_texts_are_counted_and_said_once(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        result = train(examples, tiny_models["bert"], tmp_path / "m", _changed(max_passage_tokens=12, epochs=1))
    assert result.totals.truncated > 0
    said = [record for record in caplog.records if "were longer than the limit" in record.message]
    assert len(said) == 1 and str(result.totals.truncated) in said[0].message


def test_what_cannot_be_trained_on_is_refused(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no training examples"):
        train([], tiny_models["bert"], tmp_path / "m", CONFIG)
    bare = [msgspec.structs.replace(examples[0], reasoning_query=" "), *examples[1:]]
    with pytest.raises(InputError, match="'biology-0' of biology has no reasoning query"):
        train(bare, tiny_models["bert"], tmp_path / "m", CONFIG)
    with pytest.raises(InputError, match="no model folder"):
        train(examples, tmp_path / "nowhere", tmp_path / "m", CONFIG)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("precious")
    for resume in (True, False):
        with pytest.raises(InputError, match="no training of ours"):
            train(examples, tiny_models["bert"], tmp_path / "taken", CONFIG, resume=resume)
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "precious"
    assert train(bare, tiny_models["bert"], tmp_path / "m", _changed(loss="infonce", epochs=1)).totals.steps == 4


def test_without_negatives_groups_of_one_train_as_if_there_were_some_and_larger_ones_are_refused_at_once(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    pairs = [msgspec.structs.replace(example, negatives=()) for example in examples]
    config = _changed(epochs=1, group_size=1)
    train(examples, tiny_models["bert"], tmp_path / "triples", config)
    train(pairs, tiny_models["bert"], tmp_path / "pairs", config)
    assert _equal(tmp_path / "triples", tmp_path / "pairs"), "their negatives were never drawn"
    assert not _equal(tiny_models["bert"], tmp_path / "pairs"), "other queries' positives taught something"
    with pytest.raises(InputError, match=r"'biology-0' of biology: no negatives\. .*group_size = 1 \(--group-size 1\)"):
        train(pairs, tmp_path / "no model", tmp_path / "m", CONFIG)
