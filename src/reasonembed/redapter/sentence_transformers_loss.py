"""RI-InfoNCE as a loss of sentence-transformers, for those who keep their own trainer.

The value is `ri_info_nce`'s on the batch that the trainer hands over. What this loop does beyond it (weights over all
devices and micro-steps, gradient caching, no computing on padding) stays with `reasonembed.train`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import TrainerCallback

from reasonembed.redapter.config import EPSILON, KAPPA, TEMPERATURE
from reasonembed.redapter.loss import ri_info_nce

Features = dict[str, Tensor]


class RiInfoNceLoss(nn.Module):
    """RI-InfoNCE (arXiv:2510.08252, Sec. 3.2) for `SentenceTransformerTrainer`: hard queries that thinking helps count
    for more.

    Columns of the data set, in this order, no labels:
    `anchor`, `positive`, `negative_1` ... `negative_n`, `reasoning_query`.
    The order counts, the names do not. The reasoning query is encoded without gradient; give it the anchor's
    prompt (`prompts={"anchor": p, "reasoning_query": p}` in the training arguments).

        loss = RiInfoNceLoss(model, negatives=2)
        SentenceTransformerTrainer(model, args, train_dataset, loss=loss, callbacks=[loss.callback])

    Deviation from `reasonembed.train`, as in the release: intensity is weighed within one forward pass on one device.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        negatives: int,
        temperature: float = TEMPERATURE,
        kappa: float = KAPPA,
        epsilon: float = EPSILON,
        start_step: int = 100,
        mask_equal: bool = True,
    ) -> None:
        """negatives: the number n of negative columns, so that a forgotten reasoning query is an error.

        temperature, kappa, epsilon: as in `TrainConfig`.  start_step: optimiser steps with the plain mean first; above
        0 the trainer needs `callbacks=[loss.callback]`, which follows it through accumulation and resume.
        mask_equal: a passage with the tokens of a query's positive is no negative of it.
        """
        super().__init__()
        self.model = model
        self.negatives = negatives
        self.temperature = temperature
        self.kappa = kappa
        self.epsilon = epsilon
        self.start_step = start_step
        self.mask_equal = mask_equal
        self.step: int | None = None  # optimiser steps done, as the callback reads them

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of one batch, a scalar in nats. Raises ValueError for another number of columns."""
        columns = list(sentence_features)
        if len(columns) != self.negatives + 3:
            raise ValueError(
                f"the data set has {len(columns)} columns; anchor, positive, {self.negatives} negatives and the "
                f"reasoning query make {self.negatives + 3}. Mend the data set, or negatives={self.negatives}."
            )
        anchor, *passages, reasoning = columns
        equal_BC = _equal_to_positive(passages) if self.mask_equal else None  # before the model adds to the features
        query_BD = self._embed(anchor)
        passages_CD = torch.cat([self._embed(column) for column in passages])  # all positives, then all first negatives
        with torch.no_grad():
            reasoning_BD = self._embed(reasoning)
        return ri_info_nce(
            query_BD @ passages_CD.T,
            reasoning_BD @ passages_CD.T.detach(),
            torch.arange(len(query_BD), device=query_BD.device),
            temperature=self.temperature,
            kappa=self.kappa,
            epsilon=self.epsilon,
            mask_BC=equal_BC,
            weighted=self._weights_count(),
        ).loss

    @property
    def callback(self) -> TrainerCallback:
        """What tells this loss the trainer's step: give it to the trainer."""
        return _StepCallback(self)

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card that sentence-transformers writes."""
        keys = ("negatives", "temperature", "kappa", "epsilon", "start_step", "mask_equal")
        return {key: getattr(self, key) for key in keys}

    @property
    def citation(self) -> str:
        """BibTeX, for the same card."""
        return (
            "@misc{reasonembed,\n"
            "    title={ReasonEmbed: Enhanced Text Embeddings for Reasoning-Intensive Document Retrieval},\n"
            "    year={2025},\n    eprint={2510.08252},\n    archivePrefix={arXiv},\n}\n"
        )

    def _embed(self, features: Features) -> Tensor:
        return normalize(self.model(features)["sentence_embedding"], dim=1)

    def _weights_count(self) -> bool:
        if self.start_step == 0:
            return True
        if self.step is None and self.model.training:
            raise RuntimeError(
                f"start_step is {self.start_step} and nobody counts the steps. Give the trainer "
                f"callbacks=[loss.callback], or set start_step=0."
            )
        return self.step is not None and self.step >= self.start_step


class _StepCallback(TrainerCallback):
    """Reads the trainer's count of optimiser steps, which its checkpoints keep."""

    def __init__(self, loss: RiInfoNceLoss) -> None:
        self.loss = loss

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.loss.step = state.global_step


def _equal_to_positive(passages: list[Features]) -> Tensor:
    """Where a passage has the very tokens of a query's positive, bool, shape (B, C); at the positive too, which no
    mask takes away.
    """
    if any("input_ids" not in column or "attention_mask" not in column for column in passages):
        raise ValueError("the model takes no token ids, so equal texts cannot be found. Set mask_equal=False.")
    texts = [
        tuple(row[kept].tolist())
        for column in passages
        for row, kept in zip(column["input_ids"].cpu(), column["attention_mask"].bool().cpu(), strict=True)
    ]
    positives = texts[: len(passages[0]["input_ids"])]
    rows = [[text == positive for text in texts] for positive in positives]
    return torch.tensor(rows, device=passages[0]["input_ids"].device)
