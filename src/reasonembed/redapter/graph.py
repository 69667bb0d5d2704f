"""How much memory the graph of a forward pass holds for its backward pass, and how it holds less."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class GraphMemory:
    """`size_bytes`: what the passes of `model` run under `counting` keep, each storage once, its weights apart."""

    def __init__(self, model: nn.Module) -> None:
        self._sizes: dict[int, int] = {}
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    @property
    def size_bytes(self) -> int:
        """Bytes kept so far."""
        return sum(self._sizes.values())

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """While it lasts, what autograd saves is counted; nothing else changes."""

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._weights:  # a weight, frozen or not, is there anyway
                self._sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, _same):
            yield


def checkpoint_activations(layers: Iterable[nn.Module], *, drops: bool = False) -> None:
    """From now on the graph keeps the input of each layer only; the backward pass runs the layer again (Chen et al.
    2016, arXiv:1604.06174). Gradients are the same.

    drops: the layers have dropout, and are to drop the same when they are run again.
    Our choice: torch's `checkpoint` around each layer. The switch of transformers acts in training mode alone.
    """
    for layer in layers:
        layer.forward = functools.partial(  # inside the layer's hooks, which run once
            checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=drops
        )


def _same(tensor: Tensor) -> Tensor:
    return tensor


__all__ = ["GraphMemory", "checkpoint_activations"]
