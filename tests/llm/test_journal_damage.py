"""Bytes of a journal cut off or flipped (GOALS.md R2): what is whole is kept, and an error names file and place."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasonembed.errors import DamageError, InputError, StorageError
from reasonembed.llm.chat import Reply, Usage
from reasonembed.llm.journal import Journal
from reasonembed.llm.journal_export import check_journal

EVERY_BYTE_TOO = pytest.mark.parametrize(
    "step", [37, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
"""Bytes from one cut or flip to the next: a prime in the default run, every single one with `-m slow`."""
MODEL = "a-model-of-this-name"
GROUPS = 6
PAGE, FRAME_HEADER, LOG_HEADER = 4096, 24, 32  # bytes; https://www.sqlite.org/fileformat2.html, section 4.1


def key(number: int) -> bytes:
    return bytes([200, number]) * 16


def reply(number: int) -> Reply:
    return Reply(f"generate:biology:doc-{number:03}", f"answer {number} " * 9, Usage(number, 2), thinking="hm")


REPLIES = {key(number): reply(number) for number in range(30)}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of openings need not wait for a disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def filled(path: Path) -> bytes:
    with Journal(path) as journal:
        journal.put_many(REPLIES.items(), model=MODEL)
    return path.read_bytes()


def filled_in_groups(path: Path) -> tuple[bytes, bytes]:
    """The file and its write-ahead log as a killed process leaves them: six groups of one reply."""
    with Journal(path) as journal:
        for number in range(GROUPS):
            journal.put_many([(key(number), reply(number))], model=MODEL)
        return path.read_bytes(), path.with_name(f"{path.name}-wal").read_bytes()


def lay(path: Path, content: bytes, log: bytes | None = None) -> None:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(content)
    if log is not None:
        path.with_name(f"{path.name}-wal").write_bytes(log)


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :]


def is_prefix(found: dict[bytes, Reply]) -> bool:
    return found == dict(list(REPLIES.items())[: len(found)])


def frames(log: bytes) -> range:
    """Where each frame of a write-ahead log begins."""
    return range(LOG_HEADER, len(log), PAGE + FRAME_HEADER)


@EVERY_BYTE_TOO
def test_a_write_ahead_log_torn_anywhere_keeps_the_groups_before(folder: Path, step: int) -> None:
    main, log = filled_in_groups(folder / "whole")
    path = folder / "torn"
    sizes = {*range(0, len(log), step), *range(frames(log)[-1], frames(log)[-1] + 40)}
    sizes |= {start + step for start in frames(log) for step in (-1, 0, 1)}
    counts = []
    for size in sorted(sizes):
        lay(path, main, log[:size])
        with Journal(path) as journal:
            found = journal.get_many(REPLIES)
        assert is_prefix(found), size
        counts.append(len(found))
    assert counts == sorted(counts) and set(counts) == set(range(GROUPS)) and counts[-1] == GROUPS - 1
    lay(path, main, log)
    with Journal(path) as journal:
        assert len(journal.get_many(REPLIES)) == GROUPS


@EVERY_BYTE_TOO
def test_a_flipped_byte_in_the_write_ahead_log_ends_it_there(folder: Path, step: int) -> None:
    """SQLite gives each frame a checksum over all before it: what follows a bad one never happened."""
    main, log = filled_in_groups(folder / "whole")
    path = folder / "flipped"
    positions = {*range(0, len(log), step), *range(LOG_HEADER + FRAME_HEADER)}
    counts = []
    for position in sorted(positions):
        lay(path, main, flipped(log, position))
        with Journal(path) as journal:
            found = journal.get_many(REPLIES)
        assert is_prefix(found), position
        counts.append(len(found))
    assert max(counts) >= GROUPS - 1 and counts[0] == 0


@EVERY_BYTE_TOO
def test_a_file_cut_off_anywhere_is_named(folder: Path, step: int) -> None:
    path = folder / "j"
    whole = filled(path)
    for size in (*range(2, 200), *range(200, len(whole), step), len(whole) - 1):  # one byte is an empty file to SQLite
        lay(path, whole[:size])
        with pytest.raises((DamageError, InputError), match=str(path)):
            Journal(path)
    assert not check_journal(path).whole  # one byte is missing


@EVERY_BYTE_TOO
def test_a_flipped_byte_anywhere_is_never_a_wrong_reply(folder: Path, step: int) -> None:
    path = folder / "j"
    whole = filled(path)
    damaged = 0
    for position in range(0, len(whole), step):
        lay(path, flipped(whole, position))
        try:
            with Journal(path) as journal:
                found = journal.get_many(REPLIES)
        except (DamageError, InputError, StorageError) as error:
            damaged += isinstance(error, DamageError)
            assert str(path) in str(error), position
        else:
            assert all(REPLIES[name] == value for name, value in found.items()), position
    assert damaged > 4000 / step


def test_a_flipped_byte_in_a_reply_costs_that_reply_alone_and_names_it(folder: Path) -> None:
    """Each byte of one row, from its custom id to its model. (The key is read from its index, which has it too.)"""
    path = folder / "j"
    whole = filled(path)
    start = whole.index(key(7) + reply(7).custom_id.encode()) + len(key(7))
    end = whole.index(MODEL.encode(), start) + len(MODEL)
    others = {name: value for name, value in REPLIES.items() if name != key(7)}
    assert end - start > 120
    for position in range(start, end):
        lay(path, flipped(whole, position))
        with Journal(path) as journal:
            assert journal.get_many(others) == others
            with pytest.raises(DamageError, match=rf"{path}, reply 8 \(.*(delete that row|from a copy)"):
                journal.get(key(7))


def test_opening_a_file_too_large_to_be_walked_still_finds_a_reply_that_its_key_does_not_lead_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "j"
    whole = filled(path)
    monkeypatch.setattr("reasonembed.llm.journal_schema._WALKED_BYTES", 0)
    for number in (0, 13, 29):
        lay(path, whole)
        with Journal(path) as journal:
            assert journal.get_many(REPLIES) == REPLIES
        lay(path, flipped(whole, whole.index(key(number) + reply(number).custom_id.encode())))
        with pytest.raises(DamageError, match=rf"{path} is damaged \(reply {number + 1} is not found by its key"):
            Journal(path)


def test_an_empty_journal_of_any_size_limit_opens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasonembed.llm.journal_schema._WALKED_BYTES", 0)
    for _ in range(2):
        with Journal(folder / "j") as journal:
            assert len(journal) == 0


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE replies DROP COLUMN checksum", "DROP TABLE replies", "PRAGMA user_version = 0"]
)
def test_a_journal_without_its_table_or_version_is_damaged(folder: Path, statement: str) -> None:
    path = folder / "j"
    filled(path)
    with sqlite3.connect(path) as raw:
        raw.execute(statement)
    raw.close()
    with pytest.raises(DamageError, match=r"is damaged \((table replies lacks|its schema version is 0).*--check"):
        Journal(path)
