"""How far a phase has come, with rate and ETA: a bar on a terminal, lines in the log elsewhere.

with progress.task("mine biology", total=n) as advance:
    advance(1)
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Protocol

from reasonembed.processes import is_first

logger = logging.getLogger(__name__)

Advance = Callable[[int], None]

LINE_EVERY_S = 60.0  # away from a terminal: our choice, some dozens of lines for a run of an hour


class Progress(Protocol):
    """What shows how far a phase has come; this module is one, and so may be an object of your own."""

    def task(
        self, label: str, *, total: int | None = None, note: Callable[[], str] | None = None
    ) -> AbstractContextManager[Advance]:
        """A phase of `total` steps (None: unknown); the block calls what it gets with the steps done.

        note: says more about how it stands, for example what was spent; called now and then.
        """
        ...


@contextlib.contextmanager
def task(label: str, *, total: int | None = None, note: Callable[[], str] | None = None) -> Iterator[Advance]:
    """A phase of `total` steps: shown as it goes if stderr is a terminal and INFO is logged, else a line in the log
    every `LINE_EVERY_S` and one at the end.

    note: what else is said at the end of the line. Of several processes only the first speaks.
    """
    if not (logger.isEnabledFor(logging.INFO) and is_first()):
        yield _ignore
        return
    shown = (_Bar if sys.stderr.isatty() else _Lines)(label, total, note or str)  # str() is empty
    try:
        yield shown.advance
    finally:
        shown.close()


def _ignore(steps: int) -> None:
    """Nobody listens."""


class _Lines:
    """Now and then a line in the log, and one at the end."""

    def __init__(self, label: str, total: int | None, note: Callable[[], str]) -> None:
        self._label, self._total, self._note = label, total, note
        self._done = 0
        self._started = self._spoke = time.monotonic()

    def advance(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._spoke < LINE_EVERY_S or self._done in (0, self._total):
            return
        self._spoke = now
        each = (now - self._started) / self._done
        left = "" if self._total is None else f", {timedelta(seconds=round(each * (self._total - self._done)))} left"
        self._say(f"{self._count()}, {_rate(each)}{left}")

    def close(self) -> None:
        seconds = time.monotonic() - self._started
        rate = f" ({_rate(seconds / self._done)})" if self._done else ""
        self._say(f"{self._count()} in {seconds:.1f} s{rate}")

    def _count(self) -> str:
        return f"{self._done:,}" if self._total in (None, self._done) else f"{self._done:,} of {self._total:,}"

    def _say(self, text: str) -> None:
        note = self._note()
        logger.info(f"{self._label}: {text}, {note}" if note else f"{self._label}: {text}")


def _rate(seconds_each: float) -> str:
    """Steps a second, or seconds a step where that is more than one."""
    if seconds_each > 1:
        return f"{seconds_each:,.1f} s each"
    rate = 1 / max(seconds_each, 1e-9)
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"


class _Bar:
    """One line of the display that all phases of the process share; nested phases are further lines."""

    _display: Any = None
    _open = 0
    _lock = threading.Lock()

    def __init__(self, label: str, total: int | None, note: Callable[[], str]) -> None:
        self._note = note
        with _Bar._lock:
            if _Bar._open == 0:
                _Bar._display = _new_display()
                _Bar._display.start()
            _Bar._open += 1
            self._shown = _Bar._display
        self._task = self._shown.add_task(label, total=total, note="")

    def advance(self, steps: int) -> None:
        self._shown.update(self._task, advance=steps, note=self._note())

    def close(self) -> None:
        self._shown.stop_task(self._task)
        with _Bar._lock:
            _Bar._open -= 1
            if _Bar._open == 0:
                self._shown.stop()


def _new_display() -> Any:
    from rich import progress
    from rich.console import Console

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> str:
            speed = task.finished_speed or task.speed
            return _rate(1 / speed) if speed else "?/s"

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        Rate(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )


__all__ = ["Advance", "Progress", "task"]
