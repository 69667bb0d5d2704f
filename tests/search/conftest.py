"""A small corpus, and an encoder of our own making: words hashed into a unit vector."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pytest

from reasonembed.corpora import Corpus
from reasonembed.records import Document


class HashingEncoder:
    """Each word adds 1 to one of 64 places; what it was asked is kept to be looked at."""

    name, max_tokens, dtype, dimension = "hashing", 256, "float32", 64

    def __init__(self) -> None:
        self.prompts: dict[str, str] = {}
        self.asked: list[tuple[list[str], str, int | None]] = []

    def encode(self, texts: Sequence[str], *, prompt: str = "", max_tokens: int | None = None) -> np.ndarray:
        self.asked.append((list(texts), prompt, max_tokens))
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in (prompt + text).lower().split():
                vector[hashlib.sha256(word.encode()).digest()[0] % self.dimension] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def encoder() -> HashingEncoder:
    return HashingEncoder()


@pytest.fixture
def corpus() -> Corpus:
    texts = {
        "osmosis": "Water moves through a membrane toward the side with more dissolved particles.",
        "kin": "A gene for helping spreads when relatives of the helper gain more than the helper loses.",
        "tides": "The moon pulls the ocean and the water on both sides of the earth rises.",
        "dijkstra": "Settle the nearest vertex first and relax its edges to find shortest paths.",
    }
    documents = {doc_id: Document(doc_id, text, title=doc_id.title()) for doc_id, text in texts.items()}
    return Corpus(documents, origin="test", sha256="0" * 64)
