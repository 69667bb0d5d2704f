"""Micro-batches keep their budget, cover every text once, and waste little."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonembed.encoder.microbatch import padding_share, plan, plan_packed

lengths_and_budget = st.tuples(st.lists(st.integers(1, 600), max_size=60), st.integers(1, 2000))


@given(lengths_and_budget)
def test_every_text_stands_in_one_micro_batch_within_the_budget(case: tuple[list[int], int]) -> None:
    lengths, budget = case
    batches = plan(lengths, budget)
    assert sorted(int(row) for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        longest = max(lengths[row] for row in rows)
        assert len(rows) * longest <= budget or len(rows) == 1


@given(lengths_and_budget)
def test_packed_texts_are_counted_without_padding_and_fill_their_budget(case: tuple[list[int], int]) -> None:
    lengths, budget = case
    batches = plan_packed(lengths, budget)
    assert [int(row) for rows in batches for row in rows] == sorted(range(len(lengths)), key=lambda row: -lengths[row])
    sizes = [sum(lengths[row] for row in rows) for rows in batches]
    assert all(size <= budget or len(rows) == 1 for size, rows in zip(sizes, batches, strict=True))
    for size, after in zip(sizes, batches[1:], strict=False):
        assert size + lengths[after[0]] > budget, "the next text would not have fitted"


@given(lengths_and_budget)
def test_no_micro_batch_holds_a_longer_text_than_the_one_before(case: tuple[list[int], int]) -> None:
    batches = plan(*case)
    lengths = np.array(case[0])
    for before, after in pairwise(batches):
        assert lengths[before].min() >= lengths[after].max()


def test_sorting_wastes_a_tenth_of_what_unsorted_fours_waste() -> None:
    lengths = np.random.default_rng(0).integers(16, 512, size=272)
    fours = [np.arange(start, start + 4) for start in range(0, 272, 4)]
    assert padding_share(lengths, fours) > 0.3
    assert padding_share(lengths, plan(lengths, 2048)) < 0.04


@given(st.lists(st.integers(1, 90), min_size=1, max_size=9), st.integers(1, 200))
def test_no_other_cut_of_the_sorted_texts_costs_less(lengths: list[int], budget: int) -> None:
    def cost(parts: list[list[int]]) -> float:
        return sum(len(part) * part[0] + budget / 16 for part in parts)

    sizes = sorted(lengths, reverse=True)
    others = []
    for cuts in product([False, True], repeat=len(sizes) - 1):
        places = [0, *(place for place, cut in enumerate(cuts, 1) if cut), len(sizes)]
        parts = [sizes[start:end] for start, end in pairwise(places)]
        if all(len(part) == 1 or len(part) * part[0] <= budget for part in parts):
            others.append(cost(parts))
    found = cost([[lengths[row] for row in rows] for rows in plan(lengths, budget)])
    assert found == pytest.approx(min(others))


def test_a_window_of_many_texts_is_planned_in_a_moment() -> None:
    lengths = np.random.default_rng(0).integers(4, 512, size=32768)
    batches = plan(lengths, 32768)
    assert sum(len(rows) for rows in batches) == 32768
    assert padding_share(lengths, batches) < 0.01


def test_padding_share_by_hand() -> None:
    assert padding_share([4, 2], [np.array([0, 1])]) == pytest.approx(2 / 8)
    assert padding_share([], []) == 0


def test_a_budget_below_one_is_refused() -> None:
    for planning in (plan, plan_packed):
        with pytest.raises(ValueError, match="at least 1"):
            planning([1], 0)
