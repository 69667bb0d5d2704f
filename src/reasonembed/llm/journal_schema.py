"""The journal's tables: their version, the upgrade of older files, and what is checked when a file is opened.

On every opening: that the file is a journal of a version we know, without triggers or views (which could change what is
put and read), that it is as long as its header says (SQLite does that) and ends with a whole page, and that table
`replies` has its columns. Files up to 256 MiB are then walked
whole by SQLite's `quick_check`, which reads every page. In larger ones, where that takes seconds or more, 64 replies
spread evenly over the file must be found both by number and by key. What a reply says is verified by its checksum
whenever it is read; all of it at once by `reasonembed journal WORKSPACE --check`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from reasonembed.errors import DamageError, InputError, shown
from reasonembed.llm.reply_rows import Row
from reasonembed.llm.spending import open_ledger
from reasonembed.llm.sqlite_errors import CURE

SCHEMA_VERSION = 2  # 2: the model of each reply
_APPLICATION_ID = 0x52454D58  # "REMX": tells our files from other SQLite databases
_WALKED_BYTES = 256 * 1024 * 1024  # our choice: quick_check takes about 0.3 s for so much, once it is in memory
_SAMPLE = 64  # our choice: some 200 pages, a second even where each is a movement of a disk's arm

_SCHEMA = """
CREATE TABLE replies (
    number INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    custom_id BLOB NOT NULL,
    failure TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum BLOB NOT NULL,
    answered_at REAL NOT NULL,
    model TEXT
)
"""
_UPGRADES = {1: "ALTER TABLE replies ADD COLUMN model TEXT"}  # changes no row, so that its cost is that of one page
_COLUMNS = {1: Row._fields[:-1], 2: Row._fields}


def make_or_upgrade(connection: sqlite3.Connection, path: Path) -> None:
    """Give an empty file its tables, and an older one what it lacks. Call it inside a transaction."""
    version = schema_version(connection, path)
    if version == SCHEMA_VERSION:
        open_ledger(connection)
        return
    if version == 0:
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    for older in range(version or SCHEMA_VERSION, SCHEMA_VERSION):
        connection.execute(_UPGRADES[older])
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    open_ledger(connection)


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema version; 0 if it is empty.

    Raises InputError if it is no journal, or a newer one, DamageError if it says no version.
    """
    application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    if application == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        return 0
    if application != _APPLICATION_ID:
        raise InputError(f"{path} is an SQLite database but no journal of replies. Choose another path.")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {version}; this release reads up to {SCHEMA_VERSION}. "
            f"Install a newer reasonembed or start another workspace."
        )
    if version < 1:
        raise _damage(path, f"its schema version is {version}")
    return version


def select_replies(version: int) -> str:
    """The SELECT that gives all columns of `Row`, from a file of that version."""
    return f"SELECT {', '.join(_COLUMNS[version])}{', NULL' * (len(Row._fields) - len(_COLUMNS[version]))} FROM replies"


def look_over(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """What is checked on opening; see the module. Raises DamageError naming the file, the place and the cure."""
    for kind, name in connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')"):
        raise _damage(path, f"the {kind} {shown(name)} is none of ours")
    found = [row[1] for row in connection.execute("PRAGMA table_info(replies)")]
    missing = [name for name in _COLUMNS.get(version, Row._fields) if name not in found]
    if missing:
        raise _damage(path, f"table replies lacks {', '.join(missing)}")
    if ends_within_a_page(connection, path):
        raise _damage(path, "its last page is cut off")
    if _pragma(connection, "page_count") * _pragma(connection, "page_size") <= _WALKED_BYTES:
        finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if finding != "ok":
            raise _damage(path, " ".join(finding.split()))
    else:
        _find_some(connection, path)


def ends_within_a_page(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the last page is cut off, which SQLite fills up with zeros; beside a log it may be yet to be written."""
    log = path.with_name(f"{path.name}-wal")
    return path.stat().st_size % _pragma(connection, "page_size") != 0 and not (log.exists() and log.stat().st_size)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _find_some(connection: sqlite3.Connection, path: Path) -> None:
    first, last = connection.execute(
        "SELECT (SELECT min(number) FROM replies), (SELECT max(number) FROM replies)"
    ).fetchone()
    for step in range(_SAMPLE if last is not None else 0):
        wanted = first + (last - first) * step // (_SAMPLE - 1)
        number, key = connection.execute(
            "SELECT number, key FROM replies WHERE number >= ? ORDER BY number LIMIT 1", (wanted,)
        ).fetchone()
        if connection.execute("SELECT number FROM replies WHERE key = ?", (key,)).fetchone() != (number,):
            raise _damage(path, f"reply {number} is not found by its key")


def _damage(path: Path, finding: str) -> DamageError:
    return DamageError(f"the journal {path} is damaged ({finding}). {CURE}")


__all__ = [
    "SCHEMA_VERSION",
    "ends_within_a_page",
    "look_over",
    "make_or_upgrade",
    "schema_version",
    "select_replies",
]
