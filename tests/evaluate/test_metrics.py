from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys

import pytest

from reasonembed.errors import ConfigError
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


def test_ranx_agrees_on_random_runs() -> None:
    rng = random.Random(0)
    documents = [f"d{number}" for number in range(60)]
    qrels = {f"q{q}": {d: rng.randint(0, 3) for d in rng.sample(documents, 15)} | {"d0": 1} for q in range(20)}
    run = {f"q{q}": {d: rng.random() for d in rng.sample(documents, rng.randint(1, 40))} for q in range(20)}
    program = (
        "import json, sys\n"
        "from ranx import Qrels, Run, evaluate\n"
        "qrels, run = json.load(sys.stdin)\n"
        "values = evaluate(Qrels(qrels), Run(run), ['ndcg@10', 'recall@20'], return_mean=False)\n"
        "print(json.dumps([list(map(float, values[key])) for key in ('ndcg@10', 'recall@20')]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([qrels, run]),
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},  # compiling takes half a minute, computing nothing
        capture_output=True,
        text=True,
        check=True,
    )
    ndcg, recall = json.loads(done.stdout)
    ours = score(run, qrels, ["nDCG@10", "Recall@20"])
    assert [ours["nDCG@10"][query_id] for query_id in sorted(qrels)] == pytest.approx(ndcg)
    assert [ours["Recall@20"][query_id] for query_id in sorted(qrels)] == pytest.approx(recall)


def test_a_measure_that_we_do_not_know_is_refused_with_the_cure() -> None:
    for measure in ("MAP", "nDCG@0", "nDCG", "recall@10", "R@10"):
        with pytest.raises(ConfigError, match=r"write nDCG@10, Recall@100"):
            score({}, QRELS, [measure])
    assert cutoff("Recall@100") == 100
