"""Token ids equal those of transformers, EOS and truncation included."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from reasonembed.encoder.tokens import Tokenizer, pad
from reasonembed.errors import InputError


def _load(folder: Path, *, append_eos: bool) -> Tokenizer:
    return Tokenizer(AutoTokenizer.from_pretrained(folder), append_eos=append_eos)


@pytest.mark.parametrize("limit", [8, 12, 512])
@pytest.mark.parametrize("name", ["bert", "llama", "qwen3"])
def test_ids_are_those_of_transformers(tiny_models: dict[str, Path], texts: list[str], name: str, limit: int) -> None:
    tokenizer = _load(tiny_models[name], append_eos=name != "bert")
    ours = tokenizer(texts, limit)
    theirs = tokenizer.tokenizer(texts, truncation=True, max_length=limit)["input_ids"]
    assert [row.tolist() for row in ours.ids] == theirs
    whole = tokenizer.tokenizer(texts)["input_ids"]
    assert ours.truncated == sum(len(row) > limit for row in whole)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_the_tokenizer_itself_appends_eos_and_keeps_what_it_put_first(tiny_models: dict[str, Path], name: str) -> None:
    bare = AutoTokenizer.from_pretrained(tiny_models[name])("a prime").input_ids
    tokenizer = _load(tiny_models[name], append_eos=True)
    assert tokenizer.tokenizer("a prime").input_ids == [*bare, tokenizer.tokenizer.eos_token_id]
    assert _load(tiny_models[name], append_eos=True).suffix == tokenizer.suffix, "appended once, not twice"


def test_a_cut_text_still_ends_in_eos(tiny_models: dict[str, Path], texts: list[str]) -> None:
    tokenizer = _load(tiny_models["qwen3"], append_eos=True)
    assert {row[-1] for row in tokenizer(texts, 8).ids} == {tokenizer.tokenizer.eos_token_id}


def test_a_limit_that_leaves_no_room_is_refused(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="needs 3"):
        _load(tiny_models["bert"], append_eos=False)(["a"], 2)


def test_a_text_without_tokens_is_refused(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="no tokens"):
        _load(tiny_models["qwen3"], append_eos=False)(["a", ""], 8)


def test_padding_on_either_side_equals_that_of_transformers(tiny_models: dict[str, Path], texts: list[str]) -> None:
    tokenizer = _load(tiny_models["llama"], append_eos=True)
    ids = tokenizer(texts, 64).ids
    for side in ("right", "left"):
        ours_ids, ours_mask = pad(ids, tokenizer.pad_id, side=side)
        theirs = tokenizer.tokenizer.pad(
            {"input_ids": [row.tolist() for row in ids]}, padding_side=side, return_tensors="pt"
        )
        assert ours_ids.equal(theirs["input_ids"])
        assert ours_mask.equal(theirs["attention_mask"])
