"""Examples come in whole or not at all, and carry what may never be their negative."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasonembed.corpora import Corpus
from reasonembed.domains import load_domain
from reasonembed.errors import InputError
from reasonembed.records import Document, Example, Graded
from reasonembed.redapter.data import data_hash, from_examples, read_released
from reasonembed.texts import text_key

LINE = {
    "prompt": "Given a Biology post, retrieve relevant passages that help answer the post.",
    "query": "Why drift?",
    "reasoning_query": "Founders carry few alleles.",
    "pos": ["Drift theory.", "Founder effects."],
    "neg": ["Boiling water.", "Prices.", "Joints."],
    "train_group_size": 16,
    "batch_size": 8,
    "pos_scores": [5, 3],
    "neg_scores": [1, 2, 1],
}


def _corpus() -> Corpus:
    texts = {"s": "The source.", "c": "The source!", "p": "Drift theory.", "n": "Boiling water."}
    documents = {key: Document(doc_id=key, text=text, title="T") for key, text in texts.items()}
    return Corpus(documents, origin="here", sha256="0")


def _example(**changes: object) -> Example:
    values: dict[str, object] = {
        "query_id": "s-q0",
        "source_id": "s",
        "query": "Why?",
        "reasoning_query": "Because.",
        "positives": (Graded("p", 4),),
        "negatives": (Graded("n", 1),),
        "copy_ids": ("c",),
    }
    return Example(**values | changes)  # type: ignore[arg-type]


def test_examples_get_the_texts_of_the_corpus_and_the_shape_of_the_domain() -> None:
    domain = load_domain("pony")
    (row,) = from_examples([_example()], _corpus(), domain)
    assert (row.positives, row.negatives) == (("T\nDrift theory.",), ("T\nBoiling water.",))
    assert (row.positive_grades, row.negative_grades) == ((4,), (1,))
    assert (row.domain, row.group_size, row.global_queries) == ("pony", 64, 16)
    assert row.instruction == domain.instruction


def test_positives_source_and_copies_are_never_negatives() -> None:
    (row,) = from_examples([_example()], _corpus(), load_domain("biology"))
    texts = ("T\nDrift theory.", "T\nThe source.", "T\nThe source!")
    assert row.never_negative == {text_key(text) for text in texts}


def test_a_source_or_copy_among_the_passages_is_refused_but_for_the_ablation() -> None:
    domain = load_domain("biology")
    for key, changes in {
        "'s'": {"positives": (Graded("s", 5),)},
        "'c'": {"negatives": (Graded("n", 1), Graded("c", 1))},
    }.items():
        with pytest.raises(InputError, match=key):
            from_examples([_example(**changes)], _corpus(), domain)
    (row,) = from_examples([_example(positives=(Graded("s", 5),))], _corpus(), domain, allow_source=True)
    assert row.positives == ("T\nThe source.",)


def test_an_id_that_the_corpus_lacks_is_named() -> None:
    with pytest.raises(InputError, match="'x', which here lacks"):
        from_examples([_example(positives=(Graded("x", 5),))], _corpus(), load_domain("biology"))


def _write(folder: Path, *rows: object, name: str = "biology-formatted.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_released_format_is_read(tmp_path: Path) -> None:
    (row,) = read_released(_write(tmp_path, LINE | {"unknown": 1}))
    assert (row.domain, row.example_id) == ("biology", "biology:1")
    assert (row.query, row.reasoning_query) == (LINE["query"], LINE["reasoning_query"])
    assert (row.positives, row.negatives) == (tuple(LINE["pos"]), tuple(LINE["neg"]))  # type: ignore[arg-type]
    assert (row.positive_grades, row.negative_grades) == ((5, 3), (1, 2, 1))
    assert (row.group_size, row.global_queries) == (16, 64), "batch_size is per device of 8"
    assert row.never_negative == {text_key("Drift theory."), text_key("Founder effects.")}


def test_a_folder_gives_every_domain_and_a_domain_file_its_own_shape(tmp_path: Path) -> None:
    _write(tmp_path, LINE, LINE)
    short = {key: value for key, value in LINE.items() if key not in ("train_group_size", "batch_size")}
    _write(tmp_path, short, name="leetcode-formatted.jsonl")
    rows = read_released(tmp_path)
    assert [(row.domain, row.group_size, row.global_queries) for row in rows] == [
        ("biology", 16, 64),
        ("biology", 16, 64),
        ("leetcode", 2, 512),
    ]
    overridden = read_released(tmp_path / "biology-formatted.jsonl", load_domain("pony"))
    assert (overridden[0].domain, overridden[0].group_size, overridden[0].global_queries) == ("pony", 64, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neg": ["good", ""], "neg_scores": None}, "negative 2 of 2 is empty"),
        ({"pos": [], "pos_scores": []}, "no positives"),
        ({"pos": ["good", "  "]}, "positive 2 of 2 is empty"),
        ({"query": " "}, "the query is empty"),
        ({"query": None}, "query"),
        ({"pos_scores": [1]}, "pos_scores has 1 entries for 2 texts"),
        ({"train_group_size": 1}, "at least 2"),
        ({"pos": "one text"}, "pos"),
    ],
)
def test_a_broken_line_is_named_with_its_file_and_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=rf"biology-formatted\.jsonl, line 2: .*{message}"):
        read_released(_write(tmp_path, LINE, LINE | change))


@pytest.mark.parametrize("field", ["query", "pos", "neg", "prompt"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    row = {key: value for key, value in LINE.items() if key != field}
    with pytest.raises(InputError, match=f"line 1: .*required field `{field}`"):
        read_released(_write(tmp_path, row))


def test_a_folder_or_file_without_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no"):
        read_released(tmp_path)
    with pytest.raises(InputError, match="holds no examples"):
        read_released(_write(tmp_path))


def test_an_example_without_negatives_is_read_and_is_no_matter_of_its_file(tmp_path: Path) -> None:
    (row,) = read_released(_write(tmp_path, LINE | {"neg": [], "neg_scores": []}))
    assert (row.negatives, row.negative_grades, row.group_size) == ((), (), 16) and row.is_graded
    (mixed,) = from_examples([_example(negatives=())], _corpus(), load_domain("biology"))
    assert mixed.negatives == () and mixed.group_size == 16


def test_the_hash_of_the_data_ignores_row_order_and_nothing_else(tmp_path: Path) -> None:
    rows = read_released(_write(tmp_path, LINE, LINE | {"query": "other"}))
    assert data_hash(rows) == data_hash(rows[::-1])
    changed = read_released(_write(tmp_path, LINE, LINE | {"query": "other!"}))
    assert data_hash(rows) != data_hash(changed)
