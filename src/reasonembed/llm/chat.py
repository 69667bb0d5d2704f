"""What passes through the one door to language models: requests in, replies out.

A stage hands over `Request`s and gets `Reply`s; whether a server, a recording or a script answers is decided by
one string (see `reasonembed.llm.door.open_door`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, Protocol

import msgspec

Role = Literal["system", "user", "assistant"]

FailureKind = Literal["empty", "truncated", "refused", "filtered", "not_recorded", "invalid"]
"""Final failures: the model was asked and this is its answer. `invalid`: the endpoint rejected the request itself."""


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Role
    content: str


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the model is to decode; every field is part of what decides an answer. `None`: the endpoint's default."""

    temperature: float = 1.0
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int = 2048
    thinking: bool | None = None  # for hybrid models: ask for or switch off their thinking

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature is {self.temperature!r}; it must lie between 0 and 2.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p!r}; it must be above 0 and at most 1.")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k!r}; it must be at least 1.")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens!r}; it must be at least 1.")


class Request(msgspec.Struct, frozen=True):
    """One question to a model. `custom_id` names it for people, recordings and provider batches (see `custom_id`)."""

    custom_id: str
    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int  # from (run seed, stage, row id); sent to the endpoint, which may ignore it
    sample_index: int = 0


class Usage(msgspec.Struct, frozen=True):
    """Tokens that the endpoint says it read and wrote."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Failure(msgspec.Struct, frozen=True):
    """Why a reply holds no usable text; final, never asked again."""

    kind: FailureKind
    detail: str = ""


class Reply(msgspec.Struct, frozen=True):
    """The model's answer: `text` (thinking stripped, non-empty), or a `failure` and an empty text."""

    custom_id: str
    text: str
    usage: Usage = Usage()
    failure: Failure | None = None
    thinking: str = ""


class Spent(msgspec.Struct, frozen=True):
    """What answering a list of requests took."""

    asked: int = 0  # requests answered by the backend just now
    from_journal: int = 0
    failures: int = 0  # final failures among both
    prompt_tokens: int = 0  # of the requests answered just now
    completion_tokens: int = 0
    cost: float = 0.0  # of the same, in the currency of the prices; 0 where no price is known


class Door(Protocol):
    """The seam between stages and language models."""

    model: str
    """The configured name and revision of the model, part of the journal's key and of manifests."""

    payee: str
    """The model's name in price lists and in the journal's ledger."""

    honours_conditions: bool
    """False for recordings: their replies were not conditioned on the prompt at hand."""

    def replies(
        self, make_requests: Callable[[], Iterable[Request]], *, label: str, total: int | None = None
    ) -> Iterator[tuple[Request, Reply]]:
        """Every request with its reply, in the order of the requests, whatever order the answers came in.

        `make_requests` is called twice and must give the same requests both times: first all that the journal
        lacks are answered and committed, then the replies are read back in order, so memory stays flat.
        `label` and `total` are for the progress display. Raises EndpointError, after everything else was
        answered and committed, if some requests failed in transport; nothing is yielded then.
        """
        ...

    def recall(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        """Requests that `replies` has answered before, each with its reply, in their order; counts nothing.

        Raises RuntimeError for one that was not.
        """
        ...

    @property
    def spent(self) -> Spent:
        """Totals over all calls of `replies` so far."""
        ...


def custom_id(stage: str, domain: str, *parts: str, sample_index: int = 0) -> str:
    """`STAGE:DOMAIN:PART...`, with `#K` for sample K > 0; `:`, `#` and `%` inside a part are percent-encoded.

    Without such characters in an id (DESIGN.md) the form is `generate:biology:biology-019` or
    `annotate:biology:biology-019-q0:biology-044`.
    """
    quoted = [part.replace("%", "%25").replace(":", "%3A").replace("#", "%23") for part in parts]
    name = ":".join([stage, domain, *quoted])
    return f"{name}#{sample_index}" if sample_index else name


def split_custom_id(name: str) -> tuple[str, str, list[str], int]:
    """Stage, domain, parts and sample index of a custom id: the inverse of `custom_id`."""
    name, _, sample = name.partition("#")
    stage, domain, *quoted = name.split(":")
    parts = [part.replace("%23", "#").replace("%3A", ":").replace("%25", "%") for part in quoted]
    return stage, domain, parts, int(sample or 0)
