"""Agreement of judges against scikit-learn and by hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from reasonembed.analyze.agreement import agreement, compare, grades_of_labels
from reasonembed.errors import InputError
from reasonembed.files import write_jsonl
from reasonembed.records import Label
from reasonembed.workflow.agreement import measure_agreement


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_are_those_of_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = random.Random(seed)
    reference = [*range(1, 6), *rng.choices(range(1, 6), weights=[5, 3, 1, 1, 2], k=200)]
    labels = [*range(1, 6), *(min(5, max(1, grade + rng.choice((-1, 0, 0, 0, 1, 2)))) for grade in reference[5:])]
    found = agreement(labels, reference)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(reference, labels))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(reference, labels, average="macro"))
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(reference, labels, weights="quadratic"))
    assert [list(row) for row in found.confusion] == metrics.confusion_matrix(reference, labels).tolist()


def test_kappa_weighs_by_the_distance_of_grades_even_where_one_never_occurs() -> None:
    # reference 1 1 5 5, labels 1 4 5 5: observed 9; expected: row x column / 4
    # rows 1: 2, 5: 2; columns 1: 1, 4: 1, 5: 2 -> expected = (2*1*9 + 2*2*16 + 2*1*16 + 2*1*1) / 4 = 29
    assert agreement([1, 4, 5, 5], [1, 1, 5, 5]).kappa == pytest.approx(1 - 9 / 29)


def test_kappa_is_undefined_where_all_pairs_have_one_grade() -> None:
    assert agreement([3, 3], [3, 3]).kappa is None


def test_pairs_are_matched_by_both_ids_and_the_rest_is_counted() -> None:
    labels = {("q", "a"): 5, ("q", "b"): 1, ("r", "a"): 3}
    found = compare(labels, {("q", "a"): 4, ("q", "c"): 2, ("s", "b"): 1})
    assert (found.matched, found.only_labels, found.only_reference) == (1, 2, 2)
    with pytest.raises(InputError, match="none of 3 labelled pairs"):
        compare(labels, {("x", "a"): 1})


def test_two_grades_for_one_pair_are_refused() -> None:
    with pytest.raises(InputError, match="two grades, 2 and 4"):
        grades_of_labels([Label("q", "d", 2, ""), Label("q", "d", 4, "")])


def test_labels_against_qrels_compare_relevance_alone(tmp_path: Path) -> None:
    grades = {"a": 5, "b": 3, "c": 2, "d": 1}
    write_jsonl(tmp_path / "labels.jsonl", [Label("q", doc_id, grade, "why") for doc_id, grade in grades.items()])
    (tmp_path / "qrels.txt").write_text("q 0 a 1\nq 0 b 0\nq 0 c 2\nq 0 d 0\n")
    found = measure_agreement(tmp_path / "labels.jsonl", tmp_path / "qrels.txt")
    assert found.grade is None
    assert found.relevant.confusion == ((1, 1), (1, 1))
    assert found.matched == 4
