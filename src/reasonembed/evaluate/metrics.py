"""Measures as trec_eval defines them, query by query: trec_eval's own code through ir-measures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reasonembed.errors import ConfigError
from reasonembed.records import Qrels, Run

MEASURES = ("nDCG@10", "Recall@10")

_MEASURE = re.compile(r"(nDCG|Recall)@([1-9][0-9]*)")


def score(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES) -> dict[str, dict[str, float]]:
    """Each measure of each query in `qrels`: measure -> query_id -> value between 0 and 1.

    Measures are written `nDCG@10` or `Recall@100` (the share of the documents of grade 1 or more that are
    found). A query that `run` lacks scores 0 and is counted; queries that `qrels` lacks are not. Raises
    ConfigError for another measure.
    """
    import ir_measures

    ours = {ir_measures.parse_measure(_native(measure)): measure for measure in measures}
    values: dict[str, dict[str, float]] = {measure: dict.fromkeys(qrels, 0.0) for measure in measures}
    for metric in ir_measures.pytrec_eval.iter_calc(list(ours), qrels, run):
        values[ours[metric.measure]][metric.query_id] = float(metric.value)
    return values


def cutoff(measure: str) -> int:
    """The 10 of `nDCG@10`: how many documents of a ranking the measure looks at."""
    return int(_parse(measure)[2])


def _native(measure: str) -> str:
    name, depth = _parse(measure).groups()
    return f"{'R' if name == 'Recall' else name}@{depth}"


def _parse(measure: str) -> re.Match[str]:
    if match := _MEASURE.fullmatch(measure):
        return match
    raise ConfigError(f'unknown measure "{measure}"; write nDCG@10, Recall@100 or the like.')
