"""The shipped recipes say what the paper and its release say, and each key where it is from."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from reasonembed.encoder.lora import LoraSettings
from reasonembed.errors import ConfigError, InputError
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.recipe import load_recipe, recipe_names

BACKBONES = {
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-4b": "Qwen/Qwen3-4B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B",
}
PAPER = {
    "loss": "ri-infonce",
    "temperature": 0.02,
    "kappa": 5,
    "epsilon": 1e-6,
    "start_step": 100,
    "mask_positives": False,
    "instruction": True,
    "learning_rate": 1e-4,
    "warmup_share": 0.1,
    "epochs": 1,
    "max_query_tokens": 512,
    "max_passage_tokens": 512,
    "lora": LoraSettings(rank=32, alpha=64),
    "pooling": "last_token",
    "bf16": True,
    "group_size": None,  # the domain's: 16 passages and 64 queries, leetcode 2 and 512, pony 64 and 16
    "global_queries": None,
    "domain_weights": {},
    "train_layers": None,
}  # fmt: skip
"""PAPER.md, section 2, typed anew."""


def _text(name: str) -> str:
    return (resources.files("reasonembed.redapter") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbones_recipe_has_the_papers_constants(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.base == BACKBONES[name]
    assert {key: getattr(recipe.training, key) for key in PAPER} == PAPER


def test_the_backbones_differ_in_nothing_but_the_base_and_minilm_is_the_demos_recipe() -> None:
    assert recipe_names() == sorted([*BACKBONES, "minilm"])
    (one,) = {re.sub(r"^.*?(?=\[training\])", "", _text(name), flags=re.S) for name in BACKBONES}
    assert one.startswith("[training]")
    minilm = load_recipe("minilm")
    assert minilm.base == "minilm"
    assert (minilm.training.bf16, minilm.training.lora, minilm.training.instruction) == (False, None, False)


@pytest.mark.parametrize("name", [*BACKBONES, "minilm"])
def test_each_key_of_a_recipe_stands_with_its_origin(name: str) -> None:
    table = _text(name).split("[training]\n")[1]
    keys = [line for line in table.splitlines() if re.match(r"\w+ = ", line)]
    assert len(keys) >= 12
    for line in keys:
        assert re.search(r"# \S+", line), line


def test_an_unknown_recipe_is_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(
        ConfigError, match=r'unknown recipe "qwen3-8"; did you mean "qwen3-8b"\? Known: llama-3\.1-8b, '
    ):
        load_recipe("qwen3-8")
    for hostile in ("../recipes/minilm", "/etc/passwd", ""):
        with pytest.raises(ConfigError, match="unknown recipe"):
            load_recipe(hostile)


def test_a_recipe_of_ones_own_is_a_file_whose_mistakes_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "mine"\nbase = "models/x"\n[training]\nepochs = 2\n')
    assert load_recipe(str(path)).training == TrainConfig(epochs=2)
    path.write_text(path.read_text().replace("epochs", "epoch"))
    with pytest.raises(
        ConfigError, match=r'mine\.toml, line 4: unknown key "epoch" in \[training\]; did you mean "epochs"'
    ):
        load_recipe(path)
    with pytest.raises(InputError, match="there is no file"):
        load_recipe(tmp_path / "yours.toml")
