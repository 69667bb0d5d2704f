"""Training: one explicit loop over one-domain global batches, each one optimiser step (paper, Sec. 3.2, 4.1).

`OUT.training/` holds the checkpoints and the log while it runs; `OUT/`, a sentence-transformers folder,
appears when it is done. Running the same call again goes on from the last checkpoint, or finds the work done.
Under `torchrun` or `accelerate launch` every process runs this loop; the first alone writes and speaks.
"""

from __future__ import annotations

import logging
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from reasonembed.beir import Collection
from reasonembed.encoder.frozen import FrozenStates
from reasonembed.encoder.lora import layer_stack
from reasonembed.errors import InputError, ReasonEmbedError, StorageError
from reasonembed.files import sha256_json, write_json
from reasonembed.redapter.batches import Batch, epoch_batches
from reasonembed.redapter.checkpoint import newest_checkpoint, restore, save_checkpoint, trained_weights
from reasonembed.redapter.compiling import run_eagerly
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample, from_examples, read_released
from reasonembed.redapter.gather import join_ranks
from reasonembed.redapter.gradcache import BatchTexts, StepOutcome, cached_backward, tokenize_batch
from reasonembed.redapter.log import StepRecord, TrainLog, ValidationRecord, make_record, total
from reasonembed.redapter.objective import batch_loss
from reasonembed.redapter.optimizer import learning_rate_at, take_step
from reasonembed.redapter.precision import float32_products
from reasonembed.redapter.prefetch import ahead
from reasonembed.redapter.prepare import Training, check_data, prepare, with_weights
from reasonembed.redapter.receipt import make_receipt, read_manifest, refuse_change
from reasonembed.redapter.result import LOG_FILE, TrainResult, model_prompts, save_result
from reasonembed.redapter.sharding import whole_tensors
from reasonembed.redapter.stop import TrainingStopped, stop_signals
from reasonembed.redapter.validation import Validation, validation_hash, warn_of_idle_patience

__all__ = [
    "LOG_FILE",
    "StepRecord",
    "TrainConfig",
    "TrainResult",
    "TrainingExample",
    "TrainingStopped",
    "from_examples",
    "model_prompts",
    "read_released",
    "train",
]

logger = logging.getLogger(__name__)


def train(
    examples: Sequence[TrainingExample],
    base: str | Path,
    out_folder: Path | str,
    config: TrainConfig | None = None,
    *,
    validation: Mapping[str, Collection] | None = None,
    resume: bool = True,
    keep_work: bool = False,
    frozen: FrozenStates | None = None,
    progress: Callable[[StepRecord, int], None] | None = None,
    validated: Callable[[ValidationRecord, ValidationRecord], None] | None = None,
) -> TrainResult:
    """Train `base` on `examples` and leave the model in `out_folder`.

    validation: domain -> queries that choose the weights that are saved, and may end the training (`patience`);
    without any, the last weights are saved.
    resume: go on from the last checkpoint of the same training, or return at once if it is finished; False
    discards both.  keep_work: leave checkpoints and log in `out_folder`.training afterwards.
    frozen: what the frozen layers made of texts in an earlier training from the same base with the same
    `train_layers`; it grows.  progress: called after each step with its record and the number of steps in all; of
    several processes, in the first alone.  validated: so too, after each validation with its record and the best.
    Raises InputError for data that cannot be trained on, StageChanged if what stands there was made
    otherwise, TrainingStopped after SIGTERM or Ctrl-C, ReasonEmbedError if the loss is not finite, memory does not
    suffice, or another process is gone.
    """
    config = config or TrainConfig()
    out = Path(out_folder)
    work = out.with_name(out.name + ".training")
    collections = validation or {}
    check_data(examples, config, collections)
    receipt = make_receipt(examples, base, config, validation_hash=validation_hash(collections))
    ranks = join_ranks(shard=config.shard)
    manifest = read_manifest(out)
    if not resume:
        if ranks.first:
            shutil.rmtree(work, ignore_errors=True)
    elif manifest is not None:
        refuse_change(manifest.receipt, receipt, where=out)
        return TrainResult(out, out / LOG_FILE, manifest.totals, manifest.validation)
    prompts = model_prompts(examples, config)
    course = Validation(collections, config, prompts=prompts, work=work, ranks=ranks, validated=validated)
    with float32_products(config.matmul_precision):
        training = prepare(base, config, receipt, frozen, course)
        log = _run(training, examples, progress)
    training.base_share.mix(training.encoder.model)
    weights = None
    if ranks.sharded or config.keeps_base_coarse:
        weights = whole_tensors(trained_weights(training.encoder.model), keep=ranks.first)
    if log:
        encoder = with_weights(base, config, weights) if weights else training.encoder
        encoder.frozen = None  # from here on the model is a model like any other
        encoder.unpack()
        if config.compile:
            run_eagerly(layer_stack(encoder.model))
        totals = total(log.records)
        if totals.truncated:
            logger.warning("%d texts were longer than the limit and were cut (counted at each use).", totals.truncated)
        course.restore_best(encoder)
        logs = [log.path, *course.logs]
        save_result(encoder, out, examples, config, receipt, totals, logs, validation=course.summary)
        if not keep_work:
            shutil.rmtree(work, ignore_errors=True)
    ranks.wait()
    saved = read_manifest(out)
    assert saved is not None, "the first process wrote it, and all see one disk"
    return TrainResult(out, out / LOG_FILE, saved.totals, saved.validation)


def _run(
    training: Training,
    examples: Sequence[TrainingExample],
    progress: Callable[[StepRecord, int], None] | None,
) -> TrainLog | None:
    """The loop: from the last checkpoint, or the beginning, to the last step, or the end of patience.

    The log is the first process's.
    """
    config, ranks = training.config, training.ranks
    per_epoch = len(_batches(examples, config, epoch=0))
    steps = per_epoch * config.epochs
    done = _resume(training)
    log = TrainLog(training.work / LOG_FILE, steps_done=done) if ranks.first else None
    if ranks.first:
        warn_of_idle_patience(config, steps)
    with stop_signals() as caught:
        _validate(training, done, steps)
        coming = _batches_from(examples, config, done, per_epoch)
        for batch, texts in ahead(coming, lambda batch: tokenize_batch(training.encoder, batch, config)):
            if training.validation.out_of_patience:
                break
            rate = learning_rate_at(done, steps, config)
            record = train_step(training, batch, texts, step=done, learning_rate=rate)
            done += 1
            if log:
                log.add(record)
            if log and progress:
                progress(record, steps)
            _validate(training, done, steps)
            stopped = ranks.largest(caught[0] if caught else 0)  # any process's signal stops all
            due = config.checkpoint_every_steps and done % config.checkpoint_every_steps == 0
            if stopped or (due and done < steps):
                _save_checkpoint(training, done)
            if stopped:
                raise TrainingStopped(
                    f"stopped by {signal.Signals(stopped).name} after step {done} of {steps}; the same command "
                    f"goes on from there."
                )
    training.validation.end(done, steps)
    return log


def _validate(training: Training, step: int, steps: int) -> None:
    """Validate after `step` of `steps` if it is due: what would be saved of the model as it is."""
    if training.validation.due(step, steps):
        with training.base_share.mixed(training.encoder.model):
            training.validation.measure(training.encoder, step, budget_tokens=training.memory.budget_tokens)


def train_step(training: Training, batch: Batch, texts: BatchTexts, *, step: int, learning_rate: float) -> StepRecord:
    """One optimiser step on one global batch, of which `texts` are the tokens; `step` counts the steps before it."""
    started = time.perf_counter()
    config, ranks = training.config, training.ranks
    outcome = _gradient(training, texts, batch, step=step)
    norm = math.nan
    if not ranks.largest(not math.isfinite(float(outcome.losses.loss))):
        model, clip = training.encoder.model, config.gradient_clip
        norm = take_step(training.optimizer, model, learning_rate, clip=clip, ranks=ranks)
    if not math.isfinite(norm):
        _stop_diverged(training, batch, outcome.losses.loss_B.tolist(), norm, step=step)
    return make_record(
        batch,
        outcome,
        step=step + 1,
        learning_rate=learning_rate,
        gradient_norm=norm,
        truncated=texts.truncated,
        seconds=time.perf_counter() - started,
        kappa=config.kappa,
    )


def _gradient(training: Training, texts: BatchTexts, batch: Batch, *, step: int) -> StepOutcome:
    """Embed all U texts, take the loss on the vectors, hand its gradient on to the weights; where memory runs out,
    once more in smaller pieces.
    """
    config, memory = training.config, training.memory
    while True:
        try:
            with training.dropout.acting(step) as draws:
                return cached_backward(
                    training.encoder,
                    texts,
                    lambda vectors_UD: batch_loss(vectors_UD, texts, batch, config, step=step),
                    budget_tokens=memory.budget_tokens,
                    graph_bytes=memory.graph_bytes,
                    bf16=training.bf16,
                    ranks=training.ranks,
                    draws=draws,
                )
        except torch.OutOfMemoryError as error:
            if training.ranks.sharded:
                raise ReasonEmbedError(
                    f"memory ran out, and with sharded weights the step cannot be repeated in smaller pieces while the "
                    f"other processes wait. Lower micro_batch_tokens, which is {memory.budget_tokens:,}, or set "
                    f"activation_checkpointing; the same command goes on from the last checkpoint."
                ) from error
            # what the attempt holds is let go with the exception: the next one starts after this block
        training.optimizer.zero_grad(set_to_none=True)
        memory.halve(longest_tokens=max(len(row) for row in texts.ids))
        if training.ranks.first:
            logger.warning(
                "Memory ran out at step %d; from here on micro-batches have %d tokens and no graph is kept.",
                step + 1,
                memory.budget_tokens,
            )


def _batches(examples: Sequence[TrainingExample], config: TrainConfig, epoch: int) -> list[Batch]:
    return epoch_batches(
        examples,
        seed=config.seed,
        epoch=epoch,
        group_size=config.group_size,
        global_queries=config.global_queries,
        domain_weights=config.domain_weights,
    )


def _batches_from(
    examples: Sequence[TrainingExample], config: TrainConfig, done: int, per_epoch: int
) -> Iterator[Batch]:
    """The batches of all epochs but for the first `done`."""
    for epoch in range(done // per_epoch, config.epochs):
        yield from _batches(examples, config, epoch)[max(0, done - epoch * per_epoch) :]


def _save_checkpoint(training: Training, step: int) -> None:
    """The first process writes; the others wait, so that none ends before the checkpoint is whole."""
    model, optimizer, memory = training.encoder.model, training.optimizer, training.memory
    keep, first = training.config.keep_checkpoints, training.ranks.first
    save_checkpoint(
        training.work,
        step,
        training.receipt,
        model,
        optimizer,
        keep=keep,
        memory=memory,
        validations=training.validation.records,
        best=training.validation.best,
        write=first,
    )
    training.ranks.wait()


def _resume(training: Training) -> int:
    """The number of steps that a checkpoint holds, put back; 0 without one."""
    ranks, work = training.ranks, training.work
    if ranks.first:
        _make_folder(work)
    ranks.wait()
    found = newest_checkpoint(work)
    step = found[1].step if found else 0
    if not ranks.agree(sha256_json([training.receipt, step, work.is_dir()])):
        raise InputError(
            f"the processes of this training were not given the same command, base model and data, or do not see the "
            f"same checkpoints in {work}. Give all the same, and an output folder on a disk that they share."
        )
    if found is None:
        training.validation.resume(None, None)
        return 0
    path, state = found
    refuse_change(state.receipt, training.receipt, where=work)
    restore(path, training.encoder.model, training.optimizer)
    training.validation.resume(path, state)
    if state.micro_batch_tokens == training.config.micro_batch_tokens:
        training.memory.halvings = state.halvings
    logger.info("Going on from %s.", path)
    return step


def _make_folder(work: Path) -> None:
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {work}: {error}. Choose another output folder.") from error


def _stop_diverged(training: Training, batch: Batch, losses: list[float], norm: float, *, step: int) -> None:
    """Save which examples the loss broke on, and stop."""
    path = training.work / "diverged.json"
    rows = [
        {"example_id": example.example_id, "loss": repr(loss)}
        for example, loss in zip(batch.examples, losses, strict=True)
    ]
    found = {"step": step + 1, "domain": batch.domain, "gradient_norm": repr(norm), "examples": rows}
    if training.ranks.first:
        write_json(path, found)
    training.ranks.wait()
    raise ReasonEmbedError(
        f"the loss or its gradient is not finite at step {step + 1} ({batch.domain}); the weights were not changed. "
        f"The batch is in {path}. Lower the learning rate, look at those examples, or train without bf16."
    )
