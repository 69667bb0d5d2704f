"""Several processes as one: each embeds its share of a global batch's texts, and all hold the same gradient (law 5).

Every process knows the whole batch, which is a pure function of seed, epoch and step. It embeds its share of the
distinct texts, the vectors of all are gathered, and each process takes the loss over the whole batch. The gradient
of that loss at its own vectors is then complete: no process need send a gradient back to another, as it must where
each takes the loss of its own queries only. What a process hands on to the weights is its texts' part of the whole
gradient; the sum over processes, not their mean, is the gradient of the batch on one process.

Shapes: U distinct texts, D dimensions.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from reasonembed.encoder.microbatch import Rows
from reasonembed.errors import ReasonEmbedError
from reasonembed.redapter.launch import asks_for_deepspeed

_TIMEOUT_S = 1800  # our choice: longer than writing the largest model takes, which the others wait for
_BUCKET_BYTES = 64 << 20  # gradients are summed so many at once: few messages, little extra memory

T = TypeVar("T")


class Ranks(NamedTuple):
    """This process among those that train together. Alone, every method is the identity.

    All processes must call the same methods in the same order. Each raises ReasonEmbedError if a process is gone.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    sharded: bool = False  # each holds a part of every weight, which all gather whenever the model runs (sharding.py)
    deepspeed: bool = False  # DeepSpeed's optimiser adds the gradients up when it steps (deepspeed.py)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def share(self, rows: Rows, lengths: Rows) -> Rows:
        """This process's part of `rows`: dealt out by length, so that all get like work; possibly none.

        lengths: tokens of each text, indexed by row.
        """
        by_length = rows[np.argsort(-lengths[rows], kind="stable")]
        return np.sort(by_length[self.rank :: self.size])

    def even(self, batches: list[Rows]) -> list[Rows]:
        """`batches`; where weights are sharded, with empty ones after them, until all processes have equally many."""
        most = self.largest(len(batches)) if self.sharded else 0
        return batches + [np.empty(0, dtype=np.intp)] * (most - len(batches))

    def gather_rows(self, vectors_UD: Tensor) -> Tensor:
        """The vectors of all processes, each of which has filled its own rows and left the others 0; no gradient."""
        return self._over_all(vectors_UD, torch.distributed.ReduceOp.SUM)

    def total(self, *values: int) -> list[int]:
        """The sum of each value over the processes."""
        counts = torch.tensor(values, dtype=torch.int64, device=self.device)
        return [int(value) for value in self._over_all(counts, torch.distributed.ReduceOp.SUM)]

    def largest(self, value: int) -> int:
        """The greatest value of any process, for all of them."""
        found = torch.tensor(value, dtype=torch.int64, device=self.device)
        return int(self._over_all(found, torch.distributed.ReduceOp.MAX))

    def wait(self) -> None:
        """Come back once every process has come here."""
        self.largest(0)

    def together(self, work: Callable[[], T]) -> T:
        """What `work` gives here; where memory runs out in any process, torch.OutOfMemoryError in all of them.

        With sharded weights in that process alone: the others stand in the midst of `work`, waiting for its part,
        and when it is gone PyTorch's own RuntimeError says so.
        """
        if self.sharded:
            return work()
        done: list[T] = []
        with contextlib.suppress(torch.OutOfMemoryError):  # which lets go of what the attempt held
            done.append(work())
        if self.largest(not done):
            done.clear()
            raise torch.OutOfMemoryError("memory ran out in this process or another")
        return done[0]

    def agree(self, name: str) -> bool:
        """Whether all processes call this with the same hexadecimal `name`, for all of them."""
        number = int(name[:15], 16)
        return self.largest(number) == -self.largest(-number)

    def same_weights(self, model: nn.Module) -> None:
        """Give every process the first one's weights, as far as they train."""
        with torch.no_grad():
            for parameter in _trained(model):
                self.hand_on(parameter, 0)

    def hand_on(self, tensor: Tensor, owner: int) -> Tensor:
        """`tensor`, filled in place with what the process `owner` holds in it."""
        if self.size > 1:
            with someone_may_be_gone():
                torch.distributed.broadcast(tensor, src=owner)
        return tensor

    def sum_gradients(self, model: nn.Module) -> None:
        """Make every process's gradient the sum over all; weights without one anywhere stay without.

        Sharded weights come with that sum from the backward pass; for DeepSpeed each process keeps its part of it.
        """
        if self.size == 1 or self.sharded:
            return
        trained = _trained(model)
        present = torch.tensor([parameter.grad is not None for parameter in trained], device=self.device).int()
        self._over_all(present, torch.distributed.ReduceOp.MAX)
        gradients = []
        for parameter, somewhere in zip(trained, present.tolist(), strict=True):
            if somewhere:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        if self.deepspeed:
            return
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            self._over_all(flat, torch.distributed.ReduceOp.SUM)
            for gradient, whole in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                gradient.copy_(whole.view_as(gradient))

    def _over_all(self, tensor: Tensor, how: torch.distributed.ReduceOp.RedOpType) -> Tensor:
        """`tensor`, reduced in place."""
        if self.size > 1:
            with someone_may_be_gone():
                torch.distributed.all_reduce(tensor, how)
        return tensor


ALONE = Ranks()


def join_ranks(*, shard: bool = False) -> Ranks:
    """Meet the other processes that `torchrun` or `accelerate launch` started; alone where neither did.

    A GPU for each process, with NCCL between them; without GPUs the processor, with Gloo. A process that is not
    heard of for half an hour counts as gone.
    shard: whether several are to share the weights out (sharding.py does it).
    Raises ConfigError or MissingExtra if the launcher asks for what this training does not take, or have (launch.py).
    """
    deepspeed = asks_for_deepspeed(shard=shard)
    from accelerate import PartialState

    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    on_cpu = launched and not torch.cuda.is_available()
    options = {"timeout": datetime.timedelta(seconds=_TIMEOUT_S)} if launched else {}
    state = PartialState(cpu=on_cpu, **options)
    several = state.num_processes > 1
    if several:
        atexit.register(_leave)
    sharded, deepspeed = shard and several, deepspeed and several
    return Ranks(state.process_index, state.num_processes, state.device, sharded=sharded, deepspeed=deepspeed)


def _leave() -> None:
    """Part from the other processes: while Gloo's threads run, a process that ends is aborted now and then."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def someone_may_be_gone() -> Iterator[None]:
    """Around what needs the other processes: raises ReasonEmbedError where it fails."""
    try:
        yield
    except RuntimeError as error:
        raise ReasonEmbedError(
            f"another process of this training is gone or does not answer: {error}. Its own message says why; the "
            f"same command goes on from the last checkpoint."
        ) from error


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of tensors of one type, of about `_BUCKET_BYTES` each."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        size = sum(one.nbytes for one in bucket)
        if bucket and (tensor.dtype != bucket[0].dtype or size + tensor.nbytes > _BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


__all__ = ["ALONE", "Ranks", "join_ranks", "someone_may_be_gone"]
