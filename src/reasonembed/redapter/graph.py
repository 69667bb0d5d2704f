"""How much memory the graph of a forward pass holds for its backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


class GraphMemory:
    """`size_bytes`: what the passes run under `counting` keep, each storage once, weights apart."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}

    @property
    def size_bytes(self) -> int:
        """Bytes kept so far."""
        return sum(self._sizes.values())

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """While it lasts, what autograd saves is counted; nothing else changes."""

        def count(tensor: Tensor) -> Tensor:
            if not (tensor.is_leaf and tensor.requires_grad):  # a weight is there anyway
                storage = tensor.untyped_storage()
                self._sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, _same):
            yield


def _same(tensor: Tensor) -> Tensor:
    return tensor


__all__ = ["GraphMemory"]
