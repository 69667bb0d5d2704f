"""Contamination from paths: training data against benchmarks, as JSON and a report; and the data without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from reasonembed.analyze.contamination import Cleaned, Contamination, Kind, contamination, drop_contaminated
from reasonembed.analyze.contamination_sections import contamination_section
from reasonembed.domains import released_batch_size
from reasonembed.errors import ConfigError, InputError
from reasonembed.evaluate.report import Page, machine_facts, render_page
from reasonembed.files import write_json, write_jsonl, write_text
from reasonembed.manifest import DROPPED
from reasonembed.redapter.data import TrainingExample
from reasonembed.remixer.release import ReleasedExample, release_name
from reasonembed.texts import text_key
from reasonembed.workflow.judging import collections_under
from reasonembed.workflow.training_data import load_training_data

RESULTS_FILE = "contamination.json"
REPORT_FILE = "contamination.html"


def measure_contamination(
    data: Iterable[Path | str], benchmarks: Iterable[Path | str], *, kinds: Sequence[Kind] = ("query",)
) -> list[Contamination]:
    """What `contamination` finds for each kind; data: workspaces, released files or folders of them."""
    examples, collections = load_training_data(data).examples, collections_under(benchmarks)
    return [contamination(examples, collections, kind) for kind in kinds]


def write_contamination(
    folder: Path, found: Sequence[Contamination], *, threshold: float, title: str, seconds: float | None = None
) -> None:
    """Write contamination.json (summary and all matches, by kind) and contamination.html into `folder`."""
    by_kind = {
        one.kind: {"training_texts": one.training_texts, "domains": one.summary(), "matches": one.matches}
        for one in found
    }
    write_json(folder / RESULTS_FILE, by_kind)
    page = Page(title=title, facts=machine_facts(seconds=seconds))
    sections = [contamination_section(one, threshold=threshold) for one in found]
    write_text(folder / REPORT_FILE, render_page(page, sections))


def filter_contaminated(
    data: Iterable[Path | str],
    benchmarks: Iterable[Path | str],
    out: Path,
    *,
    threshold: float,
    kinds: Sequence[Kind] = ("query",),
) -> Cleaned:
    """Write the examples that are not contaminated in the released format, a file a domain, and dropped.jsonl.

    The released format names no source. So that training still masks a query's source and its copies in a batch, as it
    does on the workspace (law 1), rows carry the hashes of their texts, in a field `never_negative` that other readers
    pass over. Raises InputError if nothing would be left, or `out` exists already and is not empty.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"the threshold is {threshold!r}; a similarity lies above 0 and up to 1.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already. Remove it or choose another folder.")
    examples = load_training_data(data).examples
    cleaned = drop_contaminated(examples, collections_under(benchmarks), threshold=threshold, kinds=kinds)
    if not cleaned.kept:
        raise InputError(f"all {len(examples):,} examples come to {threshold:g} or more. Give a higher threshold.")
    write_jsonl(out / DROPPED, cleaned.dropped)
    by_domain: dict[str, list[TrainingExample]] = {}
    for example in cleaned.kept:
        by_domain.setdefault(example.domain, []).append(example)
    for domain, rows in by_domain.items():
        write_jsonl(out / release_name(domain), map(released, rows))
    return cleaned


class FilteredExample(ReleasedExample, frozen=True, omit_defaults=True):
    """A line of the released format that still tells its source."""

    never_negative: tuple[str, ...] = ()  # `text_key`s of the source and its copies; absent where they are not known


def released(example: TrainingExample) -> FilteredExample:
    """The example as a line of the released format."""
    return FilteredExample(
        prompt=example.instruction,
        query=example.query,
        reasoning_query=example.reasoning_query,
        pos=example.positives,
        neg=example.negatives,
        train_group_size=example.group_size,
        batch_size=released_batch_size(example.global_queries),
        pos_scores=example.positive_grades,
        neg_scores=example.negative_grades,
        never_negative=tuple(sorted(example.never_negative.difference(map(text_key, example.positives)))),
    )
