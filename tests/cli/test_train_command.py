"""`reasonembed train` with recipes and in two stages, on models of a few kilobytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from reasonembed.cli.main import app
from reasonembed.encoder.model import Encoder
from reasonembed.errors import ReasonEmbedError
from reasonembed.files import write_jsonl

ROOT = Path(__file__).resolve().parents[2]
TOPICS = ["heat", "water", "price", "demand", "sleep", "memory"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six examples of the published format in a folder, and beside it as many triples and a domain file."""
    rows = [
        {
            "prompt": "Find it.",
            "query": f"why {topic}",
            "reasoning_query": f"the theory of {topic}",
            "pos": [f"{topic} in theory"],
            "neg": ["the sea", "a joint"],
            "train_group_size": 3,
        }
        for topic in TOPICS
    ]
    write_jsonl(tmp_path / "reason-embed-data-0928" / "biology-formatted.jsonl", rows)
    passages = [{"docid": topic, "title": topic, "text": f"of {topic}"} for topic in TOPICS]
    triples = [
        {"query_id": str(n), "query": f"what is {topic}", "positive_passages": [passages[n]],
         "negative_passages": [passages[n - 1], passages[n - 2]]}
        for n, topic in enumerate(TOPICS)
    ]  # fmt: skip
    write_jsonl(tmp_path / "msmarco.jsonl.gz", triples)
    return tmp_path


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def train(*arguments: str | Path) -> str:
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.stdout


def refused(*arguments: str | Path) -> str:
    done = invoke(*arguments)
    assert isinstance(done.exception, ReasonEmbedError) and done.exception.exit_code == 2, done.output
    return str(done.exception)


def settings(model: Path) -> dict[str, Any]:
    """What the model was trained by, as its manifest says."""
    found: dict[str, Any] = json.loads((model / "manifest.json").read_text())["receipt"]["config"]
    return found


@pytest.mark.parametrize(("recipe", "base"), [("qwen3-8b", "qwen3"), ("llama-3.1-8b", "llama")])
def test_a_recipe_trains_a_small_model_of_its_kind_and_sentence_transformers_gives_its_vectors(
    data: Path, tiny_models: dict[str, Path], recipe: str, base: str
) -> None:
    from sentence_transformers import SentenceTransformer

    out = data / "model"
    train(data / "reason-embed-data-0928", "--recipe", recipe, "--base", tiny_models[base], "--out", out)
    trained = settings(out)
    lora = {"rank": 32, "alpha": 64, "dropout": 0.0, "quantize_base": False}
    assert (trained["lora"], trained["bf16"], trained["pooling"]) == (lora, True, "last_token")
    texts = ["why water", "the theory of sleep " * 30, ""]
    ours = Encoder.load(out)
    prompt = "Instruct: Find it.\nQuery: "
    theirs = SentenceTransformer(str(out), device="cpu")
    assert theirs.prompts["biology"] == prompt
    assert np.abs(theirs.encode(texts, prompt_name="biology") - ours.encode(texts, prompt=prompt)).max() < 2e-6
    before = Encoder.load(tiny_models[base]).encode(texts, prompt=prompt)
    assert np.abs(ours.encode(texts, prompt=prompt) - before).max() > 1e-5, "it learned something"


def test_a_flag_overrides_the_file_that_overrides_the_recipe_that_overrides_the_defaults(
    data: Path, tiny_models: dict[str, Path]
) -> None:
    config = data / "config.toml"
    config.write_text("temperature = 0.5\nlearning_rate = 1e-3\nlora = { rank = 4 }\n")
    files, out = data / "reason-embed-data-0928", data / "model"
    command = [files, "--recipe", "qwen3-4b", "--base", tiny_models["qwen3"], "--config", config, "--out", out]
    train(*command, "--temperature", "0.1", "--lora")
    found = settings(out)
    assert found["temperature"] == 0.1, "the flag"
    assert found["learning_rate"] == 1e-3, "the file"
    assert (found["lora"]["rank"], found["lora"]["alpha"]) == (4, 64), (
        "the file, and what it leaves open from the recipe"
    )
    assert (found["bf16"], found["mask_positives"]) == (True, False), "the recipe"
    assert found["seed"] == 42, "the default"
    assert "lora and train_layers cannot go together" in refused(*command, "--train-layers", "1")
    config.write_text("train_layers = 1\n")
    assert "lora and train_layers cannot go together" in refused(*command)
    train(*command, "--no-lora", "--restart")
    assert (settings(out)["lora"], settings(out)["train_layers"]) == (None, 1)


def test_qlora_is_lora_on_a_base_in_four_bits(data: Path, tiny_models: dict[str, Path]) -> None:
    config = data / "config.toml"
    config.write_text("lora = { rank = 4 }\n")
    command = [data / "reason-embed-data-0928", "--base", tiny_models["qwen3"], "--group-size", "2", "--qlora"]
    for more, rank in (([], 32), (["--config", config], 4)):
        train(*command, *more, "--out", data / f"model-{rank}")
        found = settings(data / f"model-{rank}")["lora"]
        assert (found["rank"], found["quantize_base"]) == (rank, True)
    assert "Leave one of them out" in refused(*command, "--no-lora", "--out", data / "none")


def test_the_two_stages_of_the_docs_can_be_followed(
    data: Path, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8").split("## Two stages\n")[1].split("\n## ")[0]
    block = re.search(r"```\n(reasonembed train .*?)```", page, re.S)
    domain = re.search(r"```toml\n(.*?)```", page, re.S)
    assert block is not None and domain is not None
    monkeypatch.chdir(data)
    (data / "msmarco.toml").write_text(domain.group(1))
    first, second = (line.split()[2:] for line in block.group(1).splitlines())
    train(*first, "--base", tiny_models["qwen3"])
    train(*second)
    stages = [data / second[second.index("--base") + 1], data / second[second.index("--out") + 1]]
    assert [settings(model)["loss"] for model in stages] == ["infonce", "ri-infonce"]
    manifest = json.loads((stages[1] / "manifest.json").read_text())
    assert (manifest["receipt"]["base"], manifest["domains"]) == (stages[0].name, ["biology"])
    assert Encoder.load(stages[0]).prompts["msmarco"].startswith("Instruct: Given a web search query")


def test_triples_are_refused_by_ri_infonce_with_the_flag_that_trains_them(
    data: Path, tiny_models: dict[str, Path]
) -> None:
    said = refused(data / "msmarco.jsonl.gz", "--base", tiny_models["bert"], "--out", data / "m")
    assert "'msmarco:1' of msmarco has no reasoning query" in said and "--loss infonce" in said


def test_recipes_are_listed_and_a_model_is_asked_for_where_none_names_one(data: Path) -> None:
    listed = CliRunner().invoke(app, ["train", "--list-recipes"]).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["llama-3.1-8b", "minilm", "qwen3-0.6b", "qwen3-4b", "qwen3-8b"]
    assert "Qwen/Qwen3-8B" in listed[-1]
    files = data / "reason-embed-data-0928"
    assert re.match(r"--base is missing.*--recipe llama-3\.1-8b, minilm", refused(files, "--out", data / "m"))
    assert "--out is missing" in refused(files, "--base", "minilm")
    assert 'did you mean "minilm"' in refused(files, "--recipe", "minilmm")


def test_weights_of_domains_are_keys_of_the_configuration(data: Path, tiny_models: dict[str, Path]) -> None:
    (data / "config.toml").write_text("[domain_weights]\nbiology = 2.5\n")
    files = data / "reason-embed-data-0928"
    command = [files, "--base", tiny_models["bert"], "--config", data / "config.toml", "--out", data / "m"]
    plan = train(*command, "--global-queries", "2", "--dry-run")
    assert re.search(r"biology +6 +3 +2 +8$", plan, re.M), plan  # 3 + 3 + 2 batches visit all, all, and a half
    assert train(*command, "--global-queries", "2").startswith("8 steps")
    (data / "config.toml").write_text("[domain_weights]\nbiologie = 2.5\n")
    for flags in ([], ["--dry-run"]):
        assert 'did you mean "biology"' in refused(*command[:-1], data / "n", *flags)
