"""What a training is validated on, and what is said where the queries that chose the weights judge them too."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonembed.beir import read_beir
from reasonembed.errors import InputError
from reasonembed.files import read_jsonl
from reasonembed.pocket import pocket_folder
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.log import ValidationRecord
from reasonembed.remixer.config import SynthesisConfig
from reasonembed.workflow.synthesis import synthesize
from reasonembed.workflow.training import TrainingReport, train
from reasonembed.workflow.training_data import load_validation

CONFIG = TrainConfig(
    global_queries=32, group_size=2, start_step=0, max_query_tokens=32, max_passage_tokens=32, learning_rate=1e-3
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two domains from recorded replies, each with queries held out."""
    folder = tmp_path_factory.mktemp("workspace") / "two"
    for domain in ("biology", "pony"):
        pocket = pocket_folder(domain)
        config = SynthesisConfig(holdout=0.2)
        synthesize(
            pocket,
            domain=domain,
            workspace=folder,
            model="recorded:pocket",
            config=config,
            sources=pocket / "recorded.jsonl",
        )
    return folder


def test_held_out_queries_go_by_the_name_of_their_domain(workspace: Path) -> None:
    whole = load_validation([workspace])
    assert list(whole) == ["biology", "pony"]
    single = load_validation([workspace / "pony" / "holdout"])
    assert list(single) == ["pony"] and single["pony"].sha256 == whole["pony"].sha256
    assert single["pony"].queries.keys() == read_beir(workspace / "pony" / "holdout").queries.keys()
    both = load_validation([workspace / "pony" / "holdout", pocket_folder("biology")])
    assert list(both) == ["pony", "biology"]


def test_what_is_no_folder_of_queries_is_refused(workspace: Path, tmp_path: Path) -> None:
    for word in ("bright", "r2med/Biology", "pocket", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="there is no folder"):
            load_validation([word])
    with pytest.raises(InputError, match='two collections are named "pony"'):
        load_validation([workspace, workspace / "pony" / "holdout"])
    nothing = SynthesisConfig(holdout=0)
    pocket = pocket_folder("pony")
    options = {"config": nothing, "sources": pocket / "recorded.jsonl"}
    synthesize(pocket, domain="pony", workspace=tmp_path / "w", model="recorded:pocket", **options)
    with pytest.raises(InputError, match="holds no queries out"):
        load_validation([tmp_path / "w"])


def _trained(workspace: Path, model: Path, out: Path, *validation: Path) -> tuple[TrainingReport, str]:
    """A training, and its HTML report."""
    report = train(workspace, base=model, out=out, config=CONFIG, validation=validation)
    assert report.report_path is not None
    return report, report.report_path.read_text()


def test_the_report_draws_validation_and_says_where_its_scores_are_flattered(
    workspace: Path, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    report, page = _trained(workspace, tiny_models["bert"], tmp_path / "m", workspace)
    assert report.validation is not None and report.validation.domains == ["biology", "pony"]
    steps = [record.step for record in read_jsonl(tmp_path / "m" / "validation_log.jsonl", ValidationRecord)]
    assert steps == [0, report.totals.steps]
    assert "validation scores over optimiser steps" in page
    assert "chosen by validation on these queries" in page
    _, page = _trained(workspace, tiny_models["bert"], tmp_path / "n", pocket_folder("biology"))
    assert "validation scores over optimiser steps" in page
    assert "chosen by validation on these queries" not in page, "other queries chose"
