"""How well two judges agree: an annotator and its teacher, or an annotator and qrels (the paper, section 5).

Pairs are matched by (query_id, doc_id). `grade` compares grades as they are, where both judge on one scale;
`relevant` compares what they call relevant, each by its own threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from reasonembed.errors import InputError
from reasonembed.records import Label, Qrels

Grades = dict[tuple[str, str], int]
"""(query_id, doc_id) -> grade"""

POSITIVE = 3  # the smallest grade of an annotator that makes a positive (PAPER.md section 1, step 5)


class Agreement(msgspec.Struct, frozen=True):
    """How two judges agree on the pairs that both judged."""

    classes: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]  # rows: the reference's class; columns: the labels'
    accuracy: float  # share of pairs on which they agree
    macro_f1: float  # mean over the classes that occur of 2 TP / (2 TP + FP + FN)
    kappa: float | None  # Cohen's, quadratic weights; None where only one class occurs, the same for both


class Comparison(msgspec.Struct, frozen=True):
    """Labels against a reference. `grade` is None where the scales differ."""

    matched: int
    only_labels: int  # pairs that the reference lacks
    only_reference: int
    grade: Agreement | None
    relevant: Agreement


def compare(
    labels: Mapping[tuple[str, str], int],
    reference: Mapping[tuple[str, str], int],
    *,
    positive: int = POSITIVE,
    reference_positive: int = POSITIVE,
    same_scale: bool = True,
) -> Comparison:
    """The agreement of `labels` with `reference` on the pairs that both hold.

    positive, reference_positive: the smallest grade that means relevant; 1 for most qrels.
    Raises InputError if no pair is in both.
    """
    pairs = [pair for pair in reference if pair in labels]
    if not pairs:
        raise InputError(
            f"none of {len(labels):,} labelled pairs is among the {len(reference):,} of the reference. "
            f"Both must use the same query and document ids."
        )
    ours, theirs = [labels[pair] for pair in pairs], [reference[pair] for pair in pairs]
    return Comparison(
        matched=len(pairs),
        only_labels=len(labels) - len(pairs),
        only_reference=len(reference) - len(pairs),
        grade=agreement(ours, theirs) if same_scale else None,
        relevant=agreement(
            [int(grade >= positive) for grade in ours], [int(grade >= reference_positive) for grade in theirs]
        ),
    )


def agreement(labels: Sequence[int], reference: Sequence[int]) -> Agreement:
    """The agreement of two lists of classes, one entry a pair. Raises ValueError for empty or unequal lists."""
    if not labels or len(labels) != len(reference):
        raise ValueError(
            f"{len(labels)} labels for {len(reference)} of the reference; as many, and one at least, needed"
        )
    classes = sorted({*labels, *reference})
    place = {one: index for index, one in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, ([place[one] for one in reference], [place[one] for one in labels]), 1)
    hits, sums = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1)
    return Agreement(
        classes=tuple(classes),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        accuracy=float(hits.sum() / confusion.sum()),
        macro_f1=float(np.mean(2 * hits / sums)),
        kappa=_quadratic_kappa(confusion, np.array(classes)),
    )


def _quadratic_kappa(confusion: np.ndarray, classes: np.ndarray) -> float | None:
    """1 - observed over expected disagreement, weighed by the squared difference of the grades.

    Our choice: differences are those of the grades, not of their ranks, which is the same where all occur.
    """
    weights = np.subtract.outer(classes, classes) ** 2
    expected = np.outer(confusion.sum(axis=1), confusion.sum(axis=0)) / confusion.sum()
    disagreement = float((weights * expected).sum())
    return 1 - float((weights * confusion).sum()) / disagreement if disagreement else None


def grades_of_labels(labels: Iterable[Label]) -> Grades:
    """The grades of labels by pair. Raises InputError if a pair has two."""
    grades: Grades = {}
    for label in labels:
        if grades.setdefault((label.query_id, label.doc_id), label.grade) != label.grade:
            raise InputError(
                f'query "{label.query_id}" and document "{label.doc_id}" have two grades, '
                f"{grades[label.query_id, label.doc_id]} and {label.grade}. Keep one of them."
            )
    return grades


def grades_of_qrels(qrels: Qrels) -> Grades:
    """The grades of qrels by pair."""
    return {(query_id, doc_id): grade for query_id, grades in qrels.items() for doc_id, grade in grades.items()}


def text_lines(found: Comparison) -> list[str]:
    """The figures as lines for a terminal."""
    lines = [
        f"{found.matched:,} pairs in both; {found.only_labels:,} only in the labels, "
        f"{found.only_reference:,} only in the reference"
    ]
    for name, one in (("grade", found.grade), ("relevant", found.relevant)):
        if one is None:
            continue
        kappa = "undefined" if one.kappa is None else f"{one.kappa:.3f}"
        lines += [
            "",
            f"{name}: accuracy {one.accuracy:.3f}, macro F1 {one.macro_f1:.3f}, quadratic-weighted kappa {kappa}",
        ]
        lines.append("reference \\ labels " + "".join(f"{value:>9}" for value in one.classes))
        for value, row in zip(one.classes, one.confusion, strict=True):
            lines.append(f"{value:>18} " + "".join(f"{count:>9,}" for count in row))
    return lines


__all__ = [
    "POSITIVE",
    "Agreement",
    "Comparison",
    "agreement",
    "compare",
    "grades_of_labels",
    "grades_of_qrels",
    "text_lines",
]
