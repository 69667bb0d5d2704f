"""The docs say what the code says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_is_their_own_help(generate: ModuleType) -> None:
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == generate.cli_page(), "run: python docs/generate.py"


def test_the_tree_names_every_module_with_its_first_sentence(generate: ModuleType) -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert page == generate.architecture_page(page), "run: python docs/generate.py"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "benchmarks/README.md"])
def test_links_between_the_docs_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    targets += re.findall(r"`((?:docs|benchmarks|src|tests|\.ci)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    for target in targets:
        assert (page.parent / target).exists() or (ROOT / target).exists(), f"{name} names {target}"
