"""Early stopping of hopeless candidates: how many of each query's candidates are judged, in rank order.

Decided by grades alone, so that neither concurrency nor an interruption changes it (law 4). Candidates are asked for in
waves over all queries: each wave asks of every query only as many as it takes until it might stop, so none is paid for
that a strictly sequential judge would not have seen, and a wave holds many queries' questions at once.

Deviation: the paper judges all candidates. Those left unjudged are no negatives in training, and count as irrelevant in
a holdout, as unjudged documents do in any benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice

import msgspec

from reasonembed.records import Dropped, Label
from reasonembed.remixer.rows import MinedQuery

IRRELEVANT = 2  # the highest grade that counts as irrelevant; paper: 1 and 2 are negatives
STOPPED = "stopped_early"  # the reason in the dropped file

Mined = Callable[[], Iterable[MinedQuery]]
Judge = Callable[[Mined, int], Iterator[Label | Dropped]]
"""Judges all candidates of some rows, in their order; the number says which wave it is, from 1."""


class Depth(msgspec.Struct, frozen=True):
    """How far a query has come: candidates judged, and how many irrelevant ones in a row stand at their end."""

    judged: int = 0
    in_a_row: int = 0

    def after(self, label: Label | Dropped) -> Depth:
        """One candidate further. What has no grade ends the row: a failure is never a grade (law 3)."""
        hopeless = isinstance(label, Label) and label.grade <= IRRELEVANT
        return Depth(self.judged + 1, self.in_a_row + 1 if hopeless else 0)


def judged_depths(mined: Mined, judge: Judge, patience: int) -> dict[str, int]:
    """query_id -> the number of its candidates that are judged: up to and with `patience` irrelevant ones in a row.

    mined: called several times a wave. Memory holds two numbers a query. There are at most as many waves as candidates;
    `judge` finds in the journal what an interrupted run has asked.
    """
    depths: dict[str, Depth] = {}
    for wave in count(1):
        rows = _next_candidates(mined, dict(depths), patience)
        if next(iter(rows()), None) is None:
            return {query_id: depth.judged for query_id, depth in depths.items()}
        labels = judge(rows, wave)
        for row in rows():
            depth = depths.get(row.query_id, Depth())
            for label in islice(labels, len(row.candidates)):
                depth = depth.after(label)
            depths[row.query_id] = depth
    raise AssertionError("unreachable: every wave judges a candidate")


def _next_candidates(mined: Mined, depths: dict[str, Depth], patience: int) -> Mined:
    """The candidates that are judged next, for the queries that have some; `depths` must not change meanwhile."""

    def rows() -> Iterator[MinedQuery]:
        for row in mined():
            depth = depths.get(row.query_id, Depth())
            if following := row.candidates[depth.judged : depth.judged + patience - depth.in_a_row]:
                yield msgspec.structs.replace(row, candidates=following)

    return rows


__all__ = ["IRRELEVANT", "STOPPED", "Depth", "Judge", "Mined", "judged_depths"]
