"""Data size: nested subsets trained by one recipe, judged alike, resumed; with a real tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from reasonembed.beir import Collection, write_beir
from reasonembed.cli.main import app
from reasonembed.corpora import Corpus
from reasonembed.domains import load_domain
from reasonembed.errors import UserError
from reasonembed.evaluate.benchmarks import load_collections, open_benchmark
from reasonembed.files import write_jsonl
from reasonembed.records import Document, Query
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import data_hash
from reasonembed.workflow.judging import dense, judge
from reasonembed.workflow.scaling import instructions_for, plan_scaling

RECIPE = (
    'loss = "infonce"\nlearning_rate = 1e-3\nglobal_queries = 4\ngroup_size = 2\n'
    "max_query_tokens = 24\nmax_passage_tokens = 24\n"
)
TOPICS = ["heat", "water", "price", "demand", "sleep", "memory", "robot", "torque", "graph", "prime"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Training data in the released format, a benchmark, and a recipe."""
    for domain, count in (("biology", 6), ("pony", 4)):
        rows = [
            {"prompt": "Find.", "query": f"why {topic}", "pos": [f"{topic} of {domain}"], "neg": ["the sea", "a joint"]}
            for topic in TOPICS[:count]
        ]
        write_jsonl(tmp_path / "data" / f"{domain}-formatted.jsonl", rows)
    documents = {f"d{number}": Document(f"d{number}", f"about {topic}") for number, topic in enumerate(TOPICS)}
    queries = {f"q{number}": Query(f"q{number}", f"how {topic}?") for number, topic in enumerate(TOPICS)}
    qrels = {f"q{number}": {f"d{number}": 1} for number in range(len(TOPICS))}
    write_beir(tmp_path / "bench", Collection("bench", Corpus(documents, origin="here", sha256="0"), queries, qrels))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def run(study: Path, model: Path, *flags: str) -> Result:
    command = ["analyze", "scaling", study / "data", "--base", model, "-B", study / "bench", "-o", study / "out"]
    return CliRunner().invoke(app, [*map(str, command), "--config", str(study / "recipe.toml"), *flags])


def scaling(study: Path, model: Path, *flags: str) -> str:
    done = run(study, model, *flags)
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.stdout


def refused(study: Path, model: Path, *flags: str) -> str:
    done = run(study, model, *flags)
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


def test_one_command_trains_nested_sizes_and_judges_them_as_any_model_is_judged(
    study: Path, tiny_models: dict[str, Path]
) -> None:
    printed = scaling(study, tiny_models["bert"], "--sizes", "5,10,2")
    assert "10 samples" in printed and "benchmark: " in printed and "figures: nDCG@10" in printed
    content = json.loads((study / "out/scaling.json").read_text())
    assert [point["samples"] for point in content["points"]] == [0, 2, 5, 10]
    assert [point["domains"] for point in content["points"]] == [
        {}, {"biology": 1, "pony": 1}, {"biology": 3, "pony": 2}, {"biology": 6, "pony": 4},
    ]  # fmt: skip
    page = (study / "out/scaling.html").read_text()
    assert "Line plot of nDCG@10 in points over training samples; 2: " in page and "biology 3, pony 2" in page
    plan = plan_scaling([study / "data"], base=tiny_models["bert"], config=_recipe(), sizes=[2, 5, 10])
    names = [{example.example_id for example in subset.examples} for subset in plan.subsets]
    assert names[0] < names[1] < names[2]
    for point, subset in zip(content["points"][1:], plan.subsets, strict=True):
        folder = study / "out/models" / str(point["samples"])
        manifest = json.loads((folder / "manifest.json").read_text())
        assert manifest["receipt"]["data_hash"] == data_hash(subset.examples)
        assert manifest["receipt"]["config"]["loss"] == "infonce"
        assert manifest["totals"]["steps"] == point["steps"] == len((folder / "train_log.jsonl").open().readlines())
    instruction = instructions_for(load_collections(study / "bench"), open_benchmark(study / "bench"), plan)
    for folder, point in ((tiny_models["bert"], 0), (study / "out/models/10", 3)):
        apart = judge({"m": dense(folder, instructions=instruction, max_tokens=24)}, load_collections(study / "bench"))
        scores = content["points"][point]["scores"]["nDCG@10"]
        assert {key: scores[key] for key in ("mean", "low", "high")} == {
            key: apart.results["m"]["nDCG@10"][key] for key in ("mean", "low", "high")
        }


def test_a_finished_size_is_not_trained_again_and_another_recipe_is_refused(
    study: Path, tiny_models: dict[str, Path]
) -> None:
    scaling(study, tiny_models["bert"], "--sizes", "2,5")
    before = {size: (study / f"out/models/{size}/model.safetensors").stat().st_mtime_ns for size in (2, 5)}
    first = json.loads((study / "out/scaling.json").read_text())
    scaling(study, tiny_models["bert"], "--sizes", "2,5,10")
    assert before == {size: (study / f"out/models/{size}/model.safetensors").stat().st_mtime_ns for size in (2, 5)}
    second = json.loads((study / "out/scaling.json").read_text())
    assert [p["scores"]["nDCG@10"]["mean"] for p in first["points"]] == [
        p["scores"]["nDCG@10"]["mean"] for p in second["points"][:3]
    ]
    said = refused(study, tiny_models["bert"], "--sizes", "2,5", "--epochs", "3")
    assert "epochs was 1 and is 3 now" in said
    said = refused(study, tiny_models["bert"], "--sizes", "2,5", "--seed", "4")
    assert "the training examples were others" in said


def test_a_dry_run_prints_sizes_steps_and_protocol_and_writes_nothing(
    study: Path, tiny_models: dict[str, Path]
) -> None:
    printed = scaling(study, tiny_models["bert"], "--dry-run", "--epochs", "2").splitlines()
    assert [line.split()[:2] for line in printed[1:5]] == [["1", "2"], ["2", "4"], ["5", "4"], ["10", "6"]]
    assert "biology 6, pony 4" in printed[4]
    assert "every size from bert, infonce, 2 epochs of its own samples" in " ".join(printed)
    assert not (study / "out").exists()


def test_sizes_that_are_no_numbers_or_too_large_are_named(study: Path, tiny_models: dict[str, Path]) -> None:
    assert '--sizes is "2,many"' in refused(study, tiny_models["bert"], "--sizes", "2,many")
    assert "a size is 11; it must be from 1 to the 10" in refused(study, tiny_models["bert"], "--sizes", "11")


def test_base_and_trained_models_get_the_same_instruction_and_none_where_none_was_trained(study: Path) -> None:
    plan = plan_scaling([study / "data"], base="minilm", config=_recipe())
    bench = open_benchmark(study / "bench")
    collections = load_collections(study / "bench")
    named = {"biology": collections["bench"], "bench": collections["bench"]}
    found = instructions_for(named, bench, plan)
    assert found["biology"] == "Find." and found["bench"] == load_domain("general").instruction
    own = msgspec.structs.replace(bench, instructions={"biology": "Mine."})
    assert instructions_for(named, own, plan)["biology"] == "Mine."
    bare = msgspec.structs.replace(plan, config=msgspec.structs.replace(plan.config, instruction=False))
    assert instructions_for(named, own, bare) == {"biology": "", "bench": ""}


def _recipe() -> TrainConfig:
    return msgspec.toml.decode(RECIPE, type=TrainConfig)
