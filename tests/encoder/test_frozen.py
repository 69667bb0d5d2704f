"""Frozen layers: kept states give the vectors and the gradients of the plain computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reasonembed.encoder.frozen import FrozenStates
from reasonembed.encoder.lora import layer_stack, train_last_layers
from reasonembed.encoder.model import Encoder

TEXTS = ["why does heat boil water", "drift", "a robot joint torque at altitude and pressure of the sleep memory"]


def vectors_and_gradients(encoder: Encoder) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    vectors_BD = encoder.embed(encoder.tokenize(TEXTS))
    target_D = torch.linspace(-1, 1, vectors_BD.shape[1], dtype=vectors_BD.dtype)
    (vectors_BD @ target_D).square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in encoder.model.named_parameters() if p.grad is not None}
    encoder.model.zero_grad()
    return vectors_BD.detach(), gradients


@pytest.mark.parametrize("name", ["qwen3", "llama", "bert"])
def test_kept_states_give_the_same_vectors_and_gradients(tiny_models: dict[str, Path], name: str) -> None:
    encoder = Encoder.load(tiny_models[name], dtype="float64", device="cpu")
    train_last_layers(encoder.model, 1)
    plain, expected = vectors_and_gradients(encoder)
    encoder.keep_frozen(1)
    for _ in range(2):  # computed, then found
        kept, found = vectors_and_gradients(encoder)
        torch.testing.assert_close(kept, plain, rtol=1e-10, atol=1e-10)
        assert found.keys() == expected.keys() and found
        for parameter, gradient in expected.items():
            torch.testing.assert_close(found[parameter], gradient, rtol=1e-9, atol=1e-10)
    assert encoder.frozen is not None and len(encoder.frozen.states) == len(TEXTS)


def test_a_text_passes_the_frozen_layers_once_and_its_states_do_not_depend_on_its_batch(
    tiny_models: dict[str, Path],
) -> None:
    encoder = Encoder.load(tiny_models["bert"], device="cpu")
    train_last_layers(encoder.model, 1)
    passes = []
    inside = layer_stack(encoder.model)[0].attention
    handle = inside.register_forward_hook(lambda *_: passes.append(1))
    together, alone = FrozenStates(), FrozenStates()
    encoder.keep_frozen(1, together)
    ids = encoder.tokenize(TEXTS)
    encoder.embed(ids)
    first = len(passes)
    encoder.frozen = None
    encoder.keep_frozen(1, alone)
    for row in ids:
        encoder.embed([row])
    handle.remove()
    assert first == len(TEXTS)
    for row in ids:
        states = [store.get(row, lambda _: torch.empty(0)) for store in (together, alone)]
        assert torch.equal(*states)


def test_states_beyond_the_limit_are_computed_anew(tiny_models: dict[str, Path]) -> None:
    encoder = Encoder.load(tiny_models["bert"], device="cpu")
    plain = encoder.encode(TEXTS)
    encoder.keep_frozen(1, FrozenStates(limit_bytes=1))
    np.testing.assert_allclose(encoder.encode(TEXTS), plain, atol=1e-6)
    assert encoder.frozen is not None and len(encoder.frozen.states) == 0


def test_states_of_other_weights_are_refused(tiny_models: dict[str, Path]) -> None:
    states = FrozenStates()
    Encoder.load(tiny_models["bert"], device="cpu").keep_frozen(1, states)
    Encoder.load(tiny_models["bert"], device="cpu").keep_frozen(1, states)
    with pytest.raises(ValueError, match="other weights"):
        Encoder.load(tiny_models["qwen3"], device="cpu").keep_frozen(1, states)


def test_a_model_that_trains_all_its_layers_keeps_nothing(tiny_models: dict[str, Path]) -> None:
    encoder = Encoder.load(tiny_models["bert"], device="cpu")
    encoder.keep_frozen(2)
    assert encoder.frozen is None
