"""What was measured, how, and on what data: one self-contained HTML file, no scripts, and the same as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import msgspec

from reasonembed import __version__
from reasonembed.evaluate.blocks import Section
from reasonembed.evaluate.compare import Interval
from reasonembed.evaluate.data_sections import (
    StageRow,
    grades_section,
    overlap_section,
    synthesis_section,
)
from reasonembed.evaluate.facts import machine_facts
from reasonembed.evaluate.markdown import render_markdown
from reasonembed.evaluate.per_query import Key, Scored
from reasonembed.evaluate.published import Beside, published_section
from reasonembed.evaluate.query_sections import queries_section
from reasonembed.evaluate.score_sections import domains_section, results_section
from reasonembed.evaluate.tables import Results, measures_of, text_table
from reasonembed.evaluate.training_sections import Steps, intensity_section, training_section
from reasonembed.files import write_text
from reasonembed.manifest import Manifest

_NOT_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class ReportData(msgspec.Struct, frozen=True, kw_only=True):
    """What a report shows; a section appears only where its data is given."""

    title: str
    results: Results  # as in results.json, fractions
    summary: str = ""  # what was done, in a sentence or two
    base: str = "base"  # the system that `vs_base` compares with
    facts: Mapping[str, str] = {}  # label -> value; `machine_facts` gives date, version, hardware, time
    protocols: Mapping[str, str] = {}  # system -> its protocol
    notes: Sequence[str] = ()  # what a reader must bear in mind
    train_logs: Mapping[str, Steps] = {}  # system -> the lines of its train_log.jsonl
    train_configs: Mapping[str, Mapping[str, object]] = {}  # system -> its settings
    validations: Mapping[str, Steps] = {}  # system -> the lines of its validation_log.jsonl
    kappa: float = 5.0  # the limit of reasoning intensity in these trainings
    grades: Mapping[int, int] = {}  # grade -> (query, document) pairs
    positives_per_query: Sequence[int] = ()
    negatives_per_query: Sequence[int] = ()
    overlaps: Mapping[str, Sequence[float]] = {}  # as `analyze.overlap.pooled` gives them
    stages: Sequence[StageRow] = ()
    domain_intervals: Mapping[str, Mapping[str, Interval]] = {}  # system -> domain -> interval, first measure
    scored: Scored = {}  # system -> query -> score, first measure
    texts: Mapping[Key, str] = {}  # query -> its text, for the queries that changed most
    beside: Beside | None = None  # published figures of the same benchmark


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a report of sections that its caller makes."""

    title: str
    summary: str = ""
    facts: Mapping[str, str] = {}


def stage_row(manifest: Manifest) -> StageRow:
    """A stage's manifest as the report counts it."""
    return {
        "domain": manifest.domain,
        "stage": manifest.stage,
        "in": manifest.rows_in,
        "out": manifest.rows_out,
        "dropped": manifest.dropped,
        "calls": manifest.calls.asked + manifest.calls.from_journal,
        "seconds": manifest.seconds,
    }


def write_report(path: Path, data: ReportData) -> None:
    """Write the report to `path`, and as Markdown beside it (`.md`), atomically.

    Raises ValueError if the results are empty, StorageError.
    """
    sections = report_sections(data)
    write_text(path.with_suffix(".md"), _clean(render_markdown(data.title, data.summary, data.facts, sections)))
    write_text(path, render_page(data, sections))


def render_report(data: ReportData) -> str:
    """The report as HTML; equal data, equal text."""
    return render_page(data, report_sections(data))


def render_page(head: ReportData | Page, sections: Sequence[Section]) -> str:
    """Sections under a head as HTML: names and reasons are data, escaped, whatever they hold."""
    import jinja2

    template = resources.files("reasonembed.evaluate").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string(template).render(data=head, sections=sections, version=__version__)
    return _clean(page)


def _clean(page: str) -> str:
    return _NOT_IN_HTML.sub("\N{REPLACEMENT CHARACTER}", page)


def report_sections(data: ReportData) -> list[Section]:
    """The parts of the report, in order; those without data are left out. Raises ValueError if results are empty."""
    places = {name: place for place, name in enumerate(data.results)}
    sections = [
        results_section(data.results, base=data.base, notes=data.notes, protocols=data.protocols),
        published_section(data.beside) if data.beside else None,
        domains_section(data.results, intervals=data.domain_intervals),
        queries_section(data.scored, data.texts, base=data.base, measure=measures_of(data.results)[0]),
        intensity_section(data.train_logs, kappa=data.kappa),
        grades_section(data.grades, data.positives_per_query, data.negatives_per_query),
        overlap_section(data.overlaps),
        synthesis_section(data.stages),
        training_section(data.train_logs, data.train_configs, colours=places, validations=data.validations),
    ]
    return [section for section in sections if section is not None]


__all__ = [
    "Page",
    "ReportData",
    "machine_facts",
    "render_page",
    "render_report",
    "report_sections",
    "stage_row",
    "text_table",
    "write_report",
]
