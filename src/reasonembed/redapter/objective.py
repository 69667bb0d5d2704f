"""The configured loss of a global batch: which terms, over which passages, weighed by what.

Everything here is a function of the embeddings, so that gradient caching computes it exactly (law 5). A query's
loss is `contrastive + listwise_weight * list-wise + distill_weight * distillation`, averaged over the Matryoshka
dimensions. Reasoning intensity is a property of the sample: it is measured once, by the contrastive term alone, on
the whole vectors, and weighs the sum.

Shapes: B queries of the global batch, C passages as drawn (B groups of G, positive first), U distinct texts, D
dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reasonembed.encoder.microbatch import Rows
from reasonembed.redapter.batches import Batch, annotated_positives, drawn_grades, not_negatives
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.gradcache import BatchTexts
from reasonembed.redapter.loss import (
    WeightedLoss,
    above_positive,
    distillation,
    info_nce,
    list_net,
    multi_positive_info_nce,
    reasoning_intensity,
    truncate,
    weighted_loss,
)


class Targets(NamedTuple):
    """What the batch's passages are to its queries."""

    positive_B: Tensor  # the column of the drawn positive
    group_BG: Tensor  # the columns of the query's own passages
    mask_BC: Tensor | None  # True: no negative of the query
    positive_BC: Tensor | None  # True: a positive of the query; None: the drawn one alone
    grades_BG: Tensor | None  # of its own passages; None where no term reads them

    @property
    def left_out_BC(self) -> Tensor | None:
        """Passages that the contrastive loss does not see at all."""
        if self.mask_BC is None or self.positive_BC is None:
            return self.mask_BC
        return self.mask_BC & ~self.positive_BC


def batch_loss(vectors_UD: Tensor, texts: BatchTexts, batch: Batch, config: TrainConfig, *, step: int) -> WeightedLoss:
    """The configured loss of a whole global batch from the vectors of its distinct texts.

    step: optimiser steps done before this one; RI weights count from `start_step` on.
    """
    scores_BC = _scores(vectors_UD, texts.query_B, texts.passage_C)
    targets = _targets(batch, config, scores_BC)
    reasoning_BC = None
    if texts.reasoning_B is not None:
        with torch.no_grad():
            reasoning_BC = _scores(vectors_UD, texts.reasoning_B, texts.passage_C)
    terms = _terms(scores_BC, reasoning_BC, targets, config)
    views = [terms] + [
        _terms(_scores(truncate(vectors_UD, size), texts.query_B, texts.passage_C), reasoning_BC, targets, config)
        for size in config.matryoshka_dims
        if size != vectors_UD.shape[1]
    ]
    loss_B = torch.stack([_query_loss(view, config) for view in views]).mean(dim=0)
    losses = _weigh(loss_B, terms["contrastive"], reasoning_BC, targets, config, step=step)
    if len(terms) == len(views) == 1:
        return losses
    return losses._replace(terms={name: term_B.detach() for name, term_B in terms.items()})


def _scores(vectors_UD: Tensor, query_B: Rows, passage_C: Rows) -> Tensor:
    device = vectors_UD.device
    return vectors_UD[torch.from_numpy(query_B).to(device)] @ vectors_UD[torch.from_numpy(passage_C).to(device)].T


def _targets(batch: Batch, config: TrainConfig, scores_BC: Tensor) -> Targets:
    device, group_size = scores_BC.device, batch.group_size
    positive_B = torch.arange(len(batch.examples), device=device) * group_size
    group_BG = positive_B.unsqueeze(1) + torch.arange(group_size, device=device)
    mask_BC = torch.from_numpy(not_negatives(batch)).to(device) if config.mask_positives else None
    if config.mask_margin is not None and mask_BC is not None:
        suspect_BC = above_positive(scores_BC, positive_B, margin=config.mask_margin)
        mask_BC = mask_BC | suspect_BC.scatter(1, group_BG, False)  # its own passages are judged: they stay
    return Targets(
        positive_B,
        group_BG,
        mask_BC,
        torch.from_numpy(annotated_positives(batch)).to(device) if config.multi_positive else None,
        torch.from_numpy(drawn_grades(batch)).to(device) if config.listwise_weight else None,
    )


def _terms(scores_BC: Tensor, reasoning_BC: Tensor | None, targets: Targets, config: TrainConfig) -> dict[str, Tensor]:
    """Each term of each query's loss, not yet multiplied by its weight, shape (B,)."""
    terms = {"contrastive": _contrastive(scores_BC, targets, config)}
    temperature = config.temperature
    if targets.grades_BG is not None:  # an own negative that is masked contradicts its grade: it is left out
        mask_BG = None if targets.mask_BC is None else targets.mask_BC.gather(1, targets.group_BG)
        scores_BG = scores_BC.gather(1, targets.group_BG)
        terms["listwise"] = list_net(scores_BG, targets.grades_BG, temperature=temperature, mask_BG=mask_BG)
    if config.distill_weight and reasoning_BC is not None:
        left_out_BC = targets.left_out_BC
        terms["distillation"] = distillation(scores_BC, reasoning_BC, temperature=temperature, left_out_BC=left_out_BC)
    return terms


def _contrastive(scores_BC: Tensor, targets: Targets, config: TrainConfig) -> Tensor:
    if targets.positive_BC is None:
        return info_nce(scores_BC, targets.positive_B, temperature=config.temperature, mask_BC=targets.mask_BC)
    return multi_positive_info_nce(
        scores_BC, targets.positive_BC, temperature=config.temperature, mask_BC=targets.mask_BC
    )


def _query_loss(terms: dict[str, Tensor], config: TrainConfig) -> Tensor:
    loss_B = terms["contrastive"]
    if "listwise" in terms:
        loss_B = loss_B + config.listwise_weight * terms["listwise"]
    if "distillation" in terms:
        loss_B = loss_B + config.distill_weight * terms["distillation"]
    return loss_B


def _weigh(
    loss_B: Tensor,
    contrastive_B: Tensor,
    reasoning_BC: Tensor | None,
    targets: Targets,
    config: TrainConfig,
    *,
    step: int,
) -> WeightedLoss:
    if reasoning_BC is None:
        even_B = torch.full_like(loss_B.detach(), 1 / len(loss_B))
        return WeightedLoss(loss_B.mean(), loss_B.detach(), torch.full_like(even_B, torch.nan), even_B)
    with torch.no_grad():
        reasoning_loss_B = _contrastive(reasoning_BC, targets, config)
    intensity_B = reasoning_intensity(contrastive_B, reasoning_loss_B, kappa=config.kappa, epsilon=config.epsilon)
    return weighted_loss(loss_B, intensity_B, weighted=config.loss == "ri-infonce" and step >= config.start_step)
