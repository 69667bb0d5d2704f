"""Near-copies of sources in a corpus: what must not come back as a candidate (law 1).

Two documents are near-copies if their normalised texts are equal, or if at least 0.8 of the distinct word
3-grams of the shorter also stand in the other. Overlapping chunks of one file count by that rule as soon as they
share that much, and `mine` leaves out the neighbours that overlap a source by less as well. In scripts that put no
space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each character counts as a word, so that 3-grams are
those of characters there. A text of fewer than three words has equality only.

Exact up to collisions of 64-bit hashes: an inverted index of the sources' 3-grams, 12 bytes each, past which
the corpus streams. S: sources, G: distinct 3-grams of all sources, P: postings (3-gram, source).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reasonembed.corpora import Corpus
from reasonembed.records import Document
from reasonembed.texts import normal_words, normalise

NEAR_COPY = 0.8  # law 1
SHINGLE_WORDS = 3  # law 1

_NO_SPACES = (  # Thai and Lao, Burmese, Khmer, kana, ideographs
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{_NO_SPACES}]")
_PIECES = re.compile(f"[{_NO_SPACES}]|[^{_NO_SPACES}]+")
_ROUNDING = 1e-9  # 0.8 x 10 is to be 8
_CACHED_WORDS = 1_000_000  # bounds the cache of word hashes to about 150 MB
_BLOCK_CHARS = 300_000  # documents are taken together, so that NumPy is called on long arrays
_REPORT_EVERY = 256  # documents
_SIEVE_BITS = 24  # 16 MB: which upper bits of a hash any source has; the rest need not be looked for
_SIEVE_SHIFT = np.uint64(64 - _SIEVE_BITS)

Hashes = NDArray[np.uint64]


class NearCopies:
    """For each source, the other documents of the corpus that are near-copies of it."""

    def __init__(self, copies: dict[str, tuple[str, ...]]) -> None:
        self._copies = copies

    def of(self, source_id: str) -> tuple[str, ...]:
        """The ids of the near-copies of a source, in order of id. Raises KeyError for what was no source."""
        return self._copies[source_id]


def find_near_copies(
    sources: Sequence[Document], corpus: Iterable[Document], *, threshold: float = NEAR_COPY
) -> NearCopies:
    """The near-copies of each of `sources` among the documents of `corpus`, which is gone through once.

    threshold: share of the shorter one's 3-grams that the other must hold, above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold!r}; it must be above 0 and at most 1")
    hasher = _ShingleHasher()
    texts = [normalise(document.content) for document in sources]
    index = _ShingleIndex([np.unique(hasher([text]).hashes) for text in texts])
    by_text: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        by_text.setdefault(text, []).append(place)
    found: list[set[str]] = [set() for _ in sources]
    for block in _blocks(corpus):
        texts = [normalise(document.content) for document in block]
        for document, text in zip(block, texts, strict=True):
            for place in by_text.get(text, ()):
                found[place].add(document.doc_id)
        shingles = hasher(texts)
        for row in index.promising(shingles, len(block), threshold):
            for place in index.containing(np.unique(shingles.of(row)), threshold):
                found[place].add(block[row].doc_id)
    return NearCopies(
        {source.doc_id: tuple(sorted(ids - {source.doc_id})) for source, ids in zip(sources, found, strict=True)}
    )


def copies_within(
    corpus: Corpus, doc_ids: Iterable[str], *, threshold: float, advance: Callable[[int], None]
) -> dict[str, tuple[str, ...]]:
    """For each of the documents what counts as a copy of it in its corpus (law 1), in order of id.

    These are its near-copies, and the pieces of its file that overlap it.  advance: told how many more documents of
    the corpus were gone through.
    """
    documents = [corpus[doc_id] for doc_id in doc_ids]
    near = find_near_copies(documents, _counted(corpus, advance), threshold=threshold)
    return {
        one.doc_id: tuple(
            sorted({*near.of(one.doc_id), *corpus.overlapping.get(one.doc_id, ())}.intersection(corpus.documents))
        )
        for one in documents
    }


def _counted(corpus: Corpus, advance: Callable[[int], None]) -> Iterator[Document]:
    for number, document in enumerate(corpus, 1):
        yield document
        if number % _REPORT_EVERY == 0:
            advance(_REPORT_EVERY)
    advance(len(corpus) % _REPORT_EVERY)


def _blocks(corpus: Iterable[Document]) -> Iterator[list[Document]]:
    """The documents in blocks of about `_BLOCK_CHARS` characters: what is worked on at once."""
    block: list[Document] = []
    size = 0
    for document in corpus:
        block.append(document)
        size += len(document.text) + len(document.title)
        if size >= _BLOCK_CHARS:
            yield block
            block, size = [], 0
    if block:
        yield block


def copy_groups(copies: dict[str, Sequence[str]]) -> list[list[str]]:
    """The sources (keys) in groups of near-copies, also through one another; each group sorted."""
    group_of = {source_id: source_id for source_id in copies}

    def root(source_id: str) -> str:
        while group_of[source_id] != source_id:
            group_of[source_id] = group_of[group_of[source_id]]
            source_id = group_of[source_id]
        return source_id

    for source_id, copy_ids in copies.items():
        for copy_id in copy_ids:
            if copy_id in group_of:
                group_of[root(copy_id)] = root(source_id)
    groups: dict[str, list[str]] = {}
    for source_id in sorted(copies):
        groups.setdefault(root(source_id), []).append(source_id)
    return list(groups.values())


class _Shingles(NamedTuple):
    """The word 3-grams of several texts as 64-bit hashes, one after the other, and the text that each stands in."""

    hashes: Hashes
    rows: NDArray[np.int64]  # rising

    def of(self, row: int) -> Hashes:
        """Those of one text, in its order, with repetitions."""
        start, end = np.searchsorted(self.rows, [row, row + 1])
        return self.hashes[start:end]


class _WordHashes(dict[str, int]):
    """word -> 64-bit hash, the same in every process; what was asked for is kept."""

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = self[word] = int.from_bytes(digest, "little")
        return number


class _ShingleHasher:
    """Normalised texts to the hashes of their word 3-grams."""

    def __init__(self) -> None:
        self._known = _WordHashes()

    def __call__(self, texts: Sequence[str]) -> _Shingles:
        tokens = [_tokens(text) for text in texts]
        counts = [len(of_text) for of_text in tokens]
        hashes = np.fromiter(map(self._known.__getitem__, chain.from_iterable(tokens)), np.uint64, count=sum(counts))
        if len(self._known) > _CACHED_WORDS:
            self._known.clear()
        rows = np.repeat(np.arange(len(texts)), counts)
        windows = max(0, len(hashes) - SHINGLE_WORDS + 1)
        mixed = np.zeros(windows, dtype=np.uint64)
        for place in range(SHINGLE_WORDS):
            mixed = _mix(mixed ^ hashes[place : place + windows])
        inside = rows[:windows] == rows[len(rows) - windows :]  # no 3-gram reaches into the next text
        return _Shingles(mixed[inside], rows[:windows][inside])


def _tokens(text: str) -> list[str]:
    tokens = normal_words(text)
    if text.isascii() or not _UNSPACED.search(text):
        return tokens
    return [piece for token in tokens for piece in _PIECES.findall(token)]


def _mix(numbers: Hashes) -> Hashes:
    """splitmix64's finaliser, a permutation (Steele, Lea and Flood 2014): the order of words counts."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class _ShingleIndex:
    """Which sources hold a 3-gram: compressed rows, from the sorted 3-grams (G) to sources (P)."""

    def __init__(self, sources: Sequence[Hashes]) -> None:
        self._sizes_S = np.array([len(hashes) for hashes in sources], dtype=np.int64)
        self._smallest = int(self._sizes_S[self._sizes_S > 0].min(initial=np.iinfo(np.int64).max))
        hashes_P = np.concatenate(sources) if sources else np.empty(0, dtype=np.uint64)
        owners_P = np.repeat(np.arange(len(sources), dtype=np.int32), self._sizes_S)
        order_P = np.argsort(hashes_P, kind="stable")
        self._owners_P = owners_P[order_P]
        self._hashes_G, starts_G = np.unique(hashes_P[order_P], return_index=True)
        self._starts_G = np.append(starts_G, len(hashes_P)).astype(np.int64)
        self._known = np.zeros(1 << _SIEVE_BITS, dtype=bool)
        self._known[self._hashes_G >> _SIEVE_SHIFT] = True

    def promising(self, shingles: _Shingles, count: int, threshold: float) -> list[int]:
        """Those of `count` texts of which enough is known for some source to share it; a bound, not yet the rule."""
        hits = np.flatnonzero(self._known[shingles.hashes >> _SIEVE_SHIFT])
        hits = hits[self._find(shingles.hashes[hits]) >= 0]
        if not len(hits):
            return []
        known = np.bincount(shingles.rows[hits], minlength=count)
        needed = threshold * np.minimum(self._smallest, _at_least_distinct(shingles, count)) - _ROUNDING
        return [int(row) for row in np.flatnonzero((known > 0) & (known >= needed))]

    def containing(self, hashes: Hashes, threshold: float) -> list[int]:
        """The sources that share at least `threshold` of the shorter one's 3-grams with `hashes` (distinct)."""
        places = self._find(hashes)
        shared_S = np.bincount(self._owners(places[places >= 0]), minlength=len(self._sizes_S))
        shorter_S = np.minimum(self._sizes_S, len(hashes))
        near_S = (shared_S > 0) & (shared_S >= threshold * shorter_S - _ROUNDING)
        return [int(place) for place in np.flatnonzero(near_S)]

    def _find(self, hashes: Hashes) -> NDArray[np.int64]:
        """The place of each hash among the sources' 3-grams, -1 for one that no source holds."""
        if not len(self._hashes_G):
            return np.full(len(hashes), -1)
        places = np.minimum(np.searchsorted(self._hashes_G, hashes), len(self._hashes_G) - 1)
        return np.where(self._hashes_G[places] == hashes, places, -1)

    def _owners(self, places: NDArray[np.int64]) -> NDArray[np.int32]:
        """All postings of the 3-grams at `places`, one after the other."""
        starts = self._starts_G[places]
        counts = self._starts_G[places + 1] - starts
        ends = np.cumsum(counts)
        offsets = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        return self._owners_P[np.repeat(starts, counts) + offsets]


def _at_least_distinct(shingles: _Shingles, count: int) -> NDArray[np.int64]:
    """How many distinct 3-grams each text holds, or fewer: hashes are compared by their upper bits alone.

    One sort for all texts of a block, of numbers whose upper bits are the text's row.
    """
    bits = np.uint64(max(1, int(count - 1).bit_length()))
    keys = np.sort((shingles.rows.astype(np.uint64) << (np.uint64(64) - bits)) | (shingles.hashes >> bits))
    new = np.append(True, keys[1:] != keys[:-1]) if len(keys) else np.empty(0, dtype=bool)
    return np.bincount((keys[new] >> (np.uint64(64) - bits)).astype(np.int64), minlength=count)
