"""What the stages of ReMixer write, one row type per stage; the texts of documents stay in the corpus."""

from __future__ import annotations

import msgspec

from reasonembed.records import Candidate


class Source(msgspec.Struct, frozen=True):
    """`select`: a document that a query is to be written from."""

    doc_id: str


class Conditions(msgspec.Struct, frozen=True):
    """What the query was asked to be like (None: not asked); a recorded reply was not `conditioned`."""

    conditioned: bool
    length: str | None = None
    education: str | None = None


class GeneratedQuery(msgspec.Struct, frozen=True):
    """`generate`: a query and the document that it was written from."""

    query_id: str
    source_id: str
    query: str
    conditions: Conditions


class ReasonedQuery(msgspec.Struct, frozen=True):
    """`reason`: a query thought through."""

    query_id: str
    source_id: str
    reasoning_query: str


class MinedQuery(msgspec.Struct, frozen=True):
    """`mine`: the candidates of a query, best first, without its source and the near-copies of it."""

    query_id: str
    source_id: str
    copy_ids: tuple[str, ...]
    candidates: tuple[Candidate, ...]


def query_id_of(source_id: str) -> str:
    """The id of the query written from a source."""
    return f"{source_id}-q0"
