"""Exact top-k against faiss.IndexFlatIP, BM25 against bm25s' own: ours and the peer's from one run.

    python benchmarks/search.py [--documents 200000] [--queries 2000] [--dimension 384] [--k 100]

The goal for the first: at most 1.1 times the peer's time, memory bounded by a block. The documents lie in a
float32 file that is mapped into memory; the peer has to copy them into its index. Each side runs in a process
of its own, so that the peak of resident memory is its own, by turns with the other; medians of nine runs.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    options = _options()
    if options.side:
        print(json.dumps(_SIDES[options.side](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = folder
        _write_vectors(options)
        dense = [{side: _in_process(side, options) for side in ("ours", "faiss")} for _ in range(options.repeats)]
    _print_dense(dense, options)
    bm25 = {side: _in_process(side, options) for side in ("bm25-ours", "bm25-query-ours", "bm25-peer")}
    _print_bm25(bm25, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--bm25-documents", type=int, default=20_000)
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_process(side: str, options: argparse.Namespace) -> dict[str, float]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if name != "side"]
    output = subprocess.run(
        [sys.executable, __file__, f"--side={side}", *flags], check=True, capture_output=True, text=True
    )
    return dict(json.loads(output.stdout))


def _write_vectors(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    for name, rows in (("documents", options.documents), ("queries", options.queries)):
        out = np.lib.format.open_memmap(
            Path(options.folder) / f"{name}.npy", "w+", np.float32, (rows, options.dimension)
        )
        for start in range(0, rows, 20_000):
            block = rng.standard_normal(out[start : start + 20_000].shape, dtype=np.float32)
            out[start : start + 20_000] = block / np.linalg.norm(block, axis=1, keepdims=True)


def _vectors(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    folder = Path(options.folder)
    return np.load(folder / "queries.npy"), np.load(folder / "documents.npy", mmap_mode="r")


def _ours(options: argparse.Namespace) -> dict[str, float]:
    from reasonembed.search.dense import search_vectors

    queries, documents = _vectors(options)
    query_ids = [f"q{row}" for row in range(len(queries))]
    doc_ids = [f"d{row}" for row in range(len(documents))]
    _warm(queries, documents)
    start = time.perf_counter()
    run = search_vectors(queries, documents, query_ids=query_ids, doc_ids=doc_ids, k=options.k)
    checksum = sum(int(doc_id[1:]) for ranking in run.values() for doc_id in list(ranking)[:10])
    return {"seconds": time.perf_counter() - start, "mib": _anonymous_mib(), "checksum": checksum}


def _faiss(options: argparse.Namespace) -> dict[str, float]:
    import faiss

    queries, documents = _vectors(options)
    _warm(queries, documents)
    start = time.perf_counter()
    index = faiss.IndexFlatIP(options.dimension)
    index.add(documents)
    added = time.perf_counter() - start
    _, rows = index.search(queries, options.k)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "search_seconds": seconds - added,
        "mib": _anonymous_mib(),
        "checksum": int(rows[:, :10].sum()),
    }


def _warm(queries: np.ndarray, documents: np.ndarray) -> None:
    """Libraries loaded, threads started, the file in the page cache: for both sides alike."""
    import faiss

    faiss.knn(queries[:64], np.asarray(documents[:4096]), 10, faiss.METRIC_INNER_PRODUCT)
    float(np.asarray(documents).sum())


def _anonymous_mib() -> float:
    """Peak memory of this process without the mapped file's pages (the libraries' own included)."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    mapped = int(fields["RssFile"].split()[0])
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - mapped) / 1024


def _texts(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(50_000)])
    draw = lambda count: " ".join(words[np.minimum(rng.zipf(1.3, count), len(words)) - 1])  # noqa: E731
    return [draw(200) for _ in range(options.bm25_documents)], [draw(220) for _ in range(200)]


def _bm25_ours(options: argparse.Namespace, weighting: str = "bag") -> dict[str, float]:
    from reasonembed.search.bm25 import Bm25Index

    documents, queries = _texts(options)
    start = time.perf_counter()
    index = Bm25Index.build(documents, [str(row) for row in range(len(documents))])
    built = time.perf_counter()
    index.search({str(row): query for row, query in enumerate(queries)}, k=100, weighting=weighting)  # type: ignore
    return {"build": built - start, "search": time.perf_counter() - built}


def _bm25_peer(options: argparse.Namespace) -> dict[str, float]:
    import bm25s
    import Stemmer

    documents, queries = _texts(options)
    stemmer = Stemmer.Stemmer("porter")
    start = time.perf_counter()
    peer = bm25s.BM25(k1=0.9, b=0.4, method="lucene", backend="numpy")
    peer.index(bm25s.tokenize(documents, stemmer=stemmer, show_progress=False), show_progress=False)
    built = time.perf_counter()
    tokens = bm25s.tokenize(queries, stemmer=stemmer, show_progress=False)
    peer.retrieve(tokens, k=100, show_progress=False)
    return {"build": built - start, "search": time.perf_counter() - built}


_SIDES = {
    "ours": _ours,
    "faiss": _faiss,
    "bm25-ours": _bm25_ours,
    "bm25-query-ours": lambda options: _bm25_ours(options, "query"),
    "bm25-peer": _bm25_peer,
}


def _print_dense(dense: list[dict[str, dict[str, float]]], options: argparse.Namespace) -> None:
    def middle(side: str, what: str) -> float:
        return statistics.median(run[side][what] for run in dense)

    def ratio(what: str) -> str:
        each = sorted(run["ours"]["seconds"] / run["faiss"][what] for run in dense)
        return f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"

    print(f"exact top-{options.k}: {options.queries} queries, {options.documents} x {options.dimension} float32")
    for name, side in (("ours", "ours"), ("IndexFlatIP, add+search", "faiss")):
        print(f"  {name:24} {middle(side, 'seconds'):7.2f} s   {middle(side, 'mib'):7.0f} MiB beyond the mapped file")
    print(f"  IndexFlatIP, search only {middle('faiss', 'search_seconds'):7.2f} s")
    print(f"  ratio {ratio('seconds')} to add+search, {ratio('search_seconds')} to search only")
    print(f"  same top 10: {all(run['ours']['checksum'] == run['faiss']['checksum'] for run in dense)}")


def _print_bm25(bm25: dict[str, dict[str, float]], options: argparse.Namespace) -> None:
    print(f"BM25: {options.bm25_documents} documents of 200 words, 200 queries of 220 words, top 100")
    for side, times in bm25.items():
        print(f"  {side:16} build {times['build']:6.2f} s   search {times['search']:6.2f} s")


if __name__ == "__main__":
    main()
