"""DeepSpeed's optimiser in the place of ours, where `accelerate launch` is configured for it: ZeRO stage 1.

Each process keeps AdamW's state for its part of all weights (Rajbhandari et al. 2020, arXiv:1910.02054), as with
`optimizer.SharedAdamW`; the library adds the gradients up, clips them, steps, and hands the weights round. The loop
stays ours: many small backward passes leave a process's part of the gradient in the weights, and the step is the one
accumulation boundary. Checkpoints hold whole state: a training may go on without DeepSpeed, or with more processes.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from reasonembed.errors import ConfigError
from reasonembed.redapter.gather import Ranks, someone_may_be_gone

_MOMENTS = ("exp_avg", "exp_avg_sq")


class _Piece(NamedTuple):
    """The part of a weight that this process steps, possibly none of it."""

    flat: Tensor  # of the weight's group, all that this process steps, in one row
    in_flat: slice
    in_weight: slice  # the weight in one row


class DeepSpeedAdamW:
    """AdamW over groups of weights, stepped by DeepSpeed's ZeRO stage 1. All processes must call each method together.

    A weight that no text reaches decays like the others, where PyTorch's AdamW passes it over.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], ranks: Ranks, *, lr: float, clip: float) -> None:
        """clip: the largest norm of the gradient; 0: any. The weights of `groups` move into DeepSpeed's memory."""
        self._ranks = ranks
        self._weights: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        sizes = [len(group["params"]) for group in groups]
        self._adamw = torch.optim.AdamW(groups, lr=lr, fused=True)
        self._engine = _engine(self._weights, self._adamw, clip, ranks)
        flats = [group["params"][0] for group in self._adamw.param_groups]  # DeepSpeed has put them there
        of_weight = [flat for flat, size in zip(flats, sizes, strict=True) for _ in range(size)]
        self._pieces = [_piece(weight, flat, ranks) for weight, flat in zip(self._weights, of_weight, strict=True)]

    def take(self, rate: float) -> float:
        """Add the processes' gradients up, clip, step at this learning rate, and let the gradients go.

        The norm before clipping; nan where it was not finite, and then no weight has moved.
        """
        for group in self._adamw.param_groups:
            group["lr"] = rate
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        finite = torch.stack(torch._foreach_norm(gradients)).isfinite().all()
        if self._ranks.largest(not finite):  # before 0.19.7 DeepSpeed would step all the same
            return math.nan
        torch._foreach_mul_(gradients, self._ranks.size)  # DeepSpeed takes the mean over processes, we the sum
        with someone_may_be_gone():
            self._engine.allreduce_gradients()
            self._engine.step()
        return float(self._engine.get_global_grad_norm()) if self._engine.was_step_applied() else math.nan

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let the gradients go; they are never kept as zeros."""
        assert set_to_none
        self._engine.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """This process's part, as AdamW tells it of DeepSpeed's rows."""
        return self._adamw.state_dict()

    def whole_state(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight's state as `number.name`, one tensor after the other."""
        for number, (weight, piece) in enumerate(zip(self._weights, self._pieces, strict=True)):
            found = self._adamw.state.get(piece.flat, {})
            if not found:  # before the first step
                continue
            yield f"{number}.step", found["step"].clone()  # one for the group; files share nothing
            for name in _MOMENTS:
                room = torch.zeros_like(weight).flatten()
                room[piece.in_weight] = found[name][piece.in_flat]
                self._ranks.gather_rows(room.view(torch.uint8))  # as bytes: adding 0 to -0 would give 0
                yield f"{number}.{name}", room.view_as(weight)

    def load_whole_state(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Take this process's part of what `whole_state` told, by number; the weights must be back already."""
        self._adamw.state.clear()
        for number, entry in state.items():
            piece = self._pieces[number]
            mine = self._adamw.state[piece.flat]
            for name in _MOMENTS:
                row = mine.setdefault(name, torch.zeros_like(piece.flat))
                row[piece.in_flat] = entry[name].flatten()[piece.in_weight].to(row.device)
            mine["step"] = entry["step"].to(piece.flat.device, torch.float32)
        self._engine.optimizer.refresh_fp32_params()  # what it steps is a copy of the weights


def _engine(weights: Sequence[nn.Parameter], adamw: torch.optim.AdamW, clip: float, ranks: Ranks) -> Any:
    """DeepSpeed's engine around `adamw`, for weights that are float32."""
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.WARNING)
    if ranks.device.type == "cpu":  # its own all-reduce there wants a compiler and half a minute, Gloo does not
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    warnings.filterwarnings("ignore", message="`torch.distributed.all_gather_into_tensor`", category=FutureWarning)
    engine, *_ = deepspeed.initialize(
        # what trains and no more: the first process sends the others all that an engine is given, frozen weights too
        model=nn.ParameterList(weights),
        optimizer=adamw,
        config={
            "train_micro_batch_size_per_gpu": 1,  # asked for, and used for its own log alone
            "gradient_clipping": clip,
            "steps_per_print": None,
            "zero_optimization": {"stage": 1},
        },
        dist_init_required=False,
    )
    engine.set_gradient_accumulation_boundary(True)
    return engine


def _piece(weight: nn.Parameter, flat: Tensor, ranks: Ranks) -> _Piece:
    """Where DeepSpeed has put `weight` in the row of its group, of which `flat` is this process's part."""
    row = weight.untyped_storage().nbytes() // weight.element_size()
    if row != flat.numel() * ranks.size:
        raise ConfigError(
            f"DeepSpeed has laid {row:,} numbers out for {ranks.size} parts of {flat.numel():,}; this training knows "
            f"the layout of versions 0.19. Install one of them, or launch without DeepSpeed and set shard_optimizer."
        )
    begin = weight.storage_offset() - ranks.rank * flat.numel()
    low, high = (min(max(edge, 0), flat.numel()) for edge in (begin, begin + weight.numel()))
    return _Piece(flat, slice(low, high), slice(low - begin, high - begin))


__all__ = ["DeepSpeedAdamW"]
