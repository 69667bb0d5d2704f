"""Which weights train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reasonembed.encoder.lora import LoraSettings, add_lora, lora_targets, train_last_layers
from reasonembed.encoder.model import Encoder
from reasonembed.errors import InputError


def test_lora_finds_the_projections_of_decoders_and_encoders(tiny_models: dict[str, Path]) -> None:
    decoder = Encoder.load(tiny_models["llama"]).model
    assert lora_targets(decoder) == [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip
    encoder = Encoder.load(tiny_models["bert"]).model
    assert lora_targets(encoder) == ["query", "key", "value", "dense"]
    adapted = add_lora(encoder, LoraSettings(rank=2, alpha=4))
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 6 * 2, "query, key, value and three dense layers, twice; no pooler"
    with pytest.raises(InputError, match="no place for LoRA"):
        lora_targets(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_only_the_last_layers_train_when_asked(tiny_models: dict[str, Path]) -> None:
    for name in ("bert", "qwen3"):
        model = Encoder.load(tiny_models[name]).model
        train_last_layers(model, 1)
        trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained
        assert all("layers.1." in key or "layer.1." in key or key == "norm.weight" for key in trained)
    with pytest.raises(InputError, match="has 2 layers"):
        train_last_layers(model, 3)


def test_everything_but_the_unused_pooler_trains_otherwise(tiny_models: dict[str, Path]) -> None:
    model = Encoder.load(tiny_models["bert"]).model
    train_last_layers(model, None)
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"pooler.dense.weight", "pooler.dense.bias"}


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        LoraSettings(rank=0)
