"""The saved model keeps a share of the base's weights: the mean of both, between what was learned and what was known.

Wortsman et al. 2022 (WiSE-FT, arXiv 2109.01903), for retrieval Xiao et al. 2023 (LM-Cocktail, arXiv 2311.13534). The
training itself knows nothing of it: checkpoints hold the trained weights, and validation judges what would be saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from reasonembed.redapter.checkpoint import trained_weights


class BaseShare:
    """Mixes the weights that train with what they were before the first step, kept in the CPU's memory."""

    def __init__(self, model: nn.Module, share: float) -> None:
        """model: as it is before the first step; of a sharded one, this process's part is kept.  share: the base's part
        of each weight, at least 0 and below 1; at 0 nothing is kept, and nothing is ever changed.
        """
        self._share = share
        self._base = {name: weight.to("cpu", copy=True) for name, weight in _mixable(model).items()} if share else {}

    def mix(self, model: nn.Module) -> None:
        """Make each weight of `model` `(1 - share) x` itself `+ share x` the base's."""
        weights = _mixable(model)
        for name, base in self._base.items():
            weights[name].lerp_(base.to(weights[name].device), self._share)

    @contextlib.contextmanager
    def mixed(self, model: nn.Module) -> Iterator[None]:
        """While it lasts `model` is mixed; afterwards its weights are what they were, to the bit."""
        weights = _mixable(model)
        trained = {name: weights[name].clone() for name in self._base}
        self.mix(model)
        try:
            yield
        finally:
            for name, weight in trained.items():
                weights[name].copy_(weight)


def _mixable(model: nn.Module) -> dict[str, Tensor]:
    """The weights that train, without LoRA's A: B, 0 at first, scales what the adapters add to the base."""
    weights = trained_weights(model)
    return {name: _own_part(weight) for name, weight in weights.items() if ".lora_A." not in name}


def _own_part(weight: Tensor) -> Tensor:
    """Of a sharded weight, this process's part, in the same memory."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


__all__ = ["BaseShare"]
