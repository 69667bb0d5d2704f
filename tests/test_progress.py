"""Progress: a bar on a terminal, lines in the log elsewhere, nothing when nobody listens."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest

from reasonembed import progress


class Terminal(io.StringIO):
    """What stderr is when a person looks at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def listening(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="reasonembed.progress")
    return caplog


def test_away_from_a_terminal_a_phase_is_one_line_with_its_numbers(
    listening: pytest.LogCaptureFixture,
) -> None:
    with progress.task("mine biology", total=2000) as advance:
        advance(1500)
        advance(500)
    with pytest.raises(ZeroDivisionError), progress.task("mine pony", total=9) as advance:
        advance(4)
        raise ZeroDivisionError
    first, second = listening.messages
    assert first.startswith("mine biology: 2,000 in ") and first.endswith("/s)")
    assert second.startswith("mine pony: 4 of 9 in ")


def test_away_from_a_terminal_long_work_says_now_and_then_how_far_it_is_how_fast_and_how_long_it_will_take(
    listening: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with progress.task("train", total=60, note=lambda: "loss 0.5") as advance:
        for _ in range(60):
            now += 10
            advance(1)
    with progress.task("read") as advance:
        now += progress.LINE_EVERY_S
        advance(2160)
    with progress.task("wait", total=3) as advance:
        now += progress.LINE_EVERY_S
        advance(0)
    assert len(listening.messages) == 9 + 1 + 2 + 1  # a line a minute but for the last, each phase's end
    assert listening.messages[0] == "train: 6 of 60, 10.0 s each, 0:09:00 left, loss 0.5"
    assert listening.messages[8] == "train: 54 of 60, 10.0 s each, 0:01:00 left, loss 0.5"
    assert listening.messages[9] == "train: 60 in 600.0 s (10.0 s each), loss 0.5"
    assert listening.messages[10:12] == ["read: 2,160, 36/s", "read: 2,160 in 60.0 s (36/s)"]
    assert listening.messages[12] == "wait: 0 of 3 in 60.0 s"


@pytest.mark.parametrize(
    ("seconds_each", "said"), [(0.0004, "2,500/s"), (0.4, "2.5/s"), (1, "1.0/s"), (3.3, "3.3 s each")]
)
def test_a_rate_has_digits_enough_to_mean_something(seconds_each: float, said: str) -> None:
    assert progress._rate(seconds_each) == said


def test_on_a_terminal_phases_share_one_display(
    listening: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    for _ in range(2):
        with progress.task("outer [1]", total=2) as outer, progress.task("inner") as inner:
            outer(2)
            inner(7)
    shown = screen.getvalue()
    assert "outer [1]" in shown and "2/2" in shown and "inner" in shown and "7/?" in shown
    assert not listening.messages


def test_a_quiet_run_and_other_ranks_say_nothing(
    listening: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("RANK", "1")
    with progress.task("x", total=1) as advance:
        advance(1)
    monkeypatch.delenv("RANK")
    listening.set_level(logging.WARNING, logger="reasonembed.progress")
    with progress.task("x", total=1) as advance:
        advance(1)
    assert screen.getvalue() == "" and not listening.messages
