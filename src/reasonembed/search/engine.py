"""Search a corpus with any system and get what a person can read: ids, scores, titles, first words."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reasonembed.corpora import Corpus
from reasonembed.errors import InputError
from reasonembed.search.systems import System

SNIPPET_CHARS = 200


class Hit(msgspec.Struct, frozen=True):
    """One document of a ranking; `snippet` is the beginning of its text on one line."""

    rank: int
    doc_id: str
    score: float
    title: str
    snippet: str


def search_corpus(
    corpus: Corpus, queries: Sequence[str], *, system: System, k: int = 10, domain: str = ""
) -> list[list[Hit]]:
    """The best `k` documents of `corpus` for each of `queries`, best first; the corpus is indexed once.

    `domain` picks the instruction, where the system has one for each. Raises InputError for an empty query.
    """
    for query in queries:
        if not query.strip():
            raise InputError("the query is empty. Write what you are looking for.")
    numbered = {str(number): query for number, query in enumerate(queries)}
    run = system.index(corpus).search(numbered, domain=domain, k=k)
    return [
        [_hit(corpus, rank, doc_id, score) for rank, (doc_id, score) in enumerate(run[number].items(), 1)]
        for number in numbered
    ]


def _hit(corpus: Corpus, rank: int, doc_id: str, score: float) -> Hit:
    document = corpus[doc_id]
    text = " ".join(document.text.split())
    snippet = text if len(text) <= SNIPPET_CHARS else text[: SNIPPET_CHARS - 1].rstrip() + "…"
    return Hit(rank=rank, doc_id=doc_id, score=score, title=document.title, snippet=snippet)
