"""Data size (the paper, figure 2): one recipe, one base, nested subsets of the data, one benchmark, one curve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.analyze.scaling_sections import BASE, SizePoint, scaling_section
from reasonembed.analyze.subsets import checked_sizes, halved_sizes, nested_order
from reasonembed.beir import Collection
from reasonembed.domains import load_domain
from reasonembed.encoder.backbones import base_model
from reasonembed.errors import InputError
from reasonembed.evaluate.benchmarks import Benchmark
from reasonembed.evaluate.report import Page, machine_facts, render_page
from reasonembed.evaluate.score_sections import domains_section, results_section
from reasonembed.files import write_json, write_text
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample, data_hash
from reasonembed.workflow.judging import Judgment, dense, judge
from reasonembed.workflow.training import plan_training, train
from reasonembed.workflow.training_data import TrainingData, load_training_data

RESULTS_FILE = "scaling.json"
REPORT_FILE = "scaling.html"
MODELS = "models"
POINTS = 6  # sizes, where none are named: all the data, a half, down to a thirty-second


class Subset(msgspec.Struct, frozen=True):
    """A size and its examples, which contain those of every smaller size."""

    point: SizePoint
    examples: tuple[TrainingExample, ...]


class Scaling(msgspec.Struct, frozen=True):
    """What a data-size study is made of; `protocol` says all that its points share, in sentences."""

    subsets: tuple[Subset, ...]
    base: str  # a folder, a name on the hub, or minilm
    config: TrainConfig
    seed: int
    protocol: tuple[str, ...]

    @property
    def base_name(self) -> str:
        """What the base is called: the last part of a folder's path, else its name."""
        return _base_name(self.base)

    @property
    def sizes(self) -> list[SizePoint]:
        """The sizes, rising."""
        return [subset.point for subset in self.subsets]


def plan_scaling(
    data: Iterable[Path | str],
    *,
    base: Path | str,
    config: TrainConfig,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
) -> Scaling:
    """The nested subsets of the data, and the steps that `config` makes of each; trains nothing.

    data: as for `load_training_data`.  sizes: numbers of examples; None halves the data `POINTS` - 1 times.
    seed: decides, with domain and example id, which examples come first. Raises InputError for data that cannot be
    trained on, ConfigError for a size that there is not.
    """
    examples = load_training_data(data).examples
    if not examples:
        raise InputError("there are no training examples under the paths given.")
    ordered = nested_order(examples, seed=seed)
    chosen = checked_sizes(halved_sizes(len(ordered), POINTS) if sizes is None else sizes, len(ordered))
    subsets = tuple(_subset(ordered[:size], config) for size in chosen)
    return Scaling(subsets, str(base), config, seed, _protocol(ordered, str(base), config, seed))


def run_scaling(plan: Scaling, benchmark: Benchmark, out: Path, *, cache: Path | None = None) -> Judgment:
    """Train every size that `out` does not hold yet, and judge base and all sizes on the benchmark.

    Models lie in `out/models/SIZE`; what stands there is taken if it was trained on the same examples, from the same
    base, by the same recipe, and StageChanged says what differs otherwise. An interrupted call goes on from the last
    checkpoint.  cache: where vectors of documents are kept, so that judging goes on too.
    """
    base = base_model(plan.base)
    collections = benchmark.load()
    for subset in plan.subsets:
        folder = _model_folder(out, subset.point)
        train(TrainingData(subset.examples), base=base, out=folder, config=plan.config, report=False)
    before = instructions_for(collections, benchmark, plan)
    limit = benchmark.max_tokens or max(plan.config.max_query_tokens, plan.config.max_passage_tokens)
    models: dict[str, tuple[Path | str, str]] = {BASE: (base, plan.base_name)}
    for size in plan.sizes:
        models[size.system] = (_model_folder(out, size), f"{plan.base_name} trained on {size.system}")
    systems = {
        name: dense(path, name=name, model_name=model, instructions=before, longest=limit, cache=cache)
        for name, (path, model) in models.items()
    }
    return judge(systems, collections, base=BASE, measures=benchmark.measures, benchmark=benchmark.name)


def write_scaling(folder: Path, plan: Scaling, judgment: Judgment, *, title: str, seconds: float | None = None) -> None:
    """Write `scaling.json` (sizes, scores, recipe, protocols) and `scaling.html` (the curve) into `folder`."""
    rows = [{"samples": 0, "steps": 0, "domains": {}, "scores": judgment.results[BASE]}]
    rows += [msgspec.to_builtins(size) | {"scores": judgment.results[size.system]} for size in plan.sizes]
    content: dict[str, Any] = {
        "base": plan.base_name,
        "data_sha256": data_hash(plan.subsets[-1].examples),
        "seed": plan.seed,
        "recipe": plan.config,
        "points": rows,
        "protocol": plan.protocol,
        "evaluations": {name: one.protocol for name, one in judgment.labelled.items()},
    }
    write_json(folder / RESULTS_FILE, content)
    sections = [
        scaling_section(plan.sizes, judgment.results, plan.protocol),
        results_section(judgment.results, base=BASE, protocols=judgment.protocols),
        domains_section(judgment.results),
    ]
    page = Page(title=title, summary=_SUMMARY, facts=machine_facts(seconds=seconds))
    write_text(folder / REPORT_FILE, render_page(page, [section for section in sections if section is not None]))


_SUMMARY = (
    "How the score grows with the number of training samples: each point is a model trained from the same base by the "
    "same recipe on a subset of the same data."
)


def instructions_for(collections: Mapping[str, Collection], benchmark: Benchmark, plan: Scaling) -> dict[str, str]:
    """Domain -> what stands before its queries, for base and trained models alike.

    Nothing if the recipe trains without instructions; else the benchmark's own, else the training data's of that
    domain, else the general one.
    """
    if not plan.config.instruction:
        return dict.fromkeys(collections, "")
    general = load_domain("general").instruction
    trained = {example.domain: example.instruction for example in plan.subsets[-1].examples}
    return {name: benchmark.instructions.get(name, trained.get(name, general)) for name in collections}


def _subset(examples: Sequence[TrainingExample], config: TrainConfig) -> Subset:
    plans = plan_training(TrainingData(tuple(examples)), config)
    counts = Counter(example.domain for example in examples)
    steps = config.epochs * sum(plan.steps_per_epoch for plan in plans)
    return Subset(SizePoint(len(examples), dict(sorted(counts.items())), steps), tuple(examples))


def _protocol(examples: Sequence[TrainingExample], base: str, config: TrainConfig, seed: int) -> tuple[str, ...]:
    domains = len({example.domain for example in examples})
    epochs = f"{config.epochs} {'epoch' if config.epochs == 1 else 'epochs'}"
    return (
        f"data: {len(examples):,} examples in {domains} {'domain' if domains == 1 else 'domains'}; each size is a "
        f"subset of the next, drawn within domains in proportion to them, by seed {seed} and example id",
        f"training: every size from {_base_name(base)}, {config.loss}, {epochs} of its own samples, so that more "
        f"samples are more steps too; one training a size, seed {config.seed}, learning rate {config.learning_rate:g}",
        "the interval is that of the score over queries; it does not hold what another seed would change",
    )


def _model_folder(out: Path, size: SizePoint) -> Path:
    return out / MODELS / str(size.samples)


def _base_name(base: str) -> str:
    return Path(base).resolve().name if Path(base).is_dir() else base
