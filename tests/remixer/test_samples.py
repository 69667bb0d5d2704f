"""Each pair judged several times: one label, with all its grades and their spread; judged once, nothing changes."""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec
import pytest

from reasonembed.domains import load_domain
from reasonembed.files import open_binary
from reasonembed.llm.chat import Failure, Request
from reasonembed.llm.scripted import plausible_reply
from reasonembed.manifest import read_manifest, read_rows
from reasonembed.records import Candidate, Dropped, Label
from reasonembed.remixer.annotate import annotate_candidates
from reasonembed.remixer.config import AnnotateConfig, MineConfig, SelectConfig, SynthesisConfig
from reasonembed.remixer.pipeline import plan, synthesize
from reasonembed.remixer.rows import MinedQuery
from reasonembed.workspace import Workspace

BIOLOGY = load_domain("biology")
ROWS_JUDGED_ONCE = "1dbe2e4ef9d3ba6d8d0905e53cd8b2d334ca7e3207ae80de1288517068d8c7ef"


def judged(corpus_of, door_to, script, config: AnnotateConfig, doc_ids: str = "a"):
    rows = [MinedQuery("q", "s", (), tuple(Candidate(doc_id, 1.0) for doc_id in doc_ids))]
    corpus = corpus_of({doc_id: f"text {doc_id}" for doc_id in doc_ids})
    door, counts = door_to(script), Counter()
    labels = annotate_candidates(
        lambda: rows, {"q": "What?"}, corpus, BIOLOGY, config, seed=0, door=door, counts=counts
    )
    return list(labels), counts, door


def test_a_label_keeps_all_grades_their_spread_and_why_others_failed(corpus_of, door_to):
    script = {
        "annotate:biology:q:a": "One. <score>2</score>",
        "annotate:biology:q:a#1": "Two. <score>5</score>",
        "annotate:biology:q:a#2": "no verdict",
        "annotate:biology:q:a#3": "Four. <score>5</score>",
        "annotate:biology:q:a#4": Failure("refused"),
    }
    labels, counts, door = judged(corpus_of, door_to, script, AnnotateConfig(samples=5))
    expected = Label("q", "a", 5, "Two.", (2, 5, 5), 1.4142, ("grade_missing", "reply_refused"))
    assert labels == [expected]
    assert counts == {"sample_grade_missing": 1, "sample_reply_refused": 1}
    assert sorted(door.backend.asked) == sorted(script)
    (mean,), _, _ = judged(corpus_of, door_to, script, AnnotateConfig(samples=5, aggregate="mean"))
    assert (mean.grade, mean.reason) == (4, "Two.")  # (2 + 5 + 5) / 3; the nearest sample's reason


def test_too_few_grades_drop_the_pair_with_every_reason(corpus_of, door_to):
    script = {
        "annotate:biology:q:a": "<score>5</score>",
        "annotate:biology:q:a#1": "<score>9</score>",
        "annotate:biology:q:b": "<score>1</score>",
        "annotate:biology:q:b#1": "<score>1</score>",
    }
    (dropped, kept), counts, _ = judged(corpus_of, door_to, script, AnnotateConfig(samples=2), "ab")
    assert isinstance(dropped, Dropped) and dropped.row_id == "q a" and dropped.reason == "too_few_grades"
    assert dropped.detail == "1 of 2 samples; grade_invalid: '9' is no integer from 1 to 5"
    assert kept == Label("q", "b", 1, "", (1, 1))
    assert counts == {"sample_grade_invalid": 1}


def test_every_sample_is_a_question_of_its_own_and_the_first_is_the_one_that_is_asked_once(corpus_of, door_to):
    seen: list[Request] = []

    def script(request: Request) -> str:
        seen.append(request)
        return "<score>3</score>"

    judged(corpus_of, door_to, script, AnnotateConfig(samples=3))
    several = sorted(seen, key=lambda request: request.sample_index)
    seen.clear()
    judged(corpus_of, door_to, script, AnnotateConfig())
    assert several[0] == seen[0]
    assert [request.sample_index for request in several] == [0, 1, 2]
    assert len({request.seed for request in several}) == 3
    assert {request.messages for request in several} == {seen[0].messages}


def test_judged_once_the_rows_are_those_of_earlier_versions_byte_for_byte(pocket):
    """The hash was taken before labels could have several grades."""
    workspace, _ = pocket
    folder = workspace.stage_folder("biology", "annotate")
    with open_binary(folder / "rows.jsonl.zst") as handle:
        assert hashlib.sha256(handle.read()).hexdigest() == ROWS_JUDGED_ONCE
    manifest = read_manifest(folder)
    assert manifest is not None
    assert list(manifest.config["annotate"]) == ["temperature", "top_p", "top_k", "max_tokens", "thinking"]


def test_the_whole_pipeline_judges_several_times_and_a_dry_run_counts_it(corpus_of, door_to, tmp_path):
    texts = {f"d{n:02}": f"salt water slug gene cell leaf number {n} " * 8 for n in range(6)}
    texts = {doc_id: text + " ".join(f"{doc_id}{k}" for k in range(60)) for doc_id, text in texts.items()}
    config = SynthesisConfig(
        select=SelectConfig(domain_check=False), mine=MineConfig(top_k=3), annotate=AnnotateConfig(samples=3)
    )
    door, workspace, corpus = door_to(plausible_reply), Workspace(tmp_path / "run"), corpus_of(texts)
    (planned,) = [
        one for one in plan(corpus, BIOLOGY, workspace, generator=door, config=config) if one.stage == "annotate"
    ]
    assert (planned.rows, planned.calls) == (18, 54)
    synthesize(corpus, BIOLOGY, workspace, generator=door, config=config)
    labels = list(read_rows(workspace.stage_folder("biology", "annotate"), Label))
    manifest = read_manifest(workspace.stage_folder("biology", "annotate"))
    assert manifest is not None and manifest.calls.asked == 3 * len(labels) > 0
    assert all(len(label.grades) == 3 for label in labels) and any(label.spread for label in labels)
    assert sum(name.endswith("#2") for name in door.backend.asked) == len(labels)
    asked = len(door.backend.asked)
    again = msgspec.structs.replace(config, annotate=AnnotateConfig(samples=3, aggregate="mean"))
    synthesize(corpus, BIOLOGY, workspace, generator=door, config=again, restart_from="annotate")
    assert len(door.backend.asked) == asked, "another way to join the grades asks for none again"


def test_samples_that_must_be_equal_are_not_paid_for():
    with pytest.raises(ValueError, match="temperature 0"):
        AnnotateConfig(samples=3, temperature=0)
    with pytest.raises(ValueError, match="at least 1"):
        AnnotateConfig(samples=0)
