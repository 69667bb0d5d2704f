"""An embeddings endpoint as an encoder: a real server in a thread, well-behaved and not."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from reasonembed.encoder.remote import EndpointConfig, EndpointEncoder
from reasonembed.errors import ConfigError, EndpointError, InputError
from reasonembed.llm.endpoint import ClientConfig

QUICK = ClientConfig(concurrency=3, backoff_s=0.01, backoff_limit_s=0.02, attempts=3, patience_s=2.0)
Answer = Callable[[dict[str, Any], int], Any]


def vector_of(text: str, dimension: int = 4) -> list[float]:
    return [float(len(text)), float(text.count("a")), 1.0, 0.5, *([0.25] * (dimension - 4))][:dimension]


def embeddings(body: dict[str, Any], vectors: list[list[float]] | None = None) -> dict[str, Any]:
    """OpenAI's response, its items in reversed order, which `index` undoes."""
    rows = vectors if vectors is not None else [vector_of(text, body.get("dimensions", 4)) for text in body["input"]]
    packed: list[Any] = list(rows)
    if body["encoding_format"] == "base64":
        packed = [base64.b64encode(np.array(row, dtype="<f4").tobytes()).decode() for row in rows]
    items = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(packed)]
    return {"object": "list", "data": items[::-1], "model": body["model"], "usage": {"prompt_tokens": 1}}


class Script:
    """How the server (`serve`, in tests/conftest) answers, and how many requests it had at once."""

    def __init__(self) -> None:
        self.answer: Answer = lambda body, _: embeddings(body)
        self.in_flight = self.most_in_flight = 0

    async def handle(self, request: web.Request, body: dict[str, Any], number: int) -> web.StreamResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.01)
        self.in_flight -= 1
        answer = self.answer(body, number)
        return answer if isinstance(answer, web.Response) else web.json_response(answer)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def server(serve: Any, script: Script) -> Any:
    return serve(script.handle)


@pytest.fixture
def encoder(server: Any) -> Callable[..., EndpointEncoder]:
    def make(client: ClientConfig = QUICK, **config: Any) -> EndpointEncoder:
        return EndpointEncoder(f"{server.url}#m", config=EndpointConfig(**config), client=client)

    return make


@pytest.mark.parametrize("encoding_format", ["base64", "float"])
def test_vectors_come_in_the_order_of_the_texts_and_normalised(encoder: Any, server: Any, encoding_format: Any):
    texts = ["banana", "kiwi", "a" * 30, "fig", "apple pie"]
    vectors = encoder(encoding_format=encoding_format, batch_texts=2).encode(texts, prompt="p: ")
    expected = np.array([vector_of("p: " + text) for text in texts])
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
    assert vectors.dtype == np.float32
    assert sorted(len(body["input"]) for body in server.bodies) == [1, 2, 2]


def test_batches_are_bounded_by_texts_and_characters_and_so_is_what_is_in_flight(
    encoder: Any, server: Any, script: Script
) -> None:
    encoder(batch_texts=3, batch_chars=10).encode(["aaaa"] * 12 + ["b" * 50])
    sizes = sorted([len(text) for text in body["input"]] for body in server.bodies)
    assert sizes == [[4, 4]] * 6 + [[50]]
    assert 1 < script.most_in_flight <= 3


def test_dimensions_and_input_type_are_sent_only_where_they_are_asked_for(encoder: Any, server: Any) -> None:
    encoder().encode(["a"])
    assert server.bodies[0] == {"model": "m", "input": ["a"], "encoding_format": "base64"}
    asked = encoder(dimensions=3, input_type="query", max_chars=5)
    assert asked.encode(["abcdefgh"]).shape == (1, 3)
    assert server.bodies[1] == {
        "model": "m",
        "input": ["abcde"],
        "encoding_format": "base64",
        "dimensions": 3,
        "input_type": "query",
    }
    assert asked.name == "m (by its endpoint, 3 dimensions, cut at 5 characters)"


def test_what_may_pass_is_tried_again_and_a_429_uses_up_no_attempt(encoder: Any, script: Script) -> None:
    troubles = [429, 429, 500, 429, 503]
    script.answer = lambda body, n: web.Response(status=troubles[n - 1]) if n <= 5 else embeddings(body)
    assert encoder().encode(["a"]).shape == (1, 4)
    script.answer = lambda body, n: web.Response(status=500, text="out of memory")
    with pytest.raises(EndpointError, match=r"no answer in 3 tries, .* HTTP 500: out of memory.*shards are kept"):
        encoder().encode(["a"])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda body, n: embeddings(body, [vector_of(t, 4 if n == 1 else 5) for t in body["input"]]), "has 5 dim"),
        (lambda body, n: embeddings(body, [vector_of("a")]), "1 vectors for 2 texts"),
        (lambda body, n: embeddings(body, [vector_of("a"), [float("nan"), 1, 1, 1]]), "not finite"),
        (lambda body, n: embeddings(body, [vector_of("a"), [0.0] * 4]), "all zero"),
        (lambda body, n: {"data": "none"}, "cannot be read"),
        (lambda body, n: {"data": [{"index": 0, "embedding": "%%%"}]}, "cannot be read"),
        (lambda body, n: web.Response(text='{"data": ['), "cannot be read"),
        (lambda body, n: web.Response(text='{"more": ' + "[" * 100_000), "cannot be read"),
    ],
)  # fmt: skip
def test_an_endpoint_that_gives_other_than_one_vector_for_each_text_is_named(
    encoder: Any, script: Script, answer: Answer, said: str
) -> None:
    script.answer = answer
    with pytest.raises(EndpointError, match=said):
        encoder(ClientConfig(concurrency=1), batch_texts=2).encode(["one", "two", "three", "four"])


def test_a_refused_text_and_a_missing_model_are_the_users_to_mend(encoder: Any, script: Script) -> None:
    script.answer = lambda body, n: web.json_response(
        {"error": {"message": "maximum context length is 8192 tokens"}}, status=400
    )
    with pytest.raises(InputError, match=r"1 texts of up to 5 characters: HTTP 400: maximum.*max_chars"):
        encoder().encode(["hello"])
    with pytest.raises(ConfigError, match="names no model"):
        EndpointEncoder("http://127.0.0.1:1/v1")
    with pytest.raises(ConfigError, match="max_chars cuts here"):
        encoder().encode(["hello"], max_tokens=5)


def test_the_key_is_read_from_its_variable_and_never_shown(
    encoder: Any, server: Any, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "canary-0123456789")
    with_key = encoder(ClientConfig(api_key_env="MY_KEY"))
    with_key.encode(["a"])
    assert server.headers[0]["Authorization"] == "Bearer canary-0123456789"
    script.answer = lambda body, n: web.Response(status=401, text=json.dumps({"error": "bad key canary-0123456789"}))
    with pytest.raises(EndpointError, match=r"bad key \[key\]") as refused:
        with_key.encode(["a"])
    assert "canary" not in f"{refused.value!r} {with_key!r}"


def test_no_texts_ask_nothing(encoder: Any, server: Any) -> None:
    assert encoder().encode([]).shape[0] == 0
    assert server.bodies == []


def test_the_dimension_is_asked_for_once(encoder: Any, server: Any) -> None:
    made = encoder()
    assert (made.dimension, made.dimension, len(server.bodies)) == (4, 4, 1)
