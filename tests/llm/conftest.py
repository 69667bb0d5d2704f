"""A real HTTP server in a thread, whose behaviour each test states, and requests to send to it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from reasonembed.llm.chat import Message, Request, Sampling
from reasonembed.llm.endpoint import ClientConfig
from reasonembed.llm.journal import Journal

Handler = Callable[[web.Request, dict[str, Any], int], Awaitable[web.StreamResponse]]


def completion(content: Any = "an answer", finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion as OpenAI's endpoint writes it."""
    turn = {"role": "assistant", "content": content, **message}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    choice = {"index": 0, "message": turn, "finish_reason": finish_reason}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


class Server:
    """What a test sees of the server: its URL, and the headers and bodies that came in."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.models = ["m"]
        self.url = ""

    @property
    def asked(self) -> list[str]:
        """The custom id of each try."""
        return [headers["X-Request-Id"].partition(";")[0] for headers in self.headers]

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.bodies.append(body)
        self.headers.append(request.headers.copy())
        return await self.handler(request, body, len(self.bodies))

    async def list_models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})


@pytest.fixture
def serve(served: Any) -> Iterator[Callable[[Handler], Server]]:
    """Start a server with the given handler (request, body, number of the try); it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(handler: Handler) -> Server:
            server = Server(handler)
            chat = ("/v1/chat/completions", "/openai/deployments/{name}/chat/completions")
            routes = [web.get("/v1/models", server.list_models), *(web.post(path, server.chat) for path in chat)]
            server.url = f"{stack.enter_context(served(routes))}/v1"
            return server

        yield start


@pytest.fixture
def answer() -> Callable[..., web.Response]:
    """A 200 with a completion in OpenAI's form."""
    return lambda content="an answer", **more: web.json_response(completion(content, **more))


@pytest.fixture
def ask_for() -> Callable[..., list[Request]]:
    """`count` different requests."""

    def make(count: int, *, stage: str = "generate", **sampling: Any) -> list[Request]:
        return [
            Request(f"{stage}:biology:doc-{n}", (Message("user", f"question {n}"),), Sampling(**sampling), seed=n)
            for n in range(count)
        ]

    return make


@pytest.fixture
def quick() -> ClientConfig:
    """Retries that a test can wait for."""
    return ClientConfig(
        concurrency=4,
        backoff_s=0.01,
        backoff_limit_s=0.05,
        connect_timeout_s=2,
        read_timeout_s=10,
        patience_s=5,
    )


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An open, empty journal."""
    with Journal(tmp_path / "journal.sqlite") as opened:
        yield opened
