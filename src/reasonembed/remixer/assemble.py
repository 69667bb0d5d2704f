"""Step 5, assembly: graded documents become positives and negatives (PAPER.md section 1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from reasonembed.records import Companion, Dropped, Example, Graded, Label, kept_apart
from reasonembed.remixer.config import AssembleConfig
from reasonembed.remixer.rows import GeneratedQuery, MinedQuery, ReasonedQuery

STAGE = "assemble"


class JudgedQuery(msgspec.Struct, frozen=True):
    """A query with all that the stages found out about it."""

    query: GeneratedQuery
    reasoning_query: str
    copy_ids: tuple[str, ...]
    graded: tuple[Graded, ...]  # by grade, best first, then by id
    companions: tuple[Companion, ...] = ()


def judged_queries(
    mined: Iterable[MinedQuery],
    labels: Iterable[Label],
    queries: Mapping[str, GeneratedQuery],
    reasoned: Mapping[str, ReasonedQuery],
) -> Iterator[JudgedQuery]:
    """Each query of `mined`, in order, with its labels, which stream in the same order; some may be missing.

    Raises AssertionError if a label names a source of the query or a near-copy: no such pair may ever arise (law
    1).
    """
    waiting = iter(labels)
    label = next(waiting, None)
    for row in mined:
        graded = []
        while label is not None and label.query_id == row.query_id:
            graded.append(Graded(label.doc_id, label.grade))
            label = next(waiting, None)
        _guard(row, graded)
        yield JudgedQuery(
            query=queries[row.query_id],
            reasoning_query=reasoned[row.query_id].reasoning_query,
            copy_ids=row.copy_ids,
            graded=tuple(sorted(graded, key=lambda one: (-one.grade, one.doc_id))),
            companions=row.companions,
        )
    if label is not None:
        raise AssertionError(f"the label of {label.query_id!r} and {label.doc_id!r} belongs to no mined query")


def assemble_examples(
    judged: Iterable[JudgedQuery],
    config: AssembleConfig,
    *,
    held_out: Collection[str] = (),
    tested: Collection[str] = (),
) -> Iterator[Example | Dropped]:
    """An example per query that has a positive and a negative, or the reason why there is none.

    held_out: sources whose queries are set aside as a test set and never trained on.
    tested: all documents that those queries were written from; a query that shares one or a copy of one is not trained
    on either.
    """
    for one in judged:
        example = example_of(one, config)
        if example.source_id in held_out:
            yield Dropped(example.query_id, "held_out", "its source is in the holdout")
        elif shared := sorted(kept_apart(example).intersection(tested)):
            yield Dropped(example.query_id, "shares_source_with_holdout", ", ".join(shared))
        elif not one.graded:
            yield Dropped(example.query_id, "no_labels", "no candidate has a grade")
        elif not example.positives:
            yield Dropped(example.query_id, "no_positive", f"the best grade is {one.graded[0].grade}")
        elif not example.negatives:
            yield Dropped(example.query_id, "no_negative", f"the lowest grade is {one.graded[-1].grade}")
        else:
            yield example


def example_of(judged: JudgedQuery, config: AssembleConfig) -> Example:
    """The query with its graded documents parted at `config.positive_grade`; either list may be empty."""
    return Example(
        query_id=judged.query.query_id,
        source_id=judged.query.source_id,
        query=judged.query.query,
        reasoning_query=judged.reasoning_query,
        positives=tuple(one for one in judged.graded if one.grade >= config.positive_grade),
        negatives=tuple(one for one in judged.graded if one.grade < config.positive_grade),
        copy_ids=judged.copy_ids,
        companions=judged.companions,
    )


def _guard(row: MinedQuery, graded: Iterable[Graded]) -> None:
    trivial = kept_apart(row).intersection(one.doc_id for one in graded)
    if trivial:
        raise AssertionError(
            f"the query {row.query_id!r} was judged against its source, a companion, or a copy of them, "
            f"{sorted(trivial)}: law 1 is broken. This is a mistake in reasonembed; please report it."
        )
