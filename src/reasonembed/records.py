"""The nouns of the toolkit as frozen, typed records. Nothing is imported above this file.

Ids are strings and data: they never become file names.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Document(msgspec.Struct, frozen=True):
    """One entry of a corpus: a passage, a solution, a page."""

    doc_id: str
    text: str
    title: str = ""

    @property
    def content(self) -> str:
        """Title and text as they are indexed, embedded and shown to a language model (BEIR's convention)."""
        return f"{self.title}\n{self.text}".strip() if self.title else self.text


class Query(msgspec.Struct, frozen=True):
    """A question, and optionally the same question thought through (PAPER.md section 1, step 2)."""

    query_id: str
    text: str
    reasoning_query: str = ""


class Candidate(msgspec.Struct, frozen=True):
    """A document that a retriever proposes for a query; `score` is the retriever's own."""

    doc_id: str
    score: float


class Label(msgspec.Struct, frozen=True, omit_defaults=True):
    """How well one document answers one query, as judged by the annotator, once or several times."""

    query_id: str
    doc_id: str
    grade: int  # 1 (irrelevant) to 5 (directly and fully responsive)
    reason: str
    grades: tuple[int, ...] = ()  # of all samples that have one, in their order; empty where there was one sample
    spread: float = 0.0  # their standard deviation (of the whole, not estimated)
    failed: tuple[str, ...] = ()  # why the other samples have none


class Graded(msgspec.Struct, frozen=True):
    """A document with the grade that it got for the query at hand."""

    doc_id: str
    grade: int


class Companion(msgspec.Struct, frozen=True):
    """A further document that a query was written from, beside its source, with the near-copies of it."""

    doc_id: str
    copy_ids: tuple[str, ...] = ()


class Example(msgspec.Struct, frozen=True, omit_defaults=True):
    """One training example by ids: a query, its source, and graded positives and negatives.

    `source_id` is the document the query was written from; it is in neither list, nor is a near-copy of it
    (listed in `copy_ids`), so that no trivial positive can arise downstream. Nor are its `companions` and their copies,
    where the query was written from several documents.
    """

    query_id: str
    source_id: str
    query: str
    reasoning_query: str
    positives: tuple[Graded, ...]
    negatives: tuple[Graded, ...]
    copy_ids: tuple[str, ...] = msgspec.field(default_factory=lambda: ())  # no plain (): it is written where empty too
    companions: tuple[Companion, ...] = ()  # left out of a row that has none


class Sourced(Protocol):
    """A row that knows which documents its query was written from, and the near-copies of each."""

    @property
    def source_id(self) -> str:
        """The first of these documents."""
        ...

    @property
    def copy_ids(self) -> tuple[str, ...]:
        """The near-copies of that one."""
        ...

    @property
    def companions(self) -> tuple[Companion, ...]:
        """The others with theirs; mostly none."""
        ...


def source_ids(row: Sourced) -> tuple[str, ...]:
    """All documents that the row's query was written from, its source first."""
    return (row.source_id, *(companion.doc_id for companion in row.companions))


def kept_apart(row: Sourced) -> frozenset[str]:
    """What the row's query must never meet (law 1): all documents that it was written from, and their near-copies."""
    copies = (doc_id for companion in row.companions for doc_id in companion.copy_ids)
    return frozenset((*source_ids(row), *row.copy_ids, *copies))


class Dropped(msgspec.Struct, frozen=True):
    """A row that a stage refused, with the reason; `detail` holds what was found."""

    row_id: str
    reason: str
    detail: str = ""


Run = dict[str, dict[str, float]]
"""A ranking: query_id -> doc_id -> score."""

Qrels = dict[str, dict[str, int]]
"""Relevance judgments: query_id -> doc_id -> grade (0 is not relevant)."""
