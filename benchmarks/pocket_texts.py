"""Texts of mixed lengths, cut from the pocket corpora: the same texts for the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from reasonembed.pocket import POCKET_DOMAINS, pocket_folder

LONGEST = 512  # tokens


def text_drawer(seed: int, *, median_tokens: int = 90) -> Callable[[], str]:
    """A function that draws the next text: log-normal lengths of about `median_tokens`, 16 to 512 tokens.

    A word counts as 1.4 tokens, which is a guess: texts of the pocket's subjects come out longer.
    """
    generator = np.random.default_rng(seed)
    words = []
    for domain in POCKET_DOMAINS:
        with (pocket_folder(domain) / "corpus.jsonl").open(encoding="utf-8") as lines:
            words += [word for line in lines for word in json.loads(line)["text"].split()]

    def text() -> str:
        length = int(np.clip(generator.lognormal(np.log(median_tokens), 0.8), 16, LONGEST))
        start = int(generator.integers(len(words) - LONGEST))
        return " ".join(words[start : start + int(length / 1.4)])

    return text
