"""The journal at a million replies (goal P9): committing in groups, reopening, reading, against the naive ways.

    python benchmarks/journal.py [--replies 1000000] [--group 64] [--folder FOLDER] [--quick]

The goal: at least 20,000 replies/s in groups of 64, as the door commits them, and reopening within two seconds, after
a clean close and after a kill that left a write-ahead log. Replies are some 600 characters of seeded words. Peers, each
on a sample, since they are slow: the same journal with a commit for each reply; SQLite as Python opens it, one commit
for each reply; a JSON file written anew after each reply, whose cost grows with every reply that it holds. Writing
the texts is not timed. Each side runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import accumulate, islice
from pathlib import Path

from reasonembed.llm.chat import Reply, Usage
from reasonembed.llm.journal import Journal
from reasonembed.llm.journal_export import check_journal
from reasonembed.llm.journal_report import report_journal
from reasonembed.llm.prices import load_prices

CHARS = 600  # of a reply, about
MODEL = "gpt-4.1-mini"


def main() -> None:
    options = _options()
    if options.side:
        print(json.dumps({**SIDES[options.side](options), "mib": _peak_mib()}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        options.folder = Path(folder)
        figures = {side: _in_process(side, options) for side in SIDES}
        size = (options.folder / "journal.sqlite").stat().st_size
    _print(figures, size, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replies", type=int, default=1_000_000)
    parser.add_argument("--group", type=int, default=64, help="replies in a commit")
    parser.add_argument("--sample", type=int, default=5_000, help="replies of the peers that commit each one")
    parser.add_argument("--json-sample", type=int, default=500, help="replies of the peer that rewrites a file")
    parser.add_argument("--folder", type=Path, help="where the files lie meanwhile (about 0.7 GB); default: /tmp")
    parser.add_argument("--quick", action="store_true", help="20,000 replies: does it run at all?")
    parser.add_argument("--side", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.replies, options.sample, options.json_sample = 20_000, 500, 100
    return options


def _in_process(side: str, options: argparse.Namespace) -> dict[str, float]:
    named = {name: value for name, value in vars(options).items() if name not in ("side", "quick")}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in named.items()]
    done = subprocess.run(
        [sys.executable, __file__, f"--side={side}", *flags], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout))


def replies(count: int) -> Iterator[tuple[bytes, Reply]]:
    """The first `count` of the same endless row of replies."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 11))) for _ in range(20_000)]
    zipf = list(accumulate(1 / (rank + 1) for rank in range(len(words))))
    for number in range(count):
        text = " ".join(rng.choices(words, cum_weights=zipf, k=CHARS // 7))
        name = f"annotate:biology:biology-{number // 100}-q0:doc-{number}"
        yield hashlib.sha256(name.encode()).digest(), Reply(name, text, Usage(1_500, 150))


def _timed(groups: Iterator[list[tuple[bytes, Reply]]], commit: Callable[[list[tuple[bytes, Reply]]], None]) -> float:
    """Seconds that `commit` took over all groups."""
    seconds = 0.0
    for group in groups:
        start = time.perf_counter()
        commit(group)
        seconds += time.perf_counter() - start
    return seconds


def _grouped(count: int, size: int) -> Iterator[list[tuple[bytes, Reply]]]:
    rows = replies(count)
    while group := list(islice(rows, size)):
        yield group


def _journal_path(options: argparse.Namespace) -> Path:
    return Path(options.folder) / "journal.sqlite"


def _ours(options: argparse.Namespace) -> dict[str, float]:
    with Journal(_journal_path(options)) as journal:
        seconds = _timed(_grouped(options.replies, options.group), lambda group: journal.put_many(group, model=MODEL))
    return {"rate": options.replies / seconds}


def _reopened(options: argparse.Namespace) -> dict[str, float]:
    start = time.perf_counter()
    journal = Journal(_journal_path(options))
    seconds = time.perf_counter() - start
    assert len(journal) == options.replies
    keys = [key for key, _ in replies(min(options.replies, 20_000))]
    start = time.perf_counter()
    assert len(journal.get_many(keys)) == len(keys)
    rate = len(keys) / (time.perf_counter() - start)
    journal.put_many([(b"last" * 8, Reply("annotate:biology:last", "left in the log"))], model=MODEL)
    print(json.dumps({"seconds": seconds, "read_rate": rate, "mib": _peak_mib()}), flush=True)
    os._exit(0)  # as a kill would end it: the log stays


def _reopened_after_a_kill(options: argparse.Namespace) -> dict[str, float]:
    log = _journal_path(options).with_name("journal.sqlite-wal")
    assert log.stat().st_size
    start = time.perf_counter()
    with Journal(_journal_path(options)) as journal:
        seconds = time.perf_counter() - start
        assert len(journal) == options.replies + 1
    return {"seconds": seconds}


def _report(options: argparse.Namespace) -> dict[str, float]:
    start = time.perf_counter()
    assert report_journal(_journal_path(options), load_prices()).replies == options.replies + 1
    return {"seconds": time.perf_counter() - start}


def _check(options: argparse.Namespace) -> dict[str, float]:
    start = time.perf_counter()
    assert check_journal(_journal_path(options)).whole
    return {"seconds": time.perf_counter() - start}


def _one_by_one(options: argparse.Namespace) -> dict[str, float]:
    with Journal(Path(options.folder) / "single.sqlite") as journal:
        seconds = _timed(_grouped(options.sample, 1), lambda group: journal.put_many(group, model=MODEL))
    return {"rate": options.sample / seconds}


def _plain_sqlite(options: argparse.Namespace) -> dict[str, float]:
    with closing(sqlite3.connect(Path(options.folder) / "plain.sqlite")) as connection:
        connection.execute("CREATE TABLE replies (key BLOB PRIMARY KEY, text TEXT)")

        def commit(group: list[tuple[bytes, Reply]]) -> None:
            with connection:
                connection.executemany("INSERT INTO replies VALUES (?, ?)", ((key, reply.text) for key, reply in group))

        return {"rate": options.sample / _timed(_grouped(options.sample, 1), commit)}


def _json_file(options: argparse.Namespace) -> dict[str, float]:
    path = Path(options.folder) / "replies.json"
    kept: dict[str, str] = {}

    def commit(group: list[tuple[bytes, Reply]]) -> None:
        kept.update((key.hex(), reply.text) for key, reply in group)
        path.write_text(json.dumps(kept), encoding="utf-8")

    return {"rate": options.json_sample / _timed(_grouped(options.json_sample, 1), commit)}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


SIDES: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "ours": _ours,
    "reopened": _reopened,
    "killed": _reopened_after_a_kill,
    "report": _report,
    "check": _check,
    "one-by-one": _one_by_one,
    "plain-sqlite": _plain_sqlite,
    "json-file": _json_file,
}


def _print(figures: dict[str, dict[str, float]], size: int, options: argparse.Namespace) -> None:
    ours = figures["ours"]
    print(f"journal of {options.replies:,} replies of about {CHARS} characters, {size / 2**20:,.0f} MiB on the disk")
    print(f"  committed in groups of {options.group:<4} {ours['rate']:10,.0f} replies/s   peak {ours['mib']:,.0f} MiB")
    for label, side in (("reopened", "reopened"), ("reopened after a kill", "killed")):
        print(f"  {label:<27} {figures[side]['seconds']:10.3f} s   peak {figures[side]['mib']:,.0f} MiB")
    print(f"  read back by key            {figures['reopened']['read_rate']:10,.0f} replies/s")
    for side in ("report", "check"):
        print(f"  {side:<27} {figures[side]['seconds']:10.2f} s   peak {figures[side]['mib']:,.0f} MiB")
    print("peers")
    peers = (
        ("one-by-one", f"our journal, each reply committed ({options.sample:,} replies)"),
        ("plain-sqlite", f"SQLite as it comes, each reply committed ({options.sample:,} replies)"),
        ("json-file", f"a JSON file written anew after each reply ({options.json_sample:,} replies)"),
    )
    for side, label in peers:
        rate = figures[side]["rate"]
        print(f"  {label:<62} {rate:10,.0f} replies/s   ours {ours['rate'] / rate:,.1f} times as fast")


if __name__ == "__main__":
    main()
