"""Companions of a source: the further documents that its query is written from, where several per query are asked for.

They are those that BM25 ranks next to the source by the source's own text: documents that belong together. Near-copies
of the source and of one another are passed over, so that what they share is an idea and not a wording. They meet what
`select` asks of a source without a model: the domain check is asked of sources alone.
Deviation: the paper writes each query from one document, as `sources_per_query = 1` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

import numpy as np

from reasonembed.corpora import Corpus
from reasonembed.records import Dropped
from reasonembed.remixer.duplicates import copies_within
from reasonembed.remixer.rows import Source
from reasonembed.search.bm25 import Bm25Index
from reasonembed.search.ranking import top_k

_DEPTH = 32  # documents ranked at once for a source; more only where all of them are copies

Task = Callable[..., AbstractContextManager[Callable[[int], None]]]


def with_companions(
    rows: Iterable[Source | Dropped], found: Mapping[str, tuple[str, ...]], count: int
) -> Iterator[Source | Dropped]:
    """The rows of `select` with `count` companions for each source; one that has fewer is dropped with the reason.

    found: see `find_companions`.
    """
    for row in rows:
        if isinstance(row, Dropped):
            yield row
        elif len(companions := found[row.doc_id]) == count:
            yield Source(row.doc_id, companions)
        else:
            yield Dropped(row.doc_id, "too_few_companions", f"{len(companions)} found, {count} wanted")


def find_companions(
    source_ids: Iterable[str],
    corpus: Corpus,
    index: Bm25Index,
    *,
    eligible: Collection[str],
    count: int,
    near_copy: float,
    task: Task,
) -> dict[str, tuple[str, ...]]:
    """Source -> its companions, nearest first: `count`, or as many as share a word with it and are no near-copies.

    A source's companions depend on the corpus and on `eligible` alone, not on the other sources.
    index: of the corpus.  eligible: documents that may be companions.  near_copy: as for `find_near_copies`.
    task: shows progress, as `reasonembed.progress.task`.
    """
    nearest = _Nearest(corpus, index, eligible)
    found: dict[str, tuple[str, ...]] = dict.fromkeys(source_ids, ())
    apart: dict[str, set[str]] = {doc_id: set() for doc_id in found}
    latest = {doc_id: doc_id for doc_id in found}  # source -> the last document that was found for it
    for number in range(1, count + 1):
        with task(f"near-copies, companion {number} of {count}", total=len(corpus)) as advance:
            copies = copies_within(corpus, dict.fromkeys(latest.values()), threshold=near_copy, advance=advance)
        for source_id, doc_id in latest.items():
            apart[source_id] |= {doc_id, *copies[doc_id]}
        with task(f"companion {number} of {count}", total=len(latest)) as advance:
            following = {}
            for source_id in latest:
                if (best := nearest(source_id, apart[source_id])) is not None:
                    following[source_id] = best
                    found[source_id] += (best,)
                advance(1)
        latest = following
    return found


class _Nearest:
    """The best document for a source by query-side BM25, with the source's text as the query."""

    def __init__(self, corpus: Corpus, index: Bm25Index, eligible: Collection[str]) -> None:
        self._corpus = corpus
        self._index = index
        self._refused_N = np.array([doc_id not in eligible for doc_id in index.doc_ids], dtype=bool)
        self._ranked: dict[str, list[str]] = {}

    def __call__(self, source_id: str, excluded: Collection[str]) -> str | None:
        """The best one without `excluded`, None if no other shares a term with the source."""
        if source_id not in self._ranked:
            self._ranked[source_id] = self._rank(source_id, excluded)
        ranked = self._ranked[source_id]
        best = next((doc_id for doc_id in ranked if doc_id not in excluded), None)
        if best is None and len(ranked) == _DEPTH:
            self._ranked[source_id] = self._rank(source_id, excluded)
            best = next(iter(self._ranked[source_id]), None)
        return best

    def _rank(self, source_id: str, excluded: Collection[str]) -> list[str]:
        scores_N = self._index.scores(self._corpus[source_id].content, weighting="query")
        scores_N[self._refused_N] = 0
        return list(top_k(scores_N, self._index.doc_ids, k=_DEPTH, excluded=excluded, above=0))


__all__ = ["find_companions", "with_companions"]
