from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reasonembed import files
from reasonembed.beir import Collection, is_beir, read_beir, write_beir
from reasonembed.corpora import Corpus
from reasonembed.errors import InputError, StorageError
from reasonembed.pocket import pocket_folder
from reasonembed.records import Document, Query

CORPUS = '{"_id": "d1", "title": "T", "text": "fish"}\n{"_id": "d2", "text": "tree"}\n'
QUERIES = (
    '{"_id": "q1", "text": "swims?", "reasoning_query": "think of fish", "unseen": true, "metadata": {}}\n'
    '{"_id": "q2", "text": "grows?", "unseen": false}\n'
    '{"_id": "train", "text": "of another split", "unseen": true}\n'
)
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\nq2\td1\t0\n"
EXCLUDED = "query-id\tcorpus-id\nq1\td2\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(CORPUS)
    (folder / "queries.jsonl").write_text(QUERIES)
    (folder / "qrels" / "test.tsv").write_text(QRELS)
    (folder / "excluded.tsv").write_text(EXCLUDED)
    return folder


def test_a_beir_folder_is_read_with_our_extras(folder: Path) -> None:
    collection = read_beir(folder)
    assert collection.name == "tiny"
    assert collection.corpus["d1"] == Document("d1", "fish", "T")
    assert collection.queries == {"q1": Query("q1", "swims?", "think of fish"), "q2": Query("q2", "grows?")}
    assert collection.qrels == {"q1": {"d1": 2}, "q2": {"d2": 1, "d1": 0}}
    assert collection.excluded == {"q1": frozenset({"d2"})}
    assert collection.flags == {"unseen": frozenset({"q1"})}


def test_only_the_queries_that_a_split_judges_are_kept(folder: Path) -> None:
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\ntrain\td1\t1\n")
    collection = read_beir(folder, split="train")
    assert list(collection.queries) == ["train"]
    assert (collection.excluded, collection.flags) == ({}, {"unseen": frozenset({"train"})})


def test_packed_files_windows_line_ends_and_numeric_ids_are_read(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    files.write_jsonl(folder / "corpus.jsonl.gz", [{"_id": 1, "text": "fish"}])
    (folder / "queries.jsonl").write_text('{"_id": 7, "text": "q"}\n')
    (folder / "qrels" / "test.tsv").write_bytes(b"query-id\tcorpus-id\tscore\r\n7\t1\t1\r\n")
    (folder / "excluded.tsv").unlink()
    assert read_beir(folder).qrels == {"7": {"1": 1}}


def test_what_is_written_reads_back_the_same(folder: Path, tmp_path: Path) -> None:
    for name, source in (("tiny", folder), ("biology", pocket_folder("biology"))):
        collection = read_beir(source)
        target = tmp_path / "written" / name
        write_beir(target, collection)
        again = read_beir(target)
        assert again.corpus.documents == collection.corpus.documents
        assert msgspec.structs.replace(again, corpus=collection.corpus) == collection
    assert sorted(path.name for path in (tmp_path / "written").iterdir()) == ["biology", "tiny"]


def test_writing_the_same_collection_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    collection = read_beir(folder)
    for name in ("one", "two"):
        write_beir(tmp_path / name, collection, split="dev")
    for file in ("corpus.jsonl", "queries.jsonl", "qrels/dev.tsv", "excluded.tsv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("qrels/test.tsv", "q1\td1\t2\n", r"test\.tsv, line 1: the header is missing. It must read query-id"),
        ("qrels/test.tsv", "", r"test\.tsv is empty. It must begin with the header"),
        ("qrels/test.tsv", QRELS + "q9\td1\t1\n", r"test\.tsv, line 5: queries\.jsonl has no query 'q9'"),
        ("qrels/test.tsv", QRELS + "q1\td9\t1\n", r"test\.tsv, line 5: the corpus has no document 'd9'"),
        (
            "qrels/test.tsv",
            QRELS + "q1\td2\t1.5\n",
            r"test\.tsv, line 5: the score is '1\.5'; .*whole number",
        ),
        (
            "qrels/test.tsv",
            QRELS + "q1\td2\t-1\n",
            r"test\.tsv, line 5: the score is '-1'; .*0 \(not relevant\) or more",
        ),
        ("qrels/test.tsv", QRELS + "q1\td2\t\u0663\n", r"test\.tsv, line 5: the score is"),
        (
            "qrels/test.tsv",
            QRELS + "q1\td1\t2\n",
            r"test\.tsv, line 5: query 'q1' and document 'd1' stand on line 2",
        ),
        ("qrels/test.tsv", QRELS + "q1 d2 1\n", r"test\.tsv, line 5: 1 column\(s\); expected 3"),
        ("qrels/test.tsv", QRELS + "q1\t0\td2\t1\n", r"test\.tsv, line 5: 4 column\(s\); expected 3"),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq1\td1\t0\n",
            r"test\.tsv: no query has a relevant document",
        ),
        (
            "qrels/test.tsv",
            b"query-id\tcorpus-id\tscore\nq1\td\xff\t1\n",
            r"test\.tsv, line 2: not valid UTF-8",
        ),
        ("excluded.tsv", "q1\td2\n", r"excluded\.tsv, line 1: the header is missing"),
        ("excluded.tsv", EXCLUDED + "q1\td9\n", r"excluded\.tsv, line 3: the corpus has no document 'd9'"),
        (
            "excluded.tsv",
            EXCLUDED + "q1\td1\n",
            r"line 3: document 'd1' is relevant to query 'q1' by the qrels",
        ),
        ("queries.jsonl", "", r"queries\.jsonl holds no query"),
        (
            "queries.jsonl",
            QUERIES + '{"_id": "q1", "text": "x"}\n',
            r"line 4: the id 'q1' stands on line 1 already",
        ),
        (
            "queries.jsonl",
            QUERIES + '{"_id": "q3", "text": " "}\n',
            r"line 4: the query 'q3' has no id or no text",
        ),
        ("queries.jsonl", QUERIES + '{"_id": "q3"}\n', r"line 4: .*missing required field `text`"),
        ("queries.jsonl", QUERIES + '{"text": "x"}\n', r"line 4: .*missing required field `_id`"),
        ("queries.jsonl", QUERIES + "[]\n", r"line 4: Expected `object`"),
        ("queries.jsonl", QUERIES + '{"_id": "q3", "te', r"line 4: broken JSON"),
        (
            "corpus.jsonl",
            CORPUS + '{"_id": "d1", "text": "x"}\n',
            r"corpus\.jsonl, line 3: the id 'd1' stands on line 1",
        ),
    ],
)
def test_bad_input_is_refused_with_file_and_line(folder: Path, file: str, content: Any, found: str) -> None:
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=found) as error:
        read_beir(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl"])
def test_a_folder_without_a_needed_file_is_no_beir_folder(folder: Path, missing: str) -> None:
    assert is_beir(folder)
    (folder / missing).unlink()
    assert not is_beir(folder)
    with pytest.raises(InputError, match=f"holds no {missing}"):
        read_beir(folder)


def test_a_missing_split_is_refused_with_those_there_are(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*dev\.tsv. The splits there are: test\."):
        read_beir(folder, split="dev")
    with pytest.raises(InputError, match=r"there is no BEIR folder .*nowhere"):
        read_beir(tmp_path / "nowhere")


def test_the_hash_names_all_that_decides_a_score(folder: Path) -> None:
    collection = read_beir(folder)
    assert collection.sha256 == read_beir(folder).sha256
    changes: list[dict[str, Any]] = [
        {"qrels": {**collection.qrels, "q1": {"d1": 1}}},
        {"excluded": {}},
        {"queries": {**collection.queries, "q1": Query("q1", "other")}},
    ]
    hashes = {msgspec.structs.replace(collection, **change).sha256 for change in changes}
    assert len(hashes | {collection.sha256}) == 4
    assert msgspec.structs.replace(collection, name="other").sha256 == collection.sha256


def test_nothing_is_overwritten_unless_asked_for_and_then_only_a_beir_folder(folder: Path, tmp_path: Path) -> None:
    collection = read_beir(folder)
    target = tmp_path / "target"
    target.mkdir()
    write_beir(target, collection)  # an empty folder is as good as none
    with pytest.raises(InputError, match="exists already"):
        write_beir(target, collection)
    (target / "stale").write_text("")
    write_beir(target, collection, overwrite=True)
    assert not (target / "stale").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    with pytest.raises(InputError, match="exists already"):
        write_beir(tmp_path / "home", collection, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "target", "tiny"]


@pytest.mark.parametrize("which", range(4))
def test_a_full_disk_leaves_no_folder_and_an_old_one_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    collection = read_beir(folder)
    write_beir(tmp_path / "old", collection)
    changed = msgspec.structs.replace(collection, qrels={**collection.qrels, "q1": {"d1": 1}})
    for target, overwrite in (("new", False), ("old", True)):
        syncs = iter(range(100))
        real = files.os.fsync

        def fail(descriptor: int, syncs: Any = syncs, real: Any = real) -> None:
            if next(syncs) == 2 * which:  # each file is synced, then its folder
                raise OSError(28, "No space left on device")
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", fail)
            with pytest.raises(StorageError, match="No space left on device"):
                write_beir(tmp_path / target, changed, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "tiny"]
    assert read_beir(tmp_path / "old").qrels == collection.qrels


def test_a_rename_that_fails_puts_the_old_folder_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = read_beir(folder)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError, match="Input/output error"):
        write_beir(folder, collection, overwrite=True)
    assert read_beir(folder).qrels == collection.qrels
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize("bad", ["a\tb", "a\nb", " a", "a\r"])
def test_an_id_that_tsv_cannot_hold_is_refused_on_writing(folder: Path, tmp_path: Path, bad: str) -> None:
    collection = read_beir(folder)
    documents = {**collection.corpus.documents, bad: Document(bad, "text")}
    corpus = Corpus(documents, origin="", sha256="")
    with pytest.raises(InputError, match=r"the document id .* cannot stand in a tab separated file"):
        write_beir(tmp_path / "new", msgspec.structs.replace(collection, corpus=corpus))
    queries = {**collection.queries, bad: Query(bad, "text")}
    with pytest.raises(InputError, match=r"the query id .* cannot stand in a tab separated file"):
        write_beir(tmp_path / "new", msgspec.structs.replace(collection, queries=queries))
    assert not (tmp_path / "new").exists()


def test_hostile_ids_stay_data(tmp_path: Path) -> None:
    ids = ["../../x", "/etc/passwd", "a b", "x" * 300, "nul\x00", "q\u2028r"]
    corpus = Corpus({name: Document(name, "text") for name in ids}, origin="", sha256="")
    collection = Collection(
        name="hostile",
        corpus=corpus,
        queries={name: Query(name, "text") for name in ids},
        qrels={name: {name: 1} for name in ids},
    )
    write_beir(tmp_path / "out", collection)
    assert read_beir(tmp_path / "out").qrels == collection.qrels
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert json.loads((tmp_path / "out" / "corpus.jsonl").read_text().split("\n")[0])["_id"] == "../../x"
