"""Law 1 at its source: candidates never hold a query's source or a near-copy; nothing is filled in."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from reasonembed import progress
from reasonembed.corpora import Reading, read_corpus
from reasonembed.domains import load_domain
from reasonembed.errors import DamageError
from reasonembed.pocket import pocket_folder
from reasonembed.records import Companion, Dropped
from reasonembed.remixer.config import MineConfig
from reasonembed.remixer.mine import keep_candidates, mine_candidates
from reasonembed.remixer.rankers import Rankers
from reasonembed.remixer.rows import Conditions, GeneratedQuery, MinedQuery

BIOLOGY = load_domain("biology")


def query(source_id: str, text: str) -> GeneratedQuery:
    return GeneratedQuery(f"{source_id}-q0", source_id, text, Conditions(conditioned=False))


def mined(queries, corpus, tmp_path, config=None, rankers=None) -> list[MinedQuery | Dropped]:
    rankers = rankers or Rankers(tmp_path / "cache")
    return list(mine_candidates(queries, corpus, BIOLOGY, config or MineConfig(), rankers=rankers, task=progress.task))


def test_the_source_and_its_copies_are_left_out_before_the_cut(corpus_of, tmp_path):
    text = "salt draws water out of the slug through its moist skin until the animal shrivels and dies"
    texts = {"source": text, "copy": text.upper(), "chunk": f"{text} as every gardener knows"}
    texts |= {f"other{n}": f"salt and slug number {n} in the garden" for n in range(5)}
    near = query("source", "why does salt draw water out of a slug through its moist skin until it shrivels")
    (row,) = mined([near], corpus_of(texts), tmp_path, MineConfig(top_k=5))
    assert row.copy_ids == ("chunk", "copy")
    assert {candidate.doc_id for candidate in row.candidates} == {f"other{n}" for n in range(5)}


def test_companions_and_their_copies_are_left_out_before_the_cut_too(corpus_of, tmp_path):
    text = "salt draws water out of the slug through its moist skin until the animal shrivels and dies"
    texts = {"source": "why salt and slug do not go together", "other source": text, "its copy": text.upper()}
    texts |= {f"other{n}": f"salt and slug number {n} in the garden" for n in range(5)}
    several = msgspec.structs.replace(query("source", "salt draws water from a slug"), companion_ids=("other source",))
    (row,) = mined([several], corpus_of(texts), tmp_path, MineConfig(top_k=5))
    assert (row.copy_ids, row.companions) == ((), (Companion("other source", ("its copy",)),))
    assert {candidate.doc_id for candidate in row.candidates} == {f"other{n}" for n in range(5)}


def test_candidates_come_best_first_and_short_lists_stay_short(corpus_of, tmp_path):
    texts = {
        "s": "the source of it all",
        "a": "slug slug salt",
        "b": "slug and many other words in here",
        "c": "price",
    }
    (row,) = mined([query("s", "slug salt")], corpus_of(texts), tmp_path)
    assert [candidate.doc_id for candidate in row.candidates] == ["a", "b"]
    assert row.candidates[0].score > row.candidates[1].score > 0


def test_a_query_without_any_candidate_is_dropped_with_the_reason(corpus_of, tmp_path):
    rows = mined([query("s", "slug")], corpus_of({"s": "slug salt", "a": "price demand"}), tmp_path)
    assert [(row.row_id, row.reason) for row in rows] == [("s-q0", "no_candidates")]


def test_keep_candidates_cuts_after_it_excludes():
    kept = keep_candidates({"a": 3.0, "b": 2.0, "c": 1.0}, excluded={"a"}, limit=1)
    assert [(one.doc_id, one.score) for one in kept] == [("b", 2.0)]


@pytest.mark.parametrize("retriever", ["dense", "fused"])
def test_a_dense_or_fused_retriever_ranks_everything_but_the_source(retriever: str, minilm_path, tmp_path):
    corpus = read_corpus(pocket_folder("biology"))
    config = MineConfig(retriever=retriever, model=str(minilm_path), instruction=False, max_tokens=64)
    source = corpus.ids[0]
    (row,) = mined([query(source, "why does salt kill a slug in the garden")], corpus, tmp_path, config)
    ids = [candidate.doc_id for candidate in row.candidates]
    assert sorted([*ids, source]) == sorted(corpus.ids)
    scores = [candidate.score for candidate in row.candidates]
    assert scores == sorted(scores, reverse=True)


def test_document_vectors_are_computed_once_and_kept_by_all_that_decides_them(minilm_path, tmp_path, corpus_of):
    config = MineConfig(retriever="dense", model=str(minilm_path), max_tokens=16)
    corpus = corpus_of({"s": "slug", "a": "salt and water", "b": "price and demand"})
    first = mined([query("s", "slug")], corpus, tmp_path, config)
    (path,) = (tmp_path / "cache").rglob("*.npy")
    written = path.stat().st_mtime_ns
    assert np.load(path).shape == (3, 384)
    assert mined([query("s", "slug")], corpus, tmp_path, config) == first
    assert path.stat().st_mtime_ns == written
    mined(
        [query("s", "slug")],
        corpus,
        tmp_path,
        MineConfig(retriever="dense", model=str(minilm_path), max_tokens=8),
    )
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_torn_vectors_are_named_with_the_cure(minilm_path, tmp_path, corpus_of):
    config = MineConfig(retriever="dense", model=str(minilm_path), max_tokens=16)
    corpus = corpus_of({"s": "slug", "a": "salt"})
    mined([query("s", "slug")], corpus, tmp_path, config)
    (path,) = (tmp_path / "cache").rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamageError, match="Delete it: it will be computed again"):
        mined([query("s", "slug")], corpus, tmp_path, config)


def test_the_instruction_goes_before_dense_queries(minilm_path, tmp_path, corpus_of):
    corpus = corpus_of({"s": "slug", "a": "salt and water", "b": "price and demand"})
    scores = {
        instruction: mined(
            [query("s", "slug")],
            corpus,
            tmp_path,
            MineConfig(retriever="dense", model=str(minilm_path), max_tokens=64, instruction=instruction),
        )
        for instruction in (True, False)
    }
    assert scores[True] != scores[False]


def test_domains_that_share_a_corpus_share_its_index(corpus_of, tmp_path, monkeypatch):
    from reasonembed.remixer import rankers as module

    built = []
    real = module.Bm25Index.build
    monkeypatch.setattr(module.Bm25Index, "build", lambda *a, **k: built.append(1) or real(*a, **k))
    corpus = corpus_of({"s": "slug", "a": "slug salt"})
    shared = Rankers(tmp_path)
    for _ in range(2):
        mined([query("s", "slug")], corpus, tmp_path, rankers=shared)
    assert len(built) == 1


def test_pieces_of_the_sources_file_that_overlap_it_are_left_out_and_others_are_not(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    sentences = [f"fact {number} about salt and the slug in garden {number * 7}." for number in range(18)]
    (folder / "a.md").write_text(" ".join(sentences))
    corpus = read_corpus(folder, Reading(chunk_chars=200, chunk_overlap=30))
    assert len(corpus) > 3
    (row,) = mined([query("a.md#0002", "salt slug")], corpus, tmp_path)
    assert row.copy_ids == ("a.md#0001", "a.md#0003")
    assert {candidate.doc_id for candidate in row.candidates} == set(corpus.ids[3:])


def test_pooled_retrievers_are_joined_by_best_rank_and_share_what_is_computed(minilm_path, tmp_path):
    corpus = read_corpus(pocket_folder("biology"))
    queries = [query(corpus.ids[0], "why does salt kill a slug in the garden")]
    rankers = Rankers(tmp_path / "cache")

    def ids(**keys) -> list[str]:
        config = MineConfig(instruction=False, max_tokens=32, top_k=10, **keys)
        (row,) = mined(queries, corpus, tmp_path, config, rankers)
        return [candidate.doc_id for candidate in row.candidates]

    bag, dense = ids(retriever="bm25"), ids(retriever="dense", model=str(minilm_path))
    pooled = ids(retriever="pooled", pool=("bm25", str(minilm_path)))
    assert bag[0] != dense[0]
    assert len(pooled) == 10 and set(pooled[:2]) == {bag[0], dense[0]}
    assert set(pooled) <= {*bag, *dense}
    assert pooled not in (bag, dense)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_up_to_a_thousand_candidates_are_kept(corpus_of, tmp_path):
    texts = {f"d{number:04}": f"salt and slug number {number} of many" for number in range(1100)}
    (row,) = mined([query("d0000", "salt slug")], corpus_of(texts), tmp_path, MineConfig(top_k=1000))
    assert len(row.candidates) == 1000


def test_vectors_pooled_in_another_way_are_other_vectors(minilm_path, tmp_path, corpus_of):
    import json
    import shutil

    other = tmp_path / "other"
    shutil.copytree(minilm_path, other)
    (path,) = other.glob("1_Pooling/config.json")
    config = json.loads(path.read_text())
    config |= {key: False for key in config if key.startswith("pooling_mode_")} | {"pooling_mode_cls_token": True}
    path.write_text(json.dumps(config))
    corpus = corpus_of({"s": "slug", "a": "salt and water", "b": "price and demand"})
    for model in (minilm_path, other):
        mined([query("s", "slug")], corpus, tmp_path, MineConfig(retriever="dense", model=str(model), max_tokens=16))
    one, two = (np.load(path) for path in (tmp_path / "cache").glob("vectors-*/*.npy"))
    assert not np.allclose(one, two)
