"""A held-out test set: whole groups of near-copies, decided by seed and ids, written as a BEIR folder."""

from __future__ import annotations

import pytest

from reasonembed.beir import read_beir
from reasonembed.domains import load_domain
from reasonembed.records import Dropped, Example, Graded
from reasonembed.remixer.assemble import JudgedQuery
from reasonembed.remixer.config import AssembleConfig
from reasonembed.remixer.holdout import choose_holdout, gain, held_out_examples, write_holdout
from reasonembed.remixer.rows import Conditions, GeneratedQuery, MinedQuery

CONFIG = AssembleConfig()


def mined(copies: dict[str, tuple[str, ...]]) -> list[MinedQuery]:
    return [MinedQuery(f"{name}-q0", name, found, ()) for name, found in copies.items()]


@pytest.mark.parametrize(("share", "size"), [(0.0, 0), (0.01, 1), (0.1, 3), (0.5, 14), (0.99, 26)])
def test_a_share_of_the_sources_is_set_aside_at_least_one_and_never_all(share: float, size: int):
    rows = mined({f"s{n}": () for n in range(27)})
    assert len(choose_holdout(rows, share, seed=0)) == size


def test_seed_and_ids_decide_and_not_the_order():
    rows = mined({f"s{n}": () for n in range(30)})
    assert choose_holdout(rows, 0.2, seed=0) == choose_holdout(rows[::-1], 0.2, seed=0)
    assert choose_holdout(rows, 0.2, seed=0) != choose_holdout(rows, 0.2, seed=1)


def test_near_copies_are_held_out_together():
    rows = mined({f"s{n}": (f"s{n ^ 1}",) for n in range(20)})
    for seed in range(20):
        held_out = choose_holdout(rows, 0.1, seed=seed)
        assert {f"s{int(name[1:]) ^ 1}" for name in held_out} == held_out


def test_if_all_sources_are_copies_of_one_another_nothing_is_held_out(caplog):
    assert choose_holdout(mined({"a": ("b",), "b": ("a",)}), 0.5, seed=0) == frozenset()
    assert "no holdout" in caplog.text


def test_a_held_out_query_without_a_positive_is_dropped_with_the_reason():
    def judged(name: str, *graded: Graded) -> JudgedQuery:
        return JudgedQuery(GeneratedQuery(f"{name}-q0", name, "?", Conditions(False)), "", (), graded)

    rows = [judged("a", Graded("x", 5)), judged("b", Graded("x", 2)), judged("c", Graded("x", 5))]
    kept = list(held_out_examples(rows, frozenset("ab"), CONFIG))
    assert [(type(row), getattr(row, "query_id", "") or row.row_id) for row in kept] == [
        (Example, "a-q0"),
        (Dropped, "b-q0"),
    ]


def test_gains_are_1_2_3_for_grades_3_4_5_and_nothing_below():
    assert [gain(grade, CONFIG) for grade in range(1, 6)] == [0, 0, 1, 2, 3]


def test_the_folder_reads_as_beir_with_graded_qrels_and_the_source_and_copies_excluded(corpus_of, tmp_path):
    corpus = corpus_of({name: f"text {name}" for name in "abcd"})
    example = Example("a-q0", "a", "why?", "because", (Graded("c", 5), Graded("d", 3)), (), ("b",))
    folder = tmp_path / "biology/holdout"
    folder.mkdir(parents=True)
    (folder / "rows.jsonl.zst").touch()
    names = write_holdout(folder, [example], corpus, load_domain("biology"), CONFIG)
    collection = read_beir(folder)
    assert collection.corpus.ids == ["a", "b", "c", "d"]
    assert collection.queries["a-q0"].reasoning_query == "because"
    assert collection.qrels == {"a-q0": {"c": 3, "d": 1}}
    assert collection.excluded == {"a-q0": {"a", "b"}}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*names, "rows.jsonl.zst"}


def test_without_examples_no_folder_is_written(corpus_of, tmp_path):
    assert write_holdout(tmp_path, [], corpus_of({"a": "text"}), load_domain("biology"), CONFIG) == []
    assert not (tmp_path / "queries.jsonl").exists()
