"""Corpora as the field stores them: parquet, BRIGHT's and R2MED's layouts, shards and splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reasonembed.corpora import Reading, merge_duplicates, read_corpus
from reasonembed.errors import ConfigError, InputError
from reasonembed.files import write_jsonl
from reasonembed.records import Document


def parquet(path: Path, **columns: list[Any]) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(("id_name", "text_name"), [("id", "content"), ("_id", "text"), ("docid", "contents")])
def test_parquet_and_jsonl_give_the_same_documents_under_every_usual_name(
    tmp_path: Path, id_name: str, text_name: str
) -> None:
    rows = [{id_name: "a", text_name: "Fish.", "more": 1}, {id_name: "b", text_name: "Rivers.", "more": 2}]
    parquet(tmp_path / "c.parquet", **{name: [row[name] for row in rows] for name in rows[0]})
    write_jsonl(tmp_path / "c.jsonl", rows)
    expected = [Document("a", "Fish."), Document("b", "Rivers.")]
    assert list(read_corpus(tmp_path / "c.parquet")) == list(read_corpus(tmp_path / "c.jsonl")) == expected


def test_a_large_parquet_file_is_read_whole_in_its_order(tmp_path: Path) -> None:
    ids = [f"d{number}" for number in range(10_000)]
    path = parquet(tmp_path / "c.parquet", id=list(range(10_000)), text=ids, title=[None, "T"] * 5_000)
    corpus = read_corpus(path)
    assert [document.text for document in corpus] == ids
    assert corpus["1"] == Document("1", "d1", "T") and corpus["2"].title == ""


def test_brights_folder_is_read_split_by_split_and_its_shards_as_one(tmp_path: Path) -> None:
    parquet(tmp_path / "documents/biology-00000-of-00002.parquet", id=["b1"], content=["Cells."])
    parquet(tmp_path / "documents/biology-00001-of-00002.parquet", id=["b2"], content=["Fungi."])
    parquet(tmp_path / "documents/pony-00000-of-00001.parquet", id=["p1"], content=["Actors."])
    assert read_corpus(tmp_path / "documents/biology").ids == ["b1", "b2"]
    assert read_corpus(tmp_path / "documents/pony").ids == ["p1"]
    with pytest.raises(InputError, match=r"several splits: biology, pony\. Name one.*documents/biology"):
        read_corpus(tmp_path)
    with pytest.raises(InputError, match=r"there is no corpus at .*earth"):
        read_corpus(tmp_path / "documents/earth")


def test_r2meds_folder_is_read_beside_its_readme_and_queries(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# About")
    parquet(tmp_path / "corpus/corpus-00000-of-00001.parquet", id=["1"], text=["A case."])
    parquet(tmp_path / "query/query-00000-of-00001.parquet", id=["q"], text=["Which disease?"])
    assert list(read_corpus(tmp_path)) == [Document("1", "A case.")]


def test_queries_beside_the_documents_are_not_documents(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "Why?"}])
    write_jsonl(tmp_path / "part.jsonl", [{"_id": "a", "text": "So."}])
    assert read_corpus(tmp_path).ids == ["a"]


def test_a_folder_of_both_kinds_is_not_guessed_at(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "part.jsonl", [{"_id": "a", "text": "So."}])
    (tmp_path / "README.md").write_text("# About")
    with pytest.raises(InputError, match=r"holds both part\.jsonl and README\.md"):
        read_corpus(tmp_path)


def test_an_id_that_returns_is_named_with_both_places(tmp_path: Path) -> None:
    parquet(tmp_path / "one.parquet", id=["a", "b"], text=["A", "B"])
    parquet(tmp_path / "two.parquet", id=["c", "b"], text=["C", "B"])
    with pytest.raises(InputError, match=r"two\.parquet, row 2: the id 'b' stands on row 2 of one\.parquet already"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"id": ["a"], "body": ["x"]}, r"has no column text, content or contents; its columns are id, body"),
        ({"text": ["x"]}, r"has no column _id, id or docid"),
        ({"id": ["a", "b"], "text": ["x", None]}, r"row 2: the text is None"),
        ({"id": ["a"], "text": [5]}, r"row 1: the text is 5"),
        ({"id": [1.5], "text": ["x"]}, r"row 1: the id is 1\.5"),
        ({"id": [None], "text": ["x"]}, r"row 1: the document has no id"),
        ({"id": ["a"], "text": [" "]}, r"row 1: the document 'a' has no text"),
        ({"id": ["a"], "text": ["x"], "title": [3]}, r"row 1: the title is 3"),
        ({"id": [], "text": []}, r"is empty"),
    ],
)
def test_a_bad_parquet_file_is_refused_with_its_row(tmp_path: Path, columns: dict[str, list[Any]], found: str) -> None:
    with pytest.raises(InputError, match=found) as error:
        read_corpus(parquet(tmp_path / "c.parquet", **columns))
    assert "c.parquet" in str(error.value)


def test_what_only_calls_itself_parquet_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "c.parquet", id=["a"], text=["x"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"c\.parquet \(\d+ bytes\) cannot be read"):
        read_corpus(path)


def test_texts_are_cut_into_numbered_pieces_that_know_their_neighbours(tmp_path: Path) -> None:
    (tmp_path / "long.md").write_text(" ".join(f"word{number}" for number in range(40)))
    (tmp_path / "short.txt").write_text("short")
    corpus = read_corpus(tmp_path, Reading(chunk_chars=120, chunk_overlap=20))
    assert corpus.ids == ["long.md#0001", "long.md#0002", "long.md#0003", "short.txt#0001"]
    assert corpus.overlapping["long.md#0002"] == ("long.md#0001", "long.md#0003")
    assert corpus.overlapping["short.txt#0001"] == ()
    assert corpus.sha256 != read_corpus(tmp_path).sha256


def test_only_texts_are_cut_and_a_wrong_overlap_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "c.jsonl", [{"_id": "a", "text": "So."}])
    with pytest.raises(ConfigError, match="only those are cut"):
        read_corpus(tmp_path / "c.jsonl", Reading(chunk_chars=100, chunk_overlap=10))
    with pytest.raises(ValueError, match="chunk_overlap is 200; it must lie between 0 and half of chunk_chars, 50"):
        Reading(chunk_chars=100)


def test_of_equal_documents_the_first_stays_and_the_others_are_listed(tmp_path: Path) -> None:
    texts = {"a": "One  Fish", "b": "two", "c": "one fish", "d": "Two", "e": "ONE\nFISH"}
    write_jsonl(tmp_path / "c.jsonl", [{"_id": doc_id, "text": text} for doc_id, text in texts.items()])
    whole = read_corpus(tmp_path / "c.jsonl")
    corpus = read_corpus(tmp_path / "c.jsonl", Reading(merge_duplicates=True))
    assert corpus.ids == ["a", "b"]
    assert corpus.merged == {"a": ("c", "e"), "b": ("d",)}
    assert whole.merged == {} and len(whole) == 5
    assert corpus.sha256 == merge_duplicates(whole).sha256 != whole.sha256
