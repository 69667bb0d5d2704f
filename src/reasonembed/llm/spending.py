"""The journal's ledger: calls and tokens ever paid for, by model and stage. A few rows, however long the journal."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from reasonembed.llm.chat import Reply
from reasonembed.llm.keys import id_bytes
from reasonembed.llm.sqlite_errors import named_errors

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spending (
    model TEXT NOT NULL,
    stage TEXT NOT NULL,
    calls INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (model, stage)
)
"""
_STAGE = "CAST(substr(custom_id, 1, max(instr(custom_id, x'3A') - 1, 0)) AS TEXT)"
_FROM_REPLIES = f"""
INSERT INTO spending SELECT '', {_STAGE}, count(*), total(prompt_tokens), total(completion_tokens)
FROM replies GROUP BY {_STAGE}
"""
_BOOK = """
INSERT INTO spending VALUES (?, ?, ?, ?, ?) ON CONFLICT (model, stage) DO UPDATE SET
calls = calls + excluded.calls,
prompt_tokens = prompt_tokens + excluded.prompt_tokens,
completion_tokens = completion_tokens + excluded.completion_tokens
"""
_READ = "SELECT model, stage, calls, prompt_tokens, completion_tokens FROM spending ORDER BY model, stage"


class Spending(msgspec.Struct, frozen=True):
    """What one model was paid for in one stage."""

    model: str  # as `Prices.of` takes it; empty for replies of journals that kept no ledger yet
    stage: str
    calls: int
    prompt_tokens: int
    completion_tokens: int


def open_ledger(connection: sqlite3.Connection) -> None:
    """Make the ledger if the journal has none, from the replies that it holds. Call it inside a transaction."""
    if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'spending'").fetchone()[0]:
        return
    connection.execute(_SCHEMA)
    connection.execute(_FROM_REPLIES)


def book(connection: sqlite3.Connection, model: str, replies: Iterable[Reply]) -> None:
    """Add `replies` to the ledger, in the transaction that commits them."""
    calls: Counter[str] = Counter()
    prompt: Counter[str] = Counter()
    completion: Counter[str] = Counter()
    for reply in replies:
        stage = id_bytes(reply.custom_id).partition(b":")[0].decode("utf-8", "replace")
        calls[stage] += 1
        prompt[stage] += reply.usage.prompt_tokens
        completion[stage] += reply.usage.completion_tokens
    connection.executemany(_BOOK, [(model, stage, calls[stage], prompt[stage], completion[stage]) for stage in calls])


def read_ledger(connection: sqlite3.Connection) -> tuple[Spending, ...]:
    """The ledger by model and stage."""
    return tuple(Spending(*row) for row in connection.execute(_READ))


def spending_of(path: Path) -> tuple[Spending, ...]:
    """The ledger of a journal that may not be there, without changing it or anything beside it."""
    if not path.is_file():
        return ()
    quiet = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    with named_errors(path):
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{quiet}", uri=True)) as connection:
            has_ledger = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'spending'").fetchone()[0]
            return read_ledger(connection) if has_ledger else ()


__all__ = ["Spending", "book", "open_ledger", "read_ledger", "spending_of"]
