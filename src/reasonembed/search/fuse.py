"""Several rankings made one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reasonembed.records import Run
from reasonembed.search.ranking import best_first


def reciprocal_rank_fusion(runs: Sequence[Run], *, k: int = 100, constant: int = 60) -> Run:
    """Each query's documents by the sum over `runs` of 1 / (constant + rank), the best `k`, best first.

    Ranks count from 1; a document that a run does not name gets nothing from it; ties go to the greater id.
    Source: Cormack, Clarke and Buettcher 2009 (SIGIR), who set the constant to 60.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    query_ids = dict.fromkeys(query_id for run in runs for query_id in run)
    return {query_id: _fuse([run.get(query_id, {}) for run in runs], k, constant) for query_id in query_ids}


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


def _fuse(rankings: Sequence[dict[str, float]], k: int, constant: int) -> dict[str, float]:
    shares: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, doc_id in enumerate(best_first(ranking), 1):
            shares.setdefault(doc_id, []).append(1 / (constant + rank))
    fused = {doc_id: math.fsum(parts) for doc_id, parts in shares.items()}
    return {doc_id: fused[doc_id] for doc_id in best_first(fused)[:k]}
