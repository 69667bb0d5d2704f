"""Every reply of a journal in the order of the commits: verified one by one, or written as JSONL; read only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from reasonembed.files import write_jsonl
from reasonembed.llm.chat import Failure, Usage
from reasonembed.llm.journal_report import opened_version, utc
from reasonembed.llm.journal_schema import ends_within_a_page, look_over, select_replies
from reasonembed.llm.reading import reading
from reasonembed.llm.reply_rows import Row, RowFormat

_FINDINGS = 100  # of SQLite's integrity check, at most


class DamagedReply(msgspec.Struct, frozen=True):
    """A reply that is not what was written."""

    number: int
    key: str  # hexadecimal
    custom_id: str
    problem: str


class JournalCheck(msgspec.Struct, frozen=True):
    """What reading every byte of a journal found."""

    path: str
    replies: int  # read
    structure: tuple[str, ...]  # SQLite's findings; empty: the file's pages and indexes are sound
    damaged: tuple[DamagedReply, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.structure and not self.damaged


class ExportedReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of an export; what does not apply is left out."""

    key: str  # hexadecimal, see `keys.reply_key`
    custom_id: str  # what is no UTF-8 in it as backslash escapes
    usage: Usage
    answered_at: str  # UTC, ISO 8601
    model: str = ""
    text: str = ""
    failure: Failure | None = None
    thinking: str = ""
    damage: str = ""  # why there is neither text nor failure


class Exported(msgspec.Struct, frozen=True):
    """How many replies were written, and how many of those are damaged."""

    replies: int
    damaged: int


def check_journal(path: Path) -> JournalCheck:
    """SQLite's `integrity_check` and the checksum of every reply of the journal at `path`.

    Raises InputError if the file is no journal, DamageError if not even its header can be read.
    """
    damaged = []
    count = 0
    with reading(path) as connection:
        version = opened_version(connection, path)
        structure = _structure(connection, path)
        try:
            for row, reply in _replies(connection, version):
                count += 1
                if reply.damage:
                    damaged.append(DamagedReply(row.number, reply.key, reply.custom_id, reply.damage))
        except sqlite3.DatabaseError as error:
            structure = (*structure, f"only the first {count} replies could be read: {error}")
    return JournalCheck(path=str(path), replies=count, structure=structure, damaged=tuple(damaged))


def export_journal(path: Path, out: Path) -> Exported:
    """Write every reply to `out`, one JSON object a line (see `ExportedReply`), compressed by its suffix.

    A damaged reply has a line too, which says so. Raises DamageError, and writes nothing, if the file is torn.
    """
    damaged = 0

    def rows() -> Iterator[ExportedReply]:
        nonlocal damaged
        with reading(path) as connection:
            version = opened_version(connection, path)
            look_over(connection, path, version)
            for _, reply in _replies(connection, version):
                damaged += bool(reply.damage)
                yield reply

    return Exported(replies=write_jsonl(out, rows()), damaged=damaged)


def _structure(connection: sqlite3.Connection, path: Path) -> tuple[str, ...]:
    cut = ("the last page is cut off",) if ends_within_a_page(connection, path) else ()
    try:
        lines = connection.execute(f"PRAGMA integrity_check({_FINDINGS})").fetchall()
    except sqlite3.DatabaseError as error:
        return (*cut, str(error))
    return (*cut, *(" ".join(str(line).split()) for (line,) in lines if line != "ok"))


def _replies(connection: sqlite3.Connection, version: int) -> Iterator[tuple[Row, ExportedReply]]:
    form = RowFormat()
    for row in map(Row._make, connection.execute(f"{select_replies(version)} ORDER BY number")):
        yield row, _exported(form, row)


def _exported(form: RowFormat, row: Row) -> ExportedReply:
    key = _bytes(row.key).hex()
    custom_id = _bytes(row.custom_id).decode("utf-8", "backslashreplace")
    try:
        reply = form.unpack(row)
        return ExportedReply(
            key=key,
            custom_id=custom_id,
            usage=reply.usage,
            answered_at=utc(row.answered_at),
            model=row.model or "",
            text=reply.text,
            failure=reply.failure,
            thinking=reply.thinking,
        )
    except ValueError as bad:
        return ExportedReply(key=key, custom_id=custom_id, usage=Usage(), answered_at="", damage=str(bad))


def _bytes(value: object) -> bytes:
    """What should be bytes, but in a damaged row may be anything."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


__all__ = ["DamagedReply", "Exported", "ExportedReply", "JournalCheck", "check_journal", "export_journal"]
