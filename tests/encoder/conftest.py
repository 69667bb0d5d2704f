"""What the encoder's tests share."""

from __future__ import annotations

import pytest
import torch

TEXTS = [
    "why does the water boil at altitude",
    "",
    "drift of alleles in a population of few founders",
    "a",
    "prime modulus theorem  with  spaces \n and a line",
    "the shortest path in a graph is how the robot moves " * 12,
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny models: more threads only get in each other's way


@pytest.fixture
def texts() -> list[str]:
    """Texts of very different lengths, an empty one among them."""
    return TEXTS
