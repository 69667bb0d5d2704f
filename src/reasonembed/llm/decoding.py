"""How a model in this process writes: batches whose shape one request decides, and a draw of its own for each row.

B rows, T prompt tokens (padded on the left), S tokens written at most, V tokens of the vocabulary.

Matrix kernels round differently for different shapes, not for different neighbours; and at the edge of their tiles
differently from place to place. A batch therefore always has the shape that each of its requests asks for alone, in
whole tiles of rows: missing ones are filled up, and padding is never left out. So a reply depends on its request, the
model, the dtype and the device. (Mixtures of experts are the exception: which experts a neighbour takes changes the
shapes inside.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

MAX_ROWS = 64  # our choice: beyond it a step takes longer in proportion
_TILE = 16  # rows; with 3 a row's last bits were seen to depend on its place (float32, CPU), with 16, 32 and 64 not
_NARROWEST = 64


class Shape(msgspec.Struct, frozen=True):
    """What requests must have in common to be answered in one batch."""

    width: int  # tokens of the prompts, padding included
    max_tokens: int

    def rows(self, token_budget: int) -> int:
        """Rows of a batch of this shape, always: whole tiles, as the budget of tokens has room for, or a single row."""
        room = min(MAX_ROWS, token_budget // (self.width + self.max_tokens))
        return room // _TILE * _TILE or 1


class Row(msgspec.Struct, frozen=True):
    """One prompt, and how to go on from it. temperature 0: the likeliest token, always."""

    prompt_ids: list[int]
    max_tokens: int  # of this row; at most the shape's
    temperature: float
    top_p: float
    top_k: int
    seed: tuple[int, int]


def padded_width(tokens: int) -> int:
    """The least of 64, 96, 128, 192, 256, 384, ... above `tokens`: at most half as much again, and never without
    padding, because an attention without any takes another kernel."""
    width = _NARROWEST
    while width <= tokens:
        if width * 3 // 2 > tokens:
            return width * 3 // 2
        width *= 2
    return width


@torch.inference_mode()
def write(
    model: Any,
    rows: Sequence[Row],
    *,
    shape: Shape,
    count: int,
    ends: frozenset[int],
    stopped: Callable[[], bool] = lambda: False,
) -> list[list[int]]:
    """The tokens that `model` writes for each of `rows`, each with the end token if it came to one.

    count: rows of the batch, at least `len(rows)`; the rest is filled up.  ends: tokens that end a text.
    stopped: asked before each step; once it says so, what was written so far comes back.
    """
    filled = [*rows, *[rows[0]] * (count - len(rows))]
    device = model.device
    ids_BT, mask_BT = _left_padded([row.prompt_ids for row in filled], shape.width, device)
    position_B1 = mask_BT.sum(dim=1, keepdim=True)
    draws_BS = np.stack([np.random.default_rng(row.seed).random(shape.max_tokens) for row in filled])
    inputs, positions, cache = ids_BT, (mask_BT.cumsum(dim=1) - 1).clamp(min=0), None
    written: list[list[int]] = [[] for _ in rows]
    open_rows = set(range(len(rows)))
    for step in range(shape.max_tokens):
        if stopped():
            break
        output = model(
            input_ids=inputs,
            attention_mask=mask_BT,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        chosen_B = choose(output.logits[:, -1], filled, torch.from_numpy(draws_BS[:, step]).to(device))
        for number, token in enumerate(chosen_B.tolist()[: len(rows)]):
            if number in open_rows:
                written[number].append(token)
                if token in ends or len(written[number]) == rows[number].max_tokens:
                    open_rows.discard(number)
        if not open_rows:
            break
        inputs, positions = chosen_B[:, None], position_B1 + step
        mask_BT = torch.nn.functional.pad(mask_BT, (0, 1), value=1)
    return written


def _left_padded(prompts: Sequence[list[int]], width: int, device: Any) -> tuple[Tensor, Tensor]:
    ids = np.zeros((len(prompts), width), dtype=np.int64)
    mask = np.zeros((len(prompts), width), dtype=np.int64)
    for number, prompt in enumerate(prompts):
        ids[number, width - len(prompt) :] = prompt
        mask[number, width - len(prompt) :] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def choose(logits_BV: Tensor, rows: Sequence[Row], draws_B: Tensor) -> Tensor:
    """The next token of each row, int64 (B,): the likeliest at temperature 0, else the one that its draw falls on.

    draws_B: float64 in [0, 1).  Of the tokens in order of probability, the first `top_k` are kept, and of those as
    many as it takes to reach `top_p` of the whole mass; the draw is taken over what is kept.
    """
    likeliest_B = logits_BV.argmax(dim=-1)
    if all(row.temperature == 0 for row in rows):
        return likeliest_B

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits_BV.device)[:, None]

    temperature_B1 = column([row.temperature or 1.0 for row in rows])
    ordered_BV, tokens_BV = (logits_BV.double() / temperature_B1).sort(dim=-1, descending=True, stable=True)
    probability_BV = ordered_BV.softmax(dim=-1)
    rank_V = torch.arange(logits_BV.shape[-1], device=logits_BV.device)
    probability_BV = probability_BV.masked_fill(rank_V >= column([float(row.top_k) for row in rows]), 0.0)
    probability_BV = probability_BV / probability_BV.sum(dim=-1, keepdim=True)
    before_BV = probability_BV.cumsum(dim=-1) - probability_BV
    kept_BV = (before_BV < column([row.top_p for row in rows])) & (probability_BV > 0)
    mass_BV = probability_BV.masked_fill(~kept_BV, 0.0).cumsum(dim=-1)
    place_B1 = torch.searchsorted(mass_BV, draws_B[:, None] * mass_BV[:, -1:], right=True)
    place_B1 = torch.minimum(place_B1, kept_BV.sum(dim=-1, keepdim=True) - 1)
    drawn_B = tokens_BV.gather(1, place_B1)[:, 0]
    greedy_B = torch.tensor([row.temperature == 0 for row in rows], device=logits_BV.device)
    return torch.where(greedy_B, likeliest_B, drawn_B)


__all__ = ["MAX_ROWS", "Row", "Shape", "choose", "padded_width", "write"]
