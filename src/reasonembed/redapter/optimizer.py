"""AdamW and its schedule: linear up, linear down (paper, Sec. 4.1)."""

from __future__ import annotations

import math

import torch

from reasonembed.redapter.config import TrainConfig


def make_optimizer(model: torch.nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over what trains; biases and norms do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in trained if parameter.ndim >= 2],
            "weight_decay": config.weight_decay,
        },
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=True)


def learning_rate_at(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of the step that follows `step` others: linear warm-up, then linear decay to 0.

    Our reading: the first step moves already, by 1 / warm-up steps of the peak, where many trainers spend
    it at 0.
    """
    warmup = math.ceil(steps * config.warmup_share)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * (steps - step) / max(1, steps - warmup)
