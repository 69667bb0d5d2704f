"""Fused attention on a CPU in full float32 beside products in bfloat16, which its small blocks are slow in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend
from torch.overrides import TorchFunctionMode

from reasonembed.encoder.model import Encoder
from reasonembed.redapter.precision import float32_products

ATTENTION = "reasonembed_full"  # its name in transformers' AttentionInterface


def use_full_attention(encoder: Encoder) -> None:
    """From here on the model's fused attention is computed in float32 and in full, whatever its other products are.

    Our choice, measured: with products in bfloat16 PyTorch's fused attention for CPUs takes up to eleven times as long
    as in full. Vectors and gradients are those of full float32 but for the rest's rounding. A model that is not on
    transformers' `sdpa` keeps what it has.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if encoder.model.config._attn_implementation == "sdpa":
        AttentionInterface.register(ATTENTION, _attend)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        encoder.model.set_attn_implementation(ATTENTION)


def _attend(*args: Any, **options: Any) -> Any:
    """What transformers' `sdpa` gives, its attention in full."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    with _Replaced():
        return sdpa_attention_forward(*args, **options)


class _Replaced(TorchFunctionMode):
    """While it lasts, `scaled_dot_product_attention` is computed by `in_full`."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is torch.nn.functional.scaled_dot_product_attention:
            return in_full(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def in_full(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """PyTorch's `scaled_dot_product_attention`, in full where PyTorch would take its fused kernel for CPUs.

    Arguments, shapes (batch, heads, tokens, dimensions) and result are PyTorch's; float16 and bfloat16 are computed in
    float32 and given back as they came. With dropout, or on a GPU, PyTorch's own choice of kernel does it in float32.
    """
    dtype = query.dtype
    if dtype != torch.float64:
        query, key, value = query.float(), key.float(), value.float()
    if enable_gqa:
        key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in (key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    with torch.autocast(query.device.type, enabled=False):
        kernel = torch._fused_sdp_choice(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
        if kernel == SDPBackend.FLASH_ATTENTION.value:
            return _Fused.apply(query, key, value, attn_mask, is_causal, scale).to(dtype)
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale
        ).to(dtype)


class _Fused(torch.autograd.Function):
    """PyTorch's fused attention for CPUs, with both passes' products in full."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        is_causal: bool,
        scale: float | None,
    ) -> Tensor:
        """The attended values, in the shape of `query`."""
        with _products_in_full():
            out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, is_causal, attn_mask=mask, scale=scale
            )
        ctx.save_for_backward(query, key, value, out, log_sum, mask)
        ctx.options = (is_causal, scale)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, out, log_sum, mask = ctx.saved_tensors
        is_causal, scale = ctx.options
        with _products_in_full():
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                gradient, query, key, value, out, log_sum, 0.0, is_causal, attn_mask=mask, scale=scale
            )
        return (*found, None, None, None)


@contextlib.contextmanager
def _products_in_full() -> Iterator[None]:
    if not hasattr(torch.backends.mkldnn, "matmul"):  # before torch 2.9 there is one setting for all
        with float32_products("highest"):
            yield
        return
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


__all__ = ["in_full", "use_full_attention"]
