"""R1: SIGKILL at many random moments, three times in a row each, in whichever stage that may be; hashes at the end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

RUNS, KILLS = 6, 3

WORKER = """
import hashlib, json, os, random, signal, sqlite3, sys, time
from pathlib import Path
from reasonembed.corpora import Corpus
from reasonembed.domains import load_domain
from reasonembed.llm.door import ChatDoor
from reasonembed.llm.journal import Journal
from reasonembed.llm.scripted import ScriptedBackend, plausible_reply
from reasonembed.manifest import read_manifest
from reasonembed.records import Document
from reasonembed.remixer.config import AnnotateConfig, MineConfig, SynthesisConfig
from reasonembed.remixer.pipeline import synthesize
from reasonembed.remixer.stages import STAGES
from reasonembed.workspace import Workspace

folder, runs, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(7)
words = [f"{a}{b}" for a in ("salt", "water", "slug", "gene", "cell", "leaf") for b in ("", "ing", "ed", "ward")]
documents = {f"d{n:02}": Document(f"d{n:02}", " ".join(draw.choices(words, k=50))) for n in range(10)}
corpus, biology = Corpus(documents, origin="here", sha256="0"), load_domain("biology")
config = SynthesisConfig(holdout=0.2, mine=MineConfig(top_k=8), annotate=AnnotateConfig(stop_after_irrelevant=3))

class Noted(ScriptedBackend):
    '''Writes down what it is asked before it answers, as a server that is paid would.'''
    def __init__(self, log):
        super().__init__(plausible_reply)
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def answer(self, request):
        os.write(self.log, request.custom_id.encode() + b"\\n")
        return super().answer(request)

def start(name):
    if process := os.fork():
        return process
    workspace = Workspace(folder / name)
    with workspace.lock(), Journal(workspace.journal_path) as journal:
        door = ChatDoor(Noted(folder / f"{name}.log"), journal, concurrency=4)
        synthesize(corpus, biology, workspace, generator=door, config=config)
    os._exit(0)

def asked(name):
    path = folder / f"{name}.log"
    return path.read_text().splitlines() if path.exists() else []

def committed(name):
    path = folder / name / "journal.sqlite"
    if not path.exists():
        return set()
    connection = sqlite3.connect(path)
    try:
        return {bytes(row[0]).decode() for row in connection.execute("SELECT custom_id FROM replies")}
    except sqlite3.OperationalError:  # not made yet
        return set()
    finally:
        connection.close()

def hashes(name):
    files = (path for path in (folder / name / "biology").rglob("*") if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder / name)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

def stages(name):
    return sum(read_manifest(folder / name / "biology" / stage) is not None for stage in STAGES)

assert os.waitpid(start("unbroken"), 0)[1] == 0
total = len(asked("unbroken"))
for run in range(runs):
    name, moments, twice = f"run{run}", [], 0
    for _ in range(kills):
        before, known = len(asked(name)), committed(name)
        moment, pause_s = before + draw.randint(0, total // 2), draw.uniform(0, 0.05)
        process = start(name)
        while len(asked(name)) < moment:
            over, ended = os.waitpid(process, os.WNOHANG)
            if over:  # it had fewer left to ask, and is done
                break
            time.sleep(0.001)
        else:
            time.sleep(pause_s)  # on into the stages that ask nothing
            os.kill(process, signal.SIGKILL)
            ended = os.waitpid(process, 0)[1]
        twice += len(known.intersection(asked(name)[before:]))
        moments.append([os.WIFSIGNALED(ended), stages(name), len(asked(name))])
    before, known = len(asked(name)), committed(name)
    ended = os.waitpid(start(name), 0)[1]
    twice += len(known.intersection(asked(name)[before:]))
    print(json.dumps({
        "moments": moments, "ended": ended, "twice": twice, "same": hashes(name) == hashes("unbroken"),
        "files": len(hashes(name)), "extra": len(asked(name)) - len(asked("unbroken")),
        "leftovers": [str(path) for path in (folder / name).rglob(".tmp-*")],
    }))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What became of each run. One process imports everything and forks: the moments are not lost on imports."""
    command = [sys.executable, "-c", WORKER, str(tmp_path_factory.mktemp("kills")), str(RUNS), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_however_often_it_was_killed_the_files_are_those_of_an_unbroken_run(runs: list[dict]) -> None:
    assert len(runs) == RUNS
    for run in runs:
        assert run["ended"] == 0 and run["same"] and run["files"] > 15, run
        assert not run["leftovers"], run


def test_nothing_that_was_committed_is_asked_again_and_only_what_was_under_way_is(runs: list[dict]) -> None:
    for run in runs:
        assert run["twice"] == 0, run
        assert 0 <= run["extra"] <= KILLS * (4 + 64), run  # in flight, and answered but not committed: a group at most


def test_the_moments_lay_in_many_stages(runs: list[dict]) -> None:
    moments = [tuple(moment) for run in runs for moment in run["moments"]]
    assert sum(killed for killed, _, _ in moments) > RUNS * KILLS / 2
    assert len({finished for killed, finished, _ in moments if killed}) >= 3
    assert len(set(moments)) > RUNS
