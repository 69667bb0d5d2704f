"""ROUGE-L of a text against another: how much of both is one common sequence of words (Lin 2004).

The longest common subsequence is RapidFuzz's, bit-parallel: the package `rouge-score` fills a table in Python, which is
too slow for a million pairs, and is the second opinion in the tests. Needs rapidfuzz, loaded at the call.
"""

from __future__ import annotations

from collections.abc import Sequence

from reasonembed.errors import MissingExtra


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """The F measure of ROUGE-L of two texts' words, 0 to 1: `2 * LCS / (len(one) + len(other))`; symmetric.

    0 if either has no word. Raises MissingExtra without rapidfuzz.
    """
    try:
        from rapidfuzz.distance import LCSseq
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"this needs {error.name}, not installed here. Install it with: pip install rapidfuzz"
        ) from error
    if not one or not other:
        return 0.0
    return 2 * LCSseq.similarity(one, other) / (len(one) + len(other))


__all__ = ["rouge_l"]
