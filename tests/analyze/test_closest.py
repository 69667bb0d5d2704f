"""The exact search for the nearest text against brute force, SciPy, and cases worked by hand."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reasonembed.analyze import closest
from reasonembed.analyze.closest import Nearest, count_words, nearest
from reasonembed.analyze.overlap import weighted_jaccard, word_counts
from reasonembed.analyze.vocabulary import Vocabulary

VOCABULARY = [f"w{number}" for number in range(80)]
ZIPF = [1 / (rank + 1) for rank in range(80)]


def random_texts(rng: random.Random, count: int) -> list[str]:
    return [" ".join(rng.choices(VOCABULARY, weights=ZIPF, k=rng.randint(0, 25))) for _ in range(count)]


def brute_force(query: str, texts: list[str]) -> Nearest:
    counts = word_counts(query, stop_words=())
    values = [weighted_jaccard(counts, word_counts(text, stop_words=())) for text in texts]
    return Nearest(max(values), values.index(max(values)) if max(values) > 0 else None)


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_text_is_that_of_brute_force_and_of_equals_the_first(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closest, "BLOCK", (57, 190, 64, 500)[seed])  # several blocks, the last not full; or one
    monkeypatch.setattr(closest, "_DENSE_TERMS", (0, 5, 30, 512)[seed])
    rng = random.Random(seed)
    queries, texts = random_texts(rng, 70), random_texts(rng, 200)
    assert nearest(queries, texts, threads=2) == [brute_force(query, texts) for query in queries]


def test_it_equals_the_sum_of_minima_over_scipys_sparse_matrices() -> None:
    from scipy.sparse import csr_matrix

    rng = random.Random(9)
    queries, texts = random_texts(rng, 20), random_texts(rng, 150)
    vocabulary = Vocabulary()
    wanted, there = count_words(queries, vocabulary), count_words(texts, vocabulary)
    a, b = (csr_matrix((x.counts, x.terms, x.starts), shape=(len(x), len(vocabulary))) for x in (wanted, there))
    for row, found in enumerate(nearest(queries, texts)):
        repeated = a[np.full(len(texts), row)]
        smaller = np.asarray(repeated.minimum(b).sum(axis=1)).ravel()
        larger = np.asarray(repeated.maximum(b).sum(axis=1)).ravel()
        expected = np.divide(smaller, larger, out=np.zeros(len(texts)), where=larger > 0)
        assert found.similarity == expected.max()


def test_a_case_by_hand() -> None:
    # min: 2 of "a", 1 of "b" = 3; max: 3 of "a", 2 of "b", 1 of "c" = 6
    assert nearest(["A a, b b"], ["x", "a a a b c"]) == [Nearest(0.5, 1)]


def test_texts_without_a_shared_word_or_any_word_have_no_nearest() -> None:
    assert nearest(["", "z", "a"], ["", "b"]) == [Nearest(0.0, None)] * 3
    assert nearest(["a"], []) == [Nearest(0.0, None)]
    assert nearest([], ["a"]) == []


def test_a_word_repeated_more_often_than_a_dense_row_can_hold_is_counted_in_full() -> None:
    many = "a " * 70_000
    assert nearest([many], [many + "b", "a " * 65_535]) == [Nearest(70_000 / 70_001, 0)]
    assert nearest(["a " * 300], ["a " * 255, "a " * 256, "a " * 43]) == [Nearest(256 / 300, 1)]


def test_a_cache_folder_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    code = (
        f"import os; os.environ['NUMBA_CACHE_DIR'] = {str(blocked / 'cache')!r}\n"
        "from reasonembed.analyze.closest import nearest\nprint(nearest(['a b'], ['a'])[0].similarity)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "0.5", done.stderr
