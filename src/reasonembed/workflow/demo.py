"""The whole of ReasonEmbed on the pocket collection: synthesise, train, judge, report. Offline, without a key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from reasonembed.analyze.statistics import Statistics, domain_statistics
from reasonembed.beir import read_beir
from reasonembed.config import override
from reasonembed.encoder.backbones import minilm_folder
from reasonembed.evaluate.report import ReportData, machine_facts, stage_row
from reasonembed.manifest import Manifest
from reasonembed.pocket import POCKET_DOMAINS, pocket_folder
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample, from_examples
from reasonembed.redapter.recipe import load_recipe
from reasonembed.remixer import select
from reasonembed.remixer.config import SelectConfig, SynthesisConfig
from reasonembed.remixer.pipeline import SynthesisReport
from reasonembed.remixer.source_positive import source_positive_examples
from reasonembed.search.systems import DenseSystem, System
from reasonembed.workflow.judging import RESULTS_FILE, Judgment, bm25, judge, write_judgment
from reasonembed.workflow.synthesis import synthesize
from reasonembed.workflow.training import read_log, training_progress
from reasonembed.workflow.training_data import load_training_data, read_workspace
from reasonembed.workspace import Workspace

if TYPE_CHECKING:
    from reasonembed.encoder.frozen import FrozenStates

MODEL = "recorded:pocket"
FULL_SEEDS = 3
ABLATION = "source-positive"
_BASE_NAME = "all-MiniLM-L6-v2"
RECIPE = "minilm"


class DemoResult(msgspec.Struct, frozen=True):
    """Where everything lies, and the table."""

    judgment: Judgment
    folder: Path
    seconds: float

    @property
    def report_path(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @property
    def results_path(self) -> Path:
        """The table for machines."""
        return self.folder / RESULTS_FILE


class Training(msgspec.Struct, frozen=True):
    """One model to train: a loss, a seed, and data."""

    system: str
    seed: int
    config: TrainConfig
    trivial: bool = False  # the ablation: source documents as positives

    @property
    def folder_name(self) -> str:
        """The system's name for its first seed, the seed added for the others."""
        return self.system if self.seed == 0 else f"{self.system}-seed{self.seed}"


def run_demo(folder: Path | str = Path("runs/demo"), *, full: bool = False, restart: bool = False) -> DemoResult:
    """Synthesise on all twelve pocket domains, train with both losses, judge on the test queries, report.

    full: three seeds of each training, and the paper's ablation trained on source documents as positives.
    restart: train anew what is there already. A second call finds its work done.
    """
    started = time.monotonic()
    folder = Path(folder)
    workspace = Workspace(folder)
    base = minilm_folder()
    with workspace.lock():
        reports = [synthesize_pocket(workspace, domain) for domain in POCKET_DOMAINS]
        trainings = planned_trainings(full=full)
        data = {trivial: training_examples(workspace, trivial=trivial) for trivial in {t.trivial for t in trainings}}
        frozen = shared_states()
        train_all(trainings, data, base, folder, frozen=frozen, restart=restart)
        judgment = judge_pocket(folder, base, trainings, frozen=frozen)
        seconds = time.monotonic() - started
        report = demo_report(workspace, reports, judgment, trainings, seconds=seconds)
        write_judgment(folder, judgment, report)
    return DemoResult(judgment, folder, seconds)


def synthesize_pocket(workspace: Workspace, domain: str) -> SynthesisReport:
    """ReMixer on one pocket domain with its recorded replies, from the 27 sources that they were recorded for.

    The rule that benchmark documents are never sources is lifted: a third of the pocket's are (its card).
    """
    folder = pocket_folder(domain)
    config = SynthesisConfig(select=SelectConfig(allow_benchmark_sources=True))
    return synthesize(
        folder,
        domain=domain,
        workspace=workspace,
        model=MODEL,
        config=config,
        sources=folder / "recorded.jsonl",
        benchmarks=[folder],
    )


def planned_trainings(*, full: bool) -> list[Training]:
    """The models to train; all that differs between them is named in `Training`."""
    recipe = load_recipe(RECIPE).training
    plain = override(recipe, {"loss": "infonce"})
    weighted = override(recipe, {"loss": "ri-infonce"})
    trainings = []
    for seed in range(FULL_SEEDS if full else 1):
        seeds = {"seed": recipe.seed + seed}
        trainings.append(Training("infonce", seed, override(plain, seeds)))
        trainings.append(Training("ri-infonce", seed, override(weighted, seeds)))
        if full:
            trainings.append(Training(ABLATION, seed, override(plain, seeds), trivial=True))
    return trainings


def training_examples(workspace: Workspace, *, trivial: bool) -> Sequence[TrainingExample]:
    """What ReMixer made, or, for the ablation, the same with the sources as positives."""
    if not trivial:
        return load_training_data([workspace.path]).examples
    examples: list[TrainingExample] = []
    for name in POCKET_DOMAINS:
        domain, corpus, rows = read_workspace(workspace, name)
        examples += from_examples(source_positive_examples(rows), corpus, domain, allow_source=True)
    return examples


def shared_states() -> FrozenStates:
    """What the frozen layers make of the texts: all models have these layers in common, so it is computed once."""
    from reasonembed.encoder.frozen import FrozenStates

    return FrozenStates()


def train_all(
    trainings: Sequence[Training],
    data: Mapping[bool, Sequence[TrainingExample]],
    base: Path,
    folder: Path,
    *,
    frozen: FrozenStates,
    restart: bool,
) -> None:
    """Train each model into `models/`, or find it there."""
    from reasonembed.redapter.train import train

    for training in trainings:
        name = training.folder_name
        with training_progress(f"train {name}") as seen:
            train(
                data[training.trivial],
                base,
                folder / "models" / name,
                training.config,
                resume=not restart,
                frozen=frozen,
                progress=seen,
            )


def judge_pocket(
    folder: Path, base: Path, trainings: Sequence[Training], *, frozen: FrozenStates | None = None
) -> Judgment:
    """All systems on the 84 test queries; dense ones bare, as MiniLM was trained."""
    layers = trainings[0].config.train_layers if frozen is not None else None

    def system(path: Path, name: str, model_name: str) -> Callable[[], System]:
        return lambda: dense_sharing(path, name=name, model_name=model_name, last_layers=layers, frozen=frozen)

    systems: dict[str, Any] = {
        "bm25": bm25("bag"),
        "bm25q": bm25("query"),
        "base": system(base, "base", _BASE_NAME),
    }
    for training in trainings:
        name = training.folder_name
        makers: list[Callable[[], Any]] = systems.setdefault(training.system, [])
        makers.append(system(folder / "models" / name, name, f"{_BASE_NAME} trained ({name})"))
    collections = {domain: read_beir(pocket_folder(domain)) for domain in POCKET_DOMAINS}
    # no Holm correction: the demo's results.json keeps the four figures of a comparison that it has always had
    return judge(systems, collections, base="base", benchmark="pocket collection, test queries", holm=False)


def dense_sharing(
    path: Path, *, name: str, model_name: str, last_layers: int | None, frozen: FrozenStates | None
) -> System:
    """A dense system without instruction, whose layers below the last `last_layers` are those of the others too.

    Raises ValueError if they are not.
    """
    from reasonembed.encoder.model import Encoder

    encoder = Encoder.load(path)
    if last_layers is not None:
        encoder.keep_frozen(last_layers, frozen)
    return DenseSystem(encoder, name=name, model_name=model_name, instructions="")


def demo_report(
    workspace: Workspace,
    reports: Sequence[SynthesisReport],
    judgment: Judgment,
    trainings: Sequence[Training],
    *,
    seconds: float,
) -> ReportData:
    """Everything that the demo can show, for the HTML report."""
    first = [training for training in trainings if training.seed == 0]
    logs = {t.system: read_log(workspace.path / "models" / t.folder_name / "train_log.jsonl") for t in first}
    manifests = [result.manifest for report in reports for result in report.stages]
    data = Statistics(tuple(domain_statistics(workspace, name, sample=None) for name in POCKET_DOMAINS))
    seeds = max(training.seed for training in trainings) + 1
    return ReportData(
        title="ReasonEmbed on the pocket collection",
        summary=_SUMMARY,
        results=judgment.results,
        facts=machine_facts(seconds=seconds),
        protocols=judgment.protocols,
        notes=_notes(manifests, seeds),
        train_logs=logs,
        train_configs={t.system: msgspec.to_builtins(t.config) for t in first},
        kappa=first[0].config.kappa,
        grades=data.grades,
        positives_per_query=data.positives,
        negatives_per_query=data.negatives,
        overlaps=data.overlaps,
        stages=[stage_row(manifest) for manifest in manifests],
    )


_SUMMARY = (
    "ReMixer made training data from twelve small corpora with the recorded replies of a language model; "
    "Redapter trained MiniLM (all-MiniLM-L6-v2) on it, once with plain InfoNCE and once with RI-InfoNCE; "
    "all systems were judged on 84 test queries that share an idea with their answers and hardly a word."
)


def _notes(manifests: Sequence[Manifest], seeds: int) -> list[str]:
    selected = [manifest for manifest in manifests if manifest.stage == select.STAGE]
    sources = sum(manifest.rows_out for manifest in selected)
    named = sum(manifest.counts.get("sources_named_by_benchmark", 0) for manifest in selected)
    notes = [
        "The collection was written for this project with a language model, so that the pipeline can be run "
        "without one. Its scores say nothing about BRIGHT and must not be compared with published ones.",
        f"The rule that benchmark documents never serve as sources is lifted here: {named} of the {sources} "
        f"sources are relevant to some test query.",
        "The recorded queries were not conditioned on sampled length and education.",
    ]
    if seeds > 1:
        notes.append(f"Trained systems: {seeds} seeds, each query's score averaged over them first.")
    return notes
