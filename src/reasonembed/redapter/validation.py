"""Validation while a model trains: what it scores on queries of its own, which weights were best, when to stop.

The score is that of `reasonembed evaluate` (nDCG@10, exact search, exclusions before the cut, mean over domains),
with the prompts that the trained model is to be used with and texts cut where training cuts them. It is taken before
the first step, every so many steps, and after the last. The weights with the best score are what is saved in the
end; of equal scores, the earlier. Records and best weights are part of each checkpoint, so that a training goes on
exactly (law 6).

Shapes: N texts, D dimension.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reasonembed.beir import Collection
from reasonembed.encoder.model import Encoder
from reasonembed.evaluate.run import evaluate
from reasonembed.files import sha256_json, write_jsonl
from reasonembed.redapter.checkpoint import BEST, SavedWeights, State, load_weights, same_file, save_weights
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.gather import Ranks
from reasonembed.redapter.log import ValidationRecord, ValidationSummary
from reasonembed.redapter.precision import autocast, uses_autocast
from reasonembed.search.systems import DenseSystem

logger = logging.getLogger(__name__)

MEASURE = "nDCG@10"
VALIDATION_LOG = "validation_log.jsonl"
_WINDOW = 32768  # texts whose vectors are gathered at once: bounds what a GPU holds of a large corpus
_FOR_COMPANY = [np.zeros(1, dtype=np.int32)]  # any text, where a process only keeps others company (`Ranks.even`)


class Validation:
    """A training's validations. Without collections none is ever due, and there are no best weights.

    All processes of a training call the same methods in the same order; the first one's scores count for all, so
    that all decide alike. It alone writes: the best weights and the log, in `work`.
    """

    def __init__(
        self,
        collections: Mapping[str, Collection],
        config: TrainConfig,
        *,
        prompts: Mapping[str, str],
        work: Path,
        ranks: Ranks,
        validated: Callable[[ValidationRecord, ValidationRecord], None] | None = None,
    ) -> None:
        """collections: domain -> queries to validate on.  prompts: name -> what precedes a text (`model_prompts`).

        validated: called after each validation with its record and the best so far, in the first process.
        """
        self.collections = collections
        self.records: list[ValidationRecord] = []
        self.best: SavedWeights | None = None  # the first process's
        self.summary: ValidationSummary | None = None  # once the training has ended
        self._config, self._prompts, self._validated = config, prompts, validated
        self.work, self.ranks = work, ranks

    @property
    def out_of_patience(self) -> bool:
        """Whether the last `patience` validations were no better than the best before them."""
        patience = self._config.patience
        return patience is not None and bool(self.records) and without_gain(self.records) >= patience

    @property
    def logs(self) -> list[Path]:
        """The file with a line for each validation, if there is one."""
        return [self.work / VALIDATION_LOG] if self.collections else []

    def due(self, step: int, steps: int) -> bool:
        """Whether to validate after `step` of `steps`: at both ends, and every `validate_every_steps`; never twice."""
        every = self._config.validate_every_steps
        wanted = step in (0, steps) or (every > 0 and step % every == 0)
        return bool(self.collections) and wanted and all(record.step != step for record in self.records)

    def measure(self, encoder: Encoder, step: int, *, budget_tokens: int) -> None:
        """Validate the model as it is after `step`, note the result, and keep its weights if they are the best.

        budget_tokens: tokens that are encoded at once, padding included.
        """
        started = time.perf_counter()
        per_domain = self._scores(encoder, step, budget_tokens)
        mean = sum(per_domain.values()) / len(per_domain)
        record = ValidationRecord(step, mean, per_domain, time.perf_counter() - started)
        self.records.append(record)
        best = best_of(self.records)
        if best is record:
            self.best = save_weights(self.work / BEST, encoder.model, write=self.ranks.first)
        if self.ranks.first:
            self._write_log()
        logger.info("Validated: %s.", standing(record, best))
        if self.ranks.first and self._validated:
            self._validated(record, best)

    def resume(self, checkpoint: Path | None, state: State | None) -> None:
        """Go on from what a checkpoint holds, or from nothing."""
        self.records = list(state.validations) if state else []
        if not (self.collections and self.ranks.first):
            return
        if checkpoint is not None and state is not None and BEST in state.sha256:
            same_file(checkpoint / BEST, self.work / BEST)
            self.best = SavedWeights(self.work / BEST, state.sha256[BEST])
        self._write_log()

    def restore_best(self, encoder: Encoder) -> None:
        """Give the model, whole, its best weights, in the first process."""
        if self.best is None:
            return
        load_weights(self.best.path, encoder.model)
        if (best := best_of(self.records)).step == 0 and len(self.records) > 1:
            logger.warning(
                "No validation was better than the base model's %.4f: the saved weights are the base's. Train with "
                "another learning rate or other data, or look at whether the validation queries suit the data.",
                best.score,
            )

    def end(self, done: int, steps: int) -> None:
        """Sum up, after `done` of `steps`."""
        if not self.records:
            return
        best = best_of(self.records)
        self.summary = ValidationSummary(
            measure=MEASURE,
            queries=sum(len(collection.qrels) for collection in self.collections.values()),
            domains=list(self.collections),
            best_step=best.step,
            best_score=best.score,
            base_score=self.records[0].score,
            validations=len(self.records),
            planned_steps=steps,
            stopped_early=done < steps,
        )
        if done < steps:
            logger.info(
                "Stopped early after step %d of %d: %d validations in a row were no better than %.4f after step %d.",
                done,
                steps,
                without_gain(self.records),
                best.score,
                best.step,
            )

    def _scores(self, encoder: Encoder, step: int, budget_tokens: int) -> dict[str, float]:
        """Domain -> score, the first process's."""
        frozen, encoder.frozen = encoder.frozen, None  # a corpus would crowd out the texts that are trained on
        try:
            bf16 = uses_autocast(self._config, encoder.device.type)
            shared = _SharedEncoder(encoder, self._prompts, self.ranks, budget_tokens, bf16=bf16)
            system = DenseSystem(
                shared, name=f"step {step}", own_prompts=True, max_tokens=_longest(encoder, self._config)
            )
            found = evaluate(system, self.collections, measures=(MEASURE,), k=10).per_domain[MEASURE]
        finally:
            encoder.frozen = frozen
        scores = torch.zeros(len(found), dtype=torch.float64, device=self.ranks.device)
        if self.ranks.first:
            scores += torch.tensor(list(found.values()), dtype=torch.float64, device=self.ranks.device)
        return dict(zip(found, self.ranks.gather_rows(scores).tolist(), strict=True))

    def _write_log(self) -> None:
        write_jsonl(self.work / VALIDATION_LOG, self.records)


def best_of(records: Sequence[ValidationRecord]) -> ValidationRecord:
    """The record with the highest score; of equals, the earliest."""
    return max(records, key=lambda record: record.score)


def without_gain(records: Sequence[ValidationRecord]) -> int:
    """How many validations have passed since the best."""
    return len(records) - 1 - records.index(best_of(records))


def warn_of_idle_patience(config: TrainConfig, steps: int) -> None:
    """Log it if `patience` validations after the first one, which precedes all steps, leave no step to spare."""
    patience, every = config.patience, config.validate_every_steps
    if patience is None or patience * every < steps:
        return
    often_enough = (steps - 1) // patience
    cure = f"Set validate_every_steps to {often_enough} or less" if often_enough else "Train for more steps"
    logger.warning(
        "patience is %d and can end nothing: with validate_every_steps = %d so many validations take %d steps, and %d "
        "are planned. %s, or leave patience out.",
        patience,
        every,
        patience * every,
        steps,
        cure,
    )


def standing(last: ValidationRecord, best: ValidationRecord) -> str:
    """Where the validations stand, in words: the last score, its domains where there are several, the best one."""
    domains = ", ".join(f"{name} {score:.4f}" for name, score in last.per_domain.items())
    apart = f" ({domains})" if len(last.per_domain) > 1 else ""
    return f"{MEASURE} {last.score:.4f}{apart} after step {last.step}, best {best.score:.4f} after step {best.step}"


def validation_hash(collections: Mapping[str, Collection]) -> str:
    """A name for what is validated on; empty for nothing."""
    return sha256_json({name: collection.sha256 for name, collection in collections.items()}) if collections else ""


def _longest(encoder: Encoder, config: TrainConfig) -> int:
    """The longest text in tokens, of queries and documents alike: the longer of training's two limits."""
    limit = max(config.max_query_tokens, config.max_passage_tokens)
    return min(limit, encoder.position_limit or limit)


class _SharedEncoder:
    """The model in training as a dense system takes it: each process encodes its share of the texts."""

    def __init__(
        self, encoder: Encoder, prompts: Mapping[str, str], ranks: Ranks, budget_tokens: int, *, bf16: bool
    ) -> None:
        self.name, self.max_tokens = encoder.name, encoder.max_tokens
        self.dtype, self.dimension = encoder.dtype, encoder.dimension
        self.prompts = prompts
        self._encoder, self._ranks, self._budget_tokens = encoder, ranks, budget_tokens
        self._bf16 = bf16

    def encode(
        self, texts: Sequence[str], *, prompt: str = "", max_tokens: int | None = None
    ) -> npt.NDArray[np.float32]:
        """The vectors of `prompt + text` for each text: float32 (N, D), the same in all processes."""
        parts = [texts[start : start + _WINDOW] for start in range(0, len(texts), _WINDOW)]
        vectors = [self._encode(part, prompt, max_tokens) for part in parts]
        return np.concatenate(vectors) if vectors else np.empty((0, self.dimension), dtype=np.float32)

    def _encode(self, texts: Sequence[str], prompt: str, max_tokens: int | None) -> npt.NDArray[np.float32]:
        own = self._ranks.share(np.arange(len(texts)), np.array([len(text) for text in texts]))
        ids = self._encoder.tokenize([prompt + texts[row] for row in own], max_tokens)
        vectors_ND = torch.zeros(len(texts), self.dimension, device=self._ranks.device)
        planned = self._encoder.micro_batches([len(row) for row in ids], self._budget_tokens)
        for rows in self._ranks.even(planned):
            # no inference mode: sharded weights put together in it could not train
            with torch.no_grad(), autocast(self._encoder.device.type, self._bf16):
                embedded_BD = self._encoder.embed([ids[row] for row in rows] or _FOR_COMPANY)
            vectors_ND[torch.from_numpy(own[rows])] = embedded_BD[: len(rows)].float()
        gathered: npt.NDArray[np.float32] = self._ranks.gather_rows(vectors_ND).cpu().numpy()
        return gathered


__all__ = [
    "MEASURE",
    "VALIDATION_LOG",
    "Validation",
    "best_of",
    "standing",
    "validation_hash",
    "warn_of_idle_patience",
    "without_gain",
]
