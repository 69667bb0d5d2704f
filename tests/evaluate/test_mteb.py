"""mteb reads our results, runs our folders, and measures on the same data and prompts what we measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reasonembed.beir import Collection
from reasonembed.domains import load_domain
from reasonembed.encoder.prompts import query_prompt
from reasonembed.evaluate.mteb_export import LONG_DOMAINS, task_name, task_results
from reasonembed.evaluate.mteb_model import mteb_model, task_prompts
from reasonembed.evaluate.published import published_tables
from reasonembed.evaluate.run import evaluate
from reasonembed.files import write_json
from reasonembed.pocket import pocket_folder
from reasonembed.search.systems import Bm25System, DenseSystem

mteb = pytest.importorskip("mteb", minversion="2")
BRIGHT, R2MED = published_tables().bright, published_tables().r2med


def test_every_domain_has_the_name_of_mtebs_own_task() -> None:
    names = {task_name("bright", domain) for domain in BRIGHT.domains}
    long = {task_name("bright-long", domain) for domain in LONG_DOMAINS}
    assert names | long == {task.metadata.name for task in mteb.get_benchmark("BRIGHT(v1.1)").tasks}
    medical = {task_name("r2med", domain) for domain in R2MED.domains}
    assert medical == {task.metadata.name for task in mteb.get_benchmark("R2MED").tasks}
    assert {mteb.get_task(str(name)).metadata.main_score for name in long} == {"recall_at_1"}
    assert task_name("bright-long", "aops") is None and task_name("pocket", "biology") is None


def test_mteb_loads_our_results_and_finds_our_scores_and_protocol(
    collections: dict[str, Collection], tmp_path: Path
) -> None:
    renamed = dict(zip(("biology", "theoremqa_theorems"), collections.values(), strict=True))
    evaluation = evaluate(Bm25System(), renamed, benchmark="bright")
    for result, domain in zip(task_results(evaluation), renamed, strict=True):
        path = tmp_path / f"{result['task_name']}.json"
        write_json(path, result)
        loaded = mteb.results.TaskResult.from_disk(path)
        assert loaded.task.metadata.name == task_name("bright", domain)  # one that mteb knows
        assert loaded.get_score() == pytest.approx(evaluation.per_domain["nDCG@10"][domain])
        (scores,) = loaded.scores["standard"]
        assert scores["recall_at_10"] == evaluation.per_domain["Recall@10"][domain]
        assert "judged by reasonembed" in scores["protocol"] and str(evaluation.protocol) in scores["protocol"]
        assert loaded.mteb_version is None and loaded.dataset_revision.startswith("reasonembed:")


def test_a_task_without_its_main_score_is_left_out_and_another_collection_keeps_its_name(
    collections: dict[str, Collection],
) -> None:
    evaluation = evaluate(Bm25System(), {"biology": collections["first"]}, measures=["Recall@10"], benchmark="bright")
    assert task_results(evaluation) == []
    (result,) = task_results(msgspec.structs.replace(evaluation, protocol=renamed(evaluation.protocol, "mine")))
    assert (result["task_name"], list(result["scores"])) == ("biology", ["test"])
    assert result["scores"]["test"][0]["main_score"] == evaluation.per_domain["Recall@10"]["biology"]


def renamed(protocol: Any, benchmark: str) -> Any:
    return msgspec.structs.replace(protocol, benchmark=benchmark)


def test_prompts_are_the_models_own_then_ours_and_none_for_a_model_of_bare_queries() -> None:
    found = task_prompts({"query": "general: ", "biology": "my passages: "})
    assert found["BrightBiologyRetrieval-query"] == "my passages: "
    assert found["BrightBiologyLongRetrieval-query"] == "my documents: "
    assert found["BrightPonyRetrieval-query"] == query_prompt(load_domain("pony").instruction)
    assert "similar cases" in found["R2MEDIIYiClinicalRetrieval-query"]
    assert (found["query"], found["document"], len(found)) == ("general: ", "", 2 + 12 + 8 + 8)
    assert task_prompts({"query": "", "document": ""}) == {"query": "", "document": ""}


@pytest.fixture(scope="module")
def folder(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as training leaves it, with its manifest: trained for pony and cooking."""
    from reasonembed.encoder.model import Encoder
    from reasonembed.encoder.save import save_encoder

    prompts = {"query": "Find: ", "document": "", "pony": "Find Pony: "}
    totals = {"steps": 1, "seconds": 1.0, "tokens_per_s": 1.0, "padding_share": 0.0, "truncated": 0}
    receipt = {"config": {}, "base": "a-base", "base_hash": "0", "data_hash": "0"}
    manifest = {"receipt": receipt, "running": {}, "examples": 1, "domains": ["pony", "cooking"], "totals": totals,
                "versions": {}}  # fmt: skip
    out = tmp_path_factory.mktemp("models") / "tiny"
    extra = {"manifest.json": json.dumps(manifest)}
    return save_encoder(Encoder.load(tiny_models["qwen3"]), out, prompts=prompts, card="# card", extra=extra)


def test_a_folder_of_ours_runs_in_mteb_and_scores_there_what_it_scores_here(folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    from reasonembed.beir import read_beir
    from reasonembed.encoder.model import Encoder

    pocket = read_beir(pocket_folder("pony"))

    class Local(AbsTaskRetrieval):  # the name of mteb's task, so that the prompt of its domain is looked up
        metadata = TaskMetadata(
            name="BrightPonyRetrieval", description="local", type="Retrieval", category="t2t", modalities=["text"],
            dataset={"path": "local/none", "revision": "1"}, eval_splits=["test"], eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )  # fmt: skip

        def load_data(self, **kwargs: Any) -> None:
            rows = [{"id": one.doc_id, "title": "", "text": one.content} for one in pocket.corpus]
            queries = [{"id": one.query_id, "text": one.text} for one in pocket.queries.values()]
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list(rows),
                        "queries": Dataset.from_list(queries),
                        "relevant_docs": pocket.qrels,
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    model = mteb_model(folder, trained_on=[], device="cpu")
    results = mteb.evaluate(model, Local(), cache=None, show_progress_bar=False, co2_tracker=False)
    theirs = results.task_results[0].scores["test"][0]

    system = DenseSystem(Encoder.load(folder), own_prompts=True)
    ours = evaluate(system, {"pony": pocket}).per_domain
    assert ours["nDCG@10"]["pony"] > 0
    assert theirs["ndcg_at_10"] == pytest.approx(ours["nDCG@10"]["pony"], abs=1e-5)  # mteb rounds to five digits
    assert theirs["recall_at_10"] == pytest.approx(ours["Recall@10"]["pony"], abs=1e-5)


def test_the_training_data_is_told_whole_or_not_at_all(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = mteb_model(folder, name="me/tiny", trained_on=["MSMARCO"], device="cpu").mteb_model_meta
    assert known.training_datasets == {"MSMARCO", "BrightPonyRetrieval", "BrightPonyLongRetrieval"}
    assert known.is_zero_shot_on(["BrightPonyRetrieval"]) is False
    assert known.is_zero_shot_on(["BrightAopsRetrieval"]) is True
    assert (known.name, len(known.revision), known.embed_dim) == ("me/tiny", 12, 64)
    unknown = mteb_model(folder, device="cpu").mteb_model_meta
    assert unknown.training_datasets is None and unknown.is_zero_shot_on(["BrightAopsRetrieval"]) is None
    assert "Of our own training: BrightPonyLongRetrieval, BrightPonyRetrieval" in caplog.text
