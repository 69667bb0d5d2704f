"""How far a phase has come: a bar with rate and ETA on a terminal, one line in the log elsewhere.

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
from typing import Any, Protocol

from reasonembed.processes import is_first

logger = logging.getLogger(__name__)

Advance = Callable[[int], None]


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
    """A phase of `total` steps: shown as it goes if stderr is a terminal and INFO is logged, else one line.

    note: what else is said at the end of the line. Of several processes only the first speaks.
    """
    done = 0
    started = time.perf_counter()
    speaks = logger.isEnabledFor(logging.INFO) and is_first()
    bar = _Bar(label, total) if speaks and sys.stderr.isatty() else None

    def advance(steps: int) -> None:
        nonlocal done
        done += steps
        if bar is not None:
            bar.advance(steps, note() if note else "")

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()
        elif speaks:
            line = _line(label, done, total, time.perf_counter() - started)
            said = note() if note else ""
            logger.info(f"{line}, {said}" if said else line)


def _line(label: str, done: int, total: int | None, seconds: float) -> str:
    count = f"{done:,}" if total is None or total == done else f"{done:,} of {total:,}"
    return f"{label}: {count} in {seconds:.1f} s ({done / max(seconds, 1e-9):,.0f}/s)"


class _Bar:
    """One line of the display that all phases of the process share; nested phases are further lines."""

    _display: Any = None
    _open = 0
    _lock = threading.Lock()

    def __init__(self, label: str, total: int | None) -> None:
        with _Bar._lock:
            if _Bar._open == 0:
                _Bar._display = _new_display()
                _Bar._display.start()
            _Bar._open += 1
            self._shown = _Bar._display
        self._task = self._shown.add_task(label, total=total, note="")

    def advance(self, steps: int, note: str) -> None:
        self._shown.update(self._task, advance=steps, note=note)

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
            return f"{speed:,.1f}/s" if speed is not None else "?/s"

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
