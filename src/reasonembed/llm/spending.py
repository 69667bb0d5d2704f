"""The journal's ledger: calls and tokens ever paid for, by model and stage. A few rows, however long the journal."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from reasonembed.llm.chat import Reply
from reasonembed.llm.keys import id_bytes
from reasonembed.llm.reading import reading

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
STAGE_SQL = "CAST(substr(custom_id, 1, ifnull(nullif(instr(custom_id, x'3A'), 0) - 1, length(custom_id))) AS TEXT)"
"""The stage of a reply: what stands before the first colon of its custom id, as `book` has it."""

_FROM_REPLIES = f"""
SELECT '', {STAGE_SQL}, count(*), sum(prompt_tokens), sum(completion_tokens) FROM replies GROUP BY 2 ORDER BY 2
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
    if not _has(connection, "spending"):
        connection.execute(_SCHEMA)
        connection.execute(f"INSERT INTO spending {_FROM_REPLIES}")


def _has(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None


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
    """The ledger by model and stage; of a journal without one, what its replies say."""
    query = _READ if _has(connection, "spending") else _FROM_REPLIES if _has(connection, "replies") else None
    return tuple(Spending(*row) for row in connection.execute(query)) if query else ()


def spending_of(path: Path) -> tuple[Spending, ...]:
    """The ledger of a journal that may not be there, without changing it or anything beside it."""
    if not path.is_file():
        return ()
    with reading(path) as connection:
        return read_ledger(connection)


__all__ = ["STAGE_SQL", "Spending", "book", "open_ledger", "read_ledger", "spending_of"]
