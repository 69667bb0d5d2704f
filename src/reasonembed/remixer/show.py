"""The rows of a workspace for people to read: query, source, positives and negatives with their reasons."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import msgspec

from reasonembed.corpora import Corpus
from reasonembed.errors import InputError
from reasonembed.manifest import read_manifest, read_rows
from reasonembed.records import Document, Example, Graded, Label
from reasonembed.remixer import annotate, assemble, generate, select
from reasonembed.remixer.job import corpus_of
from reasonembed.remixer.rows import Conditions, GeneratedQuery
from reasonembed.workspace import Workspace


class ShownDocument(msgspec.Struct, frozen=True):
    """A candidate with the grade that it got, and why."""

    document: Document
    grade: int
    reason: str


class ShownCompanion(msgspec.Struct, frozen=True):
    """A further document that the query was written from, with the near-copies of it."""

    document: Document
    copy_ids: tuple[str, ...]


class ShownExample(msgspec.Struct, frozen=True, omit_defaults=True):
    """A training example with everything that led to it."""

    query_id: str
    query: str
    reasoning_query: str
    conditions: Conditions
    source: Document
    copy_ids: tuple[str, ...]
    positives: tuple[ShownDocument, ...]
    negatives: tuple[ShownDocument, ...]
    companions: tuple[ShownCompanion, ...] = ()


def iter_shown(
    workspace: Workspace, domain: str, *, limit: int | None = None, corpus: Corpus | None = None
) -> Iterator[ShownExample]:
    """The examples of a domain, in their order, at most `limit`; nothing is locked or changed.

    corpus: where the texts stand; None reads it from where `synthesize` found it.
    Raises InputError if the domain has no examples yet, or if the corpus is gone or another one.
    """
    folder = workspace.stage_folder(domain, assemble.STAGE)
    selected = read_manifest(workspace.stage_folder(domain, select.STAGE))
    if selected is None or read_manifest(folder) is None:
        known = ", ".join(workspace.domains()) or "none"
        raise InputError(
            f"{workspace.path} has no finished examples of {domain} (domains here: {known}). "
            f"Run `reasonembed synthesize` to the end first."
        )
    corpus = corpus_of(selected, corpus)
    conditions = {
        row.query_id: row.conditions
        for row in read_rows(workspace.stage_folder(domain, generate.STAGE), GeneratedQuery)
    }
    labels = _by_query(read_rows(workspace.stage_folder(domain, annotate.STAGE), Label))
    for example in itertools.islice(read_rows(folder, Example), limit):
        reasons = next(found for query_id, found in labels if query_id == example.query_id)
        yield _shown(example, conditions[example.query_id], reasons, corpus)


def _by_query(labels: Iterable[Label]) -> Iterator[tuple[str, dict[str, str]]]:
    """query_id with its labels' reasons (doc_id -> reason); examples come in the same order."""
    for query_id, group in itertools.groupby(labels, key=lambda label: label.query_id):
        yield query_id, {label.doc_id: label.reason for label in group}


def _shown(example: Example, conditions: Conditions, reasons: dict[str, str], corpus: Corpus) -> ShownExample:
    def show(graded: Iterable[Graded]) -> tuple[ShownDocument, ...]:
        return tuple(ShownDocument(corpus[one.doc_id], one.grade, reasons[one.doc_id]) for one in graded)

    return ShownExample(
        query_id=example.query_id,
        query=example.query,
        reasoning_query=example.reasoning_query,
        conditions=conditions,
        source=corpus[example.source_id],
        copy_ids=example.copy_ids,
        positives=show(example.positives),
        negatives=show(example.negatives),
        companions=tuple(ShownCompanion(corpus[one.doc_id], one.copy_ids) for one in example.companions),
    )
