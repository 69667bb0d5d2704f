"""Adapters train on a base that lies in fewer bits, and what is saved is the base in full with them merged."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel

from reasonembed.beir import Collection
from reasonembed.encoder.lora import LoraSettings
from reasonembed.encoder.model import Encoder
from reasonembed.errors import MissingExtra
from reasonembed.redapter import prepare as preparing
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import StepRecord, read_log
from reasonembed.redapter.precision import narrow_frozen
from reasonembed.redapter.train import TrainConfig, train

LORA = LoraSettings(rank=4, alpha=8)
QLORA = LoraSettings(rank=4, alpha=8, quantize_base=True)
CONFIG = TrainConfig(
    lora=LORA, start_step=0, temperature=0.2, learning_rate=5e-3, epochs=2, max_query_tokens=48, max_passage_tokens=32
)
BF16 = msgspec.structs.replace(CONFIG, bf16=True)
FOUR_BITS = msgspec.structs.replace(CONFIG, lora=QLORA)


def _losses(path: Path) -> list[float]:
    return [record.mean_loss for record in read_log(path)]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models whose frozen layers were narrowed, while it goes on."""
    models: list[nn.Module] = []

    def narrow(model: nn.Module) -> None:
        narrow_frozen(model)
        models.append(model)

    monkeypatch.setattr(preparing, "narrow_frozen", narrow)
    return models


@pytest.mark.parametrize("name", ["qwen3", "llama", "bert"])
def test_under_autocast_a_base_in_bfloat16_trains_to_the_same_bytes_in_half_of_the_memory(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    seen: list[nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    half = train(examples, tiny_models[name], tmp_path / "half", BF16)
    layers = [module for module in seen[0].modules() if isinstance(module, nn.Linear)]
    frozen = [layer for layer in layers if not layer.weight.requires_grad]
    assert {layer.weight.dtype for layer in frozen} == {torch.bfloat16}
    assert {layer.weight.dtype for layer in layers if layer.weight.requires_grad} == {torch.float32}
    monkeypatch.setattr(preparing, "narrow_frozen", lambda _model: None)
    whole = train(examples, tiny_models[name], tmp_path / "whole", BF16)
    assert _losses(half.log_path) == _losses(whole.log_path)
    for key, weight in _weights(tmp_path / "whole").items():
        assert torch.equal(_weights(tmp_path / "half")[key], weight), key


@pytest.mark.parametrize("config", [BF16, FOUR_BITS], ids=["bfloat16", "4 bits"])
def test_what_is_saved_is_the_base_in_full_with_the_adapters_merged(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, config: TrainConfig
) -> None:
    train(examples, tiny_models["qwen3"], tmp_path / "out", config)
    saved, base = _weights(tmp_path / "out"), _weights(tiny_models["qwen3"])
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()
    merged = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_models["qwen3"]), str(tmp_path / "out/adapter"))
    for key, weight in merged.merge_and_unload().state_dict().items():
        torch.testing.assert_close(saved[key], weight, rtol=0, atol=1e-6)
    assert torch.equal(saved["embed_tokens.weight"], base["embed_tokens.weight"])
    assert not torch.equal(saved["layers.0.self_attn.q_proj.weight"], base["layers.0.self_attn.q_proj.weight"])


@pytest.fixture
def rounded(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """The tiny Qwen3 with its linear layers rounded to 4 bits by bitsandbytes, and stored in float32 again."""
    functional = pytest.importorskip("bitsandbytes").functional
    quantized = Encoder.load(tiny_models["qwen3"], device="cpu", quantize=True).model
    folder = tmp_path / "rounded"
    shutil.copytree(tiny_models["qwen3"], folder)
    weights = load_file(folder / "model.safetensors")
    for name, module in quantized.named_modules():
        if isinstance(module, nn.Linear):
            weights[f"{name}.weight"] = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "options", [{}, {"bf16": True}, {"packed": True, "activation_checkpointing": True}, {"kept_graph_mb": 0}]
)
def test_adapters_on_four_bits_learn_as_on_a_base_of_the_rounded_weights(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    rounded: Path,
    tmp_path: Path,
    options: dict[str, bool | int],
) -> None:
    losses = {}
    for folder, base, lora in (("whole", rounded, LORA), ("four", tiny_models["qwen3"], QLORA)):
        config = msgspec.structs.replace(CONFIG, lora=lora, **options)
        losses[folder] = _losses(train(examples, base, tmp_path / folder, config).log_path)
    assert losses["four"] == pytest.approx(losses["whole"], rel=5e-2 if "bf16" in options else 1e-3)


def test_the_base_lies_in_four_bits_and_gives_nearly_its_vectors(tiny_models: dict[str, Path]) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    texts = ["why does water boil at altitude", "drift and heat", "graph " * 20]
    whole = Encoder.load(tiny_models["qwen3"], device="cpu").encode(texts)
    quantized = Encoder.load(tiny_models["qwen3"], device="cpu", quantize=True)
    layers = [m for m in quantized.model.modules() if isinstance(m, nn.Linear)]
    assert layers and all(isinstance(layer, bitsandbytes.nn.Linear4bit) for layer in layers)
    assert {layer.weight.quant_type for layer in layers} == {"nf4"}
    first = quantized.encode(texts)
    agreement = (first * whole).sum(axis=1)
    assert np.all(agreement > 0.8) and np.any(agreement < 0.9999), "a random model is rounded more than a trained one"
    np.testing.assert_array_equal(quantized.encode(texts), first, err_msg="it stays as it was rounded")


class _Killed(Exception):
    """Stands for a kill: nothing is caught or saved on the way out."""


@pytest.mark.parametrize("config", [BF16, FOUR_BITS], ids=["bfloat16", "4 bits"])
def test_it_goes_on_after_a_kill_to_the_same_bytes_and_saves_the_best_that_it_validated(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    config: TrainConfig,
) -> None:
    def kill(record: StepRecord, _steps: int) -> None:
        if record.step == 5:
            raise _Killed

    config = msgspec.structs.replace(config, checkpoint_every_steps=2, validate_every_steps=2)
    run: Callable[..., object] = lambda folder, **more: train(  # noqa: E731
        examples, tiny_models["qwen3"], tmp_path / folder, config, validation=collections, **more
    )
    whole = run("whole")
    with pytest.raises(_Killed):
        run("cut", progress=kill)
    cut = run("cut")
    assert whole.validation is not None and whole.validation == cut.validation
    for key, weight in _weights(tmp_path / "whole").items():
        assert torch.equal(_weights(tmp_path / "cut")[key], weight), key


def test_without_bitsandbytes_the_extra_is_named(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else find(name, *a)
    )
    with pytest.raises(MissingExtra, match=r"pip install 'reasonembed\[qlora\]'"):
        train(examples, tiny_models["qwen3"], tmp_path / "out", FOUR_BITS)


def test_four_bits_are_not_shared_out() -> None:
    with pytest.raises(ValueError, match=r"lora\.quantize_base and shard cannot go together"):
        TrainConfig(lora=QLORA, shard=True)
