"""Activation checkpointing: the same gradients from less memory, and the reckoning of that memory is true."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from reasonembed.encoder.lora import LoraSettings, add_lora, layer_stack, train_last_layers
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.tokens import TokenIds
from reasonembed.redapter.batches import Batch, epoch_batches
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gradcache import cached_backward, tokenize_batch
from reasonembed.redapter.graph import GraphMemory, checkpoint_activations
from reasonembed.redapter.objective import batch_loss
from reasonembed.redapter.train import train

CONFIG = TrainConfig(start_step=0, max_query_tokens=48, max_passage_tokens=32, temperature=0.05)
PLENTY_MB = 1 << 20


@pytest.fixture
def batch(examples: list[TrainingExample]) -> Batch:
    (batch,) = epoch_batches(examples[:5], seed=3, epoch=0, group_size=4, global_queries=5)
    return batch


def _encoder(folder: Path, dtype: str, *, lora: bool = False) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder.load(folder, dtype=dtype)
    train_last_layers(encoder.model, None)
    if lora:
        encoder.model = add_lora(encoder.model, LoraSettings(rank=4, alpha=8)).to(torch.float64)
        for parameter in encoder.model.parameters():
            parameter.data.add_(0.02 * parameter.requires_grad)
    return encoder


def _gradients(encoder: Encoder, batch: Batch, *, graph_bytes: int, bf16: bool = False) -> dict[str, torch.Tensor]:
    texts = tokenize_batch(encoder, batch, CONFIG)
    loss_of = functools.partial(batch_loss, texts=texts, batch=batch, config=CONFIG, step=0)
    outcome = cached_backward(encoder, texts, loss_of, budget_tokens=200, graph_bytes=graph_bytes, bf16=bf16)
    assert outcome.graph_kept == (graph_bytes > 0)
    found = {name: p.grad for name, p in encoder.model.named_parameters() if p.grad is not None}
    encoder.model.zero_grad()
    return found


@pytest.mark.parametrize("kept_mb", [0, PLENTY_MB])
@pytest.mark.parametrize(
    ("name", "dtype", "how"),
    [("bert", "float64", ""), ("qwen3", "float64", "lora"), ("llama", "float32", ""), ("bert", "float32", "bf16")],
)
def test_gradients_are_those_without_it(
    tiny_models: dict[str, Path], batch: Batch, name: str, dtype: str, how: str, kept_mb: int
) -> None:
    encoder = _encoder(tiny_models[name], dtype, lora=how == "lora")
    passes = functools.partial(_gradients, encoder, batch, graph_bytes=kept_mb << 20, bf16=how == "bf16")
    plain = passes()
    checkpoint_activations(layer_stack(encoder.model))
    recomputed = passes()
    assert recomputed.keys() == plain.keys() and len(plain) >= 20
    for key, gradient in plain.items():
        torch.testing.assert_close(recomputed[key], gradient, rtol=1e-12, atol=1e-12)


def _allocated_bytes(encoder: Encoder, ids: list[TokenIds]) -> int:
    """What a forward pass leaves allocated, by PyTorch's profiler of memory."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        vectors = encoder.embed(ids)
    assert vectors.requires_grad
    return sum(event.self_cpu_memory_usage for event in profile.key_averages())


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_the_graph_holds_a_fraction_and_its_reckoning_is_what_is_allocated(
    tiny_models: dict[str, Path], batch: Batch, name: str, lora: bool
) -> None:
    encoder = _encoder(tiny_models[name], "float64", lora=lora)
    ids = tokenize_batch(encoder, batch, CONFIG).ids
    allocated = []
    for recomputed in (False, True):
        if recomputed:
            checkpoint_activations(layer_stack(encoder.model))
        memory = GraphMemory(encoder.model)
        with memory.counting():
            encoder.embed(ids)
        allocated.append(_allocated_bytes(encoder, ids))
        assert memory.size_bytes == pytest.approx(allocated[-1], rel=0.02)
    assert allocated[1] < allocated[0] / 5


@pytest.mark.parametrize(
    "how", [{}, {"train_layers": 1}, {"lora": LoraSettings(rank=2, alpha=4)}, {"kept_graph_mb": 0}]
)
def test_a_training_with_it_runs_every_layer_that_trains_again_and_ends_in_the_same_bytes(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: dict[str, Any],
) -> None:
    base, runs = tiny_models["qwen3"], [0]
    forward = Qwen3DecoderLayer.forward

    def counting(*args: Any, **options: Any) -> Any:
        runs[-1] += torch.is_grad_enabled()
        return forward(*args, **options)

    monkeypatch.setattr(Qwen3DecoderLayer, "forward", counting)
    config = msgspec.structs.replace(CONFIG, epochs=1, learning_rate=2e-3, **how)
    train(examples, base, tmp_path / "plain", config)
    runs.append(0)
    train(examples, base, tmp_path / "recomputed", msgspec.structs.replace(config, activation_checkpointing=True))
    assert runs[1] == 2 * runs[0] > 0
    plain, recomputed = (tmp_path / name / "model.safetensors" for name in ("plain", "recomputed"))
    assert plain.read_bytes() == recomputed.read_bytes()
