"""Early stopping: exactly what a sequential judge would ask, whatever the order and however often interrupted."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from reasonembed.domains import load_domain
from reasonembed.errors import EndpointError
from reasonembed.llm.backend import TransportFailure
from reasonembed.llm.chat import Failure, Request
from reasonembed.llm.door import ChatDoor
from reasonembed.llm.journal import Journal
from reasonembed.llm.prices import Prices
from reasonembed.llm.scripted import ScriptedBackend, plausible_reply
from reasonembed.manifest import read_dropped, read_manifest, read_rows
from reasonembed.records import Candidate, Dropped, Label
from reasonembed.remixer.annotate import annotate_candidates
from reasonembed.remixer.card import CARD_FILE
from reasonembed.remixer.config import AnnotateConfig, MineConfig, SelectConfig, SynthesisConfig
from reasonembed.remixer.estimate import Costing
from reasonembed.remixer.pipeline import plan, synthesize
from reasonembed.remixer.rows import MinedQuery
from reasonembed.workspace import Workspace

BIOLOGY = load_domain("biology")
DEPTH, QUERIES = 20, 15
GRADES = {
    f"q{q}": ["x" if random.Random(f"{q} {d}").random() < 0.05 else str(random.Random(f"{q}{d}").choice([1, 1, 2, 4]))
              for d in range(DEPTH)]
    for q in range(QUERIES)
}  # fmt: skip
MINED = [MinedQuery(q, "s", (), tuple(Candidate(f"d{d}", 1.0) for d in range(DEPTH))) for q in GRADES]
QUERY_TEXTS = {query_id: f"What about {query_id}?" for query_id in GRADES}


def sequential(grades: list[str], patience: int) -> int:
    """How many candidates a judge that goes one by one sees, written as plainly as can be."""
    in_a_row = 0
    for place, grade in enumerate(grades, 1):
        in_a_row = in_a_row + 1 if grade in ("1", "2") else 0
        if in_a_row == patience:
            return place
    return len(grades)


def answer(request: Request) -> str | Failure:
    _, _, query_id, doc_id = request.custom_id.partition("#")[0].split(":")
    grade = GRADES[query_id][int(doc_id[1:])]
    return Failure("refused") if grade == "x" else f"Because. <score>{grade}</score>"


def annotated(corpus_of: Callable, door, patience: int, samples: int = 1, rows=MINED) -> list[Label | Dropped]:
    corpus = corpus_of({f"d{d}": f"text {d}" for d in range(DEPTH)})
    config = AnnotateConfig(stop_after_irrelevant=patience, samples=samples)
    return list(annotate_candidates(lambda: rows, QUERY_TEXTS, corpus, BIOLOGY, config, seed=0, door=door))


@pytest.mark.parametrize("patience", [1, 3, 5, 30])
def test_asked_and_kept_is_what_a_sequential_judge_sees_and_the_rest_is_named(corpus_of, door_to, patience: int):
    door, whole = door_to(answer), annotated(corpus_of, door_to(answer), 0)
    found = annotated(corpus_of, door, patience)
    expected: list[Label | Dropped] = []
    for place, (query_id, grades) in enumerate(GRADES.items()):
        depth = sequential(grades, patience)
        expected += whole[place * DEPTH : place * DEPTH + depth]
        why = f"after {patience} in a row with grade 2 or less, at rank {depth}"
        expected += [Dropped(f"{query_id} d{d}", "stopped_early", why) for d in range(depth, DEPTH)]
    assert found == expected
    judged = sum(sequential(grades, patience) for grades in GRADES.values())
    assert len(door.backend.asked) == len(set(door.backend.asked)) == judged == door.spent.asked


def test_a_failure_is_no_irrelevant_grade(corpus_of, door_to):
    rows = [MinedQuery("q", "s", (), tuple(Candidate(f"d{d}", 1.0) for d in range(4)))]
    script = {f"annotate:biology:q:d{d}": "<score>1</score>" for d in (0, 2, 3)} | {
        "annotate:biology:q:d1": Failure("refused")
    }
    corpus = corpus_of({f"d{d}": f"text {d}" for d in range(4)})
    config = AnnotateConfig(stop_after_irrelevant=2)
    found = list(annotate_candidates(lambda: rows, {"q": "?"}, corpus, BIOLOGY, config, seed=0, door=door_to(script)))
    assert [getattr(one, "reason", "") for one in found] == ["", "reply_refused", "", ""]


def test_with_several_samples_the_joined_grade_decides(corpus_of, door_to):
    door = door_to(answer)
    found = annotated(corpus_of, door, 3, samples=3)
    judged = sum(sequential(grades, 3) for grades in GRADES.values())
    assert len(door.backend.asked) == 3 * judged
    assert sum(isinstance(one, Dropped) and one.reason == "stopped_early" for one in found) == QUERIES * DEPTH - judged


def test_the_order_of_queries_and_the_concurrency_change_nothing(corpus_of, door_to, tmp_path):
    found = annotated(corpus_of, door_to(answer), 3)
    with Journal(tmp_path / "one.sqlite") as journal:
        alone = ChatDoor(ScriptedBackend(answer), journal, concurrency=1)
        backwards = annotated(corpus_of, alone, 3, rows=MINED[::-1])
    key = str
    assert sorted(found, key=key) == sorted(backwards, key=key)


def test_an_interrupted_run_asks_for_nothing_twice_and_ends_the_same(corpus_of, tmp_path):
    """The endpoint fails at one moment after another; each run goes on from what the last one left."""
    with Journal(tmp_path / "whole.sqlite") as journal:
        whole = ChatDoor(ScriptedBackend(answer), journal)
        expected = annotated(corpus_of, whole, 3)
        calls = len(whole.backend.asked)
    answered: list[str] = []
    limit = 0

    def flaky(request: Request) -> str | Failure:
        if len(answered) >= limit:
            raise TransportFailure("down")
        answered.append(request.custom_id)
        return answer(request)

    for more in (17, 30, 5, 60):
        limit += more
        with Journal(tmp_path / "flaky.sqlite") as journal, pytest.raises(EndpointError):
            annotated(corpus_of, ChatDoor(ScriptedBackend(flaky), journal), 3)
    limit = calls
    with Journal(tmp_path / "flaky.sqlite") as journal:
        assert annotated(corpus_of, ChatDoor(ScriptedBackend(flaky), journal), 3) == expected
    assert len(answered) == len(set(answered)) == calls


def test_the_stage_says_what_it_skipped_and_counts_each_call_once(corpus_of, door_to, tmp_path):
    texts = {f"d{n:02}": f"salt water slug gene cell leaf {n} " * 8 for n in range(10)}
    texts = {doc_id: text + " ".join(f"{doc_id}{k}" for k in range(60)) for doc_id, text in texts.items()}
    config = SynthesisConfig(
        select=SelectConfig(domain_check=False),
        mine=MineConfig(top_k=8),
        annotate=AnnotateConfig(stop_after_irrelevant=2),
    )
    workspace, door = Workspace(tmp_path / "run"), door_to(plausible_reply)
    synthesize(corpus_of(texts), BIOLOGY, workspace, generator=door, config=config)
    folder = workspace.stage_folder("biology", "annotate")
    manifest = read_manifest(folder)
    assert manifest is not None
    labels, dropped = list(read_rows(folder, Label)), list(read_dropped(folder))
    mined = sum(len(row.candidates) for row in read_rows(workspace.stage_folder("biology", "mine"), MinedQuery))
    assert manifest.dropped["stopped_early"] == len(dropped) > 0
    assert manifest.rows_in == mined == len(labels) + len(dropped)
    assert (manifest.calls.asked, manifest.calls.from_journal) == (len(labels), 0)
    assert manifest.config["annotate"]["stop_after_irrelevant"] == 2
    card = (workspace.stage_folder("biology", "release") / CARD_FILE).read_text()
    assert f"after 2 grades of 1 or 2 in a row: {len(dropped)} of {mined} pairs." in card
    assert "stop_after_irrelevant 2" in card and f"| biology | annotate | `stopped_early` | {len(dropped)} |" in card


def test_a_plan_counts_all_candidates_and_says_that_there_will_be_fewer(corpus_of, door_to, tmp_path):
    corpus = corpus_of({f"d{n}": f"salt and slug number {n} " * 12 for n in range(5)})
    notes = {}
    for stop in (0, 3):
        config = SynthesisConfig(
            select=SelectConfig(domain_check=False), annotate=AnnotateConfig(stop_after_irrelevant=stop)
        )
        plans = plan(
            corpus,
            BIOLOGY,
            Workspace(tmp_path / "run"),
            generator=door_to(plausible_reply),
            config=config,
            costing=Costing(prices=Prices()),
        )
        notes[stop] = next((one.calls, one.note, one.cost.prompt_tokens) for one in plans if one.stage == "annotate")
    assert notes[3] == (5 * 4, "fewer: of each query only until 3 grades of 1 or 2 in a row", notes[0][2])
    assert notes[0][:2] == (5 * 4, "")


def test_of_batch_files_it_is_said_that_each_wave_is_one(corpus_of, door_to, caplog):
    door = door_to(answer)
    annotated(corpus_of, door, 3)
    assert "each wave is a batch" not in caplog.text
    door.payee = f"batch:{door.payee}"
    annotated(corpus_of, door, 3)
    assert caplog.text.count("each wave is a batch") == 1
