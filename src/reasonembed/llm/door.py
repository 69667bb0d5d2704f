"""The one door to language models: what the journal lacks is asked, committed, and read back in order."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from reasonembed import progress as terminal_progress
from reasonembed.errors import ConfigError, nearest, shown
from reasonembed.llm.asking import Asking, Stream, sum_spent
from reasonembed.llm.backend import Backend, payee
from reasonembed.llm.batch_state import open_batches
from reasonembed.llm.budget import Purse
from reasonembed.llm.chat import Reply, Request, Spent
from reasonembed.llm.endpoint import NETWORK_KINDS, ClientConfig, parse_endpoints
from reasonembed.llm.journal import Journal
from reasonembed.llm.keys import reply_key
from reasonembed.llm.prices import BATCH
from reasonembed.llm.running import run_to_end
from reasonembed.progress import Progress

logger = logging.getLogger(__name__)

KINDS = (
    "http://HOST:PORT/v1",
    "https://HOST/v1",
    "openai:MODEL",
    "azure:DEPLOYMENT",
    "batch:ENDPOINT",
    "local:MODEL",
    "recorded:pocket",
    "recorded:FOLDER",
    "scripted",
)

_KIND_WORDS = ("http", "https", "openai", "azure", "batch", "local", "recorded", "scripted")
_CHUNK = 256  # replies read from the journal at once
_LOCAL_CONCURRENCY = 8  # recordings and scripts answer at once


class Pass(Protocol):
    """Pass 1 over one stream of requests: see `asking.Asking` and `batching.BatchAsking`."""

    spent: Spent
    """What was committed so far."""

    async def run(self, concurrency: int) -> None:
        """Ask everything that is missing; what was answered is committed however this ends."""
        ...

    def raise_failures(self, label: str) -> None:
        """EndpointError if some requests got no answer, BudgetReached if some might not be asked."""
        ...


MakePass = Callable[[Any, Stream], Pass]
"""Pass 1 by a backend of the kind that it needs, over one stream."""


class ChatDoor:
    """Asks `backend` what `journal` lacks; implements `reasonembed.llm.chat.Door`.

    concurrency: requests in flight at once, at least 1.  progress: shows how far each call of `replies` is.
    purse: what was spent and may be spent; without one, spending is counted and not limited.
    Several doors may share one journal and one purse (a model per stage).  asking: how pass 1 is done.
    paid_as: the model's name in price lists and the ledger, where that is not the backend's.
    """

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        *,
        concurrency: int = _LOCAL_CONCURRENCY,
        progress: Progress = terminal_progress,
        purse: Purse | None = None,
        asking: MakePass = Asking,
        paid_as: str = "",
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency!r}; it must be at least 1.")
        self.backend = backend
        self.journal = journal
        self.concurrency = concurrency
        self.model = backend.model
        self.payee = paid_as or payee(backend)
        self._asking = asking
        self.honours_conditions = backend.honours_conditions
        self._progress = progress
        self._purse = purse or Purse(journal)
        self._spent = Spent()
        self._looked_for_batches = False

    def __repr__(self) -> str:
        return f"ChatDoor({self.backend!r}, {str(self.journal.path)!r}, concurrency={self.concurrency})"

    @property
    def spent(self) -> Spent:
        """Totals over all calls of `replies` so far; a repeated request counts as found in the journal."""
        return self._spent

    def replies(
        self, make_requests: Callable[[], Iterable[Request]], *, label: str, total: int | None = None
    ) -> Iterator[tuple[Request, Reply]]:
        """Every request with its reply, in the order of the requests; see `chat.Door.replies`.

        Raises EndpointError, after what could be answered was committed, if some requests failed in transport
        (or at once, if the endpoint cannot be used at all), BudgetReached if some might not be asked; nothing
        is yielded then. On Ctrl-C what was answered is committed before KeyboardInterrupt goes on.
        """
        self._warn_of_open_batches()
        with self._progress.task(label, total=total, note=self._purse.words) as advance:
            stream = Stream(iter(make_requests()), self.journal, self.key, advance, self._purse, self.payee)
            asking = self._asking(self.backend, stream)
            try:
                run_to_end(asking.run(self.concurrency))
            finally:
                self._spent = sum_spent(self._spent, asking.spent)
        asking.raise_failures(label)
        yield from self.recall(make_requests())

    def _warn_of_open_batches(self) -> None:
        """Say, once, what was sent in batch files by another way than this door's, which does not wait for it."""
        if self._looked_for_batches:
            return
        self._looked_for_batches = True
        awaited = self.model if self.payee.startswith(BATCH) else None
        for batch in open_batches(self.journal.path):
            if batch.model != awaited:
                logger.warning(
                    "%d requests to %s wait in the batch %s at %s, which an earlier run sent and %s does not wait for: "
                    "what is asked again now is paid twice. Stop, and run the earlier command (batch:...) to its end; "
                    "or cancel that batch at the provider.",
                    batch.requests,
                    batch.model,
                    batch.batch_id or f"of the file {batch.file_id}",
                    batch.place,
                    self.payee,
                )

    def recall(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Requests that were answered before, each with its reply, read from the journal in their order."""
        remaining = iter(requests)
        while chunk := list(islice(remaining, _CHUNK)):
            keys = [self.key(request) for request in chunk]
            found = self.journal.get_many(keys)
            for key, request in zip(keys, chunk, strict=True):
                if key not in found:
                    raise RuntimeError(
                        f"{shown(request.custom_id)} was never asked; make_requests must give the same requests at "
                        f"each call"
                    )
                yield request, _named(found[key], request.custom_id)

    def key(self, request: Request) -> bytes:
        """The journal's key of the answer to `request`."""
        return reply_key(self.model, request, with_custom_id=self.backend.keyed_by_custom_id)


def _named(reply: Reply, custom_id: str) -> Reply:
    return reply if reply.custom_id == custom_id else msgspec.structs.replace(reply, custom_id=custom_id)


@contextlib.contextmanager
def open_door(
    spec: str | Sequence[str],
    *,
    journal_path: Path | str | None = None,
    journal: Journal | None = None,
    client: ClientConfig | None = None,
    model: str | None = None,
    revision: str = "",
    progress: Progress = terminal_progress,
    purse: Purse | None = None,
) -> Iterator[ChatDoor]:
    """A door to what `spec` names, for the length of a `with` block; one of `KINDS`.

    Several URLs, as a list or with commas between them, are servers of one model that share the work.
    `batch:` before an endpoint sends the requests in provider batch files (see `batching`).
    An HTTP endpoint's model is `model`, or `URL#MODEL`, or the only one that the server, asked, lists.
    revision: names the weights where the model's name does not; part of the journal's key.
    journal: an open one to share; else the one at `journal_path` is opened and closed.  purse: see `ChatDoor`.
    Raises ConfigError for a `spec` that is none of them, EndpointError if a server must be asked and is away.
    """
    if (journal is None) == (journal_path is None):
        raise ValueError("give either journal_path or journal")
    spec = spec if isinstance(spec, str) else ",".join(spec)
    opened = _open(spec, client=client, model=model, revision=revision)
    with contextlib.ExitStack() as stack:
        if journal is None:
            assert journal_path is not None
            journal = stack.enter_context(Journal(journal_path, durable=client.durable if client else False))
        if purse is not None:
            purse.price_of(opened.paid_as or payee(opened.backend))
        yield ChatDoor(
            opened.backend,
            journal,
            concurrency=opened.concurrency,
            progress=progress,
            purse=purse,
            asking=opened.asking,
            paid_as=opened.paid_as,
        )


class _Opened(NamedTuple):
    backend: Backend
    concurrency: int = _LOCAL_CONCURRENCY
    asking: MakePass = Asking
    paid_as: str = ""


def _open(spec: str, *, client: ClientConfig | None, model: str | None, revision: str) -> _Opened:
    kind, _, rest = spec.partition(":")
    if kind == "batch":
        return _open_batch(rest, client=client, model=model, revision=revision)
    if spec.startswith(NETWORK_KINDS):
        from reasonembed.llm.client import connect  # aiohttp takes a third of a second to import

        config = client or ClientConfig()
        return _Opened(
            connect(parse_endpoints(spec, model=model), config=config, revision=revision), config.concurrency
        )
    if model or revision:
        raise ConfigError(f"a model cannot be chosen for {spec!r}: it is what it is. Leave the model out.")
    if kind == "local" and rest:
        from reasonembed.llm.local import IN_FLIGHT, LocalBackend

        return _Opened(LocalBackend(rest), IN_FLIGHT)
    if kind == "recorded" and rest:
        from reasonembed.llm.recorded import RecordedBackend

        return _Opened(RecordedBackend(rest))
    if spec == "scripted":
        from reasonembed.llm.scripted import ScriptedBackend, plausible_reply

        return _Opened(ScriptedBackend(plausible_reply, model="scripted:plausible"))
    raise ConfigError(
        f"unknown model {shown(spec)}{nearest(kind, _KIND_WORDS) or '.'} Known kinds: {', '.join(KINDS)}."
    )


def _open_batch(spec: str, *, client: ClientConfig | None, model: str | None, revision: str) -> _Opened:
    if not spec.startswith(NETWORK_KINDS) or spec.startswith("azure:"):
        raise ConfigError(
            f"there are no batch files for {shown(spec)}. Write batch:openai:MODEL or batch:http(s)://HOST/v1#MODEL."
        )
    endpoints = parse_endpoints(spec, model=model)
    if len(endpoints) > 1:
        raise ConfigError(f"a batch lives at one server, and {len(endpoints)} are named. Keep one.")
    from reasonembed.llm.batching import BatchAsking
    from reasonembed.llm.client import connect

    backend = connect(endpoints, config=client or ClientConfig(), revision=revision)
    return _Opened(backend, asking=BatchAsking, paid_as=BATCH + payee(backend))


__all__ = ["KINDS", "ChatDoor", "open_door"]
