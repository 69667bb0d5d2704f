"""Texts to token ids: once, into int32 arrays, padded by ourselves (70 times faster than `tokenizer.pad`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reasonembed.errors import InputError, shown

TokenIds = npt.NDArray[np.int32]
Side = Literal["right", "left"]


class Tokenized(NamedTuple):
    """Token ids of some texts, special tokens included, and how many texts were cut at the limit."""

    ids: list[TokenIds]
    truncated: int


class Tokenizer:
    """A fast tokenizer of transformers, asked for ids only and without changing its state.

    `append_eos`: have the tokenizer itself append its EOS token where it does not yet (last-token pooling
    reads that token), so that whoever loads the saved tokenizer gets it too.
    """

    def __init__(self, tokenizer: Any, *, append_eos: bool) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                "the model's tokenizer has no fast form (tokenizer.json). Convert it with transformers first."
            )
        self.tokenizer = tokenizer
        backend = tokenizer.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        self.prefix, self.suffix = _special_tokens(backend)
        if append_eos and self.suffix[-1:] != [tokenizer.eos_token_id]:
            _append_eos(tokenizer, self.prefix)
            self.prefix, self.suffix = _special_tokens(backend)
        self.appends_eos = append_eos
        if tokenizer.pad_token_id is None:  # Llama's has none; masked or never looked at, any token will do
            tokenizer.pad_token = tokenizer.eos_token
        self.pad_id: int = tokenizer.pad_token_id or 0

    def __call__(self, texts: Sequence[str], max_tokens: int) -> Tokenized:
        """The ids of each text, at most `max_tokens` with the special tokens, which truncation never removes.

        Raises InputError for a text that has no tokens at all, ValueError if `max_tokens` leaves no room.
        """
        room = max_tokens - len(self.prefix) - len(self.suffix)
        if room < 1:
            raise ValueError(
                f"max_tokens is {max_tokens}; with its special tokens a text needs {max_tokens - room + 1}."
            )
        encodings = self.tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids, truncated = [], 0
        for text, encoding in zip(texts, encodings, strict=True):
            bare = encoding.ids
            truncated += len(bare) > room
            row = np.array([*self.prefix, *bare[:room], *self.suffix], dtype=np.int32)
            if not row.size:
                raise InputError(f"the text {shown(text)} has no tokens. Give it some words or drop it.")
            ids.append(row)
        return Tokenized(ids, truncated)


def pad(ids: Sequence[TokenIds], pad_id: int, *, side: Side = "right") -> tuple[Tensor, Tensor]:
    """Ids and mask of one batch, both int64 of shape (B, T); T is the longest length."""
    width = max(len(row) for row in ids)
    padded_BT = np.full((len(ids), width), pad_id, dtype=np.int64)
    mask_BT = np.zeros((len(ids), width), dtype=np.int64)
    for number, row in enumerate(ids):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        padded_BT[number, place] = row
        mask_BT[number, place] = 1
    return torch.from_numpy(padded_BT), torch.from_numpy(mask_BT)


def _special_tokens(backend: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after any text, seen on a small one."""
    bare = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a").ids
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise InputError("the tokenizer changes a text when it adds its special tokens; such tokenizers are not supported.")


def _append_eos(tokenizer: Any, prefix: Sequence[int]) -> None:
    """Give the tokenizer a template `prefix text EOS`; what it put before a text stays."""
    from tokenizers.processors import TemplateProcessing

    if tokenizer.eos_token is None:
        raise InputError("the tokenizer names no EOS token, which last-token pooling reads. Set `eos_token` in it.")
    before = [(tokenizer.convert_ids_to_tokens(token), token) for token in prefix]
    single = " ".join([*(token for token, _ in before), "$A", tokenizer.eos_token])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single,
        pair=f"{single} $B {tokenizer.eos_token}",
        special_tokens=[*before, (tokenizer.eos_token, tokenizer.eos_token_id)],
    )
