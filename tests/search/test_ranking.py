from __future__ import annotations

import random

import numpy as np
import pytest

from reasonembed.search.ranking import best_first, top_k, top_k_each


def test_the_best_come_first_with_their_scores() -> None:
    ranking = top_k(np.array([0.25, 0.75, 0.5]), ["a", "b", "c"], k=2)
    assert list(ranking.items()) == [("b", 0.75), ("c", 0.5)]


def test_of_equal_scores_the_greater_id_comes_first_as_in_trec_eval() -> None:
    assert list(top_k(np.array([1.0, 1.0, 1.0]), ["b", "c", "a"], k=2)) == ["c", "b"]


def test_scores_are_compared_as_float32() -> None:
    close = np.array([0.5 + 1e-12, 0.5])
    assert list(top_k(close, ["a", "b"], k=1)) == ["b"]
    assert best_first({"a": 0.5 + 1e-12, "b": 0.5}) == ["b", "a"]


def test_exclusion_comes_before_the_cut() -> None:
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    assert list(top_k(scores, ["a", "b", "c", "d"], k=2, excluded={"a", "b"})) == ["c", "d"]


def test_excluding_what_is_not_there_changes_nothing() -> None:
    assert list(top_k(np.array([1.0, 2.0]), ["a", "b"], k=1, excluded={"x", "y", "z"})) == ["b"]


def test_the_order_of_the_corpus_decides_nothing() -> None:
    rng = random.Random(0)
    for _ in range(200):
        count = rng.randint(1, 30)
        documents = [(f"d{number}", float(rng.randint(0, 4))) for number in range(count)]
        excluded = {f"d{rng.randint(0, 30)}" for _ in range(rng.randint(0, 5))}
        k = rng.randint(1, 12)
        kept = sorted(((s, d) for d, s in documents if d not in excluded), reverse=True)[:k]
        rng.shuffle(documents)
        found = top_k(np.array([s for _, s in documents]), [d for d, _ in documents], k=k, excluded=excluded)
        assert list(found.items()) == [(d, s) for s, d in kept]


def test_only_documents_above_the_floor_are_ranked() -> None:
    assert list(top_k(np.array([0.0, 1.0, 0.0]), ["a", "b", "c"], k=3, above=0)) == ["b"]
    assert top_k(np.array([0.0, 0.0]), ["a", "b"], k=3, above=0) == {}


def test_an_empty_corpus_has_an_empty_ranking() -> None:
    assert top_k(np.array([]), [], k=3) == {}


@pytest.mark.parametrize(
    ("scores", "k", "found"),
    [([1.0], 1, "2 ids"), ([1.0, float("nan")], 1, "not a number"), ([1.0, 2.0], 0, "k is 0")],
)
def test_what_is_no_ranking_is_refused(scores: list[float], k: int, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        top_k(np.array(scores), ["a", "b"], k=k)


def test_many_queries_at_once_are_ranked_as_each_by_itself_with_ties_and_exclusions() -> None:
    rng = np.random.default_rng(0)
    doc_ids = [f"d{number}" for number in range(60)]
    rows = np.stack([rng.permutation(60)[:20] for _ in range(300)])
    scores = rng.standard_normal((300, 20))
    scores[::3] = scores[::3].round(1)  # some tie
    excluded = [frozenset(f"d{number}" for number in rng.integers(0, 60, query % 4)) for query in range(300)]
    for k in (1, 7, 20, 50):
        found = list(top_k_each(scores, rows, doc_ids, k=k, excluded=excluded))
        alone = [
            top_k(scores[query], [doc_ids[row] for row in rows[query]], k=k, excluded=excluded[query])
            for query in range(300)
        ]
        assert [list(ranking.items()) for ranking in found] == [list(ranking.items()) for ranking in alone]


@pytest.mark.parametrize("scores", [[[float("nan")]], [[1.0, float("nan"), 0.0]]])
def test_a_score_that_is_not_a_number_is_refused_among_many_queries_too(scores: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="not a number"):
        list(top_k_each(np.array(scores), np.array([[0, 1, 2][: len(scores[0])]]), ["a", "b", "c"], k=1, excluded=[()]))
