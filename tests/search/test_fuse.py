from __future__ import annotations

import pytest

from reasonembed.records import Run
from reasonembed.search.fuse import pool_by_best_rank, reciprocal_rank_fusion


def test_a_document_gets_the_sum_of_its_reciprocal_ranks() -> None:
    one = {"q": {"a": 9.0, "b": 8.0, "c": 7.0}}
    other = {"q": {"c": 0.3, "a": 0.2}}
    fused = reciprocal_rank_fusion([one, other])["q"]
    assert list(fused) == ["a", "c", "b"]
    assert fused == {
        "a": pytest.approx(1 / 61 + 1 / 62),
        "c": pytest.approx(1 / 63 + 1 / 61),
        "b": pytest.approx(1 / 62),
    }


def test_only_ranks_count_so_scores_may_be_of_any_size() -> None:
    one, large = {"q": {"a": 0.2, "b": 0.1}}, {"q": {"a": 2e6, "b": 1e6}}
    other = {"q": {"b": 1.0, "c": 0.5}}
    assert reciprocal_rank_fusion([one, other]) == reciprocal_rank_fusion([large, other])


def test_ties_go_to_the_greater_id_and_the_cut_comes_after() -> None:
    runs = [{"q": {"a": 2.0, "b": 1.0}}, {"q": {"b": 2.0, "a": 1.0}}]
    assert list(reciprocal_rank_fusion(runs, k=1)["q"]) == ["b"]
    assert reciprocal_rank_fusion(runs) == reciprocal_rank_fusion(runs[::-1])


def test_a_query_that_one_run_lacks_is_taken_from_the_others() -> None:
    assert reciprocal_rank_fusion([{}, {"q": {"a": 1.0}}]) == {"q": {"a": pytest.approx(1 / 61)}}
    assert reciprocal_rank_fusion([{"q": {}}]) == {"q": {}}


def test_a_k_below_1_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        reciprocal_rank_fusion([], k=0)


def test_a_pool_orders_by_best_rank_then_by_the_second_then_by_id() -> None:
    runs: list[Run] = [
        {"q": {"a": 9.0, "b": 8.0, "c": 7.0}},
        {"q": {"d": 0.9, "b": 0.8, "e": 0.7, "c": 0.6}, "r": {"x": 1.0}},
    ]
    pooled = pool_by_best_rank(runs, k=5)
    assert list(pooled["q"].items()) == [("d", 1.0), ("a", 1.0), ("b", 0.5), ("c", 1 / 3), ("e", 1 / 3)]
    assert pooled["r"] == {"x": 1.0}
    assert list(pool_by_best_rank(runs, k=2)["q"]) == ["d", "a"]
    with pytest.raises(ValueError, match="k is 0"):
        pool_by_best_rank(runs, k=0)
