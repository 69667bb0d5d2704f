from __future__ import annotations

import math
from pathlib import Path

import ir_measures
import pytest

from reasonembed.errors import InputError
from reasonembed.records import Run
from reasonembed.trec import read_trec_qrels, read_trec_run, write_trec_qrels, write_trec_run

RUN: Run = {"q2": {"low": 0.1, "high": 0.5, "tie-b": 0.25, "tie-a": 0.25}, "q1": {"only": -1e-9}}
QRELS = {"q1": {"a": 2, "b": 0}, "q2": {"ü": 1}}


def test_a_run_is_written_best_first_in_six_columns(tmp_path: Path) -> None:
    write_trec_run(tmp_path / "run.txt", RUN, tag="mine")
    assert (tmp_path / "run.txt").read_text().splitlines() == [
        "q2 Q0 high 1 0.5 mine",
        "q2 Q0 tie-b 2 0.25 mine",
        "q2 Q0 tie-a 3 0.25 mine",
        "q2 Q0 low 4 0.1 mine",
        "q1 Q0 only 1 -1e-09 mine",
    ]


def test_runs_and_qrels_come_back_as_they_were(tmp_path: Path) -> None:
    exact = {"q": {"a": math.pi, "b": 1 / 3, "c": 5e-324}}
    for name, run in (("a.txt", RUN), ("b.txt.gz", exact)):
        write_trec_run(tmp_path / name, run)
        assert read_trec_run(tmp_path / name) == run
    write_trec_qrels(tmp_path / "qrels.txt", QRELS)
    assert read_trec_qrels(tmp_path / "qrels.txt") == QRELS
    assert (tmp_path / "qrels.txt").read_text(encoding="utf-8") == "q1 0 a 2\nq1 0 b 0\nq2 0 ü 1\n"


def test_ir_measures_reads_what_we_write(tmp_path: Path) -> None:
    write_trec_run(tmp_path / "run.txt", RUN)
    write_trec_qrels(tmp_path / "qrels.txt", QRELS)
    read = {(d.query_id, d.doc_id): d.score for d in ir_measures.read_trec_run(str(tmp_path / "run.txt"))}
    assert read == {(q, d): score for q, scores in RUN.items() for d, score in scores.items()}
    judged = {(j.query_id, j.doc_id): j.relevance for j in ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt"))}
    assert judged == {(q, d): grade for q, grades in QRELS.items() for d, grade in grades.items()}


def test_tabs_and_any_rank_are_read_as_trec_eval_reads_them(tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text("q1\tQ0\ta\t7\t1e-2\tx\nq1   0  b  7  3   y\n")
    assert read_trec_run(tmp_path / "run.txt") == {"q1": {"a": 0.01, "b": 3.0}}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("q1 Q0 b 1 0.5", r"line 2: 5 column\(s\); expected 6: query Q0 document rank score tag"),
        ("q1 Q0 b c 1 0.5 x", r"line 2: 7 column\(s\)"),
        ("q1 Q0 b 1 nan x", r"line 2: the score is 'nan'; it must be a finite number"),
        ("q1 Q0 b 1 inf x", r"line 2: the score is 'inf'"),
        ("q1 Q0 b 1 high x", r"line 2: the score 'high' is no number"),
        ("q1 Q0 a 2 0.4 x", r"line 2: query 'q1' names document 'a' a second time"),
        (b"q1 Q0 \xff 1 0.5 x", r"line 2: not valid UTF-8"),
    ],
)
def test_a_bad_line_of_a_run_is_named(tmp_path: Path, line: str | bytes, found: str) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    (tmp_path / "run.txt").write_bytes(b"q1 Q0 a 1 0.5 x\n" + raw + b"\n")
    with pytest.raises(InputError, match=rf"run\.txt, {found}"):
        read_trec_run(tmp_path / "run.txt")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("q1 0 b", r"line 2: 3 column\(s\); expected 4: query 0 document grade"),
        ("q1 0 b -1", r"line 2: the grade is '-1'; .*Write 0 for negative grades"),
        ("q1 0 b 0.5", r"line 2: the grade is '0\.5'"),
        ("q1 0 a 1", r"line 2: query 'q1' names document 'a' a second time"),
    ],
)
def test_a_bad_line_of_qrels_is_named(tmp_path: Path, line: str, found: str) -> None:
    (tmp_path / "qrels.txt").write_text(f"q1 0 a 1\n{line}\n")
    with pytest.raises(InputError, match=rf"qrels\.txt, {found}"):
        read_trec_qrels(tmp_path / "qrels.txt")


@pytest.mark.parametrize("bad", ["two words", "tab\there", "", "line\nend", "wide\u3000space"])
def test_white_space_in_an_id_is_refused_on_writing_with_the_cure(tmp_path: Path, bad: str) -> None:
    for run in ({bad: {"a": 1.0}}, {"q": {bad: 1.0}}):
        with pytest.raises(InputError, match=r"white space in it.*Rename it"):
            write_trec_run(tmp_path / "run.txt", run)
    with pytest.raises(InputError, match="Rename it"):
        write_trec_qrels(tmp_path / "qrels.txt", {"q": {bad: 1}})
    with pytest.raises(InputError, match="the tag"):
        write_trec_run(tmp_path / "run.txt", RUN, tag=bad)
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="query 'q', document 'a': score nan is not finite"):
        write_trec_run(tmp_path / "run.txt", {"q": {"a": float("nan")}})
    assert list(tmp_path.iterdir()) == []
