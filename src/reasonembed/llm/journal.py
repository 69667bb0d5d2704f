"""The journal: every reply a model gave, in one SQLite file, so that nothing paid for is lost or paid twice.

A reply is found by `keys.reply_key`, a hash of all that decides an answer. Replies are committed in groups
(write-ahead log); each row carries a checksum that is verified on reading.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec
import zstandard

from reasonembed.errors import DamageError, InputError, shown
from reasonembed.llm.chat import Failure, Reply, Usage
from reasonembed.llm.keys import id_bytes
from reasonembed.llm.spending import Spending, book, open_ledger, read_ledger
from reasonembed.llm.sqlite_errors import named_errors

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x52454D58  # "REMX": tells our files from other SQLite databases
_MAX_BODY_BYTES = 64 * 1024 * 1024  # our choice: no reply is larger, so a larger one is a bomb
_CHUNK = 500  # keys in one SELECT
_BUSY_TIMEOUT_S = 10

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
    answered_at REAL NOT NULL
)
"""
_INSERT = """
INSERT OR IGNORE INTO replies
(key, custom_id, failure, prompt_tokens, completion_tokens, body, checksum, answered_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_SELECT = "SELECT number, key, custom_id, failure, prompt_tokens, completion_tokens, body, checksum FROM replies"


class _Body(msgspec.Struct, omit_defaults=True):
    """What of a reply is compressed; the rest stands in columns."""

    text: str
    thinking: str = ""
    detail: str = ""


class _Row(NamedTuple):
    number: int
    key: bytes
    custom_id: bytes
    failure: str
    prompt_tokens: int
    completion_tokens: int
    body: bytes
    checksum: bytes


_encode = msgspec.json.Encoder().encode
_decode_body = msgspec.json.Decoder(_Body).decode


class Journal:
    """All replies of a workspace, by key. One process writes at a time; others may read meanwhile.

    durable: wait for the disk at each commit (SQLite's FULL), so that replies survive a power cut; otherwise
    (NORMAL) they survive the death of the process, at any moment.
    Raises InputError if `path` is no journal or a newer one, DamageError if it is torn, StorageError if the
    disk refuses. Use it as a context manager, or close it.
    """

    def __init__(self, path: Path | str, *, durable: bool = False) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        with named_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        self._connection.text_factory = _lenient_text
        try:
            with named_errors(self.path):
                self._prepare("FULL" if durable else "NORMAL")
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, synchronous: str) -> None:
        run = self._connection.execute
        self._refuse_strangers()
        run("PRAGMA journal_mode = WAL")
        run(f"PRAGMA synchronous = {synchronous}")
        with self._transaction():
            if not self._refuse_strangers():
                run(_SCHEMA)
                run(f"PRAGMA application_id = {_APPLICATION_ID}")
                run(f"PRAGMA user_version = {SCHEMA_VERSION}")
            open_ledger(self._connection)

    def _refuse_strangers(self) -> bool:
        """Whether the file is a journal (False: it is empty). Raises InputError if it is something else."""
        run = self._connection.execute
        application = run("PRAGMA application_id").fetchone()[0]
        version = run("PRAGMA user_version").fetchone()[0]
        if application == 0 and run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            return False
        if application != _APPLICATION_ID:
            raise InputError(f"{self.path} is an SQLite database but no journal of replies. Choose another path.")
        if version > SCHEMA_VERSION:
            raise InputError(
                f"{self.path} has schema version {version}; this release reads up to {SCHEMA_VERSION}. "
                f"Install a newer reasonembed or start another workspace."
            )
        return True

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

        model: who is paid for them, for the ledger (see `spending`).
        """
        replies = list(replies)
        with self._lock, named_errors(self.path):
            now = time.time()
            rows = [self._columns(key, reply, now) for key, reply in replies]
            with self._transaction():
                self._connection.executemany(_INSERT, rows)
                book(self._connection, model, (reply for _, reply in replies))

    def _columns(self, key: bytes, reply: Reply, now: float) -> tuple[object, ...]:
        failure = reply.failure
        body = self._compress(
            _encode(_Body(text=reply.text, thinking=reply.thinking, detail=failure.detail if failure else ""))
        )
        row = _Row(
            number=0,
            key=key,
            custom_id=id_bytes(reply.custom_id),
            failure=failure.kind if failure else "",
            prompt_tokens=reply.usage.prompt_tokens,
            completion_tokens=reply.usage.completion_tokens,
            body=body,
            checksum=b"",
        )
        return (*row[1:7], _checksum(row), now)

    def get(self, key: bytes) -> Reply | None:
        """The reply under `key`, or None. Raises DamageError if it is not what was written."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, Reply]:
        """The replies that are there, by key. Raises DamageError naming file and row if one was altered."""
        return {row.key: self._reply(row) for row in self._rows(_SELECT, keys)}

    def contains_many(self, keys: Iterable[bytes]) -> dict[bytes, str]:
        """Those of `keys` that have a reply, each with its failure's kind (empty: a usable text)."""
        select = "SELECT number, key, custom_id, failure, 0, 0, x'', x'' FROM replies"
        return {row.key: row.failure for row in self._rows(select, keys)}

    def _rows(self, select: str, keys: Iterable[bytes]) -> Iterator[_Row]:
        remaining = iter(keys)
        while chunk := list(islice(remaining, _CHUNK)):
            query = f"{select} WHERE key IN ({','.join('?' * len(chunk))})"
            with self._lock, named_errors(self.path):
                rows = self._connection.execute(query, chunk).fetchall()
            yield from map(_Row._make, rows)

    def _reply(self, row: _Row) -> Reply:
        try:
            if _checksum(row) != row.checksum:
                raise ValueError("the checksum does not match")
            if not 0 <= zstandard.frame_content_size(row.body) <= _MAX_BODY_BYTES:
                raise ValueError("its size is impossible")
            body = _decode_body(self._decompress(row.body))
            failure = None
            if row.failure:
                failure = msgspec.convert({"kind": row.failure, "detail": body.detail}, Failure)
        except (ValueError, TypeError, AttributeError, msgspec.MsgspecError, zstandard.ZstdError) as error:
            raise DamageError(
                f"{self.path}, reply {row.number} ({shown(row.custom_id)}) is damaged: {error}. "
                f"Restore the file from a copy, or delete that row of table replies to have it asked again."
            ) from error
        return Reply(
            custom_id=row.custom_id.decode("utf-8", "surrogatepass"),
            text=body.text,
            usage=Usage(prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens),
            failure=failure,
            thinking=body.thinking,
        )

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


def _lenient_text(raw: bytes) -> str:
    """Damaged text is to reach the checksum, which names the row, and not to fail in SQLite's decoder."""
    return raw.decode("utf-8", "replace")


def _checksum(row: _Row) -> bytes:
    digest = hashlib.blake2b(row.key, digest_size=16)
    digest.update(
        b"%d %d %d %s " % (row.prompt_tokens, row.completion_tokens, len(row.custom_id), row.failure.encode())
    )
    digest.update(row.custom_id)
    digest.update(row.body)
    return digest.digest()


__all__ = ["SCHEMA_VERSION", "Journal"]
