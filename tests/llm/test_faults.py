"""R5: one try in five goes wrong, in every way that real servers do, at a server in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec
import pytest

from reasonembed.errors import EndpointError
from reasonembed.llm.chat import Request
from reasonembed.llm.door import open_door
from reasonembed.llm.endpoint import ClientConfig
from reasonembed.llm.faults import FAULTS, Faults
from reasonembed.llm.journal import Journal
from reasonembed.llm.scripted import plausible_reply

Ask = Callable[..., list[Request]]
COUNT = 300


@contextlib.contextmanager
def faulty(*options: str) -> Iterator[str]:
    command = [sys.executable, "-m", "reasonembed.llm.scripted_server", "--seed", "7", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with faulty("--faults", "0.2") as served:
        yield served


@pytest.fixture
def hasty(quick: ClientConfig) -> ClientConfig:
    return msgspec.structs.replace(quick, concurrency=32, attempts=10, read_timeout_s=0.4, patience_s=20)


def right(requests: list[Request]) -> list[str]:
    """What the server answers where nothing goes wrong."""
    return [plausible_reply(request, seed=7) for request in requests]


def test_the_faults_are_decided_by_the_seed_and_each_kind_comes_up() -> None:
    faults = Faults(0.2, seed=7)
    names = [f"generate:biology:doc-{n}" for n in range(COUNT)]
    counts = Counter(map(faults.of, names))
    assert [faults.of(name) for name in names] == [Faults(0.2, seed=7).of(name) for name in names]
    assert set(counts) == {"", *FAULTS} and 0.15 < 1 - counts[""] / COUNT < 0.25


def test_at_one_fault_in_five_all_end_right(url: str, ask_for: Ask, journal: Journal, hasty: ClientConfig) -> None:
    requests = ask_for(COUNT)
    with open_door(url, journal=journal, client=hasty) as door:
        assert [reply.text for _, reply in door.replies(lambda: requests, label="ask")] == right(requests)


def test_what_fails_is_named_with_its_reason_and_nothing_wrong_is_kept(
    url: str, ask_for: Ask, journal: Journal, hasty: ClientConfig, caplog: pytest.LogCaptureFixture
) -> None:
    requests = ask_for(COUNT)
    config = msgspec.structs.replace(hasty, attempts=1)
    with open_door(url, journal=journal, client=config) as door:
        with caplog.at_level(logging.WARNING), pytest.raises(EndpointError, match=f"of {COUNT} requests got no answer"):
            list(door.replies(lambda: requests, label="ask"))
        kept = journal.get_many(map(door.key, requests))
    failed = [request for request in requests if door.key(request) not in kept]
    assert 0.08 * COUNT < len(failed) < 0.25 * COUNT
    for request in failed:
        named = [record.getMessage() for record in caplog.records if f"'{request.custom_id}'" in record.getMessage()]
        assert len(named) == 1 and "no answer in 1 attempts, the last:" in named[0]
    reasons = caplog.text
    for part in ("HTTP 500", "Timeout", "Disconnected", "no chat completion", "was asked for", "body beyond 8 MiB"):
        assert part in reasons
    assert {key: reply.text for key, reply in kept.items()} == {
        door.key(request): text
        for request, text in zip(requests, right(requests), strict=True)
        if door.key(request) in kept
    }


def test_refusals_for_being_busy_use_up_no_attempt(ask_for: Ask, journal: Journal, hasty: ClientConfig) -> None:
    requests = ask_for(60)
    config = msgspec.structs.replace(hasty, attempts=1)
    with faulty("--faults", "0.4", "--fault-kinds", "429", "429-later") as served:
        with open_door(served, journal=journal, client=config) as door:
            assert [reply.text for _, reply in door.replies(lambda: requests, label="ask")] == right(requests)
