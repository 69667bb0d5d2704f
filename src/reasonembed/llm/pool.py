"""The servers of one model: which takes the next request, which must be left alone for a while, which is sick."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from reasonembed.llm.backend import TransportFailure
from reasonembed.llm.chat import Reply
from reasonembed.llm.endpoint import Endpoint
from reasonembed.llm.limits import AdaptiveLimit
from reasonembed.llm.outcomes import Again, Hopeless

logger = logging.getLogger(__name__)

SICK_AFTER = 8  # failures in a row; our choice: at one fault in five this strikes once in 400,000 tries
_PROBE_S = 1.0  # before the first probe of a sick server; doubled up to the limit
_PROBE_LIMIT_S = 30.0


class Target:
    """One server, and how it fares."""

    def __init__(self, endpoint: Endpoint, *, ceiling: int) -> None:
        self.endpoint = endpoint
        self.limit = AdaptiveLimit(ceiling)
        self.opens_at = 0.0  # Retry-After: no request before, on the clock of `time.monotonic`
        self.failures_in_a_row = 0
        self.sick = False
        self.probe_s = _PROBE_S


class _Waiter(msgspec.Struct, eq=False):
    given: asyncio.Future[Target]
    avoid: Target | None
    until: float  # it does not wait for a server that opens later


class Pool:
    """Gives each request a server: the least loaded one that is well, and, for a second try, another than before.

    A server that says it is busy gets fewer requests at once; its Retry-After holds for all of them. One that
    fails `SICK_AFTER` times in a row is dropped and taken back when `probe` finds it up; the last one that is
    left is never dropped. Belongs to one event loop; leave it with `close`.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], *, ceiling: int, probe: Callable[[Endpoint], Awaitable[bool]]
    ) -> None:
        self.targets = [Target(endpoint, ceiling=ceiling) for endpoint in endpoints]
        self._probe = probe
        self._waiters: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._probing: set[asyncio.Task[None]] = set()

    async def enter(self, *, avoid: Target | None = None, patience_s: float) -> Target:
        """A server that has room, once there is one; call `leave` afterwards, whatever happens.

        Raises TransportFailure if all of them want to be left alone for longer than `patience_s`.
        """
        now = time.monotonic()
        if not self._waiters and (target := self._best(now, avoid)) is not None:
            target.limit.in_flight += 1
            return target
        waiter = _Waiter(asyncio.get_running_loop().create_future(), avoid, now + patience_s)
        self._waiters.append(waiter)
        self._serve()
        try:
            return await waiter.given
        except asyncio.CancelledError:
            if waiter.given.done() and not waiter.given.cancelled() and waiter.given.exception() is None:
                waiter.given.result().limit.in_flight -= 1
            raise

    def leave(self, target: Target, outcome: Reply | Again | Hopeless | None, *, sent_at: float) -> None:
        """What became of a request: it decides how much that server is asked from now on. None: it was cut off."""
        if isinstance(outcome, Again):
            self._note_trouble(target, outcome, sent_at)
        elif outcome is not None:
            target.failures_in_a_row = 0
            target.probe_s = _PROBE_S
            target.limit.grow()
        target.limit.in_flight -= 1
        if self._waiters:
            self._serve()

    async def close(self) -> None:
        """End what runs in the background."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._probing, return_exceptions=True)

    def _note_trouble(self, target: Target, outcome: Again, sent_at: float) -> None:
        now = time.monotonic()
        if outcome.busy:
            target.limit.halve(sent_at=sent_at, now=now)
            if outcome.after_s is not None:
                target.opens_at = max(target.opens_at, now + outcome.after_s)
        elif outcome.uses_attempt:
            target.failures_in_a_row += 1
            if target.failures_in_a_row >= SICK_AFTER and not target.sick:
                self._drop(target, outcome.cause)

    def _drop(self, target: Target, cause: str) -> None:
        if all(other.sick or other is target for other in self.targets):
            return
        logger.warning(
            "%s failed %d times in a row (%s); left out until it is up again.",
            target.endpoint.url,
            target.failures_in_a_row,
            cause,
        )
        target.sick = True
        task = asyncio.get_running_loop().create_task(self._take_back(target))
        self._probing.add(task)
        task.add_done_callback(self._probing.discard)

    async def _take_back(self, target: Target) -> None:
        while target.sick:
            await asyncio.sleep(target.probe_s)
            target.probe_s = min(2 * target.probe_s, _PROBE_LIMIT_S)
            target.sick = not await self._probe(target.endpoint)
        target.failures_in_a_row = SICK_AFTER - 1  # on probation: one more failure drops it again
        logger.warning("%s is up again.", target.endpoint.url)
        self._serve()

    def _best(self, now: float, avoid: Target | None) -> Target | None:
        if len(self.targets) == 1:
            only = self.targets[0]
            return only if only.limit.load < 1 and only.opens_at <= now else None
        ready = [one for one in self._well() if one.limit.load < 1 and one.opens_at <= now]
        return min(ready, key=lambda one: (one is avoid, one.limit.load)) if ready else None

    def _well(self) -> list[Target]:
        return [target for target in self.targets if not target.sick]

    def _serve(self) -> None:
        """Give what is free to those who wait, in their order, and see to it that none waits in vain."""
        now = time.monotonic()
        while self._waiters:
            if self._waiters[0].given.done():  # cancelled
                self._waiters.popleft()
            elif (target := self._best(now, self._waiters[0].avoid)) is not None:
                target.limit.in_flight += 1
                self._waiters.popleft().given.set_result(target)
            else:
                break
        if self._waiters:
            self._wait_for_opening(now)

    def _wait_for_opening(self, now: float) -> None:
        """One timer for all who wait on a Retry-After; an error for the impatient where nothing else is left."""
        openings = [target.opens_at for target in self._well()]
        if self._timer is not None:
            self._timer.cancel()
        later = [opens_at for opens_at in openings if opens_at > now]
        if later:
            self._timer = asyncio.get_running_loop().call_later(min(later) - now, self._serve)
        if len(later) < len(openings):
            return  # somebody leaves before long, and that serves
        opens_at = min(later)
        patient = deque[_Waiter]()
        for waiter in self._waiters:
            if waiter.until >= opens_at or waiter.given.done():
                patient.append(waiter)
            else:
                pause = f"the server wants to be left alone for {opens_at - now:.0f} s"
                waiter.given.set_exception(TransportFailure(f"{pause}, beyond patience_s."))
        self._waiters = patient


__all__ = ["SICK_AFTER", "Pool", "Target"]
