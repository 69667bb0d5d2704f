"""What a run with one source per query writes does not change by accident: neither rows nor keys of the journal.

The hashes are from before a query could have several sources. Whoever changes a prompt, a row or a deciding key on
purpose puts the new ones here, and knows that workspaces made before are refused or must be paid for again.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from pathlib import Path

import pytest

from reasonembed.corpora import read_corpus
from reasonembed.domains import load_domain
from reasonembed.files import read_lines
from reasonembed.llm.door import ChatDoor
from reasonembed.llm.journal import Journal
from reasonembed.llm.scripted import ScriptedBackend, plausible_reply
from reasonembed.manifest import read_manifest
from reasonembed.pocket import pocket_folder
from reasonembed.remixer.config import MineConfig, SynthesisConfig
from reasonembed.remixer.pipeline import synthesize
from reasonembed.workspace import Workspace

STAGES = ("select", "generate", "reason", "mine", "annotate", "assemble", "holdout")
GOLDEN = {
    "journal": "4ced927603c307fd",
    "select": "7ff23bece01997e3",
    "generate": "316e07473a71b1b2",
    "reason": "b288ad00cd6483c6",
    "mine": "96f1e52b9da39aa3",
    "annotate": "618a851b2e86aec9",
    "assemble": "91ec48a3cdd4f7e9",
    "holdout": "f96ff75a46ae040b",
    "release": "2998956d71c42faf",
    "select receipt": "1005e3dcd8074c56",
    "generate receipt": "3366606510b89be7",
    "reason receipt": "ee873c7b7e455cfa",
    "mine receipt": "01afe5c79d8abeab",
    "annotate receipt": "3f009230554bbdf9",
    "assemble receipt": "19a27a6268d113e9",
    "holdout receipt": "afeac2fd79309e62",
    "release receipt": "6100c2b1409cee09",
    "select dropped": "f7824fb66ea18151",
    "assemble dropped": "34e5c7f9f146b644",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket's biology, a dozen sources, a scripted model that answers by prompt and custom id."""
    folder = tmp_path_factory.mktemp("golden")
    config = SynthesisConfig(limit=12, holdout=0.2, mine=MineConfig(top_k=10))
    corpus, domain = read_corpus(pocket_folder("biology")), load_domain("biology")
    with Journal(folder / "journal.sqlite") as journal:
        door = ChatDoor(ScriptedBackend(plausible_reply), journal)
        synthesize(corpus, domain, Workspace(folder), generator=door, config=config)
    return folder


def written(run: Path, name: str) -> str:
    """What is compared, as text: keys, receipts, dropped rows, or a stage's rows to the byte."""
    if name == "journal":
        with sqlite3.connect(run / "journal.sqlite") as journal:
            return " ".join(sorted(key.hex() for (key,) in journal.execute("SELECT key FROM replies")))
    stage, _, what = name.partition(" ")
    folder = run / "biology" / stage
    if what == "receipt":
        manifest = read_manifest(folder)
        assert manifest is not None
        own = {key: value for key, value in manifest.inputs.items() if key not in STAGES}  # theirs are compressed
        return json.dumps([own, manifest.config, manifest.dropped, manifest.counts])
    if what == "dropped":
        return (folder / "dropped.jsonl").read_text(encoding="utf-8")
    path = folder / ("biology-formatted.jsonl" if stage == "release" else "rows.jsonl.zst")
    lines = [line.decode() for _, line in read_lines(path)]
    if stage == "mine":  # the last digits of retrieval scores are the processor's
        lines = [re.sub(r'"score":[^}]*', '"score":0', line) for line in lines]
    return "\n".join(lines)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_run_with_one_source_per_query_is_what_it_always_was(run: Path, name: str) -> None:
    assert hashlib.sha256(written(run, name).encode()).hexdigest()[:16] == GOLDEN[name]
