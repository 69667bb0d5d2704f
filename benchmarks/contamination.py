"""Contamination: exact weighted Jaccard against plain Python, SciPy sparse products, and datasketch's MinHash.

    python benchmarks/contamination.py [--training 82000] [--queries 2260] [--repeats 3]

The goal: at most 5 s of search and 15 s in all on two cores. Texts are synthetic: about 150 words, drawn from
200,000 by Zipf's law. Plain Python and SciPy run on a sample of the queries against all texts and are extrapolated;
MinHash (64 permutations, an estimate of the *unweighted* similarity, so another quantity) on a sample of texts.
Compilation of our loops is timed apart, in a process with an empty cache.
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
from typing import Any

import numpy as np

from reasonembed.analyze.closest import Vocabulary, WordCounts, count_words, counted_blocks, nearest, nearest_counts
from reasonembed.analyze.overlap import weighted_jaccard, word_counts

_WORDS = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=int, default=82_000)
    parser.add_argument("--queries", type=int, default=2_260)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    texts, queries = draw(rng, options.training), draw(rng, options.queries)
    print(f"{len(texts):,} training x {len(queries):,} benchmark queries, {os.cpu_count()} cores")
    print(f"compiling the loops, once per machine: {compile_seconds():.1f} s")
    nearest(["warm"], ["warm"])  # numba and the compiled loops loaded
    (wanted, blocks, size), counting = timed(lambda: counted(queries, texts))
    searches = [timed(lambda: nearest_counts(wanted, blocks)) for _ in range(options.repeats)]
    ours = statistics.median(seconds for _, seconds in searches)
    print(f"ours: counting words {counting:.2f} s, search {ours:.2f} s (median of {options.repeats})")
    best = [one.similarity for one in searches[0][0]]
    for name, peer in (
        ("plain Python, sample of 2 queries", lambda: plain_python(queries, texts, best)),
        ("SciPy, sample of 20 queries", lambda: scipy_minima(wanted, blocks, size, best)),
        ("datasketch MinHash, sample of 500 texts", lambda: minhash(queries, texts)),
    ):
        try:
            seconds = peer()
        except ModuleNotFoundError as error:
            print(f"{name}: {error.name} is not installed")
            continue
        print(f"{name}, extrapolated: {seconds:,.1f} s = {seconds / ours:,.1f} x our search")


def draw(rng: np.random.Generator, count: int) -> list[str]:
    """Texts of about 150 words whose frequencies follow Zipf's law."""
    words = np.array([f"word{number}" for number in range(_WORDS)])
    mass = np.cumsum(1 / np.arange(1, _WORDS + 1) ** 1.05)
    lengths = np.clip(rng.normal(150, 50, count), 20, None).astype(int)
    drawn = words[np.minimum(np.searchsorted(mass, rng.random(lengths.sum()) * mass[-1]), _WORDS - 1)]
    return [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def counted(queries: list[str], texts: list[str]) -> tuple[WordCounts, list[WordCounts], int]:
    vocabulary = Vocabulary()
    wanted = count_words(queries, vocabulary)
    return wanted, list(counted_blocks(texts, vocabulary)), len(vocabulary)


def plain_python(queries: list[str], texts: list[str], best: list[float]) -> float:
    """Seconds of the search alone: words are counted before, as on our side."""
    there = [word_counts(text, stop_words=()) for text in texts]
    sample = [word_counts(query, stop_words=()) for query in queries[:2]]
    found, seconds = timed(lambda: [max(weighted_jaccard(one, other) for other in there) for one in sample])
    assert found == best[:2]
    return seconds / len(sample) * len(queries)


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

    found, seconds = timed(search)
    assert found == best[:rows]
    return seconds / rows * len(wanted)


def minhash(queries: list[str], texts: list[str]) -> float:
    """Signatures of all texts, then all pairs; both measured on a sample."""
    from datasketch import MinHash

    def signature(text: str) -> MinHash:
        made = MinHash(num_perm=64)
        made.update_batch([word.encode() for word in set(text.split())])
        return made

    sample, signing = timed(lambda: [signature(text) for text in texts[:500]])
    query = signature(queries[0])
    _, comparing = timed(lambda: max(query.jaccard(other) for other in sample))
    return (signing * (len(texts) + len(queries)) + comparing * len(texts) * len(queries)) / len(sample)


def compile_seconds() -> float:
    """Import of the loops with an empty cache, in a process of its own; numba's own import is left out."""
    code = (
        "import numba, time; t = time.perf_counter(); import reasonembed.analyze.loops; print(time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


if __name__ == "__main__":
    main()
