"""Pass 1 of the door: what the journal lacks is asked with bounded concurrency and committed in groups."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from reasonembed.errors import EndpointError, shown
from reasonembed.llm.backend import Ask, Backend, TransportFailure
from reasonembed.llm.budget import Purse
from reasonembed.llm.chat import Reply, Request, Spent
from reasonembed.llm.journal import Journal
from reasonembed.progress import Advance

logger = logging.getLogger(__name__)

_CHUNK = 256  # requests looked up in the journal at once: so far ahead of the answers the stream is read
_GROUP = 64  # replies in one commit, at most
_COMMIT_EVERY_S = 0.2  # a reply waits no longer than this for its commit


class Stream(NamedTuple):
    """Requests, and where their replies, their progress and their cost go."""

    requests: Iterator[Request]
    journal: Journal
    key: Callable[[Request], bytes]  # the journal's, of a request's reply
    advance: Advance  # called with so many requests that are answered
    purse: Purse
    payee: str  # the model's name in price lists and the ledger


class Asking:
    """Pass 1 over one stream: workers pull what the journal lacks, replies are committed in groups."""

    def __init__(self, backend: Backend, stream: Stream) -> None:
        self.spent = Spent()  # what was committed so far
        self._backend = backend
        self._stream = stream
        self._out_of_budget = False
        self._missing: deque[tuple[bytes, Request]] = deque()
        self._pulling = asyncio.Lock()
        self._answered: list[tuple[bytes, Reply]] = []
        self._doubtful: list[tuple[bytes, Reply]] = []  # see _keep
        self._proven = False  # the endpoint took a request
        self._has_answers = asyncio.Event()
        self._pending: set[bytes] = set()  # asked, not committed
        self._failed: set[bytes] = set()  # failed in transport
        self._first_failure: TransportFailure | None = None
        self._failures_in_a_row = 0
        self._patience = 0

    async def run(self, concurrency: int) -> None:
        """Ask everything that is missing; what was answered is committed however this ends."""
        self._patience = max(16, 2 * concurrency)
        try:
            async with self._backend.session() as ask, asyncio.TaskGroup() as group:
                committing = group.create_task(self._commit_regularly())
                await asyncio.wait([group.create_task(self._work(ask)) for _ in range(concurrency)])
                committing.cancel()
            self._answered += self._doubtful
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            self._commit()

    async def _work(self, ask: Ask) -> None:
        while (item := await self._next_missing()) is not None:
            key, request = item
            if self._out_of_budget or not self._stream.purse.take():
                self._out_of_budget = True  # those in flight finish and are committed
                return
            try:
                reply = await ask(request)
            except TransportFailure as failure:
                self._note_failure(key, request, failure)
            else:
                cost = self._stream.purse.pay(self._stream.payee, reply.usage)
                self.spent = sum_spent(self.spent, Spent(cost=cost))
                self._keep(key, reply)
                self._stream.purse.check(reply)
            finally:
                self._stream.purse.put_back()

    def _keep(self, key: bytes, reply: Reply) -> None:
        """Hand the reply on to the next commit.

        Where an endpoint finds all of the first requests invalid, the fault is in the settings or the server
        and not in each of them. Such verdicts are final: they are kept back until another reply has come.
        """
        self._failures_in_a_row = 0
        if reply.failure is not None and reply.failure.kind == "invalid" and not self._proven:
            self._doubt(key, reply, reply.failure.detail)
            return
        self._proven = True
        self._answered += [*self._doubtful, (key, reply)]
        self._doubtful.clear()
        self._has_answers.set()
        if len(self._answered) >= _GROUP:
            self._commit()

    def _doubt(self, key: bytes, reply: Reply, cause: str) -> None:
        self._doubtful.append((key, reply))
        if len(self._doubtful) >= self._patience:
            raise EndpointError(
                f"{self._backend.model} called each of the first {len(self._doubtful)} requests invalid: "
                f"{cause}. Nothing of this was recorded. Mend the settings or the server, then run the same "
                f"command again."
            )

    async def _next_missing(self) -> tuple[bytes, Request] | None:
        if self._missing:
            return self._missing.popleft()
        async with self._pulling:
            while not self._missing:
                chunk = list(islice(self._stream.requests, _CHUNK))
                if not chunk:
                    return None
                self._look_up(chunk)
                await asyncio.sleep(0)  # a long stretch of known requests must not starve those in flight
        return self._missing.popleft()

    def _look_up(self, chunk: list[Request]) -> None:
        keys = [self._stream.key(request) for request in chunk]
        known = self._stream.journal.contains_many(keys)
        self._proven = self._proven or any(kind != "invalid" for kind in known.values())
        found = failures = 0
        for key, request in zip(keys, chunk, strict=True):
            if key in known or key in self._pending:
                found += 1
                failures += bool(known.get(key))
            elif key not in self._failed:
                self._pending.add(key)
                self._missing.append((key, request))
        self.spent = sum_spent(self.spent, Spent(from_journal=found, failures=failures))
        self._stream.advance(found)

    def _note_failure(self, key: bytes, request: Request, failure: TransportFailure) -> None:
        logger.warning("%s: %s", shown(request.custom_id), failure)
        self._pending.discard(key)
        self._failed.add(key)
        if self._first_failure is None:
            self._first_failure = TransportFailure(f"{shown(request.custom_id)}: {failure}")
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._patience:
            raise EndpointError(
                f"{self._backend.model} gave no answer to {self._failures_in_a_row} requests in a row; the "
                f"first: {self._first_failure} What was answered before is kept: see that the endpoint is "
                f"up, then run the same command again."
            )

    async def _commit_regularly(self) -> None:
        while True:
            await self._has_answers.wait()
            await asyncio.sleep(_COMMIT_EVERY_S)
            self._commit()

    def _commit(self) -> None:
        self._has_answers.clear()
        if not self._answered:
            return
        self._stream.journal.put_many(self._answered, model=self._stream.payee)
        replies = [reply for _, reply in self._answered]
        self._pending.difference_update(key for key, _ in self._answered)
        self._answered.clear()
        self._stream.advance(len(replies))
        self.spent = sum_spent(
            self.spent,
            Spent(
                asked=len(replies),
                failures=sum(reply.failure is not None for reply in replies),
                prompt_tokens=sum(reply.usage.prompt_tokens for reply in replies),
                completion_tokens=sum(reply.usage.completion_tokens for reply in replies),
            ),
        )

    def raise_failures(self, label: str) -> None:
        """EndpointError if some requests got no answer, BudgetReached if some might not be asked."""
        if self._out_of_budget:
            raise self._stream.purse.stop(label)
        if self._failed:
            raise EndpointError(
                f"{label}: {len(self._failed)} of {len(self._failed) + self.spent.asked} requests got no "
                f"answer from {self._backend.model}; the first: {self._first_failure} The replies that came "
                f"are kept in {self._stream.journal.path}: run the same command again, and only these are asked."
            )


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is no group: with several, the others are its echoes."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def sum_spent(one: Spent, other: Spent) -> Spent:
    """Both together."""
    return Spent(*(a + b for a, b in zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)))


__all__ = ["Asking", "Stream", "sum_spent"]
