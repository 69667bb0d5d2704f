"""The recorded model: each recorded line is answered, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reasonembed.corpora import read_corpus
from reasonembed.errors import ConfigError, InputError
from reasonembed.files import read_jsonl
from reasonembed.llm.chat import Message, Request, Sampling, custom_id
from reasonembed.llm.door import open_door
from reasonembed.llm.recorded import RecordedBackend, Recording
from reasonembed.pocket import POCKET_DOMAINS, POCKET_FOLDER, pocket_folder

POCKET = RecordedBackend("pocket")


def ask(name: str) -> Request:
    return Request(name, (Message("user", "whatever"),), Sampling(), seed=0)


def text(*parts: str) -> str:
    reply = POCKET.answer(ask(custom_id(*parts)))
    assert reply.failure is None, reply
    return reply.text


def failure(name: str, backend: RecordedBackend = POCKET) -> str:
    reply = backend.answer(ask(name))
    assert reply.text == "" and reply.failure is not None and reply.failure.kind == "not_recorded"
    return reply.failure.detail


@pytest.mark.parametrize("domain", POCKET_DOMAINS)
def test_all_that_was_recorded_is_answered(domain: str) -> None:
    doc_ids = read_corpus(pocket_folder(domain)).ids
    recordings = list(read_jsonl(pocket_folder(domain) / "recorded.jsonl", Recording))
    assert len(recordings) == 27
    for row in recordings:
        assert text("generate", domain, row.doc_id) == row.query
        assert text("reason", domain, row.doc_id) == row.reasoning_query
        for doc_id in doc_ids:
            annotation = text("annotate", domain, f"{row.doc_id}-q0", doc_id)
            grade, reason = row.labels.get(doc_id, (1, "does not bear on"))
            assert re.findall(r"<score>(\d+)</score>", annotation) == [str(grade)]
            assert row.analysis in annotation and reason in annotation
            steps = [annotation.index(f"{step}: ") for step in ("Query analysis", "Document analysis")]
            assert steps == sorted(steps) and annotation.index("Relevance annotation: ") > steps[1]
    answers = [text("select", domain, doc_id) for doc_id in doc_ids]
    assert (answers.count("Yes"), answers.count("No")) == (50, 2)


def test_replies_are_not_conditioned_on_the_prompt_and_it_says_so(tmp_path: Path) -> None:
    with open_door("recorded:pocket", journal_path=tmp_path / "j") as door:
        assert not door.honours_conditions
        assert door.model.startswith("recorded:pocket@")
        requests = [ask(f"generate:biology:biology-{number:03}") for number in range(52)]
        replies = [reply for _, reply in door.replies(lambda: requests, label="generate")]
    assert sum(reply.failure is None for reply in replies) == 27


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("generate:biology:biology-009", "source 'biology-009'"),
        ("generate:biology:nothing", "source 'nothing'"),
        ("generate:biologie:biology-019", 'did you mean "biology"'),
        ("generate:../biology:biology-019", "no recordings for the domain"),
        ("annotate:biology:biology-019-q0:economics-001", "'economics-001' is not in the recorded corpus"),
        ("annotate:biology:biology-019-q0", "no recording for"),
        ("select:biology:nothing", "not in the recorded corpus"),
        ("generate:biology:biology-019#1", "one sample"),
        ("translate:biology:biology-019", "known are select"),
        ("nonsense", "not of the form"),
        ("", "not of the form"),
        ("generate:biology:biology-019#x", "not of the form"),
    ],
)
def test_what_was_not_recorded_is_a_failure_that_says_what_is_missing(name: str, why: str) -> None:
    assert why in failure(name)


def test_a_folder_of_ones_own_recordings_is_read_and_its_content_names_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "cooking"
    folder.mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "a:1", "text": "boil"}\n{"_id": "b#2", "text": "fry"}\n')
    labels = '{"b#2": [4, "near"]}'
    line = f'{{"doc_id": "a:1", "query": "q", "reasoning_query": "r", "analysis": "n", "labels": {labels}}}\n'
    (folder / "recorded.jsonl").write_text(line)
    backend = RecordedBackend(tmp_path / "mine")
    reply = backend.answer(ask(custom_id("annotate", "cooking", "a:1-q0", "b#2")))
    assert "near" in reply.text and "<score>4</score>" in reply.text
    (folder / "recorded.jsonl").write_text(line.replace('"q"', '"another"'))
    assert RecordedBackend(tmp_path / "mine").model != backend.model


def test_a_folder_without_recordings_is_refused_with_the_layout(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"DOMAIN/recorded\.jsonl"):
            RecordedBackend(folder)


def test_a_broken_line_is_named_with_file_and_line(tmp_path: Path) -> None:
    folder = tmp_path / "cooking"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "boil"}\n')
    (folder / "recorded.jsonl").write_text('{"doc_id": "a"}\n')
    with pytest.raises(InputError, match=r"recorded\.jsonl, line 1"):
        RecordedBackend(tmp_path).answer(ask("generate:cooking:a"))


def test_the_bundled_folder_is_pocket() -> None:
    assert RecordedBackend(POCKET_FOLDER).answer(ask("select:pony:pony-001")).text == "Yes"
    with (
        pytest.raises(ConfigError, match="a model cannot be chosen"),
        open_door("recorded:pocket", journal_path="x", model="m"),
    ):
        pass
