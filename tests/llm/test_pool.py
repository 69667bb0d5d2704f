"""Several servers of one model, and servers that are busy: real ones, that count what they are asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from reasonembed.errors import ConfigError, EndpointError
from reasonembed.llm import pool
from reasonembed.llm.chat import Request
from reasonembed.llm.client import HttpBackend
from reasonembed.llm.door import ChatDoor, open_door
from reasonembed.llm.endpoint import ClientConfig, Endpoint, parse_endpoints
from reasonembed.llm.journal import Journal

Ask = Callable[..., list[Request]]
Answer = Callable[..., web.Response]


def ask_all(door: ChatDoor, requests: list[Request]) -> list[str]:
    return [reply.text for _, reply in door.replies(lambda: requests, label="ask")]


def test_several_urls_are_servers_of_one_model() -> None:
    both = (Endpoint("http://a:8000/v1", "m"), Endpoint("http://b:8000/v1", "m"))
    assert parse_endpoints("http://a:8000/v1,http://b:8000/v1#m") == both
    assert parse_endpoints("http://a:8000/v1#m, http://b:8000/v1/,http://a:8000/v1") == both
    assert parse_endpoints("http://a:8000/v1,http://b:8000/v1", model="m") == both
    assert parse_endpoints("http://a/x,y/v1#m,n") == (Endpoint("http://a/x,y/v1", "m,n"),)
    with pytest.raises(ConfigError, match="two models"):
        parse_endpoints("http://a/v1#m,http://b/v1#n")


def test_servers_share_the_work_and_the_journal_does_not_care_which_they_are(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        await asyncio.sleep(0.005)
        return answer(f"answer {body['seed']}")

    first, second, third = serve(handle), serve(handle), serve(handle)
    with open_door([first.url, second.url], model="m", journal=journal, client=quick) as door:
        assert ask_all(door, ask_for(60)) == [f"answer {n}" for n in range(60)]
    assert min(len(first.bodies), len(second.bodies)) > 15
    with open_door(f"{third.url}#m", journal=journal, client=quick) as door:
        ask_all(door, ask_for(60))
    assert not third.bodies, "another pool, the same keys"


def test_a_sick_server_is_left_out_and_taken_back_when_it_is_up(
    serve: Any,
    answer: Answer,
    ask_for: Ask,
    journal: Journal,
    quick: ClientConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(pool, "_PROBE_S", 0.05)

    async def sick(request: web.Request, body: Any, number: int) -> web.Response:
        if number <= 10:
            return web.Response(status=500)
        return answer("fine")

    async def steady(request: web.Request, body: Any, number: int) -> web.Response:
        await asyncio.sleep(0.004)
        return answer("fine")

    ailing, healthy = serve(sick), serve(steady)
    config = msgspec.structs.replace(quick, attempts=3)
    backend = HttpBackend([Endpoint(ailing.url, "m"), Endpoint(healthy.url, "m")], config=config)
    door = ChatDoor(backend, journal, concurrency=4)
    assert ask_all(door, ask_for(600)) == ["fine"] * 600
    assert "left out until it is up again" in caplog.text and f"{ailing.url} is up again" in caplog.text
    assert len(ailing.bodies) > 20, "it was asked again after it had recovered"
    assert len(healthy.bodies) > 40, "it went on meanwhile"


def test_a_server_that_is_gone_costs_no_request_its_answer(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return answer("fine")

    server = serve(handle)
    config = msgspec.structs.replace(quick, attempts=2)
    with open_door(f"http://127.0.0.1:9/v1,{server.url}#m", journal=journal, client=config) as door:
        assert ask_all(door, ask_for(80)) == ["fine"] * 80
    assert len(server.bodies) == 80


def test_where_all_servers_are_gone_it_ends_with_their_names(
    ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    with (
        open_door("http://127.0.0.1:9/v1,http://127.0.0.1:10/v1#m", journal=journal, client=quick) as door,
        pytest.raises(EndpointError, match="in a row"),
    ):
        ask_all(door, ask_for(100))


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_less_at_once_until_it_copes(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig, status: int
) -> None:
    """It bears four at once: of 32 in flight most are refused at first, few later."""
    working = 0
    refused: list[int] = []

    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        nonlocal working
        if working >= 4:
            refused.append(number)
            return web.Response(status=status)
        working += 1
        await asyncio.sleep(0.005)
        working -= 1
        return answer("fine")

    server = serve(handle)
    config = msgspec.structs.replace(quick, concurrency=32, attempts=1 if status == 429 else 30)
    door = ChatDoor(HttpBackend(Endpoint(server.url, "m"), config=config), journal, concurrency=32)
    assert ask_all(door, ask_for(300)) == ["fine"] * 300
    assert 10 < len(refused) < 200
    late = [number for number in refused if number > len(server.bodies) - 100]
    assert len(late) < 45, "the limit swings around what the server bears"


def test_a_retry_after_holds_for_every_request(
    serve: Any, answer: Answer, ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    times: list[float] = []

    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        times.append(time.monotonic())
        if number == 1:
            return web.Response(status=429, headers={"Retry-After": "0.5"})
        await asyncio.sleep(0.15)
        return answer("fine")

    door = ChatDoor(HttpBackend(Endpoint(serve(handle).url, "m"), config=quick), journal, concurrency=4)
    assert ask_all(door, ask_for(12)) == ["fine"] * 12
    pause = [moment - times[0] for moment in times[4:]]  # the first four were on their way
    assert len(times) == 13 and min(pause) >= 0.5


def test_waiting_on_a_retry_after_beyond_patience_is_an_error_for_all(
    serve: Any, ask_for: Ask, journal: Journal, quick: ClientConfig
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "3600"})

    server = serve(handle)
    door = ChatDoor(HttpBackend(Endpoint(server.url, "m"), config=quick), journal, concurrency=4)
    with pytest.raises(EndpointError, match=r"12 of 12 requests.*patience_s"):
        ask_all(door, ask_for(12))
    assert len(server.bodies) <= 4


def test_caps_per_minute_are_kept(serve: Any, answer: Answer, ask_for: Ask, tmp_path: Any, quick: ClientConfig) -> None:
    times: list[float] = []

    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        times.append(time.monotonic())
        return answer("fine")

    server = serve(handle)
    for number, cap in enumerate(({"requests_per_minute": 3000}, {"tokens_per_minute": 30_000})):
        times.clear()
        config = msgspec.structs.replace(quick, **cap)
        with open_door(server.url, model="m", journal_path=tmp_path / str(number), client=config) as door:
            assert ask_all(door, ask_for(21, max_tokens=10)) == ["fine"] * 21
        span = times[-1] - times[0]
        # 20 further requests at 50 a second; or at 10 tokens each (the server says 7 + 3), 500 tokens a second
        assert span >= 0.38, cap


def test_an_answer_by_another_model_is_asked_again_unless_that_is_not_checked(
    serve: Any, answer: Answer, ask_for: Ask, tmp_path: Any, quick: ClientConfig
) -> None:
    async def handle(request: web.Request, body: Any, number: int) -> web.Response:
        named = "gpt-small" if number in (2, 5) else "m"
        text = f"answer {body['seed']} by {named}"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return web.json_response({"model": named, "choices": [choice]})

    for check, substituted in ((True, 0), (False, 2)):
        config = msgspec.structs.replace(quick, check_model=check, concurrency=1)
        with open_door(serve(handle).url, model="m", journal_path=tmp_path / str(check), client=config) as door:
            texts = ask_all(door, ask_for(8))
        assert sum(text.endswith("gpt-small") for text in texts) == substituted
