"""Dropout in training: drawn anew each step, and alike in all passes of a step.

A step embeds its texts twice (`gradcache.py`). The gradient is that of the loss only if both passes drop the same
activations, so what a micro-batch draws is a pure function of seed, step, process and its place in the step. A step
that is repeated, or resumed, draws the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from reasonembed.encoder.lora import layer_stack
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.packed import CHECK_TEXTS
from reasonembed.errors import ConfigError
from reasonembed.files import sha256_json
from reasonembed.redapter.config import TrainConfig

Draws = Callable[[int], AbstractContextManager[None]]
"""While `draws(place)` lasts, what is dropped is what the micro-batch at that place of the step draws."""


def no_draws(_place: int) -> AbstractContextManager[None]:
    """Nothing is dropped."""
    return contextlib.nullcontext()


class Dropout:
    """The modules of an encoder that drop, and when they do; out of a step they are in evaluation mode."""

    def __init__(self, encoder: Encoder, config: TrainConfig, *, rank: int = 0) -> None:
        """rank: of this process, each of which draws for itself.

        Raises ConfigError where `config` asks for the base's dropout and it has none, or packed texts cannot have it.
        """
        self._device = encoder.device
        self._origin = [config.seed, rank]
        self._modules = _dropping(encoder, config)
        if config.dropout:
            self._check(encoder)

    @contextlib.contextmanager
    def acting(self, step: int) -> Iterator[Draws]:
        """While it lasts, the modules drop; `step` counts the steps before this one."""
        if not self._modules:
            yield no_draws
            return

        @contextlib.contextmanager
        def draws(place: int) -> Iterator[None]:
            with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
                torch.manual_seed(int(sha256_json([*self._origin, step, place])[:15], 16))
                yield

        for module in self._modules:
            module.train()
        try:
            yield draws
        finally:
            for module in self._modules:
                module.eval()

    @torch.no_grad()
    def _check(self, encoder: Encoder) -> None:
        ids = encoder.tokenize(CHECK_TEXTS)
        vectors = []
        with self.acting(0) as draws:
            for place in range(2):
                with draws(place):
                    vectors.append(encoder.embed(ids))
        if torch.equal(*vectors):
            raise ConfigError(
                f"dropout is true, and nothing that trains in {encoder.name} drops anything: every probability in its "
                f"configuration is 0, as it is for most decoders. Leave dropout out; adapters have their own, "
                f"lora = {{ dropout = 0.1 }}."
            )


def _dropping(encoder: Encoder, config: TrainConfig) -> Sequence[nn.Module]:
    if config.dropout:
        if config.train_layers is not None:
            return list(layer_stack(encoder.model)[-config.train_layers :])
        return [encoder.model]
    if config.lora is not None and config.lora.dropout:
        return [module for name, module in encoder.model.named_modules() if name.endswith("lora_dropout")]
    return []


__all__ = ["Draws", "Dropout", "no_draws"]
