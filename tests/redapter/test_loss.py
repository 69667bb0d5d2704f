"""The losses equal their definitions in the paper and in its release, recomputed here directly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reasonembed.redapter.loss import info_nce, reasoning_intensity, ri_info_nce, ri_weights


def _scores(seed: int, queries: int = 6, columns: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(queries, columns, generator=generator, dtype=torch.float64) * 2 - 1


POSITIVES = torch.arange(6) * 4


def _defined(scores: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """-log(exp(s+ / t) / sum exp(s / t)), term by term with Python's floats."""
    rows = []
    for row, positive in zip(scores.tolist(), positives.tolist(), strict=True):
        shift = max(row) / temperature
        terms = [math.exp(score / temperature - shift) for score in row]
        rows.append(-(row[positive] / temperature - shift - math.log(math.fsum(terms))))
    return torch.tensor(rows, dtype=torch.float64)


def test_two_passages_by_hand() -> None:
    loss = info_nce(torch.tensor([[0.5, 0.3]]), torch.tensor([0]), temperature=0.1)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0])
def test_info_nce_is_its_definition(temperature: float) -> None:
    scores = _scores(0)
    found = info_nce(scores, POSITIVES, temperature=temperature)
    assert torch.allclose(found, _defined(scores, POSITIVES, temperature), rtol=0, atol=1e-10)


def test_info_nce_is_cross_entropy_with_its_gradient() -> None:
    scores = _scores(1).requires_grad_()
    info_nce(scores, POSITIVES).sum().backward()
    other = _scores(1).requires_grad_()
    torch.nn.functional.cross_entropy(other / 0.02, POSITIVES, reduction="sum").backward()
    assert torch.allclose(scores.grad, other.grad, rtol=0, atol=1e-10)  # type: ignore[arg-type]


def test_the_gradient_agrees_with_finite_differences() -> None:
    scores = _scores(2, 3, 6).requires_grad_()
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 3:] = True
    positives = torch.tensor([0, 2, 4])
    assert torch.autograd.gradcheck(lambda s: info_nce(s, positives, temperature=0.3, mask_BC=mask), (scores,))


def test_a_masked_passage_is_no_negative_and_the_positive_cannot_be_masked() -> None:
    scores = _scores(3)
    mask = torch.zeros(6, 24, dtype=torch.bool)
    mask[:, 12:] = True
    mask[torch.arange(6), POSITIVES] = True
    kept = scores[:3, :12]
    assert torch.allclose(info_nce(scores, POSITIVES, mask_BC=mask)[:3], info_nce(kept, POSITIVES[:3]))
    changed = scores.clone()
    changed[:, 13] += 0.5
    unmoved = info_nce(changed, POSITIVES, mask_BC=mask)[:3]
    assert torch.equal(unmoved, info_nce(scores, POSITIVES, mask_BC=mask)[:3])


def test_with_no_negative_left_the_loss_is_zero_and_so_is_its_gradient() -> None:
    scores = torch.tensor([[0.3, 0.9]], requires_grad=True)
    loss = info_nce(scores, torch.tensor([0]), mask_BC=torch.tensor([[False, True]]))
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert scores.grad is not None and scores.grad.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_scores_stay_finite_and_tiny_losses_keep_their_digits(dtype: torch.dtype) -> None:
    easy = info_nce(torch.tensor([[1.0, 0.2]], dtype=dtype), torch.tensor([0]))
    assert easy.item() == pytest.approx(math.exp(-40), rel=1e-5)
    hard = info_nce(torch.tensor([[-1.0, 1.0]], dtype=dtype), torch.tensor([0]), temperature=1e-3)
    assert hard.item() == pytest.approx(2000)


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        info_nce(_scores(0), POSITIVES, temperature=0)


def test_reasoning_intensity_by_hand() -> None:
    loss, reasoned = torch.tensor([2.0, 2.0, 0.0, 1.0]), torch.tensor([1.0, 0.1, 0.0, 0.0])
    found = reasoning_intensity(loss, reasoned, kappa=5.0, epsilon=1e-6)
    assert found.tolist() == pytest.approx([2.0, 5.0, 0.0, 5.0], abs=1e-5)


def test_reasoning_intensity_carries_no_gradient() -> None:
    loss = torch.tensor([2.0], requires_grad=True)
    assert not reasoning_intensity(loss, torch.tensor([1.0])).requires_grad


def test_weights_sum_to_one_and_are_even_when_nothing_is_intense() -> None:
    assert ri_weights(torch.tensor([1.0, 3.0])).tolist() == [0.25, 0.75]
    assert ri_weights(torch.zeros(4)).tolist() == [0.25] * 4


def _release(scores: Tensor, reasoned: Tensor, positives: Tensor, devices: int) -> Tensor:
    """The release: intensity clamped to [0, kappa], +1e-6 under the fraction, weights of each device's
    own queries.
    """
    parts = []
    for ours, theirs, place in zip(
        scores.chunk(devices), reasoned.chunk(devices), positives.chunk(devices), strict=True
    ):
        loss = _defined(ours, place, 0.02)
        intensity = (loss / (_defined(theirs, place, 0.02) + 1e-6)).clamp(0, 5.0)
        parts.append((intensity / intensity.sum() * loss).sum())
    return torch.stack(parts).mean()


def test_ri_info_nce_on_one_device_is_the_release() -> None:
    scores, reasoned = _scores(4), _scores(5)
    found = ri_info_nce(scores, reasoned, POSITIVES)
    assert found.loss.item() == pytest.approx(_release(scores, reasoned, POSITIVES, 1).item(), abs=1e-10)


def test_weights_over_the_global_batch_differ_from_the_release_on_two_devices() -> None:
    scores, reasoned = _scores(4), _scores(5)
    ours = ri_info_nce(scores, reasoned, POSITIVES).loss.item()
    halves = [
        ri_info_nce(scores[rows], reasoned[rows], POSITIVES[rows]).loss.item() for rows in (slice(0, 3), slice(3, 6))
    ]
    release = _release(scores, reasoned, POSITIVES, 2).item()
    assert sum(halves) / 2 == pytest.approx(release, abs=1e-10), "per device our functions give the release's"
    assert abs(ours - release) > 1e-3


def test_before_the_start_step_the_loss_is_the_plain_mean_and_intensity_is_still_measured() -> None:
    scores, reasoned = _scores(6), _scores(7)
    plain = ri_info_nce(scores, reasoned, POSITIVES, weighted=False)
    assert plain.loss.item() == pytest.approx(_defined(scores, POSITIVES, 0.02).mean().item(), abs=1e-10)
    assert torch.equal(plain.intensity_B, ri_info_nce(scores, reasoned, POSITIVES).intensity_B)


def test_no_gradient_reaches_the_reasoning_scores_or_flows_through_the_weights() -> None:
    scores, reasoned = _scores(8).requires_grad_(), _scores(9).requires_grad_()
    found = ri_info_nce(scores, reasoned, POSITIVES)
    found.loss.backward()
    assert reasoned.grad is None
    frozen = found.weight_B.detach()
    other = _scores(8).requires_grad_()
    (frozen * info_nce(other, POSITIVES)).sum().backward()
    assert torch.allclose(scores.grad, other.grad, atol=1e-12)  # type: ignore[arg-type]
