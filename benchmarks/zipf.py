"""Synthetic texts for benchmarks: word frequencies by Zipf's law, in sentences, some of them not ASCII alone."""

from __future__ import annotations

import numpy as np

from reasonembed.search.analyser import ENGLISH_STOP_WORDS

_WORDS = 200_000
_EXPONENT = 1.05
_MARKS = {",": 0.8, "\u2014": 0.1, " na\u00efve,": 0.1}  # amid each sentence of a text: its share of the texts


def draw(rng: np.random.Generator, count: int, mean_words: int = 150) -> list[str]:
    """`count` texts of about `mean_words` words. The most frequent words are English stop words."""
    vocabulary = np.array([*sorted(ENGLISH_STOP_WORDS), *(f"word{number}" for number in range(_WORDS))])
    mass = np.cumsum(1 / np.arange(1, len(vocabulary) + 1) ** _EXPONENT)
    lengths = np.clip(rng.normal(mean_words, mean_words / 3, count), 8, None).astype(int)
    marks = rng.choice(list(_MARKS), count, p=list(_MARKS.values()))

    def text(length: int, mark: str) -> str:
        ranks = np.searchsorted(mass, rng.random(length) * mass[-1])
        return _sentences(vocabulary[ranks].tolist(), mark)

    return [text(length, mark) for length, mark in zip(lengths, marks.tolist(), strict=True)]


def _sentences(words: list[str], mark: str) -> str:
    sentences = (words[start : start + 15] for start in range(0, len(words), 15))
    return " ".join(f"{' '.join(part[:7])}{mark} {' '.join(part[7:])}".strip().capitalize() + "." for part in sentences)
