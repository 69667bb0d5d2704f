"""Near-copies of sources in a corpus: what must not come back as a candidate (law 1).

Two documents are near-copies if their normalised texts are equal, or if at least 0.8 of the distinct word
3-grams of the shorter also stand in the other. Overlapping chunks of one file count by that rule as soon as they
share that much, and `mine` leaves out the neighbours that overlap a source by less as well. In scripts that put no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each
character counts as a word, so that 3-grams are those of characters there. A text of fewer than three words
has equality only.

Exact up to collisions of 64-bit hashes: an inverted index of the sources' 3-grams, 12 bytes each, past which
the corpus streams. S: sources, G: distinct 3-grams of all sources, P: postings (3-gram, source).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from reasonembed.records import Document
from reasonembed.texts import text_key, words

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
    index = _ShingleIndex([hasher(document.content) for document in sources])
    by_key: dict[str, list[int]] = {}
    for place, document in enumerate(sources):
        by_key.setdefault(text_key(document.content), []).append(place)
    found: list[set[str]] = [set() for _ in sources]
    for document in corpus:
        equal = by_key.get(text_key(document.content), [])
        near = index.containing(hasher(document.content), threshold)
        for place in chain(equal, near):
            found[place].add(document.doc_id)
    return NearCopies(
        {source.doc_id: tuple(sorted(ids - {source.doc_id})) for source, ids in zip(sources, found, strict=True)}
    )


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


class _ShingleHasher:
    """A text's distinct word 3-grams as 64-bit hashes, sorted; the same in every process."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> Hashes:
        tokens = words(text)
        if _UNSPACED.search("".join(tokens)):
            tokens = [piece for token in tokens for piece in _PIECES.findall(token)]
        if len(tokens) < SHINGLE_WORDS:
            return np.empty(0, dtype=np.uint64)
        hashes = np.fromiter(map(self._hash, tokens), dtype=np.uint64, count=len(tokens))
        mixed = np.zeros(len(tokens) - SHINGLE_WORDS + 1, dtype=np.uint64)
        for place in range(SHINGLE_WORDS):
            mixed = _mix(mixed ^ hashes[place : place + len(mixed)])
        return np.unique(mixed)

    def _hash(self, token: str) -> int:
        number = self._known.get(token)
        if number is None:
            if len(self._known) >= _CACHED_WORDS:
                self._known.clear()
            digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            number = self._known[token] = int.from_bytes(digest, "little")
        return number


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

    def containing(self, hashes: Hashes, threshold: float) -> list[int]:
        """The sources that share at least `threshold` of the shorter one's 3-grams with `hashes`."""
        if not len(hashes) or not len(self._hashes_G):
            return []
        places = np.searchsorted(self._hashes_G, hashes)
        places = np.minimum(places, len(self._hashes_G) - 1)
        places = places[self._hashes_G[places] == hashes]
        if not len(places) or len(places) < threshold * min(self._smallest, len(hashes)) - _ROUNDING:
            return []  # too little is known of this text for any source to share enough of it
        shared_S = np.bincount(self._owners(places), minlength=len(self._sizes_S))
        shorter_S = np.minimum(self._sizes_S, len(hashes))
        near_S = (shared_S > 0) & (shared_S >= threshold * shorter_S - _ROUNDING)
        return [int(place) for place in np.flatnonzero(near_S)]

    def _owners(self, places: NDArray[np.int64]) -> NDArray[np.int32]:
        """All postings of the 3-grams at `places`, one after the other."""
        starts = self._starts_G[places]
        counts = self._starts_G[places + 1] - starts
        ends = np.cumsum(counts)
        offsets = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        return self._owners_P[np.repeat(starts, counts) + offsets]
