from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reasonembed.corpora import read_corpus
from reasonembed.errors import InputError
from reasonembed.files import write_jsonl
from reasonembed.records import Document

BEIR = [{"_id": "a", "title": "Fish", "text": "They swim."}, {"_id": "b", "title": "", "text": "Rivers run."}]


def corpus_of(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_a_beir_folder_and_its_file_are_the_same_corpus(tmp_path: Path, suffix: str) -> None:
    write_jsonl(tmp_path / f"corpus{suffix}", BEIR)
    for path in (tmp_path, tmp_path / f"corpus{suffix}", str(tmp_path)):
        corpus = read_corpus(path)
        assert corpus.ids == ["a", "b"]
        assert corpus["a"] == Document("a", "They swim.", "Fish")
        assert corpus["a"].content == "Fish\nThey swim."
        assert ("a" in corpus, "z" in corpus, len(corpus)) == (True, False, 2)


def test_plain_jsonl_needs_an_id_and_a_text_and_keeps_the_files_order(tmp_path: Path) -> None:
    path = corpus_of(
        tmp_path / "c.jsonl", {"id": 10, "text": "ten", "url": "x"}, {"id": "2", "text": "two", "title": None}
    )
    assert [(document.doc_id, document.text) for document in read_corpus(path)] == [
        ("10", "ten"),
        ("2", "two"),
    ]


def test_a_folder_of_texts_is_a_corpus_whose_ids_are_the_paths_in_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_text("\ufeffB", encoding="utf-8")
    (tmp_path / "sub" / "a.txt").write_text("A")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    assert {document.doc_id: document.text for document in read_corpus(tmp_path)} == {
        "b.md": "B",
        "sub/a.txt": "A",
    }


def test_the_hash_names_the_content(tmp_path: Path) -> None:
    one = read_corpus(corpus_of(tmp_path / "one.jsonl", *BEIR))
    same = read_corpus(corpus_of(tmp_path / "same.jsonl", *BEIR))
    other = read_corpus(corpus_of(tmp_path / "other.jsonl", BEIR[0]))
    assert one.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize(
    "doc_id",
    [
        "../../etc/passwd",
        "/abs",
        "a\\b",
        "nul\x00l",
        "tab\there",
        "line\nend",
        "x" * 300,
        " ",
        ".",
        "CON",
        "id:with#marks%",
        "ünï",
    ],
)
def test_hostile_ids_are_data(tmp_path: Path, doc_id: str) -> None:
    corpus = read_corpus(corpus_of(tmp_path / "c.jsonl", {"_id": doc_id, "text": "t"}))
    assert corpus.ids == [doc_id]
    assert corpus[doc_id].text == "t"
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], r"the corpus .*c\.jsonl is empty"),
        (["", "  "], r"is empty"),
        ([BEIR[0], {"_id": "a", "text": "again"}], r"line 2: the id 'a' stands on line 1 already"),
        ([{"_id": 1, "text": "x"}, {"_id": "1", "text": "y"}], r"line 2: the id '1' stands on line 1"),
        ([{"_id": "a", "text": " \n"}], r"line 1: the document 'a' has no text"),
        ([{"_id": "a"}], r"line 1: .*missing required field `text`"),
        ([{"text": "x"}], r'line 1: the document has no id. Add "_id"'),
        ([{"_id": "", "text": "x"}], r"line 1: the document has no id"),
        ([{"_id": None, "text": "x"}], r"line 1: the document has no id"),
        ([{"_id": ["a"], "text": "x"}], r"line 1: Expected `int \| str \| null`"),
        ([{"_id": "a", "text": 5}], r"line 1: Expected `str`, got `int`"),
        (['{"_id": "a", "text": "x"'], r"line 1: broken JSON"),
        (['"text"'], r"line 1: Expected `object`"),
    ],
)
def test_a_bad_corpus_file_is_refused_with_file_and_line(tmp_path: Path, rows: list[Any], found: str) -> None:
    with pytest.raises(InputError, match=found) as error:
        read_corpus(corpus_of(tmp_path / "c.jsonl", *rows))
    assert "c.jsonl" in str(error.value)
    assert error.value.exit_code == 2


def test_an_id_in_a_message_is_short_and_shows_control_characters(tmp_path: Path) -> None:
    hostile = "\x1b[31m" + "x" * 300
    with pytest.raises(InputError) as error:
        read_corpus(corpus_of(tmp_path / "c.jsonl", *[{"_id": hostile, "text": "t"}] * 2))
    assert "\x1b" not in str(error.value) and "x1b[31m" in str(error.value)
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_invalid_utf8_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(b'{"_id": "a", "text": "caf\xe9"}\n')
    with pytest.raises(InputError, match=r"c\.jsonl, line 1: not valid UTF-8 .*0xe9"):
        read_corpus(tmp_path / "c.jsonl")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"a\.txt: not valid UTF-8 \(byte 3\)"):
        read_corpus(tmp_path / "texts")


def test_what_is_no_corpus_is_refused_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no corpus at .*nowhere"):
        read_corpus(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds neither corpus\.jsonl nor any \.txt or \.md file"):
        read_corpus(tmp_path)
    (tmp_path / "c.csv").write_text("id,text\n")
    with pytest.raises(InputError, match=r"c\.csv is neither a folder nor a JSONL file"):
        read_corpus(tmp_path / "c.csv")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("  ")
    with pytest.raises(InputError, match=r"a\.txt has no text"):
        read_corpus(tmp_path / "empty")
