"""A training told to a tracker, step by step and validation by validation, through accelerate's tracker classes.

Nothing is sent or written unless a tracker is asked for; `train_log.jsonl` is written in any case. A training that
goes on from a checkpoint tells the tracker anew the steps that a kill undid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.errors import ConfigError, MissingExtra, nearest
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.log import StepRecord, ValidationRecord

_MEASURED = ("loss", "mean_loss", "learning_rate", "gradient_norm", "tokens_per_s", "padding_share")


class Tracking:
    """A tracker that is started by the first thing it is told, when the processes of a training have met."""

    def __init__(self, tracker: Any, settings: dict[str, Any]) -> None:
        self._tracker, self._settings, self._started = tracker, settings, False

    def step(self, record: StepRecord) -> None:
        """Tell one step."""
        values = {f"train/{name}": getattr(record, name) for name in _MEASURED}
        values |= {f"train/term/{name}": value for name, value in (record.terms or {}).items()}
        if (intensity := record.intensity) is not None:
            values |= {
                "train/intensity_median": intensity.quartiles[1],
                "train/effective_samples": intensity.effective_samples,
            }
        self._tell(values, record.step)

    def validation(self, record: ValidationRecord) -> None:
        """Tell one validation."""
        values = {"validation/mean": record.score}
        self._tell(values | {f"validation/{name}": score for name, score in record.per_domain.items()}, record.step)

    def finish(self) -> None:
        """Let the tracker write what it holds."""
        if self._started:
            self._tracker.finish()

    def _tell(self, values: dict[str, float], step: int) -> None:
        if not self._started:
            self._tracker.start()
            self._tracker.store_init_configuration(self._settings)
            self._started = True
        self._tracker.log(values, step=step)


@contextlib.contextmanager
def tracking(name: str, out: Path, config: TrainConfig) -> Iterator[Tracking]:
    """The tracker of that name, for the training that ends in `out`: its last part names the run (wandb: the project).

    Files go to `tracker/` beside `out` (`tensorboard --logdir`). Raises ConfigError for a tracker that accelerate does
    not know, MissingExtra if its package is not installed.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    if name not in LOGGER_TYPE_TO_CLASS:
        known = sorted(LOGGER_TYPE_TO_CLASS)
        raise ConfigError(f'unknown tracker "{name}"{nearest(name, known) or "."} Known: {", ".join(known)}.')
    if name in LoggerType.list() and name not in map(str, get_available_trackers()):
        raise MissingExtra(f"the tracker {name} is not installed here. Install it with: pip install {name}")
    kind = LOGGER_TYPE_TO_CLASS[name]
    folder = [out.parent / "tracker"] if kind.requires_logging_directory else []
    tracked = Tracking(kind(out.name, *folder), _flat(config))
    try:
        yield tracked
    finally:
        tracked.finish()


def _flat(config: TrainConfig) -> dict[str, Any]:
    """The settings as numbers, texts and truth values, which is all that a tracker takes."""
    values = msgspec.to_builtins(config)
    plain = (bool, int, float, str)
    return {key: value if isinstance(value, plain) else str(value) for key, value in values.items()}


__all__ = ["Tracking", "tracking"]
