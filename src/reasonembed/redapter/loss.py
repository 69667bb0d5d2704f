"""The losses of Redapter as pure functions on tensors, for any trainer (paper, Sec. 3.2; PAPER.md section 2).

Shapes: B queries of the global batch, C passages in it (every query's own positive and negatives, those of
the other queries too). Scores are cosine similarities; losses are in nats. `mask_BC` is True where a passage
is not to count as a negative of a query; the positive's own column is never masked.
"""

from __future__ import annotations

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


def info_nce(
    scores_BC: Tensor, positive_B: Tensor, *, temperature: float = TEMPERATURE, mask_BC: Tensor | None = None
) -> Tensor:
    """Contrastive loss of each query, in nats, shape (B,); not averaged, so that the caller can weight it.

    positive_B: int64, the column of each query's positive.  temperature: divides the scores.
    Computed as log(1 + sum over negatives of exp((s_negative - s_positive) / temperature)), which keeps its
    precision where the loss is tiny: reasoning intensity divides by it. No negative left: the loss is 0.
    Raises ValueError if temperature <= 0.  Source: van den Oord et al. 2018 (arXiv:1807.03748), Eq. 4.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0 (the paper uses {TEMPERATURE}).")
    own_BC = torch.zeros_like(scores_BC, dtype=torch.bool).scatter_(1, positive_B.unsqueeze(1), True)
    left_out_BC = own_BC if mask_BC is None else own_BC | mask_BC
    positive_scores_B1 = scores_BC.gather(1, positive_B.unsqueeze(1))
    margins_BC = ((scores_BC - positive_scores_B1) / temperature).masked_fill(left_out_BC, -torch.inf)
    hardness_B = margins_BC.logsumexp(dim=1)
    return torch.logaddexp(hardness_B, torch.zeros_like(hardness_B))


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
    weight_B = ri_weights(intensity_B if weighted else torch.ones_like(intensity_B))
    return WeightedLoss((weight_B * loss_B).sum(), loss_B.detach(), intensity_B, weight_B)
