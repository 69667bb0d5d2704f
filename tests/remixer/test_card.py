"""The dataset card: what the hub's own readers find in it, what it says, and what it must never say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reasonembed.errors import InputError
from reasonembed.manifest import read_manifest
from reasonembed.remixer.card import CARD_FILE, dataset_card, domain_facts, public_name
from reasonembed.remixer.config import SynthesisConfig
from reasonembed.remixer.prompt import prompt_hash
from reasonembed.workspace import Workspace


@pytest.fixture
def card(pocket) -> str:
    workspace, _ = pocket
    return (workspace.stage_folder("biology", "release") / CARD_FILE).read_text()


def test_the_hubs_own_library_reads_the_head(card: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.DatasetCard(card).data.to_dict()
    assert data["license"] == "unknown" and data["language"] == ["en"]
    assert data["task_categories"] == ["text-retrieval"] and data["size_categories"] == ["n<1K"]
    (config,) = data["configs"]
    assert config == {
        "config_name": "biology",
        "data_files": [{"split": "train", "path": "biology-formatted.jsonl"}],
    }


def test_datasets_loads_the_folder_by_its_card(pocket, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    _, report = pocket
    loaded = datasets.load_dataset(
        str(report.release_path.parent), "biology", split="train", cache_dir=str(tmp_path / "cache")
    )
    rows = [msgspec.json.decode(line) for line in report.release_path.read_bytes().splitlines()]
    assert loaded["query"] == [row["query"] for row in rows]
    assert loaded["pos"] == [row["pos"] for row in rows]


def test_the_card_names_models_prompts_seeds_counts_drops_and_the_retriever(card: str, pocket) -> None:
    workspace, _ = pocket
    for stage in ("select", "generate", "reason", "annotate"):
        assert f"`{prompt_hash(stage)}`" in card
        manifest = read_manifest(workspace.stage_folder("biology", stage))
        assert manifest is not None and f"`{manifest.config['model']}`" in card
    assert "| biology | 27 | 27 | 27 | 1,342 | 24 | 3 |" in card
    assert "| biology | select | `not_listed` | 21 |" in card and "| biology | assemble | `held_out` | 3 |" in card
    assert "candidates by bm25q (`bm25q`), the best 100; near-copies share 0.8" in card
    assert "a benchmark judges were allowed as sources" in card
    assert "The licence is not set" in card


def test_the_card_is_listed_in_the_manifest_and_holds_no_path(card: str, pocket, tmp_path_factory) -> None:
    workspace, report = pocket
    manifest = read_manifest(workspace.stage_folder("biology", "release"))
    assert manifest is not None and CARD_FILE in manifest.outputs
    assert str(tmp_path_factory.getbasetemp()) not in card and str(Path.home()) not in card
    assert str(Path(report.folder).name) in card and "://" not in card


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("gpt-4.1-mini@r1", "gpt-4.1-mini@r1"),
        ("/home/someone/models/Qwen3-8B", "Qwen3-8B"),
        ("~/models/mine/", "mine"),
        ("./mine", "mine"),
        ("C:\\models\\mine", "mine"),
        ("a/b/mine", "mine"),
        ("http://user:secret@host:8000/v1/mine", "mine"),
        ("odd`name|x\n", "odd name x"),
    ],
)
def test_a_models_name_shows_no_folder_and_no_address(name: str, shown: str) -> None:
    assert public_name(name) == shown


def test_a_dense_retriever_is_named_without_its_folder(pocket) -> None:
    workspace, _ = pocket
    facts = domain_facts(workspace, "biology")
    mined = msgspec.structs.replace(facts.stages["mine"], settings={"retrievers": ["/srv/models/gte"]})
    card = dataset_card([msgspec.structs.replace(facts, stages={**facts.stages, "mine": mined})])
    assert "(`gte`)" in card and "/srv" not in card


def test_several_domains_are_several_configs_and_share_rows_where_they_agree(pocket) -> None:
    yaml = pytest.importorskip("yaml")
    workspace, _ = pocket
    facts = domain_facts(workspace, "biology")
    generated = facts.stages["generate"]
    other = msgspec.structs.replace(
        generated, config={**generated.config, "domain": {**generated.config["domain"], "language": "no"}}
    )
    card = dataset_card(
        [facts, msgspec.structs.replace(facts, name="law", stages={**facts.stages, "generate": other})],
        license="cc-by-4.0",
    )
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "cc-by-4.0" and head["language"] == ["en", "no"]
    assert [config["config_name"] for config in head["configs"]] == ["biology", "law"]
    assert card.count("(annotator)") == 1 and "| biology, law |" in card
    assert "Licence: `cc-by-4.0`." in card and "not set" not in card


def test_a_license_reaches_the_card_and_a_later_one_is_a_new_release(run_pocket, tmp_path: Path) -> None:
    from reasonembed.errors import StageChanged
    from reasonembed.remixer.config import SelectConfig

    workspace = Workspace(tmp_path / "w")
    config = SynthesisConfig(select=SelectConfig(allow_benchmark_sources=True), license="cc-by-4.0")
    run_pocket(workspace, config=config)
    path = workspace.stage_folder("biology", "release") / CARD_FILE
    assert 'license: "cc-by-4.0"' in path.read_text()
    later = msgspec.structs.replace(config, license="mit")
    with pytest.raises(StageChanged, match=r"license was 'cc-by-4\.0' and is 'mit' now"):
        run_pocket(workspace, config=later)
    run_pocket(workspace, config=later, restart_from="release")
    assert 'license: "mit"' in path.read_text()


def test_a_license_that_is_no_identifier_is_refused() -> None:
    with pytest.raises(ValueError, match="identifier of the hub"):
        SynthesisConfig(license="CC BY 4.0\nlanguage: x")


def test_an_unfinished_domain_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the stage select of law"):
        domain_facts(Workspace(tmp_path), "law")
