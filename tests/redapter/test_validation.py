"""A training is validated as its model will be judged, saves its best weights, stops when patience ends, and resumes
exactly (law 6); several processes decide as one (law 5)."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reasonembed.beir import Collection, write_beir
from reasonembed.encoder.frozen import FrozenStates
from reasonembed.encoder.lora import LoraSettings
from reasonembed.encoder.model import Encoder
from reasonembed.errors import ConfigError, StageChanged
from reasonembed.evaluate.run import evaluate
from reasonembed.files import read_jsonl
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import StepRecord, ValidationRecord, read_log
from reasonembed.redapter.receipt import read_manifest
from reasonembed.redapter.train import TrainConfig, TrainingStopped, train
from reasonembed.redapter.validation import VALIDATION_LOG, Validation, best_of, warn_of_idle_patience, without_gain
from reasonembed.search.systems import DenseSystem

if TYPE_CHECKING:
    from conftest import Worlds

CONFIG = TrainConfig(
    start_step=5,
    epochs=3,
    learning_rate=2e-3,
    max_query_tokens=48,
    max_passage_tokens=32,
    checkpoint_every_steps=2,
    validate_every_steps=3,
)


def _records(*scores: float) -> list[ValidationRecord]:
    return [ValidationRecord(10 * place, score, {"x": score}, 0.0) for place, score in enumerate(scores)]


def _scripted(monkeypatch: pytest.MonkeyPatch, scores: dict[int, float]) -> None:
    """From here on, validation after a step gives that step's score."""
    monkeypatch.setattr(Validation, "_scores", lambda self, encoder, step, budget_tokens: {"biology": scores[step]})


def _same_model(one: Path, other: Path) -> None:
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def _log(folder: Path) -> list[ValidationRecord]:
    rows = read_jsonl(folder / VALIDATION_LOG, ValidationRecord)
    return [msgspec.structs.replace(row, seconds=0) for row in rows]


def _steps(folder: Path) -> list[StepRecord]:
    return [msgspec.structs.replace(record, seconds=0) for record in read_log(folder / "train_log.jsonl")]


@pytest.mark.parametrize(
    ("scores", "best", "without"),
    [((0.5,), 0, 0), ((0.1, 0.3, 0.2), 1, 1), ((0.1, 0.3, 0.3, 0.3), 1, 2), ((0.4, 0.1, 0.4, 0.5), 3, 0)],
)
def test_of_equal_scores_the_earlier_is_the_best(scores: tuple[float, ...], best: int, without: int) -> None:
    records = _records(*scores)
    assert best_of(records) is records[best]
    assert without_gain(records) == without


@pytest.mark.parametrize(("name", "layers", "rate"), [("qwen3", 1, 5e-3), ("qwen3", None, 5e-3)])
def test_a_score_is_that_of_the_saved_model_and_of_the_base(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    name: str,
    layers: int | None,
    rate: float,
) -> None:
    config = msgspec.structs.replace(CONFIG, epochs=6, learning_rate=rate, train_layers=layers)
    seen: list[ValidationRecord] = []
    result = train(
        examples,
        tiny_models[name],
        tmp_path / "m",
        config,
        validation=collections,
        validated=lambda record, _: seen.append(record),
    )
    assert [record.step for record in seen] == [0, 3, 6, 9, 12, 15, 18, 21, 24]
    assert len({record.score for record in seen}) > 3, "the queries tell the models apart"
    own = {"biology": "Given a biology post, find passages."}
    general = Encoder.load(tmp_path / "m").prompts["query"].removeprefix("Instruct: ").removesuffix("\nQuery: ")
    base = DenseSystem(
        Encoder.load(tiny_models[name]), instructions=own | {"robotics": general}, max_tokens=CONFIG.max_query_tokens
    )
    found = evaluate(base, collections, measures=["nDCG@10"])
    assert seen[0].per_domain == pytest.approx(found.per_domain["nDCG@10"])
    assert seen[0].score == pytest.approx(found.mean["nDCG@10"].mean)
    best = max(seen, key=lambda record: record.score)
    assert result.validation is not None and result.validation.best_step == best.step > 0
    trained = DenseSystem(Encoder.load(tmp_path / "m"), own_prompts=True, max_tokens=CONFIG.max_query_tokens)
    assert best.per_domain == pytest.approx(evaluate(trained, collections).per_domain["nDCG@10"])


def test_the_best_weights_are_saved_and_manifest_card_and_result_say_which(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _scripted(monkeypatch, {0: 0.1, 4: 0.3, 8: 0.3, 12: 0.2})
    config = msgspec.structs.replace(CONFIG, validate_every_steps=4, checkpoint_every_steps=4, keep_checkpoints=9)
    only = {"biology": collections["biology"]}
    result = train(examples, tiny_models["bert"], tmp_path / "m", config, validation=only, keep_work=True)
    after_4 = load_file(tmp_path / "m.training" / "step-00000004" / "weights.safetensors")
    saved = load_file(tmp_path / "m" / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in after_4.items())
    manifest = read_manifest(tmp_path / "m")
    assert manifest is not None and manifest.validation == result.validation
    assert msgspec.to_builtins(result.validation) == {
        "measure": "nDCG@10", "queries": 8, "domains": ["biology"], "best_step": 4, "best_score": 0.3,
        "base_score": 0.1, "validations": 4, "planned_steps": 12, "stopped_early": False,
    }  # fmt: skip
    assert [(record.step, record.score) for record in _log(tmp_path / "m")] == [(0, 0.1), (4, 0.3), (8, 0.3), (12, 0.2)]
    card = (tmp_path / "m" / "README.md").read_text()
    assert "those after step 4, the best of 4 validations: nDCG@10 0.3000 (base: 0.1000) on 8 queries" in card
    assert train(examples, tiny_models["bert"], tmp_path / "m", config, validation=only) == result, "done is done"


def test_lora_saves_its_best_weights_merged(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _scripted(monkeypatch, {0: 0.5, 12: 0.5})
    config = msgspec.structs.replace(CONFIG, lora=LoraSettings(rank=2, alpha=4), validate_every_steps=0)
    with caplog.at_level(logging.WARNING):
        train(examples, tiny_models["qwen3"], tmp_path / "m", config, validation=collections)
    before, after = (load_file(path / "model.safetensors") for path in (tiny_models["qwen3"], tmp_path / "m"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()), "the base was the best"
    assert any("No validation was better than the base model's 0.5000" in record.message for record in caplog.records)


def test_patience_ends_the_training_and_says_so(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _scripted(monkeypatch, {0: 0.1, 2: 0.2, 4: 0.4, 6: 0.4, 8: 0.3, 10: 0.9, 12: 0.9})
    config = msgspec.structs.replace(CONFIG, validate_every_steps=2, patience=2)
    with caplog.at_level(logging.INFO):
        result = train(examples, tiny_models["bert"], tmp_path / "m", config, validation=collections)
    assert result.totals.steps == 8 and [record.step for record in _log(tmp_path / "m")] == [0, 2, 4, 6, 8]
    assert result.validation is not None and result.validation.stopped_early
    assert (result.validation.best_step, result.validation.planned_steps) == (4, 12)
    assert "patience ended the training before the 12 steps" in (tmp_path / "m" / "README.md").read_text()
    said = [record.message for record in caplog.records if "Stopped early" in record.message]
    assert said == ["Stopped early after step 8 of 12: 2 validations in a row were no better than 0.4000 after step 4."]
    _scripted(monkeypatch, {0: 0.1, 6: 0.4, 12: 0.3})
    whole = msgspec.structs.replace(CONFIG, validate_every_steps=6, patience=1)
    to_the_end = train(examples, tiny_models["bert"], tmp_path / "n", whole, validation=collections)
    assert to_the_end.validation is not None and not to_the_end.validation.stopped_early, "there was no step left"


@pytest.mark.parametrize(
    ("patience", "every", "said"),
    [
        (3, 4, "with validate_every_steps = 4 so many validations take 12 steps, and 12 are planned. Set "
               "validate_every_steps to 3 or less"),
        (11, 50, "take 550 steps, and 12 are planned. Set validate_every_steps to 1 or less"),
        (12, 1, "take 12 steps, and 12 are planned. Train for more steps, or leave patience out."),
        (11, 1, None),
        (3, 3, None),
    ],
)  # fmt: skip
def test_patience_that_the_planned_steps_cannot_use_up_is_warned_of(
    patience: int, every: int, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever is warned could not have been stopped, and who is not could: tried with scores that only fall."""
    config = msgspec.structs.replace(CONFIG, validate_every_steps=every, patience=patience)
    warn_of_idle_patience(config, 12)
    assert [record.message for record in caplog.records if said and said in record.message] == caplog.messages
    assert len(caplog.messages) == (said is not None)
    falling = [-float(step) for step in range(0, 12, every)]  # all validations that precede a step
    assert (without_gain(_records(*falling)) >= patience) == (said is None)


def test_training_warns_of_idle_patience_before_its_first_step(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _scripted(monkeypatch, {0: 0.1})
    config = msgspec.structs.replace(CONFIG, validate_every_steps=50, patience=1)
    with pytest.raises(_Killed):
        train(examples, tiny_models["bert"], tmp_path / "m", config, validation=collections, progress=_kill_at(1))
    assert any("patience is 1 and can end nothing" in message for message in caplog.messages)


class _Killed(Exception):
    """Stands for a kill: nothing is caught or saved on the way out."""


def _kill_at(step: int) -> Callable[..., None]:
    def kill(record: StepRecord | ValidationRecord, _: int | ValidationRecord) -> None:
        if record.step == step:
            raise _Killed

    return kill


PEAK_AT_3 = {0: 0.2, 3: 0.9, 6: 0.5, 9: 0.9, 12: 0.7}
PEAK_AT_0 = dict.fromkeys((0, 3, 6, 9, 12), 0.5)


@pytest.mark.parametrize(
    ("name", "lora", "scores"),
    [("bert", None, PEAK_AT_3), ("bert", None, PEAK_AT_0), ("qwen3", LoraSettings(rank=2, alpha=4), None)],
)
@pytest.mark.parametrize(
    "kills", [[("validated", 0)], [("validated", 3)], [("step", 4), ("validated", 6), ("step", 9), ("validated", 12)]]
)
def test_a_training_killed_anywhere_ends_in_the_same_bytes_and_log(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    lora: LoraSettings | None,
    kills: list[tuple[str, int]],
    scores: dict[int, float] | None,
) -> None:
    if scores is not None:
        _scripted(monkeypatch, scores)
    config = msgspec.structs.replace(CONFIG, lora=lora)

    def run(out: str, **options: Any) -> None:
        train(examples, tiny_models[name], tmp_path / out, config, validation=collections, **options)

    run("whole")
    for what, step in kills:
        with pytest.raises(_Killed):
            run("cut", **{"validated" if what == "validated" else "progress": _kill_at(step)})
    torch.manual_seed(999)  # whatever else the process did must not matter
    with caplog.at_level(logging.WARNING):
        run("cut")
    assert not [record.message for record in caplog.records if "damaged" in record.message]
    one, other = tmp_path / "whole", tmp_path / "cut"
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (one / "README.md").read_bytes() == (other / "README.md").read_bytes()
    assert _log(one) == _log(other) and _steps(one) == _steps(other)
    manifests = [read_manifest(folder) for folder in (one, other)]
    assert manifests[0] and manifests[1] and manifests[0].validation == manifests[1].validation


def test_a_signal_at_the_step_that_ends_patience_leaves_nothing_to_do_but_save(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _scripted(monkeypatch, PEAK_AT_3)
    config = msgspec.structs.replace(CONFIG, patience=1, checkpoint_every_steps=0)

    def stop(record: StepRecord, _steps: int) -> None:
        if record.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingStopped, match="after step 6 of 12"):
        train(examples, tiny_models["bert"], tmp_path / "cut", config, validation=collections, progress=stop)
    more: list[int] = []
    options: dict[str, Any] = {
        "progress": lambda r, _: more.append(r.step),
        "validated": lambda r, _: more.append(r.step),
    }
    train(examples, tiny_models["bert"], tmp_path / "cut", config, validation=collections, **options)
    assert more == []
    train(examples, tiny_models["bert"], tmp_path / "whole", config, validation=collections)
    _same_model(tmp_path / "whole", tmp_path / "cut")


def test_a_better_score_that_a_kill_undid_leaves_the_best_weights_before_it(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a device whose sums round otherwise in the second run."""

    def run(out: str, scores: dict[int, float], **options: Any) -> None:
        _scripted(monkeypatch, scores)
        train(examples, tiny_models["bert"], tmp_path / out, CONFIG, validation=collections, **options)

    after = {0: 0.2, 3: 0.3, 6: 0.1, 9: 0.1, 12: 0.1}
    run("whole", after)
    for out, kill in (("before", {"progress": _kill_at(5)}), ("cut", {"validated": _kill_at(6)})):
        with pytest.raises(_Killed):
            run(out, {0: 0.2, 3: 0.3, 6: 0.9}, **kill)
        run(out, after, keep_work=True)
        _same_model(tmp_path / "whole", tmp_path / out)
        assert not list((tmp_path / f"{out}.training").glob(".tmp*"))


def test_best_weights_that_are_damaged_in_a_checkpoint_are_noticed(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(_Killed):
        train(examples, tiny_models["bert"], tmp_path / "cut", CONFIG, validation=collections, progress=_kill_at(7))
    newest = sorted((tmp_path / "cut.training").glob("step-*"))[-1] / "best.safetensors"
    content = bytearray(newest.read_bytes())
    newest.unlink()
    content[-1] ^= 0xFF
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        train(examples, tiny_models["bert"], tmp_path / "cut", CONFIG, validation=collections)
    assert any("best.safetensors is not what was written" in record.message for record in caplog.records)
    train(examples, tiny_models["bert"], tmp_path / "whole", CONFIG, validation=collections)
    _same_model(tmp_path / "whole", tmp_path / "cut")


def test_on_a_disk_without_links_the_best_weights_are_copied(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    options: dict[str, Any] = {"validation": collections}
    with pytest.raises(_Killed):
        train(examples, tiny_models["bert"], tmp_path / "cut", CONFIG, **options, progress=_kill_at(7))
    assert (tmp_path / "cut.training" / "step-00000006" / "best.safetensors").stat().st_nlink == 1
    for out in ("cut", "whole"):
        train(examples, tiny_models["bert"], tmp_path / out, CONFIG, **options)
    _same_model(tmp_path / "whole", tmp_path / "cut")


def test_validation_changes_no_step_and_keeps_no_states_of_its_documents(
    tiny_models: dict[str, Path], examples: list[TrainingExample], collections: dict[str, Collection], tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, train_layers=1)
    kept = {"without": FrozenStates(), "with": FrozenStates()}
    train(examples, tiny_models["bert"], tmp_path / "without", config, frozen=kept["without"])
    train(examples, tiny_models["bert"], tmp_path / "with", config, frozen=kept["with"], validation=collections)
    assert _steps(tmp_path / "without") == _steps(tmp_path / "with")
    assert len(kept["with"]) == len(kept["without"]) > 0
    manifest = read_manifest(tmp_path / "without")
    assert manifest is not None and manifest.validation is None
    assert not (tmp_path / "without" / VALIDATION_LOG).exists()
    assert "validation" not in (tmp_path / "without" / "README.md").read_text()


def test_patience_without_queries_and_other_queries_for_the_same_training_are_refused(
    tiny_models: dict[str, Path], examples: list[TrainingExample], collections: dict[str, Collection], tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, patience=1)
    with pytest.raises(ConfigError, match=r"patience is 1 and there is nothing to validate on\. Give validation"):
        train(examples, tiny_models["bert"], tmp_path / "m", config)
    with pytest.raises(_Killed):
        train(examples, tiny_models["bert"], tmp_path / "m", CONFIG, validation=collections, progress=_kill_at(5))
    for others in (None, {"biology": collections["biology"]}):
        with pytest.raises(StageChanged, match="the validation queries were others"):
            train(examples, tiny_models["bert"], tmp_path / "m", CONFIG, validation=others)
    less = msgspec.structs.replace(CONFIG, validate_every_steps=2)
    with pytest.raises(StageChanged, match="validate_every_steps was 3 and is 2 now"):
        train(examples, tiny_models["bert"], tmp_path / "m", less, validation=collections)


def test_two_processes_validate_stop_and_resume_as_one(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    run_worlds: Callable[[Path, list[dict[str, Any]]], Worlds],
    tmp_path: Path,
) -> None:
    (tmp_path / "examples.json").write_bytes(msgspec.json.encode(examples))
    for name, collection in collections.items():
        write_beir(tmp_path / "validation" / name, collection)
    config = msgspec.structs.replace(CONFIG, epochs=6, patience=2)

    def job(name: str, size: int, into: str, happens: dict[str, Any] | None = None) -> dict[str, Any]:
        arguments = {
            "data": str(tmp_path / "examples.json"), "base": str(tiny_models["bert"]), "out": str(tmp_path / into),
            "config": config, "happens": happens, "validation": str(tmp_path / "validation"),
        }  # fmt: skip
        return {"name": name, "size": size, "run": "train", "arguments": arguments}

    killed = {"rank": 1, "step": 5, "what": "SIGKILL"}
    jobs = [job("one", 1, "one"), job("two", 2, "two"), job("killed", 2, "cut", killed), job("resumed", 2, "cut")]
    worlds = run_worlds(tmp_path, jobs)
    assert worlds.codes == {"one": [0], "two": [0, 0], "killed": [1, -9], "resumed": [0, 0]}, worlds.said
    one, two, cut = (_log(tmp_path / out) for out in ("one", "two", "cut"))
    assert [record.step for record in two] == [record.step for record in one]
    assert [record.score for record in two] == pytest.approx([record.score for record in one])
    assert cut == two
    summaries = [read_manifest(tmp_path / out) for out in ("one", "two", "cut")]
    assert all(found and found.validation for found in summaries)
    assert len({found.validation.best_step for found in summaries if found and found.validation}) == 1
    resumed, whole = (tmp_path / out / "model.safetensors" for out in ("cut", "two"))
    assert resumed.read_bytes() == whole.read_bytes()
    for name, tensor in load_file(tmp_path / "one" / "model.safetensors").items():
        assert torch.allclose(tensor, load_file(whole)[name], atol=1e-8)
