"""Two tiny collections that share one corpus."""

from __future__ import annotations

import pytest

from reasonembed.beir import Collection
from reasonembed.corpora import Corpus
from reasonembed.records import Document, Query


@pytest.fixture
def collections() -> dict[str, Collection]:
    texts = {"a": "red fish", "b": "blue fish", "c": "green tree", "d": "blue river"}
    corpus = Corpus({d: Document(d, text) for d, text in texts.items()}, origin="test", sha256="c" * 64)
    first = Collection(
        name="first",
        corpus=corpus,
        queries={"q1": Query("q1", "fish", "tree"), "q2": Query("q2", "quasar", "river")},
        qrels={"q1": {"a": 2}, "q2": {"d": 1}},
    )
    second = Collection(
        name="second",
        corpus=corpus,
        queries={"q1": Query("q1", "blue", "green tree")},
        qrels={"q1": {"d": 1, "c": 1}},
        excluded={"q1": frozenset({"b"})},
    )
    return {"second": second, "first": first}
