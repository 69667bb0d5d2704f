"""The docs say what the code says."""

from __future__ import annotations

import importlib.util
import re
import tomllib
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


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/training.md", "benchmarks/README.md"]
)
def test_links_between_the_docs_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    targets += re.findall(r"`((?:docs|benchmarks|src|tests|\.ci)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    for target in targets:
        assert (page.parent / target).exists() or (ROOT / target).exists(), f"{name} names {target}"


def test_the_training_page_names_every_key_of_the_loss_and_its_settings_load() -> None:
    from reasonembed.config import build
    from reasonembed.redapter.config import TrainConfig

    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    block, options = re.findall(r"```toml\n(.*?)```", page, re.S)[0], page.split("## Options of the loss\n")[1]
    shown = build(TrainConfig, tomllib.loads(block), where="docs/training.md")
    table = re.findall(r"^\| `(\w+)` \| (?:`?)(\w+)", options.split("\n## ")[0], re.M)
    meant: dict[str, tuple[object, ...]] = {"on": (True,), "false": (False,), "none": (None, ()), "0": (0.0,)}
    assert [key for key, _ in table] == [
        "mask_positives", "mask_margin", "multi_positive", "listwise_weight", "distill_weight", "matryoshka_dims",
    ]  # fmt: skip
    for key, neutral in table:
        default = getattr(TrainConfig(), key)
        assert default in meant[neutral], key
        assert key == "mask_positives" or getattr(shown, key) != default, "the example sets it"


def test_the_sentence_transformers_example_runs(
    monkeypatch: pytest.MonkeyPatch, minilm_path: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict[str, object] = {}
    exec(block.replace("sentence-transformers/all-MiniLM-L6-v2", str(minilm_path)), names)  # our own page
    assert names["trainer"].loss is names["loss"]  # type: ignore[attr-defined]
