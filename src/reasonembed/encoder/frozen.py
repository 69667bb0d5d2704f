"""Frozen lower layers: what they make of a text never changes in training, so it is computed once a text and kept.

Shapes: B texts in a batch, T tokens, D dimension.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reasonembed.encoder.tokens import TokenIds, pad

STATES_BYTES = 2 << 30  # our choice: beyond that, states are computed anew at each use


class _Reached(Exception):
    """The forward pass has come to the first layer that trains; `args[0]` is that layer's input."""


class FrozenStates:
    """Token ids of a text -> its hidden states (T, D) behind the frozen layers.

    One object may serve several trainings that start from the same weights and train the same layers.
    """

    def __init__(self, limit_bytes: int = STATES_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self.origin: object = None  # what the states were computed with; see `FrozenLayers`
        self._states: dict[bytes, Tensor] = {}

    def __len__(self) -> int:
        return len(self._states)

    def get(self, ids: TokenIds, compute: Callable[[TokenIds], Tensor]) -> Tensor:
        """The states of a text, computed at its first use and kept while there is room."""
        key = ids.tobytes()
        found = self._states.get(key)
        if found is None:
            found = compute(ids)
            size = found.numel() * found.element_size()
            if self.size_bytes + size <= self.limit_bytes:
                self._states[key] = found
                self.size_bytes += size
        return found


class FrozenLayers:
    """Runs a model's layers that train on the kept output of those that do not.

    The model's own forward pass is used for both parts: for a text's first visit it is left at the first layer
    that trains; afterwards the layers below pass their input through and that layer is handed the states. A
    text's states are computed by itself, without padding, so that they depend on nothing else (law 6).
    """

    def __init__(self, model: Any, layers: nn.ModuleList, first_trained: int, states: FrozenStates) -> None:
        """layers: the model's stack, of which those from `first_trained` on train.

        Raises ValueError if `states` come from other weights.
        """
        self.states = states
        self._frozen = list(layers[:first_trained])
        self._first = layers[first_trained]
        origin = _weights_name(self._frozen)
        if states.origin not in (None, origin):
            raise ValueError("these frozen states were computed with other weights, or for other layers")
        states.origin = origin
        self._model = model

    def __call__(self, ids: Sequence[TokenIds], inputs: Mapping[str, Any], *, packed: bool = False) -> Tensor:
        """The last hidden states of a batch, shape (B, T, D); `inputs` are the model's own, padded on the right.

        packed: they are those of packed texts, one row for all.
        """
        states = [self.states.get(row, self._below) for row in ids]
        states_BTD = torch.cat(states)[None] if packed else nn.utils.rnn.pad_sequence(states, batch_first=True)
        with self._passing_through(), self._entering(lambda _: states_BTD):
            return self._model(**inputs).last_hidden_state

    def _below(self, ids: TokenIds) -> Tensor:
        """The states of one text, (T, D); no gradient."""

        def leave(hidden_BTD: Tensor) -> Tensor:
            raise _Reached(hidden_BTD)

        input_BT, _ = pad([ids], 0)
        device = next(self._first.parameters()).device
        with torch.no_grad(), self._entering(leave):
            try:
                self._model(input_ids=input_BT.to(device))
            except _Reached as reached:
                return reached.args[0][0].detach().clone()
        raise AssertionError("the model never came to its first layer that trains")

    @contextlib.contextmanager
    def _entering(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """While it lasts, the first layer that trains takes `change(its input)`."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

        handle = self._first.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @contextlib.contextmanager
    def _passing_through(self) -> Iterator[None]:
        """While it lasts, the frozen layers give back what they are given."""
        for layer in self._frozen:
            layer.forward = _same
        try:
            yield
        finally:
            for layer in self._frozen:
                del layer.forward


def _same(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _weights_name(layers: Sequence[nn.Module]) -> tuple[int, float]:
    """Tells other weights and another number of layers apart: enough against a mix-up, no proof."""
    sums = [float(parameter.detach().double().sum()) for layer in layers for parameter in layer.parameters()]
    return len(layers), float(sum(place * value for place, value in enumerate(sums, 1)))


__all__ = ["FrozenLayers", "FrozenStates"]
