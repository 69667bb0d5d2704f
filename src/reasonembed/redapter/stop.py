"""SIGTERM and Ctrl-C during training: noted, so that the step can end and a checkpoint be saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from reasonembed.errors import ReasonEmbedError


class TrainingStopped(ReasonEmbedError):
    """SIGTERM or Ctrl-C came; a checkpoint was saved, and the same call goes on from it."""

    exit_code = 130


@contextlib.contextmanager
def stop_signals() -> Iterator[list[signal.Signals]]:
    """A list that gets SIGTERM or SIGINT when it comes; a second one acts as it always did.

    Outside the main thread, where Python delivers no signals, the list stays empty.
    """
    caught: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, _frame: object) -> None:
        caught.append(signal.Signals(number))
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
