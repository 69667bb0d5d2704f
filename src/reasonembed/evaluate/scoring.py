"""A run against qrels, from files alone: no corpus, no queries, no model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from reasonembed.errors import InputError
from reasonembed.evaluate.compare import Interval, bootstrap_interval
from reasonembed.evaluate.metrics import MEASURES, score
from reasonembed.evaluate.run_files import read_qrels, read_run

logger = logging.getLogger(__name__)


class FileScores(msgspec.Struct, frozen=True):
    """What a run scores, as fractions."""

    n_queries: int  # those that the qrels judge; the means are over them
    n_without_results: int  # of these, not in the run: they score 0
    n_unjudged: int  # queries of the run that the qrels lack: they are not counted
    mean: dict[str, Interval]  # measure -> mean over queries with its bootstrap interval
    per_query: dict[str, dict[str, float]]  # measure -> query_id -> score


def score_files(
    run_path: Path | str, qrels_path: Path | str, *, measures: Sequence[str] = MEASURES, seed: int = 0
) -> FileScores:
    """The scores of a run file (TREC or JSON search results) by a qrels file (TREC or BEIR).

    Raises InputError for what the readers refuse, and if run and qrels have no query in common or no document is
    relevant; ConfigError for an unknown measure.
    """
    run, qrels = read_run(run_path), read_qrels(qrels_path)
    if run.keys().isdisjoint(qrels):
        raise InputError(
            f"{run_path} and {qrels_path} have no query in common: {next(iter(run), 'none')} against "
            f"{next(iter(qrels), 'none')}. Are they of the same benchmark and split?"
        )
    if not any(grade > 0 for grades in qrels.values() for grade in grades.values()):
        raise InputError(f"{qrels_path}: no document has a grade above 0, so nothing can be measured.")
    missing, unjudged = len(qrels.keys() - run.keys()), len(run.keys() - qrels.keys())
    if missing:
        logger.warning("%d of %d queries have no ranking in %s; they score 0.", missing, len(qrels), run_path)
    if unjudged:
        logger.warning("%d queries of %s are not in the qrels; they are not counted.", unjudged, run_path)
    per_query = score(run, qrels, measures)
    return FileScores(
        n_queries=len(qrels),
        n_without_results=missing,
        n_unjudged=unjudged,
        mean={
            measure: bootstrap_interval(list(values.values()), [""] * len(values), seed=seed)
            for measure, values in per_query.items()
        },
        per_query=per_query,
    )
