"""The one door to language models: what the journal lacks is asked, committed, and read back in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from reasonembed import progress as terminal_progress
from reasonembed.errors import ConfigError, nearest, shown
from reasonembed.llm.asking import Asking, sum_spent
from reasonembed.llm.backend import Backend, payee
from reasonembed.llm.budget import Purse
from reasonembed.llm.chat import Reply, Request, Spent
from reasonembed.llm.endpoint import ClientConfig, parse_endpoints
from reasonembed.llm.journal import Journal
from reasonembed.llm.keys import reply_key
from reasonembed.llm.running import run_to_end
from reasonembed.progress import Progress

KINDS = (
    "http://HOST:PORT/v1",
    "https://HOST/v1",
    "openai:MODEL",
    "recorded:pocket",
    "recorded:FOLDER",
    "scripted",
)

_KIND_WORDS = ("http", "https", "openai", "recorded", "scripted")
_CHUNK = 256  # replies read from the journal at once
_LOCAL_CONCURRENCY = 8  # recordings and scripts answer at once


class ChatDoor:
    """Asks `backend` what `journal` lacks; implements `reasonembed.llm.chat.Door`.

    concurrency: requests in flight at once, at least 1.  progress: shows how far each call of `replies` is.
    purse: what was spent and may be spent; without one, spending is counted and not limited.
    Several doors may share one journal and one purse (a model per stage).
    """

    def __init__(
        self,
        backend: Backend,
        journal: Journal,
        *,
        concurrency: int = _LOCAL_CONCURRENCY,
        progress: Progress = terminal_progress,
        purse: Purse | None = None,
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency!r}; it must be at least 1.")
        self.backend = backend
        self.journal = journal
        self.concurrency = concurrency
        self.model = backend.model
        self.payee = payee(backend)
        self.honours_conditions = backend.honours_conditions
        self._progress = progress
        self._purse = purse or Purse(journal)
        self._spent = Spent()

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
        with self._progress.task(label, total=total, note=self._purse.words) as advance:
            asking = Asking(self.backend, self.journal, iter(make_requests()), self.key, advance, self._purse)
            try:
                run_to_end(asking.run(self.concurrency))
            finally:
                self._spent = sum_spent(self._spent, asking.spent)
        asking.raise_failures(label)
        yield from self.recall(make_requests())

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
    An HTTP endpoint's model is `model`, or `URL#MODEL`, or the only one that the server, asked, lists.
    revision: names the weights where the model's name does not; part of the journal's key.
    journal: an open one to share; else the one at `journal_path` is opened and closed.  purse: see `ChatDoor`.
    Raises ConfigError for a `spec` that is none of them, EndpointError if a server must be asked and is away.
    """
    if (journal is None) == (journal_path is None):
        raise ValueError("give either journal_path or journal")
    spec = spec if isinstance(spec, str) else ",".join(spec)
    backend, concurrency = _backend(spec, client=client, model=model, revision=revision)
    with contextlib.ExitStack() as stack:
        if journal is None:
            assert journal_path is not None
            journal = stack.enter_context(Journal(journal_path, durable=client.durable if client else False))
        if purse is not None:
            purse.price_of(payee(backend))
        yield ChatDoor(backend, journal, concurrency=concurrency, progress=progress, purse=purse)


def _backend(spec: str, *, client: ClientConfig | None, model: str | None, revision: str) -> tuple[Backend, int]:
    kind, _, rest = spec.partition(":")
    if kind in ("http", "https", "openai"):
        from reasonembed.llm.client import connect  # aiohttp takes a third of a second to import

        config = client or ClientConfig()
        return connect(parse_endpoints(spec, model=model), config=config, revision=revision), config.concurrency
    if model or revision:
        raise ConfigError(f"a model cannot be chosen for {spec!r}: it is what it is. Leave the model out.")
    if kind == "recorded" and rest:
        from reasonembed.llm.recorded import RecordedBackend

        return RecordedBackend(rest), _LOCAL_CONCURRENCY
    if spec == "scripted":
        from reasonembed.llm.scripted import ScriptedBackend, plausible_reply

        return ScriptedBackend(plausible_reply, model="scripted:plausible"), _LOCAL_CONCURRENCY
    raise ConfigError(
        f"unknown model {shown(spec)}{nearest(kind, _KIND_WORDS) or '.'} Known kinds: {', '.join(KINDS)}."
    )


__all__ = ["KINDS", "ChatDoor", "open_door"]
