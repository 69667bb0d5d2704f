"""Triviality: what queries share with their sources, positives and negatives, and where BM25 puts the source."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from reasonembed.analyze.overlap import overlap
from reasonembed.analyze.rouge import rouge_l
from reasonembed.analyze.triviality import RankedSource, example_overlap, rank_bins, source_rank
from reasonembed.analyze.triviality_sections import text_lines
from reasonembed.cli.main import app
from reasonembed.errors import ConfigError, InputError
from reasonembed.files import write_jsonl
from reasonembed.pocket import pocket_folder
from reasonembed.records import Companion, Example
from reasonembed.redapter.data import TrainingExample, read_released
from reasonembed.search.bm25 import Bm25Index
from reasonembed.search.ranking import rank_of, top_k
from reasonembed.texts import words
from reasonembed.workflow.synthesis import synthesize
from reasonembed.workflow.triviality import measure_triviality


def example(query: str, positives: tuple[str, ...] = ("no",), negatives: tuple[str, ...] = ("no",)) -> TrainingExample:
    return TrainingExample("x:1", "x", "Find.", query, "", positives, negatives)


def test_rouge_l_is_that_of_a_hand_worked_case() -> None:
    # Lin 2004, section 3.1: "police killed the gunman" against "police kill the gunman": LCS 3 of 4 and 4 words;
    # "the gunman kill police" shares 2 in order.
    reference = ["police", "killed", "the", "gunman"]
    assert rouge_l(reference, ["police", "kill", "the", "gunman"]) == 3 / 4
    assert rouge_l(reference, ["the", "gunman", "kill", "police"]) == 2 / 4
    assert rouge_l(reference, []) == rouge_l([], []) == 0.0


def test_rouge_l_is_that_of_googles_rouge_score() -> None:
    scoring = pytest.importorskip("rouge_score.rouge_scorer")

    class Spaces:
        def tokenize(self, text: str) -> list[str]:
            return text.split()

    scorer, rng = scoring.RougeScorer(["rougeL"], tokenizer=Spaces()), random.Random(0)
    for _ in range(300):
        one, other = (rng.choices(["rain", "wind", "snow", "sea", "größe"], k=rng.randrange(90)) for _ in range(2))
        expected = scorer.score(" ".join(one), " ".join(other))["rougeL"].fmeasure
        assert rouge_l(one, other) == pytest.approx(expected)


def test_plain_english_is_cut_into_words_as_rouge_score_does() -> None:
    tokenizers = pytest.importorskip("rouge_score.tokenizers")
    text = "Why don't LEAVES, in autumn (2021), turn blue?\nA 3.5% rise..."
    assert words(text) == tokenizers.DefaultTokenizer(use_stemmer=False).tokenize(text)


def test_each_text_has_its_figures_in_its_place() -> None:
    found = example_overlap(
        example("rain and wind", ("wind and rain", "sea"), ("rain and wind",)), RankedSource("the rain", 7)
    )
    assert found.rouge_l == {"source": (2 / 5,), "positives": (1 / 3, 0.0), "negatives": (1.0,)}
    assert found.jaccard["positives"] == (1.0, 0.0)  # the same words, "and" left out
    assert found.jaccard["source"] == (overlap("rain and wind", "the rain").jaccard,) == (1 / 2,)
    assert found.source_rank == 7
    assert "source" not in example_overlap(example("rain")).rouge_l


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0 + 1e-9]), min_size=1, max_size=12), st.randoms())
def test_a_rank_is_the_place_in_the_ranking_ties_and_all(scores: list[float], shuffle: random.Random) -> None:
    ids = [f"d{number}" for number in range(len(scores))]
    shuffle.shuffle(ids)
    ranking = list(top_k(np.array(scores), ids, k=len(ids)))
    assert [rank_of(np.array(scores), ids, row) for row in range(len(ids))] == [1 + ranking.index(one) for one in ids]


DOCUMENTS = {
    "s": "glacier ice moves slowly downhill",
    "z-copy": "glacier ice moves slowly downhill",
    "far": "rivers flood in spring",
    "near": "glacier ice glacier ice moves",
    "none": "prime numbers",
}


def test_the_sources_rank_counts_no_copies_and_one_without_shared_terms_comes_last() -> None:
    index = Bm25Index.build(DOCUMENTS.values(), list(DOCUMENTS))
    places = {doc_id: row for row, doc_id in enumerate(DOCUMENTS)}

    def rank(query: str, source: str, *copies: str) -> int:
        return source_rank(index, Example("q", source, query, "", (), (), copies), places)

    query = "why does glacier ice move downhill slowly"
    found = [one for one in index.search({"q": query}, k=9)["q"] if one != "z-copy"]
    assert rank(query, "s", "z-copy", "gone") == 1 + found.index("s") == 1
    assert rank(query, "s") == 2  # the copy scores the same, and the greater id comes first
    assert rank("glacier", "s", "z-copy") == 2
    assert rank("glacier", "near", "z-copy") == 1
    assert rank(query, "none") == len(DOCUMENTS)


def test_of_several_sources_each_makes_a_pair_and_the_one_that_ranks_first_gives_the_rank() -> None:
    found = example_overlap(example("rain and wind"), RankedSource("the rain", 7, ("wind", "sea")))
    assert found.rouge_l["source"] == (2 / 5, 2 / 4, 0.0)
    index = Bm25Index.build(DOCUMENTS.values(), list(DOCUMENTS))
    places = {doc_id: row for row, doc_id in enumerate(DOCUMENTS)}

    def rank(query: str, source: str, *companions: Companion) -> int:
        return source_rank(index, Example("q", source, query, "", (), (), (), companions), places)

    query = "why does glacier ice move downhill slowly, and do rivers flood"
    order = list(index.search({"q": query}, k=9)["q"])
    assert order == ["z-copy", "s", "far", "near"]
    assert rank(query, "near") == 4
    assert rank(query, "near", Companion("far")) == 3
    assert rank(query, "near", Companion("far", ("z-copy",))) == 2
    assert rank(query, "far", Companion("near"), Companion("s", ("z-copy",))) == 1
    assert rank("glacier ice", "none", Companion("near")) == 1
    assert rank("glacier ice", "none", Companion("far")) == len(DOCUMENTS)


def test_ranks_are_counted_by_powers_of_ten() -> None:
    bins = rank_bins([1, 1, 2, 10, 11, 100, 1_000, 10_001])
    assert bins == {"1": 2, "2-10": 2, "11-100": 2, "to 1k": 1, "to 10k": 0, "above": 1}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ReMixer on the pocket's biology with recorded replies."""
    folder = tmp_path_factory.mktemp("triviality") / "runs"
    biology = pocket_folder("biology")
    synthesize(biology, domain="biology", workspace=folder, model="recorded:pocket", sources=biology / "recorded.jsonl")
    return folder


def test_a_workspace_is_measured_with_its_sources_and_the_release_of_it_without(workspace: Path) -> None:
    release = workspace / "biology/release"
    found = measure_triviality([workspace, release])
    ours, released = found.domains
    assert ours.domain == "biology" and released.domain == f"biology ({release})"
    assert found.without_sources == [released.domain]
    assert ours.documents == 52 and all(1 <= rank <= 52 for rank in ours.ranks())
    assert "source" not in released.examples[0].rouge_l and released.ranks() == []
    assert sorted(ours.pool("rouge_l", "negatives")) == sorted(released.pool("rouge_l", "negatives"))
    rows = read_released(release)
    expected = [rouge_l(words(row.query), words(text)) for row in rows for text in row.positives]
    assert sorted(released.pool("rouge_l", "positives")) == pytest.approx(sorted(expected))
    assert "Not measured: overlap with the source" in "\n".join(text_lines(found))
    with pytest.raises(InputError, match="given twice"):
        measure_triviality([workspace, release, release])


def test_a_sample_is_drawn_by_seed_whatever_the_order_and_said(workspace: Path, tmp_path: Path) -> None:
    lines = (workspace / "biology/release/biology-formatted.jsonl").read_text().splitlines()
    assert len(lines) > 8
    found = measure_triviality([workspace], sample=8, seed=1)
    names = {one.example_id for one in found.domains[0].examples}
    assert len(names) == 8 and names < {one.example_id for one in measure_triviality([workspace]).domains[0].examples}
    assert names != {one.example_id for one in measure_triviality([workspace], sample=8).domains[0].examples}
    assert (
        f"Of {len(lines)} examples 8 were measured: at most 8 of each domain, drawn by seed 1" in text_lines(found)[0]
    )
    with pytest.raises(ConfigError, match="sample is 0"):
        measure_triviality([workspace], sample=0)


def test_the_command_prints_medians_and_writes_json_and_one_page(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["analyze", "triviality", str(workspace), "--out", str(out)])
    assert done.exit_code == 0, done.output
    values = json.loads((out / "triviality.json").read_text())["domains"]["biology"]
    shown = re.search(r"ROUGE-L +source +positives +negatives\n-+\nbiology +([\d.]+)", done.stdout)
    assert shown and float(shown[1]) == round(values["rouge_l"]["source"]["median"], 3)
    rows = [json.loads(line) for line in (out / "triviality.jsonl").read_text().splitlines()]
    assert len(rows) == values["examples"]
    ranks = [row["source_rank"] for row in rows]
    assert values["source_rank"]["median"] == np.median(ranks)
    assert values["source_rank"]["share_top_10"] == pytest.approx(np.mean([rank <= 10 for rank in ranks]))
    page = (out / "triviality.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 6 and "http://" not in page.replace("http://www.w3.org", "")


def test_texts_of_pairs_are_shown_as_text_and_data_without_sources_make_a_page_too(tmp_path: Path) -> None:
    rows = [{"prompt": "Find.", "query": "why <b>rain</b>", "pos": ["<b>rain</b> why"], "neg": ["sea"]}]
    write_jsonl(tmp_path / "weather-formatted.jsonl", rows)
    done = CliRunner().invoke(app, ["analyze", "triviality", str(tmp_path), "-o", str(tmp_path / "o")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "o/triviality.html").read_text()
    assert "&lt;b&gt;rain&lt;/b&gt; why" in page and "Not measured" in page
    assert json.loads((tmp_path / "o/triviality.json").read_text())["domains"]["weather"]["source_rank"] is None
