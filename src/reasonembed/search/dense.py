"""Exact search by inner product: block by block over the vectors, which may be a memory-mapped file.

The best candidates come from `faiss.knn`; their scores are then computed again one by one in float64, so that
neither the order of the corpus nor the size of a block changes a score or a ranking.
Q: queries, N: documents, D: dimension, C: candidates fetched for each query.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from reasonembed.encoder.shards import Vectors
from reasonembed.errors import InputError, shown
from reasonembed.records import Run
from reasonembed.search.ranking import top_k_each

BLOCK_BYTES = 256 * 1024 * 1024  # our choice: of float32 vectors; large enough that merging costs nothing
_RESCORED_BYTES = 2 * 1024 * 1024  # our choice: of candidates whose exact scores are computed at once
_SLACK = 16  # fetched beyond k, so that a tie at the cut rarely needs a second pass
_MARGIN = 1e-5  # how far faiss' float32 sums may lie from the exact ones, relative to the largest score

Rows = NDArray[np.floating] | Vectors
"""Vectors as one array, in memory or mapped, or as shards on the disk."""


def search_vectors(
    query_vectors_QD: NDArray[np.floating],
    document_vectors_ND: Rows,
    *,
    query_ids: Sequence[str],
    doc_ids: Sequence[str],
    k: int = 100,
    excluded: Mapping[str, Collection[str]] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Run:
    """The exact best `k` documents of each query, best first, without those `excluded` for it.

    Vectors of any float type; documents are cast to float32 a block at a time. Ties go to the greater id,
    whatever the order of the corpus. Raises ValueError if shapes and ids do not fit, InputError for a vector
    that is not finite.
    """
    _check(query_vectors_QD, document_vectors_ND, query_ids, doc_ids, k)
    if not query_ids or not doc_ids:
        return {query_id: {} for query_id in query_ids}
    queries = np.ascontiguousarray(query_vectors_QD, dtype=np.float32)
    _check_finite(queries, query_ids, "query")
    without = [frozenset((excluded or {}).get(query_id, ())) for query_id in query_ids]
    found: dict[int, dict[str, float]] = {}
    fetch = min(len(doc_ids), k + _SLACK + min(k, max(map(len, without))))
    pending = np.arange(len(query_ids))
    while len(pending):
        scores_QC, rows_QC = _nearest(queries[pending], document_vectors_ND, doc_ids, fetch, block_bytes)
        again = []
        rankings = _rankings(queries[pending], document_vectors_ND, rows_QC, doc_ids, k, [without[p] for p in pending])
        for place, floor, ranking in zip(pending.tolist(), scores_QC.min(axis=1).tolist(), rankings, strict=True):
            if fetch < len(doc_ids) and not _complete(ranking, k, floor):
                again.append(place)
            else:
                found[place] = ranking
        pending = np.array(again, dtype=np.int64)
        fetch = min(len(doc_ids), 4 * fetch)
    return {query_id: found[place] for place, query_id in enumerate(query_ids)}


def _nearest(
    queries_QD: NDArray[np.float32],
    documents_ND: Rows,
    doc_ids: Sequence[str],
    fetch: int,
    block_bytes: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `fetch` best documents of each query, unordered: scores and rows, both (Q, C)."""
    import faiss

    heap = faiss.ResultHeap(len(queries_QD), fetch, keep_max=True)
    for start, block in _blocks(documents_ND, block_bytes):
        _check_finite(block, doc_ids[start : start + len(block)], "document")
        scores, rows = faiss.knn(queries_QD, block, min(fetch, len(block)), faiss.METRIC_INNER_PRODUCT)
        heap.add_result(scores, rows + start)
    return heap.D, heap.I


def _blocks(vectors_ND: Rows, block_bytes: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    rows = max(1, block_bytes // (4 * vectors_ND.shape[1]))
    for start in range(0, len(vectors_ND), rows):
        yield start, np.ascontiguousarray(vectors_ND[start : start + rows], dtype=np.float32)


def _rankings(
    queries_QD: NDArray[np.float32],
    documents_ND: Rows,
    rows_QC: NDArray[np.int64],
    doc_ids: Sequence[str],
    k: int,
    excluded: Sequence[frozenset[str]],
) -> Iterator[dict[str, float]]:
    """The ranking of each query's candidates by their exact scores: a few queries at a time."""
    import faiss

    def rescored(some: slice) -> NDArray[np.float64]:
        candidates_CD = np.asarray(documents_ND[rows_QC[some].ravel()], dtype=np.float32)
        candidates_QCD = candidates_CD.reshape(*rows_QC[some].shape, -1)
        return np.einsum("qcd,qd->qc", candidates_QCD, queries_QD[some], dtype=np.float64)

    together = max(1, _RESCORED_BYTES // (4 * rows_QC.shape[1] * queries_QD.shape[1]))
    parts = [slice(start, start + together) for start in range(0, len(queries_QD), together)]
    with ThreadPoolExecutor(faiss.omp_get_max_threads()) as pool:
        for some, scores_QC in zip(parts, pool.map(rescored, parts), strict=True):
            yield from top_k_each(scores_QC, rows_QC[some], doc_ids, k=k, excluded=excluded[some])


def _complete(ranking: Mapping[str, float], k: int, floor: float) -> bool:
    """Whether no document that was not fetched (scores up to `floor`) can belong among the best `k`."""
    if len(ranking) < k:
        return False
    scores = list(ranking.values())
    best, last = scores[0], scores[-1]
    return last - floor > _MARGIN * max(abs(best), abs(floor))


def _check(
    queries_QD: NDArray[np.floating],
    documents_ND: Rows,
    query_ids: Sequence[str],
    doc_ids: Sequence[str],
    k: int,
) -> None:
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    if len(query_ids) != len(queries_QD) or len(doc_ids) != len(documents_ND):
        raise ValueError(
            f"{len(query_ids)} query ids for {len(queries_QD)} vectors, {len(doc_ids)} document ids for "
            f"{len(documents_ND)}"
        )
    if queries_QD.ndim != 2 or documents_ND.ndim != 2 or queries_QD.shape[1] != documents_ND.shape[1]:
        raise ValueError(f"query vectors of shape {queries_QD.shape}, document vectors of {documents_ND.shape}")


def _check_finite(vectors: NDArray[np.float32], ids: Sequence[str], kind: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(vectors.sum()):
            return
    for name, vector in zip(ids, vectors, strict=True):
        if not np.isfinite(vector).all():
            raise InputError(
                f"the vector of {kind} {shown(name)} is not finite. The model is damaged or overflows: try float32."
            )
