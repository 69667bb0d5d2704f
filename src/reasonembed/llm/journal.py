"""The journal: every reply a model gave, in one SQLite file, so that nothing paid for is lost or paid twice.

A reply is found by `keys.reply_key`, a hash of all that decides an answer. Replies are committed in groups
(write-ahead log); each row carries a checksum that is verified on reading (`reply_rows`).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from reasonembed.errors import DamageError, shown
from reasonembed.llm.chat import Reply, Usage
from reasonembed.llm.journal_schema import SCHEMA_VERSION, look_over, make_or_upgrade, schema_version, select_replies
from reasonembed.llm.reply_rows import BadRow, Row, RowFormat, lenient_text
from reasonembed.llm.spending import Spending, book, read_ledger
from reasonembed.llm.sqlite_errors import named_errors

_CHUNK = 500  # keys in one SELECT
_BUSY_TIMEOUT_S = 10

_INSERT = (
    f"INSERT OR IGNORE INTO replies ({', '.join(Row._fields[1:])}) VALUES ({', '.join('?' * len(Row._fields[1:]))})"
)
_SELECT = select_replies(SCHEMA_VERSION)
_SELECT_KINDS = "SELECT key, failure FROM replies"


class Journal:
    """All replies of a workspace, by key. One process writes at a time; others may read meanwhile.

    durable: wait for the disk at each commit (SQLite's FULL), so that replies survive a power cut; otherwise
    (NORMAL) they survive the death of the process, at any moment.
    Opening checks the file as `journal_schema` says, and gives one of an older schema version what it lacks.
    Raises InputError if `path` is no journal or a newer one, DamageError if it is torn, StorageError if the
    disk refuses. Use it as a context manager, or close it.
    """

    def __init__(self, path: Path | str, *, durable: bool = False) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._format = RowFormat()
        with named_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        self._connection.text_factory = lenient_text
        try:
            with named_errors(self.path):
                self._prepare("FULL" if durable else "NORMAL")
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, synchronous: str) -> None:
        run = self._connection.execute
        if version := schema_version(self._connection, self.path):
            look_over(self._connection, self.path, version)
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {synchronous}")
        with self._transaction():
            make_or_upgrade(self._connection, self.path)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def put_many(self, replies: Iterable[tuple[bytes, Reply]], *, model: str = "") -> None:
        """Commit all of `replies` (key, reply) or none. A key that is there already keeps its first reply.

        model: who gave them and is paid for them, for reports and the ledger (see `spending`).
        """
        replies = list(replies)
        with self._lock, named_errors(self.path):
            now = time.time()
            rows = [self._format.pack(key, reply, model=model, answered_at=now)[1:] for key, reply in replies]
            with self._transaction():
                self._connection.executemany(_INSERT, rows)
                book(self._connection, model, (reply for _, reply in replies))

    def get(self, key: bytes) -> Reply | None:
        """The reply under `key`, or None. Raises DamageError if it is not what was written."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Reply]:
        """The replies that are there, by key. Raises DamageError naming file and row if one was altered."""
        return {row.key: self._reply(row) for row in map(Row._make, self._rows(_SELECT, keys))}

    def contains_many(self, keys: Iterable[bytes]) -> dict[bytes, str]:
        """Those of `keys` that have a reply, each with its failure's kind (empty: a usable text)."""
        return dict(self._rows(_SELECT_KINDS, keys))

    def _rows(self, select: str, keys: Iterable[bytes]) -> Iterator[Any]:
        remaining = iter(keys)
        while chunk := list(islice(remaining, _CHUNK)):
            query = f"{select} WHERE key IN ({','.join('?' * len(chunk))})"
            with self._lock, named_errors(self.path):
                rows = self._connection.execute(query, chunk).fetchall()
            yield from rows

    def _reply(self, row: Row) -> Reply:
        try:
            return self._format.unpack(row)
        except BadRow as bad:
            raise DamageError(
                f"{self.path}, reply {row.number} ({shown(row.custom_id)}) is damaged: {bad}. "
                f"Restore the file from a copy, or delete that row of table replies to have it asked again."
            ) from bad

    def __len__(self) -> int:
        return int(self._one("SELECT count(*) FROM replies")[0])

    def failures(self) -> dict[str, int]:
        """How many replies failed, by kind."""
        query = "SELECT failure, count(*) FROM replies WHERE failure != '' GROUP BY failure ORDER BY failure"
        with self._lock, named_errors(self.path):
            return dict(self._connection.execute(query).fetchall())

    def tokens(self) -> Usage:
        """Tokens over all replies."""
        prompt, completion = self._one("SELECT total(prompt_tokens), total(completion_tokens) FROM replies")
        return Usage(prompt_tokens=int(prompt), completion_tokens=int(completion))

    def spending(self) -> tuple[Spending, ...]:
        """Calls and tokens ever paid for, by model and stage."""
        with self._lock, named_errors(self.path):
            return read_ledger(self._connection)

    def _one(self, query: str) -> tuple[float, ...]:
        with self._lock, named_errors(self.path):
            row: tuple[float, ...] = self._connection.execute(query).fetchone()
            return row

    def close(self) -> None:
        """Fold the write-ahead log into the file and close it."""
        with self._lock, named_errors(self.path):
            self._connection.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


__all__ = ["SCHEMA_VERSION", "Journal"]
