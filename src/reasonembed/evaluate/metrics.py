"""Measures as trec_eval defines them, query by query: trec_eval's own code through ir-measures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from reasonembed.errors import ConfigError, InputError, shown
from reasonembed.records import Qrels, Run
from reasonembed.search.ranking import top_k

MEASURES = ("nDCG@10", "Recall@10")

_MEASURE = re.compile(r"(nDCG|Recall|MRR)@([1-9][0-9]*)|(MAP|MRR)")
_NATIVE = {"nDCG": "nDCG", "Recall": "R", "MAP": "AP", "MRR": "RR"}


def score(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES) -> dict[str, dict[str, float]]:
    """Each measure of each query in `qrels`: measure -> query_id -> value between 0 and 1.

    Measures are written `nDCG@10`, `Recall@100` (the share of the documents of grade 1 or more that are
    found), `MAP`, `MRR` (1 over the rank of the first of them) or `MRR@10` (0 where that rank is above 10). A query
    that `run` lacks scores 0 and is counted; queries that `qrels` lacks are not. Raises ConfigError for another
    measure, InputError for a score that is not a number.
    """
    for query_id, scores in run.items():
        _check_numbers(query_id, scores)
    values: dict[str, dict[str, float]] = {measure: dict.fromkeys(qrels, 0.0) for measure in measures}
    for depth, together in _by_depth(measures).items():
        _fill(values, _cut(run, qrels, depth), qrels, together)
    return values


def cutoff(measure: str) -> int | None:
    """The 10 of `nDCG@10`: how many documents of a ranking the measure looks at; None for all of them."""
    depth = _parse(measure)[2]
    return int(depth) if depth else None


def _by_depth(measures: Sequence[str]) -> dict[int | None, list[str]]:
    """Which measures can be had from the same cut of a run; None: from the whole.

    Measures with a cut-off of their own share the deepest; trec_eval knows no MRR@k, which is the MRR of the best k.
    """
    cutoffs = {measure: cutoff(measure) for measure in measures}
    shared = max((depth for measure, depth in cutoffs.items() if depth and not measure.startswith("MRR")), default=None)
    groups: dict[int | None, list[str]] = {}
    for measure, depth in cutoffs.items():
        groups.setdefault(depth if measure.startswith("MRR") or depth is None else shared, []).append(measure)
    return groups


def _cut(run: Run, qrels: Qrels, depth: int | None) -> Run:
    """The best `depth` of each judged query; what trec_eval would not look at need not be sorted by it."""
    judged = {query_id: run[query_id] for query_id in qrels if query_id in run}
    if depth is None:
        return judged
    return {
        query_id: scores if len(scores) <= depth else top_k(_values(scores), list(scores), k=depth)
        for query_id, scores in judged.items()
    }


def _fill(values: dict[str, dict[str, float]], run: Run, qrels: Qrels, measures: Sequence[str]) -> None:
    import ir_measures

    ours = {ir_measures.parse_measure(_native(measure)): measure for measure in measures}
    for metric in ir_measures.pytrec_eval.iter_calc(list(ours), qrels, run):
        values[ours[metric.measure]][metric.query_id] = float(metric.value)


def _check_numbers(query_id: str, scores: Mapping[str, float]) -> None:
    if np.isnan(_values(scores)).any():
        doc_id = next(doc_id for doc_id, score in scores.items() if score != score)
        raise InputError(
            f"query {shown(query_id)}, document {shown(doc_id)}: the score is not a number (NaN). The model overflowed "
            f"or the run is damaged; search again, with float32 if it was a model of another type."
        )


def _values(scores: Mapping[str, float]) -> np.ndarray:
    return np.fromiter(scores.values(), dtype=np.float64, count=len(scores))


def _native(measure: str) -> str:
    """How ir-measures writes it."""
    name, depth, whole = _parse(measure).groups()
    return _NATIVE[whole or name] + (f"@{depth}" if depth and name != "MRR" else "")


def _parse(measure: str) -> re.Match[str]:
    if match := _MEASURE.fullmatch(measure):
        return match
    raise ConfigError(f'unknown measure "{measure}"; write nDCG@10, Recall@100, MAP, MRR, MRR@10 or the like.')
