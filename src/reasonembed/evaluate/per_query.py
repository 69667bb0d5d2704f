"""Scores query by query: as rows of a file, and the queries on which two systems differ most. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypedDict

import msgspec

Key = tuple[str, str]
"""(domain, query_id)"""
Scored = Mapping[str, Mapping[Key, float]]
"""system -> (domain, query_id) -> score, all under one measure"""

CHANGES = 10  # how many gains and losses a report lists


class QueryRow(TypedDict):
    """One line of `per_query.jsonl`; scores are fractions."""

    domain: str
    query_id: str
    scores: dict[str, dict[str, float]]  # measure -> system -> score


class Change(msgspec.Struct, frozen=True):
    """How a query fared under two systems."""

    domain: str
    query_id: str
    base: float
    score: float

    @property
    def difference(self) -> float:
        """How much higher the system scored than the base."""
        return self.score - self.base


def per_query_rows(scored: Mapping[str, Scored]) -> Iterator[QueryRow]:
    """A row for each query, in the order in which they come; a system that lacks a query is left out of its row.

    scored: measure -> system -> (domain, query_id) -> score.
    """
    keys = dict.fromkeys(key for of_measure in scored.values() for scores in of_measure.values() for key in scores)
    for domain, query_id in keys:
        yield {
            "domain": domain,
            "query_id": query_id,
            "scores": {
                measure: {
                    system: scores[domain, query_id]
                    for system, scores in of_measure.items()
                    if (domain, query_id) in scores
                }
                for measure, of_measure in scored.items()
            },
        }


def largest_changes(
    scores: Mapping[Key, float], base: Mapping[Key, float], *, limit: int = CHANGES
) -> tuple[list[Change], list[Change]]:
    """The queries that gained most over `base` and those that lost most, at most `limit` of each, largest first.

    Queries without a change are no gain and no loss; equal changes stand by domain and query id.
    """
    changes = [Change(*key, base[key], score) for key, score in scores.items() if key in base and score != base[key]]
    changes.sort(key=lambda change: (-abs(change.difference), change.domain, change.query_id))
    gains = [change for change in changes if change.difference > 0]
    losses = [change for change in changes if change.difference < 0]
    return gains[:limit], losses[:limit]
