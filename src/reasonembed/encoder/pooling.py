"""From token vectors to one vector a text, as pure functions; padding may stand on either side, or both.

Shapes: B texts, T tokens (padded), D dimension. `mask_BT` is 1 for real tokens and 0 for padding. Packed texts
lie one after the other without padding: T counts all tokens, and `ends` (B + 1,) are where they begin and end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["last_token", "mean", "cls"]


def last_token(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The vector of each text's last real token, shape (B, D): how decoders are read (paper, Sec. 4.1)."""
    positions = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return _pick(hidden_BTD, (mask_BT * (positions + 1)).argmax(dim=1))


def cls(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The vector of each text's first real token, shape (B, D)."""
    return _pick(hidden_BTD, mask_BT.argmax(dim=1))


def mean(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over each text's real tokens, shape (B, D); half-precision inputs are summed in float32."""
    wide = torch.promote_types(hidden_BTD.dtype, torch.float32)
    weights_BT1 = mask_BT.unsqueeze(-1).to(wide)
    return (hidden_BTD.to(wide) * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)


def _pick(hidden_BTD: Tensor, position_B: Tensor) -> Tensor:
    return hidden_BTD[torch.arange(hidden_BTD.shape[0], device=hidden_BTD.device), position_B]


def packed_last_token(hidden_TD: Tensor, ends: Tensor) -> Tensor:
    """As `last_token`, of packed texts."""
    return hidden_TD[ends[1:] - 1]


def packed_cls(hidden_TD: Tensor, ends: Tensor) -> Tensor:
    """As `cls`, of packed texts."""
    return hidden_TD[ends[:-1]]


def packed_mean(hidden_TD: Tensor, ends: Tensor) -> Tensor:
    """As `mean`, of packed texts."""
    wide = torch.promote_types(hidden_TD.dtype, torch.float32)
    length_B = ends.diff()
    text_T = torch.arange(len(length_B), device=ends.device).repeat_interleave(length_B, output_size=len(hidden_TD))
    sum_BD = hidden_TD.new_zeros((len(length_B), hidden_TD.shape[1]), dtype=wide)
    return sum_BD.index_add(0, text_T, hidden_TD.to(wide)) / length_B.unsqueeze(-1)


POOLINGS: Mapping[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "last_token": last_token,
    "mean": mean,
    "cls": cls,
}

PACKED_POOLINGS: Mapping[Pooling, Callable[[Tensor, Tensor], Tensor]] = {
    "last_token": packed_last_token,
    "mean": packed_mean,
    "cls": packed_cls,
}
