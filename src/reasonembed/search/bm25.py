"""BM25, as a bag of words and query-side. The index is a sparse matrix of term weights, as bm25s makes it.

It is built from arrays, 4 bytes a token, where bm25s wants a list of numbers for each document.
N: documents, V: terms of the corpus, P: pairs of a document and a term that it holds.
"""

from __future__ import annotations

from array import array
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

_PAIRS = 1 << 22  # pairs whose weights are computed at once


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
        analyse = analyser(language)
        vocabulary = _Vocabulary()
        terms = array("i")
        lengths = array("i")
        for text in texts:
            of_text = analyse(text)
            terms.extend(map(vocabulary.__getitem__, of_text))
            lengths.append(len(of_text))
        if len(lengths) != len(doc_ids):
            raise ValueError(f"{len(doc_ids)} ids for {len(lengths)} texts")
        average_length = len(terms) / max(1, len(lengths))
        lengths_N = np.frombuffer(lengths, dtype=np.int32)
        norms_N = (k1 * (1 - b + b * lengths_N / max(average_length, 1e-9))).astype(np.float64)
        weights = _weights(np.frombuffer(terms, dtype=np.int32), lengths_N, norms_N, terms=len(vocabulary))
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


class _Vocabulary(dict[str, int]):
    """term -> its column; a new term gets the next one."""

    def __missing__(self, term: str) -> int:
        column = self[term] = len(self)
        return column


def _weights(
    term_ids: NDArray[np.int32], lengths_N: NDArray[np.int32], norms_N: NDArray[np.floating], *, terms: int
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """Weights and documents of all pairs (P), term after term, and where each term's begin (V + 1).

    term_ids: of all documents, one after the other.  norms_N: what is added to a term's count below the line.
    """
    from scipy.sparse import csr_array

    starts_N = np.concatenate([[0], np.cumsum(lengths_N, dtype=np.int64)])
    ones = np.ones(len(term_ids), dtype=np.float32)
    counts = csr_array((ones, term_ids, starts_N), shape=(len(lengths_N), terms)).tocsc()
    del ones
    counts.sum_duplicates()
    weights_P, rows_P, starts_V = counts.data, counts.indices.astype(np.int32, copy=False), counts.indptr
    frequency_V = np.diff(starts_V)
    idf_V = np.log1p((len(lengths_N) - frequency_V + 0.5) / (frequency_V + 0.5)).astype(np.float32)
    for start in range(0, len(weights_P), _PAIRS):  # in place: a million documents have 70 million pairs
        part = slice(start, start + _PAIRS)
        idf = np.repeat(idf_V, _counts_within(starts_V, start, min(start + _PAIRS, len(weights_P))))
        weights_P[part] = idf * (weights_P[part] / (weights_P[part] + norms_N[rows_P[part]]))
    return weights_P, rows_P, starts_V.astype(np.int64)


def _counts_within(starts_V: NDArray[np.integer], start: int, end: int) -> NDArray[np.integer]:
    """How many of each term's pairs stand from `start` to before `end`."""
    return np.diff(np.clip(starts_V, start, end))


def _several(text: str | Sequence[str]) -> Sequence[str]:
    return (text,) if isinstance(text, str) else text
