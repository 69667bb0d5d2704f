"""Subsets of training data in which the smaller ones are contained in the larger, each with all domains' shares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from reasonembed.errors import ConfigError
from reasonembed.redapter.data import TrainingExample
from reasonembed.texts import row_seed


def nested_order(examples: Iterable[TrainingExample], *, seed: int) -> list[TrainingExample]:
    """The examples in an order whose every prefix is a random subset, stratified by domain.

    Within a domain the order is that of a hash of (seed, domain, example id), so that the order of the rows changes
    nothing (law 4). The domains are merged by the middles of n equal parts of the unit interval, n being a domain's
    size: a prefix holds of each domain its share of the data, to rounding.
    """
    by_domain: dict[str, list[TrainingExample]] = defaultdict(list)
    for example in examples:
        by_domain[example.domain].append(example)
    placed = []
    for domain, rows in by_domain.items():
        shuffled = sorted(rows, key=lambda row: (row_seed(seed, "subset", domain, row.example_id), row.example_id))
        placed += [((place + 0.5) / len(rows), domain, row) for place, row in enumerate(shuffled)]
    placed.sort(key=lambda one: one[:2])
    return [row for _, _, row in placed]


def halved_sizes(total: int, count: int) -> list[int]:
    """At most `count` sizes, rising to `total`, each about twice the one before; none is 0."""
    return sorted({total >> times for times in range(count)} - {0})


def checked_sizes(sizes: Sequence[int], total: int) -> list[int]:
    """`sizes`, rising, each once. Raises ConfigError for none, or one that is not between 1 and `total`."""
    if not sizes:
        raise ConfigError("no sizes are given. Name some numbers of examples.")
    for size in sizes:
        if not 1 <= size <= total:
            raise ConfigError(f"a size is {size:,}; it must be from 1 to the {total:,} examples that there are.")
    return sorted(set(sizes))


__all__ = ["checked_sizes", "halved_sizes", "nested_order"]
