"""The hot loops of the weighted Jaccard search, compiled by numba when this file is imported, kept in its cache.

Q: rows of queries. N: texts of one block. V: terms. F: terms with a dense row. Imported by `closest` and
`vocabulary` alone, at call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

_I64, _I32, _F64 = types.int64[::1], types.int32[::1], types.float64[::1]
_U8, _U64, _DENSE = types.uint8[::1], types.uint64[::1], types.uint8[:, ::1]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]

_FNV_START, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits
_HALF, _ONE = np.uint64(32), np.uint64(1)
_IS_WORD = np.array([byte >= 0x80 or chr(byte).isalnum() or byte == ord("_") for byte in range(256)])
_STRETCH = 64  # texts that are tested at once for one that may be nearer
_LENIENT = 1 - 1e-9  # more than rounding can take from a similarity


def _compiled(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As `njit` with a cache; where no cache folder can be written, the code is compiled in every process."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        jit = functools.partial(njit, [signature], nogil=True)
        try:
            return jit(cache=True)(function)
        except (RuntimeError, OSError):  # "no locator available", or a disk that is full
            return jit()(function)

    return wrap


@_compiled(types.void(_I32, _U64, types.int64))
def fill_slots(slots: Int32, hashes: UInt64, n_words: int) -> None:
    """Put the words 0 to `n_words` into the empty hash table `slots`: -1, or a word's number; a power of two long."""
    mask = np.uint64(len(slots) - 1)
    for word in range(n_words):
        slot = (hashes[word] ^ (hashes[word] >> _HALF)) & mask
        while slots[slot] >= 0:
            slot = (slot + _ONE) & mask
        slots[slot] = word


@_compiled(types.int64(_U8, _I64, _I32, _I64, _I32, _U64, _I64, _U8, types.int64))
def number_words(
    text: UInt8,
    text_ends: Int64,
    words: Int32,
    word_ends: Int64,
    slots: Int32,
    hashes: UInt64,
    starts: Int64,
    letters: UInt8,
    n_words: int,
) -> int:
    """Fill `words` with the number of each word of several texts, `word_ends` with where each text's end among them.

    A word is a run of ASCII letters, digits, underscores and bytes above 127. New words get the next number and
    enter the vocabulary of `n_words`, which must have room for them. Returns how many words it has then.

    text: bytes of all texts, each closed by a byte that is no part of a word; `text_ends`: where each ends.
    slots: the hash table, at most half of it ever taken.  Word w has the letters `letters[starts[w]:starts[w + 1]]`
    and the hash `hashes[w]`. One long function: numba counts references at each call, which doubled the time.
    """
    mask = np.uint64(len(slots) - 1)
    filled = 0
    begin = 0
    for row in range(len(text_ends)):
        key = _FNV_START
        for place in range(begin, text_ends[row]):
            if _IS_WORD[text[place]]:
                key = (key ^ np.uint64(text[place])) * _FNV_PRIME
                continue
            if place > begin:
                slot = (key ^ (key >> _HALF)) & mask
                word = slots[slot]
                while word >= 0:
                    if hashes[word] == key and starts[word + 1] - starts[word] == place - begin:
                        same = begin  # the letters before here are the same
                        while same < place and letters[starts[word] + same - begin] == text[same]:
                            same += 1
                        if same == place:
                            break
                    slot = (slot + _ONE) & mask
                    word = slots[slot]
                if word < 0:
                    slots[slot] = word = np.int32(n_words)
                    hashes[word] = key
                    starts[word + 1] = starts[word] + place - begin
                    letters[starts[word] : starts[word + 1]] = text[begin:place]
                    n_words += 1
                words[filled] = word
                filled += 1
            begin = place + 1
            key = _FNV_START
        word_ends[row] = filled
    return n_words


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


@_compiled(types.void(_I64, _I32, _I32, _I64, _I32, _I32, _I32, _DENSE))
def spread(
    starts: Int64,
    terms: Int32,
    counts: Int32,
    column_starts: Int64,
    rows: Int32,
    row_counts: Int32,
    dense_row: Int32,
    dense_FN: UInt8,
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


@_compiled(types.Tuple((types.float64, types.int64))(types.float64, types.int64, _I32, types.int64, _I64, types.int64))
def _raised(best: float, row: int, shared_N: Int32, length: int, text_lengths: Int64, offset: int) -> tuple[float, int]:
    """`best` and its `row`, or those of the first of the most similar texts if it is nearer.

    shared / (total - shared) > best only if shared > best * total / (1 + best): no division, and no branch but one
    a stretch of texts, so that the compiler makes vector instructions of it.
    """
    for start in range(0, len(shared_N), _STRETCH):
        stop = min(start + _STRETCH, len(shared_N))
        needed = best / (1 + best) * _LENIENT
        nearer = 0
        for text in range(start, stop):
            nearer |= shared_N[text] > needed * (length + text_lengths[text])
        if nearer:
            for text in range(start, stop):
                if shared_N[text] > 0:
                    similarity = shared_N[text] / (length + text_lengths[text] - shared_N[text])
                    if similarity > best:
                        best, row = similarity, offset + text
    return best, row


@_compiled(
    types.void(
        types.int64, types.int64, _I64, _I32, _I32, _I64, _I64, _I32, _I32, _I32, _DENSE, _I64, types.int64, _F64, _I64
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
    dense_FN: UInt8,
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
        best_Q[query], row_Q[query] = _raised(
            best_Q[query], row_Q[query], shared_N, lengths[query], text_lengths, offset
        )
