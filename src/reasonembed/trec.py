"""TREC runs (six columns) and qrels (four columns) in and out, as trec_eval reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from reasonembed.errors import InputError, shown
from reasonembed.files import atomic_writer, read_lines
from reasonembed.records import Qrels, Run
from reasonembed.search.ranking import best_first


def read_trec_run(path: Path | str) -> Run:
    """The run in a file of `query Q0 document rank score tag`; the rank column is ignored, as trec_eval does.

    Raises InputError naming file and line for another number of columns, a score that is no finite number, or
    a document that a query names twice.
    """
    path = Path(path)
    run: Run = {}
    for number, (query_id, _, doc_id, _, raw, _) in _read_columns(path, "query Q0 document rank score tag"):
        score = _finite(path, number, raw)
        if doc_id in run.setdefault(query_id, {}):
            raise InputError(_duplicate(path, number, query_id, doc_id))
        run[query_id][doc_id] = score
    return run


def read_trec_qrels(path: Path | str) -> Qrels:
    """The qrels in a file of `query 0 document grade`.

    Raises InputError naming file and line for another number of columns, a grade that is no whole number of 0
    or more, or a pair that is judged twice.
    """
    path = Path(path)
    qrels: Qrels = {}
    for number, (query_id, _, doc_id, raw) in _read_columns(path, "query 0 document grade"):
        if not (raw.isascii() and raw.isdigit()):
            raise InputError(
                f"{path}, line {number}: the grade is {shown(raw)}; it must be a whole number of 0 (not "
                f"relevant) or more. Write 0 for negative grades."
            )
        if doc_id in qrels.setdefault(query_id, {}):
            raise InputError(_duplicate(path, number, query_id, doc_id))
        qrels[query_id][doc_id] = int(raw)
    return qrels


def write_trec_run(path: Path | str, run: Run, *, tag: str = "reasonembed") -> None:
    """Write `run`, best first, ranks from 1, scores with all their digits.

    Raises InputError for an id or tag with white space in it, or a score that is no finite number.
    """
    _write(Path(path), _run_lines(run, tag))


def write_trec_qrels(path: Path | str, qrels: Qrels) -> None:
    """Write `qrels` in their order. Raises InputError for an id with white space in it."""
    lines = (
        f"{_whole(query_id, 'query id')} 0 {_whole(doc_id, 'document id')} {grade}\n"
        for query_id, grades in qrels.items()
        for doc_id, grade in grades.items()
    )
    _write(Path(path), lines)


def _run_lines(run: Run, tag: str) -> Iterator[str]:
    _whole(tag, "tag")
    for query_id, scores in run.items():
        _whole(query_id, "query id")
        for rank, doc_id in enumerate(best_first(scores), 1):
            score = float(scores[doc_id])
            if not math.isfinite(score):
                raise InputError(f"query {shown(query_id)}, document {shown(doc_id)}: score {score} is not finite.")
            yield f"{query_id} Q0 {_whole(doc_id, 'document id')} {rank} {score!r} {tag}\n"


def _write(path: Path, lines: Iterable[str]) -> None:
    with atomic_writer(path) as out:
        for line in lines:
            out.write(line.encode("utf-8"))


def _whole(name: str, kind: str) -> str:
    if name.split() != [name]:
        raise InputError(
            f"the {kind} {shown(name)} is empty or has white space in it, which TREC's format cannot hold. "
            f"Rename it (e.g. with _ for a space) in the corpus, queries and qrels, or keep the run as JSON."
        )
    return name


def _read_columns(path: Path, layout: str) -> Iterator[tuple[int, list[str]]]:
    expected = len(layout.split())
    for number, line in read_lines(path):
        try:
            columns = line.decode("utf-8").split()
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number}: not valid UTF-8. Save the file as UTF-8.") from error
        if len(columns) != expected:
            raise InputError(f"{path}, line {number}: {len(columns)} column(s); expected {expected}: {layout}.")
        yield number, columns


def _finite(path: Path, number: int, raw: str) -> float:
    try:
        score = float(raw)
    except ValueError as error:
        raise InputError(f"{path}, line {number}: the score {shown(raw)} is no number.") from error
    if not math.isfinite(score):
        raise InputError(
            f"{path}, line {number}: the score is {shown(raw)}; it must be a finite number. Drop the line."
        )
    return score


def _duplicate(path: Path, number: int, query_id: str, doc_id: str) -> str:
    return (
        f"{path}, line {number}: query {shown(query_id)} names document {shown(doc_id)} a second time. "
        f"Drop one of the two lines."
    )
