"""The losses of Redapter as pure functions on tensors, for any trainer (paper, Sec. 3.2; PAPER.md section 2).

Shapes: B queries of the global batch, C passages in it (every query's own positive and negatives, those of
the other queries too), G passages of one query's own group, D dimensions, U vectors. Scores are cosine
similarities; losses are in nats, one for each query, so that the caller can weight them. `mask_BC` is True
where a passage is not to count as a negative of a query; the positive's own column is never masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from reasonembed.redapter.config import EPSILON, KAPPA, TEMPERATURE


class WeightedLoss(NamedTuple):
    """A batch's loss and what it was made of. Only `loss` carries a gradient."""

    loss: Tensor  # scalar: the sum of weight_B * loss_B
    loss_B: Tensor
    intensity_B: Tensor
    weight_B: Tensor  # sums to 1
    terms: Mapping[str, Tensor] = MappingProxyType({})  # what `loss_B` sums, where it is more than one: (B,) each


def info_nce(
    scores_BC: Tensor, positive_B: Tensor, *, temperature: float = TEMPERATURE, mask_BC: Tensor | None = None
) -> Tensor:
    """Contrastive loss of each query, in nats, shape (B,); not averaged, so that the caller can weight it.

    positive_B: int64, the column of each query's positive.  temperature: divides the scores.
    Computed as log(1 + sum over negatives of exp((s_negative - s_positive) / temperature)), which keeps its
    precision where the loss is tiny: reasoning intensity divides by it. No negative left: the loss is 0.
    Raises ValueError if temperature <= 0.  Source: van den Oord et al. 2018 (arXiv:1807.03748), Eq. 4.
    """
    _require_positive(temperature)
    own_BC = torch.zeros_like(scores_BC, dtype=torch.bool).scatter_(1, positive_B.unsqueeze(1), True)
    left_out_BC = own_BC if mask_BC is None else own_BC | mask_BC
    positive_scores_B1 = scores_BC.gather(1, positive_B.unsqueeze(1))
    margins_BC = ((scores_BC - positive_scores_B1) / temperature).masked_fill(left_out_BC, -torch.inf)
    hardness_B = margins_BC.logsumexp(dim=1)
    return torch.logaddexp(hardness_B, torch.zeros_like(hardness_B))


def multi_positive_info_nce(
    scores_BC: Tensor, positive_BC: Tensor, *, temperature: float = TEMPERATURE, mask_BC: Tensor | None = None
) -> Tensor:
    """Contrastive loss of queries with several positives, shape (B,): the mean over a query's positives of InfoNCE
    with that positive against the negatives alone.

    positive_BC: bool, at least one True in each row; a positive is no negative, masked or not. With one positive
    a row it is `info_nce`.  Source: SINCERE, Feeney and Hughes 2023 (arXiv:2309.14277), with a query as anchor.
    Why this form: SupCon (Khosla et al. 2020, arXiv:2004.11362, Eq. 2) keeps the other positives in the
    denominator, where they repel each other, which law 1 forbids; the sum over positives inside the logarithm
    (MIL-NCE, Miech et al. 2020, arXiv:1912.06430) is content with one positive, and ours are each judged.
    """
    _require_positive(temperature)
    scaled_BC = scores_BC / temperature
    left_out_BC = positive_BC if mask_BC is None else positive_BC | mask_BC
    negatives_B1 = scaled_BC.masked_fill(left_out_BC, -torch.inf).logsumexp(dim=1, keepdim=True)
    margin_BC = (negatives_B1 - scaled_BC).masked_fill(~positive_BC, -torch.inf)
    return torch.logaddexp(margin_BC, torch.zeros_like(margin_BC)).sum(dim=1) / positive_BC.sum(dim=1)


def above_positive(scores_BC: Tensor, positive_B: Tensor, *, margin: float) -> Tensor:
    """Which passages score above the query's positive by more than `margin`, bool, shape (B, C): likely positives that
    nobody annotated, to be joined to a mask. No gradient.

    Source: Qwen3 Embedding (arXiv:2506.05176, Sec. 3; margin 0.1).
    """
    positive_scores_B1 = scores_BC.detach().gather(1, positive_B.unsqueeze(1))
    return scores_BC.detach() > positive_scores_B1 + margin


def list_net(
    scores_BG: Tensor, grades_BG: Tensor, *, temperature: float = TEMPERATURE, mask_BG: Tensor | None = None
) -> Tensor:
    """List-wise loss on grades, shape (B,): cross entropy from softmax(grades) to softmax(scores / temperature).

    grades_BG: of the same passages, 1 to 5. A grade more makes a passage e times as likely to be the best. Its
    least value is the entropy of softmax(grades), not 0.  mask_BG: True for a passage to leave out of the list.
    Source: ListNet with top-one probabilities, Cao et al. 2007 (ICML).
    """
    _require_positive(temperature)
    left_out_BG = torch.zeros_like(scores_BG, dtype=torch.bool) if mask_BG is None else mask_BG
    target_BG = grades_BG.to(scores_BG.dtype).masked_fill(left_out_BG, -torch.inf).softmax(dim=1)
    found_BG = (scores_BG / temperature).masked_fill(left_out_BG, -torch.inf).log_softmax(dim=1)
    return -(target_BG * found_BG.masked_fill(left_out_BG, 0.0)).sum(dim=1)


def distillation(
    scores_BC: Tensor,
    reasoning_scores_BC: Tensor,
    *,
    temperature: float = TEMPERATURE,
    left_out_BC: Tensor | None = None,
) -> Tensor:
    """How far a query's ranking is from its reasoning query's, shape (B,): KL(softmax of reasoning scores || softmax of
    scores), both divided by `temperature`. The reasoning scores carry no gradient.

    left_out_BC: True for passages that take no part.  Source: Hinton et al. 2015 (arXiv:1503.02531), Sec. 2; the
    teacher is the model itself on the query thought through. Our choice: one temperature, and no factor for it.
    """
    _require_positive(temperature)
    out_BC = torch.zeros_like(scores_BC, dtype=torch.bool) if left_out_BC is None else left_out_BC
    teacher_BC = (reasoning_scores_BC.detach() / temperature).masked_fill(out_BC, -torch.inf).log_softmax(dim=1)
    student_BC = (scores_BC / temperature).masked_fill(out_BC, -torch.inf).log_softmax(dim=1)
    return (teacher_BC.exp() * (teacher_BC - student_BC).masked_fill(out_BC, 0.0)).sum(dim=1)


def truncate(vectors_UD: Tensor, dimensions: int) -> Tensor:
    """The first `dimensions` of each vector, at unit length again; all of them come back as they are.

    Source: Matryoshka representation learning, Kusupati et al. 2022 (arXiv:2205.13147), Eq. 1.
    Raises ValueError for more dimensions than there are, or none.
    """
    if not 1 <= dimensions <= vectors_UD.shape[1]:
        raise ValueError(f"{dimensions} dimensions of vectors that have {vectors_UD.shape[1]}; choose 1 to that many.")
    if dimensions == vectors_UD.shape[1]:
        return vectors_UD
    return torch.nn.functional.normalize(vectors_UD[:, :dimensions], dim=1)


def reasoning_intensity(
    loss_B: Tensor, reasoning_loss_B: Tensor, *, kappa: float = KAPPA, epsilon: float = EPSILON
) -> Tensor:
    """RI = min(L(q, D) / (L(q', D) + epsilon), kappa) of each sample, shape (B,); carries no gradient.

    loss_B, reasoning_loss_B: InfoNCE of the query and of its reasoning query over the same passages. It grows
    where thinking the query through would have helped.  Source: the paper, Sec. 3.2; epsilon: the release.
    """
    with torch.no_grad():
        return (loss_B / (reasoning_loss_B + epsilon)).clamp(0, kappa)


def ri_weights(intensity_B: Tensor) -> Tensor:
    """w(s) = RI(s) / sum of RI over the global batch, shape (B,); equal weights if every intensity is 0.

    Deviation from the release, which normalises per device and forward pass: here B is the global batch.
    """
    total = intensity_B.sum()
    even_B = torch.full_like(intensity_B, 1 / len(intensity_B))
    return torch.where(total > 0, intensity_B / total.clamp(min=torch.finfo(intensity_B.dtype).tiny), even_B)


def ri_info_nce(
    scores_BC: Tensor,
    reasoning_scores_BC: Tensor,
    positive_B: Tensor,
    *,
    temperature: float = TEMPERATURE,
    kappa: float = KAPPA,
    epsilon: float = EPSILON,
    mask_BC: Tensor | None = None,
    weighted: bool = True,
) -> WeightedLoss:
    """RI-InfoNCE of a global batch: the sum over its samples of w(s) * L(q, D).

    reasoning_scores_BC: of the reasoning queries with the same passages; no gradient flows into them.
    weighted: False gives the plain mean (the paper's first `start_step` steps) and still measures intensity.
    """
    loss_B = info_nce(scores_BC, positive_B, temperature=temperature, mask_BC=mask_BC)
    with torch.no_grad():
        reasoning_loss_B = info_nce(reasoning_scores_BC, positive_B, temperature=temperature, mask_BC=mask_BC)
    intensity_B = reasoning_intensity(loss_B, reasoning_loss_B, kappa=kappa, epsilon=epsilon)
    return weighted_loss(loss_B, intensity_B, weighted=weighted)


def weighted_loss(loss_B: Tensor, intensity_B: Tensor, *, weighted: bool = True) -> WeightedLoss:
    """The sum over a global batch of w(s) times any loss of each query; `weighted` False: its plain mean."""
    weight_B = ri_weights(intensity_B if weighted else torch.ones_like(intensity_B))
    return WeightedLoss((weight_B * loss_B).sum(), loss_B.detach(), intensity_B, weight_B)


def _require_positive(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0 (the paper uses {TEMPERATURE}).")
