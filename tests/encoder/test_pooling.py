"""Pooling picks what it says, wherever the padding stands."""

from __future__ import annotations

import pytest
import torch

from reasonembed.encoder.pooling import PACKED_POOLINGS, POOLINGS, cls, last_token, mean

HIDDEN = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)


def test_each_pooling_on_a_hand_worked_batch_padded_on_the_right() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert last_token(HIDDEN, mask).tolist() == [[6, 7, 8], [12, 13, 14]]
    assert cls(HIDDEN, mask).tolist() == [[0, 1, 2], [12, 13, 14]]
    assert mean(HIDDEN, mask).tolist() == [[3, 4, 5], [12, 13, 14]]


@pytest.mark.parametrize("name", POOLINGS)
def test_the_padding_side_changes_nothing(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(length, 5, generator=generator) for length in (1, 4, 3)]
    junk = torch.full((3, 6, 5), 1e6)
    right, left, masks = junk.clone(), junk.clone(), torch.zeros(2, 3, 6, dtype=torch.int64)
    for number, row in enumerate(rows):
        right[number, : len(row)], masks[0, number, : len(row)] = row, 1
        left[number, 6 - len(row) :], masks[1, number, 6 - len(row) :] = row, 1
    pool = POOLINGS[name]  # type: ignore[index]
    assert torch.allclose(pool(right, masks[0]), pool(left, masks[1]))


@pytest.mark.parametrize("name", POOLINGS)
def test_packed_texts_are_pooled_as_padded_ones(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(length, 5, generator=generator, requires_grad=True) for length in (1, 4, 3)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]])
    ends = torch.tensor([0, 1, 5, 8], dtype=torch.int32)
    one = POOLINGS[name](padded, mask)  # type: ignore[index]
    other = PACKED_POOLINGS[name](torch.cat(rows), ends)  # type: ignore[index]
    torch.testing.assert_close(other, one)
    gradients = [torch.autograd.grad(pooled.square().sum(), rows) for pooled in (one, other)]
    for expected, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_mean_of_half_precision_is_summed_in_float32() -> None:
    hidden = torch.ones(1, 4096, 1, dtype=torch.bfloat16)
    hidden[0, 0, 0] = 300.0
    pooled = mean(hidden, torch.ones(1, 4096, dtype=torch.int64))
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx((4095 + 300) / 4096, abs=1e-6)
    packed = PACKED_POOLINGS["mean"](hidden[0], torch.tensor([0, 4096], dtype=torch.int32))
    assert packed.dtype == torch.float32
    assert packed.item() == pytest.approx((4095 + 300) / 4096, abs=1e-6)
