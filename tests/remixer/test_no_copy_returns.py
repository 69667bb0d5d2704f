"""R7 through all stages: planted copies of the sources never come back, nor where a run was interrupted and went on."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from reasonembed.corpora import Corpus, read_corpus
from reasonembed.domains import load_domain
from reasonembed.errors import EndpointError
from reasonembed.llm.backend import TransportFailure
from reasonembed.llm.chat import Request
from reasonembed.llm.door import ChatDoor
from reasonembed.llm.journal import Journal
from reasonembed.llm.scripted import ScriptedBackend, plausible_reply
from reasonembed.manifest import read_rows
from reasonembed.pocket import pocket_folder
from reasonembed.records import Example, Label
from reasonembed.redapter.data import from_examples, read_released
from reasonembed.remixer.config import MineConfig, SelectConfig, SynthesisConfig
from reasonembed.remixer.pipeline import synthesize
from reasonembed.remixer.rows import MinedQuery
from reasonembed.texts import text_key, words
from reasonembed.workspace import Workspace

BIOLOGY = load_domain("biology")
SOURCES = 12


def replaced_block(text: str, draw: random.Random) -> str:
    """A tenth of the words replaced, in one block."""
    tokens, size = text.split(), len(words(text)) // 10
    start = draw.randrange(len(tokens) - size + 1)
    return " ".join([*tokens[:start], *(f"other{start}x{n}" for n in range(size)), *tokens[start + size :]])


def disguises(text: str, draw: random.Random) -> dict[str, str]:
    return {
        "spaces": text.replace(" ", "\u00a0\n"),
        "decomposed": unicodedata.normalize("NFD", text),
        "full width": "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
        "upper": text.upper(),
        "block": replaced_block(text, draw),
        "all of it": replaced_block(text, draw).upper().replace(" ", "\u2003 "),
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The pocket's biology with every disguise of six documents beside them; an id tells which it copies."""
    documents = list(read_corpus(pocket_folder("biology")))
    draw, rows = random.Random(3), [{"_id": one.doc_id, "text": one.content} for one in documents]
    for one in [one for one in documents if len(one.content) > 250][:SOURCES]:
        rows += [
            {"_id": f"{one.doc_id} as {kind}", "text": text} for kind, text in disguises(one.content, draw).items()
        ]
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return read_corpus(path)


def family(doc_id: str) -> str:
    """What a document is a copy of; itself."""
    return doc_id.partition(" as ")[0]


def check_no_leak(workspace: Workspace, corpus: Corpus) -> int:
    """No stage names a copy of a query's source, and the released texts hold none; the number of pairs looked at."""
    folder, pairs = (lambda stage: workspace.stage_folder("biology", stage)), 0
    source_of = {row.query_id: row.source_id for row in read_rows(folder("mine"), MinedQuery)}
    named = [(row.query_id, one.doc_id) for row in read_rows(folder("mine"), MinedQuery) for one in row.candidates]
    named += [(label.query_id, label.doc_id) for label in read_rows(folder("annotate"), Label)]
    examples = [row for stage in ("assemble", "holdout") for row in read_rows(folder(stage), Example)]
    named += [(row.query_id, one.doc_id) for row in examples for one in (*row.positives, *row.negatives)]
    for query_id, doc_id in named:
        assert family(doc_id) != family(source_of[query_id]), (query_id, doc_id)
        pairs += 1
    keys = {
        name: {text_key(one.content) for one in corpus if family(one.doc_id) == name}
        for name in map(family, corpus.ids)
    }
    trained = list(read_rows(folder("assemble"), Example))
    released = read_released(folder("release") / "biology-formatted.jsonl")
    for row, masked, texts in zip(trained, from_examples(trained, corpus, BIOLOGY), released, strict=True):
        copies = keys[family(row.source_id)]
        assert not copies.intersection(map(text_key, (*texts.positives, *texts.negatives)))
        assert copies <= masked.never_negative, "in a batch, another query's passage may be the copy"
    return pairs


Run = Callable[[Workspace, ChatDoor], object]


@pytest.fixture
def run(corpus: Corpus, request: pytest.FixtureRequest) -> Run:
    config = SynthesisConfig(
        holdout=0.3, select=SelectConfig(domain_check=False), mine=MineConfig(retriever=request.param, top_k=30)
    )
    sources = sorted({family(one) for one in corpus.ids if " as " in one})
    assert len(sources) == SOURCES
    return lambda place, door: synthesize(corpus, BIOLOGY, place, generator=door, config=config, sources=sources)


@pytest.mark.parametrize("run", ["bm25q", "bm25"], indirect=True)
def test_no_copy_comes_back_whether_or_not_the_run_was_interrupted(run: Run, corpus: Corpus, tmp_path: Path) -> None:
    """The endpoint fails at one moment after another, and each run takes up what the last one left."""
    with Journal(tmp_path / "whole.sqlite") as journal:
        run(Workspace(tmp_path / "whole"), ChatDoor(ScriptedBackend(plausible_reply), journal))
    assert check_no_leak(Workspace(tmp_path / "whole"), corpus) > 1000
    limit, asked = 0, 0

    def flaky(request: Request) -> str:
        nonlocal asked
        if asked >= limit:
            raise TransportFailure("down")
        asked += 1
        return plausible_reply(request)

    workspace = Workspace(tmp_path / "broken")
    for more in (5, 12, 60, 150):
        limit += more
        with Journal(tmp_path / "broken.sqlite") as journal, pytest.raises(EndpointError):
            run(workspace, ChatDoor(ScriptedBackend(flaky), journal))
    limit = 10**9
    with Journal(tmp_path / "broken.sqlite") as journal:
        run(workspace, ChatDoor(ScriptedBackend(flaky), journal))
    assert check_no_leak(workspace, corpus) > 1000
    for path in (tmp_path / "whole/biology").rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            assert (workspace.path / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()
