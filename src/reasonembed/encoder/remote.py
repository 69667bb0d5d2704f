"""An encoder behind an OpenAI-compatible `/embeddings` endpoint: texts in, L2-normalised vectors out.

N: texts, D: dimension.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import Iterator, Sequence
from typing import Literal

import aiohttp
import msgspec
import numpy as np
from numpy.typing import NDArray

from reasonembed.errors import ConfigError, EndpointError, InputError
from reasonembed.llm.backend import TransportFailure
from reasonembed.llm.chat import Reply
from reasonembed.llm.client import HttpBackend, explain
from reasonembed.llm.endpoint import ClientConfig, Endpoint, parse_endpoint
from reasonembed.llm.outcomes import Again, Hopeless, judge, parse_retry_after
from reasonembed.llm.running import run_to_end

MAX_RESPONSE_BYTES = 256 * 1024 * 1024  # our choice: 2,048 vectors of 4,096 numbers in decimals fit


class _Item(msgspec.Struct):
    embedding: str | list[float]
    index: int


class _Response(msgspec.Struct):
    data: list[_Item]


class EndpointConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an embeddings endpoint is asked for, and in which portions."""

    dimensions: int | None = None  # sent where given: models that can cut their vectors do
    input_type: str = ""  # sent where given: "query" or "document" for servers that tell them apart
    max_chars: int | None = None  # texts are cut there; None leaves the limit to the server
    encoding_format: Literal["base64", "float"] = "base64"  # base64 is exact and a third of the size
    batch_texts: int = 64  # texts in one request at most
    batch_chars: int = 200_000  # characters in one request at most; a longer text goes alone

    def __post_init__(self) -> None:
        for name in ("dimensions", "max_chars", "batch_texts", "batch_chars"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value!r}; it must be at least 1.")


class EndpointEncoder:
    """The model at `spec` (`http(s)://HOST/v1#MODEL`, `openai:M`, `azure:D`); see `search.systems.Encoder`.

    The key is read from the environment variable that `client` names and goes nowhere but into the header. The
    server's own limit of tokens holds, so `max_tokens` is 0 and texts cannot be cut at a number of tokens here.
    """

    dtype = ""
    max_tokens = 0

    def __init__(self, spec: str, *, config: EndpointConfig | None = None, client: ClientConfig | None = None) -> None:
        self.endpoint: Endpoint = parse_endpoint(spec)
        if not self.endpoint.model:
            raise ConfigError(f"{spec} names no model. Write it behind the address: {spec}#MODEL.")
        self.config = config or EndpointConfig()
        self.client = client or ClientConfig()
        self.prompts: dict[str, str] = {}
        self._dimension: int | None = self.config.dimensions
        self._backend = HttpBackend(self.endpoint, config=self.client)

    def __repr__(self) -> str:
        return f"EndpointEncoder({self.name!r})"

    @property
    def name(self) -> str:
        """The model's name, with what was asked for."""
        asked = [f"{self.config.dimensions} dimensions"] if self.config.dimensions else []
        asked += [f"cut at {self.config.max_chars} characters"] if self.config.max_chars else []
        return f"{self.endpoint.model} ({', '.join(['by its endpoint', *asked])})"

    @property
    def dimension(self) -> int:
        """Numbers in a vector; asks the endpoint where that is not known yet."""
        if self._dimension is None:
            self.encode(["dimension"])
        assert self._dimension is not None
        return self._dimension

    def encode(self, texts: Sequence[str], *, prompt: str = "", max_tokens: int | None = None) -> NDArray[np.float32]:
        """The vectors of `prompt + text` for each text in order: float32 (N, D), L2-normalised.

        Raises EndpointError if the endpoint cannot be used, changes its dimension, or gives other than one
        finite vector for each text; InputError for a text that it refuses; ConfigError for `max_tokens`.
        """
        if max_tokens:
            raise ConfigError(
                f"{self.name}: an endpoint cuts texts by its own limit. Leave max_tokens out; max_chars cuts here."
            )
        if not texts:
            return np.empty((0, self._dimension or 0), dtype=np.float32)
        full = [(prompt + text)[: self.config.max_chars] for text in texts]
        return np.concatenate(run_to_end(self._encode_all(list(self._batches(full)))))

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        chars = 0
        for text in texts:
            if batch and (len(batch) == self.config.batch_texts or chars + len(text) > self.config.batch_chars):
                yield batch
                batch, chars = [], 0
            batch.append(text)
            chars += len(text)
        yield batch

    async def _encode_all(self, batches: Sequence[list[str]]) -> list[NDArray[np.float32]]:
        slots = asyncio.Semaphore(self.client.concurrency)
        async with self._backend.connections() as connections:

            async def one(batch: list[str]) -> NDArray[np.float32]:
                async with slots:
                    return self._vectors(await self._ask(connections, batch), len(batch))

            tasks = [asyncio.ensure_future(one(batch)) for batch in batches]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _ask(self, connections: aiohttp.ClientSession, batch: list[str]) -> bytes:
        """The body of a 200, after bounded retries; a 429 uses up patience, not an attempt."""
        body = self._body(batch)
        try:
            outcome: bytes | Reply | Hopeless = await self._backend.insist(lambda: self._try(connections, body))
        except TransportFailure as failure:
            raise EndpointError(
                f"{self.endpoint.url}, {self.endpoint.model}: {failure} Run the same command again when it answers: "
                f"whole shards are kept."
            ) from failure
        if isinstance(outcome, bytes):
            return outcome
        if isinstance(outcome, Hopeless):
            raise self._backend.hopeless(outcome)
        detail = outcome.failure.detail if outcome.failure else ""
        raise InputError(
            f"{self.name} refuses {len(batch)} texts of up to {max(map(len, batch))} characters: {detail}. "
            f"Where they are too long, set max_chars."
        )

    def _body(self, batch: list[str]) -> bytes:
        body: dict[str, object] = {
            "model": self.endpoint.model,
            "input": batch,
            "encoding_format": self.config.encoding_format,
        }
        if self.config.dimensions:
            body["dimensions"] = self.config.dimensions
        if self.config.input_type:
            body["input_type"] = self.config.input_type
        return msgspec.json.encode(body)

    async def _try(self, connections: aiohttp.ClientSession, body: bytes) -> bytes | Reply | Again | Hopeless:
        try:
            async with connections.post(
                self.endpoint.address("embeddings"),
                data=body,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                content = await self._backend.content(response, limit_bytes=MAX_RESPONSE_BYTES)
                if content is None:
                    return Again(f"HTTP {response.status}: a body beyond {MAX_RESPONSE_BYTES >> 20} MiB")
                if response.status == 200:
                    return content
                after_s = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
                return judge(response.status, content, "", after_s=after_s)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return explain(error)

    def _vectors(self, content: bytes, count: int) -> NDArray[np.float32]:
        """The vectors of one response, in the order of its texts, checked."""
        try:
            items = sorted(msgspec.json.decode(content, type=_Response).data, key=lambda item: item.index)
            rows = [_numbers(item.embedding) for item in items]
        except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError) as error:
            raise self._broken(f"its answer cannot be read ({error})") from error
        if [item.index for item in items] != list(range(count)):
            raise self._broken(f"it gave {len(items)} vectors for {count} texts")
        for row in rows:
            if self._dimension is None:
                self._dimension = len(row)
            if len(row) != self._dimension:
                raise self._broken(f"a vector has {len(row)} dimensions, where {self._dimension} were expected")
        vectors = np.stack(rows)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms) & (norms > 0)).all():
            raise self._broken("a vector is not finite, or all zero")
        return vectors / norms

    def _broken(self, what: str) -> EndpointError:
        return EndpointError(
            f"{self.endpoint.url}, {self.endpoint.model}: {what}. Check that one model alone answers at that "
            f"address, and that it has not changed; then run the same command again."
        )


def _numbers(embedding: str | list[float]) -> NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
    return np.array(embedding, dtype=np.float32)
