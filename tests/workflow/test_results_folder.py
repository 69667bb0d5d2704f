"""A results folder: what lies in it, and that a reader of each file finds what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reasonembed.beir import Collection
from reasonembed.corpora import Corpus
from reasonembed.evaluate.report import ReportData
from reasonembed.records import Document, Query
from reasonembed.search.systems import Bm25System, RunSystem, System
from reasonembed.trec import read_trec_run
from reasonembed.workflow.judging import Judgment, judge, plain_report, write_judgment


def collection(name: str, queries: Mapping[str, str], qrels: dict[str, dict[str, int]]) -> Collection:
    texts = {"a": "red fish", "b": "blue fish", "c": "green tree", "d": "blue river"}
    corpus = Corpus({d: Document(d, text) for d, text in texts.items()}, origin="test", sha256="c" * 64)
    return Collection(name=name, corpus=corpus, queries={q: Query(q, text) for q, text in queries.items()}, qrels=qrels)


COLLECTIONS = {
    "pony": collection("pony", {"1": "red fish", "2": "green tree"}, {"1": {"a": 1}, "2": {"c": 1}}),
    "biology": collection("biology", {"1": "what is blue"}, {"1": {"d": 1}}),
}


def fixed(name: str, run: dict[str, dict[str, float]]) -> System:
    return RunSystem(run, name=name)


def worst() -> System:
    return fixed("worst", {"1": {"c": 1.0}, "2": {"a": 1.0}})


@pytest.fixture(scope="module")
def judgment() -> Judgment:
    systems = {"bm25": Bm25System, "org/a model": worst, "seeds": [Bm25System, worst]}
    return judge(systems, COLLECTIONS, base="bm25", measures=["nDCG@10", "Recall@10"], benchmark="bright")


@pytest.fixture(scope="module")
def folder(judgment: Judgment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    write_judgment(folder, judgment, plain_report(judgment, title="A title", seconds=1.0))
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


LABELS = ["bm25", "org_a_model", "seeds-seed0", "seeds-seed1"]


def test_the_folder_holds_every_file_under_names_that_are_safe(folder: Path) -> None:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    tasks = ("BrightBiologyRetrieval", "BrightPonyRetrieval")
    assert files == sorted(
        ["results.json", "protocol.json", "per_query.jsonl", "report.md", "report.html"]
        + [f"runs/{label}/{domain}.trec" for label in LABELS for domain in COLLECTIONS]
        + [f"search_results/{label}/{domain}.json" for label in LABELS for domain in COLLECTIONS]
        + [f"mteb/{label}/{task}.json" for label in LABELS for task in tasks]
    )
    assert read_trec_run(folder / "runs/org_a_model/pony.trec") == {"1": {"c": 1.0}, "2": {"a": 1.0}}


def test_the_results_keep_their_layout_and_gain_the_corrected_p(folder: Path, judgment: Judgment) -> None:
    results = read(folder / "results.json")
    assert results == judgment.results and list(results) == ["bm25", "org/a model", "seeds"]
    cell = results["org/a model"]["nDCG@10"]
    assert list(cell) == ["mean", "low", "high", "per_domain", "vs_base"]
    assert list(cell["vs_base"]) == ["difference", "low", "high", "p", "p_holm"]
    assert cell["vs_base"]["p_holm"] >= cell["vs_base"]["p"]
    assert results["bm25"]["nDCG@10"]["vs_base"]["p_holm"] == 1.0


def test_without_the_correction_a_comparison_has_its_four_figures() -> None:
    found = judge({"bm25": Bm25System, "worst": worst}, COLLECTIONS, base="bm25", holm=False)
    assert set(found.results["worst"]["nDCG@10"]["vs_base"]) == {"difference", "low", "high", "p"}


def test_every_evaluation_has_its_protocol_as_data(folder: Path) -> None:
    protocols = read(folder / "protocol.json")
    assert list(protocols) == LABELS
    assert protocols["bm25"]["search"].startswith("bag-of-words BM25") and protocols["bm25"]["n_queries"] == 3
    assert protocols["org_a_model"]["search"] == "as in the run file"


def test_the_scores_of_every_query_can_be_read_line_by_line(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "per_query.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["domain"], row["query_id"]) for row in rows] == [("pony", "1"), ("pony", "2"), ("biology", "1")]
    assert rows[0]["scores"]["nDCG@10"] == {"bm25": 1.0, "org/a model": 0.0, "seeds": 0.5}
    assert rows[1]["scores"]["Recall@10"] == {"bm25": 1.0, "org/a model": 0.0, "seeds": 0.5}


def test_both_reports_say_the_same(folder: Path) -> None:
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text(encoding="utf-8").replace("\\", "").replace("<wbr>", "")
        for said in (
            "A title",
            "Hardware",
            "Beside published figures",
            "nothing was excluded",
            "green tree",
            "p, Holm",
        ):
            assert said in text, (name, said)


def test_one_system_or_no_base_is_reported_without_a_comparison(tmp_path: Path) -> None:
    alone = judge({"bm25": Bm25System}, COLLECTIONS, benchmark="mine")
    write_judgment(tmp_path, alone, ReportData(title="t", results=alone.results))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Query by query" not in text and "published" not in text and "mean over domains" in text


def test_equal_judgments_give_equal_bytes(judgment: Judgment, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_judgment(tmp_path / name, judgment, ReportData(title="t", results=judgment.results, base="bm25"))
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    )
    assert one == two and len(one) == 21 + len(LABELS) * len(COLLECTIONS)
