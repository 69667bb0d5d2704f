"""A whole synthesis at size against a live endpoint, unbroken and killed twice: the same bytes, nothing paid twice.

    python benchmarks/synthesis_at_scale.py [--documents 100000] [--queries 2000] [--latency-s 0.05] [--concurrency 512]

The corpus: documents of about 600 characters, words drawn as in natural text. The endpoint: the scripted backend
served over HTTP in a process of its own (`reasonembed.llm.scripted_server`), which logs each request before it
answers. The first run is left alone. The second, in a workspace of its own, is killed by SIGKILL after about a
quarter and about two thirds of its requests (seeded), and then run to its end by the same command. Printed: what
each took, and whether rows, dropped rows and released files are the same bytes, how many requests came twice (at
most what was in flight at a kill), and whether any came again that the journal held.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from corpus_scale import natural_texts
from reasonembed.evaluate.facts import machine_facts
from reasonembed.files import sha256_file, write_jsonl
from reasonembed.llm.scripted_server import Asked

DOMAIN = "general"


class Ended(msgspec.Struct, frozen=True):
    """What one process of the command took."""

    seconds: float
    cpu_seconds: float
    peak_gib: float
    returncode: int


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        corpus = folder / "corpus.jsonl"
        texts = enumerate(natural_texts(options.documents))
        write_jsonl(corpus, ({"id": f"d{number:07}", "text": text} for number, text in texts))
        for name, value in machine_facts().items():
            print(f"{name}: {value}")
        print(f"{options.documents:,} documents, {options.queries:,} sources, {options.candidates} candidates each")
        unbroken = _unbroken(options, folder, corpus)
        _broken(options, folder, corpus, unbroken)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--latency-s", type=float, default=0.05)
    parser.add_argument("--concurrency", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0, help="when the kills come")
    parser.add_argument("--scratch", default=None, help="where everything is written; default: the system's")
    return parser.parse_args()


def _unbroken(options: argparse.Namespace, folder: Path, corpus: Path) -> Path:
    log, workspace = folder / "unbroken.jsonl", folder / "unbroken"
    with _server(options, log) as url:
        ended = _synthesize(options, url, corpus, workspace)
    calls = _lines(log)
    journal = sum(path.stat().st_size for path in workspace.glob("journal.sqlite*"))
    print("unbroken")
    _say(ended)
    print(f"  {calls:,} requests, {calls / ended.seconds:,.0f} a second over all stages")
    print(f"  journal of {journal / 2**20:.0f} MiB, {journal / calls:.0f} bytes a reply")
    return workspace


def _broken(options: argparse.Namespace, folder: Path, corpus: Path, unbroken: Path) -> None:
    log, workspace = folder / "broken.jsonl", folder / "broken"
    total = _lines(folder / "unbroken.jsonl")
    draw = random.Random(options.seed)
    repaid, seen = 0, 0
    print("killed twice")
    with _server(options, log) as url:
        for share in (draw.uniform(0.15, 0.35), draw.uniform(0.55, 0.8)):
            known = _committed(workspace)
            ended = _synthesize(options, url, corpus, workspace, log=log, kill_after=int(share * total))
            repaid += sum(one in known for one in _asked(log)[seen:])
            seen = _lines(log)
            print(f"  killed after {seen:,} requests; the journal holds {len(_committed(workspace)):,} replies")
        known = _committed(workspace)
        ended = _synthesize(options, url, corpus, workspace)
        _say(ended)
    asked = _asked(log)
    repaid += sum(one in known for one in asked[seen:])
    twice = sum(count - 1 for count in Counter(asked).values())
    same = _hashes(workspace) == _hashes(unbroken)
    print(
        f"  {len(asked):,} requests in all; {twice:,} came twice (two kills with up to {options.concurrency} in flight)"
    )
    print(f"  asked again although the journal held the reply: {repaid}")
    print(f"  {len(_hashes(unbroken))} files of rows, dropped rows and released data the same bytes: {same}")
    if not same or repaid or twice > 2 * options.concurrency:
        raise SystemExit("the promise is broken")


def _synthesize(
    options: argparse.Namespace,
    url: str,
    corpus: Path,
    workspace: Path,
    *,
    log: Path | None = None,
    kill_after: int = 0,
) -> Ended:
    """Run the command; with `kill_after`, SIGKILL it when `log` has so many lines."""
    settings = workspace.with_name("settings.toml")
    settings.write_text(f"[mine]\ntop_k = {options.candidates}\n")
    arguments = ["synthesize", corpus, "-w", workspace, "-m", url, "--limit", options.queries, "--config", settings]
    command = [sys.executable, "-m", "reasonembed", "-q", *arguments, "--concurrency", options.concurrency]
    started = time.monotonic()
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    while kill_after and process.poll() is None:
        if log is not None and log.exists() and _lines(log) >= kill_after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.2)
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != (-signal.SIGKILL if kill_after else 0):
        raise SystemExit(f"the command ended with {code}")
    cpu = usage.ru_utime + usage.ru_stime
    return Ended(time.monotonic() - started, cpu, usage.ru_maxrss / 2**20, code)


@contextlib.contextmanager
def _server(options: argparse.Namespace, log: Path) -> Iterator[str]:
    module = [sys.executable, "-m", "reasonembed.llm.scripted_server"]
    flags = ["--latency-s", str(options.latency_s), "--log", str(log)]
    with subprocess.Popen([*module, *flags], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _lines(path: Path) -> int:
    with path.open("rb") as handle:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: handle.read(1 << 20), b""))


def _asked(log: Path) -> list[str]:
    """The custom ids of all requests, in their order."""
    with log.open("rb") as handle:
        return [msgspec.json.decode(line, type=Asked).custom_id for line in handle if line.endswith(b"\n")]


def _committed(workspace: Path) -> set[str]:
    path = workspace / "journal.sqlite"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return {bytes(row[0]).decode() for row in connection.execute("SELECT custom_id FROM replies")}


def _hashes(workspace: Path) -> dict[str, str]:
    files = (path for path in (workspace / DOMAIN).rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(workspace).as_posix(): sha256_file(path) for path in files}


def _say(ended: Ended) -> None:
    print(f"  {ended.seconds:.0f} s, {ended.cpu_seconds:.0f} s of CPU, peak memory {ended.peak_gib:.2f} GiB")


if __name__ == "__main__":
    main()
