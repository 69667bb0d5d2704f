"""The seam behind the door: what answers requests, be it a server, a recording or a script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from reasonembed.errors import EndpointError
from reasonembed.llm.chat import Reply, Request

Ask = Callable[[Request], Awaitable[Reply]]
"""One request to its reply. Raises TransportFailure if this one got no answer, EndpointError if none will."""


class TransportFailure(EndpointError):
    """One request got no answer after all retries; it is not a reply, and it is asked again next time."""


def payee(backend: Backend) -> str:
    """The model's name as the price list has it: without the revision."""
    return backend.model.partition("@")[0]


class Backend(Protocol):
    """What a `ChatDoor` needs from whatever answers."""

    model: str
    """Name and revision of what answers: part of the journal's key."""

    honours_conditions: bool
    """Whether replies depend on the prompt at hand (False for recordings)."""

    keyed_by_custom_id: bool
    """Whether the answer depends on the custom id as well."""

    def session(self) -> AbstractAsyncContextManager[Ask]:
        """A function that answers requests, for as long as the block lasts."""
        ...
