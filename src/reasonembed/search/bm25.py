"""BM25, as a bag of words and query-side. The index is bm25s' sparse matrix of term weights.

N: documents, V: terms of the corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from reasonembed.records import Run
from reasonembed.search.analyser import Analyser, analyser
from reasonembed.search.ranking import top_k

Weighting = Literal["bag", "query"]
"""`bag`: a query term counts as often as it stands in the query. `query`: it is weighted as in a document."""


class Bm25Index:
    """Documents indexed by Lucene's BM25: `idf * tf / (tf + k1 * (1 - b + b * length / average length))`."""

    def __init__(
        self,
        doc_ids: Sequence[str],
        vocabulary: Mapping[str, int],
        weights: tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]],
        *,
        analyse: Analyser,
        average_length: float,
        k1: float,
        b: float,
    ) -> None:
        """weights: data, rows and column starts (V + 1) of the (N, V) matrix; use `build` to make them."""
        self.doc_ids = list(doc_ids)
        self.k1, self.b = k1, b
        self._vocabulary = vocabulary
        self._data, self._rows, self._starts = weights
        self._analyse = analyse
        self._average_length = average_length

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        doc_ids: Sequence[str],
        *,
        language: str = "en",
        k1: float = 0.9,
        b: float = 0.4,
    ) -> Bm25Index:
        """The index of `texts`, one for each of `doc_ids`; `k1` and `b` as in BRIGHT (PAPER.md section 4).

        Raises ValueError if there are not as many ids as texts, ConfigError for an unknown language.
        """
        from bm25s import BM25

        analyse = analyser(language)
        vocabulary: dict[str, int] = {}
        term_ids = [[vocabulary.setdefault(t, len(vocabulary)) for t in analyse(text)] for text in texts]
        if len(term_ids) != len(doc_ids):
            raise ValueError(f"{len(doc_ids)} ids for {len(term_ids)} texts")
        average_length = sum(map(len, term_ids)) / max(1, len(term_ids))
        weights = _no_weights()
        if vocabulary:
            engine = BM25(k1=k1, b=b, method="lucene", backend="numpy", csc_backend="numpy")
            engine.index((term_ids, vocabulary), create_empty_token=False, show_progress=False)
            weights = (engine.scores["data"], engine.scores["indices"], engine.scores["indptr"])
        return cls(doc_ids, vocabulary, weights, analyse=analyse, average_length=average_length, k1=k1, b=b)

    def search(
        self,
        queries: Mapping[str, str | Sequence[str]],
        *,
        k: int = 100,
        weighting: Weighting = "bag",
        excluded: Mapping[str, Collection[str]] | None = None,
    ) -> Run:
        """The best `k` documents of each query, best first, without those `excluded` for it.

        queries: query_id -> its text, or several texts whose scores are summed. A document that shares no term
        with the query is not ranked, as in Lucene; so a query without any term of the corpus has an empty
        ranking. Raises ValueError for an unknown weighting.
        """
        if weighting not in get_args(Weighting):
            raise ValueError(f"weighting is {weighting!r}; it must be one of {', '.join(get_args(Weighting))}")
        excluded = excluded or {}
        return {
            query_id: top_k(
                np.sum([self.scores(wording, weighting=weighting) for wording in _several(text)], axis=0),
                self.doc_ids,
                k=k,
                excluded=excluded.get(query_id, ()),
                above=0,
            )
            for query_id, text in queries.items()
        }

    def scores(self, query: str, *, weighting: Weighting = "bag") -> NDArray[np.float64]:
        """The score of every document, shape (N,), in corpus order; 0 where no term is shared."""
        counts = Counter(term for term in self._analyse(query) if term in self._vocabulary)
        scores = np.zeros(len(self.doc_ids))
        length = counts.total()
        # In the order of the query's words, so that rounding does not depend on the order of the corpus.
        for term, count in counts.items():
            column = self._vocabulary[term]
            places = slice(self._starts[column], self._starts[column + 1])
            weight = float(count) if weighting == "bag" else self._query_weight(column, count, length)
            scores[self._rows[places]] += weight * self._data[places].astype(np.float64)
        return scores

    def _query_weight(self, column: int, count: int, length: int) -> float:
        """The weight that a document of `length` terms would have for this term.

        Our reading: terms that the corpus does not know have no part in the length, as in BRIGHT's own runs,
        where the dictionary drops them first.
        """
        frequency = int(self._starts[column + 1] - self._starts[column])
        idf = np.log1p((len(self.doc_ids) - frequency + 0.5) / (frequency + 0.5))
        return float(idf * count / (count + self.k1 * (1 - self.b + self.b * length / self._average_length)))


def _several(text: str | Sequence[str]) -> Sequence[str]:
    return (text,) if isinstance(text, str) else text


def _no_weights() -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    return np.empty(0, np.float32), np.empty(0, np.int32), np.zeros(1, np.int64)
