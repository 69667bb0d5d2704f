"""Contamination of training data: what is found, what is shown, what is dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasonembed.analyze.contamination import contamination, drop_contaminated
from reasonembed.beir import Collection, write_beir
from reasonembed.corpora import Corpus
from reasonembed.errors import InputError
from reasonembed.files import write_jsonl
from reasonembed.records import Document, Query
from reasonembed.redapter.data import TrainingExample, read_released
from reasonembed.remixer.release import ReleasedExample
from reasonembed.texts import text_key
from reasonembed.workflow.contamination import (
    filter_contaminated,
    measure_contamination,
    released,
    write_contamination,
)

QUERIES = {"b1": "why do leaves turn red in autumn", "b2": "how deep is the sea"}


def collection() -> Collection:
    documents = {"g": Document("g", "anthocyanin makes leaves red"), "n": Document("n", "plain text")}
    return Collection(
        name="bio",
        corpus=Corpus(documents, origin="here", sha256="0"),
        queries={query_id: Query(query_id, text) for query_id, text in QUERIES.items()},
        qrels={"b1": {"g": 1, "n": 0}, "b2": {"g": 1}},
    )


def example(number: int, query: str, positive: str = "some other passage") -> TrainingExample:
    return TrainingExample(f"x:{number}", "x", "Find.", query, "", (positive,), ("no",))


EXAMPLES = [
    example(1, "what is entropy"),
    example(2, "why do leaves turn yellow in autumn"),
    example(3, "what is enthalpy", "Anthocyanin makes LEAVES red!"),
]


def test_each_query_has_its_nearest_training_query_and_the_similarity_by_hand() -> None:
    found = contamination(EXAMPLES, {"bio": collection()})
    near, far = found.matches
    assert (near.similarity, near.example_id, near.text_id) == (6 / 8, "x:2", "b1")
    assert (far.similarity, far.example_id) == (1 / 7, "x:1")  # "is": 1 of 5 + 3 - 1 words
    assert found.above(0.5) == [near]
    assert found.summary()["bio"]["share_at"]["0.7"] == 0.5  # type: ignore[index]


def test_only_gold_documents_are_held_against_positives_and_each_once() -> None:
    found = contamination(EXAMPLES, {"bio": collection()}, "document")
    assert [(match.text_id, match.similarity, match.example_id) for match in found.matches] == [("g", 1.0, "x:3")]


def test_examples_at_the_threshold_are_dropped_with_what_they_are_near_to() -> None:
    cleaned = drop_contaminated(EXAMPLES, {"bio": collection()}, threshold=0.75, kinds=("query", "document"))
    assert [kept.example_id for kept in cleaned.kept] == ["x:1"]
    assert [(row.row_id, row.detail) for row in cleaned.dropped] == [
        ("x:2", "0.750 to bio/b1"),
        ("x:3", "1.000 to bio/g"),
    ]
    assert len(drop_contaminated(EXAMPLES, {"bio": collection()}, threshold=0.76).kept) == 3


@pytest.fixture
def released_file(tmp_path: Path) -> Path:
    rows = [{"prompt": "Find.", "query": e.query, "pos": e.positives, "neg": e.negatives} for e in EXAMPLES]
    write_jsonl(tmp_path / "data" / "biology-formatted.jsonl", rows)
    write_beir(tmp_path / "bench", collection())
    return tmp_path / "data"


def test_the_filter_writes_data_that_read_back_as_they_were_without_the_dropped(
    released_file: Path, tmp_path: Path
) -> None:
    filter_contaminated([released_file], [tmp_path / "bench"], tmp_path / "clean", threshold=0.7)
    before, after = read_released(released_file), read_released(tmp_path / "clean")
    plain = [(e.query, e.positives, e.negatives, e.group_size, e.global_queries, e.instruction) for e in before]
    assert [(e.query, e.positives, e.negatives, e.group_size, e.global_queries, e.instruction) for e in after] == [
        plain[0],
        plain[2],
    ]
    assert json.loads((tmp_path / "clean/dropped.jsonl").read_text())["row_id"] == "biology:2"
    with pytest.raises(InputError, match="exists already"):
        filter_contaminated([released_file], [tmp_path / "bench"], tmp_path / "clean", threshold=0.7)


def test_a_filtered_workspace_still_masks_sources_and_their_copies(tmp_path: Path) -> None:
    from reasonembed.domains import load_domain
    from reasonembed.records import Example, Graded
    from reasonembed.redapter.data import from_examples

    texts = {"s": "the source", "c": "The  SOURCE", "p": "a positive", "n": "a negative"}
    corpus = Corpus({key: Document(key, text) for key, text in texts.items()}, origin="here", sha256="0")
    made = Example("q", "s", "what is entropy", "think", (Graded("p", 4),), (Graded("n", 1),), copy_ids=("c",))
    (before,) = from_examples([made], corpus, load_domain("biology"))
    write_jsonl(tmp_path / "biology-formatted.jsonl", [released(before)])
    (after,) = read_released(tmp_path / "biology-formatted.jsonl")
    assert after.never_negative == before.never_negative
    assert {text_key("the source"), text_key("a positive")} == after.never_negative


def test_data_without_sources_are_written_without_the_field(released_file: Path, tmp_path: Path) -> None:
    filter_contaminated([released_file], [tmp_path / "bench"], tmp_path / "clean", threshold=1)
    rows = [json.loads(line) for line in (tmp_path / "clean/biology-formatted.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and list(rows[0]) == list(ReleasedExample.__struct_fields__)


def test_the_report_shows_both_texts_of_near_pairs_escaped_and_json_holds_all(
    released_file: Path, tmp_path: Path
) -> None:
    found = measure_contamination([released_file], [tmp_path / "bench"], kinds=["query", "document"])
    write_contamination(tmp_path / "out", found, threshold=0.5, title="Contamination of <data>")
    page = (tmp_path / "out/contamination.html").read_text()
    assert "Contamination of &lt;data&gt;" in page
    assert "why do leaves turn yellow in autumn" in page and "why do leaves turn red in autumn" in page
    assert page.count("data:image/svg+xml;base64,") == 4
    values = json.loads((tmp_path / "out/contamination.json").read_text())
    assert [match["similarity"] for match in values["query"]["matches"]] == [6 / 8, 1 / 7]
    assert values["document"]["domains"]["bench"]["max"] == 1.0
