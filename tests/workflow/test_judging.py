"""Judging from the command line on a published benchmark's files, with the real MiniLM."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from reasonembed.cli.main import app
from reasonembed.encoder.backbones import public_name
from reasonembed.evaluate.benchmarks import load_collections
from reasonembed.workflow.judging import file_names, judge, recorded_run
from reasonembed.workflow.reranking import AnnotatorGrader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = {
        "documents": [{"id": "1", "content": "Actors run concurrently."}, {"id": "2", "content": "Rivers flood."}],
        "examples": [{"id": "7", "query": "How do actors work?", "gold_ids": ["1"], "excluded_ids": ["N/A"]}],
    }
    for config, lines in rows.items():
        path = tmp_path / "BRIGHT" / config / "pony.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "BRIGHT"


def evaluate(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.stdout


def test_a_published_benchmark_brings_its_instructions_length_and_measure(folder: Path) -> None:
    words = ["-B", f"bright:{folder}", "--domains", "pony", "--model", "minilm"]
    printed = evaluate(*words)
    assert "nDCG@10" in printed and "Recall@10" not in printed
    assert 'instruction "Given a Pony question, retrieve relevant passages that help answer the question."' in printed
    assert "at most 512 tokens" in printed  # of BRIGHT's 8,192, as many as the model has positions
    assert "benchmark: bright (local files, revision " in printed
    flags = evaluate(*words, "--instruction", "none", "--max-tokens", "64", "--measure", "MRR", "--measure", "MAP")
    assert "no instruction; at most 64 tokens" in flags and "figures: MRR, MAP by trec_eval" in flags


def test_no_path_of_a_local_model_is_printed_or_published(folder: Path, tmp_path: Path, minilm_path: Path) -> None:
    """A folder is called by its own name and its weights' hash; the bundled MiniLM by its public name."""
    from reasonembed.encoder.folder import fingerprint

    models = [tmp_path / "secret" / place / "mine" for place in ("a", "b")]
    for model in models:
        shutil.copytree(minilm_path, model)
    systems = tmp_path / "systems.toml"
    systems.write_text(f'[dense]\nmodel = "{models[0]}"\n[packed]\nmodel = "minilm"\n')
    words = [word for model in models for word in ("--model", model)]
    out = tmp_path / "out"
    printed = evaluate("-B", f"bright/pony:{folder}", *words, "--systems", systems, "--out", out)
    named = f"mine (weights {fingerprint(minilm_path)[:12]})"
    assert f"mine: {named}; search: exact" in printed and f"b/mine: {named}; search: exact" in printed
    assert f"dense: {named}; " in printed and "packed: sentence-transformers/all-MiniLM-L6-v2; " in printed
    written = [path for path in out.rglob("*") if path.is_file() and out / "cache" not in path.parents]
    assert len(written) > 10
    for text in (printed.split("\nresults ")[0], *(path.read_text() for path in written)):
        assert "secret" not in text and str(minilm_path) not in text


HOSTILE = [
    "a/b",
    "a_b",
    "A_B",
    "../up",
    "/abs",
    "..",
    ".",
    "",
    "a\x00b",
    "x" * 300,
    "x" * 299,
    "日本" * 200,
    "CON",
    "a b",
]


@given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=300)), unique=True))
@example(HOSTILE)
def test_whatever_systems_are_called_each_has_one_folder_of_its_own_inside(names: list[str]) -> None:
    found = file_names(names)
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        assert Path("/out/runs", name).parent == Path("/out/runs") and not name.startswith(".")
        assert not re.search(r"[\s/\\\x00]", name) and 0 < len(f"{name}.json".encode()) <= 255


def test_a_model_of_the_hub_keeps_its_name() -> None:
    assert public_name("Qwen/Qwen3-Embedding-0.6B") == "Qwen/Qwen3-Embedding-0.6B"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("http://user-host:8000/v1#m", "m"),
        ("batch:openai:gpt-4.1-mini", "gpt-4.1-mini"),
        ("recorded:/home/someone/replies", "recorded:replies"),
        ("recorded:pocket", "recorded:pocket"),
        ("scripted", "scripted"),
        ("local:Qwen/Qwen3-0.6B", "local:Qwen/Qwen3-0.6B"),
    ],
)
def test_a_reranker_is_named_without_address_or_path(spec: str, name: str, tmp_path: Path) -> None:
    assert AnnotatorGrader(spec, journal=tmp_path / "j").model.startswith(f"{name} (one grade")


def test_what_is_written_can_be_judged_again_from_its_search_results(folder: Path, tmp_path: Path) -> None:
    evaluate("-B", f"bright/pony:{folder}", "--bm25q", "--out", tmp_path / "one")
    written = tmp_path / "one/search_results/bm25q/pony.json"
    released = json.loads(written.read_text())
    assert (released["dataset_name"], released["split"]) == ("pony", "examples")
    assert list(released["search_results"]) == ["examples-7"]
    expected = json.loads((tmp_path / "one/results.json").read_text())["bm25q"]["nDCG@10"]["per_domain"]
    for run in (written, written.parent, tmp_path / "one/runs/bm25q", tmp_path / "one/runs/bm25q/pony.trec"):
        again = judge({"again": recorded_run(run)}, load_collections(f"bright/pony:{folder}"))
        assert again.results["again"]["nDCG@10"]["per_domain"] == expected
    printed = evaluate("-B", f"bright/pony:{folder}", "--run", written)
    assert "search: as in the run files" in printed
