"""Each process holds a part of every weight, its gradient and its optimiser state: FSDP2.

PyTorch's `fully_shard` (Zhao et al. 2023, arXiv:2304.11277) puts a layer's weights together while the layer runs and
hands its gradient back in parts. All processes take part whenever any runs a layer, so that all must run the model
equally often (`Ranks.even`). What leaves the training, checkpoints and model, is whole again: a sharded training may
go on unsharded, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from reasonembed.encoder.lora import layer_stack
from reasonembed.errors import ConfigError
from reasonembed.redapter.gather import Ranks


def shard_model(model: Any, ranks: Ranks) -> None:
    """Leave this process its part of each weight of `model`, which all processes must hold alike.

    Gradients come from the backward pass summed over the processes, as `Ranks.sum_gradients` leaves them.
    Raises ConfigError if this torch cannot sum them.
    """
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise ConfigError(
            f"shard is set, and torch {torch.__version__} cannot add up the gradients of sharded weights "
            f"(set_force_sum_reduction_for_comms). Install a newer torch, or leave shard out."
        )
    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    for module in (*layer_stack(model), model):
        sharded: FSDPModule = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        sharded.set_gradient_divide_factor(1.0)  # a mean over processes otherwise
        sharded.set_force_sum_reduction_for_comms(True)  # Gloo knows no other


def whole(tensor: Tensor) -> Tensor:
    """`tensor`, put together from all processes' parts where it is sharded. All must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_tensors(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Each tensor whole, those that were sharded in the CPU's memory. All processes must call this.

    keep: False takes part and comes back with nothing: one tensor at a time is held.
    """
    found = {}
    for name, tensor in tensors.items():
        gathered = whole(tensor)
        if keep:
            found[name] = gathered.cpu() if isinstance(tensor, DTensor) else gathered
    return found


def part_for(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Of a whole `tensor` in the shape of `parameter`, what belongs to this process's part of it.

    Where the parameter is not sharded, or the tensor has another shape (a count of steps), all of it.
    """
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        placed = tensor.to(parameter.device)
        return distribute_tensor(placed, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return tensor


__all__ = ["part_for", "shard_model", "whole", "whole_tensors"]
