"""The losses equal their definitions in the paper and in its release, recomputed here directly."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from reasonembed.redapter.loss import (
    above_positive,
    distillation,
    info_nce,
    list_net,
    multi_positive_info_nce,
    reasoning_intensity,
    ri_info_nce,
    ri_weights,
    truncate,
)


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


def test_several_positives_by_hand() -> None:
    """Positives at 0.5 and 0.1, one negative at 0.3, temperature 0.1: log(1 + e^-2) and log(1 + e^2), averaged."""
    scores = torch.tensor([[0.5, 0.1, 0.3]], dtype=torch.float64)
    found = multi_positive_info_nce(scores, torch.tensor([[True, True, False]]), temperature=0.1)
    assert found.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2, abs=1e-12)


def test_each_positive_meets_the_negatives_alone() -> None:
    """The mean over positives of plain InfoNCE on that positive and the negatives, by the tested function."""
    scores = _scores(10, 2, 6)
    positives = torch.tensor([[1, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]], dtype=torch.bool)
    mask = torch.tensor([[0, 1, 0, 1, 0, 0], [1, 0, 1, 0, 0, 0]], dtype=torch.bool)
    negatives = [[2, 5], [1, 3, 4, 5]]
    for row, found in enumerate(multi_positive_info_nce(scores, positives, mask_BC=mask)):
        parts = [
            info_nce(scores[row : row + 1, [int(column), *negatives[row]]], torch.tensor([0]))
            for column in positives[row].nonzero().flatten()
        ]
        assert found.item() == pytest.approx(torch.cat(parts).mean().item(), abs=1e-10)


def test_with_one_positive_a_query_it_is_info_nce_with_its_gradient() -> None:
    mask = torch.zeros(6, 24, dtype=torch.bool)
    mask[:, 5:9] = True
    scores, other = _scores(11).requires_grad_(), _scores(11).requires_grad_()
    positives = torch.zeros(6, 24, dtype=torch.bool).scatter(1, POSITIVES.unsqueeze(1), True)
    several = multi_positive_info_nce(scores, positives, mask_BC=mask)
    single = info_nce(other, POSITIVES, mask_BC=mask)
    assert torch.allclose(several, single, rtol=0, atol=1e-10)
    several.sum().backward()
    single.sum().backward()
    assert torch.allclose(scores.grad, other.grad, rtol=0, atol=1e-10)  # type: ignore[arg-type]


def test_positives_do_not_repel_each_other() -> None:
    """Raising one positive's score leaves the other's gradient as it was: SupCon would push it down."""
    scores = torch.tensor([[0.9, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    higher = torch.tensor([[0.99, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    for one in (scores, higher):
        multi_positive_info_nce(one, torch.tensor([[True, True, False]]), temperature=0.1).sum().backward()
    assert scores.grad is not None and higher.grad is not None
    assert scores.grad[0, 1] == higher.grad[0, 1] < 0
    assert (scores.grad[0, :2] <= 0).all()


def test_several_positives_without_a_negative_cost_nothing() -> None:
    scores = torch.tensor([[0.3, 0.9]], requires_grad=True)
    loss = multi_positive_info_nce(scores, torch.tensor([[True, True]]))
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert scores.grad is not None and scores.grad.tolist() == [[0.0, 0.0]]


def test_what_scores_above_the_positive_by_more_than_the_margin_is_found() -> None:
    scores = torch.tensor([[0.5, 0.6, 0.75, 0.1], [0.9, 0.9, 0.2, 0.875]], requires_grad=True)
    found = above_positive(scores, torch.tensor([0, 3]), margin=0.125)
    assert found.tolist() == [[False, False, True, False], [False, False, False, False]]
    assert above_positive(scores, torch.tensor([0, 3]), margin=0.0)[1].tolist() == [True, True, False, False]
    assert not above_positive(scores, torch.tensor([0, 3]), margin=2.0).any(), "no two cosines are further apart"


def test_list_net_by_hand() -> None:
    """Grades 4 and 2, equal scores: softmax(4, 2) against (1/2, 1/2) is log 2, whatever the grades."""
    even = list_net(torch.tensor([[0.4, 0.4]]), torch.tensor([[4, 2]]))
    assert even.item() == pytest.approx(math.log(2), abs=1e-6)
    best = 1 / (1 + math.exp(-2))
    found = list_net(torch.tensor([[0.5, 0.3]], dtype=torch.float64), torch.tensor([[4, 2]]), temperature=0.1)
    entropy = -best * math.log(best) - (1 - best) * math.log(1 - best)
    assert found.item() == pytest.approx(entropy, abs=1e-12), "scores whose ratio is the grades': the least there is"


def test_list_net_is_cross_entropy_with_soft_targets_with_its_gradient() -> None:
    grades = torch.tensor([[5, 1, 2, 1], [3, 2, 2, 1]])
    scores, other = _scores(12, 2, 4).requires_grad_(), _scores(12, 2, 4).requires_grad_()
    found = list_net(scores, grades, temperature=0.3)
    expected = torch.nn.functional.cross_entropy(other / 0.3, grades.double().softmax(dim=1), reduction="none")
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    found.sum().backward()
    expected.sum().backward()
    assert torch.allclose(scores.grad, other.grad, rtol=0, atol=1e-12)  # type: ignore[arg-type]


def test_distillation_is_the_kl_divergence_of_torch() -> None:
    scores, reasoned = _scores(13), _scores(14)
    expected = torch.nn.functional.kl_div(
        (scores / 0.3).log_softmax(1), (reasoned / 0.3).log_softmax(1), log_target=True, reduction="none"
    ).sum(1)
    assert torch.allclose(distillation(scores, reasoned, temperature=0.3), expected, rtol=0, atol=1e-12)
    assert distillation(scores, scores).abs().max() < 1e-12


def test_distillation_by_hand_and_the_teacher_learns_nothing() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): KL = 3/4 log 3/2 + 1/4 log 1/2."""
    teacher = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64, requires_grad=True)
    student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    found = distillation(student, teacher, temperature=1.0)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-12)
    found.sum().backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad.tolist() == [pytest.approx([0.5 - 0.75, 0.5 - 0.25])]


def test_what_is_left_out_of_a_list_or_a_distribution_might_as_well_not_be_there() -> None:
    scores, reasoned = _scores(15, 3, 6).requires_grad_(), _scores(16, 3, 6)
    out = torch.zeros(3, 6, dtype=torch.bool)
    out[:, 4:] = True
    grades = torch.tensor([[5, 1, 2, 1, 5, 5]]).expand(3, 6)
    for whole, part in (
        (distillation(scores, reasoned, left_out_BC=out), distillation(scores[:, :4], reasoned[:, :4])),
        (list_net(scores, grades, mask_BG=out), list_net(scores[:, :4], grades[:, :4])),
    ):
        assert torch.allclose(whole, part, rtol=0, atol=1e-12)
        (gradient,) = torch.autograd.grad(whole.sum(), scores)
        assert torch.isfinite(gradient).all() and not gradient[:, 4:].any()


@pytest.mark.parametrize("term", ["several positives", "list", "distillation"])
def test_the_gradient_of_every_option_agrees_with_finite_differences(term: str) -> None:
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0, 3:] = True
    positives = torch.zeros(3, 6, dtype=torch.bool)
    positives[:, 0] = positives[1, 2] = True
    grades = torch.tensor([[4, 1, 2, 2, 1, 1]]).expand(3, 6)
    reasoned = _scores(17, 3, 6)

    def loss(scores: Tensor) -> Tensor:
        if term == "several positives":
            return multi_positive_info_nce(scores, positives, temperature=0.3, mask_BC=mask)
        if term == "list":
            return list_net(scores, grades, temperature=0.3, mask_BG=mask)
        return distillation(scores, reasoned, temperature=0.3, left_out_BC=mask)

    assert torch.autograd.gradcheck(loss, (_scores(18, 3, 6).requires_grad_(),))


def test_truncated_vectors_are_the_first_dimensions_at_unit_length() -> None:
    vectors = torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], dtype=torch.float64)
    assert truncate(vectors, 1).tolist() == [[1.0], [0.0]], "nothing is left of a vector that is zero there"
    assert torch.allclose(truncate(torch.tensor([[3.0, 4.0, 12.0]]) / 13, 2), torch.tensor([[0.6, 0.8]]))
    assert truncate(vectors, 3) is vectors
    for wrong in (0, 4):
        with pytest.raises(ValueError, match=f"{wrong} dimensions of vectors that have 3"):
            truncate(vectors, wrong)


@pytest.mark.parametrize("term", ["several positives", "list", "distillation"])
def test_every_option_refuses_a_temperature_of_zero(term: str) -> None:
    scores = _scores(0, 1, 2)
    with pytest.raises(ValueError, match="above 0"):
        if term == "several positives":
            multi_positive_info_nce(scores, torch.tensor([[True, False]]), temperature=0)
        elif term == "list":
            list_net(scores, torch.tensor([[5, 1]]), temperature=0)
        else:
            distillation(scores, scores, temperature=0)
