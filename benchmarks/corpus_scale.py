"""A corpus of a million documents in at most 4 GB: reading, near-copies, BM25, mining; seconds and peak memory.

    python benchmarks/corpus_scale.py [--documents 1000000] [--sources 10000] [--queries 1000] [--format jsonl]

Documents of about 600 characters, words drawn as in natural text (Zipf). One near-copy is planted for every
tenth source: up to a tenth of its words replaced in one block, case and white space changed; all must be found.
Each phase runs after the one before it in one process, as in synthesis; the peak is of the process so far.
The peer is `bm25s` with its own tokenizer, on as many of the documents as `--peer-documents` says.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def main() -> None:
    options = _options()
    if options.side == "peer":
        print(f"{_peer(options):.2f}")
        return
    if options.side == "ours":
        _ours(options)
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        options.folder = folder
        _write(options)
        _in_process("ours", options)
        print(f"BM25 of {options.peer_documents:,} documents, median of {options.repeats}:")
        times = {"ours": [], "bm25s": []}
        for _ in range(options.repeats):
            times["ours"].append(float(_in_process("peer", options, "ours", quiet=True)))
            times["bm25s"].append(float(_in_process("peer", options, "bm25s", quiet=True)))
        ours, peer = (sorted(seconds)[len(seconds) // 2] for seconds in times.values())
        print(f"  ours {ours:.2f} s   bm25s {peer:.2f} s   ratio {ours / peer:.2f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--peer-documents", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl")
    parser.add_argument("--scratch", default=None, help="where the corpus is written; default: the system's")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    parser.add_argument("--builder", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _in_process(side: str, options: argparse.Namespace, builder: str = "", *, quiet: bool = False) -> str:
    values = {**vars(options), "side": side, "builder": builder}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value not in (None, "")]
    out = subprocess.PIPE if quiet else None
    return subprocess.run([sys.executable, __file__, *flags], check=True, stdout=out, text=True).stdout or ""


def natural_texts(count: int) -> Iterator[str]:
    """Texts of 80 to 120 words: the commonest two hundred words are short, the rest grow longer."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfw"))
    vocabulary = np.array(["".join(letters[rng.integers(0, 16, 2 + min(9, n // 200))]) for n in range(200_000)])
    for _ in range(count):
        size = int(rng.integers(80, 121))
        ranks = np.minimum(rng.zipf(1.25, size), 66_000) * 3 + rng.integers(0, 3, size)
        yield " ".join(vocabulary[ranks])


def _write(options: argparse.Namespace) -> None:
    from reasonembed.files import write_jsonl

    planted = options.sources // 10
    draw = random.Random(0)

    def rows() -> Iterator[dict[str, str]]:
        for number, text in enumerate(natural_texts(options.documents - planted)):
            yield {"id": f"d{number:07}", "text": text}
            if number % 10 == 0 and number // 10 < planted:
                yield {"id": f"copy-of-d{number:07}", "text": _disguised(text, draw)}

    path = Path(options.folder) / "corpus.jsonl"
    write_jsonl(path, rows())
    if options.format == "parquet":
        import pyarrow.json
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.json.read_json(path), path.with_suffix(".parquet"))
        path.unlink()


def _disguised(text: str, draw: random.Random) -> str:
    words = text.split()
    size = draw.randint(1, len(words) // 10)
    start = draw.randrange(len(words) - size + 1)
    words[start : start + size] = [f"other{draw.randrange(10**6)}" for _ in range(size)]
    return draw.choice(["  ", "\n", "\u00a0"]).join(words).upper()


def _ours(options: argparse.Namespace) -> None:
    from reasonembed.corpora import read_corpus
    from reasonembed.remixer.duplicates import find_near_copies
    from reasonembed.search.bm25 import Bm25Index

    print(
        f"{options.documents:,} documents in {options.format}, {options.sources:,} sources, {options.queries:,} queries"
    )
    clock = _Clock()
    corpus = read_corpus(options.folder)
    clock.say("read")
    sources = [corpus[f"d{number:07}"] for number in range(options.sources)]
    copies = find_near_copies(sources, corpus)
    clock.say("near-copies")
    planted = [number for number in range(0, options.sources, 10) if f"copy-of-d{number:07}" in corpus]
    found = sum(f"copy-of-d{number:07}" in copies.of(f"d{number:07}") for number in planted)
    print(f"  {found:,} of {len(planted):,} planted copies found")
    index = Bm25Index.build((document.content for document in corpus), corpus.ids)
    clock.say("BM25 build")
    queries = {source.doc_id: source.text for source in sources[: options.queries]}
    excluded = {doc_id: {doc_id, *copies.of(doc_id)} for doc_id in queries}
    run = index.search(queries, k=options.top_k, weighting="query", excluded=excluded)
    clock.say(f"mine, top {options.top_k}")
    assert all(len(ranking) == options.top_k for ranking in run.values())


class _Clock:
    """Prints what each phase took, and the peak of resident memory so far."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def say(self, phase: str) -> None:
        seconds = time.perf_counter() - self._start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"  {phase:16} {seconds:8.1f} s   peak {peak:5.2f} GiB", flush=True)
        self._start = time.perf_counter()


def _peer(options: argparse.Namespace) -> float:
    texts = list(natural_texts(options.peer_documents))
    start = time.perf_counter()
    if options.builder == "ours":
        from reasonembed.search.bm25 import Bm25Index

        Bm25Index.build(texts, [str(number) for number in range(len(texts))])
    else:
        import bm25s
        import Stemmer

        engine = bm25s.BM25(k1=0.9, b=0.4, method="lucene", backend="numpy")
        engine.index(bm25s.tokenize(texts, stemmer=Stemmer.Stemmer("porter"), show_progress=False), show_progress=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
