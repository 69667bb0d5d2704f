"""What the stages of ReMixer write, one row type per stage; the texts of documents stay in the corpus."""

from __future__ import annotations

import msgspec

from reasonembed.records import Candidate, Companion


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """`select`: a document that a query is to be written from, alone or together with its companions."""

    doc_id: str
    companion_ids: tuple[str, ...] = ()  # nearest first


class Conditions(msgspec.Struct, frozen=True):
    """What the query was asked to be like (None: not asked); a recorded reply was not `conditioned`."""

    conditioned: bool
    length: str | None = None
    education: str | None = None


class GeneratedQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """`generate`: a query and the document that it was written from, or the documents."""

    query_id: str
    source_id: str
    query: str
    conditions: Conditions
    companion_ids: tuple[str, ...] = ()


class ReasonedQuery(msgspec.Struct, frozen=True):
    """`reason`: a query thought through."""

    query_id: str
    source_id: str
    reasoning_query: str


class MinedQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """`mine`: the candidates of a query, best first, without its source, its companions and the near-copies of each."""

    query_id: str
    source_id: str
    copy_ids: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    companions: tuple[Companion, ...] = ()


def query_id_of(source_id: str) -> str:
    """The id of the query written from a source."""
    return f"{source_id}-q0"
