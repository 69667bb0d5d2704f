"""Grades part candidates into positives and negatives; one that lacks either is dropped."""

from __future__ import annotations

import pytest

from reasonembed.records import Dropped, Example, Graded, Label
from reasonembed.remixer.assemble import assemble_examples, judged_queries
from reasonembed.remixer.config import AssembleConfig
from reasonembed.remixer.rows import Conditions, GeneratedQuery, MinedQuery, ReasonedQuery
from reasonembed.remixer.source_positive import source_positive_examples


def judge(grades: dict[str, dict[str, int]], copies: tuple[str, ...] = ()):
    """Queries named after their sources, with doc_id -> grade."""
    mined = [MinedQuery(f"{name}-q0", name, copies, ()) for name in grades]
    labels = [
        Label(f"{name}-q0", doc_id, grade, "so") for name, found in grades.items() for doc_id, grade in found.items()
    ]
    queries = {f"{name}-q0": GeneratedQuery(f"{name}-q0", name, f"{name}?", Conditions(False)) for name in grades}
    reasoned = {f"{name}-q0": ReasonedQuery(f"{name}-q0", name, f"{name}, thought through") for name in grades}
    return judged_queries(mined, labels, queries, reasoned)


def assembled(grades: dict[str, dict[str, int]], **arguments) -> list[Example | Dropped]:
    return list(assemble_examples(judge(grades, arguments.pop("copies", ())), AssembleConfig(), **arguments))


def test_grades_3_to_5_are_positives_and_1_and_2_negatives_ordered_by_grade_then_id():
    (example,) = assembled({"s": {"e": 1, "d": 3, "c": 5, "b": 2, "a": 3}}, copies=("t",))
    assert example == Example(
        query_id="s-q0",
        source_id="s",
        query="s?",
        reasoning_query="s, thought through",
        positives=(Graded("c", 5), Graded("a", 3), Graded("d", 3)),
        negatives=(Graded("b", 2), Graded("e", 1)),
        copy_ids=("t",),
    )


def test_a_query_without_positive_negative_or_any_label_is_dropped_with_the_reason():
    rows = assembled({"a": {"x": 2, "y": 1}, "b": {"x": 5}, "c": {}, "d": {"x": 5, "y": 1}})
    assert [(row.row_id, row.reason) for row in rows[:3] if isinstance(row, Dropped)] == [
        ("a-q0", "no_positive"),
        ("b-q0", "no_negative"),
        ("c-q0", "no_labels"),
    ]
    assert isinstance(rows[3], Example)


def test_held_out_sources_are_not_trained_on():
    grades = {"a": {"x": 5, "y": 1}, "b": {"x": 5, "y": 1}}
    rows = assembled(grades, held_out={"a"})
    assert [getattr(row, "reason", "example") for row in rows] == ["held_out", "example"]


@pytest.mark.parametrize("doc_id", ["s", "copy"])
def test_a_label_for_the_source_or_a_copy_stops_everything(doc_id: str):
    with pytest.raises(AssertionError, match="law 1 is broken"):
        assembled({"s": {"a": 5, doc_id: 1}}, copies=("copy",))


def test_a_label_that_belongs_to_no_mined_query_stops_everything():
    judged = judged_queries([], [Label("q", "d", 3, "")], {}, {})
    with pytest.raises(AssertionError, match="belongs to no mined query"):
        list(judged)


def test_the_ablation_puts_the_source_in_the_place_of_the_positives_and_keeps_the_negatives():
    (example,) = assembled({"s": {"a": 4, "b": 1}})
    (trivial,) = source_positive_examples([example])
    assert trivial.positives == (Graded("s", 5),)
    assert trivial.negatives == example.negatives
