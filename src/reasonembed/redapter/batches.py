"""Which examples meet in which batch, and which passages each brings: a pure function of (seed, epoch, ids).

The order of the rows in a file changes nothing (law 4).
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from reasonembed.errors import ConfigError, InputError, nearest, shown
from reasonembed.redapter.data import TrainingExample
from reasonembed.texts import row_seed, text_key

Mask = npt.NDArray[np.bool_]

_cached_key = lru_cache(maxsize=1 << 16)(text_key)


class Batch(msgspec.Struct, frozen=True):
    """One optimiser step's global batch: examples of one domain, each with its drawn passages."""

    domain: str
    epoch: int
    examples: tuple[TrainingExample, ...]
    passages: tuple[tuple[str, ...], ...]  # of each example: group_size texts, the positive first

    @property
    def group_size(self) -> int:
        """Passages per query; query i's positive is column i * group_size of the batch."""
        return len(self.passages[0])


def epoch_batches(
    examples: Sequence[TrainingExample],
    *,
    seed: int,
    epoch: int,
    group_size: int | None = None,
    global_queries: int | None = None,
    domain_weights: Mapping[str, float] | None = None,
) -> list[Batch]:
    """The batches of one epoch, in order: every example once, one domain a batch, smaller last ones kept.

    Each visit draws one positive and `group_size - 1` negatives at random, with repetition if there are
    too few.
    group_size, global_queries: override the examples' own.  domain_weights: how many times an epoch visits each
    example of a domain, 1 where it is not named (`_rounds`); every epoch has as many batches as the first.
    Raises InputError for a repeated id within a domain, a domain whose examples disagree on their batch shape, or what
    `check_negatives` refuses; ConfigError for a weight of a domain that has no examples.
    """
    batches = []
    domains, weights = _by_domain(examples), domain_weights or {}
    check_weights(weights, domains)
    check_negatives(examples, group_size)
    for domain, rows in domains.items():
        shapes = {(group_size or row.group_size, global_queries or row.global_queries) for row in rows}
        if len(shapes) > 1:
            raise InputError(
                f"the examples of {domain} ask for different batch shapes {sorted(shapes)} (passages a query, queries "
                f"a batch). Make them one, or set group_size and global_queries."
            )
        passages, queries = shapes.pop()
        for number, visited in enumerate(_rounds(rows, weights.get(domain, 1.0), seed=seed, epoch=epoch)):
            when = f"{epoch}+{number}" if number else str(epoch)
            shuffled = _shuffled(visited, seed, "order", when)
            for start in range(0, len(shuffled), queries):
                members = tuple(shuffled[start : start + queries])
                drawn = tuple(_draw(row, passages, seed, when) for row in members)
                place = row_seed(seed, "batch", when, domain, str(start))
                batches.append((place, Batch(domain, epoch, members, drawn)))
    return [batch for _, batch in sorted(batches, key=lambda pair: pair[0])]


def _rounds(
    rows: Sequence[TrainingExample], weight: float, *, seed: int, epoch: int
) -> list[Sequence[TrainingExample]]:
    """Whom an epoch visits, as rounds that hold an example once at most, so that no batch holds it twice.

    The examples stand in a circle, in an order of the seed's own. An epoch walks `weight` times round it (rounded to
    whole examples, one at least) from where the one before ended: 2 meets each twice, a half every other one, and the
    next epoch the others.
    """
    whole, rest = divmod(max(1, math.floor(weight * len(rows) + 0.5)), len(rows))
    rounds: list[Sequence[TrainingExample]] = [rows] * whole
    if rest:
        circle = _shuffled(rows, seed, "circle")
        rounds.append([circle[(epoch * rest + step) % len(rows)] for step in range(rest)])
    return rounds


def _shuffled(rows: Sequence[TrainingExample], seed: int, *parts: str) -> list[TrainingExample]:
    return sorted(rows, key=lambda row: row_seed(seed, *parts, row.domain, row.example_id))


def check_weights(weights: Mapping[str, float], domains: Collection[str]) -> None:
    """Raise ConfigError if a weight is that of a domain without examples."""
    for name in weights:
        if name not in domains:
            raise ConfigError(
                f'domain_weights names "{name}", of which there are no examples{nearest(name, domains) or "."} The '
                f"domains of the data: {', '.join(domains)}."
            )


def check_negatives(examples: Iterable[TrainingExample], group_size: int | None = None) -> None:
    """Raise InputError if an example has no negative, and a group of its passages is to hold one.

    group_size: overrides the examples' own.
    """
    for example in examples:
        if not example.negatives and (group_size or example.group_size) > 1:
            raise InputError(
                f"the example {shown(example.example_id)} of {example.domain}: no negatives. Every example needs one "
                f"positive and one negative at least; drop it, or set group_size = 1 (--group-size 1), which takes "
                f"other queries' positives alone for negatives."
            )


def not_negatives(batch: Batch) -> Mask:
    """Which passages may not count as negatives of which query, shape (B, C): its annotated positives,
    its source, the source's copies, in its own group or another's. Its own drawn positive stays
    (False).
    """
    keys = [_cached_key(text) for texts in batch.passages for text in texts]
    mask_BC = np.zeros((len(batch.examples), len(keys)), dtype=np.bool_)
    for number, (example, texts) in enumerate(zip(batch.examples, batch.passages, strict=True)):
        apart = example.never_negative | {_cached_key(texts[0])}
        mask_BC[number] = [key in apart for key in keys]
        mask_BC[number, number * batch.group_size] = False
    return mask_BC


def annotated_positives(batch: Batch) -> Mask:
    """Which passages are positives of which query, shape (B, C): every text that is annotated as one, wherever it
    was drawn, and as often. Its source and the source's copies are none (law 1).
    """
    keys = [_cached_key(text) for texts in batch.passages for text in texts]
    positive_BC = np.zeros((len(batch.examples), len(keys)), dtype=np.bool_)
    for number, (example, texts) in enumerate(zip(batch.examples, batch.passages, strict=True)):
        positives = {_cached_key(text) for text in (texts[0], *example.positives)}
        positive_BC[number] = [key in positives for key in keys]
    return positive_BC


def drawn_grades(batch: Batch) -> npt.NDArray[np.int64]:
    """The grades of each query's own passages, shape (B, G); a text that was graded twice counts with the better.

    Every example of the batch must be graded (`TrainingExample.is_graded`).
    """
    grades_BG = np.zeros((len(batch.examples), batch.group_size), dtype=np.int64)
    for number, (example, texts) in enumerate(zip(batch.examples, batch.passages, strict=True)):
        positives = dict(sorted(zip(example.positives, example.positive_grades, strict=True)))
        negatives = dict(sorted(zip(example.negatives, example.negative_grades, strict=True)))
        grades_BG[number] = [positives[texts[0]], *(negatives[text] for text in texts[1:])]
    return grades_BG


def _by_domain(examples: Sequence[TrainingExample]) -> dict[str, list[TrainingExample]]:
    domains: dict[str, dict[str, TrainingExample]] = {}
    for example in examples:
        rows = domains.setdefault(example.domain, {})
        if example.example_id in rows:
            raise InputError(
                f"two examples of {example.domain} have the id {shown(example.example_id)}. Ids must be unique."
            )
        rows[example.example_id] = example
    return {domain: list(domains[domain].values()) for domain in sorted(domains)}


def _draw(row: TrainingExample, group_size: int, seed: int, when: str) -> tuple[str, ...]:
    generator = random.Random(row_seed(seed, "draw", when, row.domain, row.example_id))
    wanted = group_size - 1
    enough = row.negatives * -(-wanted // max(1, len(row.negatives)))  # each as often as any other, within one
    return (generator.choice(row.positives), *generator.sample(enough, wanted))
