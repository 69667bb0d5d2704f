"""Packed texts: a batch's texts one after the other in one row, each seeing itself alone, so that nothing is padding.

Everything in a transformer but attention treats tokens one by one. Attention gets the ends of the texts, which
transformers calls `cu_seq_lens_q`, through the model's keyword arguments; positions start anew with each text. On a GPU
in half precision PyTorch's variable-length kernel computes all texts at once (Dao 2023, arXiv:2307.08691); anywhere
else they are computed run by run of equal lengths, with the very function that a padded batch takes.

Shapes: B texts, T tokens of all of them, H heads, D dimension of a head or a vector.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reasonembed.encoder.tokens import TokenIds
from reasonembed.errors import ConfigError

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None  # type: ignore[assignment]

ATTENTION = "reasonembed_packed"  # the name of `attend` among transformers' attention functions
CHECK_TEXTS = ("Two texts that are packed into one row.", "Each must come out as if it were alone.", "Packed?")
_HALF = (torch.bfloat16, torch.float16)
_NOT_SUPPORTED = ("sliding_window", "softcap", "s_aux", "position_bias")  # what some models' attention asks for besides
_NEEDED = {"scale", "window_size"}  # what `varlen_attn` must take, as it does from torch 2.11 on
_TAKEN = frozenset(inspect.signature(varlen_attn).parameters if varlen_attn is not None else ())


class Packed:
    """A model whose attention takes packed texts; it takes padded ones as before.

    `lift` ends it.
    """

    def __init__(self, model: Any, *, bf16: bool = False) -> None:
        """bf16: whether it is going to run under bfloat16 autocast.

        Raises ConfigError for a model that has no place for this attention or for positions, and for a torch without
        the kernel that its device and type ask for. A model may still give other vectors: compare.
        """
        from transformers import AttentionInterface, AttentionMaskInterface

        self.transformer = model.get_base_model() if hasattr(model, "get_base_model") else model
        name = type(self.transformer).__name__
        self._before = self.transformer.config._attn_implementation
        if "position_ids" not in inspect.signature(self.transformer.forward).parameters:
            raise _refusal(f"{name} takes no position_ids, which start anew with each text")
        if self._before != "sdpa":
            raise _refusal(f'{name} runs with attention "{self._before}", and packing is built on "sdpa"')
        weight = next(self.transformer.parameters())
        if weight.is_cuda and (bf16 or weight.dtype in _HALF) and not _TAKEN >= _NEEDED:
            raise ConfigError(
                f"packed texts need torch.nn.attention.varlen.varlen_attn with {', '.join(sorted(_NEEDED))}, "
                f"as torch 2.11 has it, and this is torch {torch.__version__}. Install a newer torch, or leave packed "
                f"out."
            )
        AttentionInterface.register(ATTENTION, attend)
        AttentionMaskInterface.register(ATTENTION, mask)
        self.transformer.set_attn_implementation(ATTENTION)
        if self.transformer.config._attn_implementation != ATTENTION:
            raise _refusal(f"{name} does not take its attention from transformers' AttentionInterface")
        self._first_position = _first_position(self.transformer)

    def lift(self) -> None:
        """Give the model the attention back that it had."""
        self.transformer.set_attn_implementation(self._before)

    def inputs(self, ids: Sequence[TokenIds]) -> dict[str, Any]:
        """The model's arguments for these texts in one row: ids and positions (1, T) and the texts' ends."""
        device = next(self.transformer.parameters()).device
        lengths = [len(row) for row in ids]
        positions_T = np.concatenate([np.arange(length) for length in lengths]) + self._first_position
        ends = torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)).to(device)
        return {
            "input_ids": torch.from_numpy(np.concatenate(ids).astype(np.int64))[None].to(device),
            "position_ids": torch.from_numpy(positions_T)[None].to(device),
            "cu_seq_lens_q": ends,
            "cu_seq_lens_k": ends,
            "max_length_q": max(lengths),
            "max_length_k": max(lengths),
        }


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: `sdpa` where the texts' ends are not given, else text by text.

    query, key, value: (1, H, T, D); key and value may have fewer heads.  cu_seq_lens_q: int32 (B + 1,), where texts
    begin and end.  max_length_q: tokens of the longest.  Returns (1, T, H, D), and no weights.
    Raises ConfigError for what a model asks of attention beyond that.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None or max_length_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, is_causal=is_causal, **options
        )
    if attention_mask is not None:
        raise _refusal(f"{type(module).__name__} computes attention with a mask of its model's own")
    if dropout:
        raise _refusal(f"{type(module).__name__} asks for dropout in attention")
    for name in _NOT_SUPPORTED:
        if options.get(name) is not None:
            raise _refusal(f"{type(module).__name__} asks for {name} = {options[name]!r:.40} in attention")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else query.dtype
    if kernel_suits(query, value, dtype):
        return _by_kernel(query, key, value, cu_seq_lens_q, max_length_q, dtype, causal=causal, scaling=scaling), None
    return _run_by_run(module, query, key, value, cu_seq_lens_q, causal=causal, scaling=scaling), None


def kernel_suits(query: Tensor, value: Tensor, dtype: torch.dtype) -> bool:
    """Whether PyTorch's variable-length kernel computes these heads in this type: FlashAttention's limits."""
    size = query.shape[-1]
    suits = query.is_cuda and dtype in _HALF and size == value.shape[-1] and size % 8 == 0 and size <= 256
    return suits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def mask(*, attention_mask: Tensor | None = None, local_size: int | None = None, **options: Any) -> Tensor | None:
    """A mask function of transformers: none without padding, where packed texts need none, else that of `sdpa`.

    Raises ConfigError where a model looks at a window of the text only.
    """
    from transformers.masking_utils import sdpa_mask

    if local_size is not None:
        raise _refusal(f"the model's layers look at windows of {local_size} tokens")
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **options)


@torch.compiler.disable  # each run of lengths would be compiled for itself
def _run_by_run(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    *,
    causal: bool,
    scaling: float | None,
) -> Tensor:
    """(1, T, H, D): each run of texts of equal length as a batch, by the function that padded texts take."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    runs, start = [], 0
    for length, texts in groupby(ends.diff().tolist()):
        count = len(list(texts))
        query_BHTD, key_BHTD, value_BHTD = (_texts(tensor, start, count, length) for tensor in (query, key, value))
        out_BTHD, _ = sdpa_attention_forward(
            module, query_BHTD, key_BHTD, value_BHTD, None, scaling=scaling, is_causal=causal
        )
        runs.append(out_BTHD.flatten(0, 1))
        start += count * length
    return torch.cat(runs)[None]


def _by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    longest: int,
    dtype: torch.dtype,
    *,
    causal: bool,
    scaling: float | None,
) -> Tensor:
    """(1, T, H, D). Under autocast the norms of queries and keys give float32, which the kernel does not take."""
    query_THD, key_THD, value_THD = (tensor[0].transpose(0, 1).to(dtype) for tensor in (query, key, value))
    shared = query.shape[1] // key.shape[1]  # query heads to a key head
    options: dict[str, Any] = {}
    if shared > 1 and "enable_gqa" in _TAKEN:
        options["enable_gqa"] = True
    elif shared > 1:  # torch before 2.13: as many key heads as query heads
        key_THD, value_THD = (tensor.repeat_interleave(shared, dim=1) for tensor in (key_THD, value_THD))
    out_THD = varlen_attn(
        query_THD,
        key_THD,
        value_THD,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0) if causal else (-1, -1),  # nothing to the right, or no limit
        **options,
    )
    assert isinstance(out_THD, Tensor)
    return out_THD[None]


def _texts(packed_1HTD: Tensor, start: int, count: int, length: int) -> Tensor:
    """`count` texts of equal length from a row, as a batch: (count, H, length, D)."""
    return packed_1HTD[0, :, start : start + count * length].unflatten(1, (count, length)).transpose(0, 1)


def _first_position(model: nn.Module) -> int:
    """What a text's first token counts as: RoBERTa and its kin begin behind the padding's id."""
    for module in model.modules():
        if hasattr(module, "create_position_ids_from_input_ids"):
            padding: Any = module.padding_idx
            return int(padding) + 1
    return 0


def _refusal(found: str) -> ConfigError:
    return ConfigError(f"{found}; such a model cannot take packed texts. Leave packed out.")


__all__ = ["ATTENTION", "CHECK_TEXTS", "Packed", "attend", "kernel_suits", "mask"]
