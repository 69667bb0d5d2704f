"""The largest weighted Jaccard similarity of each text to any of many others, exactly, and which one it is.

The frequent terms of a block of texts have a dense row of counts each (the loop over it is one vector
instruction for many texts), the others postings; blocks bound the memory. Needs numba, loaded at the call.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import msgspec
import numpy as np
from numpy.typing import NDArray

from reasonembed.analyze.vocabulary import Vocabulary, hot_loops

BLOCK = 4096  # texts at a time: their sums and dense rows stay in a core's cache
_DENSE_TERMS = 512  # at most, a block: 2 MB
_DENSE_SHARE = 1 / 32  # of a block's texts must hold a term for a dense row to be the faster
_LARGEST_COUNT = 255  # what a dense row can hold; a term that a text repeats more often has postings
_CHUNK = 64  # queries that a thread takes at a time


class Nearest(msgspec.Struct, frozen=True):
    """The text most similar to another one. `row` is its place among the texts; None if they share no word."""

    similarity: float
    row: int | None


class WordCounts(msgspec.Struct, frozen=True):
    """Rows of word counts: row r holds `terms[starts[r]:starts[r + 1]]`, each `counts` times; `lengths` in words."""

    starts: NDArray[np.int64]
    terms: NDArray[np.int32]
    counts: NDArray[np.int32]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)


def nearest(queries: Sequence[str], texts: Iterable[str], *, threads: int | None = None) -> list[Nearest]:
    """For each query the text with the largest `sum min / sum max` of word counts; the first of equals.

    Words are those of `texts.words`, none left out (the paper, figure 3).  threads: None takes all cores.
    Raises MissingExtra without numba.
    """
    vocabulary = Vocabulary()
    wanted = count_words(queries, vocabulary)
    return nearest_counts(wanted, counted_blocks(texts, vocabulary), threads=threads)


def counted_blocks(texts: Iterable[str], vocabulary: Vocabulary) -> Iterator[WordCounts]:
    """The word counts of `texts`, `BLOCK` at a time."""
    rest = iter(texts)
    while len(block := count_words(islice(rest, BLOCK), vocabulary)):
        yield block


def count_words(texts: Iterable[str], vocabulary: Vocabulary) -> WordCounts:
    """The word counts of `texts`; new words enter `vocabulary`."""
    numbered = vocabulary.number(texts)
    starts = np.zeros(len(numbered.ends) + 1, np.int64)
    terms, counts = np.empty_like(numbered.words), np.empty_like(numbered.words)
    used = hot_loops().count_rows(numbered.words, numbered.ends, len(vocabulary), starts, terms, counts)
    return WordCounts(starts, terms[:used].copy(), counts[:used].copy(), np.diff(numbered.ends, prepend=0))


def nearest_counts(queries: WordCounts, blocks: Iterable[WordCounts], *, threads: int | None = None) -> list[Nearest]:
    """As `nearest`, on counts; each block of texts is let go before the next is asked for."""
    best, rows = np.zeros(len(queries)), np.full(len(queries), -1, np.int64)
    threads = threads or os.cpu_count() or 1
    offset = 0
    with ThreadPoolExecutor(threads) as pool:
        for block in blocks:
            _search_block(queries, block, offset, best, rows, pool)
            offset += len(block)
    return [
        Nearest(similarity, row if row >= 0 else None)
        for similarity, row in zip(best.tolist(), rows.tolist(), strict=True)
    ]


def _search_block(
    queries: WordCounts,
    block: WordCounts,
    offset: int,
    best: NDArray[np.float64],
    rows: NDArray[np.int64],
    pool: ThreadPoolExecutor,
) -> None:
    columns = _columns(queries, block)

    def search(chunk: tuple[int, int]) -> None:
        wanted = (queries.starts, queries.terms, queries.counts, queries.lengths)
        hot_loops().nearest_rows(*chunk, *wanted, *columns, block.lengths, offset, best, rows)

    list(pool.map(search, _chunks(len(queries))))


def _chunks(total: int) -> Iterator[tuple[int, int]]:
    for first in range(0, total, _CHUNK):
        yield first, min(first + _CHUNK, total)


def _columns(queries: WordCounts, block: WordCounts) -> tuple[NDArray[np.generic], ...]:
    """Column starts, rows and counts of the postings, the dense row of each term (or -1), the dense rows."""
    n_terms = 1 + max((int(side.terms.max()) for side in (queries, block) if len(side.terms)), default=0)
    frequency = np.bincount(block.terms, minlength=n_terms)
    fits = np.ones(n_terms, bool)
    fits[block.terms[block.counts > _LARGEST_COUNT]] = False
    frequent = np.flatnonzero(frequency * fits > _DENSE_SHARE * len(block))
    chosen = frequent[np.argsort(-frequency[frequent], kind="stable")[:_DENSE_TERMS]]
    dense_row = np.full(n_terms, -1, np.int32)
    dense_row[chosen] = np.arange(len(chosen), dtype=np.int32)
    frequency[chosen] = 0
    column_starts = np.concatenate([[0], np.cumsum(frequency)]).astype(np.int64)
    rows, counts = np.empty(column_starts[-1], np.int32), np.empty(column_starts[-1], np.int32)
    dense = np.zeros((len(chosen), len(block)), np.uint8)
    hot_loops().spread(block.starts, block.terms, block.counts, column_starts, rows, counts, dense_row, dense)
    return column_starts, rows, counts, dense_row, dense


__all__ = ["Nearest", "WordCounts", "count_words", "counted_blocks", "nearest", "nearest_counts"]
