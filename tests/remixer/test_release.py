"""The published format, field for field."""

from __future__ import annotations

import json

from reasonembed.redapter.data import from_examples, read_released


def test_every_field_of_the_published_format_is_there_in_its_order(pocket):
    _, report = pocket
    assert report.release_path is not None
    assert report.release_path.name == "biology-formatted.jsonl"
    rows = [json.loads(line) for line in report.release_path.read_text().splitlines()]
    assert len(rows) == 24
    for row in rows:
        assert list(row) == [
            "prompt", "query", "reasoning_query", "pos", "neg",
            "train_group_size", "batch_size", "pos_scores", "neg_scores",
        ]  # fmt: skip
        assert row["prompt"] == "Given a Biology post, retrieve relevant passages that help answer the post."
        assert (row["train_group_size"], row["batch_size"]) == (16, 8)
        assert len(row["pos"]) == len(row["pos_scores"]) > 0
        assert len(row["neg"]) == len(row["neg_scores"]) > 0
        assert min(row["pos_scores"]) >= 3 > max(row["neg_scores"])
        assert row["reasoning_query"]


def test_training_reads_from_the_release_what_it_reads_from_the_rows(pocket):
    from reasonembed.corpora import read_corpus
    from reasonembed.domains import load_domain
    from reasonembed.manifest import read_rows
    from reasonembed.pocket import pocket_folder
    from reasonembed.records import Example

    workspace, report = pocket
    examples = read_rows(workspace.stage_folder("biology", "assemble"), Example)
    ours = from_examples(examples, read_corpus(pocket_folder("biology")), load_domain("biology"))
    theirs = read_released(report.release_path)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.query, one.positives, one.negatives) == (other.query, other.positives, other.negatives)
        assert (one.positive_grades, one.group_size, one.global_queries) == (
            other.positive_grades, other.group_size, other.global_queries,
        )  # fmt: skip
