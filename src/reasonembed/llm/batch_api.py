"""OpenAI's batch interface over HTTP: files up and down, batches made, found and looked at; with bounded retries."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from reasonembed.errors import EndpointError, StorageError, shown
from reasonembed.llm.backend import TransportFailure
from reasonembed.llm.batch_file import CHAT_PATH
from reasonembed.llm.chat import Reply
from reasonembed.llm.client import HttpBackend, explain
from reasonembed.llm.outcomes import Again, Hopeless, judge, parse_retry_after, read_problem

logger = logging.getLogger(__name__)

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_WINDOW = "24h"  # the only one there is
_PAGES = 50  # of a hundred batches, looked through for one that may run already
_PART_BYTES = 1 << 20
_ABSENT = frozenset({404, 405, 501})


class _Counts(msgspec.Struct):
    total: int = 0
    completed: int = 0
    failed: int = 0


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Errors(msgspec.Struct):
    data: list[_Error] | None = None


class Batch(msgspec.Struct):
    """A batch as the provider describes it."""

    id: str
    status: str
    input_file_id: str = ""
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Errors | None = None
    request_counts: _Counts | None = None

    @property
    def done(self) -> int:
        """Requests that are through, well or not."""
        counts = self.request_counts or _Counts()
        return counts.completed + counts.failed

    @property
    def reasons(self) -> str:
        """Why it failed, in the provider's words."""
        listed = (self.errors.data if self.errors else None) or []
        return "; ".join(": ".join(filter(None, [error.code, error.message])) for error in listed[:3])


class _File(msgspec.Struct):
    id: str


class _Page(msgspec.Struct):
    data: list[Batch]
    has_more: bool = False


class Refused(EndpointError):
    """The provider took a request of ours for a wrong one: nothing came of it."""


class _Absent(Exception):
    """The server answers and has no such thing."""


class BatchApi:
    """The batch interface of `backend`'s endpoint. Every call raises EndpointError if it gets no answer."""

    def __init__(self, backend: HttpBackend, connections: aiohttp.ClientSession) -> None:
        self._backend = backend
        self._connections = connections
        self._url = backend.endpoint.address

    async def upload(self, path: Path) -> str:
        """Send a file of requests; gives the id that it has there."""

        def form() -> aiohttp.FormData:
            data = aiohttp.FormData()
            data.add_field("purpose", "batch")
            data.add_field("file", path.open("rb"), filename="requests.jsonl", content_type="application/jsonl")
            return data

        return self._decoded(await self._call("POST", self._url("files"), form), _File).id

    async def create(self, file_id: str) -> Batch:
        """Have the requests of a file answered. One that runs already is not made a second time."""
        body = {"input_file_id": file_id, "endpoint": CHAT_PATH, "completion_window": _WINDOW}

        async def found() -> bytes | None:
            batch = await self.find(file_id)
            return msgspec.json.encode(batch) if batch else None

        content = await self._call("POST", self._url("batches"), lambda: msgspec.json.encode(body), already=found)
        return self._decoded(content, Batch)

    async def find(self, file_id: str) -> Batch | None:
        """The batch that was made of a file, if there is one and the server lists its batches."""
        after = ""
        for _ in range(_PAGES):
            try:
                content = await self._call("GET", f"{self._url('batches')}?limit=100{after}", may_be_absent=True)
            except _Absent:
                logger.warning("%s does not list its batches: one may be made twice.", self._backend.endpoint.url)
                return None
            page = self._decoded(content, _Page)
            for batch in page.data:
                if batch.input_file_id == file_id:
                    return batch
            if not page.has_more or not page.data:
                return None
            after = f"&after={quote(page.data[-1].id, safe='')}"
        return None

    async def get(self, batch_id: str) -> Batch | None:
        """How a batch stands; None if the server does not know it."""
        url = f"{self._url('batches')}/{quote(batch_id, safe='')}"
        try:
            return self._decoded(await self._call("GET", url, may_be_absent=True), Batch)
        except _Absent:
            return None

    async def download(self, file_id: str, path: Path) -> None:
        """Write a file of the provider's to `path`, whole. Raises StorageError if the disk refuses."""

        async def keep(response: aiohttp.ClientResponse) -> bytes:
            with path.open("wb") as handle:
                async for part in response.content.iter_chunked(_PART_BYTES):
                    handle.write(part)
            return b""

        await self._call("GET", f"{self._url('files')}/{quote(file_id, safe='')}/content", keep=keep)

    async def _call(
        self,
        method: str,
        url: str,
        body: Callable[[], Any] | None = None,
        *,
        already: Callable[[], Awaitable[bytes | None]] | None = None,
        keep: Callable[[aiohttp.ClientResponse], Awaitable[bytes]] | None = None,
        may_be_absent: bool = False,
    ) -> bytes:
        """The content of a 200. Raises _Absent where that may be.

        already: asked before each further try, whether an earlier one did its work after all.
        keep: takes the response instead.
        """
        tried = False

        async def ask() -> bytes | Again | Hopeless | _Absent:
            nonlocal tried
            if tried and already is not None and (done := await already()) is not None:
                return done
            tried = True
            return await self._try(method, url, body() if body else None, keep)

        try:
            outcome: bytes | Hopeless | _Absent = await self._backend.insist(ask)
        except TransportFailure as failure:
            raise EndpointError(
                f"{url}: {failure} What was sent before goes on there: run the same command again."
            ) from failure
        if isinstance(outcome, bytes):
            return outcome
        if isinstance(outcome, Hopeless):
            raise Refused(str(self._backend.hopeless(outcome)))
        if may_be_absent:
            raise outcome
        raise Refused(f"{outcome}. The server has no such batch file, or no batch interface at all.")

    async def _try(
        self, method: str, url: str, body: Any, keep: Callable[[aiohttp.ClientResponse], Awaitable[bytes]] | None
    ) -> bytes | Again | Hopeless | _Absent:
        headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        try:
            async with self._connections.request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status == 200 and keep is not None:
                    return await keep(response)
                content = await self._backend.content(response)
                if response.status in (200, 201) and content is not None:
                    return content
                after_s = parse_retry_after(response.headers.get("Retry-After"), now=time.time())
                return self._judged(response.status, content or b"", url, after_s)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            return explain(error)
        except OSError as error:
            raise StorageError(
                f"cannot write what {url} sends: {error.strerror}. Free some space, run again."
            ) from error

    def _judged(self, status: int, content: bytes, url: str, after_s: float | None) -> Again | Hopeless | _Absent:
        problem = read_problem(content).message
        if status in _ABSENT:
            return _Absent(f"{url}: HTTP {status}: {problem}")
        outcome = judge(status, content, "", after_s=after_s)
        if isinstance(outcome, Reply):
            return Hopeless(f"{url}: HTTP {status}: {problem}", "See what the provider's page on batches says.")
        return outcome

    def _decoded(self, content: bytes, kind: Any) -> Any:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            start = shown(content[:100].decode("utf-8", "replace"))
            raise EndpointError(
                f"{self._backend.endpoint.url} does not speak OpenAI's batch interface ({error}): {start}. Leave "
                f"`batch:` out, or give a provider that has it."
            ) from error


__all__ = ["ENDED", "Batch", "BatchApi", "Refused"]
