"""Others' triples become training examples, or an error that says what was found and what is known."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from reasonembed.domains import load_domain
from reasonembed.errors import InputError
from reasonembed.redapter.batches import epoch_batches, not_negatives
from reasonembed.redapter.layouts import read_data
from reasonembed.workflow.training_data import load_training_data

TEVATRON = {
    "query_id": "1",
    "query": "why does ice float",
    "positive_passages": [
        {"docid": "7", "title": "Ice", "text": "Ice is lighter than water."},
        {"docid": "8", "title": "", "text": "Frozen water takes more room."},
    ],
    "negative_passages": [
        {"docid": "9", "title": "Boats", "text": "A boat floats."},
        {"docid": "10", "text": "Iron sinks."},
        {"docid": "11", "title": None, "text": "Salt lowers the freezing point."},
    ],
}
ANCHOR = {"anchor": "why does ice float", "positive": "Ice is lighter.", "negative": "Iron sinks."}
PUBLISHED = {"prompt": "Find.", "query": "why", "pos": ["so"], "neg": ["no"], "reasoning_query": "thus"}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def parquet(path: Path, *rows: dict[str, Any]) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_tevatrons_passages_are_title_and_text_joined_by_a_space(tmp_path: Path) -> None:
    (row,) = read_data(write(tmp_path / "msmarco.jsonl", TEVATRON))
    assert row.positives == ("Ice Ice is lighter than water.", "Frozen water takes more room.")
    assert row.negatives == ("Boats A boat floats.", "Iron sinks.", "Salt lowers the freezing point.")
    assert (row.query, row.reasoning_query) == ("why does ice float", "")
    assert (row.domain, row.example_id) == ("msmarco", "msmarco:1")
    assert row.instruction == load_domain("general").instruction


@pytest.mark.parametrize("write_file", [write, parquet])
@pytest.mark.parametrize(
    ("row", "negatives"),
    [
        ({"anchor": "q", "positive": "p", "negative": "n"}, ("n",)),
        ({"query": "q", "positive": "p", "negative_10": "c", "negative_1": "a", "negative_2": "b"}, ("a", "b", "c")),
        ({"positive": "p", "negatives": ["x", "y"], "query": "q", "score": 0.5}, ("x", "y")),
    ],
)
def test_columns_of_sentence_transformers_are_known_by_name(
    tmp_path: Path, write_file: Any, row: dict[str, Any], negatives: tuple[str, ...]
) -> None:
    path = tmp_path / ("t.jsonl.gz" if write_file is write else "t.parquet")
    (example,) = read_data(write_file(path, row))
    assert (example.query, example.positives, example.negatives) == ("q", ("p",), negatives)
    assert example.example_id == "t:1"


def test_what_the_library_itself_mines_and_exports_is_read(tmp_path: Path) -> None:
    """The files that `datasets` writes of a triplet data set, as `mine_hard_negatives` names its columns."""
    datasets = pytest.importorskip("datasets")
    rows = [{"query": f"q{n}", "positive": f"p{n}", "negative_1": f"a{n}", "negative_2": f"b{n}"} for n in range(3)]
    data = datasets.Dataset.from_list(rows)
    data.to_json(tmp_path / "one" / "mined.jsonl")
    (tmp_path / "two").mkdir()
    data.to_parquet(tmp_path / "two" / "mined.parquet")
    one, two = read_data(tmp_path / "one"), read_data(tmp_path / "two")
    assert one == two
    assert [(row.query, row.positives, row.negatives) for row in one] == [
        (f"q{n}", (f"p{n}",), (f"a{n}", f"b{n}")) for n in range(3)
    ]


def test_the_log_names_the_layout_of_each_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, row in (("a", TEVATRON), ("b", ANCHOR), ("c", PUBLISHED)):
        write(tmp_path / f"{name}.jsonl", row)
    with caplog.at_level(logging.INFO):
        rows = read_data(tmp_path)
    assert [row.domain for row in rows] == ["a", "b", "c"]
    assert rows[2].reasoning_query == "thus"
    said = [record.message.split(": ", 1)[1] for record in caplog.records]
    assert [line.split(":")[0] for line in said] == [
        "read as Tevatron triples", "read as sentence-transformers columns", "read as the published format",
    ]  # fmt: skip
    assert said[0].endswith("1 examples of a, at most 3 negatives each.")


def test_the_published_format_is_read_from_parquet_too(tmp_path: Path) -> None:
    row = PUBLISHED | {"pos_scores": [4.0], "neg_scores": [1.0], "train_group_size": 2, "batch_size": 8}
    (plain,) = read_data(write(tmp_path / "one" / "pony-formatted.jsonl", row))
    (tmp_path / "two").mkdir()
    assert read_data(parquet(tmp_path / "two" / "pony-formatted.parquet", row)) == [plain]
    assert (plain.domain, plain.positive_grades, plain.global_queries) == ("pony", (4,), 64)


def test_a_column_of_reasoning_queries_is_read_too(tmp_path: Path) -> None:
    rows = read_data(write(tmp_path / "t.jsonl", ANCHOR | {"reasoning_query": "density"}, ANCHOR))
    assert [row.reasoning_query for row in rows] == ["density", ""]


def test_a_group_is_no_larger_than_the_negatives_can_fill_unless_a_domain_file_says_so(tmp_path: Path) -> None:
    pairs = write(tmp_path / "t.jsonl", ANCHOR)
    assert read_data(pairs)[0].group_size == 2
    many = write(tmp_path / "m.jsonl", ANCHOR | {"negatives": [str(n) for n in range(40)]})
    with pytest.raises(InputError, match="negatives must stand in one way"):
        read_data(many)
    row = {key: value for key, value in ANCHOR.items() if key != "negative"}
    many = write(tmp_path / "m.jsonl", row | {"negatives": [str(n) for n in range(40)]}, row | {"negatives": ["one"]})
    assert [example.group_size for example in read_data(many)] == [16, 16]
    pony = load_domain("pony")
    (example,) = read_data(pairs, pony)
    assert (example.domain, example.group_size, example.global_queries) == ("pony", 64, 16)
    assert example.instruction == pony.instruction


def test_the_domain_is_the_files_stem_without_the_numbers_of_parts_unless_one_is_named(tmp_path: Path) -> None:
    for part in (0, 1):
        parquet(tmp_path / f"train-0000{part}-of-00002.parquet", ANCHOR)
    rows = load_training_data([tmp_path]).examples
    assert [(row.domain, row.example_id) for row in rows] == [
        ("train", "train-00000-of-00002:1"), ("train", "train-00001-of-00002:1"),
    ]  # fmt: skip
    assert len(epoch_batches(rows, seed=0, epoch=0)) == 1, "one domain, ids apart"
    named = load_training_data([tmp_path], domain="web").examples
    assert {row.domain for row in named} == {"web"}
    text = 'name = "trips"\ninstruction = "Find a trip."\nquery_kind = "q"\ndocument_kind = "d"\nrelevance = "r"\n'
    (tmp_path / "trips.toml").write_text(text + 'generation = "g"\ngroup_size = 5\n')
    (row, _) = load_training_data([tmp_path], domain=str(tmp_path / "trips.toml")).examples
    assert (row.domain, row.instruction, row.group_size) == ("trips", "Find a trip.", 5)


def test_another_positive_of_the_query_is_no_negative_of_it(tmp_path: Path) -> None:
    other = TEVATRON | {"query": "what is ice", "negative_passages": [TEVATRON["positive_passages"][1]]}  # type: ignore[index]
    rows = read_data(write(tmp_path / "t.jsonl", TEVATRON, other))
    (batch,) = epoch_batches(rows, seed=0, epoch=0, group_size=2)
    mask = not_negatives(batch)
    mine = [example.query for example in batch.examples].index("why does ice float")
    theirs = 1 - mine
    assert batch.passages[theirs][1] == "Frozen water takes more room."
    assert mask[mine, theirs * 2 + 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"text": "a", "label": 1},
            r"text, label, which is no layout .* one of: the published format \(",
        ),
        ({"query": "q", "pos": ["a"], "neg": ["b"], "negative": "c"}, r"could be the published format or sentence"),
        ({"anchor": "q", "query": "q", "positive": "p", "negative": "n"}, r"anchor or query \(one of them\)"),
        ({"question": "q", "positive": "p", "negative": "n"}, r"question, positive, negative; "),
        ({"anchor": "q", "negative": "n"}, r"anchor, negative; "),
        ({"query": "q", "positive": "p", "negative": "n", "negative_1": "m"}, r"negatives must stand in one way"),
    ],
)
def test_what_cannot_be_told_for_certain_is_refused_with_the_fields_found(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=rf"t\.jsonl has the fields .*{message}"):
        read_data(write(tmp_path / "t.jsonl", row))


def test_parquet_is_refused_by_its_columns_alike(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t\.parquet has the fields sentence1, sentence2, which is no layout"):
        read_data(parquet(tmp_path / "t.parquet", {"sentence1": "a", "sentence2": "b"}))


@pytest.mark.parametrize("write_file", [write, parquet])
@pytest.mark.parametrize(
    ("good", "change", "message"),
    [
        (ANCHOR, {"positive": " "}, "positive 1 of 1 is empty"),
        (ANCHOR, {"negative": ""}, "negative 1 of 1 is empty"),
        (ANCHOR, {"negative": None}, r"Expected `str`, got `null` - at `\$\.negative`"),
        (ANCHOR, {"anchor": ""}, "the query is empty"),
        (TEVATRON, {"positive_passages": []}, "no positives"),
        (TEVATRON, {"positive_passages": [{"title": "Only", "text": None}]}, r"positive_passages\[0\]\.text"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_file_and_place(
    tmp_path: Path, write_file: Any, good: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    name, place = ("t.jsonl", "line 2") if write_file is write else ("t.parquet", "row 2")
    with pytest.raises(InputError, match=rf"{name}, {place}: .*{message}"):
        read_data(write_file(tmp_path / name, good, good | change))


@pytest.mark.parametrize("write_file", [write, parquet])
def test_pairs_without_negatives_are_read_and_trained_on_with_groups_of_one_alone(
    tmp_path: Path, write_file: Any
) -> None:
    rows = [{"anchor": f"q{n}", "positive": f"p{n}"} for n in range(3)]
    examples = read_data(write_file(tmp_path / ("t.jsonl" if write_file is write else "t.parquet"), *rows))
    assert [row.positives for row in examples] == [("p0",), ("p1",), ("p2",)]
    assert {(row.negatives, row.group_size) for row in examples} == {((), 2)}
    (batch,) = epoch_batches(examples, seed=0, epoch=0, group_size=1)
    assert sorted(batch.passages) == [("p0",), ("p1",), ("p2",)]
    for group_size in (None, 2):
        with pytest.raises(InputError, match=r"the example 't:1' of t: no negatives\. .*group_size = 1"):
            epoch_batches(examples, seed=0, epoch=0, group_size=group_size)


def test_a_row_without_negatives_among_others_is_the_one_that_is_named(tmp_path: Path) -> None:
    examples = read_data(write(tmp_path / "t.jsonl", TEVATRON, TEVATRON | {"negative_passages": []}))
    assert [(len(row.negatives), row.group_size) for row in examples] == [(3, 4), (0, 4)]
    with pytest.raises(InputError, match=r"the example 't:2' of t: no negatives"):
        epoch_batches(examples, seed=0, epoch=0)
    (batch,) = epoch_batches(examples, seed=0, epoch=0, group_size=1)
    assert not_negatives(batch).shape == (2, 2)


def test_a_field_that_a_later_line_lacks_is_named(tmp_path: Path) -> None:
    first = {"anchor": "q", "positive": "p", "negative_1": "a", "negative_2": "b"}
    later = {key: value for key, value in first.items() if key != "negative_2"}
    with pytest.raises(InputError, match=r"line 2: .*missing required field `negative_2`"):
        read_data(write(tmp_path / "t.jsonl", first, later))
    ids_only = {"query": 1185869, "positive": "p", "negative": "n"}
    with pytest.raises(InputError, match=r"line 1: Expected `str`, got `int` - at `\$\.query`"):
        read_data(write(tmp_path / "t.jsonl", ids_only))


def test_empty_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no examples"):
        read_data(write(tmp_path / "t.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no training data"):
        read_data(tmp_path / "empty")
