"""What the training tests share: small examples in two domains, whose texts repeat across queries."""

from __future__ import annotations

import pytest
import torch

from reasonembed.redapter.data import TrainingExample
from reasonembed.texts import text_key


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the models are tiny: more threads only get in each other's way


def make_example(domain: str, number: int, *, positives: int = 2, negatives: int = 4) -> TrainingExample:
    """Example `number`: its last negative is a positive of the next one."""
    texts = [f"{domain} principle {number} of drift and heat " + "graph " * index for index in range(positives)]
    others = [f"{domain} lure {index} price " + "torque " * (number % 3) for index in range(negatives - 1)]
    others.append(f"{domain} principle {number + 1} of drift and heat ")
    return TrainingExample(
        example_id=f"{domain}-{number}",
        domain=domain,
        instruction=f"Given a {domain} post, find passages.",
        query=f"why does {domain} {number} boil " + "at altitude " * (number % 4),
        reasoning_query=f"principle {number} the reason of {domain} " + "is memory " * (number % 3),
        positives=tuple(texts),
        negatives=tuple(others),
        group_size=4,
        global_queries=4,
        never_negative=frozenset(text_key(text) for text in texts),
    )


@pytest.fixture
def examples() -> list[TrainingExample]:
    """Six examples of biology and five of pony: two batches each, the last one smaller."""
    return [make_example("biology", n) for n in range(6)] + [make_example("pony", n) for n in range(5)]


@pytest.fixture(scope="module")
def rows() -> list[TrainingExample]:
    """Nine examples of biology, whose last negative is a positive of the next one, and five of pony."""
    return [make_example("biology", n) for n in range(9)] + [make_example("pony", n) for n in range(5)]
