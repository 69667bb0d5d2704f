"""The demo's parts, with one small training instead of two real ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from reasonembed.config import override
from reasonembed.manifest import read_manifest
from reasonembed.workflow import demo
from reasonembed.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two pocket domains, synthesised."""
    workspace = Workspace(tmp_path_factory.mktemp("demo"))
    for domain in ("biology", "pony"):
        demo.synthesize_pocket(workspace, domain)
    return workspace


def test_synthesis_grades_what_shares_a_word_with_a_query_and_never_its_source(workspace: Workspace) -> None:
    manifest = read_manifest(workspace.stage_folder("biology", "annotate"))
    assert manifest is not None and 27 * 45 < manifest.rows_out <= 27 * 51  # 52 documents less the source
    selected = read_manifest(workspace.stage_folder("biology", "select"))
    assert selected is not None
    assert selected.dropped == {"not_listed": 21, "off_domain": 2, "too_short": 2}
    assert selected.counts["sources_named_by_benchmark"] > 0


def test_the_two_losses_differ_in_nothing_but_the_loss_and_the_seeds_in_nothing_but_the_seed() -> None:
    plain, weighted = demo.planned_trainings(full=False)
    assert override(plain.config, {"loss": "ri-infonce"}) == weighted.config
    full = demo.planned_trainings(full=True)
    assert Counter(training.system for training in full) == dict.fromkeys(
        ("infonce", "ri-infonce", "source-positive"), demo.FULL_SEEDS
    )
    assert all(override(t.config, {"loss": "infonce", "seed": 0}) == override(plain.config, {"seed": 0}) for t in full)
    assert [t.trivial for t in full] == [t.system == "source-positive" for t in full]
    assert len({t.folder_name for t in full}) == len(full)


def test_the_ablation_trains_on_sources_and_nothing_else_does(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "POCKET_DOMAINS", ("biology", "pony"))
    real = demo.training_examples(workspace, trivial=False)
    trivial = demo.training_examples(workspace, trivial=True)
    assert [row.query for row in real] == [row.query for row in trivial]
    assert all(len(row.positives) == 1 for row in trivial)
    for one, ablated in zip(real, trivial, strict=True):
        assert ablated.positives[0] not in (*one.positives, *one.negatives)


def test_the_demo_ends_with_a_table_models_and_a_report(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The whole of `run_demo` on two domains, with one step of training on one layer for each loss."""
    tiny = {"epochs": 1, "group_size": 2, "train_layers": 1, "max_query_tokens": 16, "max_passage_tokens": 16}
    planned = demo.planned_trainings(full=False)
    small = [demo.Training(t.system, t.seed, override(t.config, tiny)) for t in planned]
    monkeypatch.setattr(demo, "POCKET_DOMAINS", ("biology", "pony"))
    monkeypatch.setattr(demo, "planned_trainings", lambda full: small)
    result = demo.run_demo(workspace.path)
    assert list(result.judgment.results) == ["bm25", "bm25q", "base", "infonce", "ri-infonce"]
    for system in ("infonce", "ri-infonce"):
        assert (workspace.path / "models" / system / "modules.json").is_file()
        cell = result.judgment.results[system]["nDCG@10"]
        assert cell["low"] <= cell["mean"] <= cell["high"] and list(cell["per_domain"]) == ["biology", "pony"]
        assert set(cell["vs_base"]) == {"difference", "low", "high", "p"}
    report = result.report_path.read_text()
    assert "lifted here" in report and "Reasoning intensity" in report
    again = demo.run_demo(workspace.path)
    assert again.judgment.results == result.judgment.results
