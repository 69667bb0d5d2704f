"""The HTTP client: servers that speak OpenAI's `/chat/completions`, many requests at once, bounded retries."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from reasonembed.errors import ConfigError, EndpointError, shown
from reasonembed.llm.backend import Ask, TransportFailure
from reasonembed.llm.chat import Reply, Request
from reasonembed.llm.endpoint import ClientConfig, Endpoint, read_key
from reasonembed.llm.limits import RateCap, TokenEstimate
from reasonembed.llm.outcomes import Again, Hopeless, judge, parse_retry_after, read_problem
from reasonembed.llm.pool import Pool, Target
from reasonembed.llm.running import run_to_end
from reasonembed.llm.served_names import ServedNames
from reasonembed.llm.wire import wire_body, wire_id

logger = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")

MAX_RESPONSE_BYTES = 8 * 1024 * 1024  # our choice: no completion is larger; the rest is not read
_DISCOVERY_ATTEMPTS = 3
_HIDDEN = b"[key]"
_MIN_SECRET_CHARS = 12  # shorter "keys" are the dummies of local servers (EMPTY, none), and words of a text


class _ModelEntry(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_ModelEntry]


class HttpBackend:
    """Answers from an OpenAI-compatible endpoint, or from several that serve the same model (a `Pool`).

    The key is read from the environment variable that `config` names, and goes nowhere but into the header.
    revision: names the weights where the model's name does not; part of the journal's key, never sent.
    Raises ConfigError if the variable is named and empty.
    """

    honours_conditions = True
    keyed_by_custom_id = False

    def __init__(self, endpoint: Endpoint | Sequence[Endpoint], *, config: ClientConfig, revision: str = "") -> None:
        self.endpoints = (endpoint,) if isinstance(endpoint, Endpoint) else tuple(endpoint)
        self.endpoint = endpoint = self.endpoints[0]  # in all that the request's body depends on they are equal
        self.config = config
        self.model = f"{endpoint.model}@{revision}" if revision else endpoint.model
        self._key_env = config.api_key_env or endpoint.default_key_env
        key = read_key(self._key_env) if self._key_env else ""
        self.headers = endpoint.headers(key)
        self._secret = key.encode() if len(key) >= _MIN_SECRET_CHARS else b""
        self._urls = {one.url: _url(one.chat_url) for one in self.endpoints}
        self._names = {one.url: ServedNames(endpoint.model) for one in self.endpoints}
        self._jitter = random.Random()
        self._requests = RateCap(config.requests_per_minute)
        self._tokens = RateCap(config.tokens_per_minute)
        self._estimate = TokenEstimate()
        for one in self.endpoints:
            if key and one.exposes_keys:
                logger.warning("the key in %s travels unencrypted to %s; use https.", self._key_env, one.url)

    def __repr__(self) -> str:
        return f"HttpBackend({self._place()!r}, model={self.model!r})"

    def _place(self) -> str:
        return ",".join(endpoint.url for endpoint in self.endpoints)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """A function that asks the endpoints, over connections that are kept for the length of the block."""
        pool = Pool(self.endpoints, ceiling=self.config.concurrency, probe=self._is_up)
        async with self.connections() as connections:

            async def ask(request: Request) -> Reply:
                return await self._answer(connections, pool, request)

            try:
                yield ask
            finally:
                await pool.close()

    def connections(self) -> aiohttp.ClientSession:
        """Connections to the endpoints, with the key in their headers; a context manager."""
        config = self.config
        timeout = aiohttp.ClientTimeout(
            total=config.total_timeout_s,
            sock_connect=config.connect_timeout_s,
            sock_read=config.read_timeout_s,
        )
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=config.concurrency),
            timeout=timeout,
            headers={"Accept-Encoding": "identity", **self.headers},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def _answer(self, connections: aiohttp.ClientSession, pool: Pool, request: Request) -> Reply:
        body = wire_body(self.endpoint, request)
        name = wire_id(request.custom_id)
        tries, failed, waited_s = 1, 0, 0.0
        target: Target | None = None
        while True:  # bounded by attempts and patience
            header = name if tries == 1 else f"{name};try={tries}"
            tokens = await self._keep_to_caps(len(body), request.sampling.max_tokens)
            target = await pool.enter(avoid=target, patience_s=self.config.patience_s - waited_s)
            sent_at, outcome = time.monotonic(), None
            try:
                outcome = await self._try(connections, target, body, request.custom_id, header)
            finally:
                pool.leave(target, outcome, sent_at=sent_at)
            self._settle_tokens(outcome, tokens)
            if isinstance(outcome, Reply):
                return outcome
            if isinstance(outcome, Hopeless):
                raise self.hopeless(outcome)
            failed += outcome.uses_attempt
            pause_s = self.pause_s(outcome, tries)
            waited_s += 0.0 if outcome.uses_attempt and outcome.after_s is None else pause_s
            logger.debug("%s, try %d: %s", request.custom_id, tries, outcome.cause)
            if failed >= self.config.attempts:
                raise TransportFailure(f"no answer in {failed} attempts, the last: {outcome.cause}.")
            if waited_s > self.config.patience_s:
                raise TransportFailure(
                    f"the server puts us off beyond patience_s = {self.config.patience_s:g}: {outcome.cause}."
                )
            await asyncio.sleep(pause_s)
            tries += 1

    async def _keep_to_caps(self, body_bytes: int, max_tokens: int) -> float:
        """Waits as the caps per minute demand; gives the tokens that were booked for this try."""
        if not self.config.requests_per_minute and not self.config.tokens_per_minute:
            return 0.0
        tokens = self._estimate.guess(body_bytes, max_tokens)
        now = time.monotonic()
        pause_s = max(self._requests.take(1, now=now), self._tokens.take(tokens, now=now))
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        return tokens

    def _settle_tokens(self, outcome: Reply | Again | Hopeless, booked: float) -> None:
        if booked and isinstance(outcome, Reply) and outcome.usage.prompt_tokens:
            self._estimate.learn(outcome.usage.completion_tokens)
            self._tokens.correct(outcome.usage.prompt_tokens + outcome.usage.completion_tokens - booked)

    async def _try(
        self, connections: aiohttp.ClientSession, target: Target, body: bytes, custom_id: str, name: str
    ) -> Reply | Again | Hopeless:
        url = target.endpoint.url
        check = self._names[url].check if self.config.check_model and not target.endpoint.renames_model else None
        try:
            async with connections.post(
                self._urls[url],
                data=body,
                headers={"Content-Type": "application/json", "X-Request-Id": name},
                allow_redirects=False,
            ) as response:
                content = await self.content(response)
                after_s = None
                if response.status != 200:
                    after_s = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
                if content is None:
                    return Again(f"HTTP {response.status}: a body beyond {MAX_RESPONSE_BYTES >> 20} MiB", after_s)
                return judge(response.status, content, custom_id, after_s=after_s, check_model=check)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return explain(error)

    async def insist(self, ask: Callable[[], Awaitable[Outcome | Again]]) -> Outcome:
        """What `ask` comes to, called again after a pause as long as it says so.

        Raises TransportFailure with the number of tries and the last cause when attempts or patience end.
        """
        tries, failed, waited_s = 1, 0, 0.0
        while True:  # bounded by attempts and patience
            outcome = await ask()
            if not isinstance(outcome, Again):
                return outcome
            failed += outcome.uses_attempt
            pause_s = self.pause_s(outcome, tries)
            waited_s += pause_s
            logger.debug("%s, try %d: %s", self.endpoint.url, tries, outcome.cause)
            if failed >= self.config.attempts or waited_s > self.config.patience_s:
                raise TransportFailure(f"no answer in {tries} tries, the last: {outcome.cause}.")
            await asyncio.sleep(pause_s)
            tries += 1

    async def content(self, response: aiohttp.ClientResponse, *, limit_bytes: int = MAX_RESPONSE_BYTES) -> bytes | None:
        """The body with our key blotted out, should the server repeat it; None if it is too large."""
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > limit_bytes:
                response.close()
                return None
            chunks.append(chunk)
        return self.blot(b"".join(chunks))

    def blot(self, content: bytes) -> bytes:
        """`content` without our key."""
        return content.replace(self._secret, _HIDDEN) if self._secret and self._secret in content else content

    def pause_s(self, outcome: Again, tries: int) -> float:
        """How long to wait after so many tries: what the server asks for, a little spread, or our backoff."""
        pause_s = self.config.backoff_after(tries) * self._jitter.uniform(0.5, 1.0)
        if outcome.after_s is None:
            return pause_s
        return outcome.after_s + min(pause_s, 0.1 * outcome.after_s + self.config.backoff_s)

    def hopeless(self, outcome: Hopeless) -> EndpointError:
        """The error that says why nothing will be answered, and what to do."""
        remedy = outcome.remedy
        if outcome.wants_key:
            remedy = (
                f"Check the key in the environment variable {self._key_env}."
                if self._key_env
                else "It wants a key: put it into an environment variable and name that one as api_key_env."
            )
        return EndpointError(f"{self._place()}, model {shown(self.endpoint.model)}: {outcome.cause}. {remedy}")

    async def _is_up(self, endpoint: Endpoint) -> bool:
        """Whether a server answers at all: with its models, or with whatever it says where it lists none."""
        try:
            return (await self._get_models(endpoint))[0] < 500
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def models(self) -> list[str]:
        """The names that the server lists. Raises EndpointError if it gives no such list."""
        cause = ""
        for trial in range(min(_DISCOVERY_ATTEMPTS, self.config.attempts)):
            if trial:
                await asyncio.sleep(self.pause_s(Again(cause), trial))
            try:
                return await self._list_models()
            except (aiohttp.ClientError, OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                cause = _plain(error)
        raise EndpointError(
            f"{self.endpoint.models_url} does not answer: {cause}. Start the server, check the address, or "
            f"name the model ({self.endpoint.url}#MODEL), so that the server need not be asked for it."
        )

    async def _list_models(self) -> list[str]:
        status, content = await self._get_models(self.endpoint)
        if status in (401, 403):
            raise self.hopeless(Hopeless(f"HTTP {status}: {read_problem(content).message}", wants_key=True))
        if status != 200:
            raise aiohttp.ClientError(f"HTTP {status} {read_problem(content).message}")
        return [entry.id for entry in msgspec.json.decode(content, type=_ModelList).data]

    async def _get_models(self, endpoint: Endpoint) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=3 * self.config.connect_timeout_s)
        async with aiohttp.ClientSession(headers=self.headers, timeout=timeout) as connections:
            async with connections.get(endpoint.models_url, allow_redirects=False) as response:
                return response.status, await self.content(response) or b""


def _url(text: str) -> URL:
    try:
        return URL(text)
    except ValueError as error:
        raise ConfigError(f"{shown(text)} is no URL: {error}. Write it like http://localhost:8000/v1.") from error


def connect(endpoint: Endpoint | Sequence[Endpoint], *, config: ClientConfig, revision: str = "") -> HttpBackend:
    """A backend for `endpoint`, or for several; if no model is named, the (first) server must list exactly one.

    Raises EndpointError if it must be asked and does not answer, ConfigError if it lists none or several.
    """
    backend = HttpBackend(endpoint, config=config, revision=revision)
    first = backend.endpoint
    if first.model:
        return backend
    models = run_to_end(backend.models())
    if len(models) != 1:
        listed = ", ".join(shown(name) for name in models[:10]) or "none"
        raise ConfigError(f"{first.url} lists {len(models)} models ({listed}). Name one: {first.url}#MODEL.")
    named = [msgspec.structs.replace(one, model=models[0]) for one in backend.endpoints]
    return HttpBackend(named, config=config, revision=revision)


def explain(error: BaseException) -> Again | Hopeless:
    """What an exception of the connection means."""
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Hopeless(_plain(error), "Check the address (http or https?) and the server's certificate.")
    return Again(_plain(error))


def _plain(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


__all__ = ["HttpBackend", "connect", "explain"]
