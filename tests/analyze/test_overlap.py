"""Lexical overlap: how many words a query shares with its source, positives and negatives."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonembed.analyze.overlap import (
    Overlap,
    overlap,
    pooled,
    query_overlaps,
    share_found,
    weighted_jaccard,
    word_counts,
)

BAGS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 5))


def by_vectors(a: dict[str, int], b: dict[str, int]) -> float:
    """The definition itself: sum min / sum max over the union of the words."""
    union = sorted(a.keys() | b.keys())
    x, y = (np.array([bag.get(word, 0) for word in union]) for bag in (a, b))
    return float(np.minimum(x, y).sum() / np.maximum(x, y).sum())


def test_a_number_worked_by_hand():
    # rain 2 wind 1 against rain 1 wind 1 snow 3: min 1 + 1 + 0, max 2 + 1 + 3
    assert weighted_jaccard({"rain": 2, "wind": 1}, {"rain": 1, "wind": 1, "snow": 3}) == pytest.approx(2 / 6)
    found = overlap("Rain, rain and wind", "The wind: rain. Snow snow SNOW!")
    assert found == Overlap(jaccard=pytest.approx(2 / 6), share=1.0)


@given(BAGS, BAGS)
def test_it_is_symmetric_within_0_and_1_and_what_the_definition_says(a, b):
    value = weighted_jaccard(a, b)
    assert value == weighted_jaccard(b, a)
    assert 0 <= value <= 1
    if a or b:
        assert value == pytest.approx(by_vectors(a, b))


@given(BAGS, BAGS)
def test_it_is_1_only_for_equal_bags_of_words(a, b):
    assert (weighted_jaccard(a, b) == 1) == (a == b and bool(a))


def test_order_case_and_spacing_of_words_change_nothing():
    assert overlap("Tidal  locking of MOONS", "moons locking\ntidal").jaccard == 1


def test_function_words_count_only_if_asked_for():
    query, text = "What is the cause of it?", "The reason is of no interest to it."
    assert overlap(query, text).jaccard == 0
    assert overlap(query, text, stop_words=()).jaccard > 0.3
    assert word_counts(query) == Counter({"cause": 1})


def test_the_share_is_of_the_querys_distinct_words_and_not_symmetric():
    assert overlap("glacier glacier moraine", "glacier ice melt water").share == 0.5
    assert overlap("glacier ice melt water", "glacier glacier moraine").share == 0.25


def test_a_query_or_text_without_words_shares_nothing():
    assert overlap("", "") == Overlap(jaccard=0.0, share=0.0)
    assert overlap("the of", "glacier") == Overlap(jaccard=0.0, share=0.0)
    assert share_found([], ["glacier"]) == 0


def test_each_text_keeps_its_place_and_pools_keep_each_pair():
    found = query_overlaps("glacier moraine", "glacier moraine", ["glacier", "sea"], ["moraine glacier ice"])
    assert found.source.jaccard == 1
    assert [positive.jaccard for positive in found.positives] == [0.5, 0.0]
    pools = pooled([found, found], "share")
    assert pools == {"source": [1.0] * 2, "positives": [0.5, 0.0] * 2, "negatives": [1.0] * 2}
    assert pooled([found])["negatives"] == [pytest.approx(2 / 3)]
    several = query_overlaps("glacier moraine", "glacier moraine", [], [], companions=["glacier", "sea"])
    assert pooled([several, found])["source"] == [1.0, 0.5, 0.0, 1.0]
    assert pooled([]) == {"source": [], "positives": [], "negatives": []}
