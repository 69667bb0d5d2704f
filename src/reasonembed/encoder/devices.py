"""One model on several devices, seen as one encoder: a process for each device, texts handed out in chunks.

N: texts, D: dimension.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from reasonembed.errors import ConfigError, ReasonEmbedError

if TYPE_CHECKING:
    from reasonembed.encoder.model import Encoder

_CHUNK_TEXTS = 512  # at most, at once to a process: enough for full micro-batches, small enough to share evenly
_CHUNKS_EACH = 4  # at least, for each process where there are texts enough: the last to finish finishes soon

_loaded: Encoder | ReasonEmbedError | None = None  # of a worker process: its model, or why it has none


class Facts(msgspec.Struct, frozen=True):
    """What is known of the model that the workers hold."""

    name: str
    dimension: int
    max_tokens: int
    position_limit: int | None
    dtype: str
    pooling: str
    prompts: dict[str, str]


class EncoderPool:
    """The model at `path_or_name` on each of `devices`; has the attributes and the `encode` of an `Encoder`.

    devices: as PyTorch names them; `cpu` may repeat, its cores are then shared out. The vectors are those of one
    encoder but for rounding. The processes end with `close`, or when the pool is no longer used. In a script of
    your own, make it under `if __name__ == "__main__":`, since the processes import the script.
    """

    def __init__(
        self,
        path_or_name: str | Path,
        devices: Sequence[str],
        *,
        max_tokens: int | None = None,
        dtype: str = "float32",
    ) -> None:
        """Loads the model in every process; raises as `Encoder.load` does, ConfigError for an unknown device."""
        check_devices(devices)
        context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
        places: Any = context.Queue()
        for device in devices:
            places.put(device)
        options = {"max_tokens": max_tokens, "dtype": dtype}
        self.devices = tuple(devices)
        self._pool = ProcessPoolExecutor(
            len(devices), context, initializer=_start, initargs=(places, len(devices), str(path_or_name), options)
        )
        try:
            facts = self._pool.submit(_facts).result()
        except BrokenProcessPool as error:
            raise self._died() from error
        self.name, self.dimension, self.max_tokens = facts.name, facts.dimension, facts.max_tokens
        self.position_limit, self.dtype = facts.position_limit, facts.dtype
        self.pooling, self.prompts = facts.pooling, facts.prompts

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        micro_batch_tokens: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """The vectors of `prompt + text` for each text in order: float32 (N, D), L2-normalised.

        progress: called with (texts done, texts in all) after each chunk. Raises ReasonEmbedError if a process dies.
        """
        vectors_ND = np.empty((len(texts), self.dimension), dtype=np.float32)
        options = {"prompt": prompt, "max_tokens": max_tokens, "micro_batch_tokens": micro_batch_tokens}
        try:
            rows_of = {
                self._pool.submit(_encode, [texts[row] for row in rows], options): rows
                for rows in chunks([len(text) for text in texts], processes=len(self.devices))
            }
            done = 0
            for future in as_completed(rows_of):
                vectors_ND[rows_of[future]] = future.result()
                done += len(rows_of[future])
                if progress:
                    progress(done, len(texts))
        except BrokenProcessPool as error:
            raise self._died() from error
        return vectors_ND

    def close(self) -> None:
        """End the processes; what they have not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> EncoderPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _died(self) -> ReasonEmbedError:
        return ReasonEmbedError(
            f"a process that encodes on {', '.join(dict.fromkeys(self.devices))} died, perhaps for want of memory. "
            f"Give fewer or other devices; in a script of your own, encode under `if __name__ == "
            f'"__main__":`. What is encoded and kept in a cache stays.'
        )


def check_devices(devices: Sequence[str]) -> None:
    """Raise ConfigError unless each name is a device of this machine."""
    import torch

    if not devices:
        raise ConfigError("devices is empty; name at least one, such as cpu or cuda:0.")
    for name in devices:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(f'there is no device "{name}". Name cpu, cuda:0, cuda:1 and so on.') from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(f'the device is "{name}"; this machine has {torch.cuda.device_count()} CUDA devices.')


def chunks(lengths: Sequence[int], *, processes: int) -> list[npt.NDArray[np.intp]]:
    """The places of `lengths` in chunks of like lengths, longest first: what is long is not begun last."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    size = max(1, min(_CHUNK_TEXTS, -(-len(order) // (processes * _CHUNKS_EACH))))
    return [order[start : start + size] for start in range(0, len(order), size)]


def _start(places: Any, processes: int, path: str, options: dict[str, Any]) -> None:
    """A worker's beginning: it takes a device from `places`; what fails is raised by the first call."""
    import torch

    from reasonembed.encoder.model import Encoder

    global _loaded
    device = places.get()
    if device == "cpu":
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
    try:
        _loaded = Encoder.load(path, device=device, **options)
    except ReasonEmbedError as error:
        _loaded = error


def _model() -> Encoder:
    if isinstance(_loaded, ReasonEmbedError):
        raise _loaded
    assert _loaded is not None
    return _loaded


def _facts() -> Facts:
    one = _model()
    return Facts(one.name, one.dimension, one.max_tokens, one.position_limit, one.dtype, one.pooling, one.prompts)


def _encode(texts: list[str], options: dict[str, Any]) -> npt.NDArray[np.float32]:
    return _model().encode(texts, **options)


__all__ = ["EncoderPool", "check_devices", "chunks"]
