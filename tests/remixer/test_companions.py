"""Companions: what BM25 ranks next to a source by its own text, without near-copies; too few drop the source."""

from __future__ import annotations

import random

import bm25s
import numpy as np
import pytest

from reasonembed import progress
from reasonembed.corpora import Corpus, Reading, read_corpus
from reasonembed.pocket import pocket_folder
from reasonembed.records import Dropped
from reasonembed.remixer.companions import find_companions, with_companions
from reasonembed.remixer.rows import Source
from reasonembed.search.analyser import analyser
from reasonembed.search.bm25 import Bm25Index

SALT = "salt draws water out of the slug through its moist skin until the animal shrivels and dies at last"
TEXTS = {
    "s": SALT,
    "copy": SALT.upper(),
    "chunk": f"{SALT} as every gardener knows",
    "worm": "salt draws water out of a worm whose moist skin lets it pass in both directions all day long",
    "worm-copy": "Salt draws water out of a worm whose moist skin lets it pass in both directions, all day long!",
    "fish": "a fish in the sea loses water to the salt around it and drinks",
    "price": "demand falls when prices rise",
}


def companions(
    corpus: Corpus, *sources: str, count: int = 2, eligible: frozenset[str] | None = None
) -> dict[str, tuple[str, ...]]:
    index = Bm25Index.build((one.content for one in corpus), corpus.ids)
    return find_companions(
        sources,
        corpus,
        index,
        eligible=frozenset(corpus.ids) if eligible is None else eligible,
        count=count,
        near_copy=0.8,
        task=progress.task,
    )


def test_they_are_the_next_by_rank_without_copies_of_the_source_or_of_one_another(corpus_of):
    corpus = corpus_of(TEXTS)
    (first, second) = companions(corpus, "s")["s"]
    assert first in ("worm", "worm-copy") and second == "fish"
    assert companions(corpus, "s", count=1)["s"] == (first,)


def test_where_documents_tie_the_greater_id_comes_first_as_in_every_ranking(corpus_of):
    texts = {"s": "salt and slug", "a": "slug one", "z": "slug two", "m": "slug three"}
    for order in (texts, dict(reversed(texts.items()))):
        assert companions(corpus_of(order), "s", count=3)["s"] == ("z", "m", "a")


def test_the_ranking_is_that_of_another_bm25_with_the_sources_text_as_the_query():
    """bm25s, which weights no query terms: its term scores are summed by hand with the weights of a document."""
    corpus = read_corpus(pocket_folder("biology"))
    analyse = analyser("en")
    tokens = [analyse(one.content) for one in corpus]
    retriever = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    retriever.index(tokens, show_progress=False)
    average = np.mean([len(one) for one in tokens])
    for row in range(0, len(corpus), 7):
        terms, length = sorted(set(tokens[row])), len(tokens[row])
        scores = np.zeros(len(corpus))
        for term in terms:
            held = sum(term in one for one in tokens)
            idf, count = np.log1p((len(tokens) - held + 0.5) / (held + 0.5)), tokens[row].count(term)
            weight = idf * count / (count + 0.9 * (1 - 0.4 + 0.4 * length / average))
            scores += weight * retriever.get_scores([term])
        order = [corpus.ids[place] for place in np.argsort(-scores) if place != row]
        source = corpus.ids[row]
        assert companions(corpus, source)[source] == tuple(order[:2])  # the pocket holds no near-copies


def test_documents_that_may_not_be_sources_are_none_and_one_with_too_few_is_dropped(corpus_of):
    corpus = corpus_of(TEXTS)
    assert companions(corpus, "s", eligible=frozenset({"s", "fish", "price"}))["s"] == ("fish",)
    rows = [Dropped("copy", "exact_copy"), Source("price"), Source("s")]
    dropped, lonely, source = with_companions(rows, companions(corpus, "price", "s"), 2)
    assert dropped == rows[0]
    assert lonely == Dropped("price", "too_few_companions", "0 found, 2 wanted")
    assert isinstance(source, Source) and len(source.companion_ids) == 2


@pytest.mark.parametrize("copied", ["s", "worm"])
def test_more_copies_than_are_ranked_at_once_hide_no_companion(corpus_of, copied: str):
    copies = {f"copy{number:03}": f"{TEXTS[copied]} {number}" for number in range(100)}
    assert companions(corpus_of({**copies, **TEXTS}), "s")["s"][1] == "fish"


def test_neither_the_other_sources_nor_the_order_of_the_corpus_decides():
    corpus = read_corpus(pocket_folder("economics"))
    together = companions(corpus, *corpus.ids)
    shuffled = random.Random(0).sample(corpus.ids, len(corpus))
    other = Corpus({doc_id: corpus[doc_id] for doc_id in shuffled}, origin="shuffled", sha256="0" * 64)
    assert companions(other, *shuffled) == together
    for doc_id in corpus.ids[::9]:
        assert companions(corpus, doc_id)[doc_id] == together[doc_id]


def test_overlapping_pieces_of_one_file_are_no_companions_of_each_other(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    sentences = [f"fact {number} about salt and the slug in garden {number * 7}." for number in range(24)]
    (folder / "a.md").write_text(" ".join(sentences))
    corpus = read_corpus(folder, Reading(chunk_chars=200, chunk_overlap=30))
    for source, found in companions(corpus, *corpus.ids, count=2).items():
        places = [corpus.ids.index(doc_id) for doc_id in (source, *found)]
        assert all(abs(one - other) > 1 for one in places for other in places if one != other)


@pytest.mark.parametrize("count", [1, 4])
def test_a_corpus_of_copies_has_no_companions(corpus_of, count: int):
    assert companions(corpus_of(dict.fromkeys("abcd", SALT)), "a", count=count) == {"a": ()}
