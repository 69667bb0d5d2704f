"""AdamW and its schedule: linear up, linear down (paper, Sec. 4.1); its state whole, or shared out (ZeRO)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.deepspeed import DeepSpeedAdamW
from reasonembed.redapter.gather import ALONE, Ranks
from reasonembed.redapter.sharding import whole

Optimizer = torch.optim.AdamW | DeepSpeedAdamW


class SharedAdamW(torch.optim.AdamW):
    """AdamW of several processes, each of which keeps the state of some weights, steps those and hands them on.

    Stage 1 of ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054). All hold all weights and the whole gradient, so that
    the weights come out as from one AdamW to the bit. Our own rather than PyTorch's ZeroRedundancyOptimizer, which
    pickles the state to gather it, and holds what it loads twice.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], ranks: Ranks, *, lr: float) -> None:
        super().__init__(groups, lr=lr, fused=True)
        self._ranks = ranks
        self._weights = [parameter for group in self.param_groups for parameter in group["params"]]
        self._owners = _dealt([parameter.numel() for parameter in self._weights], ranks.size)

    def owns(self, number: int) -> bool:
        """Whether this process steps the weight of this number, counted through the groups."""
        return self._owners[number] == self._ranks.rank

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Step this process's weights and take the others' from those that stepped them; their gradients are let go.

        All processes must call this, with the same gradient.
        """
        assert closure is None, "the gradient is there before the step"
        stepped = [parameter.grad is not None for parameter in self._weights]
        for number, parameter in enumerate(self._weights):
            if not self.owns(number):
                parameter.grad = None  # without one AdamW passes a weight over, and makes no state for it
        super().step()
        for parameter, owner, moved in zip(self._weights, self._owners, stepped, strict=True):
            if moved:
                self._ranks.hand_on(parameter, owner)

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight's state as `number.name`, one tensor after the other. All processes must go through it."""
        for number, parameter in enumerate(self._weights):
            found = self.state.get(parameter, {})  # not [parameter], which would begin a state
            if not self._ranks.largest(len(found)):
                continue  # a weight that has had no gradient so far
            for name in ("step", "exp_avg", "exp_avg_sq"):
                room = torch.zeros((), device=parameter.device) if name == "step" else torch.empty_like(parameter)
                yield f"{number}.{name}", self._ranks.hand_on(found.get(name, room), self._owners[number])


def _dealt(sizes: Sequence[int], processes: int) -> list[int]:
    """Which process gets each weight: the largest first, each to the one that has least so far."""
    held = [0] * processes
    owners = [0] * len(sizes)
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        owner = held.index(min(held))
        owners[number] = owner
        held[owner] += sizes[number]
    return owners


def make_optimizer(model: torch.nn.Module, config: TrainConfig, ranks: Ranks = ALONE) -> Optimizer:
    """AdamW over what trains; biases and norms do not decay.

    ranks: the processes that share its state out, where `shard_optimizer` asks for it, or their launcher for DeepSpeed.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in trained if parameter.ndim >= 2],
            "weight_decay": config.weight_decay,
        },
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if ranks.deepspeed:
        return DeepSpeedAdamW(groups, ranks, lr=config.learning_rate, clip=config.gradient_clip or 0.0)
    if config.shard_optimizer and ranks.size > 1:
        return SharedAdamW(groups, ranks, lr=config.learning_rate)
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def take_step(
    optimizer: Optimizer, model: torch.nn.Module, rate: float, *, clip: float | None, ranks: Ranks = ALONE
) -> float:
    """Clip the gradient to a norm of `clip`, step at this learning rate, and let the gradient go.

    The norm before clipping; not finite if it was not so in one process, and then no weight has moved. All processes
    must call this, with the gradient that `Ranks.sum_gradients` left.
    """
    if isinstance(optimizer, DeepSpeedAdamW):
        return optimizer.take(rate)
    trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = float(whole(torch.nn.utils.clip_grad_norm_(trained, clip or math.inf))) if trained else 0.0
    if ranks.largest(not math.isfinite(norm)):
        return norm if not math.isfinite(norm) else math.nan
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def learning_rate_at(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of the step that follows `step` others: linear warm-up, then linear decay to 0.

    Our reading: the first step moves already, by 1 / warm-up steps of the peak, where many trainers spend
    it at 0.
    """
    warmup = math.ceil(steps * config.warmup_share)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * (steps - step) / max(1, steps - warmup)
