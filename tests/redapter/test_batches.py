"""Batches depend on seed, epoch and ids alone, hold one domain each, and know their false negatives."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest

from reasonembed.errors import ConfigError, InputError
from reasonembed.redapter.batches import Batch, epoch_batches, not_negatives
from reasonembed.redapter.data import TrainingExample
from reasonembed.texts import text_key


def test_every_example_comes_once_an_epoch_in_batches_of_one_domain(examples: list[TrainingExample]) -> None:
    batches = epoch_batches(examples, seed=1, epoch=0)
    ids = [example.example_id for batch in batches for example in batch.examples]
    assert sorted(ids) == sorted(example.example_id for example in examples)
    for batch in batches:
        assert {example.domain for example in batch.examples} == {batch.domain}
    assert sorted((batch.domain, len(batch.examples)) for batch in batches) == [
        ("biology", 2),
        ("biology", 4),
        ("pony", 1),
        ("pony", 4),
    ]


def test_each_query_brings_a_positive_first_and_its_own_negatives(examples: list[TrainingExample]) -> None:
    for batch in epoch_batches(examples, seed=1, epoch=0):
        assert batch.group_size == 4
        for example, texts in zip(batch.examples, batch.passages, strict=True):
            assert texts[0] in example.positives
            assert set(texts[1:]) <= set(example.negatives)
            assert len(set(texts[1:])) == 3, "no repetition while there are enough"


def test_the_order_of_the_rows_changes_nothing(examples: list[TrainingExample]) -> None:
    assert epoch_batches(examples, seed=1, epoch=2) == epoch_batches(examples[::-1], seed=1, epoch=2)


def test_seed_and_epoch_redraw(examples: list[TrainingExample]) -> None:
    first = epoch_batches(examples, seed=1, epoch=0)
    assert first == epoch_batches(examples, seed=1, epoch=0)
    assert first != epoch_batches(examples, seed=1, epoch=1)
    assert first != epoch_batches(examples, seed=2, epoch=0)


def test_every_positive_is_drawn_sometime(examples: list[TrainingExample]) -> None:
    drawn = {batch.passages[0][0] for epoch in range(30) for batch in epoch_batches(examples[:1], seed=0, epoch=epoch)}
    assert drawn == set(examples[0].positives)


def test_too_few_negatives_are_repeated_evenly(examples: list[TrainingExample]) -> None:
    (batch,) = epoch_batches(examples[:1], seed=0, epoch=0, group_size=11)
    counts = [batch.passages[0][1:].count(text) for text in examples[0].negatives]
    assert sum(counts) == 10
    assert max(counts) - min(counts) <= 1


def test_settings_override_the_examples_own_shape(examples: list[TrainingExample]) -> None:
    batches = epoch_batches(examples, seed=0, epoch=0, group_size=2, global_queries=3)
    assert {batch.group_size for batch in batches} == {2}
    assert sorted(len(batch.examples) for batch in batches) == [2, 3, 3, 3]


def test_false_negatives_are_masked_and_the_own_positive_is_not(examples: list[TrainingExample]) -> None:
    (batch,) = epoch_batches(examples[:6], seed=0, epoch=0, global_queries=6, group_size=5)
    mask = not_negatives(batch)
    texts = [text for group in batch.passages for text in group]
    for row, example in enumerate(batch.examples):
        for column, text in enumerate(texts):
            own = column == row * 5
            assert mask[row, column] == (text in example.positives and not own)
    assert mask.sum() > 0


def test_a_source_or_copy_is_masked_whatever_its_spacing_and_case(examples: list[TrainingExample]) -> None:
    source = "The  SOURCE of it"
    first = msgspec.structs.replace(
        examples[0], never_negative=examples[0].never_negative | {text_key("the source of it")}
    )
    second = msgspec.structs.replace(
        examples[1], positives=(source,), negatives=("a lure",), never_negative=frozenset()
    )
    (batch,) = epoch_batches([first, second], seed=0, epoch=0, group_size=2)
    mask = not_negatives(batch)
    row = [example.example_id for example in batch.examples].index(first.example_id)
    other = 1 - row
    assert mask[row].tolist() == [column == other * 2 for column in range(4)]
    assert not mask[other].any()


def test_the_own_positive_repeated_elsewhere_is_no_negative(examples: list[TrainingExample]) -> None:
    twins = [
        msgspec.structs.replace(
            examples[number],
            positives=("the same text",),
            negatives=(f"lure {number}",),
            never_negative=frozenset(),
        )
        for number in (0, 1)
    ]
    (batch,) = epoch_batches(twins, seed=0, epoch=0, group_size=2)
    expected = np.array([[False, False, True, False], [True, False, False, False]])
    assert (not_negatives(batch) == expected).all()


def test_repeated_ids_and_disagreeing_shapes_are_refused(examples: list[TrainingExample]) -> None:
    with pytest.raises(InputError, match="'biology-0'"):
        epoch_batches([examples[0], examples[0]], seed=0, epoch=0)
    other = msgspec.structs.replace(examples[1], group_size=8)
    with pytest.raises(InputError, match="different batch shapes"):
        epoch_batches([examples[0], other], seed=0, epoch=0)


def _visits(batches: list[Batch], domain: str) -> Counter[str]:
    return Counter(example.example_id for batch in batches if batch.domain == domain for example in batch.examples)


def test_a_weight_of_one_is_no_weight(examples: list[TrainingExample]) -> None:
    plain = epoch_batches(examples, seed=1, epoch=3)
    assert epoch_batches(examples, seed=1, epoch=3, domain_weights={"biology": 1.0}) == plain


def test_a_weight_of_two_visits_each_example_twice_in_other_batches_with_fresh_draws(
    examples: list[TrainingExample],
) -> None:
    plain = epoch_batches(examples, seed=1, epoch=0)
    weighted = epoch_batches(examples, seed=1, epoch=0, domain_weights={"biology": 2})
    assert set(_visits(weighted, "biology").values()) == {2} and len(_visits(weighted, "biology")) == 6
    assert _visits(weighted, "pony") == _visits(plain, "pony")
    drawn: dict[str, list[tuple[str, ...]]] = {}
    for batch in weighted:
        ids = [example.example_id for example in batch.examples]
        assert len(set(ids)) == len(ids), "never twice in a batch"
        for example_id, texts in zip(ids, batch.passages, strict=True):
            drawn.setdefault(example_id, []).append(texts)
    assert any(one != other for one, other in (both for both in drawn.values() if len(both) == 2))
    assert all(batch in weighted for batch in plain), "the first visits are those without weights"


def test_a_weight_of_a_half_visits_one_half_and_then_the_other(examples: list[TrainingExample]) -> None:
    halves = [
        set(_visits(epoch_batches(examples, seed=1, epoch=epoch, domain_weights={"biology": 0.5}), "biology"))
        for epoch in range(4)
    ]
    every = {example.example_id for example in examples if example.domain == "biology"}
    assert [len(half) for half in halves] == [3, 3, 3, 3]
    assert halves[0] | halves[1] == every == halves[2] | halves[3]
    assert halves[0] == halves[2]


@pytest.mark.parametrize("weight", [0.01, 0.3, 0.5, 1.1, 1.5, 2.7])
def test_over_epochs_all_examples_are_visited_alike_and_every_epoch_has_as_many_batches(
    examples: list[TrainingExample], weight: float
) -> None:
    total: Counter[str] = Counter()
    counts = set()
    for epoch in range(30):
        batches = epoch_batches(examples, seed=4, epoch=epoch, domain_weights={"pony": weight})
        counts.add(len(batches))
        total += _visits(batches, "pony")
    assert len(counts) == 1
    assert max(total.values()) - min(total.values()) <= 1 and len(total) == 5
    assert total.total() == 30 * max(1, round(5 * weight + 1e-9))


def test_weighted_epochs_are_a_pure_function_of_seed_epoch_and_ids(examples: list[TrainingExample]) -> None:
    weights = {"biology": 1.5, "pony": 0.4}
    one = epoch_batches(examples, seed=1, epoch=2, domain_weights=weights)
    assert one == epoch_batches(examples[::-1], seed=1, epoch=2, domain_weights=weights)
    assert one != epoch_batches(examples, seed=2, epoch=2, domain_weights=weights)


def test_a_weight_of_an_unknown_domain_is_refused_with_the_nearest(examples: list[TrainingExample]) -> None:
    with pytest.raises(
        ConfigError, match=r'"biolgy", of which .*did you mean "biology"\? The domains .*: biology, pony'
    ):
        epoch_batches(examples, seed=0, epoch=0, domain_weights={"biolgy": 2.0})
