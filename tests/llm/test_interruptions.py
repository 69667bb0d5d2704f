"""Killed or stopped in the middle: a server in another process writes down what it is asked, twice or not."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKER = """
import sys
from pathlib import Path
from reasonembed.llm.chat import Message, Request, Sampling
from reasonembed.llm.door import open_door
from reasonembed.llm.endpoint import ClientConfig

def requests():
    for n in range(int(sys.argv[3])):
        yield Request(f"annotate:x:doc-{n}-q0:d", (Message("user", f"question {n}"),), Sampling(), seed=n)

with open_door(sys.argv[1], journal_path=sys.argv[2], client=ClientConfig(concurrency=16)) as door:
    for request, reply in door.replies(requests, label="annotate"):
        print(request.custom_id, repr(reply.text))
"""


class Counting:
    """The scripted server as a process, and the ids that it was asked for so far."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self.log = url, log

    def asked(self) -> list[str]:
        return [json.loads(line)["custom_id"] for line in self.log.read_bytes().splitlines()]

    def wait_until_asked(self, count: int) -> None:
        limit = time.monotonic() + 30
        while len(self.asked()) < count:
            assert time.monotonic() < limit
            time.sleep(0.01)


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counting]:
    log = tmp_path_factory.mktemp("server") / "asked.jsonl"
    command = [
        sys.executable,
        "-m",
        "reasonembed.llm.scripted_server",
        "--latency-s",
        "0.03",
        "--log",
        str(log),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Counting(process.stdout.readline().strip(), log)
        process.terminate()
        assert process.wait(10) == 0


def start_worker(counting: Counting, journal: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, counting.url, str(journal), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def committed(path: Path) -> set[str]:
    with sqlite3.connect(path) as raw:
        found = {bytes(row[0]).decode() for row in raw.execute("SELECT custom_id FROM replies")}
    raw.close()
    return found


def test_killed_again_and_again_nothing_is_paid_twice(counting: Counting, tmp_path: Path) -> None:
    counting.log.write_bytes(b"")
    journal, total = tmp_path / "j", 500
    before = 0
    for share in (0.2, 0.35, 0.6):
        already = committed(journal) if journal.exists() else set()
        with start_worker(counting, journal, total) as worker:
            counting.wait_until_asked(before + int(total * share) - len(already))
            worker.send_signal(signal.SIGKILL)
        time.sleep(0.2)
        assert not already & set(counting.asked()[before:]), "what the journal held was asked again"
        before = len(counting.asked())
    already = committed(journal)
    assert 100 < len(already) < total
    with start_worker(counting, journal, total) as worker:
        output, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
    assert not already & set(counting.asked()[before:])
    assert len(counting.asked()) - total <= 3 * (16 + 64), "more was lost than was in flight or uncommitted"

    with start_worker(counting, tmp_path / "other", total) as unbroken:
        assert unbroken.communicate(timeout=60)[0] == output


def test_ctrl_c_keeps_every_answer_that_came(counting: Counting, tmp_path: Path) -> None:
    counting.log.write_bytes(b"")
    with start_worker(counting, tmp_path / "j", 2000) as worker:
        counting.wait_until_asked(150)
        worker.send_signal(signal.SIGINT)
        _, errors = worker.communicate(timeout=30)
    assert worker.returncode != 0 and errors.rstrip().endswith("KeyboardInterrupt")
    assert len(counting.asked()) - len(committed(tmp_path / "j")) <= 16, "only what was in flight is lost"
