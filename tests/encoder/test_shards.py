"""Vectors on the disk: what was encoded stays, what is damaged is named, and shards search as one array does."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from reasonembed.corpora import Corpus
from reasonembed.encoder.shards import VectorCache, Vectors
from reasonembed.errors import DamageError, WorkspaceBusy
from reasonembed.records import Document
from reasonembed.search.dense import search_vectors
from reasonembed.workspace import Workspace


class CountingEncoder:
    """A vector from a hash of the text; `encoded` lists what it was asked, and `stop_at` ends it like a kill."""

    max_tokens, dtype, dimension = 256, "float32", 8

    def __init__(self, stop_at: str = "") -> None:
        self.encoded: list[str] = []
        self.stop_at = stop_at

    def encode(self, texts: Sequence[str], *, prompt: str = "", max_tokens: int | None = None) -> np.ndarray:
        if self.stop_at in texts:
            raise KeyboardInterrupt
        self.encoded += texts
        rows = [np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32) for text in texts]
        vectors = np.array(rows, dtype=np.float32) / 2**31 - 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def corpus_of(count: int, sha256: str = "a" * 64) -> Corpus:
    documents = {f"d{number:02}": Document(f"d{number:02}", f"text {number}") for number in range(count)}
    return Corpus(documents, origin="test", sha256=sha256)


def cache_in(folder: Path, **more: object) -> VectorCache:
    return VectorCache(folder, {"weights": "w"}, shard_rows=4, **more)  # type: ignore[arg-type]


def test_a_stopped_encoding_goes_on_at_the_last_whole_shard(tmp_path: Path) -> None:
    corpus = corpus_of(11)
    stopped = CountingEncoder(stop_at="text 9")
    with pytest.raises(KeyboardInterrupt):
        cache_in(tmp_path).document_vectors(stopped, corpus)
    assert len(stopped.encoded) == 8
    going_on = CountingEncoder()
    vectors = cache_in(tmp_path).document_vectors(going_on, corpus)
    assert going_on.encoded == ["text 8", "text 9", "text 10"]
    expected = CountingEncoder().encode([document.content for document in corpus])
    np.testing.assert_array_equal(vectors[:], expected)
    again = CountingEncoder()
    cache_in(tmp_path).document_vectors(again, corpus)
    assert again.encoded == []


def test_whatever_decides_the_vectors_gives_them_a_place_of_their_own(tmp_path: Path) -> None:
    corpus = corpus_of(3)
    cache_in(tmp_path).document_vectors(CountingEncoder(), corpus)
    half = CountingEncoder()
    half.dtype = "bfloat16"
    cache_in(tmp_path).document_vectors(half, corpus)
    cache_in(tmp_path).document_vectors(CountingEncoder(), corpus, max_tokens=16)
    cache_in(tmp_path).document_vectors(CountingEncoder(), corpus_of(3, sha256="b" * 64))
    cache_in(tmp_path, kept_as="float16").document_vectors(CountingEncoder(), corpus)
    VectorCache(tmp_path, {"weights": "other"}).document_vectors(CountingEncoder(), corpus)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("keep", [0, 50, -1])
def test_a_truncated_shard_is_named_and_its_deletion_is_the_cure(tmp_path: Path, keep: int) -> None:
    corpus = corpus_of(11)
    cache_in(tmp_path).document_vectors(CountingEncoder(), corpus)
    (shard,) = tmp_path.rglob("00001.npy")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:keep])
    with pytest.raises(DamageError, match=r"00001\.npy is damaged .*Delete it"):
        cache_in(tmp_path).document_vectors(CountingEncoder(), corpus)
    shard.unlink()
    mending = CountingEncoder()
    cache_in(tmp_path).document_vectors(mending, corpus)
    assert mending.encoded == ["text 4", "text 5", "text 6", "text 7"]
    assert shard.read_bytes() == whole


def test_a_shard_of_another_shape_is_named(tmp_path: Path) -> None:
    corpus = corpus_of(11)
    cache_in(tmp_path).document_vectors(CountingEncoder(), corpus)
    (shard,) = tmp_path.rglob("00001.npy")
    np.save(shard, np.zeros((4, 7), np.float32))
    with pytest.raises(DamageError, match=r"00001\.npy holds \(4, 7\).*\(4, 8\) of float32 were expected"):
        cache_in(tmp_path).document_vectors(CountingEncoder(), corpus)


def test_two_processes_do_not_encode_the_same_corpus(tmp_path: Path) -> None:
    cache_in(tmp_path).document_vectors(CountingEncoder(), corpus_of(3))
    (shard,) = tmp_path.rglob("00000.npy")
    shard.unlink()
    with Workspace(shard.parent).lock(), pytest.raises(WorkspaceBusy):
        cache_in(tmp_path).document_vectors(CountingEncoder(), corpus_of(3))


@pytest.mark.parametrize("block_rows", [1, 3, 4, 5, 30])
def test_shards_are_searched_as_one_array(block_rows: int) -> None:
    rng = np.random.default_rng(0)
    queries, documents = rng.standard_normal((5, 8)), rng.standard_normal((21, 8)).astype(np.float16)
    shards = Vectors([documents[start : start + 4] for start in range(0, 21, 4)], 8)
    ids = {"query_ids": list("abcde"), "doc_ids": [f"d{number}" for number in range(21)]}
    excluded = {"a": {"d3", "d4"}}
    found = search_vectors(queries, shards, k=4, excluded=excluded, block_bytes=32 * block_rows, **ids)
    assert found == search_vectors(queries, documents, k=4, excluded=excluded, **ids)


def test_rows_of_shards_come_by_slice_and_by_number() -> None:
    whole = np.arange(22, dtype=np.float32).reshape(11, 2)
    shards = Vectors([whole[:4], whole[4:8], whole[8:]], 2)
    assert (len(shards), shards.shape) == (11, (11, 2))
    for start in range(12):
        for stop in range(12):
            np.testing.assert_array_equal(shards[start:stop], whole[start:stop])
    numbers = np.array([10, 0, 4, 4, 3, 7])
    np.testing.assert_array_equal(shards[numbers], whole[numbers])
