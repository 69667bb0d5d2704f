"""The hot loops of the weighted Jaccard search, compiled by numba when this file is imported, kept in its cache.

Q: rows of queries. N: texts of one block. V: terms. F: terms with a dense row. Imported by `closest` alone, at call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

_I64, _I32, _U16, _F64 = types.int64[::1], types.int32[::1], types.uint16[:, ::1], types.float64[::1]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def _compiled(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As `njit` with a cache; where no cache folder can be written, the code is compiled in every process."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        jit = functools.partial(njit, [signature], nogil=True)
        try:
            return jit(cache=True)(function)
        except (RuntimeError, OSError):  # "no locator available", or a disk that is full
            return jit()(function)

    return wrap


@_compiled(types.int64(_I32, _I64, types.int64, _I64, _I32, _I32))
def count_rows(words: Int32, ends: Int64, n_terms: int, starts: Int64, terms: Int32, counts: Int32) -> int:
    """Fill `starts` (rows + 1), `terms` and `counts` with each row's distinct terms, in order; their number.

    words: the term of every word, row after row; `ends`: where each row ends.
    """
    place = np.full(n_terms, -1, np.int64)
    filled = 0
    begin = 0
    for row in range(len(ends)):
        first = filled
        for index in range(begin, ends[row]):
            term = words[index]
            if place[term] < first:
                place[term] = filled
                terms[filled] = term
                counts[filled] = 0
                filled += 1
            counts[place[term]] += 1
        begin = ends[row]
        starts[row + 1] = filled
    return filled


@_compiled(types.void(_I64, _I32, _I32, _I64, _I32, _I32, _I32, _U16))
def spread(
    starts: Int64,
    terms: Int32,
    counts: Int32,
    column_starts: Int64,
    rows: Int32,
    row_counts: Int32,
    dense_row: Int32,
    dense_FN: NDArray[np.uint16],
) -> None:
    """Turn N rows of counts into columns: `dense_FN` for the terms with a `dense_row`, else postings.

    column_starts: (V + 1), where the postings of each term begin; a dense term has none.
    """
    filled = column_starts[:-1].copy()
    for row in range(len(starts) - 1):
        for index in range(starts[row], starts[row + 1]):
            term = terms[index]
            if dense_row[term] >= 0:
                dense_FN[dense_row[term], row] = counts[index]
            else:
                rows[filled[term]] = row
                row_counts[filled[term]] = counts[index]
                filled[term] += 1


@_compiled(
    types.void(
        types.int64, types.int64, _I64, _I32, _I32, _I64, _I64, _I32, _I32, _I32, _U16, _I64, types.int64, _F64, _I64
    )
)
def nearest_rows(
    first: int,
    last: int,
    starts: Int64,
    terms: Int32,
    counts: Int32,
    lengths: Int64,
    column_starts: Int64,
    rows: Int32,
    row_counts: Int32,
    dense_row: Int32,
    dense_FN: NDArray[np.uint16],
    text_lengths: Int64,
    offset: int,
    best_Q: NDArray[np.float64],
    row_Q: Int64,
) -> None:
    """Raise `best_Q` and `row_Q` of the queries `first` to `last` by the block of texts that begins at row `offset`.

    An equal similarity does not replace an earlier text.  text_lengths: words of each text, (N,).
    """
    n_texts = len(text_lengths)
    shared_N = np.zeros(n_texts, np.int32)
    for query in range(first, last):
        shared_N[:] = 0
        for index in range(starts[query], starts[query + 1]):
            term, count = terms[index], counts[index]
            if dense_row[term] >= 0:
                column = dense_FN[dense_row[term]]
                for text in range(n_texts):
                    shared_N[text] += min(np.int32(column[text]), count)
            else:
                for posting in range(column_starts[term], column_starts[term + 1]):
                    shared_N[rows[posting]] += min(row_counts[posting], count)
        best, found = best_Q[query], row_Q[query]
        for text in range(n_texts):
            if shared_N[text] > 0:
                similarity = shared_N[text] / (lengths[query] + text_lengths[text] - shared_N[text])
                if similarity > best:
                    best, found = similarity, offset + text
        best_Q[query], row_Q[query] = best, found
