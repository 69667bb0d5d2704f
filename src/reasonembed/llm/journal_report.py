"""What a journal holds and what that cost, read from the file alone; also while a run fills it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from reasonembed.errors import DamageError, InputError
from reasonembed.llm.journal_schema import look_over, schema_version
from reasonembed.llm.prices import Prices
from reasonembed.llm.reading import reading
from reasonembed.llm.spending import STAGE_SQL, Spending, read_ledger
from reasonembed.llm.sqlite_errors import CURE
from reasonembed.workspace import Workspace

_HELD = f"""
SELECT {STAGE_SQL}, {{model}}, failure, count(*), min(answered_at), max(answered_at)
FROM replies GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


class _Held(NamedTuple):
    stage: str
    model: str
    failure: str
    replies: int
    first: float
    last: float


class StageLine(msgspec.Struct, frozen=True):
    """What one model answered in one stage, and what that cost."""

    stage: str
    model: str  # empty: not recorded, by releases before schema version 2
    replies: int  # in the file now
    failures: dict[str, int]  # of them, by reason
    calls: int  # ever paid for
    prompt_tokens: int  # of all calls
    completion_tokens: int
    cost: float | None  # of all calls; None: no price is known


class JournalReport(msgspec.Struct, frozen=True):
    """Counts and spend of a journal."""

    path: str
    schema_version: int
    replies: int
    failures: dict[str, int]  # by reason
    first_answered_at: str | None  # UTC, ISO 8601; None: no replies
    last_answered_at: str | None
    stages: tuple[StageLine, ...]
    cost: float  # of all calls whose price is known
    currency: str
    unpriced: tuple[str, ...]  # models without a known price


def journal_path(place: Path) -> Path:
    """The journal of a workspace, or `place` itself if it is a file. Raises InputError if there is none."""
    path = place if place.is_file() else Workspace(place).journal_path
    if not path.is_file():
        raise InputError(f"there is no journal {path}. Give a workspace that `synthesize` filled, or a journal's file.")
    return path


def report_journal(path: Path, prices: Prices) -> JournalReport:
    """Counts and spend of the journal at `path`.

    Raises InputError if the file is no journal, DamageError if it is torn, WorkspaceBusy if it changed meanwhile.
    """
    with reading(path) as connection:
        version = opened_version(connection, path)
        look_over(connection, path, version)
        query = _HELD.format(model="''" if version == 1 else "ifnull(model, '')")
        held = [_Held(*row) for row in connection.execute(query)]
        ledger = read_ledger(connection)
    try:
        times = (utc(min(group.first for group in held)), utc(max(group.last for group in held))) if held else None
    except (TypeError, ValueError) as error:
        raise DamageError(f"the journal {path} is damaged (a reply has an impossible time: {error}). {CURE}") from error
    lines = _stage_lines(held, ledger, prices)
    return JournalReport(
        path=str(path),
        schema_version=version,
        replies=sum(group.replies for group in held),
        failures=_failures(held),
        first_answered_at=times[0] if times else None,
        last_answered_at=times[1] if times else None,
        stages=lines,
        cost=sum(line.cost or 0.0 for line in lines),
        currency=prices.currency,
        unpriced=tuple(dict.fromkeys(line.model for line in lines if line.cost is None)),
    )


def opened_version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema version of a journal opened to be read. Raises InputError for an empty file too."""
    version = schema_version(connection, path)
    if version == 0:
        raise InputError(f"{path} is empty: nothing was answered yet, or it is no journal. Choose another path.")
    return version


def utc(seconds: float) -> str:
    """A time in seconds since 1970 as ISO 8601, in UTC. Raises ValueError if it is none."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError) as error:
        raise ValueError(f"{seconds!r} is no time") from error


def _failures(held: Sequence[_Held]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for group in held:
        if group.failure:
            counts[group.failure] += group.replies
    return dict(sorted(counts.items()))


def _stage_lines(held: Sequence[_Held], ledger: Sequence[Spending], prices: Prices) -> tuple[StageLine, ...]:
    paid = {(spent.stage, spent.model): spent for spent in ledger}
    payees: dict[str, list[str]] = {}
    for spent in ledger:
        payees.setdefault(spent.stage, []).append(spent.model)
    groups: dict[tuple[str, str], list[_Held]] = {key: [] for key in paid}
    for group in held:
        only, *others = payees.get(group.stage, [""])
        model = group.model or ("" if others else only)  # every reply was booked: one payee answered all of a stage
        groups.setdefault((group.stage, model), []).append(group)
    return tuple(
        _stage_line(groups[stage, model], paid.get((stage, model), Spending(model, stage, 0, 0, 0)), prices)
        for stage, model in sorted(groups)
    )


def _stage_line(held: Sequence[_Held], spent: Spending, prices: Prices) -> StageLine:
    return StageLine(
        stage=spent.stage,
        model=spent.model,
        replies=sum(group.replies for group in held),
        failures=_failures(held),
        calls=spent.calls,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        cost=prices.cost(spent.model, spent.prompt_tokens, spent.completion_tokens),
    )


__all__ = ["JournalReport", "StageLine", "journal_path", "opened_version", "report_journal", "utc"]
