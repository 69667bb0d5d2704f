"""Attention beside coarse products on a CPU: ours in full float32, PyTorch's fused one, and whole products.

    python benchmarks/cpu_attention.py [--threads 2] [--repeats 5]

One layer of MiniLM's attention, forward and backward, on about 2,048 tokens of texts of one length, with a padding
mask. The ways take turns; the best of the repeats counts, in milliseconds. `medium`: float32 tensors whose products
PyTorch may round to bfloat16; `bfloat16`: the tensors themselves, as under autocast.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from reasonembed.redapter.attention import in_full
from reasonembed.redapter.precision import float32_products, rounds_on_cpu
from setting import setting

TOKENS = 2048
HEADS, HEAD_DIM = 12, 32  # MiniLM's
LENGTHS = (32, 128, 256, 512)
Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{setting()}, torch {torch.__version__}, {options.threads} threads; bfloat16: {rounds_on_cpu('medium')}")
    ways: dict[str, tuple[Attention, str, torch.dtype]] = {
        "fused, highest": (scaled_dot_product_attention, "highest", torch.float32),
        "fused, medium": (scaled_dot_product_attention, "medium", torch.float32),
        "whole products, medium": (_whole_products, "medium", torch.float32),
        "ours, medium": (in_full, "medium", torch.float32),
        "fused, bfloat16": (scaled_dot_product_attention, "highest", torch.bfloat16),
        "ours, bfloat16": (in_full, "highest", torch.bfloat16),
    }
    print("tokens a text " + "".join(f"{length:>8}" for length in LENGTHS))
    inputs = {length: _inputs(length) for length in LENGTHS}
    best = {(name, length): float("inf") for name in ways for length in LENGTHS}
    for _ in range(options.repeats + 1):  # the first compiles kernels
        for name, (attention, precision, dtype) in ways.items():
            for length in LENGTHS:
                took = _milliseconds(attention, precision, dtype, *inputs[length])
                best[name, length] = min(best[name, length], took)
    for name in ways:
        print(f"{name:24}" + "".join(f"{best[name, length]:8.1f}" for length in LENGTHS))


def _inputs(length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key and value of as many texts as make `TOKENS`, and the mask of texts that end three tokens early."""
    generator = torch.Generator().manual_seed(length)
    texts = TOKENS // length
    query, key, value = torch.randn(3, texts, HEADS, length, HEAD_DIM, generator=generator)
    mask = torch.ones(texts, 1, length, length, dtype=torch.bool)
    mask[..., -3:] = False
    return query, key, value, mask


def _milliseconds(
    attention: Attention, precision: str, dtype: torch.dtype, query: Tensor, key: Tensor, value: Tensor, mask: Tensor
) -> float:
    inputs = [each.to(dtype, copy=True).requires_grad_() for each in (query, key, value)]
    with float32_products(precision):
        began = time.perf_counter()
        attention(*inputs, mask).sum().backward()  # type: ignore[call-arg]
        return (time.perf_counter() - began) * 1e3


def _whole_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    scores = query @ key.transpose(2, 3) * HEAD_DIM**-0.5
    return torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1) @ value


if __name__ == "__main__":
    main()
