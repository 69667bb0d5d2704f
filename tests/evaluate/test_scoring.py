from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reasonembed.beir import Collection
from reasonembed.cli.main import app
from reasonembed.errors import InputError
from reasonembed.evaluate.run import evaluate
from reasonembed.evaluate.run_files import open_run, read_qrels, read_run
from reasonembed.evaluate.scoring import score_files
from reasonembed.evaluate.search_results import read_search_results, write_search_results
from reasonembed.trec import write_trec_qrels, write_trec_run

RUN = {"q1": {"x": 3.0, "a": 2.0}, "q 2": {"c": 1.0}}
QRELS = {"q1": {"a": 1}, "q 2": {"c": 2, "d": 1}, "q3": {"a": 1}}
RELEASED = {
    "eval_name": "bright_short",
    "model_name": "reason-embed",
    "reranker_name": "NoReranker",
    "split": "examples",
    "dataset_name": "biology",
    "search_results": {"examples-q1": {"x": 3, "a": 2.0}, "examples-q 2": {"c": 1.0}},
}


@pytest.fixture
def released(tmp_path: Path) -> Path:
    path = tmp_path / "biology-examples.json"
    path.write_text(json.dumps(RELEASED, indent=4))
    return path


def beir_qrels(path: Path) -> Path:
    rows = [f"{q}\t{d}\t{grade}\n" for q, grades in QRELS.items() for d, grade in grades.items()]
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return path


def test_the_released_search_results_load_and_score(released: Path, tmp_path: Path) -> None:
    scores = score_files(released, beir_qrels(tmp_path / "test.tsv"), measures=["nDCG@10", "MRR"])
    half = 2 / (2 + 1 / math.log2(3))
    assert scores.per_query["nDCG@10"] == pytest.approx({"q1": 1 / math.log2(3), "q 2": half, "q3": 0})
    assert scores.per_query["MRR"] == {"q1": 0.5, "q 2": 1.0, "q3": 0.0}
    assert scores.mean["MRR"].mean == 0.5 and 0 <= scores.mean["MRR"].low < 0.5 < scores.mean["MRR"].high <= 1
    assert (scores.n_queries, scores.n_without_results, scores.n_unjudged) == (3, 1, 0)


def test_what_is_written_is_the_released_format_and_reads_back(tmp_path: Path) -> None:
    write_search_results(tmp_path / "r.json", RUN, model_name="m", dataset_name="biology")
    assert json.loads((tmp_path / "r.json").read_text()) == RELEASED | {"eval_name": "reasonembed", "model_name": "m"}
    assert read_run(tmp_path / "r.json") == RUN
    write_search_results(tmp_path / "g.json", RUN, model_name="m", dataset_name="biology", queries="gpt4_reason")
    assert list(read_search_results(tmp_path / "g.json").search_results) == ["gpt4_reason-q1", "gpt4_reason-q 2"]
    assert read_run(tmp_path / "g.json") == RUN
    with pytest.raises(InputError, match="query 'q', document 'd': score nan is not finite"):
        write_search_results(tmp_path / "n.json", {"q": {"d": math.nan}}, model_name="m", dataset_name="b")
    assert not (tmp_path / "n.json").exists()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"search_results": {"examples-1": {"d": math.nan}}}, r"broken JSON .*It holds NaN, which is no JSON"),
        ({"search_results": {"examples-1": {"d": None}}}, r"Expected `float`, got `null` - at `\$\.search_results"),
        ({"search_results": {"examples-1": {}, "2": {}}}, r"1 of 2 query ids begin with the split, 'examples-'"),
        ({"dataset_name": None}, r"got `null` - at `\$\.dataset_name`. Expected \{eval_name, model_name"),
    ],
)
def test_search_results_that_cannot_be_used_are_refused(released: Path, change: dict[str, Any], found: str) -> None:
    released.write_text(json.dumps(RELEASED | change))
    with pytest.raises(InputError, match=found):
        read_search_results(released)
    released.write_text(released.read_text()[:40])
    with pytest.raises(InputError, match="broken JSON"):
        read_search_results(released)


def test_trec_files_score_the_same(tmp_path: Path) -> None:
    run, qrels = ({name.replace(" ", "_"): of for name, of in rows.items()} for rows in (RUN, QRELS))
    write_trec_run(tmp_path / "run.trec", run)  # type: ignore[arg-type]
    write_trec_qrels(tmp_path / "qrels.txt", qrels)  # type: ignore[arg-type]
    scores = score_files(tmp_path / "run.trec", tmp_path / "qrels.txt", measures=["MRR"])
    assert scores.per_query["MRR"] == {"q1": 0.5, "q_2": 1.0, "q3": 0.0}


def test_queries_that_one_file_lacks_are_counted_and_none_in_common_is_refused(
    released: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    qrels = tmp_path / "qrels.txt"
    write_trec_qrels(qrels, {"q1": {"a": 1}, "q9": {"a": 1}})
    with caplog.at_level(logging.WARNING):
        scores = score_files(released, qrels)
    assert (scores.n_queries, scores.n_without_results, scores.n_unjudged) == (2, 1, 1)
    assert "1 of 2 queries have no ranking" in caplog.text and "1 queries of" in caplog.text
    write_trec_qrels(qrels, {"other": {"a": 1}})
    with pytest.raises(InputError, match="have no query in common: q1 against other"):
        score_files(released, qrels)
    write_trec_qrels(qrels, {"q1": {"a": 0}})
    with pytest.raises(InputError, match="no document has a grade above 0"):
        score_files(released, qrels)
    qrels.write_text("")
    with pytest.raises(InputError, match=r"qrels\.txt is empty"):
        read_qrels(qrels)
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\ta\t-1\n")
    with pytest.raises(InputError, match=r"qrels\.txt, line 2: the score is '-1'"):
        read_qrels(qrels)


def test_the_command_prints_points_and_queries_and_writes_json(released: Path, tmp_path: Path) -> None:
    qrels = beir_qrels(tmp_path / "test.tsv")
    out = tmp_path / "scores.json"
    done = CliRunner().invoke(app, ["score", str(released), str(qrels), "-M", "MRR", "--per-query", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "MRR\tq1\t0.5000\n" in done.stdout and "* 50.0" in done.stdout
    assert "1 queries without results score 0" in done.stdout
    assert json.loads(out.read_text())["per_query"] == {"MRR": {"q1": 0.5, "q 2": 1.0, "q3": 0.0}}


def test_search_results_are_judged_on_the_domain_that_they_name(
    collections: dict[str, Collection], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for domain, run in (("first", {"q1": {"a": 1.0, "gone": 2.0}}), ("second", {"q1": {"b": 9.0, "c": 1.0}, "q7": {}})):
        write_search_results(tmp_path / "runs" / f"{domain}-x.json", run, model_name="m", dataset_name=domain)
    with caplog.at_level(logging.INFO):
        judged = evaluate(open_run(tmp_path / "runs"), collections, measures=["MRR"])
    # first: "gone" is no document of the corpus, q2 has no ranking.  second: b is excluded.
    assert judged.scores["MRR"] == {("second", "q1"): 1.0, ("first", "q1"): 1.0, ("first", "q2"): 0.0}
    assert "no ranking for 1 of the 2 queries of first" in caplog.text
    assert "documents that the corpus of first lacks, for 1 of its queries" in caplog.text
    assert "1 queries of the run are not among those of second" in caplog.text


def test_a_run_of_another_domain_or_benchmark_is_refused(collections: dict[str, Collection], tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    write_search_results(path, {"q1": {"a": 1.0}}, model_name="m", dataset_name="first")
    with pytest.raises(InputError, match=r'no run for the domain "second", only for first.*--domains'):
        evaluate(open_run(path), collections)
    write_search_results(path, {"other": {"a": 1.0}}, model_name="m", dataset_name="first")
    with pytest.raises(InputError, match="have no id in common: other against q1"):
        evaluate(open_run(path), {"first": collections["first"]})
    write_trec_run(tmp_path / "first.trec", {"q1": {"a": 1.0}})
    with pytest.raises(InputError, match=r'one\.json: a second run for the domain "first"'):
        open_run(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run"):
        open_run(tmp_path / "empty")
