"""The command line as a person meets it: real processes, exit codes, stdout for results, stderr for the rest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reasonembed.pocket import pocket_folder

BIOLOGY = pocket_folder("biology")
RECORDED = ["-m", "recorded:pocket", "-d", "biology", "--sources", str(BIOLOGY / "recorded.jsonl")]


def reasonembed(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with an empty home."""
    environment = {**os.environ, "HOME": str(cwd), "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "reasonembed", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def rows(path: Path) -> list[dict[str, object]]:
    """The lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace made by the command from recorded replies, with held-out queries."""
    folder = tmp_path_factory.mktemp("commands")
    done = reasonembed("synthesize", BIOLOGY, "-w", "runs/x", *RECORDED, "--holdout", "0.2", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs/x"


@pytest.mark.parametrize(
    "command",
    [
        "synthesize",
        "train",
        "evaluate",
        "score",
        "reproduce",
        "search",
        "show",
        "journal",
        "stats",
        "push",
        "doctor",
        "demo",
    ],
)
def test_every_command_explains_itself_with_an_example(command: str, tmp_path: Path) -> None:
    done = reasonembed(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"Example: reasonembed {command}" in done.stdout


def test_several_sources_per_query_are_refused_for_recordings_and_written_by_a_model(tmp_path: Path) -> None:
    several = ["-w", "w", "-d", "biology", "--sources-per-query", "2", "--limit", "4", "--stop-after", "generate"]
    refused = reasonembed("synthesize", BIOLOGY, "-m", "recorded:pocket", *several, cwd=tmp_path)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "sources_per_query is 2, but recorded:pocket" in refused.stderr
    written = reasonembed("synthesize", BIOLOGY, "-m", "scripted", *several, cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert re.search(r"generate +4 rows of 4", written.stdout)


def test_synthesize_says_what_each_stage_did_and_a_second_run_asks_nothing(workspace: Path) -> None:
    again = reasonembed(
        "synthesize", BIOLOGY, "-w", "runs/x", *RECORDED, "--holdout", "0.2", cwd=workspace.parent.parent
    )
    assert again.returncode == 0
    assert re.search(r"select +\(done before\) 27 rows of 52", again.stdout)
    assert (workspace / "biology/release/biology-formatted.jsonl").is_file()
    assert again.stdout.count("(done before)") == 8


def test_a_dry_run_prints_the_calls_and_writes_nothing(tmp_path: Path) -> None:
    done = reasonembed("synthesize", BIOLOGY, "-w", "runs/x", *RECORDED, "--limit", "5", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert re.search(r"annotate +to do +255 +255 +[\d,]+ +[\d,]+ +unknown", done.stdout)
    assert "estimated, characters / 4" in done.stdout and "no price is known for recorded:pocket" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_trial_that_is_extended_pays_only_for_what_is_new(tmp_path: Path) -> None:
    trial = ["synthesize", BIOLOGY, "-w", "w", "-m", "scripted", "--stop-after", "generate"]
    assert reasonembed(*trial, "--limit", "3", cwd=tmp_path).returncode == 0
    refused = reasonembed(*trial, "--limit", "6", cwd=tmp_path)
    assert refused.returncode == 2 and "limit was 3 and is 6 now" in refused.stderr
    extended = reasonembed(*trial, "--limit", "6", "--restart-from", "select", cwd=tmp_path)
    assert re.search(r"generate +6 rows of 6, 3 calls, 3 answers from the journal", extended.stdout)


def test_show_prints_query_source_positives_and_negatives_with_reasons(workspace: Path) -> None:
    done = reasonembed("show", workspace, "--limit", "1", "--json", cwd=workspace.parent)
    shown = json.loads(done.stdout)
    assert shown["source"]["doc_id"] + "-q0" == shown["query_id"]
    assert all(one["reason"] and one["grade"] >= 3 for one in shown["positives"])
    assert shown["source"]["doc_id"] not in [one["document"]["doc_id"] for one in shown["negatives"]]
    text = reasonembed("show", workspace, "--limit", "1", cwd=workspace.parent).stdout
    assert "(never a candidate)" in text and "positive " in text and "  why:" in text
    dropped = reasonembed("show", workspace, "--dropped", cwd=workspace.parent).stdout
    assert "biology-009  off_domain" in dropped and "too_short" in dropped


def test_training_ends_with_base_against_trained_on_the_held_out_queries(workspace: Path) -> None:
    recipe = ["--no-instruction", "--global-queries", "11", "--group-size", "2", "--train-layers", "1"]
    arguments = ["train", workspace, "--base", "minilm", "--out", "models/x", *recipe, "--start-step", "0"]
    folder = workspace.parent.parent
    planned = reasonembed(*arguments, "--dry-run", cwd=folder)
    assert re.search(r"biology +2\d +2 +11 +2", planned.stdout), planned.stdout + planned.stderr
    validation = ["--validation", workspace / "biology/holdout", "--validate-every-steps", "0"]
    done = reasonembed(*arguments, *validation, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^weights  after step \d, the best of 2 validations: nDCG@10 0\.\d+, base 0\.", done.stdout, re.M)
    assert "Validated: nDCG@10" in done.stderr and "chosen by validation on these queries" in done.stderr
    assert [row.keys() for row in rows(folder / "models/x/validation_log.jsonl")] == [
        {"step", "score", "per_domain", "seconds"}
    ] * 2
    assert "validation scores over optimiser steps" in (folder / "models/x-report/report.html").read_text()
    assert re.search(r"^base .*\ntrained", done.stdout, re.MULTILINE)
    assert "held-out queries" in done.stdout
    results = json.loads((folder / "models/x-report/results.json").read_text())
    assert set(results) == {"base", "trained"} and "vs_base" in results["trained"]["nDCG@10"]
    assert (folder / "models/x-report/report.html").read_text().startswith("<!doctype html>")
    found = reasonembed(
        "search", BIOLOGY, "Why would a nephew's keeper starve itself?", "-m", "models/x", "-k", "3", cwd=folder
    )
    assert len(found.stdout.splitlines()) == 3


def test_evaluate_scores_a_trec_run_without_a_model_and_prints_the_protocol(tmp_path: Path) -> None:
    first = reasonembed("evaluate", "-B", BIOLOGY, "--bm25", "--bm25q", "--out", "judged", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    results = json.loads((tmp_path / "judged/results.json").read_text())
    run = tmp_path / "judged/runs/bm25q/biology.trec"
    again = reasonembed("evaluate", "-B", BIOLOGY, "--run", run, "--out", "again", cwd=tmp_path)
    rescored = json.loads((tmp_path / "again/results.json").read_text())["biology"]
    assert rescored["nDCG@10"]["mean"] == pytest.approx(results["bm25q"]["nDCG@10"]["mean"], abs=1e-9)
    assert "7 original queries in 1 domain" in again.stdout and "as in the run file" in again.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["synthesize", "nothing.jsonl", "-w", "w", "-m", "scripted"], "there is no corpus at nothing.jsonl"),
        (["synthesize", str(BIOLOGY), "-w", "w", "-m", "scriptd"], 'did you mean "scripted"'),
        (["synthesize", str(BIOLOGY), "-w", "w", "-m", "scripted", "-d", "biolgy"], 'did you mean "biology"'),
        (["synthesize", str(BIOLOGY), "-w", "w", "-m", "scripted", "--holdout", "2"], "holdout is 2"),
        (["synthesize", str(BIOLOGY), "-w", "w", "-m", "scripted", "--stop-after", "mein"], 'did you mean "mine"'),
        (["evaluate", "-B", str(BIOLOGY)], "nothing to evaluate"),
        (["evaluate", "-B", "nowhere", "--bm25"], "there is no folder nowhere"),
        (["evaluate", "-B", str(BIOLOGY), "--model", str(BIOLOGY)], "model"),
        (["train", "nowhere", "--base", "minilm", "--out", "m"], "there is no nowhere"),
        (["train", str(BIOLOGY), "--base", "minilm", "--out", "m", "--patience", "0"], "patience is 0"),
        (
            ["train", "d", "--validate-every-steps", "0", "--patience", "9", "--base", "minilm", "--out", "m"],
            "validate_every_steps is 0",
        ),
        (["show", "nowhere"], "no finished examples"),
        (["search", str(BIOLOGY), " "], "the query is empty"),
    ],
)
def test_a_mistake_ends_with_one_sentence_and_exit_code_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = reasonembed("-q", *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert said in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")


def test_a_mistake_in_the_users_domain_file_is_named_with_its_line(tmp_path: Path) -> None:
    shown = reasonembed("domains", "show", "general", cwd=tmp_path).stdout
    (tmp_path / "mine.toml").write_text(shown.replace("relevance =", "relevnce ="))
    done = reasonembed("domains", "show", "mine.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(r'mine\.toml, line \d+: unknown key "relevnce"; did you mean "relevance"\?', done.stderr)


def test_a_new_domain_is_made_from_flags_and_what_is_missing_is_named(tmp_path: Path) -> None:
    flags = ["--query-kind", "tax question", "--document-kind", "statute", "--relevance", "it settles the question."]
    short = reasonembed("domains", "new", "tax_law", *flags, cwd=tmp_path)
    assert short.returncode == 2 and "lacks --instruction, --generation" in short.stderr
    flags += ["--instruction", "Find the statute.", "--generation", "a tax question."]
    made = reasonembed("domains", "new", "tax_law", *flags, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert 'query_kind = "tax question"' in reasonembed("domains", "show", "tax_law.toml", cwd=tmp_path).stdout
    assert "exists already" in reasonembed("domains", "new", "tax_law", *flags, cwd=tmp_path).stderr


def test_doctor_finds_a_torchvision_that_does_not_match(tmp_path: Path) -> None:
    from reasonembed.doctor import _torchvision, examine

    assert _torchvision("2.13.0", "0.28.0")[0].state == "ok"
    assert _torchvision("2.13.0", "0.20.1")[0].state == "wrong"
    assert _torchvision("2.13.0", None) == []
    assert not [finding for finding in examine(tmp_path) if finding.state == "wrong"]
