"""The door: asked once, committed before it counts, read back in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from reasonembed.errors import ConfigError, DamageError, EndpointError, InputError
from reasonembed.llm.backend import Ask, TransportFailure
from reasonembed.llm.chat import Failure, Reply, Request, Spent, Usage
from reasonembed.llm.door import ChatDoor, open_door
from reasonembed.llm.journal import Journal
from reasonembed.llm.scripted import ScriptedBackend

AskFor = Callable[..., list[Request]]


class SlowBackend:
    """Answers after a time that the test decides; counts what it was asked."""

    model = "slow"
    honours_conditions = True
    keyed_by_custom_id = False

    def __init__(self, answer: Callable[[Request], Reply | Exception], delay_s: Callable[[Request], float]) -> None:
        self.answer, self.delay_s = answer, delay_s
        self.asked: list[str] = []

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        async def ask(request: Request) -> Reply:
            self.asked.append(request.custom_id)
            await asyncio.sleep(self.delay_s(request))
            answer = self.answer(request)
            if isinstance(answer, Exception):
                raise answer
            return answer

        yield ask


def fine(request: Request) -> Reply:
    return Reply(request.custom_id, f"answer to {request.messages[0].content}", Usage(2, 1))


def test_replies_come_in_the_order_of_the_requests_whatever_the_latency(journal: Journal, ask_for: AskFor) -> None:
    requests = ask_for(50)
    backend = SlowBackend(fine, lambda request: (request.seed * 7 % 11) / 500)
    pairs = list(ChatDoor(backend, journal, concurrency=9).replies(lambda: requests, label="x"))
    assert [request for request, _ in pairs] == requests
    assert [reply for _, reply in pairs] == [fine(request) for request in requests]


def test_a_second_call_asks_for_nothing_and_spends_nothing(journal: Journal, ask_for: AskFor) -> None:
    backend = SlowBackend(fine, lambda _: 0)
    door = ChatDoor(backend, journal)
    first = list(door.replies(lambda: ask_for(700), label="x"))
    assert door.spent == Spent(asked=700, prompt_tokens=1400, completion_tokens=700)
    again = ChatDoor(backend, journal)
    assert list(again.replies(lambda: ask_for(700), label="x")) == first
    assert again.spent == Spent(from_journal=700)
    assert len(backend.asked) == 700


def test_equal_requests_are_asked_once_and_each_gets_the_reply_under_its_own_id(
    journal: Journal, ask_for: AskFor
) -> None:
    requests = ask_for(300)
    twins = [msgspec.structs.replace(request, custom_id=f"{request.custom_id}-twin") for request in requests]
    backend = SlowBackend(fine, lambda _: 0.001)
    door = ChatDoor(backend, journal, concurrency=32)
    pairs = list(door.replies(lambda: [*requests[:3], *twins, *requests], label="x"))
    assert len(backend.asked) == 300
    assert all(reply.custom_id == request.custom_id for request, reply in pairs)
    assert (door.spent.asked, door.spent.from_journal) == (300, 303)


def test_final_failures_are_replies_and_are_counted(journal: Journal, ask_for: AskFor) -> None:
    script = {"generate:biology:doc-0": "yes", "generate:biology:doc-1": Failure("refused", "no"), "x": ""}
    door = ChatDoor(ScriptedBackend(script), journal)
    kinds = [reply.failure and reply.failure.kind for _, reply in door.replies(lambda: ask_for(3), label="x")]
    assert kinds == [None, "refused", "not_recorded"]
    assert door.spent.failures == 2
    again = ChatDoor(ScriptedBackend(script), journal)
    list(again.replies(lambda: ask_for(3), label="x"))
    assert again.spent == Spent(from_journal=3, failures=2)


def test_transport_failures_are_named_at_the_end_and_only_they_are_asked_again(
    journal: Journal, ask_for: AskFor
) -> None:
    def flaky(request: Request) -> Reply | Exception:
        return TransportFailure("connection reset.") if request.seed in (5, 6) else fine(request)

    door = ChatDoor(SlowBackend(flaky, lambda _: 0.001), journal)
    stream = door.replies(lambda: ask_for(40), label="generate biology")
    with pytest.raises(
        EndpointError, match=r"generate biology: 2 of 40 requests .*doc-5.*connection reset.*only these"
    ):
        next(stream)
    assert door.spent.asked == 38
    mended = SlowBackend(fine, lambda _: 0)
    assert len(list(ChatDoor(mended, journal).replies(lambda: ask_for(40), label="x"))) == 40
    assert mended.asked == ["generate:biology:doc-5", "generate:biology:doc-6"]


def test_when_the_first_requests_are_all_called_invalid_nothing_is_recorded(journal: Journal, ask_for: AskFor) -> None:
    backend = SlowBackend(lambda r: Reply(r.custom_id, "", failure=Failure("invalid", "no system role")), lambda _: 0)
    with pytest.raises(EndpointError, match=r"each of the first 16 requests invalid: no system role"):
        list(ChatDoor(backend, journal).replies(lambda: ask_for(100), label="x"))
    assert len(journal) == 0


def test_a_few_invalid_requests_are_recorded_as_such(journal: Journal, ask_for: AskFor) -> None:
    def picky(request: Request) -> Reply:
        return fine(request) if request.seed >= 10 else Reply(request.custom_id, "", failure=Failure("invalid", "?"))

    few = list(ChatDoor(SlowBackend(picky, lambda _: 0), journal).replies(lambda: ask_for(5), label="x"))
    assert [reply.failure for _, reply in few] == [Failure("invalid", "?")] * 5
    many = list(ChatDoor(SlowBackend(picky, lambda _: 0), journal).replies(lambda: ask_for(30), label="x"))
    assert sum(reply.failure is None for _, reply in many) == 20
    assert journal.failures() == {"invalid": 10}


def test_the_stream_is_not_read_far_ahead_of_the_answers(journal: Journal, ask_for: AskFor) -> None:
    (template,) = ask_for(1)
    read = 0
    ahead: list[int] = []
    backend = SlowBackend(fine, lambda _: 0.0005)

    def stream() -> Iterator[Request]:
        nonlocal read
        for number in range(3000):
            read += 1
            ahead.append(read - len(backend.asked))
            yield msgspec.structs.replace(template, custom_id=f"generate:x:{number}", seed=number)

    pairs = ChatDoor(backend, journal, concurrency=8).replies(stream, label="x")
    next(pairs)
    assert len(backend.asked) == 3000
    assert max(ahead) <= 256 + 8
    assert 3000 < read < 3000 + 300, "reading back is lazy as well"


def test_a_stream_that_differs_the_second_time_is_our_callers_mistake(journal: Journal, ask_for: AskFor) -> None:
    calls = iter([ask_for(1), ask_for(2)])
    with pytest.raises(RuntimeError, match="same requests"):
        list(ChatDoor(SlowBackend(fine, lambda _: 0), journal).replies(lambda: next(calls), label="x"))


def test_an_error_in_the_stream_comes_through_and_keeps_what_was_answered(journal: Journal, ask_for: AskFor) -> None:
    def stream() -> Iterator[Request]:
        yield from ask_for(300)
        raise InputError("line 301 is broken")

    with pytest.raises(InputError, match="line 301"):
        list(ChatDoor(SlowBackend(fine, lambda _: 0.001), journal).replies(stream, label="x"))
    assert len(journal) >= 200


def test_a_damaged_reply_is_an_error_and_not_an_answer(tmp_path: Path, ask_for: AskFor) -> None:
    with open_door("scripted", journal_path=tmp_path / "j") as door:
        list(door.replies(lambda: ask_for(3), label="x"))
    with sqlite3.connect(tmp_path / "j") as raw:
        raw.execute("UPDATE replies SET body = substr(body, 1, 20) WHERE number = 2")
    raw.close()
    with (
        open_door("scripted", journal_path=tmp_path / "j") as door,
        pytest.raises(DamageError, match="reply 2"),
    ):
        list(door.replies(lambda: ask_for(3), label="x"))


def test_it_works_where_an_event_loop_runs_already(journal: Journal, ask_for: AskFor) -> None:
    async def in_a_notebook() -> int:
        return len(list(ChatDoor(SlowBackend(fine, lambda _: 0), journal).replies(lambda: ask_for(5), label="x")))

    assert asyncio.run(in_a_notebook()) == 5


def test_doors_share_a_journal_without_sharing_answers(journal: Journal, ask_for: AskFor) -> None:
    for name in ("a", "b"):
        backend = ScriptedBackend(lambda request, name=name: f"{name} says so", model=name)  # type: ignore[misc]
        pairs = ChatDoor(backend, journal).replies(lambda: ask_for(2), label="x")
        assert [reply.text for _, reply in pairs] == [f"{name} says so"] * 2
    assert len(journal) == 4


def test_progress_is_told_of_each_request(journal: Journal, ask_for: AskFor) -> None:
    steps: list[tuple[str, int | None, int]] = []

    class Noting:
        @contextlib.contextmanager
        def task(self, label: str, *, total: int | None = None, note: object = None) -> Iterator[Callable[[int], None]]:
            yield lambda count: steps.append((label, total, count))

    for _ in range(2):
        door = ChatDoor(SlowBackend(fine, lambda _: 0), journal, progress=Noting())
        list(door.replies(lambda: ask_for(100), label="x", total=100))
    assert {step[:2] for step in steps} == {("x", 100)}
    assert sum(count for *_, count in steps) == 200


@pytest.mark.parametrize("spec", ["scriptd", "gpt-4", "", "recorded:", "local:", "file:///etc"])
def test_an_unknown_kind_is_refused_and_the_known_ones_are_named(journal: Journal, spec: str) -> None:
    with (
        pytest.raises(ConfigError, match=r"Known kinds: http://.*recorded:pocket.*scripted"),
        open_door(spec, journal=journal),
    ):
        pass


def test_a_model_that_would_be_ignored_is_refused(journal: Journal) -> None:
    with pytest.raises(ConfigError, match="scripted"), open_door("scripted", journal=journal, model="m"):
        pass


def test_ctrl_c_in_a_notebook_ends_it_too(journal: Journal, ask_for: AskFor) -> None:
    backend = SlowBackend(fine, lambda _: 0.02)

    async def in_a_notebook() -> None:
        list(ChatDoor(backend, journal).replies(lambda: ask_for(5000), label="x"))

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    loop = asyncio.new_event_loop()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(in_a_notebook())
    finally:
        signal.signal(signal.SIGINT, handler)
        loop.close()
    assert 0 < len(backend.asked) - len(journal) <= 8
