"""Nested subsets: the smaller in the larger, every domain with its share, whatever the order of the rows."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonembed.analyze.subsets import checked_sizes, halved_sizes, nested_order
from reasonembed.errors import ConfigError
from reasonembed.redapter.data import TrainingExample


def examples(**counts: int) -> list[TrainingExample]:
    return [
        TrainingExample(str(number), domain, "", f"query {number}", "", ("yes",), ("no",))
        for domain, count in counts.items()
        for number in range(count)
    ]


def names(rows: list[TrainingExample]) -> list[tuple[str, str]]:
    return [(row.domain, row.example_id) for row in rows]


def test_the_order_depends_on_seed_and_ids_alone() -> None:
    rows = examples(biology=40, pony=7)
    ordered = names(nested_order(rows, seed=1))
    shuffled = rows.copy()
    random.Random(0).shuffle(shuffled)
    assert names(nested_order(shuffled, seed=1)) == ordered != names(nested_order(rows, seed=2))
    assert sorted(ordered) == sorted(names(rows))


def test_what_comes_first_of_a_domain_does_not_depend_on_the_other_domains() -> None:
    alone = names(nested_order(examples(biology=30), seed=3))
    among = [one for one in names(nested_order(examples(biology=30, pony=11), seed=3)) if one[0] == "biology"]
    assert among == alone


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 9), st.data())
def test_every_prefix_has_each_domain_by_its_share(one: int, two: int, three: int, data: st.DataObject) -> None:
    rows = examples(one=one, two=two, three=three)
    size = data.draw(st.integers(1, len(rows)))
    found = Counter(row.domain for row in nested_order(rows, seed=0)[:size])
    for domain, count in (("one", one), ("two", two), ("three", three)):
        assert abs(found[domain] - size * count / len(rows)) <= 1.5  # half an example a domain


def test_every_example_is_as_likely_to_be_in_a_small_subset() -> None:
    hits = Counter(row.example_id for seed in range(400) for row in nested_order(examples(x=10), seed=seed)[:3])
    assert all(abs(hits[str(number)] / 400 - 0.3) < 0.1 for number in range(10))


def test_sizes_halve_from_all_and_given_ones_are_checked() -> None:
    assert halved_sizes(1000, 4) == [125, 250, 500, 1000]
    assert halved_sizes(3, 6) == [1, 3]
    assert checked_sizes([4, 2, 4], 4) == [2, 4]
    with pytest.raises(ConfigError, match="a size is 5; it must be from 1 to the 4 examples"):
        checked_sizes([2, 5], 4)
    with pytest.raises(ConfigError, match="no sizes"):
        checked_sizes([], 4)
