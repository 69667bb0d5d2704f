"""A tracker of accelerate's kind is told each step and validation; what it cannot be is said before any training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers, register_tracker_class
from accelerate.utils import LoggerType

from reasonembed.encoder.lora import LoraSettings
from reasonembed.errors import ConfigError, MissingExtra
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import ValidationRecord, read_log
from reasonembed.redapter.trackers import tracking
from reasonembed.redapter.train import TrainConfig, train

CONFIG = TrainConfig(start_step=0, max_query_tokens=48, max_passage_tokens=32, distill_weight=0.5)


class Noting(GeneralTracker):
    """Notes what it is told, in order."""

    name = "noting"
    requires_logging_directory = True
    told: list[tuple[Any, ...]]

    def __init__(self, run_name: str, logging_dir: Path, **_: Any) -> None:
        super().__init__()
        type(self).told = [("made", run_name, logging_dir)]

    @property
    def tracker(self) -> Any:
        return self.told

    def start(self) -> None:
        self.told.append(("start",))

    def store_init_configuration(self, values: dict) -> None:
        self.told.append(("settings", values))

    def log(self, values: dict, step: int | None = None, **_: Any) -> None:
        self.told.append(("log", step, values))

    def finish(self) -> None:
        self.told.append(("finish",))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register_tracker_class(Noting)
    yield
    del LOGGER_TYPE_TO_CLASS[Noting.name]


def test_a_tracker_is_told_what_the_log_holds(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    with tracking("noting", tmp_path / "m", CONFIG) as tracked:
        assert Noting.told == [("made", "m", tmp_path / "tracker")], "nothing is started before it has to be"
        result = train(examples, tiny_models["bert"], tmp_path / "m", CONFIG, progress=lambda r, _: tracked.step(r))
        tracked.validation(ValidationRecord(4, 0.25, {"pony": 0.5, "biology": 0.0}, 1.0))
    _, start, (_, settings), *logged, finish = Noting.told
    assert (start, finish) == (("start",), ("finish",))
    assert settings["learning_rate"] == 1e-4 and settings["loss"] == "ri-infonce"
    assert logged.pop() == ("log", 4, {"validation/mean": 0.25, "validation/pony": 0.5, "validation/biology": 0.0})
    records = read_log(result.log_path)
    assert [step for _, step, _ in logged] == [record.step for record in records] == [1, 2, 3, 4]
    for (_, _, values), record in zip(logged, records, strict=True):
        assert values["train/loss"] == record.loss and values["train/learning_rate"] == record.learning_rate
        assert record.terms and values["train/term/distillation"] == record.terms["distillation"]
        assert record.intensity and values["train/intensity_median"] == record.intensity.quartiles[1]


def test_settings_are_plain_values() -> None:
    config = TrainConfig(lora=LoraSettings(), matryoshka_dims=(8, 16))
    with tracking("noting", Path("m"), config) as tracked:
        tracked.validation(ValidationRecord(0, 0.5, {}, 0.0))
    settings = Noting.told[2][1]
    assert all(isinstance(value, bool | int | float | str) for value in settings.values())
    assert settings["matryoshka_dims"] == "(8, 16)" and "32" in settings["lora"]


def test_a_tracker_that_fails_to_train_is_finished_all_the_same() -> None:
    with pytest.raises(KeyboardInterrupt), tracking("noting", Path("m"), CONFIG) as tracked:
        tracked.validation(ValidationRecord(0, 0.5, {}, 0.0))
        raise KeyboardInterrupt
    assert Noting.told[-1] == ("finish",)


def test_an_unknown_tracker_and_one_that_is_not_installed_are_refused_with_the_cure() -> None:
    with pytest.raises(ConfigError, match='unknown tracker "tensorbord"; did you mean "tensorboard"'):
        tracking("tensorbord", Path("m"), CONFIG).__enter__()
    missing = [name for name in LoggerType.list() if name not in [*map(str, get_available_trackers()), "all"]]
    for name in missing:
        with pytest.raises(MissingExtra, match=f"pip install {name}"):
            tracking(name, Path("m"), CONFIG).__enter__()
    assert missing, "no machine has all of them"
