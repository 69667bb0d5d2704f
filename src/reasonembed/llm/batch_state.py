"""Which batches are under way at a provider, and for which requests: kept on disk, so that none is sent twice.

A batch is noted with its requests once its file lies at the provider, again once it runs, and again once its outcomes
are in the journal; its requests are forgotten then.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from reasonembed.llm.chat import Usage
from reasonembed.llm.sqlite_errors import named_errors

_CHUNK = 500  # keys in one SELECT
_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    place TEXT NOT NULL,
    file_id TEXT NOT NULL,
    batch_id TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    ending TEXT NOT NULL,
    sent_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS requests (
    key BLOB PRIMARY KEY,
    custom_id BLOB NOT NULL,
    batch INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS requests_of_batch ON requests (batch);
"""
_OPEN = """
SELECT number, model, place, file_id, batch_id, requests, prompt_tokens, completion_tokens FROM batches
WHERE ending = '' ORDER BY number
"""


class OpenBatch(msgspec.Struct, frozen=True):
    """A batch whose outcomes are not in the journal yet."""

    number: int
    model: str
    place: str  # base URL of the provider
    file_id: str
    batch_id: str  # empty: its file lies there, and it is not known whether it runs
    requests: int
    expected: Usage  # at most, by estimate


def state_path(journal_path: Path) -> Path:
    """Where the open batches of a journal are kept."""
    return journal_path.with_name(f"{journal_path.stem}.batches.sqlite")


def open_batches(journal_path: Path) -> list[OpenBatch]:
    """The open batches of a journal; none where batch files were never used. Raises what `BatchState` raises."""
    path = state_path(journal_path)
    if not path.exists():
        return []
    with BatchState(path) as state:
        return state.open()


class BatchState:
    """The open batches of a journal, in an SQLite file. Use it as a context manager.

    Raises what `sqlite_errors.named_errors` raises if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with named_errors(path):
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {_SCHEMA}")

    def __enter__(self) -> BatchState:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with named_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def add(
        self, model: str, place: str, file_id: str, requests: Sequence[tuple[bytes, bytes]], expected: Usage
    ) -> OpenBatch:
        """Note that a file with `requests` (key, custom id) lies at the provider."""
        columns = (len(requests), expected.prompt_tokens, expected.completion_tokens, time.time())
        with self._transaction() as run:
            number = run.execute(
                "INSERT INTO batches VALUES (NULL, ?, ?, ?, '', ?, ?, ?, '', ?)", (model, place, file_id, *columns)
            ).lastrowid
            assert number is not None
            run.executemany("INSERT INTO requests VALUES (?, ?, ?)", [(*request, number) for request in requests])
        return OpenBatch(number, model, place, file_id, "", len(requests), expected)

    def runs(self, batch: OpenBatch, batch_id: str) -> OpenBatch:
        """Note that the batch runs under this id."""
        with self._transaction() as run:
            run.execute("UPDATE batches SET batch_id = ? WHERE number = ?", (batch_id, batch.number))
        return msgspec.structs.replace(batch, batch_id=batch_id)

    def ended(self, batch: OpenBatch, how: str) -> None:
        """Note that all there is of the batch is in the journal; its requests are forgotten."""
        with self._transaction() as run:
            run.execute("UPDATE batches SET ending = ? WHERE number = ?", (how or "ended", batch.number))
            run.execute("DELETE FROM requests WHERE batch = ?", (batch.number,))

    def open(self) -> list[OpenBatch]:
        """The open batches of all models, the oldest first."""
        with named_errors(self.path):
            rows = self._connection.execute(_OPEN).fetchall()
        return [
            OpenBatch(number, model, place, file_id, batch_id, requests, Usage(prompt, completion))
            for number, model, place, file_id, batch_id, requests, prompt, completion in rows
        ]

    def waiting(self, keys: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
        """Those of `keys` that are in an open batch: its number, and the custom id."""
        found: dict[bytes, tuple[int, bytes]] = {}
        for start in range(0, len(keys), _CHUNK):
            part = keys[start : start + _CHUNK]
            query = f"SELECT key, batch, custom_id FROM requests WHERE key IN ({','.join('?' * len(part))})"
            with named_errors(self.path):
                found |= {key: (batch, name) for key, batch, name in self._connection.execute(query, part)}
        return found

    def keys(self, batch: OpenBatch) -> Iterable[list[bytes]]:
        """The keys of a batch's requests, in portions."""
        last = b""
        while True:
            query = "SELECT key FROM requests WHERE batch = ? AND key > ? ORDER BY key LIMIT ?"
            with named_errors(self.path):
                rows = self._connection.execute(query, (batch.number, last, _CHUNK)).fetchall()
            if not rows:
                return
            yield [row[0] for row in rows]
            last = rows[-1][0]


__all__ = ["BatchState", "OpenBatch", "open_batches", "state_path"]
