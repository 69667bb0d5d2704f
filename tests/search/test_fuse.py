from __future__ import annotations

import numpy as np
import pytest

from reasonembed.records import Run
from reasonembed.search.fuse import min_max, pool_by_best_rank, reciprocal_rank_fusion, weighted_fusion


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


def test_weights_add_scores_that_run_from_0_to_1() -> None:
    sparse = {"q": {"a": 30.0, "b": 20.0, "c": 10.0}}
    dense = {"q": {"c": 0.9, "a": 0.8, "d": 0.5}}
    fused = weighted_fusion([sparse, dense], [0.3, 0.7])["q"]
    assert list(fused) == ["a", "c", "b", "d"]
    assert fused == {
        "a": pytest.approx(0.3 + 0.7 * 0.75),  # (0.8 - 0.5) / (0.9 - 0.5)
        "c": pytest.approx(0.7),
        "b": pytest.approx(0.15),
        "d": 0.0,
    }


def test_neither_scale_nor_shift_of_a_system_changes_a_weighted_fusion() -> None:
    rng = np.random.default_rng(0)
    ids = [f"d{number}" for number in range(40)]
    one, other = (dict(zip(rng.permutation(ids)[:25].tolist(), rng.random(25).tolist(), strict=True)) for _ in "12")
    moved = {doc_id: 1000 * score - 7 for doc_id, score in other.items()}
    plain = weighted_fusion([{"q": one}, {"q": other}], [0.4, 0.6])["q"]
    scaled = weighted_fusion([{"q": one}, {"q": moved}], [0.4, 0.6])["q"]
    assert scaled == pytest.approx(plain, abs=1e-9)


def test_an_empty_ranking_gives_nothing_and_a_lone_document_all_of_its_weight() -> None:
    full = {"q": {"a": 2.0, "b": 1.0}, "r": {"c": 5.0}}
    fused = weighted_fusion([full, {"q": {}}], [0.5, 0.5])
    assert fused == {"q": {"a": 0.5, "b": 0.0}, "r": {"c": 0.5}}
    assert weighted_fusion([{"q": {}}, {"q": {}}], [0.5, 0.5]) == {"q": {}}
    assert reciprocal_rank_fusion([{"q": {}}, full])["r"] == {"c": pytest.approx(1 / 61)}


def test_min_max_runs_from_0_to_1() -> None:
    assert min_max({"a": -1.0, "b": 3.0, "c": 1.0}) == {"a": 0.0, "b": 1.0, "c": 0.5}
    assert min_max({"a": 2.0, "b": 2.0}) == {"a": 1.0, "b": 1.0}
    assert min_max({}) == {}
