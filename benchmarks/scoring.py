"""Scoring 1,384 queries x 2,000 documents: ours against pytrec_eval alone, both in one process.

    python benchmarks/scoring.py [--queries 1384] [--depth 2000] [--repeats 5]

The goal: nDCG@10 and Recall@{1,10,100} in under 2 s after import. The peer sorts all 2,000 documents of each
query; ours hands trec_eval's code the best 100 of them. The medians count; the values are compared too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytrec_eval

from reasonembed.evaluate.metrics import score
from reasonembed.records import Qrels, Run

MEASURES = {"nDCG@10": "ndcg_cut_10", "Recall@1": "recall_1", "Recall@10": "recall_10", "Recall@100": "recall_100"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=1384)
    parser.add_argument("--depth", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    run, qrels = _data(options.queries, options.depth)
    score(run, qrels, list(MEASURES))  # imports
    ours_s, ours = _timed(lambda: score(run, qrels, list(MEASURES)), options.repeats)
    whole_s, _ = _timed(lambda: score(run, qrels, [*MEASURES, "MAP", "MRR"]), options.repeats)
    peer_s, peer = _timed(lambda: _peer(run, qrels), options.repeats)
    for measure, key in MEASURES.items():
        assert ours[measure] == {query_id: values[key] for query_id, values in peer.items()}, measure
    print(f"{options.queries} queries x {options.depth} documents, equal values")
    print(f"ours         {ours_s:6.2f} s   {', '.join(MEASURES)}")
    print(f"pytrec_eval  {peer_s:6.2f} s   the same; ours takes {ours_s / peer_s:.2f} of its time")
    print(f"ours         {whole_s:6.2f} s   with MAP and MRR too, which need the whole ranking")


def _data(queries: int, depth: int) -> tuple[Run, Qrels]:
    rng = np.random.default_rng(0)
    ids = [f"document-{number:06}" for number in range(10 * depth)]
    run: Run = {}
    qrels: Qrels = {}
    for number in range(queries):
        rows = rng.choice(len(ids), depth, replace=False).tolist()
        scores = rng.random(depth).tolist()
        run[str(number)] = {ids[row]: value for row, value in zip(rows, scores, strict=True)}
        qrels[str(number)] = {ids[row]: 1 for row in rows[:8]}
    return run, qrels


def _peer(run: Run, qrels: Qrels) -> Any:
    return pytrec_eval.RelevanceEvaluator(qrels, set(MEASURES.values())).evaluate(run)


def _timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), found


if __name__ == "__main__":
    main()
