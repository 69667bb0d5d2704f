"""Training from paths, and the answer to the question that follows: is it better than its base?"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.beir import read_beir
from reasonembed.config import load_toml
from reasonembed.encoder.backbones import base_model
from reasonembed.errors import InputError
from reasonembed.evaluate.report import ReportData, machine_facts
from reasonembed.files import read_jsonl
from reasonembed.processes import is_first
from reasonembed.redapter.batches import epoch_batches
from reasonembed.redapter.config import TrainConfig
from reasonembed.workflow.judging import REPORT_FILE, Judgment, dense, judge, write_judgment
from reasonembed.workflow.training_data import TrainingData, load_training_data

StepSeen = Callable[[Any, int], None]


class TrainingReport(msgspec.Struct, frozen=True):
    """A finished training. `judgment` compares base and trained on held-out queries, where there are some."""

    model_folder: Path
    log_path: Path
    totals: Any  # redapter.log.Totals: steps, seconds, tokens_per_s, padding_share, truncated
    judgment: Judgment | None = None
    report_path: Path | None = None


class DomainPlan(msgspec.Struct, frozen=True):
    """What training would do with one domain."""

    domain: str
    examples: int
    group_size: int
    global_queries: int
    steps_per_epoch: int


def train(
    data: Iterable[Path | str] | Path | str | TrainingData,
    *,
    base: Path | str,
    out: Path | str,
    config: TrainConfig | Path | None = None,
    resume: bool = True,
    report: bool = True,
) -> TrainingReport:
    """Train `base` on the examples of workspaces or data files, and leave a sentence-transformers folder in `out`.

    base: a folder, a name on the hub, or minilm.  config: a recipe's, one's own, or a file of such keys.
    report: judge base and trained model on the workspaces' held-out queries, where there are some, and write
    results and an HTML report into `OUT-report/`. Of several processes the first alone does so.
    Raises what `redapter.train.train` and `load_training_data` raise; the same call goes on where it stopped.
    """
    from reasonembed.redapter.train import train as run_training

    started = time.monotonic()
    base = base_model(base)
    loaded = _loaded(data)
    config = load_toml(config, TrainConfig) if isinstance(config, Path) else config or TrainConfig()
    out = Path(out)
    with training_progress(f"train {out.name}") as seen:
        result = run_training(loaded.examples, base, out, config, resume=resume, progress=seen)
    done = TrainingReport(result.model_folder, result.log_path, result.totals)
    if not (report and loaded.holdouts and is_first()):
        return done
    judgment = judge_training(loaded, base=base, trained=out, config=config)
    folder = out.with_name(out.name + "-report")
    data_shown = _report(judgment, out, config, seconds=time.monotonic() - started)
    write_judgment(folder, judgment, data_shown)
    return msgspec.structs.replace(done, judgment=judgment, report_path=folder / REPORT_FILE)


def plan_training(data: Iterable[Path | str] | Path | str | TrainingData, config: TrainConfig) -> list[DomainPlan]:
    """What `train` would do with the same data, per domain; reads everything, computes nothing."""
    examples = _loaded(data).examples
    batches = epoch_batches(
        examples,
        seed=config.seed,
        epoch=0,
        group_size=config.group_size,
        global_queries=config.global_queries,
        domain_weights=config.domain_weights,
    )
    steps = Counter(batch.domain for batch in batches)
    counts = Counter(example.domain for example in examples)
    first = {example.domain: example for example in reversed(examples)}
    return [
        DomainPlan(
            domain=domain,
            examples=count,
            group_size=config.group_size or first[domain].group_size,
            global_queries=config.global_queries or first[domain].global_queries,
            steps_per_epoch=steps[domain],
        )
        for domain, count in counts.items()
    ]


def judge_training(data: TrainingData, *, base: Path | str, trained: Path | str, config: TrainConfig) -> Judgment:
    """Base and trained model on the held-out queries, prompted as in training. Own source and copies excluded."""
    collections = {domain: read_beir(folder) for domain, folder in data.holdouts.items()}
    instructions = {name: data.domains[name].instruction if config.instruction else "" for name in collections}
    systems = {
        name: dense(path, name=name, instructions=instructions) for name, path in (("base", base), ("trained", trained))
    }
    return judge(systems, collections, base="base", benchmark="held-out queries")


@contextlib.contextmanager
def training_progress(label: str) -> Iterator[StepSeen]:
    """What `redapter.train.train` calls after each step, shown as a bar with rate and ETA, or logged at the end."""
    from reasonembed import progress

    with contextlib.ExitStack() as stack:
        advance: list[Callable[[int], None]] = []
        last = 0

        def seen(record: Any, steps: int) -> None:
            nonlocal last
            if not advance:
                last = record.step - 1
                advance.append(stack.enter_context(progress.task(label, total=steps - last)))
            advance[0](1)

        yield seen


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a `train_log.jsonl`, as the report takes them."""
    return list(read_jsonl(path, dict[str, Any]))


def _loaded(data: Iterable[Path | str] | Path | str | TrainingData) -> TrainingData:
    if isinstance(data, TrainingData):
        return data
    loaded = load_training_data([data] if isinstance(data, (str, Path)) else data)
    if not loaded.examples:
        raise InputError("there are no training examples under the paths given.")
    return loaded


def _report(judgment: Judgment, out: Path, config: TrainConfig, *, seconds: float) -> ReportData:
    from reasonembed.redapter.train import LOG_FILE

    queries = next(iter(judgment.evaluations.values()))[0].protocol.n_queries
    return ReportData(
        title=f"Base against {out.name}",
        summary=f"Judged on {queries} queries that were held out of training with their sources.",
        results=judgment.results,
        base="base",
        facts=machine_facts(seconds=seconds),
        protocols=judgment.protocols,
        notes=(
            "The grades of held-out queries are a language model's, as are those of the training data; "
            "queries with relevance judgments by people would be a stronger test.",
        ),
        train_logs={"trained": read_log(out / LOG_FILE)},
        train_configs={"trained": msgspec.to_builtins(config)},
        kappa=config.kappa,
    )
