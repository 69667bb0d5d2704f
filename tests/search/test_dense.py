from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reasonembed.errors import InputError
from reasonembed.records import Run
from reasonembed.search.dense import search_vectors
from reasonembed.search.ranking import best_first


def unit(rng: np.random.Generator, rows: int, dimension: int = 32) -> np.ndarray:
    vectors = rng.standard_normal((rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def brute_force(
    queries: np.ndarray, documents: np.ndarray, doc_ids: list[str], k: int, excluded: dict[str, set[str]]
) -> Run:
    """All products in float64, all documents sorted."""
    scores = (queries.astype(np.float64) @ documents.astype(np.float64).T).astype(np.float32)
    run = {}
    for row, query_id in enumerate(names("q", len(queries))):
        allowed = {d: float(s) for d, s in zip(doc_ids, scores[row], strict=True)}
        allowed = {d: s for d, s in allowed.items() if d not in excluded.get(query_id, ())}
        run[query_id] = {d: allowed[d] for d in best_first(allowed)[:k]}
    return run


@pytest.mark.parametrize("block_bytes", [1, 32 * 4 * 60, 1 << 20])
def test_the_ranking_is_that_of_brute_force_whatever_the_block(block_bytes: int) -> None:
    rng = np.random.default_rng(0)
    queries, documents = unit(rng, 30), unit(rng, 101)
    doc_ids = names("d", 101)
    excluded = {"q3": set(names("d", 50)), "q4": {"d7"}, "q9": set(doc_ids[:95])}
    found = search_vectors(
        queries,
        documents,
        query_ids=names("q", 30),
        doc_ids=doc_ids,
        k=10,
        excluded=excluded,
        block_bytes=block_bytes,
    )
    expected = brute_force(queries, documents, doc_ids, 10, excluded)
    assert {q: list(ranking) for q, ranking in found.items()} == {q: list(r) for q, r in expected.items()}
    for query_id, ranking in found.items():
        assert list(ranking.values()) == pytest.approx(list(expected[query_id].values()), abs=1e-6)
    assert len(found["q9"]) == 6


def test_many_ties_at_the_cut_go_to_the_greater_ids_whatever_the_order() -> None:
    rng = np.random.default_rng(1)
    distinct = unit(rng, 5, 37)
    documents = np.repeat(distinct, 60, axis=0)  # each vector sixty times
    doc_ids = [f"d{number:03}" for number in range(300)]
    queries = unit(rng, 8, 37)
    runs = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(300)
        runs.append(
            search_vectors(
                queries,
                documents[order],
                query_ids=names("q", 8),
                doc_ids=[doc_ids[row] for row in order],
                k=10,
                block_bytes=37 * 4 * (7 + 40 * seed),
            )
        )
    first = {query_id: list(ranking.items()) for query_id, ranking in runs[0].items()}
    assert all({q: list(r.items()) for q, r in run.items()} == first for run in runs)
    best = int(np.argmax(queries[0] @ distinct.T))
    assert list(runs[0]["q0"]) == doc_ids[60 * best + 59 : 60 * best + 49 : -1]


def test_a_memory_mapped_half_precision_file_is_searched_as_it_lies(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    queries, documents = unit(rng, 4), unit(rng, 100).astype(np.float16)
    np.save(tmp_path / "vectors.npy", documents)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    ids = {"query_ids": names("q", 4), "doc_ids": names("d", 100)}
    assert search_vectors(queries, mapped, k=5, block_bytes=2000, **ids) == search_vectors(
        queries, documents.astype(np.float32), k=5, **ids
    )


def test_fewer_documents_than_asked_for_are_all_ranked() -> None:
    rng = np.random.default_rng(3)
    run = search_vectors(unit(rng, 1), unit(rng, 3), query_ids=["q0"], doc_ids=["a", "b", "c"], k=100)
    assert sorted(run["q0"]) == ["a", "b", "c"]
    assert list(run["q0"].values()) == sorted(run["q0"].values(), reverse=True)


def test_no_queries_and_no_documents_give_empty_rankings() -> None:
    empty, one = np.zeros((0, 4), np.float32), np.ones((1, 4), np.float32)
    assert search_vectors(empty, one, query_ids=[], doc_ids=["a"]) == {}
    assert search_vectors(one, empty, query_ids=["q"], doc_ids=[]) == {"q": {}}


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_is_named(broken: float) -> None:
    vectors = np.ones((5, 4), np.float32)
    damaged = vectors.copy()
    damaged[3, 1] = broken
    ids = names("x", 5)
    with pytest.raises(InputError, match="document 'x3' is not finite"):
        search_vectors(vectors, damaged, query_ids=ids, doc_ids=ids, k=2, block_bytes=16)
    with pytest.raises(InputError, match="query 'x3' is not finite"):
        search_vectors(damaged, vectors, query_ids=ids, doc_ids=ids, k=2)


def test_shapes_that_do_not_fit_are_refused() -> None:
    ones = np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match="1 query ids for 2 vectors"):
        search_vectors(ones, ones, query_ids=["a"], doc_ids=["a", "b"])
    with pytest.raises(ValueError, match="shape"):
        search_vectors(ones, np.ones((2, 5), np.float32), query_ids=["a", "b"], doc_ids=["a", "b"])
