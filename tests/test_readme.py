"""The README's commands and its Python example, word for word, against a real HTTP endpoint on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from reasonembed.corpora import read_corpus
from reasonembed.encoder.backbones import minilm_folder
from reasonembed.pocket import pocket_folder

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = 16


def section(title: str) -> str:
    """The text under a heading of the README."""
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The scripted model, served over HTTP by a process of its own."""
    command = [sys.executable, "-m", "reasonembed.llm.scripted_server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small `docs.jsonl`, where the commands are run."""
    documents = [document for document in read_corpus(pocket_folder("biology")) if len(document.text) < 900]
    rows = [{"id": document.doc_id, "text": document.text} for document in documents[:DOCUMENTS]]
    (tmp_path / "docs.jsonl").write_bytes(b"\n".join(msgspec.json.encode(row) for row in rows))
    return tmp_path


def run(arguments: list[str], folder: Path) -> str:
    """What the command prints; it must succeed."""
    environment = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_section_on_your_own_corpus_can_be_followed_word_for_word(endpoint: str, folder: Path) -> None:
    block = re.search(r"```\n(.*?)```", section("Synthesise data from your own corpus"), re.DOTALL)
    assert block is not None
    commands = [line for line in block.group(1).splitlines() if line]
    assert len(commands) == 6
    printed = []
    for command in commands:
        words = command.replace("http://localhost:8000/v1", endpoint).split('"')
        arguments = [part for place, text in enumerate(words) for part in ([text] if place % 2 else text.split())]
        assert arguments[0] == "reasonembed"
        code = ["-c", "from reasonembed.cli.main import main; main()"]
        printed.append(run([sys.executable, *code, *arguments[1:]], folder))
    plan, made, shown, counted, trained, found = printed
    assert "calls at most" in plan and "held out" in made
    assert "(never a candidate)" in shown
    assert "Positives and negatives of a query" in counted
    assert "held-out queries" in trained and re.search(r"^nDCG@10 +mean", trained, re.MULTILINE)
    assert len(found.splitlines()) == 10


def test_the_python_example_runs(endpoint: str, folder: Path) -> None:
    block = re.search(r"```python\n(.*?)```", section("The same in Python"), re.DOTALL)
    assert block is not None
    code = block.group(1).replace("http://localhost:8000/v1", endpoint)
    code = code.replace("sentence-transformers/all-MiniLM-L6-v2", str(minilm_folder()))
    assert "examples in runs/docs/general/release/general-formatted.jsonl" in run([sys.executable, "-c", code], folder)


def test_every_file_that_the_readme_names_is_there() -> None:
    named = re.findall(r"`((?:src|docs|benchmarks|tests)/[\w./-]+)`", README) + re.findall(
        r"\]\((?!http)([^)]+)\)", README
    )
    assert named
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_first_commands_are_the_ones_that_ci_runs() -> None:
    first = re.search(r"```\n(.*?)```", README, re.DOTALL)
    assert first is not None and first.group(1).split("\n")[:2] == ["make demo", "make test"]
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
