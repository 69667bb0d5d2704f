"""How finely float32 products are computed while a model trains: in full, or faster where the hardware can."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from reasonembed.encoder.model import Encoder


@contextlib.contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """While it lasts, PyTorch multiplies float32 matrices with this `precision`: highest, high or medium.

    What is left afterwards is what was set before. Source: torch.set_float32_matmul_precision.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def rounds_on_cpu(precision: str) -> bool:
    """Whether a CPU multiplies float32 matrices in bfloat16 with this `precision`; one that cannot does it in full."""
    return precision == "medium" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def use_whole_attention(encoder: Encoder) -> None:
    """Attention as whole products from here on, which are the fast ones where products round to bfloat16 on a CPU.

    Our choice, measured: PyTorch's fused attention multiplies small blocks there, which takes as long as all the rest.
    A model with an attention of its own keeps it.
    """
    if encoder.model.config._attn_implementation == "sdpa":
        encoder.model.set_attn_implementation("eager")


__all__ = ["float32_products", "rounds_on_cpu", "use_whole_attention"]
