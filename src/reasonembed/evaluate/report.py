"""One self-contained HTML file that says what was measured, how, and on what data. No network, no scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import msgspec

from reasonembed import __version__
from reasonembed.evaluate.blocks import Section
from reasonembed.evaluate.data_sections import (
    StageRow,
    grades_section,
    overlap_section,
    synthesis_section,
)
from reasonembed.evaluate.facts import machine_facts
from reasonembed.evaluate.score_sections import domains_section, results_section
from reasonembed.evaluate.tables import Results, text_table
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
    kappa: float = 5.0  # the limit of reasoning intensity in these trainings
    grades: Mapping[int, int] = {}  # grade -> (query, document) pairs
    positives_per_query: Sequence[int] = ()
    negatives_per_query: Sequence[int] = ()
    overlaps: Mapping[str, Sequence[float]] = {}  # as `analyze.overlap.pooled` gives them
    stages: Sequence[StageRow] = ()


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
    """Write the report to `path`, atomically. Raises ValueError if the results are empty, StorageError."""
    write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The report as HTML; equal data, equal text."""
    return render_page(data, _sections(data))


def render_page(head: ReportData | Page, sections: Sequence[Section]) -> str:
    """Sections under a head as HTML: names and reasons are data, escaped, whatever they hold."""
    import jinja2

    template = resources.files("reasonembed.evaluate").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    page = environment.from_string(template).render(data=head, sections=sections, version=__version__)
    return _NOT_IN_HTML.sub("\N{REPLACEMENT CHARACTER}", page)


def _sections(data: ReportData) -> list[Section]:
    places = {name: place for place, name in enumerate(data.results)}
    sections = [
        results_section(data.results, base=data.base, notes=data.notes, protocols=data.protocols),
        domains_section(data.results, base=data.base),
        intensity_section(data.train_logs, kappa=data.kappa),
        grades_section(data.grades, data.positives_per_query, data.negatives_per_query),
        overlap_section(data.overlaps),
        synthesis_section(data.stages),
        training_section(data.train_logs, data.train_configs, colours=places),
    ]
    return [section for section in sections if section is not None]


__all__ = [
    "Page",
    "ReportData",
    "machine_facts",
    "render_page",
    "render_report",
    "stage_row",
    "text_table",
    "write_report",
]
