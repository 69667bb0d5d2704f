from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from reasonembed.beir import Collection
from reasonembed.corpora import Corpus
from reasonembed.errors import ConfigError, InputError
from reasonembed.evaluate.run import Bm25System, Evaluation, domain_intervals, evaluate, results_table, with_holm
from reasonembed.records import Run
from reasonembed.search.systems import Index, Setting


class Recording:
    """BM25 that keeps what it was asked."""

    name = "recording"

    def __init__(self) -> None:
        self.indexed: list[Corpus] = []
        self.searched: list[tuple[str, dict[str, str], int, Any]] = []
        self.index_of_bm25: Index | None = None

    def index(self, corpus: Corpus) -> Recording:
        self.indexed.append(corpus)
        self.index_of_bm25 = Bm25System().index(corpus)
        return self

    def search(self, queries: Mapping[str, str], *, domain: str = "", k: int = 100, excluded: Any = None) -> Run:
        self.searched.append((domain, dict(queries), k, excluded))
        assert self.index_of_bm25 is not None
        return self.index_of_bm25.search(queries, domain=domain, k=k, excluded=excluded)

    def setting(self, domain: str) -> Setting:
        return Setting(model="m", search="exact", instruction=f"For {domain}.", max_tokens=512, dtype="float32")


def test_scores_are_averaged_over_queries_then_over_domains(collections: dict[str, Collection]) -> None:
    evaluation = evaluate(Bm25System(), collections)
    # first: "fish" ranks b before a (equal scores, greater id), "quasar" finds nothing.
    assert evaluation.runs["first"]["q1"].keys() == {"b", "a"}
    assert evaluation.runs["first"]["q2"] == {}
    assert list(evaluation.runs["second"]["q1"]) == ["d"]
    assert evaluation.scores["Recall@10"] == {
        ("second", "q1"): 0.5,
        ("first", "q1"): 1.0,
        ("first", "q2"): 0.0,
    }
    assert evaluation.scores["nDCG@10"]["first", "q1"] == pytest.approx(0.6309, abs=1e-4)
    assert evaluation.per_domain["Recall@10"] == {"second": 0.5, "first": 0.5}
    assert evaluation.mean["Recall@10"].mean == 0.5
    assert evaluation.mean["Recall@10"].low <= 0.5 <= evaluation.mean["Recall@10"].high


def test_a_corpus_that_domains_share_is_indexed_once(collections: dict[str, Collection]) -> None:
    system = Recording()
    evaluate(system, collections, k=50)
    assert len(system.indexed) == 1
    assert {domain: (k, excluded) for domain, _, k, excluded in system.searched} == {
        "first": (50, {}),
        "second": (50, {"q1": frozenset({"b"})}),
    }


def test_reasoning_queries_take_the_place_of_the_original_ones(collections: dict[str, Collection]) -> None:
    system = Recording()
    evaluation = evaluate(system, collections, queries="reasoning")
    assert {domain: texts for domain, texts, _, _ in system.searched} == {
        "first": {"q1": "tree", "q2": "river"},
        "second": {"q1": "green tree"},
    }
    assert evaluation.protocol.queries == "reasoning"


def test_a_missing_reasoning_query_is_named(collections: dict[str, Collection]) -> None:
    first = collections["first"]
    bare = msgspec.structs.replace(
        first,
        queries={q: msgspec.structs.replace(query, reasoning_query="") for q, query in first.queries.items()},
    )
    with pytest.raises(InputError, match=r"first: the query 'q1' has no reasoning_query"):
        evaluate(Bm25System(), {"first": bare}, queries="reasoning")


def test_an_evaluation_carries_its_protocol(collections: dict[str, Collection]) -> None:
    protocol = evaluate(Recording(), collections, k=20, measures=["nDCG@10"], benchmark="tiny").protocol
    assert (protocol.benchmark, protocol.n_domains, protocol.n_queries, protocol.n_excluded) == (
        "tiny",
        2,
        3,
        1,
    )
    assert protocol.instructions == {"second": "For second.", "first": "For first."}
    assert (protocol.depth, protocol.measures, protocol.max_tokens) == (20, ("nDCG@10",), 512)
    changed = {**collections, "second": msgspec.structs.replace(collections["second"], excluded={})}
    assert evaluate(Recording(), changed).protocol.revision != protocol.revision


def test_what_cannot_be_evaluated_is_refused(collections: dict[str, Collection]) -> None:
    with pytest.raises(InputError, match="at least one collection"):
        evaluate(Bm25System(), {})
    with pytest.raises(ConfigError, match="Recall@100 looks at more documents than are kept"):
        evaluate(Bm25System(), collections, measures=["Recall@100"], k=10)
    with pytest.raises(ConfigError, match="at least one measure"):
        evaluate(Bm25System(), collections, measures=[])
    with pytest.raises(ConfigError, match="original, reasoning"):
        evaluate(Bm25System(), collections, queries="rewritten")  # type: ignore[arg-type]


def with_scores(evaluation: Evaluation, change: float) -> Evaluation:
    scores = {m: {key: value + change for key, value in of.items()} for m, of in evaluation.scores.items()}
    return msgspec.structs.replace(evaluation, scores=scores)


def test_the_table_has_the_shape_of_results_json(collections: dict[str, Collection]) -> None:
    base = evaluate(Bm25System(), collections)
    table = results_table({"base": base, "better": with_scores(base, 0.1)})
    assert json.loads(json.dumps(table)) == table
    cell = table["better"]["nDCG@10"]
    assert list(cell) == ["mean", "low", "high", "per_domain", "vs_base"]
    assert list(cell["per_domain"]) == ["second", "first"]
    assert cell["mean"] == pytest.approx(table["base"]["nDCG@10"]["mean"] + 0.1)
    assert cell["low"] <= cell["mean"] <= cell["high"]
    assert cell["vs_base"]["difference"] == pytest.approx(0.1)
    assert cell["vs_base"]["low"] == pytest.approx(0.1) == cell["vs_base"]["high"]
    assert table["base"]["Recall@10"]["vs_base"] == {"difference": 0, "low": 0, "high": 0, "p": 1}
    assert "vs_base" not in results_table({"one": base}, base=None)["one"]["nDCG@10"]


def test_seeds_of_a_system_are_averaged_per_query_first(collections: dict[str, Collection]) -> None:
    base = evaluate(Bm25System(), collections)
    seeds = [with_scores(base, change) for change in (-0.1, 0.1, 0.3)]
    cell = results_table({"base": base, "trained": seeds})["trained"]["nDCG@10"]
    assert cell["mean"] == pytest.approx(base.mean["nDCG@10"].mean + 0.1)
    assert cell["vs_base"]["low"] == pytest.approx(0.1)


def test_systems_judged_on_other_queries_are_not_compared(collections: dict[str, Collection]) -> None:
    whole = evaluate(Bm25System(), collections)
    part = evaluate(Bm25System(), {"first": collections["first"]})
    with pytest.raises(ValueError, match="other queries than the base"):
        results_table({"base": whole, "part": part})
    with pytest.raises(ValueError, match="same queries"):
        results_table({"base": [whole, part]})
    with pytest.raises(ValueError, match="'base' is not among the systems: part"):
        results_table({"part": part})


def test_a_rewrite_is_searched_with_under_its_name_and_must_cover_every_query(
    collections: dict[str, Collection],
) -> None:
    first = msgspec.structs.replace(collections["first"], rewrites={"gpt4_reason": {"q1": "tree", "q2": "river"}})
    judged = evaluate(Bm25System(), {"first": first}, queries="gpt4_reason", k=10)
    assert judged.runs["first"]["q2"].keys() == {"d"} and judged.protocol.queries == "gpt4_reason"
    partial = msgspec.structs.replace(first, rewrites={"gpt4_reason": {"q1": "tree", "q2": " "}})
    with pytest.raises(InputError, match="lack 1 of 2 queries, the first is 'q2'"):
        evaluate(Bm25System(), {"first": partial}, queries="gpt4_reason", k=10)


def test_holm_corrects_over_the_systems_of_one_measure_and_leaves_the_rest_alone() -> None:
    def cell(p: float) -> dict[str, Any]:
        return {"mean": 0.5, "vs_base": {"difference": 0.1, "low": 0.0, "high": 0.2, "p": p}}

    table = {
        "base": {"nDCG@10": cell(1.0), "MAP": cell(1.0)},
        "one": {"nDCG@10": cell(0.01), "MAP": cell(0.3)},
        "two": {"nDCG@10": cell(0.04), "MAP": cell(0.2)},
        "three": {"nDCG@10": cell(0.03), "MAP": cell(0.9)},
    }
    corrected = with_holm(table, base="base")
    p_holm = {name: {m: c["vs_base"].pop("p_holm") for m, c in cells.items()} for name, cells in corrected.items()}
    assert corrected == table
    assert {name: p["nDCG@10"] for name, p in p_holm.items()} == pytest.approx(
        {"base": 1.0, "one": 0.03, "two": 0.06, "three": 0.06}
    )
    assert {name: p["MAP"] for name, p in p_holm.items()} == pytest.approx(
        {"base": 1.0, "one": 0.6, "two": 0.6, "three": 0.9}
    )


def test_each_domain_has_its_own_interval() -> None:
    found = domain_intervals({("x", "q1"): 0.0, ("y", "q1"): 0.5, ("x", "q2"): 1.0})
    assert list(found) == ["x", "y"]
    assert (found["x"].low, found["x"].mean, found["x"].high) == (0.0, 0.5, 1.0)
    assert (found["y"].low, found["y"].mean, found["y"].high) == (0.5, 0.5, 0.5)
