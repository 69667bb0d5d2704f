"""Pass 1 of the door by way of provider batch files: write, send, wait, fetch, and merge into the journal.

Killed at any moment, the same command finds the batches that it sent and waits for them; it sends nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from reasonembed.errors import ConfigError, EndpointError, StorageError, shown
from reasonembed.llm.asking import Stream, sum_spent
from reasonembed.llm.batch_api import ENDED, Batch, BatchApi, Refused
from reasonembed.llm.batch_file import MAX_BYTES, MAX_REQUESTS, request_line
from reasonembed.llm.batch_outcomes import BatchOutcomes
from reasonembed.llm.batch_state import BatchState, OpenBatch, state_path
from reasonembed.llm.chat import Reply, Request, Spent, Usage
from reasonembed.llm.client import HttpBackend
from reasonembed.llm.keys import id_bytes
from reasonembed.llm.wire import wire_body

logger = logging.getLogger(__name__)

_CHUNK = 256  # requests looked up in the journal at once
_BYTES_PER_TOKEN = 4  # of a prompt, for the budget, until the provider tells
_DOWNLOADS = 2  # of a file with lines that cannot be read


class BatchAsking:
    """Pass 1 over one stream: what the journal lacks and no open batch holds is sent; then all batches are waited for.

    Requests that come to no answer (an expired batch, a fault at the provider) are named by `raise_failures` and sent
    again by the next run. The budget is kept to what the requests can cost at most.
    """

    def __init__(self, backend: HttpBackend, stream: Stream) -> None:
        self.spent = Spent()  # what was committed so far
        self._backend = backend
        self._stream = stream
        self._jitter = random.Random()
        self._state_path = state_path(stream.journal.path)
        self._open: dict[int, OpenBatch] = {}
        self._shown: Counter[int] = Counter()  # of each batch, on the progress display
        self._failed: set[bytes] = set()
        self._causes: Counter[str] = Counter()
        self._uncounted: Reply | None = None  # whose tokens the provider did not tell
        self._out_of_budget = False

    async def run(self, concurrency: int) -> None:
        """Send everything that is missing and wait for it; what was answered is committed however this ends."""
        with BatchState(self._state_path) as self._state:
            async with self._backend.connections() as connections:
                self._api = BatchApi(self._backend, connections)
                with _Draft(self._state_path.with_suffix(".draft.jsonl")) as self._draft:
                    await self._take_up()
                    await self._send_missing()
                    await self._settle()

    async def _take_up(self) -> None:
        """The batches of earlier runs; one that was sent and not noted as running is looked for first."""
        for batch in self._state.open():
            if batch.model != self._backend.model:
                continue
            if batch.place != self._backend.endpoint.url:
                raise ConfigError(
                    f"{batch.requests:,} requests to {self._backend.model} wait in a batch at {batch.place}, and "
                    f"{self._backend.endpoint.url} is asked now. Let that batch end there first; or delete "
                    f"{self._state_path} to forget it, and pay for its requests again."
                )
            if not batch.batch_id:
                found = await self._api.find(batch.file_id)
                batch = self._state.runs(batch, found.id) if found else await self._start(batch)
            logger.info("%s: %d requests were sent before; waiting for them.", batch.batch_id, batch.requests)
            self._open[batch.number] = batch

    async def _send_missing(self) -> None:
        while chunk := list(islice(self._stream.requests, _CHUNK)):
            keys = [self._stream.key(request) for request in chunk]
            known, waiting = self._stream.journal.contains_many(keys), self._state.waiting(keys)
            found = failures = 0
            for key, request in zip(keys, chunk, strict=True):
                if key in known or key in self._draft.keys:
                    found += 1
                    failures += bool(known.get(key))
                elif key not in waiting and key not in self._failed:
                    body = wire_body(self._backend.endpoint, request)
                    expected = Usage(len(body) // _BYTES_PER_TOKEN + 1, request.sampling.max_tokens)
                    if not await self._has_room(expected):
                        self._out_of_budget = True
                        return
                    await self._draft_one(key, request, body, expected)
                    waiting[key] = (0, b"")
            self.spent = sum_spent(self.spent, Spent(from_journal=found, failures=failures))
            self._stream.advance(found)
            await asyncio.sleep(0)

    async def _has_room(self, expected: Usage) -> bool:
        """Whether one more request fits into the budget, if need be after all that was sent has come back."""
        if self._affords(expected):
            return True
        await self._settle()
        return self._affords(expected)

    def _affords(self, more: Usage) -> bool:
        usages = [batch.expected for batch in self._open.values()] + [self._draft.expected, more]
        calls = sum(batch.requests for batch in self._open.values()) + len(self._draft.keys) + 1
        return self._stream.purse.affords(self._stream.payee, calls=calls, usage=_total(usages))

    async def _draft_one(self, key: bytes, request: Request, body: bytes, expected: Usage) -> None:
        line = request_line(key, body)
        if len(self._draft.keys) == MAX_REQUESTS or self._draft.bytes + len(line) > MAX_BYTES:
            await self._send()
        self._draft.add(key, id_bytes(request.custom_id), line, expected)

    async def _send(self) -> None:
        """Upload the draft and have it answered; noted in between, so that a kill costs nothing."""
        draft = self._draft
        if not draft.keys:
            return
        draft.flush()
        file_id = await self._api.upload(draft.path)
        place = self._backend.endpoint.url
        batch = self._state.add(self._backend.model, place, file_id, list(draft.keys.items()), draft.expected)
        batch = await self._start(batch)
        self._open[batch.number] = batch
        draft.clear()
        logger.info("%s: sent %d requests in one batch.", batch.batch_id, batch.requests)

    async def _start(self, batch: OpenBatch) -> OpenBatch:
        try:
            made = await self._api.create(batch.file_id)
        except Refused:
            self._state.ended(batch, "refused")
            raise
        return self._state.runs(batch, made.id)

    async def _settle(self) -> None:
        """Send the draft, and wait until no batch is open."""
        await self._send()
        quiet = 0
        while self._open:
            moved = [await self._look_at(batch) for batch in list(self._open.values())]
            quiet = 0 if any(moved) else quiet + 1
            if self._open:
                await asyncio.sleep(self._backend.config.backoff_after(quiet + 1) * self._jitter.uniform(0.5, 1.0))

    async def _look_at(self, batch: OpenBatch) -> bool:
        """Whether the batch has come on since the last look; if it has ended, its outcomes are fetched."""
        stands = await self._api.get(batch.batch_id)
        if stands is None:
            stands = Batch(batch.batch_id, "lost: the provider does not know it")
        elif stands.status not in ENDED:
            moved = min(stands.done, batch.requests) - self._shown[batch.number]
            self._show(batch, moved)
            if moved:
                logger.info("%s: %s, %d of %d done.", batch.batch_id, stands.status, stands.done, batch.requests)
            return bool(moved)
        await self._fetch(batch, stands)
        return True

    def _show(self, batch: OpenBatch, steps: int) -> None:
        self._shown[batch.number] += steps
        self._stream.advance(steps)

    async def _fetch(self, batch: OpenBatch, stands: Batch) -> None:
        """Merge what an ended batch gave, and note the requests that it left without an answer."""
        outcomes = BatchOutcomes(batch, self._state, self._backend, self._keep)
        for file_id in filter(None, (stands.output_file_id, stands.error_file_id)):
            await self._read(outcomes, file_id)
        outcomes.finish()
        missing = [key for keys in self._state.keys(batch) for key in self._lacking(keys)]
        told = " ".join(filter(None, [f"batch {shown(stands.id)} {stands.status}", stands.reasons]))
        logger.info("%s: %d of %d requests answered.", told, batch.requests - len(missing), batch.requests)
        self._failed.update(missing)
        self._causes.update(f"{told}: {outcomes.causes.get(key, 'no outcome')}" for key in missing)
        self._show(batch, batch.requests - len(missing) - self._shown[batch.number])
        self._state.ended(batch, stands.status)
        del self._open[batch.number]
        if outcomes.hopeless is not None:
            raise self._backend.hopeless(outcomes.hopeless)
        if self._uncounted is not None:
            self._stream.purse.check(self._uncounted)

    def _lacking(self, keys: list[bytes]) -> list[bytes]:
        known = self._stream.journal.contains_many(keys)
        return [key for key in keys if key not in known]

    async def _read(self, outcomes: BatchOutcomes, file_id: str) -> None:
        path = self._state_path.with_suffix(".outcomes.jsonl")
        try:
            for _ in range(_DOWNLOADS):
                await self._api.download(file_id, path)
                if not outcomes.read(path):
                    break
        finally:
            path.unlink(missing_ok=True)

    def _keep(self, replies: list[tuple[bytes, Reply]]) -> None:
        """Commit those that the journal lacks; a batch may be fetched again, and is booked once."""
        lacking = set(self._lacking([key for key, _ in replies]))
        new = [(key, reply) for key, reply in dict(replies).items() if key in lacking]
        if not new:
            return
        self._stream.journal.put_many(new, model=self._stream.payee)
        for _, reply in new:
            usage = reply.usage
            if reply.text and not usage.completion_tokens:
                self._uncounted = reply
            one = Spent(
                asked=1,
                failures=int(reply.failure is not None),
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cost=self._stream.purse.pay(self._stream.payee, usage),
            )
            self.spent = sum_spent(self.spent, one)

    def raise_failures(self, label: str) -> None:
        """EndpointError if some requests got no answer, BudgetReached if some might not be sent."""
        if self._out_of_budget:
            raise self._stream.purse.stop(label)
        if self._failed:
            causes = "; ".join(f"{count:,} x {cause}" for cause, count in self._causes.most_common(3))
            raise EndpointError(
                f"{label}: {len(self._failed)} of {len(self._failed) + self.spent.asked} requests got no answer from "
                f"{self._backend.model}: {causes}. The replies that came are kept in {self._stream.journal.path}: run "
                f"the same command again, and only these are sent."
            )


class _Draft:
    """The file of requests that is being written; `keys` are theirs, with the custom ids. Raises StorageError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keys: dict[bytes, bytes] = {}
        self.bytes = 0
        self.expected = Usage()
        self._handle: IO[bytes] | None = None

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def add(self, key: bytes, custom_id: bytes, line: bytes, expected: Usage) -> None:
        """Write one request's line."""
        with self._named_errors():
            self._handle = self._handle or self.path.open("wb")
            self._handle.write(line)
        self.keys[key] = custom_id
        self.bytes += len(line)
        self.expected = _total([self.expected, expected])

    def flush(self) -> None:
        """Have the lines in the file."""
        with self._named_errors():
            if self._handle is not None:
                self._handle.flush()

    def clear(self) -> None:
        """Forget them, and delete the file."""
        if self._handle is not None:
            self._handle.close()
        self._handle = None
        self.path.unlink(missing_ok=True)
        self.keys, self.bytes, self.expected = {}, 0, Usage()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}. Free some space, run again.") from error


def _total(usages: list[Usage]) -> Usage:
    return Usage(sum(usage.prompt_tokens for usage in usages), sum(usage.completion_tokens for usage in usages))


__all__ = ["BatchAsking"]
