"""What the tests of ReMixer share: corpora, doors with a real journal, and one run over a pocket domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from reasonembed.beir import read_beir
from reasonembed.corpora import Corpus, read_corpus
from reasonembed.domains import load_domain
from reasonembed.llm.door import ChatDoor, open_door
from reasonembed.llm.journal import Journal
from reasonembed.llm.scripted import Script, ScriptedBackend
from reasonembed.pocket import pocket_folder
from reasonembed.remixer.config import SelectConfig, SynthesisConfig
from reasonembed.remixer.pipeline import SynthesisReport, synthesize
from reasonembed.remixer.select import read_sources
from reasonembed.workspace import Workspace

CorpusOf = Callable[[Mapping[str, str]], Corpus]
DoorTo = Callable[[Script], ChatDoor]


@pytest.fixture
def corpus_of(tmp_path: Path) -> CorpusOf:
    """A corpus from doc_id -> text, through a real file."""

    def make(texts: Mapping[str, str]) -> Corpus:
        path = tmp_path / "corpus.jsonl"
        rows = (msgspec.json.encode({"_id": doc_id, "text": text}) for doc_id, text in texts.items())
        path.write_bytes(b"\n".join(rows))
        return read_corpus(path)

    return make


@pytest.fixture
def door_to(tmp_path: Path):
    """A real door, with a real journal, to a scripted model."""
    journals = []

    def make(script: Script) -> ChatDoor:
        journals.append(Journal(tmp_path / f"journal-{len(journals)}.sqlite"))
        return ChatDoor(ScriptedBackend(script), journals[-1])

    yield make
    for journal in journals:
        journal.close()


@pytest.fixture(scope="session")
def run_pocket() -> Callable[..., SynthesisReport]:
    """Runs one pocket domain with its recorded replies as the demo does."""

    def run(workspace: Workspace, domain: str = "biology", **changes: object) -> SynthesisReport:
        collection = read_beir(pocket_folder(domain))
        arguments: dict = {
            "config": SynthesisConfig(select=SelectConfig(allow_benchmark_sources=True), holdout=0.1),
            "sources": read_sources(pocket_folder(domain) / "recorded.jsonl"),
            "exclude_qrels": collection.qrels,
        }
        with workspace.lock(), open_door("recorded:pocket", journal_path=workspace.journal_path) as door:
            return synthesize(
                collection.corpus, load_domain(domain), workspace, generator=door, **{**arguments, **changes}
            )

    return run


@pytest.fixture(scope="session")
def pocket(run_pocket, tmp_path_factory) -> tuple[Workspace, SynthesisReport]:
    """One finished run over the pocket's biology; read it, don't change it."""
    workspace = Workspace(tmp_path_factory.mktemp("pocket") / "run")
    return workspace, run_pocket(workspace)
