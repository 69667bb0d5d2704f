"""Contamination: exact weighted Jaccard against plain Python, SciPy sparse products, and datasketch's MinHash.

    python benchmarks/contamination.py [--training 82000] [--queries 2260] [--repeats 3] [--threads 2] [--quick]

The goal: at most 5 s of search and 15 s in all on two cores. Texts are synthetic: about 150 words, drawn from
200,000 by Zipf's law, in sentences, a fifth of them not ASCII alone. Medians on the clock count; the seconds of all
threads together tell how busy the machine was. Plain Python and SciPy run on a sample of the queries against all
texts and are extrapolated; MinHash (64 permutations, an estimate of the *unweighted* similarity, so another
quantity) on a sample of texts. Compilation of our loops is timed apart, in a process with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from reasonembed.analyze.closest import WordCounts, count_words, counted_blocks, nearest, nearest_counts
from reasonembed.analyze.overlap import weighted_jaccard, word_counts
from reasonembed.analyze.vocabulary import Vocabulary
from reasonembed.texts import words
from setting import setting
from zipf import draw

Result = TypeVar("Result")


def main() -> None:
    options = _options()
    rng = np.random.default_rng(0)
    texts, queries = draw(rng, options.training), draw(rng, options.queries)
    print(setting())
    print(f"{len(texts):,} training x {len(queries):,} benchmark queries, {options.threads} threads")
    print(f"compiling the loops, once per machine: {compile_seconds():.1f} s")
    nearest(["warm"], ["warm"])  # numba and the compiled loops loaded
    counting, (wanted, blocks, size) = timed(lambda: counted(queries, texts), options.repeats)
    search, found = timed(lambda: nearest_counts(wanted, blocks, threads=options.threads), options.repeats)
    whole, again = timed(lambda: nearest(queries, texts, threads=options.threads), options.repeats)
    assert again == found
    for stage, timing in (("counting words", counting), ("search", search), ("in all", whole)):
        print(f"ours, {stage:15} {timing.wall:7.2f} s   {timing.cpu:7.2f} s of all threads")
    best = [one.similarity for one in found]
    for name, ours, peer in (
        ("plain Python, search, sample of 2 queries", search, lambda: plain_python(queries, texts, best)),
        ("SciPy, search, sample of 20 queries", search, lambda: scipy_minima(wanted, blocks, size, best)),
        ("datasketch MinHash, in all, sample of 500 texts", whole, lambda: minhash(queries, texts)),
    ):
        try:
            seconds = peer()
        except ModuleNotFoundError as error:
            print(f"{name}: left out, {error.name} is not installed. Install it with: pip install '.[peers]'")
            continue
        print(f"{name}, extrapolated: {seconds:,.1f} s = {seconds / ours.wall:,.1f} x ours")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=int, default=82_000)
    parser.add_argument("--queries", type=int, default=2_260)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="4,000 training x 200 benchmark queries: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.training, options.queries, options.repeats = 4_000, 200, 1
    return options


def counted(queries: list[str], texts: list[str]) -> tuple[WordCounts, list[WordCounts], int]:
    vocabulary = Vocabulary()
    wanted = count_words(queries, vocabulary)
    return wanted, list(counted_blocks(texts, vocabulary)), len(vocabulary)


def plain_python(queries: list[str], texts: list[str], best: list[float]) -> float:
    """Seconds of the search alone: words are counted before, as on our side."""
    there = [word_counts(text, stop_words=()) for text in texts]
    sample = [word_counts(query, stop_words=()) for query in queries[:2]]
    timing, found = timed(lambda: [max(weighted_jaccard(one, other) for other in there) for one in sample])
    assert found == best[:2]
    return timing.wall / len(sample) * len(queries)


def scipy_minima(wanted: WordCounts, blocks: list[WordCounts], size: int, best: list[float]) -> float:
    """sum min = the sum over levels of the product of (count >= level), as sparse matrices; exact."""
    from scipy.sparse import csr_matrix, vstack

    there = vstack([csr_matrix((b.counts, b.terms, b.starts), shape=(len(b), size)) for b in blocks]).tocsr()
    rows = min(20, len(wanted))
    end = wanted.starts[rows]
    here = csr_matrix((wanted.counts[:end], wanted.terms[:end], wanted.starts[: rows + 1]), shape=(rows, size))
    lengths = np.concatenate([block.lengths for block in blocks])

    def search() -> list[float]:
        shared = np.zeros((rows, there.shape[0]))
        for level in range(1, int(here.data.max()) + 1):
            shared += ((here >= level).astype(np.int32) @ (there >= level).astype(np.int32).T).toarray()
        return list((shared / (wanted.lengths[:rows, None] + lengths[None] - shared)).max(axis=1))

    timing, found = timed(search)
    assert found == best[:rows]
    return timing.wall / rows * len(wanted)


def minhash(queries: list[str], texts: list[str]) -> float:
    """Signatures of all texts, then all pairs; both measured on a sample."""
    from datasketch import MinHash

    def signature(text: str) -> MinHash:
        made = MinHash(num_perm=64)
        made.update_batch([word.encode() for word in set(words(text))])
        return made

    signing, sample = timed(lambda: [signature(text) for text in texts[:500]])
    query = signature(queries[0])
    comparing, _ = timed(lambda: max(query.jaccard(other) for other in sample))
    return (signing.wall * (len(texts) + len(queries)) + comparing.wall * len(texts) * len(queries)) / len(sample)


def compile_seconds() -> float:
    """Import of the loops with an empty cache, in a process of its own; numba's own import is left out."""
    code = (
        "import numba, time; t = time.perf_counter(); import reasonembed.analyze.loops; print(time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


class Timing(NamedTuple):
    """Seconds on the clock, and of all threads together."""

    wall: float
    cpu: float


def timed(work: Callable[[], Result], repeats: int = 1) -> tuple[Timing, Result]:
    """The medians of what the runs took, and what the last returned."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Timing(statistics.median(walls), statistics.median(cpus)), found


if __name__ == "__main__":
    main()
