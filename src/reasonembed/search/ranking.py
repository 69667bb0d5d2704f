"""From scores to a ranking. Scores are compared as float32, ties go to the greater id, as trec_eval does.

Exclusion comes before the cut, and what ties at the cut is decided by id: so the order of the corpus never
decides a score. Pure functions; N: documents scored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def top_k(
    scores_N: NDArray[np.floating],
    doc_ids: Sequence[str],
    *,
    k: int,
    excluded: Collection[str] = (),
    above: float = -np.inf,
) -> dict[str, float]:
    """The best `k` of the documents, best first, with their scores, without `excluded`.

    scores_N: one score for each of `doc_ids`.  above: only documents that score more than this are ranked.
    Raises ValueError if a score is not a number, k is below 1 or the lengths differ.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    scores = np.asarray(scores_N, dtype=np.float32)
    if scores.shape != (len(doc_ids),):
        raise ValueError(f"{len(doc_ids)} ids and scores of shape {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    wanted = k + len(excluded)
    rows = np.flatnonzero(scores > above) if above > -np.inf else np.arange(len(scores))
    if wanted < len(rows):
        kept = scores[rows]
        cut = np.partition(kept, len(kept) - wanted)[len(kept) - wanted]
        rows = rows[kept >= cut]  # all that tie at the cut are kept for the ids to decide
    candidates = {doc_ids[row]: float(scores[row]) for row in rows.tolist() if doc_ids[row] not in excluded}
    return {doc_id: candidates[doc_id] for doc_id in best_first(candidates)[:k]}


def top_k_each(
    scores_QC: NDArray[np.floating],
    rows_QC: NDArray[np.integer],
    doc_ids: Sequence[str],
    *,
    k: int,
    excluded: Sequence[Collection[str]],
) -> Iterator[dict[str, float]]:
    """`top_k` of the C candidates of each of Q queries; queries whose scores do not tie are sorted at once.

    rows_QC: the candidates' places in `doc_ids`.  excluded: ids for each query. Raises as `top_k` does.
    """
    scores = np.asarray(scores_QC, dtype=np.float32)
    order_QC = np.argsort(-scores, axis=1)
    falling_QC = np.take_along_axis(scores, order_QC, axis=1)
    best_QK = np.take_along_axis(rows_QC, order_QC[:, :k], axis=1).tolist()
    tied_Q = np.any(falling_QC[:, :-1] <= falling_QC[:, 1:], axis=1) | np.any(np.isnan(scores), axis=1)
    rows = zip(best_QK, falling_QC[:, :k].tolist(), tied_Q.tolist(), strict=True)
    for query, (best, falling, tied) in enumerate(rows):
        if not tied and not excluded[query]:
            yield dict(zip(map(doc_ids.__getitem__, best), falling, strict=True))
        else:
            ids = [doc_ids[row] for row in rows_QC[query].tolist()]
            yield top_k(scores[query], ids, k=k, excluded=excluded[query])


def best_first(scores: Mapping[str, float]) -> list[str]:
    """The ids by falling score, compared as float32; of equal scores the greater id comes first."""
    rounded = np.fromiter(scores.values(), dtype=np.float64, count=len(scores)).astype(np.float32).tolist()
    return [doc_id for _, doc_id in sorted(zip(rounded, scores, strict=True), reverse=True)]


def rank_of(scores_N: NDArray[np.floating], doc_ids: Sequence[str], row: int) -> int:
    """The place, from 1, of the document at `row` in the order of `top_k` over all documents.

    What is not to be counted has the score -inf. Raises ValueError if a score is not a number or the lengths differ.
    """
    scores = np.asarray(scores_N, dtype=np.float32)
    if scores.shape != (len(doc_ids),):
        raise ValueError(f"{len(doc_ids)} ids and scores of shape {scores.shape}")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    ties = np.flatnonzero(scores == scores[row]).tolist()
    return 1 + int(np.count_nonzero(scores > scores[row])) + sum(doc_ids[tie] > doc_ids[row] for tie in ties)
