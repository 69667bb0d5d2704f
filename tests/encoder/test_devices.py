"""Several devices give what one gives; what goes wrong in a process is said in ours."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reasonembed.corpora import read_corpus
from reasonembed.encoder.devices import EncoderPool, chunks
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.shards import VectorCache
from reasonembed.errors import ConfigError, InputError, ReasonEmbedError


@pytest.fixture(scope="module")
def pool(tiny_models: dict[str, Path]) -> Iterator[EncoderPool]:
    with EncoderPool(tiny_models["qwen3"], ["cpu", "cpu"], max_tokens=64) as pool:
        yield pool


def test_two_processes_give_the_vectors_of_one_encoder_in_the_order_of_the_texts(
    pool: EncoderPool, tiny_models: dict[str, Path], texts: list[str]
) -> None:
    single = Encoder.load(tiny_models["qwen3"], max_tokens=64)
    many = [f"{text} {number}" for number in range(40) for text in texts]
    seen: list[tuple[int, int]] = []
    found = pool.encode(many, prompt="why ", progress=lambda *counts: seen.append(counts))
    assert np.abs(found - single.encode(many, prompt="why ")).max() < 1e-5
    assert np.abs(pool.encode(many, max_tokens=8) - single.encode(many, max_tokens=8)).max() < 1e-5
    assert seen[-1] == (len(many), len(many)) and len(seen) > 4
    assert pool.encode([]).shape == (0, single.dimension)
    for name in ("name", "dimension", "max_tokens", "position_limit", "dtype", "pooling", "prompts"):
        assert getattr(pool, name) == getattr(single, name)


def test_a_pool_fills_the_same_cache_as_one_encoder(
    pool: EncoderPool, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(f'{{"_id": "d{n}", "text": "why the prime {n} of {n * n}"}}\n' for n in range(60)))
    corpus = read_corpus(file)
    cache = VectorCache(tmp_path / "cache", {"weights": "w"}, shard_rows=16)
    made = np.array(cache.document_vectors(pool, corpus)[0:60])
    single = Encoder.load(tiny_models["qwen3"], max_tokens=64)
    assert np.array_equal(made, np.array(cache.document_vectors(single, corpus)[0:60])), "taken from the cache"
    assert np.abs(made - single.encode([one.content for one in corpus])).max() < 1e-5


def test_chunks_hold_every_text_once_the_longest_first() -> None:
    lengths = np.random.default_rng(0).integers(0, 900, 3000)
    dealt = chunks(lengths.tolist(), processes=3)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(3000))
    assert max(map(len, dealt)) <= 512 and len(dealt) >= 12
    flat = lengths[np.concatenate(dealt)]
    assert (np.diff(flat) <= 0).all()


def test_a_mistake_is_raised_where_the_pool_is_made(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='no device "gpu0"'):
        EncoderPool(tiny_models["bert"], ["gpu0"])
    with pytest.raises(ConfigError, match="CUDA devices"):
        EncoderPool(tiny_models["bert"], ["cuda:99"])
    with pytest.raises(ConfigError, match="at least one"):
        EncoderPool(tiny_models["bert"], [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        EncoderPool(tmp_path / "empty", ["cpu"])


def test_a_process_that_dies_is_an_error_and_no_hang(tiny_models: dict[str, Path]) -> None:
    before = set(multiprocessing.active_children())
    with EncoderPool(tiny_models["bert"], ["cpu"]) as pool:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        with pytest.raises(ReasonEmbedError, match="died"):
            pool.encode(["why"])
