"""Statistics of a workspace: the figures are those that a count of the files gives, and parts may be missing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasonembed.analyze.distributions import distribution
from reasonembed.analyze.overlap import overlap
from reasonembed.analyze.statistics import costs_of, domain_statistics
from reasonembed.analyze.statistics_sections import statistics_sections, text_lines
from reasonembed.analyze.triviality_sections import text_lines as triviality_lines
from reasonembed.analyze.triviality_sections import triviality_sections
from reasonembed.cli.main import app
from reasonembed.errors import InputError
from reasonembed.llm.prices import Price, Prices
from reasonembed.llm.spending import Spending
from reasonembed.manifest import read_rows
from reasonembed.pocket import pocket_folder
from reasonembed.remixer.config import SelectConfig, SynthesisConfig
from reasonembed.remixer.rows import Source
from reasonembed.workflow.statistics import measure_statistics
from reasonembed.workflow.synthesis import synthesize
from reasonembed.workflow.triviality import measure_triviality
from reasonembed.workspace import Workspace

BIOLOGY = pocket_folder("biology")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The pocket's biology to the end, and its pony up to the queries."""
    place = Workspace(tmp_path_factory.mktemp("statistics") / "w")
    for domain, last in (("biology", None), ("pony", "generate")):
        folder = pocket_folder(domain)
        synthesize(
            folder, domain=domain, workspace=place, model="recorded:pocket", sources=folder / "recorded.jsonl",
            stop_after=last,
        )  # fmt: skip
    return place


def released(place: Workspace) -> list[dict]:
    path = place.path / "biology/release/biology-formatted.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_positives_negatives_and_overlap_are_those_of_the_released_file(workspace: Workspace) -> None:
    found = domain_statistics(workspace, "biology", sample=None)
    rows = released(workspace)
    assert list(found.positives) == [len(row["pos"]) for row in rows]
    assert list(found.negatives) == [len(row["neg"]) for row in rows]
    for row, measured in zip(rows, found.overlaps, strict=True):
        assert measured.positives == tuple(overlap(row["query"], text) for text in row["pos"])
        assert measured.negatives == tuple(overlap(row["query"], text) for text in row["neg"])


def test_grades_and_lengths_are_those_of_the_recorded_replies(workspace: Workspace) -> None:
    found = domain_statistics(workspace, "biology")
    recorded = [json.loads(line) for line in (BIOLOGY / "recorded.jsonl").read_text().splitlines()]
    lengths = Counter(len(row["query"]) for row in recorded)
    assert Counter(one.characters for one in found.lengths["queries"]) <= lengths
    judged = [(row["doc_id"], *label) for row in recorded for label in row["labels"].items()]
    high = Counter(grade for source, doc_id, (grade, _) in judged if grade >= 3 and doc_id != source)
    assert {grade: found.grades.get(grade, 0) for grade in high} == dict(high)
    texts = [json.loads(line) for line in (BIOLOGY / "corpus.jsonl").read_text().splitlines()]
    contents = [f"{row['title']}\n{row['text']}" if row.get("title") else row["text"] for row in texts]
    assert [one.characters for one in found.lengths["documents"]] == [len(text) for text in contents]


def test_with_several_sources_per_query_overlaps_are_over_all_of_them_and_reports_say_so(
    workspace: Workspace, tmp_path: Path
) -> None:
    config = SynthesisConfig(limit=8, select=SelectConfig(domain_check=False, sources_per_query=3))
    synthesize(BIOLOGY, domain="biology", workspace=tmp_path / "w", model="scripted", config=config)
    several, one = measure_statistics(tmp_path / "w"), measure_statistics(workspace.path)
    examples = len(several.positives)
    assert examples and len(several.overlaps["source"]) == 3 * examples
    rows = [row for row in read_rows(tmp_path / "w/biology/select", Source) if len(row.companion_ids) == 2]
    assert len(several.lengths("sources")) == len({d for row in rows for d in (row.doc_id, *row.companion_ids)}) > 8
    trivial = measure_triviality([tmp_path / "w"])
    assert len(trivial.pooled("rouge_l")["source"]) == 3 * examples == 3 * len(trivial.ranks())
    for found, lines in ((several, text_lines(several)), (trivial, triviality_lines(trivial))):
        assert found.several_sources and "Queries were written from several documents" in "\n".join(lines)
    assert "several documents" in str(statistics_sections(several)) and "several documents" in str(
        triviality_sections(trivial)
    )
    assert not one.several_sources and "several documents" not in "\n".join(text_lines(one))


def test_a_sample_measures_fewer_and_the_seed_alone_decides_which(workspace: Workspace) -> None:
    drawn = [domain_statistics(workspace, "biology", sample=5, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    whole = domain_statistics(workspace, "biology", sample=None)
    assert len(drawn[0].overlaps) == len(drawn[0].lengths["documents"]) == 5
    assert all(one in whole.overlaps for one in drawn[0].overlaps)
    assert drawn[0].grades == whole.grades and drawn[0].positives == whole.positives


def test_a_synthesis_under_way_shows_the_stages_that_it_has_finished(workspace: Workspace) -> None:
    found = measure_statistics(workspace.path, domains=["pony"])
    (pony,) = found.domains
    assert [manifest.stage for manifest in pony.stages] == ["select", "generate"]
    assert set(pony.lengths) == {"documents", "sources", "queries"}
    said = "\n".join(text_lines(found))
    assert "21 not_listed" in said and "Grades" not in said


def test_a_corpus_that_is_gone_costs_the_figures_of_documents_and_no_others(tmp_path: Path) -> None:
    corpus = tmp_path / "docs.jsonl"
    corpus.write_bytes((BIOLOGY / "corpus.jsonl").read_bytes())
    synthesize(corpus, domain="biology", workspace=tmp_path / "w", model="scripted", stop_after="generate")
    corpus.unlink()
    found = measure_statistics(tmp_path / "w")
    assert set(found.domains[0].lengths) == {"queries"}
    assert "documents, sources and overlaps are left out" in "\n".join(text_lines(found))
    assert "unread" in found.as_data()["domains"]["biology"]


def test_spend_is_priced_by_model_and_a_missing_price_is_not_zero() -> None:
    ledger = [Spending("m", "generate", 2, 1_000_000, 500_000), Spending("other", "annotate", 1, 10, 10)]
    costs = costs_of(ledger, Prices(models={"m": Price(input=2.0, output=8.0)}))
    assert [one.cost for one in costs] == [6.0, None]


def test_a_distribution_is_that_of_a_hand_worked_case() -> None:
    assert distribution([1, 2, 3, 4, 5]) == {"mean": 3.0, "5%": 1.2, "25%": 2.0, "median": 3.0, "75%": 4.0, "95%": 4.8}


def test_the_command_prints_tables_and_leaves_a_page_that_needs_nothing_else(
    workspace: Workspace, tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, ["stats", str(workspace.path), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "biology, reasoning queries" in done.stdout and "annotate, recorded:pocket" in done.stdout
    data = json.loads((tmp_path / "out/statistics.json").read_text())
    assert set(data["domains"]) == {"biology", "pony"}
    select = data["domains"]["biology"]["stages"][0]
    assert select["dropped"] == {"not_listed": 21, "off_domain": 2, "too_short": 2}
    page = (tmp_path / "out/statistics.html").read_text()
    assert page.count("<h2") == 5 and 'src="http' not in page and "<script" not in page


def test_what_is_no_workspace_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished stage"):
        measure_statistics(tmp_path)
    with pytest.raises(InputError, match="no finished stage of law"):
        measure_statistics(tmp_path, domains=["law"])
