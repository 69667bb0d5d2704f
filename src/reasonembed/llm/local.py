"""A model in this process answers: requests of like length are gathered into batches and written by transformers."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from reasonembed.errors import EndpointError, MissingExtra
from reasonembed.llm.backend import Ask
from reasonembed.llm.chat import Failure, Reply, Request, Usage
from reasonembed.llm.prices import LOCAL
from reasonembed.llm.replies import read_text

if TYPE_CHECKING:
    from reasonembed.llm.decoding import Row, Shape

IN_FLIGHT = 256  # requests that the door hands over at once: as many to choose batches from
_GATHER_S = 0.01  # the door's other workers come within it, so that batches are full
_SEEDS = 2**63


class _Job(msgspec.Struct, eq=False):
    custom_id: str
    row: Row
    reply: asyncio.Future[Reply]


class LocalBackend:
    """Answers with a model in a folder or of the hub, by the model's chat template (see `decoding`, `local_model`).

    A reply depends on its request alone, whatever else is in the batch. What a request leaves open (`top_p`,
    `top_k`) is as the model's `generation_config.json` has it. Weights are loaded when the first request comes.
    Raises MissingExtra without torch and transformers, InputError for a folder that is no such model.
    """

    honours_conditions = True
    keyed_by_custom_id = False

    def __init__(self, name: str) -> None:
        missing = [module for module in ("torch", "transformers") if importlib.util.find_spec(module) is None]
        if missing:
            raise MissingExtra(
                f"a model in process needs {' and '.join(missing)}, not installed here. Install PyTorch for your "
                f"machine, then: pip install 'reasonembed[train]'"
            )
        from reasonembed.llm.local_model import LocalModel

        self.local = LocalModel(name)
        label = Path(name).resolve().name if Path(name).is_dir() else name
        self.model = f"{LOCAL}{label}@{self.local.identity}"

    def __repr__(self) -> str:
        return f"LocalBackend({self.model!r})"

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """A function that answers requests, in batches; when the block ends, a batch stops at its next token."""
        waiting = _Waiting()
        stopped = threading.Event()
        serving = asyncio.create_task(self._serve(waiting, stopped))

        async def ask(request: Request) -> Reply:
            job = self._job(request)
            return job if isinstance(job, Reply) else await waiting.put(self._shape(request, job), request, job)

        try:
            yield ask
        finally:
            stopped.set()
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving

    def _job(self, request: Request) -> Row | Reply:
        """What is to be written for `request`, or the failure of one that cannot be."""
        from reasonembed.llm.decoding import Row

        sampling, local = request.sampling, self.local
        try:
            prompt_ids = local.prompt(request)
        except ValueError as error:
            return _invalid(request, str(error))
        room = sampling.max_tokens if local.window is None else local.window - len(prompt_ids)
        if room < 1:
            return _invalid(request, f"the prompt has {len(prompt_ids)} tokens; the model reads {local.window} at most")
        return Row(
            prompt_ids=prompt_ids,
            max_tokens=min(sampling.max_tokens, room),
            temperature=sampling.temperature,
            top_p=local.top_p if sampling.top_p is None else sampling.top_p,
            top_k=local.top_k if sampling.top_k is None else sampling.top_k,
            seed=(request.seed % _SEEDS, request.sample_index),
        )

    def _shape(self, request: Request, row: Row) -> Shape:
        from reasonembed.llm.decoding import Shape, padded_width

        return Shape(padded_width(len(row.prompt_ids)), request.sampling.max_tokens)

    async def _serve(self, waiting: _Waiting, stopped: threading.Event) -> None:
        await waiting.something()
        budget = await asyncio.to_thread(lambda: self.local.token_budget)
        while True:
            await waiting.something()
            await asyncio.sleep(_GATHER_S)
            shape, jobs = waiting.take(budget)
            writing = asyncio.ensure_future(asyncio.to_thread(self._write, shape, jobs, budget, stopped))
            await asyncio.wait([writing])
            error = writing.exception()
            for number, job in enumerate(jobs):
                if job.reply.done():
                    continue
                if error is not None:
                    job.reply.set_exception(error)
                else:
                    job.reply.set_result(writing.result()[number])

    def _write(self, shape: Shape, jobs: list[_Job], budget: int, stopped: threading.Event) -> list[Reply]:
        import torch

        from reasonembed.llm.decoding import write

        count = shape.rows(budget)
        rows = [job.row for job in jobs]
        try:
            written = write(
                self.local.weights, rows, shape=shape, count=count, ends=self.local.ends, stopped=stopped.is_set
            )
        except torch.OutOfMemoryError as error:
            raise EndpointError(
                f"{self.model}: {count} rows of {shape.width} + {shape.max_tokens} tokens do not fit into the memory "
                f"of {self.local.device}. Lower max_tokens, choose a smaller model, or serve it over HTTP."
            ) from error
        return [self._reply(job, tokens) for job, tokens in zip(jobs, written, strict=True)]

    def _reply(self, job: _Job, tokens: list[int]) -> Reply:
        ended = bool(tokens) and tokens[-1] in self.local.ends
        usage = Usage(prompt_tokens=len(job.row.prompt_ids), completion_tokens=len(tokens))
        return read_text(
            self.local.text(tokens), job.custom_id, finish_reason="stop" if ended else "length", usage=usage
        )


class _Waiting:
    """Jobs by the shape of batch that they need."""

    def __init__(self) -> None:
        self._jobs: dict[Shape, deque[_Job]] = {}
        self._arrived = asyncio.Event()

    async def put(self, shape: Shape, request: Request, row: Row) -> Reply:
        """The reply, once the job was taken and done."""
        job = _Job(request.custom_id, row, asyncio.get_running_loop().create_future())
        self._jobs.setdefault(shape, deque()).append(job)
        self._arrived.set()
        return await job.reply

    async def something(self) -> None:
        """Until a job waits."""
        await self._arrived.wait()

    def take(self, budget: int) -> tuple[Shape, list[_Job]]:
        """The jobs of the fullest batch."""
        shape = max(self._jobs, key=lambda one: min(1.0, len(self._jobs[one]) / one.rows(budget)))
        queue = self._jobs[shape]
        jobs = [queue.popleft() for _ in range(min(len(queue), shape.rows(budget)))]
        if not queue:
            del self._jobs[shape]
        if not self._jobs:
            self._arrived.clear()
        return shape, jobs


def _invalid(request: Request, detail: str) -> Reply:
    return Reply(custom_id=request.custom_id, text="", failure=Failure("invalid", detail))


__all__ = ["LocalBackend"]
