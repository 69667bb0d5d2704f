"""BM25 over 100,000 passages: ours, as a bag of words and query-side, against rank_bm25, all from one run.

    python benchmarks/bm25.py [--passages 100000] [--queries 200] [--peer-queries 5] [--repeats 3] [--quick]

The goal: a query in at most a fiftieth of rank_bm25's time. Passages and queries are synthetic (`zipf.py`). Both
sides get the same terms from our analyser, whose time counts as building; the peer searches the first few queries
only, which is what it has time for. Its formula is Okapi's and ours is Lucene's, which differ in the weight of
frequent terms: how often it agrees with our bag of words on the best passage is printed. Medians count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from reasonembed.search.analyser import analyser
from reasonembed.search.bm25 import Bm25Index, Weighting
from setting import setting
from zipf import draw

K1, B, TOP = 0.9, 0.4, 100
Result = TypeVar("Result")


class Side(NamedTuple):
    """Median seconds of building an index and of one query; the best passage of each query searched."""

    name: str
    build_s: float
    query_s: float
    best: list[str]


def main() -> None:
    options = _options()
    rng = np.random.default_rng(0)
    passages = draw(rng, options.passages, options.words)
    queries = draw(rng, options.queries, options.query_words)
    ids = [f"passage-{row}" for row in range(len(passages))]
    print(setting())
    print(
        f"{len(passages):,} passages of about {options.words} words, queries of about {options.query_words}, top {TOP}"
    )
    build_s, index = timed(lambda: Bm25Index.build(passages, ids, k1=K1, b=B), options.repeats)
    ours = [_ours(index, build_s, queries, weighting, options.repeats) for weighting in ("bag", "query")]
    del index
    for side in ours:
        print(_line(side, len(queries)))
    peer_class = _rank_bm25()
    if peer_class is None:
        print("rank_bm25: left out, it is not installed. Install it with: pip install '.[peers]'")
        return
    peer = _peer(peer_class, passages, ids, queries[: options.peer_queries], options.repeats)
    print(_line(peer, options.peer_queries))
    for side in ours:
        print(
            f"{side.name}: the peer takes {peer.query_s / side.query_s:,.0f} x as long for a query, "
            f"{peer.build_s / side.build_s:.2f} x for building"
        )
    agreed = sum(one == other for one, other in zip(ours[0].best, peer.best, strict=False))
    print(f"bag and the peer agree on the best passage of {agreed} of {len(peer.best)} queries")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=120, help="of a passage")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--query-words", type=int, default=40)
    parser.add_argument("--peer-queries", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="2,000 passages, 20 queries, once: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.passages, options.queries, options.repeats = 2_000, 20, 1
    return options


def _ours(index: Bm25Index, build_s: float, queries: list[str], weighting: Weighting, repeats: int) -> Side:
    by_id = {str(row): query for row, query in enumerate(queries)}
    search_s, run = timed(lambda: index.search(by_id, k=TOP, weighting=weighting), repeats)
    return Side(f"ours, {weighting}", build_s, search_s / len(queries), [next(iter(found)) for found in run.values()])


def _rank_bm25() -> Any:
    """Its BM25Okapi, or None if it is not installed."""
    try:
        from rank_bm25 import BM25Okapi
    except ModuleNotFoundError:
        return None
    return BM25Okapi


def _peer(peer_class: Any, passages: list[str], ids: list[str], queries: Sequence[str], repeats: int) -> Side:
    def build() -> Any:
        analyse = analyser("en")
        return peer_class([analyse(passage) for passage in passages], k1=K1, b=B)

    build_s, index = timed(build, repeats)
    analyse = analyser("en")
    search_s, found = timed(
        lambda: [index.get_top_n(analyse(query), ids, n=min(TOP, len(ids))) for query in queries], repeats
    )
    return Side("rank_bm25", build_s, search_s / len(queries), [ranking[0] for ranking in found])


def _line(side: Side, queries: int) -> str:
    return f"{side.name:12} build {side.build_s:7.2f} s   {side.query_s * 1000:9.2f} ms a query, over {queries}"


def timed(work: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """The median of the seconds on the clock, and what the last run returned."""
    seconds = []
    for _ in range(repeats):
        found = None  # the index of the run before need not stay
        start = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), found


if __name__ == "__main__":
    main()
