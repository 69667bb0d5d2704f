"""The journal read from outside: its report, its check and its export, beside a writer and on damaged files."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasonembed.cli.journal import report_lines
from reasonembed.errors import DamageError, InputError, WorkspaceBusy
from reasonembed.files import read_jsonl
from reasonembed.llm import journal_export
from reasonembed.llm.chat import Failure, Reply, Usage
from reasonembed.llm.journal import Journal
from reasonembed.llm.journal_export import ExportedReply, check_journal, export_journal
from reasonembed.llm.journal_report import journal_path, report_journal
from reasonembed.llm.prices import Price, Prices
from reasonembed.llm.reading import reading
from reasonembed.workspace import Workspace

PRICES = Prices(currency="EUR", models={"gpt": Price(input=1_000_000.0, output=2_000_000.0)})  # 1 and 2 EUR a token
REFUSED = Failure("refused", "I will not.")
NOON = 1_790_000_000.0  # 2026-09-21T14:13:20Z


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


REPLIES = {
    key(1): Reply("generate:law:a", "one", Usage(10, 1)),
    key(2): Reply("generate:law:b", "", Usage(20, 2), REFUSED),
    key(3): Reply("annotate:law:a-q0:b", "three", Usage(30, 3), thinking="hm"),
    key(4): Reply("annotate:law:a-q0:c", "", Usage(40, 4), Failure("truncated", "and th")),
}
MODELS = {key(1): "gpt", key(2): "gpt", key(3): "gpt", key(4): "local"}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace's journal with four replies, ten seconds apart."""
    monkeypatch.setattr("time.time", iter([NOON, NOON + 10, NOON + 20, NOON + 30]).__next__)
    path = Workspace(tmp_path / "runs").journal_path
    with Journal(path) as journal:
        for name, reply in REPLIES.items():
            journal.put_many([(name, reply)], model=MODELS[name])
    monkeypatch.undo()
    return path


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A journal of schema version 1, made by SQL alone."""
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript((Path(__file__).parent / "journal_v1.sql").read_text())
    connection.close()
    return path


def alter(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_report_counts_replies_failures_tokens_and_money_by_stage_and_model(path: Path) -> None:
    report = report_journal(path, PRICES)
    assert (report.replies, report.failures) == (4, {"refused": 1, "truncated": 1})
    assert (report.first_answered_at, report.last_answered_at) == (
        "2026-09-21T14:13:20+00:00",
        "2026-09-21T14:13:50+00:00",
    )
    lines = [
        (line.stage, line.model, line.replies, line.failures, line.calls, line.prompt_tokens, line.cost)
        for line in report.stages
    ]
    assert lines == [
        ("annotate", "gpt", 1, {}, 1, 30, 36.0),
        ("annotate", "local", 1, {"truncated": 1}, 1, 40, None),
        ("generate", "gpt", 2, {"refused": 1}, 2, 30, 36.0),
    ]
    assert (report.cost, report.currency, report.unpriced) == (72.0, "EUR", ("local",))


def test_the_printed_report_says_what_is_not_known(path: Path) -> None:
    text = "\n".join(report_lines(report_journal(path, PRICES)))
    assert "replies   4: 2 usable, 2 failed" in text
    assert "failures  refused 1, truncated 1" in text
    assert "cost: no price is known for local" in text
    assert "cost: in EUR, of the models with a price only" in text
    assert text.splitlines()[-5].split() == ["in", "all", "4", "2", "4", "100", "10", "72.00"]


def test_what_was_paid_for_stays_in_the_report_when_a_row_is_deleted(path: Path) -> None:
    alter(path, "DELETE FROM replies WHERE number = 1")
    line = report_journal(path, PRICES).stages[2]
    assert (line.replies, line.calls, line.prompt_tokens) == (1, 2, 30)


def test_a_journal_of_version_1_is_reported_checked_and_exported_as_it_is(old: Path, tmp_path: Path) -> None:
    before = old.read_bytes()
    report = report_journal(old, PRICES)
    assert (report.schema_version, report.replies, report.failures) == (1, 2, {"refused": 1})
    assert [(line.stage, line.model, line.calls, line.prompt_tokens) for line in report.stages] == [
        ("generate", "", 1, 12),
        ("reason", "", 1, 12),
    ]
    assert "older releases did not record the model" in "\n".join(report_lines(report))
    assert check_journal(old).whole
    export_journal(old, tmp_path / "out.jsonl")
    assert [row.text for row in read_jsonl(tmp_path / "out.jsonl", ExportedReply)] == ["kept", ""]
    assert old.read_bytes() == before and not old.with_name("old.sqlite-wal").exists()


def test_replies_of_version_1_are_attributed_where_one_model_was_paid_for_the_whole_stage(old: Path) -> None:
    with Journal(old):
        pass
    alter(old, "UPDATE spending SET model = 'gpt' WHERE stage = 'generate'")
    assert [(line.stage, line.model, line.replies) for line in report_journal(old, PRICES).stages] == [
        ("generate", "gpt", 1),
        ("reason", "", 1),
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_an_export_has_a_line_for_each_reply_in_the_order_of_the_commits(
    path: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"replies{suffix}"
    assert export_journal(path, out).replies == 4
    rows = list(read_jsonl(out, ExportedReply))
    assert [row.key for row in rows] == [name.hex() for name in REPLIES]
    assert [row.model for row in rows] == list(MODELS.values())
    for row, reply in zip(rows, REPLIES.values(), strict=True):
        assert Reply(row.custom_id, row.text, row.usage, row.failure, row.thinking) == reply
    assert rows[0].answered_at == "2026-09-21T14:13:20+00:00"


def test_an_export_is_plain_json_that_leaves_out_what_does_not_apply(path: Path, tmp_path: Path) -> None:
    export_journal(path, tmp_path / "out.gz")
    lines = gzip.decompress((tmp_path / "out.gz").read_bytes()).splitlines()
    assert json.loads(lines[1]) == {
        "key": key(2).hex(),
        "custom_id": "generate:law:b",
        "usage": {"prompt_tokens": 20, "completion_tokens": 2},
        "answered_at": "2026-09-21T14:13:30+00:00",
        "model": "gpt",
        "failure": {"kind": "refused", "detail": "I will not."},
    }


def test_an_id_that_is_no_utf8_is_exported_with_escapes(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.put_many([(key(1), Reply("generate:x:caf\udce9.txt", "text"))])
    export_journal(tmp_path / "j", tmp_path / "out.jsonl")
    (row,) = read_jsonl(tmp_path / "out.jsonl", ExportedReply)
    assert row.custom_id == r"generate:x:caf\xed\xb3\xa9.txt"


@pytest.mark.parametrize(
    "change",
    [
        "failure = ''",
        "prompt_tokens = 21",
        "completion_tokens = 'x'",
        "custom_id = x'67656E'",
        "custom_id = 7",
        "body = x'00'",
        "body = 'text'",
        "checksum = x''",
        "answered_at = 5.0",
        "answered_at = 'noon'",
        "model = 'gpt-4'",
        "model = NULL",
        "key = x'AB'",
    ],
)
def test_a_check_names_an_altered_reply_by_its_key_and_an_export_marks_it(
    path: Path, tmp_path: Path, change: str
) -> None:
    alter(path, f"UPDATE replies SET {change} WHERE number = 2")
    found = check_journal(path)
    assert [(reply.number, reply.key) for reply in found.damaged] == [(2, "ab" if "key" in change else key(2).hex())]
    assert found.replies == 4 and not found.whole
    if found.structure:
        return  # a value of another type: SQLite's own check sees it, and the export refuses the file
    assert export_journal(path, tmp_path / "out.jsonl").damaged == 1
    rows = list(read_jsonl(tmp_path / "out.jsonl", ExportedReply))
    assert [bool(row.damage) for row in rows] == [False, True, False, False]
    assert (rows[1].text, rows[1].failure) == ("", None)


def test_a_check_finds_a_reply_that_its_index_does_not_lead_to(path: Path) -> None:
    content = path.read_bytes()
    place = content.index(key(2) + b"generate:law:b")  # in the table; in the index the id does not follow
    path.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
    found = check_journal(path)
    assert "missing from index" in found.structure[0]
    assert [reply.number for reply in found.damaged] == [2]


def test_a_torn_file_is_checked_as_far_as_it_can_be_read_and_never_exported(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.put_many((key(n), Reply(f"generate:x:{n}", f"{n}" * 200)) for n in range(500))
    content = bytearray(path.read_bytes())
    content[-4096 * 6 : -4096 * 5] = bytes(4096)
    path.write_bytes(content)
    found = check_journal(path)
    assert found.structure and not found.whole
    (tmp_path / "out.jsonl").write_text("what stood there")
    with pytest.raises(DamageError, match=rf"{path} is damaged.*Restore it from a copy"):
        export_journal(path, tmp_path / "out.jsonl")
    with pytest.raises(DamageError, match="--check"):
        report_journal(path, PRICES)
    assert (tmp_path / "out.jsonl").read_text() == "what stood there"


def test_reading_leaves_the_folder_as_it_is(path: Path, tmp_path: Path) -> None:
    before = files(path.parent)
    report_journal(path, PRICES)
    check_journal(path)
    export_journal(path, tmp_path / "out.jsonl")
    assert files(path.parent) == before


_WRITER = """
import sys, time
from pathlib import Path
from reasonembed.llm.chat import Reply
from reasonembed.llm.journal import Journal
from reasonembed.workspace import Workspace
place = Workspace(Path(sys.argv[1]))
with place.lock(), Journal(place.journal_path) as journal:
    journal.put_many([(bytes([9]) * 32, Reply("reason:law:z", "from the run"))], model="gpt")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run_beside(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the workspace, with a fifth reply in its write-ahead log."""
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path.parent)], stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None and run.stdout.readline() == "ready\n"
            with pytest.raises(WorkspaceBusy), Workspace(path.parent).lock():
                pass
            yield run
        finally:
            run.kill()


def test_a_journal_is_read_while_a_run_holds_the_workspace_and_after_the_run_was_killed(
    path: Path, tmp_path: Path, run_beside: subprocess.Popen[str]
) -> None:
    for _ in range(2):
        assert report_journal(path, PRICES).replies == 5
        assert check_journal(path).whole
        assert export_journal(path, tmp_path / "out.jsonl").replies == 5
        run_beside.kill()
        run_beside.wait()
    assert path.with_name("journal.sqlite-wal").stat().st_size > 0


def test_what_a_run_commits_during_an_export_is_not_half_in_it(path: Path, tmp_path: Path) -> None:
    with Journal(path) as journal:
        journal.put_many([(key(5), Reply("generate:law:e", "five"))])
        with reading(path) as connection:
            rows = connection.execute("SELECT number FROM replies ORDER BY number")
            assert rows.fetchone() == (1,)
            journal.put_many([(key(6), Reply("generate:law:f", "six"))])
            assert len(rows.fetchall()) == 4
    assert report_journal(path, PRICES).replies == 6


def test_a_run_that_starts_during_an_export_makes_it_refuse(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = journal_export.utc

    def starting(seconds: float) -> str:
        with Journal(path) as journal:
            journal.put_many([(key(time.monotonic_ns()), Reply("generate:law:e", "five"))])
        return real(seconds)

    monkeypatch.setattr(journal_export, "utc", starting)
    with pytest.raises(WorkspaceBusy, match="while it was read"):
        export_journal(path, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_place_without_a_journal_is_named(tmp_path: Path, path: Path) -> None:
    assert journal_path(path) == journal_path(path.parent) == path
    with pytest.raises(InputError, match=r"no journal .*nowhere/journal.sqlite"):
        journal_path(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"hello" * 300])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)
    for read in (lambda: report_journal(path, PRICES), lambda: check_journal(path)):
        with pytest.raises(InputError, match="no journal"):
            read()
    assert path.read_bytes() == content
