"""R3 for the journal: whichever of SQLite's writes the kernel refuses, what was committed stands, and it goes on.

Python cannot step between SQLite and the disk, but the kernel can: a process may be forbidden to write beyond an offset
of any file (RLIMIT_FSIZE), so that a limit at every offset of the write-ahead log fails every write in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("resource")

WORKER = """
import json, resource, sys
from pathlib import Path
from reasonembed.errors import ReasonEmbedError, StorageError
from reasonembed.llm.chat import Reply, Usage
from reasonembed.llm.journal import Journal

GROUPS, ROWS = 6, 2
PAGE, FRAME, HEADER = 4096, 24, 32  # https://www.sqlite.org/fileformat2.html, section 4.1

def key(n): return bytes([n]) * 32
def reply(n): return Reply(f"generate:x:doc-{n}", f"answer {n} " * 99, Usage(n, 2))
def group(g): return [(key(n), reply(n)) for n in range(g * ROWS, (g + 1) * ROWS)]
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

def fill(path, size):
    '''What was committed before the kernel refused, and the error; then all the rest, over the same connection.'''
    committed, said = 0, ""
    limit(size)
    try:
        with Journal(path) as journal:
            try:
                for g in range(GROUPS):
                    journal.put_many(group(g))
                    committed = g + 1
            except ReasonEmbedError as error:
                said = f"{type(error).__name__}: {error}"
                limit(resource.RLIM_INFINITY)
                found = journal.get_many(map(key, range(GROUPS * ROWS)))
                assert found == dict(sum(map(group, range(committed)), [])), "after the error"
                journal.put_many(group(committed))
                committed += 1
            limit(resource.RLIM_INFINITY)
    except ReasonEmbedError as error:  # on opening
        said = f"{type(error).__name__}: {error}"
    finally:
        limit(resource.RLIM_INFINITY)
    with Journal(path) as journal:
        found = journal.get_many(map(key, range(GROUPS * ROWS)))
        assert found == dict(sum(map(group, range(committed)), [])), "after reopening"
        journal.put_many(sum(map(group, range(GROUPS)), []))
        assert journal.get_many(map(key, range(GROUPS * ROWS))) == dict(sum(map(group, range(GROUPS)), []))
    return committed, said

folder = Path(sys.argv[1])
with Journal(folder / "whole") as journal:
    for g in range(GROUPS):
        journal.put_many(group(g))
    end = (folder / "whole-wal").stat().st_size
frames = range(HEADER, end + 1, PAGE + FRAME)
sizes = sorted({0, 1, 8, HEADER - 1, *(start + step for start in frames for step in (0, 1, FRAME, FRAME + 1, 2048))})
for number, size in enumerate(sizes):
    committed, said = fill(folder / f"j{number}", size)
    print(json.dumps([size, committed, said]))
"""


@pytest.fixture(scope="module")
def outcomes() -> list[tuple[int, int, str]]:
    """For each limit: its bytes, the groups that were committed, and what was said. In memory if it can be."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        command = [sys.executable, "-c", WORKER, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_whichever_write_fails_what_was_committed_stands_and_the_same_journal_goes_on(
    outcomes: list[tuple[int, int, str]],
) -> None:
    """The worker compares all replies after the error, after reopening, and after the rest was put."""
    assert len(outcomes) > 50
    counts = [committed for _, committed, said in outcomes if said]
    assert set(counts) == set(range(7)) and len(counts) > 40


def test_each_refusal_is_a_storage_error_that_names_file_and_cure(outcomes: list[tuple[int, int, str]]) -> None:
    for size, _, said in outcomes:
        if said:
            assert said.startswith("StorageError: the journal ") and "run the same command again" in said, (size, said)


def test_the_journal_of_a_full_disk_can_still_be_read(tmp_path: Path) -> None:
    """A limit of nothing at all: opening what is whole and reading it takes no write that must succeed."""
    code = WORKER.partition("folder = ")[0] + (
        "path = Path(sys.argv[1]) / 'j'\n"
        "with Journal(path) as journal: journal.put_many(group(0))\n"
        "from reasonembed.llm.journal_export import check_journal\n"
        "limit(0)\n"
        "assert check_journal(path).whole\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
