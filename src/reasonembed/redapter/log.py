"""What a training leaves to read: a JSON line a step (`train_log.jsonl`), and one a validation in a file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from reasonembed.files import read_lines, write_jsonl
from reasonembed.redapter.batches import Batch
from reasonembed.redapter.gradcache import StepOutcome


class IntensitySummary(msgspec.Struct, frozen=True):
    """The distribution of reasoning intensity over one batch."""

    min: float
    quartiles: tuple[float, float, float]
    max: float
    clipped_share: float  # of samples at kappa
    effective_samples: float  # 1 / sum of squared weights: how many samples the weighted loss amounts to


class StepRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One optimiser step."""

    step: int  # from 1
    epoch: int
    domain: str
    queries: int
    passages: int
    loss: float  # nats, as optimised
    mean_loss: float  # nats, not weighed by reasoning intensity
    learning_rate: float
    gradient_norm: float  # before clipping
    tokens: int  # real tokens of the step's distinct texts
    padding_share: float
    truncated: int  # texts cut at the limit
    seconds: float
    graph_kept: bool = False  # instead of cached gradients
    terms: dict[str, float] | None = None  # nats, unweighted, on all dimensions: what the loss adds up, if several
    intensity: IntensitySummary | None = None
    intensities: dict[str, float] | None = None  # example_id -> RI

    @property
    def tokens_per_s(self) -> float:
        """Real tokens a second."""
        return self.tokens / self.seconds


class ValidationRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model scored on the validation queries at one point of the training. Scores are fractions."""

    step: int  # optimiser steps done; 0: the base model
    score: float  # mean over domains
    per_domain: dict[str, float]
    seconds: float


class ValidationSummary(msgspec.Struct, frozen=True):
    """What a whole training's validations came to."""

    measure: str
    queries: int
    domains: list[str]
    best_step: int  # the saved weights are those after this step
    best_score: float
    base_score: float  # before the first step
    validations: int
    planned_steps: int
    stopped_early: bool


class Totals(msgspec.Struct, frozen=True):
    """A whole training, summed over its steps."""

    steps: int
    seconds: float
    tokens_per_s: float
    padding_share: float
    truncated: int


def make_record(
    batch: Batch,
    outcome: StepOutcome,
    *,
    step: int,
    learning_rate: float,
    gradient_norm: float,
    truncated: int,
    seconds: float,
    kappa: float,
) -> StepRecord:
    """The line for one step."""
    losses = outcome.losses
    measured = bool(torch.isfinite(losses.intensity_B).all())
    ids = [example.example_id for example in batch.examples]
    return StepRecord(
        step=step,
        epoch=batch.epoch,
        domain=batch.domain,
        queries=len(batch.examples),
        passages=len(batch.examples) * batch.group_size,
        loss=float(losses.loss),
        mean_loss=float(losses.loss_B.mean()),
        learning_rate=learning_rate,
        gradient_norm=gradient_norm,
        tokens=outcome.tokens,
        padding_share=outcome.padding_share,
        truncated=truncated,
        seconds=seconds,
        graph_kept=outcome.graph_kept,
        terms={name: float(term_B.mean()) for name, term_B in losses.terms.items()} or None,
        intensity=summarise(losses.intensity_B, losses.weight_B, kappa) if measured else None,
        intensities=dict(zip(ids, losses.intensity_B.tolist(), strict=True)) if measured else None,
    )


def summarise(intensity_B: torch.Tensor, weight_B: torch.Tensor, kappa: float) -> IntensitySummary:
    """Statistics of one batch's intensities and of the weights that were applied."""
    values = intensity_B.double().cpu()
    q1, median, q3 = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    return IntensitySummary(
        min=float(values.min()),
        quartiles=(q1, median, q3),
        max=float(values.max()),
        clipped_share=float((values >= kappa).double().mean()),
        effective_samples=float(1 / weight_B.double().square().sum()),
    )


class TrainLog:
    """The open log file; a line is on its way to the disk once `add` returns."""

    def __init__(self, path: Path, *, steps_done: int) -> None:
        """Open `path` after `steps_done` steps; lines past them, which a kill leaves, are taken out."""
        self.path = path
        self.records = [record for record in read_log(path) if record.step <= steps_done] if path.exists() else []
        write_jsonl(path, self.records)

    def add(self, record: StepRecord) -> None:
        """Append one step."""
        self.records.append(record)
        with self.path.open("ab") as handle:
            handle.write(msgspec.json.encode(record) + b"\n")


def read_log(path: Path) -> list[StepRecord]:
    """The whole steps of a log; a torn last line, as a kill leaves it, is no step."""
    records = []
    for _, line in read_lines(path):
        try:
            records.append(msgspec.json.decode(line, type=StepRecord))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            break
    return records


def total(records: Sequence[StepRecord]) -> Totals:
    """Sums and means over the steps, weighted as time and tokens ask."""
    tokens = sum(record.tokens for record in records)
    computed = sum(record.tokens / (1 - record.padding_share) for record in records)
    seconds = sum(record.seconds for record in records)
    return Totals(
        steps=len(records),
        seconds=seconds,
        tokens_per_s=tokens / seconds if seconds else 0.0,
        padding_share=1 - tokens / computed if computed else 0.0,
        truncated=sum(record.truncated for record in records),
    )
