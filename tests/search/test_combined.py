"""Systems made of systems: weights, wordings and reranking, each against its definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from reasonembed.corpora import Corpus
from reasonembed.errors import ConfigError, InputError
from reasonembed.search.combined import FusedSystem, RerankedSystem, WordedSystem, rerank
from reasonembed.search.fuse import weighted_fusion
from reasonembed.search.systems import Bm25System, DenseSystem, RunSystem

QUERIES = {"q1": "water through a membrane", "q2": "shortest paths"}
THOUGHT = {"q1": "osmosis moves water and dissolved particles", "q2": "relax edges of the nearest vertex"}
TEXTS = {"original": {"biology": QUERIES}, "thought": {"biology": THOUGHT}}


class TableGrader:
    """Grades from a table; what it was asked is kept."""

    model = "a table"

    def __init__(self, table: Mapping[tuple[str, str], float]) -> None:
        self.table = table
        self.asked: list[tuple[str, dict[str, str], dict[str, list[str]]]] = []

    def grades(
        self, domain: str, queries: Mapping[str, str], candidates: Mapping[str, Sequence[str]], corpus: Corpus
    ) -> dict[tuple[str, str], float]:
        self.asked.append((domain, dict(queries), {query_id: list(ids) for query_id, ids in candidates.items()}))
        pairs = [(query_id, doc_id) for query_id, ids in candidates.items() for doc_id in ids]
        return {pair: self.table[pair] for pair in pairs if pair in self.table}


def test_a_weighted_hybrid_is_the_weighted_fusion_of_its_parts(corpus: Corpus, encoder: Any) -> None:
    parts = [Bm25System("query"), DenseSystem(encoder)]
    excluded = {"q2": {"tides"}}
    runs = [part.index(corpus).search(QUERIES, k=1000, excluded=excluded) for part in parts]
    system = FusedSystem(parts, weights=[0.3, 0.7])
    found = system.index(corpus).search(QUERIES, k=3, excluded=excluded)
    assert found == weighted_fusion(runs, [0.3, 0.7], k=3)
    assert "tides" not in found["q2"]
    assert system.setting("biology").search == (
        "weighted sum after min-max (weights 0.3, 0.7, depth 1000) of query-side BM25 (k1 0.9, b 0.4, analyser en) "
        "and exact, inner product"
    )


def test_a_part_that_ranks_nothing_leaves_a_hybrid_to_the_others(corpus: Corpus, encoder: Any) -> None:
    queries = {"q": "quasar pulsar"}  # no word of the corpus
    dense = DenseSystem(encoder)
    alone = dense.index(corpus).search(queries)["q"]
    for weights in ([0.5, 0.5], None):
        fused = FusedSystem([Bm25System(), dense], weights=weights).index(corpus).search(queries)["q"]
        assert list(fused) == list(alone)


@pytest.mark.parametrize("weights", [[1.0], [0.5, -0.5], [0.0, 0.0]])
def test_weights_that_fit_no_hybrid_are_refused(weights: list[float], encoder: Any) -> None:
    with pytest.raises(ConfigError, match="2 were expected, none below 0, not all 0"):
        FusedSystem([Bm25System(), DenseSystem(encoder)], weights=weights)


@pytest.mark.parametrize("weighting", ["bag", "query", None])
def test_the_scores_of_several_wordings_are_summed(corpus: Corpus, encoder: Any, weighting: Any) -> None:
    system = Bm25System(weighting) if weighting else DenseSystem(encoder)
    index = system.index(corpus)
    apart = [index.search(texts) for texts in (QUERIES, THOUGHT)]
    summed = WordedSystem(system, ["original", "thought"], TEXTS).index(corpus)
    found = summed.search(QUERIES, domain="biology")
    for query_id, ranking in found.items():
        ids = {doc_id for run in apart for doc_id in run[query_id]}
        expected = {doc_id: sum(run[query_id].get(doc_id, 0.0) for run in apart) for doc_id in ids}
        assert ranking == pytest.approx(expected, abs=1e-5)
        assert list(ranking.values()) == sorted(ranking.values(), reverse=True)


def test_a_single_wording_takes_the_place_of_the_query(corpus: Corpus, encoder: Any) -> None:
    system = DenseSystem(encoder)
    worded = WordedSystem(system, ["thought"], TEXTS)
    found = worded.index(corpus).search(QUERIES, domain="biology")
    assert found == system.index(corpus).search(THOUGHT)
    assert worded.setting("biology").queries == "thought"


def test_a_query_without_the_wording_is_named(corpus: Corpus) -> None:
    index = WordedSystem(Bm25System(), ["thought"], TEXTS).index(corpus)
    with pytest.raises(InputError, match="biology: the query 'q3' has no wording 'thought'"):
        index.search({"q3": "x"}, domain="biology")


def test_a_hybrid_says_which_part_searches_with_what(encoder: Any) -> None:
    fused = FusedSystem([Bm25System(), WordedSystem(DenseSystem(encoder), ["original", "thought"], TEXTS)])
    assert fused.setting("biology").queries == "as given / original + thought"
    assert FusedSystem([Bm25System(), DenseSystem(encoder)]).setting("biology").queries == ""


def test_reranking_blends_grade_and_score_by_the_weight() -> None:
    ranking = {"a": 10.0, "b": 8.0, "c": 6.0, "d": 5.0, "e": 1.0}
    grades = {"a": 1.0, "b": 5.0, "c": 2.0}
    found = rerank(ranking, grades, depth=3, weight=0.75, k=10)
    assert list(found) == ["b", "a", "c", "d", "e"]
    assert (found["a"], found["b"], found["c"]) == pytest.approx((0.25, 0.75 + 0.25 * 0.5, 0.75 * 0.25))
    assert list(rerank(ranking, grades, depth=3, weight=0.0, k=4)) == ["a", "b", "c", "d"]
    assert list(rerank(ranking, grades, depth=3, weight=1.0, k=2)) == ["b", "c"]


def test_a_document_without_a_grade_keeps_its_first_stage_score() -> None:
    ranking = {"a": 10.0, "b": 8.0, "c": 6.0}
    found = rerank(ranking, {"a": 1.0, "c": 5.0}, depth=3, weight=0.5, k=3)
    assert found == {"b": 0.5, "a": 0.5, "c": 0.5}
    assert rerank(ranking, {}, depth=3, weight=1.0, k=3) == {"a": 1.0, "b": 0.5, "c": 0.0}


def test_equal_grades_change_no_order() -> None:
    ranking = {"a": 10.0, "b": 8.0, "c": 6.0}
    assert list(rerank(ranking, {"b": 4.0, "c": 4.0}, depth=3, weight=0.9, k=3)) == ["a", "b", "c"]


def test_the_best_of_the_first_stage_are_graded_and_the_rest_follow_in_their_order(
    corpus: Corpus, caplog: pytest.LogCaptureFixture
) -> None:
    first = RunSystem({"q1": {"kin": 4.0, "tides": 3.0, "osmosis": 2.0, "dijkstra": 1.0}}, name="theirs")
    grader = TableGrader({("q1", "tides"): 1.0, ("q1", "osmosis"): 5.0})
    system = RerankedSystem(first, grader, name="reranked", depth=2, weight=1.0)
    found = system.index(corpus).search({"q1": ("water", "another")}, domain="biology", k=3, excluded={"q1": {"kin"}})
    assert list(found["q1"]) == ["osmosis", "tides", "dijkstra"]
    assert grader.asked == [("biology", {"q1": "water"}, {"q1": ["tides", "osmosis"]})]
    assert "got no grade" not in caplog.text
    RerankedSystem(first, TableGrader({}), name="failing", depth=3).index(corpus).search({"q1": "water"})
    assert "failing: 3 of 3 candidates of the collection got no grade" in caplog.text


def test_a_reranked_system_says_how_it_was_reranked(encoder: Any) -> None:
    system = RerankedSystem(DenseSystem(encoder), TableGrader({}), name="reranked", depth=20, weight=0.4)
    assert system.setting("biology").search == (
        "exact, inner product; best 20 reranked by a table, weight 0.4 after min-max"
    )
    with pytest.raises(ConfigError, match="weight 2"):
        RerankedSystem(DenseSystem(encoder), TableGrader({}), name="reranked", weight=2)


def test_vectors_that_are_summed_need_not_be_of_one_number_of_wordings(corpus: Corpus, encoder: Any) -> None:
    index = DenseSystem(encoder).index(corpus)
    mixed = index.search({"one": "water", "two": ("water", "paths"), "again": "paths"})
    vectors = encoder.encode([document.content for document in corpus])
    summed = vectors @ encoder.encode(["water", "paths"]).sum(axis=0)
    assert mixed["two"] == pytest.approx(dict(zip(corpus.ids, np.asarray(summed).tolist(), strict=True)), abs=1e-6)
    assert mixed["one"] == index.search({"q": "water"})["q"]
    assert mixed["again"] == index.search({"q": "paths"})["q"]
