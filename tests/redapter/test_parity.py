"""The release's numbers, recomputed from its definition on random vectors, and ours held against them (unmasked)."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from reasonembed.redapter.batches import Batch
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gradcache import BatchTexts
from reasonembed.redapter.loss import ri_info_nce
from reasonembed.redapter.objective import batch_loss

DEVICES, QUERIES, GROUP, DIMENSION = 8, 8, 16, 24  # the paper's shape: 8 devices x 8 queries x 16 passages
TEMPERATURE, KAPPA = 0.02, 5.0
RECIPE = TrainConfig(mask_positives=False, start_step=0)


class Vectors(NamedTuple):
    """Unit vectors of a global batch; query i's passages are rows i * GROUP on, its positive first."""

    query: Tensor
    reasoning: Tensor
    passage: Tensor


@pytest.fixture
def vectors() -> Vectors:
    """Queries and reasoning queries near their positives, some nearer than others, so that intensity varies; none so
    near that the definition below, taken literally, loses its digits.
    """
    generator = torch.Generator().manual_seed(11)

    def draw(rows: int) -> Tensor:
        return torch.randn(rows, DIMENSION, generator=generator, dtype=torch.float64)

    passage = draw(DEVICES * QUERIES * GROUP)
    positive = passage[::GROUP]
    pull = torch.linspace(0.1, 1.0, DEVICES * QUERIES, dtype=torch.float64).unsqueeze(1)
    query, reasoning = draw(len(positive)) + pull * positive, draw(len(positive)) + 0.6 * positive
    return Vectors(*(torch.nn.functional.normalize(rows, dim=1) for rows in (query, reasoning, passage)))


def _release_info_nce(query: Tensor, passage: Tensor, target: Tensor) -> Tensor:
    """-log(exp(sim(q, d+) / t) / sum over all gathered passages of exp(sim(q, d) / t)), as it stands in the paper."""
    powers = torch.exp(query @ passage.T / TEMPERATURE)
    return -torch.log(powers.gather(1, target.unsqueeze(1)).squeeze(1) / powers.sum(dim=1))


def _release(vectors: Vectors, devices: int) -> tuple[list[Tensor], list[Tensor]]:
    """Loss and intensities of each device: its own queries against everyone's passages, intensity with + 1e-6
    under the fraction and clamped to [0, 5], weights summing to 1 over the device's queries.
    """
    losses, intensities = [], []
    targets = torch.arange(len(vectors.query)) * GROUP
    for query, reasoning, target in zip(
        vectors.query.chunk(devices), vectors.reasoning.chunk(devices), targets.chunk(devices), strict=True
    ):
        loss = _release_info_nce(query, vectors.passage, target)
        with torch.no_grad():
            ratio = loss / (_release_info_nce(reasoning, vectors.passage, target) + 1e-6)
            intensity = torch.clamp(ratio, 0, KAPPA)
        losses.append((intensity / intensity.sum() * loss).sum())
        intensities.append(intensity)
    return losses, intensities


def _ours(vectors: Vectors, rows: slice) -> Tensor:
    """Our function on the scores of some of the queries."""
    targets = torch.arange(len(vectors.query)) * GROUP
    scores, reasoned = vectors.query[rows] @ vectors.passage.T, vectors.reasoning[rows] @ vectors.passage.T
    return ri_info_nce(scores, reasoned, targets[rows]).loss


def _step(vectors: Vectors, step: int = 0, **changes: object) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, intensities and gradient on all vectors, by the training step's own function."""
    count = len(vectors.query)
    example = TrainingExample(
        example_id="q", domain="d", instruction="", query="q", reasoning_query="r", positives=("p",), negatives=("n",)
    )
    batch = Batch("d", 0, (example,) * count, tuple(("p",) + ("n",) * (GROUP - 1) for _ in range(count)))
    places = np.split(np.arange(2 * count + len(vectors.passage)), [count, 2 * count])
    texts = BatchTexts([], query_B=places[0], reasoning_B=places[1], passage_C=places[2], truncated=0)
    stacked = torch.cat(vectors).requires_grad_()
    found = batch_loss(stacked, texts, batch, msgspec.structs.replace(RECIPE, **changes), step=step)
    found.loss.backward()
    assert stacked.grad is not None
    return found.loss.detach(), found.intensity_B, stacked.grad


def test_the_batch_holds_every_kind_of_intensity(vectors: Vectors) -> None:
    intensity = torch.cat(_release(vectors, DEVICES)[1])
    clipped = (intensity == KAPPA).double().mean()
    assert 0.1 < clipped < 0.9
    assert intensity.min() < 0.5


def test_on_each_device_alone_our_loss_is_the_releases(vectors: Vectors) -> None:
    losses, _ = _release(vectors, DEVICES)
    for device, expected in enumerate(losses):
        rows = slice(device * QUERIES, (device + 1) * QUERIES)
        assert _ours(vectors, rows).item() == pytest.approx(expected.item(), abs=1e-10)


def test_the_step_is_the_releases_definition_over_the_global_batch_with_its_gradient(vectors: Vectors) -> None:
    plain = Vectors(*(rows.clone().requires_grad_() for rows in vectors))
    (expected,), (intensity,) = _release(plain, 1)
    expected.backward()
    loss, found, gradient = _step(vectors)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-10)
    assert torch.allclose(found, intensity, rtol=0, atol=1e-10)
    assert plain.reasoning.grad is None
    query, reasoning, passage = gradient.split([len(rows) for rows in vectors])
    assert torch.allclose(query, plain.query.grad, rtol=0, atol=1e-10)  # type: ignore[arg-type]
    assert torch.allclose(passage, plain.passage.grad, rtol=0, atol=1e-10)  # type: ignore[arg-type]
    assert not reasoning.any()


def test_the_global_batch_weighs_otherwise_than_eight_devices(vectors: Vectors) -> None:
    per_device = torch.stack(_release(vectors, DEVICES)[0]).mean()
    assert abs(_step(vectors)[0] - per_device) > 1e-3


def test_before_the_start_step_it_is_the_plain_mean(vectors: Vectors) -> None:
    targets = torch.arange(len(vectors.query)) * GROUP
    expected = _release_info_nce(vectors.query, vectors.passage, targets).mean().item()
    assert _step(vectors, step=99, start_step=100)[0].item() == pytest.approx(expected, abs=1e-10)
    assert abs(_step(vectors, step=100, start_step=100)[0].item() - expected) > 1e-3
