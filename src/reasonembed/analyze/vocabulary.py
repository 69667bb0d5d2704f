"""A vocabulary that numbers the words of texts, those of `texts.words`, by a compiled loop over their bytes.

In a text of ASCII alone, but for typographic marks, the loop finds the words itself; in others Python has found
them before.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from reasonembed.errors import MissingExtra
from reasonembed.texts import words

_TYPOGRAPHIC = "\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u00a0"  # end a word, and change none next to them
_TEXTS = 64  # handed to the loop at once: bounds the room that new words could need


class NumberedWords(msgspec.Struct, frozen=True):
    """The words of several texts by their numbers, one text after the other, and where each text's end."""

    words: NDArray[np.int32]
    ends: NDArray[np.int64]


class Vocabulary:
    """Word -> its number, in order of first appearance."""

    def __init__(self) -> None:
        self._size = 0
        self._slots = np.full(1 << 16, -1, np.int32)  # the hash table: a word's number, or -1
        self._hashes = np.empty(0, np.uint64)  # of each word
        self._starts = np.zeros(1, np.int64)  # word w has the letters from starts[w] to before starts[w + 1]
        self._letters = np.empty(0, np.uint8)  # of all words, in UTF-8

    def __len__(self) -> int:
        return self._size

    def number(self, texts: Iterable[str]) -> NumberedWords:
        """The numbers of all words of `texts`; new words enter the vocabulary. Raises MissingExtra without numba."""
        rest = iter(texts)
        parts = [NumberedWords(np.empty(0, np.int32), np.empty(0, np.int64))]
        begin = 0
        while few := list(islice(rest, _TEXTS)):
            part = self._number(few)
            parts.append(NumberedWords(part.words, part.ends + begin))
            begin += len(part.words)
        return NumberedWords(*(np.concatenate([getattr(part, field) for part in parts]) for field in ("words", "ends")))

    def _number(self, texts: list[str]) -> NumberedWords:
        spelled = [_spelled(text) for text in texts]
        letters = np.frombuffer(bytearray().join(spelled), np.uint8)
        text_ends = np.cumsum([len(one) for one in spelled], dtype=np.int64)
        numbers, ends = np.empty(len(letters) // 2, np.int32), np.empty(len(texts), np.int64)
        self._make_room(len(numbers), len(letters))
        self._size = hot_loops().number_words(
            letters, text_ends, numbers, ends, self._slots, self._hashes, self._starts, self._letters, self._size
        )
        return NumberedWords(numbers[: ends[-1]].copy(), ends)

    def _make_room(self, n_words: int, n_letters: int) -> None:
        """Room for as many more words and letters; at most half of the hash table is ever taken."""
        self._letters = _grown(self._letters, int(self._starts[self._size]), n_letters)
        self._starts = _grown(self._starts, self._size + 1, n_words)
        self._hashes = _grown(self._hashes, self._size, n_words)
        if 2 * (self._size + n_words) > len(self._slots):
            self._slots = np.full(1 << (2 * (self._size + n_words)).bit_length(), -1, np.int32)
            hot_loops().fill_slots(self._slots, self._hashes, self._size)


def _grown(values: NDArray[Any], used: int, more: int) -> NDArray[Any]:
    """`values` if `more` fit behind those `used`, else a copy of twice the room."""
    if used + more <= len(values):
        return values
    larger = np.empty(2 * (used + more), values.dtype)
    larger[:used] = values[:used]
    return larger


def _spelled(text: str) -> bytes:
    """UTF-8 in which words are runs of [a-z0-9_] and of bytes above 127, closed by a space."""
    plain = text
    if not text.isascii():
        for mark in _TYPOGRAPHIC:
            plain = plain.replace(mark, " ")
    return (plain.casefold() if plain.isascii() else " ".join(words(text))).encode() + b" "


def hot_loops():  # type: ignore[no-untyped-def]
    """The compiled loops. Raises MissingExtra without numba."""
    try:
        from reasonembed.analyze import loops
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"this needs {error.name}, not installed here. Install it with: pip install numba"
        ) from error
    return loops


__all__ = ["NumberedWords", "Vocabulary", "hot_loops"]
