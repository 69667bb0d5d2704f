from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys

import pytest

from reasonembed.errors import ConfigError, InputError
from reasonembed.evaluate.metrics import cutoff, score

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"d": 1}}


def test_ndcg_is_trec_evals_with_the_grade_as_gain() -> None:
    run = {"q1": {"x": 9.0, "a": 8.0, "b": 7.0}}
    gained = 2 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert score(run, QRELS, ["nDCG@10"])["nDCG@10"]["q1"] == pytest.approx(gained / ideal)


def test_the_cut_is_at_ten_and_ties_go_to_the_greater_id() -> None:
    eleven = {f"x{number:02}": 1.0 for number in range(10)}
    assert score({"q2": {**eleven, "d": 1.0}}, QRELS)["nDCG@10"]["q2"] == 0  # x.. are all greater than d
    assert score({"q2": {**dict(list(eleven.items())[:9]), "d": 1.0}}, QRELS)["nDCG@10"]["q2"] == pytest.approx(
        1 / math.log2(11)
    )


def test_recall_counts_every_grade_of_1_or_more_alike() -> None:
    values = score({"q1": {"b": 3.0, "c": 2.0, "a": 1.0}}, QRELS, ["Recall@1", "Recall@2", "Recall@100"])
    assert [values[f"Recall@{k}"]["q1"] for k in (1, 2, 100)] == [0.5, 0.5, 1.0]


def test_a_query_without_results_scores_0_and_is_counted() -> None:
    for run in ({}, {"q1": {}}, {"unjudged": {"a": 1.0}}):
        assert score(run, QRELS) == {"nDCG@10": {"q1": 0, "q2": 0}, "Recall@10": {"q1": 0, "q2": 0}}


def test_the_queries_come_in_the_order_of_the_qrels() -> None:
    qrels = {"z": {"a": 1}, "b": {"a": 1}, "m": {"a": 1}}
    assert list(score({"m": {"a": 1.0}, "z": {"a": 1.0}}, qrels)["nDCG@10"]) == ["z", "b", "m"]


def test_a_query_without_a_relevant_document_scores_0() -> None:
    assert score({"q": {"a": 1.0}}, {"q": {"a": 0}}) == {"nDCG@10": {"q": 0}, "Recall@10": {"q": 0}}


def test_ranx_agrees_on_thousands_of_random_runs() -> None:
    """Each query is a run of its own: of any length, with any share of its judged documents, without ties."""
    rng = random.Random(0)
    documents = [f"d{number}" for number in range(60)]
    ids = [f"q{number:04}" for number in range(2000)]
    qrels = {q: {d: rng.randint(0, 3) for d in rng.sample(documents, rng.randint(1, 8))} | {"d0": 1} for q in ids}
    run = {q: {d: rng.random() for d in rng.sample(documents, rng.randint(1, 20))} for q in ids}
    theirs = {"nDCG@10": "ndcg@10", "Recall@20": "recall@20", "MAP": "map", "MRR": "mrr", "MRR@10": "mrr@10"}
    program = (
        "import json, sys\n"
        "from ranx import Qrels, Run, evaluate\n"
        "qrels, run, names = json.load(sys.stdin)\n"
        "values = evaluate(Qrels(qrels), Run(run), names, return_mean=False)\n"
        "print(json.dumps([list(map(float, values[name])) for name in names]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([qrels, run, list(theirs.values())]),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},  # compiling takes half a minute, computing nothing
        capture_output=True,
        text=True,
        check=True,
    )
    ours = score(run, qrels, list(theirs))
    for measure, values in zip(theirs, json.loads(done.stdout), strict=True):
        assert [ours[measure][query_id] for query_id in ids] == pytest.approx(values, abs=1e-9), measure


def test_a_measure_that_we_do_not_know_is_refused_with_the_cure() -> None:
    for measure in ("MAP@10", "nDCG@0", "nDCG", "recall@10", "R@10", "RR", "map"):
        with pytest.raises(ConfigError, match=r"write nDCG@10, Recall@100, MAP, MRR"):
            score({}, QRELS, [measure])
    assert (cutoff("Recall@100"), cutoff("MRR@10"), cutoff("MRR"), cutoff("MAP")) == (100, 10, None, None)


def test_map_and_mrr_are_worked_out_by_hand_with_ties_and_cuts() -> None:
    qrels = {"q": {"a": 1, "b": 2, "lost": 1}}
    run = {"q": {"x": 3.0, "a": 2.0, "y": 2.0, "b": 1.0}}  # y and a tie: x, y, a, b
    values = score(run, qrels, ["MAP", "MRR", "MRR@2", "MRR@3", "nDCG@3", "Recall@3", "Recall@4"])
    assert {measure: of_query["q"] for measure, of_query in values.items()} == pytest.approx(
        {
            "MAP": (1 / 3 + 2 / 4) / 3,
            "MRR": 1 / 3,
            "MRR@2": 0,
            "MRR@3": 1 / 3,
            "nDCG@3": (1 / math.log2(4)) / (2 + 1 / math.log2(3) + 1 / math.log2(4)),
            "Recall@3": 1 / 3,
            "Recall@4": 2 / 3,
        }
    )


def test_scores_that_are_equal_as_float32_tie_and_the_greater_id_comes_first() -> None:
    for qrels, expected in (({"q": {"a": 1}}, 0.5), ({"q": {"b": 1}}, 1.0)):
        run = {"q": {"a": 1.0 + 1e-9, "b": 1.0}}  # 1e-9 is lost in float32
        assert score(run, qrels, ["MRR", "MRR@5"]) == {"MRR": {"q": expected}, "MRR@5": {"q": expected}}
        far = {"q": {"a": 1.0 + 1e-6, "b": 1.0}}
        assert score(far, qrels, ["MRR"])["MRR"]["q"] == 1.5 - expected


def test_cutting_a_run_before_trec_eval_sees_it_changes_nothing() -> None:
    import pytrec_eval

    rng = random.Random(1)
    documents = [f"d{number}" for number in range(80)]
    qrels = {f"q{q}": {d: rng.randint(0, 2) for d in rng.sample(documents, 20)} for q in range(200)}
    run = {query_id: {d: float(rng.randint(0, 8)) for d in rng.sample(documents, 60)} for query_id in qrels}
    whole = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut_5", "recall_20", "map"}).evaluate(run)
    ours = score(run, qrels, ["nDCG@5", "Recall@20", "MAP"])
    for key, measure in (("ndcg_cut_5", "nDCG@5"), ("recall_20", "Recall@20"), ("map", "MAP")):
        assert ours[measure] == {query_id: values[key] for query_id, values in whole.items()}


def test_a_score_that_is_not_a_number_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"query 'q1', document 'b': the score is not a number \(NaN\).*float32"):
        score({"q1": {"a": 1.0, "b": math.nan}}, QRELS)
