from __future__ import annotations

from typing import Any

import pytest

from reasonembed.corpora import Corpus
from reasonembed.errors import ConfigError
from reasonembed.search.combined import FusedSystem
from reasonembed.search.fuse import reciprocal_rank_fusion
from reasonembed.search.systems import Bm25System, DenseSystem, RunSystem

QUERIES = {"q1": "water through a membrane", "q2": "shortest paths"}


@pytest.mark.parametrize("weighting", ["bag", "query"])
def test_bm25_ranks_titles_and_texts(corpus: Corpus, weighting: Any) -> None:
    run = Bm25System(weighting).index(corpus).search({**QUERIES, "title": "Dijkstra"}, k=1)
    assert {query_id: list(ranking) for query_id, ranking in run.items()} == {
        "q1": ["osmosis"],
        "q2": ["dijkstra"],
        "title": ["dijkstra"],
    }


def test_a_dense_system_ranks_by_the_vectors_of_its_encoder(corpus: Corpus, encoder: Any) -> None:
    run = DenseSystem(encoder).index(corpus).search(QUERIES, excluded={"q1": {"osmosis"}})
    vectors = encoder.encode([document.content for document in corpus])
    for query_id, text in QUERIES.items():
        scores = vectors @ encoder.encode([text])[0]
        expected = dict(zip(corpus.ids, scores.tolist(), strict=True))
        if query_id == "q1":
            del expected["osmosis"]
        assert run[query_id] == pytest.approx(expected, abs=1e-6)


def test_queries_carry_the_instruction_of_their_domain_and_documents_stay_bare(corpus: Corpus, encoder: Any) -> None:
    system = DenseSystem(encoder, instructions={"biology": "Given a Biology post, retrieve."}, max_tokens=64)
    system.index(corpus).search(QUERIES, domain="biology")
    (documents, bare, limit), (queries, prompt, query_limit) = encoder.asked
    assert (documents[0], bare, limit) == (corpus["osmosis"].content, "", 64)
    assert (queries, query_limit) == (list(QUERIES.values()), 64)
    assert prompt == "Instruct: Given a Biology post, retrieve.\nQuery: "
    with pytest.raises(ConfigError, match='no instruction for the domain "pony", only for biology'):
        system.index(corpus).search(QUERIES, domain="pony")


def test_without_an_instruction_queries_are_bare(corpus: Corpus, encoder: Any) -> None:
    DenseSystem(encoder).index(corpus).search(QUERIES)
    assert encoder.asked[1] == (list(QUERIES.values()), "", None)


def test_a_models_own_prompt_for_the_domain_goes_before_its_general_one(corpus: Corpus, encoder: Any) -> None:
    system = DenseSystem(encoder, instructions="Not used.", own_prompts=True)
    assert (system.prompt("biology"), system.setting("biology").instruction) == ("", "")
    encoder.prompts = {"query": "query: ", "pony": "In Pony: ", "document": "never: "}
    index = system.index(corpus)
    for domain in ("biology", "pony"):
        index.search(QUERIES, domain=domain)
    assert [prompt for _, prompt, _ in encoder.asked] == ["", "query: ", "In Pony: "]


def test_a_run_made_elsewhere_is_cut_like_any_other(corpus: Corpus, caplog: pytest.LogCaptureFixture) -> None:
    ranked = {"q1": {"tides": 3.0, "kin": 2.0, "of another corpus": 9.0, "osmosis": 1.0}}
    found = RunSystem(ranked, name="theirs").index(corpus).search(QUERIES, k=2, excluded={"q1": {"tides"}})
    assert {query_id: list(ranking) for query_id, ranking in found.items()} == {
        "q1": ["kin", "osmosis"],
        "q2": [],
    }
    assert "no ranking for 1 of the 2 queries" in caplog.text


def test_no_queries_need_no_model(corpus: Corpus, encoder: Any) -> None:
    assert DenseSystem(encoder).index(corpus).search({}) == {}


def test_a_fused_system_is_the_fusion_of_its_parts(corpus: Corpus, encoder: Any) -> None:
    parts = [Bm25System(), DenseSystem(encoder)]
    runs = [part.index(corpus).search(QUERIES, k=1000, excluded={"q2": {"tides"}}) for part in parts]
    fused = FusedSystem(parts).index(corpus).search(QUERIES, k=3, excluded={"q2": {"tides"}})
    assert fused == reciprocal_rank_fusion(runs, k=3)
    assert "tides" not in fused["q2"]


def test_each_system_says_what_it_does(encoder: Any) -> None:
    bm25, dense = Bm25System("query"), DenseSystem(encoder, name="mine", instructions="Find it.")
    assert (bm25.name, dense.name) == ("bm25q", "mine")
    assert bm25.setting("biology").search == "query-side BM25 (k1 0.9, b 0.4, analyser en)"
    setting = dense.setting("biology")
    assert (setting.model, setting.search, setting.instruction) == (
        "hashing",
        "exact, inner product",
        "Find it.",
    )
    assert (setting.max_tokens, setting.dtype) == (256, "float32")
    fused = FusedSystem([bm25, dense]).setting("biology")
    assert fused.model == "bm25q + hashing"
    assert fused.max_tokens == 256


def test_what_cannot_rank_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'"both".*bag, query'):
        Bm25System("both")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="nothing to fuse"):
        FusedSystem([])
