"""`reasonembed journal` as typed: what is printed, as JSON too, and its exit codes."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reasonembed.cli.main import main
from reasonembed.llm.chat import Failure, Reply, Usage
from reasonembed.llm.journal import Journal
from reasonembed.workspace import Workspace

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs `reasonembed journal` with the given arguments: exit code, stdout, stderr. Logging stays as it was."""
    logger = logging.getLogger("reasonembed")
    before = logger.level, logger.propagate, logger.handlers[:]

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["reasonembed", "journal", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    yield run
    logger.setLevel(before[0])
    logger.propagate, logger.handlers[:] = before[1:]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """One usable reply of a model with a shipped price, and thirty refusals."""
    with Journal(Workspace(tmp_path / "runs").journal_path) as journal:
        journal.put_many([(b"a" * 32, Reply("generate:law:a", "one", Usage(1_000_000, 0)))], model="gpt-4.1-mini")
        refused = Reply("generate:law:b", "", failure=Failure("refused"))
        journal.put_many([(bytes([n]) * 32, refused) for n in range(30)], model="gpt-4.1-mini")
    return tmp_path / "runs"


def damage(workspace: Path, count: int) -> None:
    with sqlite3.connect(Workspace(workspace).journal_path) as connection:
        connection.execute("UPDATE replies SET prompt_tokens = 7 WHERE number <= ?", (count,))
    connection.close()


def test_the_report_goes_to_stdout_with_the_spend_by_the_prices(
    workspace: Path, tmp_path: Path, command: Command
) -> None:
    code, out, _ = command(workspace)
    assert code == 0
    assert "replies   31: 1 usable, 30 failed\nfailures  refused 30\n" in out
    assert "0.40\n" in out and "cost: in USD; calls" in out
    (tmp_path / "own.toml").write_text('currency = "EUR"\n[models]\n"gpt-4.1-mini" = { input = 3.0, output = 1.0 }\n')
    assert "3.00\n" in command(workspace, "--prices", tmp_path / "own.toml")[1]


def test_the_report_and_the_check_come_as_json(workspace: Path, command: Command) -> None:
    report = json.loads(command(workspace, "--json")[1])
    assert (report["replies"], report["failures"], report["cost"]) == (31, {"refused": 30}, 0.4)
    damage(workspace, 25)
    code, out, _ = command(workspace, "--check", "--json")
    assert code == 1 and len(json.loads(out)["damaged"]) == 25


def test_a_check_of_a_whole_journal_succeeds_and_damage_is_exit_code_1(workspace: Path, command: Command) -> None:
    code, out, _ = command(workspace, "--check")
    assert code == 0 and "whole:" in out
    damage(workspace, 25)
    code, out, error = command(workspace, "--check")
    assert code == 1
    assert f"reply 1  key {'61' * 32}  generate:law:a: the checksum does not match" in out
    assert "and 5 more damaged replies" in out
    assert error.startswith("error: the journal") and "Replies that are not named are whole" in error


def test_an_export_says_how_many_it_wrote_and_where(workspace: Path, tmp_path: Path, command: Command) -> None:
    target = tmp_path / "replies.jsonl"
    assert command(workspace, "--export", target)[:2] == (0, f"31 replies\n{target}\n")
    damage(workspace, 1)
    code, _, error = command(workspace, "--export", target)
    assert code == 1 and "1 of the replies" in error
    assert json.loads(target.read_text().splitlines()[0])["damage"] == "the checksum does not match"


def test_mistakes_end_with_one_sentence_and_exit_code_2(workspace: Path, tmp_path: Path, command: Command) -> None:
    assert command(tmp_path / "none")[0] == 2
    code, _, error = command(workspace, "--check", "--export", tmp_path / "x")
    assert code == 2 and "Give one, then the other" in error
