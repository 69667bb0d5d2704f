"""The stages one after the other: receipts, resuming, outputs that nothing else decides."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from reasonembed.beir import read_beir
from reasonembed.domains import load_domain
from reasonembed.errors import ConfigError, EndpointError, InputError, StageChanged
from reasonembed.llm.chat import Failure, Request
from reasonembed.llm.door import ChatDoor, open_door
from reasonembed.llm.journal import Journal
from reasonembed.llm.scripted import ScriptedBackend, plausible_reply
from reasonembed.manifest import read_dropped, read_manifest, read_rows
from reasonembed.pocket import pocket_folder
from reasonembed.records import Example, Label
from reasonembed.remixer.config import MineConfig, SelectConfig, SynthesisConfig
from reasonembed.remixer.pipeline import plan, synthesize
from reasonembed.remixer.rows import MinedQuery, ReasonedQuery
from reasonembed.remixer.select import read_sources
from reasonembed.workspace import Workspace

BIOLOGY = load_domain("biology")
STAGES = ["select", "generate", "reason", "mine", "annotate", "assemble", "holdout", "release"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outputs(folder: Path) -> dict[str, bytes]:
    """All files but the manifests, which tell times and calls."""
    return {name: raw for name, raw in contents(folder).items() if not name.endswith("manifest.json")}


def small_texts(count: int = 12) -> dict[str, str]:
    draw = random.Random(0)
    vocabulary = [
        f"{a}{b}" for a in ("salt", "water", "slug", "gene", "cell", "leaf") for b in ("", "ing", "ed", "ward", "like")
    ]
    return {f"d{n:02}": " ".join(draw.choices(vocabulary, k=50)) for n in range(count)}


def test_on_the_pocket_every_stage_leaves_rows_dropped_rows_and_a_manifest_with_exact_counts(pocket):
    workspace, report = pocket
    assert [result.stage for result in report.stages] == STAGES
    by_stage = {result.stage: result.manifest for result in report.stages}
    assert (by_stage["select"].rows_in, by_stage["select"].rows_out) == (52, 27)
    assert by_stage["select"].dropped == {"not_listed": 21, "off_domain": 2, "too_short": 2}
    assert by_stage["select"].counts == {"sources_named_by_benchmark": 8}
    assert by_stage["select"].calls.asked == 50
    for stage in ("generate", "reason", "mine"):
        assert (by_stage[stage].rows_in, by_stage[stage].rows_out) == (27, 27)
    assert by_stage["annotate"].rows_out == by_stage["mine"].counts["candidates"] == by_stage["annotate"].calls.asked
    assert (by_stage["assemble"].rows_out, by_stage["assemble"].dropped) == (24, {"held_out": 3})
    assert (by_stage["holdout"].rows_out, by_stage["release"].rows_out) == (3, 24)
    for result in report.stages:
        folder = workspace.stage_folder("biology", result.stage)
        assert read_manifest(folder) == result.manifest
        assert sum(1 for _ in read_dropped(folder)) == sum(result.manifest.dropped.values())
        assert all((folder / name).is_file() for name in result.manifest.outputs)
    assert report.examples == 24


def test_on_the_pocket_grades_are_the_recorded_ones_and_no_source_comes_back(pocket):
    workspace, _ = pocket
    recorded = {}
    for line in (pocket_folder("biology") / "recorded.jsonl").read_text().splitlines():
        row = json.loads(line)
        recorded[f"{row['doc_id']}-q0"] = row["labels"]
    for label in read_rows(workspace.stage_folder("biology", "annotate"), Label):
        grade, reason = recorded[label.query_id].get(label.doc_id, (1, "The document does not bear on"))
        assert label.grade == grade
        assert label.reason.startswith(reason)
        assert label.doc_id != label.query_id.removesuffix("-q0")


def test_the_holdout_folder_of_the_pocket_is_a_benchmark_whose_sources_are_not_trained_on(pocket):
    workspace, report = pocket
    assert report.holdout_folder is not None
    collection = read_beir(report.holdout_folder)
    assert len(collection.queries) == 3
    trained = {one.source_id for one in read_rows(workspace.stage_folder("biology", "assemble"), Example)}
    for query_id, excluded in collection.excluded.items():
        assert query_id.removesuffix("-q0") in excluded
        assert not excluded & trained


def test_a_second_run_asks_nothing_and_changes_nothing(run_pocket, tmp_path):
    workspace = Workspace(tmp_path / "run")
    first = run_pocket(workspace)
    before = contents(workspace.domain_folder("biology"))
    second = run_pocket(workspace)
    assert first.spent.asked > 1000
    assert not any(result.fresh for result in second.stages)
    assert second.spent.asked == second.spent.from_journal == 0
    assert contents(workspace.domain_folder("biology")) == before


def test_a_restart_deletes_that_stage_and_later_ones_and_the_journal_answers(run_pocket, pocket, tmp_path):
    workspace = Workspace(tmp_path / "run")
    run_pocket(workspace)
    again = run_pocket(workspace, restart_from="reason")
    assert [result.stage for result in again.stages if result.fresh] == STAGES[2:]
    assert (again.spent.asked, again.spent.from_journal) == (0, 27 + again.stages[4].manifest.rows_out)
    finished, _ = pocket
    assert outputs(workspace.domain_folder("biology")) == outputs(finished.domain_folder("biology"))


def test_a_changed_setting_is_refused_by_the_stage_it_decides_and_a_restart_takes_it(run_pocket, tmp_path):
    workspace = Workspace(tmp_path / "run")
    select = SelectConfig(allow_benchmark_sources=True)
    run_pocket(workspace, config=SynthesisConfig(select=select))
    narrower = SynthesisConfig(select=select, mine=MineConfig(top_k=10))
    with pytest.raises(
        StageChanged,
        match=r"the stage mine of biology .* key: mine\.top_k was 100 and is 10 now.*--restart-from mine",
    ):
        run_pocket(workspace, config=narrower)
    report = run_pocket(workspace, config=narrower, restart_from="mine")
    assert [result.fresh for result in report.stages] == [False] * 3 + [True] * 4
    assert report.spent.asked == 0
    assert all(len(row.candidates) == 10 for row in read_rows(workspace.stage_folder("biology", "mine"), MinedQuery))


def test_batch_shape_and_instruction_decide_the_release_alone(run_pocket, tmp_path, corpus_of):
    workspace = Workspace(tmp_path / "run")
    run_pocket(workspace)
    collection = read_beir(pocket_folder("biology"))
    import msgspec

    other = msgspec.structs.replace(BIOLOGY, group_size=4)
    with open_door("recorded:pocket", journal_path=workspace.journal_path) as door:
        with pytest.raises(StageChanged, match=r"the stage release .* domain\.group_size was 16 and is 4"):
            synthesize(
                collection.corpus,
                other,
                workspace,
                generator=door,
                config=SynthesisConfig(select=SelectConfig(allow_benchmark_sources=True), holdout=0.1),
                sources=read_sources(pocket_folder("biology") / "recorded.jsonl"),
                exclude_qrels=collection.qrels,
            )


def test_another_model_is_another_stage(corpus_of, tmp_path):
    corpus = corpus_of(small_texts())
    with Journal(tmp_path / "journal.sqlite") as journal:
        one, other = (ChatDoor(ScriptedBackend(plausible_reply, model=name), journal) for name in ("one", "other"))
        workspace = Workspace(tmp_path / "run")
        synthesize(corpus, BIOLOGY, workspace, generator=one, annotator=other)
        manifest = read_manifest(workspace.stage_folder("biology", "annotate"))
        assert manifest is not None
        assert manifest.config["model"] == "other"
        with pytest.raises(StageChanged, match=r"annotate .* model was 'other' and is 'one'"):
            synthesize(corpus, BIOLOGY, workspace, generator=one)


def test_stop_after_goes_no_further(run_pocket, tmp_path):
    report = run_pocket(Workspace(tmp_path / "run"), stop_after="generate")
    assert [result.stage for result in report.stages] == ["select", "generate"]
    assert (report.examples, report.release_path, report.holdout_folder) == (0, None, None)


@pytest.mark.parametrize("argument", ["stop_after", "restart_from"])
def test_an_unknown_stage_is_named_with_the_nearest_known_one(run_pocket, tmp_path, argument: str):
    with pytest.raises(ConfigError, match=r'no stage "anotate"; did you mean "annotate"\?'):
        run_pocket(Workspace(tmp_path / "run"), **{argument: "anotate"})


def test_a_limit_runs_the_whole_pipeline_on_so_many_sources(corpus_of, door_to, tmp_path):
    report = synthesize(
        corpus_of(small_texts()),
        BIOLOGY,
        Workspace(tmp_path / "run"),
        generator=door_to(plausible_reply),
        config=SynthesisConfig(limit=3),
    )
    assert report.stages[0].manifest.rows_out == 3
    assert report.stages[0].manifest.dropped["not_sampled"] > 0


class Slow(ScriptedBackend):
    """Answers come back in another order than they were asked in."""

    def session(self):
        import asyncio
        import contextlib

        @contextlib.asynccontextmanager
        async def open_session():
            async def ask(request: Request):
                await asyncio.sleep(random.Random(request.custom_id).random() * 0.004)
                return self.answer(request)

            yield ask

        return open_session()


def test_concurrency_and_the_order_of_answers_change_no_output(corpus_of, tmp_path):
    corpus = corpus_of(small_texts())
    written = []
    for number, (backend, concurrency) in enumerate([(ScriptedBackend, 1), (Slow, 3), (Slow, 64)]):
        workspace = Workspace(tmp_path / str(number))
        with Journal(tmp_path / f"{number}.sqlite") as journal:
            door = ChatDoor(backend(plausible_reply), journal, concurrency=concurrency)
            synthesize(corpus, BIOLOGY, workspace, generator=door, config=SynthesisConfig(holdout=0.2))
        written.append(outputs(workspace.domain_folder("biology")))
    assert written[0] == written[1] == written[2]
    assert len(written[0]) > 15


def test_a_request_that_fails_in_transport_leaves_the_stage_undone_and_is_asked_again_next_time(corpus_of, tmp_path):
    from reasonembed.llm.backend import TransportFailure

    broken = True
    asked: Counter[str] = Counter()

    class Flaky(ScriptedBackend):
        def answer(self, request: Request):
            asked[request.custom_id] += 1
            if broken and request.custom_id == "reason:biology:d05":
                raise TransportFailure("the connection was reset")
            return super().answer(request)

    corpus, workspace = corpus_of(small_texts()), Workspace(tmp_path / "run")
    config = SynthesisConfig(select=SelectConfig(domain_check=False))
    with Journal(tmp_path / "journal.sqlite") as journal:
        door = ChatDoor(Flaky(plausible_reply), journal)
        with pytest.raises(EndpointError, match="biology reason: 1 of 12 requests got no answer"):
            synthesize(corpus, BIOLOGY, workspace, generator=door, config=config)
        assert read_manifest(workspace.stage_folder("biology", "reason")) is None
        assert list(workspace.stage_folder("biology", "reason").iterdir()) == []
        broken = False
        report = synthesize(corpus, BIOLOGY, workspace, generator=door, config=config)
    assert {name: count for name, count in asked.items() if count > 1} == {"reason:biology:d05": 2}
    reason = next(result.manifest for result in report.stages if result.stage == "reason")
    assert (reason.calls.asked, reason.calls.from_journal) == (1, 11)


def test_a_query_whose_reasoning_query_was_refused_is_neither_mined_nor_annotated(corpus_of, door_to, tmp_path):
    def script(request: Request):
        return Failure("refused", "no") if request.custom_id == "reason:biology:d03" else plausible_reply(request)

    door = door_to(script)
    config = SynthesisConfig(select=SelectConfig(domain_check=False))
    report = synthesize(corpus_of(small_texts()), BIOLOGY, Workspace(tmp_path / "run"), generator=door, config=config)
    by_stage = {result.stage: result.manifest for result in report.stages}
    assert by_stage["reason"].dropped == {"reply_refused": 1}
    assert by_stage["mine"].rows_in == 11
    assert not any(name.startswith("annotate:biology:d03-q0") for name in door.backend.asked)


HOSTILE = [
    "../../etc/passwd",
    "/absolute",
    "a\x00b",
    "new\nline",
    "tab\there",
    "x" * 300,
    "CON",
    "..",
    "a:b#c%3A",
    "ÄÖ",
    "ß",
    "SS",
]


def test_hostile_ids_are_data_and_never_file_names(corpus_of, door_to, tmp_path):
    texts = dict(zip(HOSTILE, small_texts(len(HOSTILE)).values(), strict=True))
    workspace = Workspace(tmp_path / "run")
    config = SynthesisConfig(select=SelectConfig(domain_check=False))
    synthesize(corpus_of(texts), BIOLOGY, workspace, generator=door_to(plausible_reply), config=config)
    reasoned = read_rows(workspace.stage_folder("biology", "reason"), ReasonedQuery)
    assert {row.source_id for row in reasoned} == set(HOSTILE)
    labelled = {label.doc_id for label in read_rows(workspace.stage_folder("biology", "annotate"), Label)}
    assert labelled == set(HOSTILE)
    files = {path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*")}
    expected = {".lock", "biology", *(f"biology/{stage}" for stage in STAGES if stage != "holdout")}
    names = {"rows.jsonl.zst", "dropped.jsonl", "manifest.json", "biology-formatted.jsonl", "README.md"}
    assert {name for name in files if name.rsplit("/", 1)[-1] not in names} == expected


def test_the_plan_says_what_is_done_and_how_many_calls_there_are_at_most(run_pocket, tmp_path):
    workspace = Workspace(tmp_path / "run")
    collection = read_beir(pocket_folder("biology"))

    def planned(**changes) -> dict[str, tuple[str, int]]:
        arguments = {
            "config": SynthesisConfig(select=SelectConfig(allow_benchmark_sources=True), holdout=0.1),
            "sources": read_sources(pocket_folder("biology") / "recorded.jsonl"),
            "exclude_qrels": collection.qrels,
        }
        with open_door("recorded:pocket", journal_path=tmp_path / "plan.sqlite") as door:
            plans = plan(collection.corpus, BIOLOGY, workspace, generator=door, **{**arguments, **changes})
        return {one.stage: (one.state, one.calls) for one in plans}

    before = planned()
    assert not workspace.path.exists()
    assert [state for state, _ in before.values()] == ["to do"] * 8
    assert [before[stage][1] for stage in STAGES[:5]] == [50, 27, 27, 0, 27 * 51]
    run_pocket(workspace, stop_after="mine")
    middle = planned()
    assert [state for state, _ in middle.values()] == ["done"] * 4 + ["to do"] * 4
    report = run_pocket(workspace)
    assert middle["annotate"][1] == report.stages[4].manifest.calls.asked
    assert {state for state, _ in planned().values()} == {"done"}
    changed = planned(config=SynthesisConfig(select=SelectConfig(allow_benchmark_sources=True), seed=1))
    assert changed["select"][0] == "changed"
    assert changed["generate"] == ("to do", 27)


def test_a_source_list_that_does_not_fit_the_corpus_is_refused_before_anything_is_asked(corpus_of, door_to, tmp_path):
    door = door_to(plausible_reply)
    with pytest.raises(InputError, match="not in the corpus"):
        synthesize(corpus_of(small_texts()), BIOLOGY, Workspace(tmp_path / "run"), generator=door, sources=["nobody"])
    assert door.backend.asked == []


def test_importing_the_pipeline_loads_no_torch():
    import subprocess
    import sys

    heavy = ("torch", "transformers", "bm25s", "faiss")
    code = f"import sys, reasonembed.remixer.pipeline; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_document_whose_merged_copy_a_benchmark_names_is_no_source(tmp_path, door_to):
    from reasonembed.corpora import Reading, read_corpus
    from reasonembed.files import write_jsonl
    from reasonembed.manifest import read_dropped, read_manifest

    text = "A long enough passage about how salt draws water out of a slug. " * 5
    rows = [{"_id": "first", "text": text}, {"_id": "judged", "text": text.upper()}, {"_id": "x", "text": text[9:]}]
    write_jsonl(tmp_path / "c.jsonl", rows)
    corpus = read_corpus(tmp_path / "c.jsonl", Reading(merge_duplicates=True))
    workspace = Workspace(tmp_path / "run")
    config = SynthesisConfig(select=SelectConfig(domain_check=False))
    door = door_to(lambda request: "")
    qrels = {"q": {"judged": 1}}
    synthesize(
        corpus, load_domain("biology"), workspace, generator=door, config=config, exclude_qrels=qrels,
        stop_after="select",
    )  # fmt: skip
    folder = workspace.stage_folder("biology", "select")
    assert {row.row_id: row.reason for row in read_dropped(folder)} == {"first": "named_by_benchmark"}
    manifest = read_manifest(folder)
    assert manifest.counts["duplicates_merged"] == 1
    assert manifest.settings["reading"]["merge_duplicates"] is True
