"""Provider batch files against a real server that speaks OpenAI's batch interface: nothing lost, nothing paid twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from reasonembed.errors import BudgetReached, ConfigError, EndpointError
from reasonembed.llm import batching
from reasonembed.llm.batch_state import BatchState, state_path
from reasonembed.llm.budget import Budget, Purse
from reasonembed.llm.chat import Reply, Request, Usage
from reasonembed.llm.door import open_door
from reasonembed.llm.endpoint import ClientConfig
from reasonembed.llm.journal import Journal
from reasonembed.llm.prices import Price, Prices
from reasonembed.llm.spending import Spending

AskFor = Callable[..., list[Request]]
Line = dict[str, Any]


def well(asked: Line) -> Line:
    """The outcome of a request that was answered: what it said, back."""
    said = asked["body"]["messages"][0]["content"]
    choice = {"index": 0, "message": {"role": "assistant", "content": f"re: {said}"}, "finish_reason": "stop"}
    body = {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "x", "custom_id": asked["custom_id"], "response": response, "error": None}


def refused(asked: Line, status: int, message: str) -> Line:
    response = {"status_code": status, "request_id": "r", "body": {"error": {"message": message}}}
    return {"id": "x", "custom_id": asked["custom_id"], "response": response, "error": None}


def expired(asked: Line) -> Line:
    problem = {"code": "batch_expired", "message": "not executed before the window ended"}
    return {"id": "x", "custom_id": asked["custom_id"], "response": None, "error": problem}


class Provider:
    """Files and batches in memory. `work` says what a batch of lines comes to: status, outputs, errors."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.headers: list[Any] = []
        self.looks_until_done = 1
        self.work: Callable[[list[Line]], tuple[str, list[Line], list[Line]]] = lambda lines: (
            "completed",
            [well(line) for line in lines],
            [],
        )
        self.mangle: Callable[[bytes, int], bytes] = lambda content, number: content
        self.downloads = 0
        self.lose_answers_to_create = 0
        self.hangs_at_create = False
        self.url = ""

    @property
    def asked(self) -> list[Line]:
        """Every request of every batch that was made: each is paid for."""
        return [line for batch in self.batches.values() for line in self.lines(batch["input_file_id"])]

    def lines(self, file_id: str) -> list[Line]:
        return [json.loads(line) for line in self.files[file_id].splitlines()]

    async def upload(self, request: web.Request) -> web.Response:
        self.headers.append(request.headers.copy())
        form = await request.post()
        assert form["purpose"] == "batch"
        file_id = f"file-{len(self.files)}"
        self.files[file_id] = form["file"].file.read()  # type: ignore[union-attr]
        return web.json_response({"id": file_id, "object": "file"})

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["endpoint"] == "/v1/chat/completions" and body["completion_window"] == "24h"
        number = len(self.batches)
        counts = {"total": len(self.lines(body["input_file_id"])), "completed": 0, "failed": 0}
        batch = {"id": f"batch-{number}", "status": "validating", "request_counts": counts, "looks": 0, **body}
        self.batches[batch["id"]] = batch
        if self.hangs_at_create:
            await asyncio.sleep(60)
        if self.lose_answers_to_create:
            self.lose_answers_to_create -= 1
            return web.Response(status=502, text="bad gateway")
        return web.json_response(batch)

    async def list_batches(self, request: web.Request) -> web.Response:
        newest_first = list(self.batches.values())[::-1]
        after = request.query.get("after")
        ids = [batch["id"] for batch in newest_first]
        start = ids.index(after) + 1 if after else 0
        return web.json_response({"data": newest_first[start : start + 2], "has_more": start + 2 < len(ids)})

    async def look(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        batch["looks"] += 1
        batch["status"] = "in_progress"
        if batch["looks"] > self.looks_until_done and "output_file_id" not in batch:
            status, outputs, errors = self.work(self.lines(batch["input_file_id"]))
            for name, found in (("output_file_id", outputs), ("error_file_id", errors)):
                batch[name] = f"file-{len(self.files)}" if found else None
                if found:
                    self.files[batch[name]] = b"\n".join(json.dumps(line).encode() for line in found) + b"\n"
            batch["ending"] = status
        batch["status"] = batch.get("ending", batch["status"])
        return web.json_response(batch)

    async def content(self, request: web.Request) -> web.Response:
        self.downloads += 1
        return web.Response(body=self.mangle(self.files[request.match_info["id"]], self.downloads))


@pytest.fixture
def provider(served: Any) -> Iterator[Provider]:
    provider = Provider()
    routes = [
        web.post("/v1/files", provider.upload),
        web.get("/v1/files/{id}/content", provider.content),
        web.post("/v1/batches", provider.create),
        web.get("/v1/batches", provider.list_batches),
        web.get("/v1/batches/{id}", provider.look),
    ]
    with served(routes) as url:
        provider.url = f"{url}/v1"
        yield provider


Send = Callable[..., list[Reply]]


@pytest.fixture
def send(provider: Provider, journal: Journal, quick: ClientConfig) -> Send:
    """The replies to requests by way of `batch:`, with one journal."""

    def run(requests: list[Request], *, purse: Purse | None = None, config: ClientConfig = quick) -> list[Reply]:
        with open_door(f"batch:{provider.url}#m", journal=journal, client=config, purse=purse) as door:
            pairs = list(door.replies(lambda: requests, label="annotate"))
        assert [request for request, _ in pairs] == requests
        return [reply for _, reply in pairs]

    return run


def test_requests_go_as_one_file_and_come_back_by_custom_id_whatever_the_order(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal
) -> None:
    def shuffled(lines: list[Line]) -> tuple[str, list[Line], list[Line]]:
        return "completed", random.Random(0).sample([well(line) for line in lines], len(lines)), []

    provider.work = shuffled
    requests = ask_for(300)
    assert [reply.text for reply in send(requests)] == [f"re: question {n}" for n in range(300)]
    (line, *_) = provider.asked
    assert len(provider.batches) == 1 and len(provider.asked) == 300
    assert {key: line[key] for key in ("method", "url")} == {"method": "POST", "url": "/v1/chat/completions"}
    assert line["body"]["model"] == "m" and line["body"]["max_tokens"] == 2048
    assert len({line["custom_id"] for line in provider.asked}) == 300
    assert "doc-" not in line["custom_id"] and len(line["custom_id"]) == 64
    assert journal.spending() == (Spending("batch:m", "generate", 300, 2100, 900),)


def test_a_second_run_sends_nothing_and_an_endpoint_asked_directly_shares_the_replies(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal, quick: ClientConfig
) -> None:
    first = send(ask_for(20))
    assert send(ask_for(20)) == first
    with open_door(f"{provider.url}#m", journal=journal, client=quick) as door:
        assert [reply for _, reply in door.replies(lambda: ask_for(20), label="x")] == first
    assert len(provider.asked) == 20 and len(provider.files) == 2


def test_equal_requests_are_sent_once(provider: Provider, send: Send, ask_for: AskFor) -> None:
    requests = ask_for(5)
    twins = [msgspec.structs.replace(request, custom_id=f"{request.custom_id}-twin") for request in requests]
    replies = send([*requests, *twins])
    assert len(provider.asked) == 5
    assert [reply.text for reply in replies[:5]] == [reply.text for reply in replies[5:]]


@pytest.mark.parametrize(("limit", "value"), [("MAX_REQUESTS", 40), ("MAX_BYTES", 40 * 300)])
def test_files_are_split_at_the_providers_limits(
    limit: str, value: int, provider: Provider, send: Send, ask_for: AskFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, limit, value)
    send(ask_for(100))
    inputs = [provider.files[batch["input_file_id"]] for batch in provider.batches.values()]
    assert len(inputs) >= 3 and len(provider.asked) == 100
    if limit == "MAX_BYTES":
        assert all(len(content) <= value for content in inputs)
    else:
        assert [len(content.splitlines()) for content in inputs] == [40, 40, 20]


def test_an_expired_batch_is_merged_as_far_as_it_came_and_the_rest_is_sent_next_time(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal
) -> None:
    provider.work = lambda lines: ("expired", [well(x) for x in lines[:6]], [expired(x) for x in lines[6:]])
    said = r"annotate: 4 of 10 requests .* 4 x batch 'batch-0' expired: batch_expired: not executed.*only these"
    with pytest.raises(EndpointError, match=said):
        send(ask_for(10))
    assert len(journal) == 6
    provider.work = lambda lines: ("completed", [well(x) for x in lines], [])
    assert [reply.text for reply in send(ask_for(10))] == [f"re: question {n}" for n in range(10)]
    assert len(provider.asked) == 14
    assert journal.spending()[0].calls == 10


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_batch_that_fails_is_named_with_the_providers_reason(
    status: str, provider: Provider, send: Send, ask_for: AskFor, journal: Journal
) -> None:
    def fail(lines: list[Line]) -> tuple[str, list[Line], list[Line]]:
        errors = {"data": [{"code": "token_limit_exceeded", "message": "too much is enqueued"}]}
        provider.batches["batch-0"]["errors"] = errors
        return status, [], []

    provider.work = fail
    with pytest.raises(EndpointError, match=rf"3 of 3 .*'batch-0' {status} token_limit_exceeded: too much is enqueued"):
        send(ask_for(3))
    provider.work = lambda lines: ("completed", [well(x) for x in lines], [])
    assert len(send(ask_for(3))) == 3 and len(provider.batches) == 2


def test_the_error_file_is_judged_as_a_servers_responses_are(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal
) -> None:
    """400 for one request is its final failure; 429 and 500 are no answer and are asked again."""

    def work(lines: list[Line]) -> tuple[str, list[Line], list[Line]]:
        bad = [refused(lines[0], 400, "bad words"), refused(lines[1], 429, "busy"), refused(lines[2], 500, "oops")]
        return "completed", [well(x) for x in lines[3:]], bad

    provider.work = work
    with pytest.raises(EndpointError, match=r"2 of 10 .*HTTP (429: busy|500: oops)"):
        send(ask_for(10))
    assert journal.failures() == {"invalid": 1} and len(journal) == 8


def test_when_all_are_called_invalid_nothing_is_recorded(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal
) -> None:
    provider.work = lambda lines: ("completed", [], [refused(x, 400, "no system role") for x in lines])
    with pytest.raises(EndpointError, match=r"each of 20 requests was called invalid: HTTP 400: no system role"):
        send(ask_for(20))
    assert len(journal) == 0
    provider.work = lambda lines: ("completed", [well(x) for x in lines], [])
    assert len(send(ask_for(20))) == 20


def test_a_mangled_file_is_fetched_once_more(provider: Provider, send: Send, ask_for: AskFor, journal: Journal) -> None:
    provider.mangle = lambda content, number: content[:-50] if number == 1 else content
    assert len(send(ask_for(10))) == 10
    assert journal.spending()[0].calls == 10, "what both readings gave is booked once"


def test_a_line_that_stays_mangled_costs_its_request_and_no_other(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal
) -> None:
    stranger = json.dumps(well({"custom_id": "ab" * 32, "body": {"messages": [{"content": "?"}]}})).encode()
    provider.mangle = lambda content, number: b"\n".join(
        [b'{"custom_id": "00', *content.splitlines()[1:], b"\xff\xfe", stranger, b""]
    )
    with pytest.raises(EndpointError, match=r"1 of 10 .*'batch-0' completed: no outcome"):
        send(ask_for(10))
    assert len(journal) == 9
    provider.mangle = lambda content, number: content
    assert len(send(ask_for(10))) == 10 and len(provider.asked) == 11


def test_a_lost_answer_makes_no_second_batch(provider: Provider, send: Send, ask_for: AskFor, journal: Journal) -> None:
    send(ask_for(1, stage="select"))
    provider.lose_answers_to_create = 2
    assert len(send(ask_for(4))) == 4
    assert len(provider.batches) == 2


def test_a_server_of_another_name_for_the_model_is_believed_and_a_substitute_is_not(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal
) -> None:
    def named(*names: str) -> Callable[[list[Line]], tuple[str, list[Line], list[Line]]]:
        def work(lines: list[Line]) -> tuple[str, list[Line], list[Line]]:
            outcomes = [well(line) for line in lines]
            for number, outcome in enumerate(outcomes):
                outcome["response"]["body"]["model"] = names[number % len(names)]
            return "completed", outcomes, []

        return work

    provider.work = named("our-own-name")
    assert len(send(ask_for(2, stage="select"))) == 2
    provider.work = named("m", "a-substitute")
    with pytest.raises(EndpointError, match=r"2 of 4 .*by the model 'a-substitute'"):
        send(ask_for(6))


def test_budgets_are_kept_to_what_requests_can_cost_at_most(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal
) -> None:
    prices = Prices(models={"m": Price(input=1_000_000, output=1_000_000, batch=0.5)})  # 5 a reply in a batch
    few = Purse(journal, budget=Budget(max_calls=7), prices=prices)
    with pytest.raises(BudgetReached, match="7 calls"):
        send(ask_for(10), purse=few)
    assert len(provider.asked) == len(journal) == 7
    dear = Purse(journal, budget=Budget(max_cost=200), prices=prices)
    with pytest.raises(BudgetReached):
        send(ask_for(100, max_tokens=50), purse=dear)
    assert 100 < dear.cost <= 200
    enough = Purse(journal, budget=Budget(max_cost=2000), prices=prices)
    assert len(send(ask_for(100, max_tokens=50), purse=enough)) == 100


def test_a_batch_at_another_server_is_not_sent_anew(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal, quick: ClientConfig
) -> None:
    provider.looks_until_done = 10**6
    hasty = msgspec.structs.replace(quick, attempts=1)
    stop = threading.Timer(0.6, lambda: provider.batches.clear())
    with contextlib.closing(sqlite3.connect(journal.path.with_name("journal.batches.sqlite"))) as state:
        stop.start()
        with pytest.raises(EndpointError, match="lost: the provider does not know it"):
            send(ask_for(2), config=hasty)
        state.execute("UPDATE batches SET ending = '', place = 'http://elsewhere/v1'")
        state.commit()
    with pytest.raises(ConfigError, match=r"2 requests to m wait in a batch at http://elsewhere/v1"):
        send(ask_for(2))


def test_who_asks_in_another_way_while_a_batch_is_open_is_warned_by_name(
    provider: Provider, send: Send, ask_for: AskFor, journal: Journal, serve: Any, answer: Any, quick: ClientConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with BatchState(state_path(journal.path)) as state:
        requests = [(bytes([n]) * 32, b"doc") for n in range(3)]
        state.runs(state.add("m", provider.url, "file-7", requests, Usage(9, 9)), "batch-7")

    async def handle(*_: Any) -> Any:
        return answer()

    with open_door(f"{serve(handle).url}#m", journal=journal, client=quick) as door:
        for _ in range(2):
            list(door.replies(lambda: ask_for(2), label="x"))
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith(f"3 requests to m wait in the batch batch-7 at {provider.url}, which an earlier run sent")
    assert "and m does not wait for them" not in said and "m does not wait for: " in said
    assert "is paid twice" in said and "cancel that batch" in said
    caplog.clear()
    provider.batches["batch-7"] = {"id": "batch-7", "status": "expired", "ending": "expired", "looks": 9,
                                   "output_file_id": None, "input_file_id": "file-7"}  # fmt: skip
    with contextlib.suppress(EndpointError):
        send(ask_for(2))  # waits for it
    assert "wait in the batch" not in caplog.text
    with open_door(f"{serve(handle).url}#m", journal=journal, client=quick) as door:
        list(door.replies(lambda: ask_for(4), label="x"))
    assert "wait in the batch" not in caplog.text, "none is open any more"


@pytest.mark.parametrize(
    "spec", ["batch:", "batch:scripted", "batch:azure:m", "batch:local:m", "batch:http://h/v1,http://i/v1#m"]
)
def test_what_has_no_batch_files_is_refused(spec: str, journal: Journal) -> None:
    with pytest.raises(ConfigError, match="batch"), open_door(spec, journal=journal):
        pass


def test_a_server_without_the_interface_is_named(serve: Any, journal: Journal, quick: Any, ask_for: AskFor) -> None:
    server = serve(None)
    with open_door(f"batch:{server.url}#m", journal=journal, client=quick) as door:
        with pytest.raises(EndpointError, match=r"/v1/files: HTTP 404.*no batch interface"):
            list(door.replies(lambda: ask_for(1), label="x"))


WORKER = """
import sys
from reasonembed.llm.chat import Message, Request, Sampling
from reasonembed.llm.door import open_door
from reasonembed.llm.endpoint import ClientConfig

def requests():
    for n in range(50):
        yield Request(f"annotate:x:doc-{n}-q0:d", (Message("user", f"question {n}"),), Sampling(), seed=n)

config = ClientConfig(backoff_s=0.01, backoff_limit_s=0.05)
with open_door(sys.argv[1], journal_path=sys.argv[2], client=config) as door:
    for request, reply in door.replies(requests, label="annotate"):
        print(request.custom_id, repr(reply.text))
"""


@pytest.mark.parametrize("moment", ["while it is made", "while it runs"])
def test_killed_between_upload_and_fetch_the_same_batch_is_waited_for_and_nothing_is_paid_twice(
    moment: str, provider: Provider, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WORKER, f"batch:{provider.url}#m", str(tmp_path / "journal.sqlite")]
    provider.looks_until_done = 10**6
    provider.hangs_at_create = moment == "while it is made"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        limit = time.monotonic() + 30
        while not any(batch["looks"] > 2 or provider.hangs_at_create for batch in provider.batches.values()):
            assert time.monotonic() < limit and worker.poll() is None
            time.sleep(0.01)
        worker.send_signal(signal.SIGKILL)
    provider.hangs_at_create = False
    provider.looks_until_done = 1
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[7] == "annotate:x:doc-7-q0:d 're: question 7'"
    assert len(done.stdout.splitlines()) == len(provider.asked) == 50 and len(provider.batches) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.endswith("jsonl")) == []


CANARY = "sk-canary-7f3a9b"


def test_the_key_is_sent_and_shows_up_nowhere_else(
    provider: Provider,
    send: Send,
    ask_for: AskFor,
    tmp_path: Path,
    quick: ClientConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    caplog.set_level(logging.DEBUG)

    def echo(lines: list[Line]) -> tuple[str, list[Line], list[Line]]:
        outcomes = [well(line) for line in lines]
        outcomes[0]["response"]["body"]["choices"][0]["message"]["content"] = f"you sent {CANARY}"
        return "completed", outcomes[:-1], [refused(lines[-1], 500, f"failed with {CANARY}")]

    provider.work = echo
    provider.mangle = lambda content, number: content + f'{{"custom_id": "{CANARY}"}}\n'.encode()
    with pytest.raises(EndpointError) as caught:
        send(ask_for(5), config=msgspec.structs.replace(quick, api_key_env="CANARY_KEY"))
    assert provider.headers[0]["Authorization"] == f"Bearer {CANARY}"
    assert "[key]" in str(caught.value) and "cannot be read" in caplog.text
    assert CANARY not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes()
