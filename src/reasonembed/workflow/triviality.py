"""Triviality from paths: training data of workspaces and files, a domain at a time, as JSON and a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reasonembed import progress
from reasonembed.analyze.subsets import nested_order
from reasonembed.analyze.triviality import (
    DomainOverlap,
    ExampleOverlap,
    RankedSource,
    Triviality,
    example_overlap,
    nearest_pairs,
    source_rank,
)
from reasonembed.analyze.triviality_sections import triviality_sections
from reasonembed.corpora import Corpus
from reasonembed.errors import ConfigError, InputError
from reasonembed.evaluate.report import Page, machine_facts, render_page
from reasonembed.files import write_json, write_jsonl, write_text
from reasonembed.records import Example, source_ids
from reasonembed.redapter.data import TrainingExample, from_examples
from reasonembed.redapter.layouts import data_files, read_data
from reasonembed.search.bm25 import Bm25Index
from reasonembed.workflow.training_data import finished_domains, is_workspace, read_workspace
from reasonembed.workspace import Workspace

RESULTS_FILE = "triviality.json"
EXAMPLES_FILE = "triviality.jsonl"
REPORT_FILE = "triviality.html"
_DECIMALS = 4  # of the figures of single pairs


class Sourced(msgspec.Struct, frozen=True):
    """Where a domain's queries were written from: ReMixer's rows by example id, their corpus, its language."""

    rows: Mapping[str, Example]
    corpus: Corpus
    language: str


class DomainData(msgspec.Struct, frozen=True):
    """A domain's examples; without `sourced` where the data name no sources, as the released format does."""

    domain: str
    examples: Sequence[TrainingExample]
    sourced: Sourced | None = None


def measure_triviality(data: Iterable[Path | str], *, sample: int | None = None, seed: int = 0) -> Triviality:
    """What the queries share with their sources, positives and negatives; data: as for `load_training_data`.

    One domain is in memory at a time.  sample: draw at most so many examples of each domain; which ones is decided
    by (seed, domain, example id) alone. A domain that an earlier path has too is named with its path. Raises
    InputError for data that cannot be read, or a path that comes twice, MissingExtra without rapidfuzz.
    """
    if sample is not None and sample < 1:
        raise ConfigError(f"the sample is {sample}; it must be at least 1 example a domain.")
    found: dict[str, DomainOverlap] = {}
    for path in map(Path, data):
        for of_domain in _domains(path):
            name = of_domain.domain if of_domain.domain not in found else f"{of_domain.domain} ({path})"
            if name in found:
                raise InputError(f"{path} is given twice. Name each path once.")
            one = measure_domain(of_domain, sample=sample, seed=seed)
            found[name] = msgspec.structs.replace(one, domain=name)
    return Triviality(tuple(found.values()), sample=sample, seed=seed)


def measure_domain(data: DomainData, *, sample: int | None = None, seed: int = 0) -> DomainOverlap:
    """One domain's overlaps, and the ranks of its sources, where they are known."""
    chosen = nested_order(data.examples, seed=seed)[:sample]
    source = _source_of(data.sourced)
    overlaps: list[ExampleOverlap] = []
    with progress.task(f"overlap {data.domain}", total=len(chosen)) as advance:
        for example in chosen:
            overlaps.append(example_overlap(example, source(example.example_id)))
            advance(1)
    return DomainOverlap(
        domain=data.domain,
        total=len(data.examples),
        examples=tuple(overlaps),
        nearest=tuple(nearest_pairs(chosen, overlaps)),
        documents=len(data.sourced.corpus) if data.sourced else None,
    )


def write_triviality(folder: Path, found: Triviality, *, title: str, seconds: float | None = None) -> None:
    """Write the summary, the figures of every example, and the report into `folder`.

    `triviality.json`, `triviality.jsonl` (a line an example, a figure a pair), `triviality.html`.
    """
    summary = {
        "sample": found.sample,
        "seed": found.seed,
        "without_sources": found.without_sources,
        "domains": found.summary(),
    }
    write_json(folder / RESULTS_FILE, summary)
    write_jsonl(folder / EXAMPLES_FILE, _example_rows(found))
    page = Page(title=title, facts=machine_facts(seconds=seconds))
    write_text(folder / REPORT_FILE, render_page(page, triviality_sections(found)))


def _domains(path: Path) -> Iterator[DomainData]:
    """The domains under a path, each read when its turn comes."""
    if not path.exists():
        raise InputError(f"there is no {path}. Give a workspace of `synthesize` or a file of training data.")
    if not is_workspace(path):
        for file in data_files(path):
            examples = read_data(file)
            yield DomainData(examples[0].domain, examples)
        return
    workspace = Workspace(path)
    for name in finished_domains(workspace):
        domain, corpus, rows = read_workspace(workspace, name)
        sourced = Sourced({row.query_id: row for row in rows}, corpus, domain.language)
        yield DomainData(name, from_examples(rows, corpus, domain), sourced)


def _source_of(sourced: Sourced | None) -> Callable[[str], RankedSource | None]:
    """example_id -> its source with its rank, None where the data name none. Indexes the corpus."""
    if sourced is None:
        return lambda _: None
    corpus, places = sourced.corpus, {doc_id: row for row, doc_id in enumerate(sourced.corpus.ids)}
    texts = (document.content for document in corpus)
    index = Bm25Index.build(texts, corpus.ids, language=sourced.language)

    def find(example_id: str) -> RankedSource:
        row = sourced.rows[example_id]
        for doc_id in source_ids(row):
            if doc_id not in places:
                raise InputError(
                    f'the source "{doc_id}" of the example "{example_id}" is not in {corpus.origin}. '
                    f"Give back the corpus that the examples were made from."
                )
        text, *companions = (corpus[doc_id].content for doc_id in source_ids(row))
        return RankedSource(text, source_rank(index, row, places), tuple(companions))

    return find


def _example_rows(found: Triviality) -> Iterator[dict[str, Any]]:
    for of_domain in found.domains:
        for one in of_domain.examples:
            rounded = {
                name: {kind: [round(value, _DECIMALS) for value in values] for kind, values in figures.items()}
                for name, figures in (("rouge_l", one.rouge_l), ("jaccard", one.jaccard))
            }
            yield {"domain": of_domain.domain, "example_id": one.example_id, **rounded, "source_rank": one.source_rank}
