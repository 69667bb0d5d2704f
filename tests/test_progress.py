"""Progress: a bar on a terminal, one line in the log elsewhere, nothing when nobody listens."""

from __future__ import annotations

import io
import logging
import sys

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
