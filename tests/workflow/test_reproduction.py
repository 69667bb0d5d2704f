from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from reasonembed.cli.main import app
from reasonembed.errors import ConfigError, InputError
from reasonembed.evaluate.benchmarks import open_benchmark
from reasonembed.evaluate.reproduction import AVERAGE, compare, load_recipe, recipe_names
from reasonembed.workflow.reproduction import reproduce

RECIPE = """
name = "tiny"
title = "BM25 on two small domains"
source = "worked out by hand"
benchmark = "bright/biology,pony"
bm25 = "query"

[tolerance]
ok = 0.5
close = 1.5

[expected]
average = {average}

[expected.domains]
biology = {biology}
pony = 100
"""
SECOND = 100 / math.log2(3)  # biology: the one relevant document comes second


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = {
        "documents/biology": [{"id": "z", "content": "red fish"}, {"id": "a", "content": "blue fish"}],
        "examples/biology": [{"id": "1", "query": "fish", "gold_ids": ["a"], "excluded_ids": ["N/A"]}],
        "documents/pony": [{"id": "1", "content": "actors"}, {"id": "2", "content": "actors send messages"}],
        "examples/pony": [{"id": "1", "query": "messages", "gold_ids": ["2"], "excluded_ids": ["1"]}],
    }
    for name, lines in rows.items():
        path = tmp_path / "BRIGHT" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "BRIGHT"


def recipe(tmp_path: Path, *, biology: float, average: float) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(biology=biology, average=average))
    return path


def test_scores_as_expected_are_ok_near_ones_close_and_others_fail(folder: Path, tmp_path: Path) -> None:
    data = f"bright/biology,pony:{folder}"
    for off, verdict in ((0.4, "OK"), (-1.4, "close"), (1.6, "FAIL")):
        path = recipe(tmp_path, biology=SECOND + off, average=(SECOND + 100) / 2)
        found = reproduce(load_recipe(path), data=data)
        assert [(line.domain, line.verdict) for line in found.comparisons] == [
            ("biology", verdict),
            ("pony", "OK"),
            (AVERAGE, "OK"),
        ]
        assert found.comparisons[0].ours == pytest.approx(SECOND)
        assert found.comparisons[0].difference == pytest.approx(-off)
        assert found.failed == (verdict == "FAIL")


def test_the_command_prints_each_domain_and_fails_with_exit_code_1(folder: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, biology=50, average=(SECOND + 100) / 2)
    arguments = ["reproduce", str(path), "--data", f"bright/biology,pony:{folder}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert "biology                 63.09     50.00      +13.09  FAIL" in done.stdout
    assert "pony                   100.00    100.00       +0.00  OK" in done.stdout
    assert "1 pairs excluded before the cut" in done.stdout
    some = CliRunner().invoke(app, [*arguments[:3], f"bright:{folder}", "--domains", "pony"])
    assert some.exit_code == 0 and f"\n{AVERAGE}" not in some.stdout and "\nbiology" not in some.stdout
    assert f"\n{AVERAGE}" in done.stdout
    narrow = CliRunner().invoke(app, [*arguments[:3], f"bright/pony:{folder}"])  # one domain's mean is not that of both
    assert narrow.exit_code == 0 and f"\n{AVERAGE}" not in narrow.stdout
    dry = CliRunner().invoke(app, ["reproduce", str(path), "--dry-run"])
    assert dry.exit_code == 0 and "ours" not in dry.stdout
    assert "command: reasonembed evaluate --benchmark bright/biology,pony --measure nDCG@10 --bm25q" in dry.stdout


def test_what_cannot_be_reproduced_is_refused(folder: Path, tmp_path: Path) -> None:
    tiny = load_recipe(recipe(tmp_path, biology=1, average=1))
    with pytest.raises(ConfigError, match=r"tiny is judged on bright/biology,pony; the data is"):
        reproduce(tiny, data=str(folder))
    with pytest.raises(ConfigError, match="needs no model"):
        reproduce(tiny, data=f"bright:{folder}", model="m")
    with pytest.raises(InputError, match=r"there is no .*aops"):
        reproduce(load_recipe("bm25-query-side"), data=f"bright/aops:{folder}")
    with pytest.raises(ConfigError, match="nothing can be compared"):
        reproduce(load_recipe("bm25-bag-of-words"), data=f"bright:{folder}", domains=["pony"])
    with pytest.raises(ConfigError, match=r'unknown recipe "bm25-query"; did you mean "bm25-query-side"'):
        load_recipe("bm25-query")
    path = recipe(tmp_path, biology=1, average=1)
    path.write_text(path.read_text() + 'bm25 = "bag"\n')
    with pytest.raises(ConfigError, match=r"tiny\.toml"):
        load_recipe(path)
    path.write_text(RECIPE.format(biology=1, average=1).replace('bm25 = "query"', ""))
    with pytest.raises(ConfigError, match='give either "model" or "bm25"'):
        load_recipe(path)


def test_every_shipped_recipe_is_whole_and_its_figures_add_up() -> None:
    names = recipe_names()
    assert len(names) == 12
    for name in names:
        shipped = load_recipe(name)
        assert shipped.name == name and shipped.source
        domains = shipped.expected.domains
        benchmark = open_benchmark(shipped.benchmark)
        assert list(domains) in ([], list(benchmark.instructions))
        assert shipped.expected.average is not None
        if domains:  # published figures are rounded, each on its own
            step = 0.1 if shipped.benchmark == "bright" else 0.01
            assert sum(domains.values()) / len(domains) == pytest.approx(shipped.expected.average, abs=step), name
        exact = compare(shipped, {d: v / 100 for d, v in domains.items()}, shipped.expected.average / 100)
        assert {line.verdict for line in exact} == {"OK"}


def test_the_command_of_a_recipe_is_one_that_evaluate_understands() -> None:
    evaluate = get_command(app).commands["evaluate"]  # type: ignore[attr-defined]
    for name in recipe_names():
        shipped = load_recipe(name)
        program, command, *arguments = shlex.split(shlex.join(shipped.command()))
        parsed = evaluate.make_context(command, arguments).params
        assert (program, command, parsed["benchmark"]) == ("reasonembed", "evaluate", [shipped.benchmark])
        assert parsed["max_tokens"] == shipped.max_tokens
        assert (parsed["model"] == [shipped.model]) if shipped.model else (parsed["bm25"] or parsed["bm25q"])


def test_the_list_names_every_recipe() -> None:
    done = CliRunner().invoke(app, ["reproduce", "--list"])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == recipe_names()
