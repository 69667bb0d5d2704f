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


def _fuse(rankings: Sequence[dict[str, float]], k: int, constant: int) -> dict[str, float]:
    shares: dict[str, list[float]] = {}
    for ranking in rankings:
        for rank, doc_id in enumerate(best_first(ranking), 1):
            shares.setdefault(doc_id, []).append(1 / (constant + rank))
    fused = {doc_id: math.fsum(parts) for doc_id, parts in shares.items()}
    return {doc_id: fused[doc_id] for doc_id in best_first(fused)[:k]}
