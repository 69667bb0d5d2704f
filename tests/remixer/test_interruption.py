"""Law 2 and R1, R4: killed anywhere, the same command goes on; nothing paid for is lost or paid twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from reasonembed.llm.scripted_server import Asked

COMMAND = """
import sys
from reasonembed.corpora import read_corpus
from reasonembed.domains import load_domain
from reasonembed.llm.door import open_door
from reasonembed.llm.endpoint import ClientConfig
from reasonembed.remixer.config import MineConfig, SynthesisConfig
from reasonembed.remixer.pipeline import synthesize
from reasonembed.workspace import Workspace

url, corpus, path = sys.argv[1:]
workspace = Workspace(path)
config = SynthesisConfig(holdout=0.2, mine=MineConfig(top_k=8))
client = ClientConfig(concurrency=4)
with workspace.lock(), open_door(url, journal_path=workspace.journal_path, client=client) as door:
    synthesize(read_corpus(corpus), load_domain("biology"), workspace, generator=door, config=config)
"""


@pytest.fixture
def server(tmp_path: Path):
    """The scripted server in a process of its own, logging every request: its URL and the log."""
    log = tmp_path / "asked.jsonl"
    command = [
        sys.executable,
        "-m",
        "reasonembed.llm.scripted_server",
        "--latency-s",
        "0.01",
        "--log",
        str(log),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip(), log
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    draw = random.Random(0)
    vocabulary = [
        f"{a}{b}" for a in ("salt", "water", "slug", "gene", "cell", "leaf") for b in ("", "ing", "ed", "ward")
    ]
    rows = [{"_id": f"d{n:02}", "text": " ".join(draw.choices(vocabulary, k=50))} for n in range(14)]
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return path


def start(url: str, corpus: Path, workspace: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", COMMAND, url, str(corpus), str(workspace)], stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> str:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    return errors.decode()


def asked(log: Path) -> list[str]:
    """The custom ids of all requests so far, in their order."""
    raw = log.read_bytes() if log.exists() else b""
    return [
        msgspec.json.decode(line, type=Asked).custom_id
        for line in raw.splitlines(keepends=True)
        if line.endswith(b"\n")
    ]


def committed(workspace: Path) -> set[str]:
    path = workspace / "journal.sqlite"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return {bytes(row[0]).decode() for row in connection.execute("SELECT custom_id FROM replies")}


def outputs(workspace: Path) -> dict[str, bytes]:
    files = (path for path in (workspace / "biology").rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in files}


def test_killed_at_three_random_moments_the_same_command_gives_the_same_bytes_and_asks_nothing_twice(
    server, corpus: Path, tmp_path: Path
):
    url, log = server
    finish(start(url, corpus, tmp_path / "unbroken"))
    total = len(asked(log))
    assert total > 100
    log.write_bytes(b"")

    workspace = tmp_path / "broken"
    seen = 0
    for moment in sorted(random.Random(1).sample(range(1, total - 10), 3)):
        known = committed(workspace)
        process = start(url, corpus, workspace)
        while len(asked(log)) < moment and process.poll() is None:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not known.intersection(asked(log)[seen:])
        seen = len(asked(log))
    known = committed(workspace)
    finish(start(url, corpus, workspace))
    assert not known.intersection(asked(log)[seen:])
    assert outputs(workspace) == outputs(tmp_path / "unbroken")
    assert not list(workspace.rglob(".tmp-*"))

    before = len(asked(log))
    finish(start(url, corpus, workspace))
    assert len(asked(log)) == before


def test_a_second_process_on_the_same_workspace_is_refused_and_does_not_disturb_the_first(
    server, corpus: Path, tmp_path: Path
):
    url, log = server
    first = start(url, corpus, tmp_path / "run")
    while not asked(log) and first.poll() is None:
        time.sleep(0.005)
    second = start(url, corpus, tmp_path / "run")
    _, errors = second.communicate(timeout=60)
    assert second.returncode != 0
    assert f"in use by process {first.pid}" in errors.decode()
    finish(first)
    assert len(asked(log)) == len(set(asked(log)))


def test_ctrl_c_keeps_what_was_answered(server, corpus: Path, tmp_path: Path):
    url, log = server
    process = start(url, corpus, tmp_path / "run")
    while len(asked(log)) < 30 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(committed(tmp_path / "run")) >= 25
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    finish(start(url, corpus, tmp_path / "run"))
