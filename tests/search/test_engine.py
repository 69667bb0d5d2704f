from __future__ import annotations

import pytest

from reasonembed.corpora import Corpus
from reasonembed.errors import InputError
from reasonembed.records import Document
from reasonembed.search.engine import SNIPPET_CHARS, Hit, search_corpus
from reasonembed.search.systems import Bm25System


def test_hits_carry_rank_score_title_and_first_words(corpus: Corpus) -> None:
    (hits, nothing) = search_corpus(corpus, ["water and the moon", "quasar"], system=Bm25System(), k=2)
    assert [(hit.rank, hit.doc_id, hit.title) for hit in hits] == [
        (1, "tides", "Tides"),
        (2, "osmosis", "Osmosis"),
    ]
    assert hits[0].score > hits[1].score > 0
    assert hits[0].snippet == corpus["tides"].text
    assert nothing == []


def test_a_snippet_is_one_short_line() -> None:
    corpus = Corpus({"a": Document("a", "river\n\n  bank " * 100)}, origin="test", sha256="")
    [[hit]] = search_corpus(corpus, ["river"], system=Bm25System())
    assert isinstance(hit, Hit)
    assert hit.snippet.startswith("river bank river")
    assert len(hit.snippet) <= SNIPPET_CHARS and hit.snippet.endswith("…")


def test_an_empty_query_is_refused(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="the query is empty"):
        search_corpus(corpus, ["water", "  "], system=Bm25System())
