"""The HTTP client against a real server that misbehaves in each way a real one does."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from reasonembed.cli.journal import report_lines
from reasonembed.errors import ConfigError, EndpointError
from reasonembed.llm.chat import Message, Reply, Request, Sampling, custom_id, split_custom_id
from reasonembed.llm.client import HttpBackend, connect
from reasonembed.llm.door import ChatDoor, open_door
from reasonembed.llm.endpoint import ClientConfig, Endpoint, parse_endpoint
from reasonembed.llm.journal import Journal
from reasonembed.llm.journal_export import check_journal, export_journal
from reasonembed.llm.journal_report import report_journal
from reasonembed.llm.prices import load_prices
from reasonembed.llm.wire import wire_body, wire_id

Ask = Callable[..., list[Request]]
Answer = Callable[..., web.Response]


def door_to(server: Any, journal: Journal, config: ClientConfig) -> ChatDoor:
    return ChatDoor(HttpBackend(Endpoint(server.url, "m"), config=config), journal, concurrency=config.concurrency)


def replies(door: ChatDoor, requests: Iterable[Request]) -> list[Reply]:
    listed = list(requests)
    pairs = list(door.replies(lambda: listed, label="ask"))
    assert [request for request, _ in pairs] == listed
    return [reply for _, reply in pairs]


def texts(door: ChatDoor, requests: Iterable[Request]) -> list[str]:
    return [reply.text for reply in replies(door, requests)]


def test_the_wire_format_is_openais(serve: Any, answer: Answer, journal: Journal, quick: ClientConfig) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return answer("yes")

    server = serve(handle)
    sampling = Sampling(temperature=0.7, top_p=0.95, top_k=40, max_tokens=99, thinking=False)
    request = Request("select:x:1", (Message("system", "s"), Message("user", "ü")), sampling, seed=2**40 + 5)
    door = door_to(server, journal, quick)
    (reply,) = replies(door, [request])
    assert reply.text == "yes" and reply.usage.prompt_tokens == 7
    assert door.spent.prompt_tokens == 7 and door.spent.completion_tokens == 3
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "ü"}],
            "temperature": 0.7,
            "top_p": 0.95,
            "top_k": 40,
            "max_tokens": 99,
            "seed": 5,
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]
    assert "Authorization" not in server.headers[0]


def test_what_is_not_set_is_not_sent() -> None:
    request = Request("select:x:1", (Message("user", "u"),), Sampling(), seed=1, sample_index=2)
    body = msgspec.json.decode(wire_body(Endpoint("http://h/v1", "m"), request))
    assert set(body) == {"model", "messages", "temperature", "max_tokens", "seed"}
    assert body["seed"] == 3, "samples of one row must differ at an endpoint that honours seeds"
    openai = msgspec.json.decode(wire_body(parse_endpoint("openai:m"), request))
    assert openai["max_completion_tokens"] == 2048 and "max_tokens" not in openai


@pytest.mark.parametrize("header", [{"Retry-After": "0.3"}, {"Retry-After": "DATE"}, {}])
def test_a_429_uses_up_no_attempt_and_waits_as_told(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig, header: dict[str, str]
) -> None:
    times: list[float] = []

    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        times.append(time.monotonic())
        if number > (1 if "DATE" in header.values() else 3):
            return answer("at last")
        date = formatdate(time.time() + 2, usegmt=True)
        return web.Response(status=429, headers={name: value.replace("DATE", date) for name, value in header.items()})

    config = msgspec.structs.replace(quick, attempts=1, patience_s=20)
    assert texts(door_to(serve(handle), journal, config), ask_for(1)) == ["at last"]
    least = {"0.3": 0.3, "DATE": 0.9}.get(header.get("Retry-After", ""), 0.0)
    assert min(late - early for early, late in itertools.pairwise(times)) >= least


def test_patience_with_429s_ends(serve: Any, ask_for: Ask, journal: Journal, quick: ClientConfig) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    server = serve(handle)
    with pytest.raises(EndpointError, match=r"1 of 1 requests .* puts us off beyond patience_s = 5"):
        replies(door_to(server, journal, quick), ask_for(1))
    assert len(server.bodies) == 1


async def _reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _half(request: web.Request, announced: int = 500) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(announced)})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "hal')
    assert request.transport is not None
    request.transport.close()
    return response


async def _hang(request: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def _fault(kind: str, request: web.Request) -> web.StreamResponse:
    match kind:
        case "500":
            return web.Response(status=500, text="oops")
        case "503":
            return web.Response(status=503, headers={"Retry-After": "0"})
        case "429":
            return web.Response(status=429, headers={"Retry-After": "0.01"})
        case "reset":
            return await _reset(request)
        case "hang":
            return await _hang(request)
        case "cut":
            return await _half(request)
        case "half JSON":
            return web.Response(body=b'{"choices": [{"message": {"content": "hal', content_type="application/json")
        case "empty choices":
            return web.json_response({"choices": []})
        case "empty":
            return web.Response(body=b"")
        case "huge":
            return web.json_response({"choices": [{"message": {"content": "x" * (17 * 2**20)}}]})
    raise AssertionError(kind)


def impatient(config: ClientConfig) -> ClientConfig:
    """For a server that says nothing, so that a test need not wait long."""
    return msgspec.structs.replace(config, read_timeout_s=0.4)


FAULTS = ["500", "503", "429", "reset", "hang", "cut", "half JSON", "empty choices", "empty", "huge"]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_passes_is_passed_over(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig, kind: str
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.StreamResponse:
        return await _fault(kind, request) if number == 1 else answer("fine")

    server = serve(handle)
    config = impatient(quick) if kind == "hang" else quick
    assert texts(door_to(server, journal, config), ask_for(1)) == ["fine"]
    assert [headers["X-Request-Id"] for headers in server.headers] == [
        "generate:biology:doc-0",
        "generate:biology:doc-0;try=2",
    ]


@pytest.mark.parametrize("kind", ["500", "reset", "hang", "half JSON", "empty choices"])
def test_a_fault_that_stays_is_named_after_all_attempts_and_nothing_is_guessed(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig, kind: str
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.StreamResponse:
        if body["seed"] == 1:
            return await _fault(kind, request)
        return answer("fine")

    server = serve(handle)
    config = msgspec.structs.replace(impatient(quick) if kind == "hang" else quick, attempts=3)
    door = door_to(server, journal, config)
    with pytest.raises(EndpointError, match=r"1 of 5 requests got no answer .*doc-1.* in 3 attempts") as caught:
        replies(door, ask_for(5))
    assert "same command again" in str(caught.value)
    assert server.asked.count("generate:biology:doc-1") == 3
    assert len(journal) == 4, "the others were answered and committed"


def test_at_one_fault_in_five_every_request_ends_right(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    kinds = [kind for kind in FAULTS if kind not in ("hang", "huge")]

    async def handle(request: web.Request, body: Any, number: int) -> web.StreamResponse:
        chance = random.Random(f"{body['seed']} {request.headers['X-Request-Id']}")
        if chance.random() < 0.2:
            return await _fault(chance.choice(kinds), request)
        return answer(f"answer {body['seed']}")

    door = door_to(serve(handle), journal, msgspec.structs.replace(quick, attempts=12, concurrency=16))
    assert texts(door, ask_for(300)) == [f"answer {n}" for n in range(300)]


def test_a_request_at_fault_is_final_and_the_others_go_on(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        if body["seed"] == 0:
            error = {"message": "maximum context length is 10 tokens", "type": "invalid_request_error"}
            return web.json_response({"error": error}, status=400)
        return answer("fine")

    server = serve(handle)
    door = door_to(server, journal, quick)
    first, *others = replies(door, ask_for(3))
    assert first.failure is not None and first.failure.kind == "invalid"
    assert "maximum context length" in first.failure.detail
    assert [reply.text for reply in others] == ["fine", "fine"]
    replies(door, ask_for(3))
    assert len(server.bodies) == 3, "a final failure is not asked again"


@pytest.mark.parametrize(("status", "remedy"), [(401, "api_key_env"), (403, "api_key_env"), (302, "base URL")])
def test_an_endpoint_that_cannot_be_used_ends_it_at_once_with_the_remedy(
    serve: Any, ask_for: Ask, journal: Journal, quick: ClientConfig, status: int, remedy: str
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:9/"})

    server = serve(handle)
    with pytest.raises(EndpointError, match=remedy):
        replies(door_to(server, journal, quick), ask_for(500))
    assert len(server.bodies) <= quick.concurrency
    assert len(journal) == 0


def test_a_missing_model_ends_it_at_once(serve: Any, ask_for: Ask, journal: Journal, quick: ClientConfig) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return web.json_response({"error": {"message": "The model `m` does not exist."}}, status=404)

    with pytest.raises(EndpointError, match=r"The model `m` does not exist\..*lists"):
        replies(door_to(serve(handle), journal, quick), ask_for(50))


def test_a_server_that_is_not_there_ends_it_before_all_are_tried(
    ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    backend = HttpBackend(Endpoint("http://127.0.0.1:9/v1", "m"), config=quick)
    door = ChatDoor(backend, journal, concurrency=4)
    with pytest.raises(EndpointError, match=r"no answer to 16 requests in a row.*see that the endpoint is up"):
        replies(door, ask_for(10_000))


def test_more_is_never_in_flight_than_the_concurrency(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    in_flight = [0, 0]

    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        in_flight[0] += 1
        in_flight[1] = max(in_flight)
        await asyncio.sleep(0.01)
        in_flight[0] -= 1
        return answer("fine")

    replies(door_to(serve(handle), journal, quick), ask_for(40))
    assert in_flight[1] == quick.concurrency


def test_the_only_model_that_a_server_lists_is_taken(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return answer(body["model"])

    server = serve(handle)
    with open_door(server.url + "/", journal=journal, client=quick) as door:
        assert door.model == "m"
        assert texts(door, ask_for(1)) == ["m"]
    server.models = ["a", "b"]
    with pytest.raises(ConfigError, match=r"lists 2 models \('a', 'b'\).*#MODEL"):
        connect(Endpoint(server.url, ""), config=quick)
    with pytest.raises(EndpointError, match="name the model"):
        connect(Endpoint("http://127.0.0.1:9/v1", ""), config=quick)


def test_a_url_can_move_without_paying_again(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return answer("once")

    first, second = serve(handle), serve(handle)
    for server in (first, second):
        assert texts(door_to(server, journal, quick), ask_for(3)) == ["once"] * 3
    assert (len(first.bodies), len(second.bodies)) == (3, 0)
    with open_door(second.url, journal=journal, client=quick, revision="2025-07") as door:
        assert door.model == "m@2025-07"
        replies(door, ask_for(3))
    assert len(second.bodies) == 3 and second.bodies[0]["model"] == "m"


@given(st.lists(st.text(max_size=40), min_size=1, max_size=3), st.integers(0, 9))
def test_hostile_ids_come_back_from_the_header_as_they_went_in(parts: list[str], sample_index: int) -> None:
    name = custom_id("annotate", "biology", *parts, sample_index=sample_index)
    header = wire_id(name)
    assert header.isascii() and header.isprintable() and ";" not in header
    restored = unquote(header, errors="surrogatepass")
    assert restored == name
    assert split_custom_id(restored) == ("annotate", "biology", parts, sample_index)


def test_an_id_too_long_for_a_header_becomes_a_hash() -> None:
    assert len(wire_id("é" * 3000)) < 100


CANARY = "sk-canary-7f3a9b"


@pytest.mark.parametrize("kind", ["http", "azure"])
def test_the_key_is_sent_and_shows_up_nowhere_else(
    kind: str,
    serve: Any,
    answer: Answer,
    ask_for: Ask,
    quick: ClientConfig,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server repeats the key wherever it can: in an answer, a refusal, an error."""
    monkeypatch.setenv("CANARY_KEY", CANARY)
    caplog.set_level(logging.DEBUG)

    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        if kind == "azure":
            assert request.headers["api-key"] == CANARY and "Authorization" not in request.headers
        else:
            assert request.headers["Authorization"] == f"Bearer {CANARY}"
        echo = f"you sent {CANARY}"
        headers = {"X-Echo": echo}
        match body["seed"]:
            case 0:
                return answer(echo)
            case 1:
                return answer(None, refusal=echo)
            case 2:
                return web.json_response({"error": {"message": echo}}, status=422, headers=headers)
            case 3:
                return web.Response(status=500, text=echo, headers=headers)
        return web.json_response({"error": {"message": echo}}, status=401, headers=headers)

    config = msgspec.structs.replace(quick, api_key_env="CANARY_KEY", attempts=2)
    server = serve(handle)
    shown: list[str] = [repr(config)]
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1"))
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    spec = "azure:m" if kind == "azure" else f"{server.url}#m"
    with open_door(spec, journal_path=tmp_path / "j", client=config) as door:
        shown += [repr(door), repr(door.backend), str(vars(door))]
        shown += [repr(reply) for reply in replies(door, ask_for(3))]
        for count in (4, 5):
            with pytest.raises(EndpointError) as caught:
                replies(door, ask_for(count)[-1:])
            shown += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    report = report_journal(tmp_path / "j", load_prices())
    shown += [repr(report), *report_lines(report), repr(check_journal(tmp_path / "j"))]
    assert export_journal(tmp_path / "j", tmp_path / "export.jsonl").replies == 3
    assert (tmp_path / "export.jsonl").read_text().count("you sent [key]") == 3
    assert any("[key]" in text for text in shown)
    shown.append(caplog.text)
    assert "try 1" in caplog.text
    assert not [text for text in shown if CANARY in text]
    for path in tmp_path.iterdir():
        assert CANARY.encode() not in path.read_bytes()


def test_azure_is_asked_as_its_official_client_asks(
    serve: Any,
    answer: Answer,
    ask_for: Ask,
    journal: Journal,
    quick: ClientConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The official client against the same server: path, query and header are equal; any model's name will do."""
    from openai import AzureOpenAI

    seen: list[tuple[str, str, str | None]] = []

    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        seen.append((request.path_qs, request.headers["api-key"], request.headers.get("Authorization")))
        return answer("yes")  # by a model "m": the deployment has another name

    server = serve(handle)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.url.removesuffix("/v1") + "/")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "a-key-for-this-test")
    with open_door("azure:my deployment", journal=journal, client=quick) as door:
        assert texts(door, ask_for(2)) == ["yes", "yes"]
        assert door.model == door.payee == "my deployment"
    turn: Any = [{"role": "user", "content": "question 0"}]
    AzureOpenAI(max_retries=0).chat.completions.create(model="my deployment", messages=turn)
    assert len(seen) == 3 and set(seen[:2]) == set(seen[2:])
    assert server.bodies[0]["max_completion_tokens"] == 2048 and "max_tokens" not in server.bodies[0]


def test_a_dummy_key_is_not_blotted_out_of_the_answers(
    serve: Any,
    answer: Answer,
    ask_for: Ask,
    journal: Journal,
    quick: ClientConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_KEY", "none")

    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return answer("none of these")

    door = door_to(serve(handle), journal, msgspec.structs.replace(quick, api_key_env="LOCAL_KEY"))
    assert texts(door, ask_for(1)) == ["none of these"]


def test_no_key_is_sent_unless_one_is_named(
    serve: Any,
    answer: Answer,
    ask_for: Ask,
    journal: Journal,
    quick: ClientConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)

    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return answer("fine")

    server = serve(handle)
    replies(door_to(server, journal, quick), ask_for(1))
    assert "Authorization" not in server.headers[0]
    monkeypatch.delenv("OPENAI_API_KEY")
    with (
        pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"),
        open_door("openai:gpt-x", journal=journal),
    ):
        pass
