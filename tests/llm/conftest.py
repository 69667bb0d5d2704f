"""Chat completions as a server writes them, and requests to ask it (the server itself: `serve`, in tests/conftest)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from reasonembed.llm.chat import Message, Request, Sampling
from reasonembed.llm.endpoint import ClientConfig
from reasonembed.llm.journal import Journal


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
