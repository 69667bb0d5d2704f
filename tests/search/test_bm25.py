from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from reasonembed.search.analyser import analyser
from reasonembed.search.bm25 import Bm25Index

TEXTS = ["red fish blue fish", "red apple", "green tree grows near river", "blue river"]
IDS = ["a", "b", "c", "d"]


def by_hand(query: str, document: str, texts: list[str], *, weighting: str, k1: float, b: float) -> float:
    """Lucene's BM25 from its definition, word by word."""
    analyse = analyser("en")
    documents = [analyse(text) for text in texts]
    average = sum(map(len, documents)) / len(documents)

    def weight(term: str, counts: Counter[str], length: int) -> float:
        frequency = sum(term in other for other in documents)
        idf = math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
        return idf * counts[term] / (counts[term] + k1 * (1 - b + b * length / average))

    known = [term for term in analyse(query) if any(term in other for other in documents)]
    asked, held = Counter(known), Counter(analyse(document))
    total = 0.0
    for term in asked:
        of_query = weight(term, asked, len(known)) if weighting == "query" else asked[term]
        total += of_query * weight(term, held, held.total())
    return total


@pytest.mark.parametrize("weighting", ["bag", "query"])
def test_scores_are_those_of_the_formula_worked_word_by_word(weighting: Any) -> None:
    rng = random.Random(1)
    vocabulary = ["fish", "river", "tree", "apple", "stone", "cloud", "wind", "sand"]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 12))) for _ in range(20)]
    ids = [f"d{number:02}" for number in range(20)]
    query = " ".join(rng.choices([*vocabulary, "unheard"], k=15))
    index = Bm25Index.build(texts, ids, k1=1.2, b=0.75)
    ranking = index.search({"q": query}, k=20, weighting=weighting)["q"]
    for doc_id, text in zip(ids, texts, strict=True):
        expected = by_hand(query, text, texts, weighting=weighting, k1=1.2, b=0.75)
        assert ranking.get(doc_id, 0.0) == pytest.approx(expected, rel=1e-5)


def test_a_hand_worked_number() -> None:
    # "appl" stands in 1 of 4 documents: idf = ln(1 + 3.5 / 1.5). The lengths are 4, 2, 5, 2.
    expected = math.log(1 + 3.5 / 1.5) / (1 + 0.9 * (0.6 + 0.4 * 2 / 3.25))
    assert Bm25Index.build(TEXTS, IDS).search({"q": "apples"})["q"] == {"b": pytest.approx(expected, rel=1e-6)}


@pytest.mark.parametrize(("weighting", "low", "high"), [("bag", 2.999, 3.001), ("query", 1.01, 2.0)])
def test_repeating_a_word_counts_fully_in_a_bag_and_saturates_query_side(
    weighting: Any, low: float, high: float
) -> None:
    queries = {"once": "apple", "thrice": "apple apple apple"}
    run = Bm25Index.build(TEXTS, IDS).search(queries, weighting=weighting)
    assert low < run["thrice"]["b"] / run["once"]["b"] < high


def test_documents_without_a_word_of_the_query_are_not_ranked() -> None:
    queries = {"known": "river", "unknown": "quasar pulsar", "stop words": "the of and", "empty": ""}
    run = Bm25Index.build(TEXTS, IDS).search(queries)
    assert {query_id: list(ranking) for query_id, ranking in run.items()} == {
        "known": ["d", "c"],
        "unknown": [],
        "stop words": [],
        "empty": [],
    }


def test_excluded_documents_make_room_before_the_cut() -> None:
    index = Bm25Index.build(TEXTS, IDS)
    best = list(index.search({"q": "red fish"}, k=1)["q"])
    assert best == ["a"]
    assert list(index.search({"q": "red fish"}, k=1, excluded={"q": {"a"}})["q"]) == ["b"]


@pytest.mark.parametrize("weighting", ["bag", "query"])
def test_the_order_of_the_corpus_changes_no_score_and_no_rank(weighting: Any) -> None:
    rng = random.Random(2)
    texts = [" ".join(rng.choices(["alpha", "beta", "gamma", "delta", "zeta"], k=6)) for _ in range(40)] * 2
    pairs = [(f"d{number:02}", text) for number, text in enumerate(texts)]
    queries = {"q": "alpha beta beta gamma zeta omega"}

    def ranked(order: list[tuple[str, str]]) -> list[tuple[str, float]]:
        index = Bm25Index.build([text for _, text in order], [doc_id for doc_id, _ in order])
        return list(index.search(queries, k=15, weighting=weighting)["q"].items())

    assert ranked(pairs) == ranked(pairs[::-1]) == ranked(rng.sample(pairs, len(pairs)))


def test_copies_of_a_text_tie_and_the_greater_id_wins() -> None:
    index = Bm25Index.build(["blue river"] * 3, ["m", "z", "a"])
    assert list(index.search({"q": "river"}, k=2)["q"]) == ["z", "m"]


@pytest.mark.parametrize("texts", [[], ["..."], ["the of", "--"]])
def test_a_corpus_without_any_term_ranks_nothing(texts: list[str]) -> None:
    index = Bm25Index.build(texts, [str(number) for number in range(len(texts))])
    assert index.search({"q": "river"}) == {"q": {}}


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="1 ids for 4 texts"):
        Bm25Index.build(TEXTS, ["a"])
    with pytest.raises(ValueError, match="weighting is 'both'"):
        Bm25Index.build(TEXTS, IDS).search({"q": "river"}, weighting="both")


def test_bm25_works_without_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from reasonembed.evaluate.benchmarks import load_collections\n"
        "from reasonembed.evaluate.run import Bm25System, evaluate\n"
        "one = {'pony': load_collections('pocket')['pony']}\n"
        "print(evaluate(Bm25System('query'), one).mean['nDCG@10'].mean > 0.05)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_the_weights_are_those_of_bm25s(monkeypatch: pytest.MonkeyPatch) -> None:
    import bm25s
    import numpy as np

    monkeypatch.setattr("reasonembed.search.bm25._PAIRS", 64)  # many parts, borders inside a term
    rng = random.Random(3)
    vocabulary = [f"w{number}" for number in range(60)]
    texts = [" ".join(rng.choices(vocabulary, range(60, 0, -1), k=rng.randint(0, 40))) for _ in range(50)]
    index = Bm25Index.build(texts, [str(number) for number in range(50)])
    peer = bm25s.BM25(k1=0.9, b=0.4, method="lucene", backend="numpy")
    peer.index([text.split() for text in texts], show_progress=False)
    for word in vocabulary:
        np.testing.assert_allclose(index.scores(word), peer.get_scores([word]), rtol=1e-6)
