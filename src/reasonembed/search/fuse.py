"""Several rankings made one: by rank, or by scores made comparable. Pure functions of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from reasonembed.records import Run
from reasonembed.search.ranking import best_first


def reciprocal_rank_fusion(runs: Sequence[Run], *, k: int = 100, constant: int = 60) -> Run:
    """Each query's documents by the sum over `runs` of 1 / (constant + rank), the best `k`, best first.

    Ranks count from 1; a document that a run does not name gets nothing from it; ties go to the greater id.
    Source: Cormack, Clarke and Buettcher 2009 (SIGIR), who set the constant to 60.
    """
    return _fused(
        [
            {
                query_id: {doc_id: 1 / (constant + rank) for rank, doc_id in enumerate(best_first(ranking), 1)}
                for query_id, ranking in run.items()
            }
            for run in runs
        ],
        k,
    )


def weighted_fusion(runs: Sequence[Run], weights: Sequence[float], *, k: int = 100) -> Run:
    """Each query's documents by the weighted sum of their scores after `min_max`, the best `k`, best first.

    A document that a run does not name gets nothing from it, so an empty ranking changes nothing; ties go to
    the greater id. Raises ValueError if there are not as many weights as runs.
    """
    return _fused(
        [
            {
                query_id: {doc_id: weight * score for doc_id, score in min_max(ranking).items()}
                for query_id, ranking in run.items()
            }
            for run, weight in zip(runs, weights, strict=True)
        ],
        k,
    )


def min_max(ranking: Mapping[str, float]) -> dict[str, float]:
    """The scores of one query moved to 0 (its lowest) to 1 (its highest); all 1 where all are equal.

    Our choice for equal scores: a document found alone is the best that was found.
    """
    if not ranking:
        return {}
    low, high = min(ranking.values()), max(ranking.values())
    if high == low:
        return dict.fromkeys(ranking, 1.0)
    return {doc_id: (score - low) / (high - low) for doc_id, score in ranking.items()}


def _fused(shares: Sequence[Run], k: int) -> Run:
    """Each query's documents by the sum of what every run gives them."""
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    query_ids = dict.fromkeys(query_id for run in shares for query_id in run)
    return {query_id: _sum([run.get(query_id, {}) for run in shares], k) for query_id in query_ids}


def pool_by_best_rank(runs: Sequence[Run], *, k: int = 100) -> Run:
    """Each query's documents by the best rank that any of `runs` gives them, the best `k`, best first.

    Of equal best ranks the better second one decides, and so on, then the greater id. The score is one divided
    by the best rank, counted from 1. Raises ValueError if k is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    query_ids = dict.fromkeys(query_id for run in runs for query_id in run)
    return {query_id: _pool([run.get(query_id, {}) for run in runs], k) for query_id in query_ids}


def _pool(rankings: Sequence[dict[str, float]], k: int) -> dict[str, float]:
    ranks: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, doc_id in enumerate(best_first(ranking), 1):
            ranks.setdefault(doc_id, []).append(rank)
    padded = {doc_id: sorted(found) + [math.inf] * (len(rankings) - len(found)) for doc_id, found in ranks.items()}
    pooled = sorted(sorted(padded, reverse=True), key=padded.__getitem__)
    return {doc_id: 1 / padded[doc_id][0] for doc_id in pooled[:k]}


def _sum(shares: Sequence[Mapping[str, float]], k: int) -> dict[str, float]:
    parts: dict[str, list[float]] = {}
    for of_run in shares:
        for doc_id, share in of_run.items():
            parts.setdefault(doc_id, []).append(share)
    sums = {doc_id: math.fsum(of_document) for doc_id, of_document in parts.items()}
    return {doc_id: sums[doc_id] for doc_id in best_first(sums)[:k]}
