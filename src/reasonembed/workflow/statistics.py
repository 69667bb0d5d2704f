"""Statistics of a workspace from its path: the figures of its domains, as JSON and as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reasonembed import progress
from reasonembed.analyze.statistics import SAMPLE, Statistics, costs_of, domain_statistics
from reasonembed.analyze.statistics_sections import statistics_sections
from reasonembed.errors import ConfigError, InputError
from reasonembed.evaluate.report import Page, machine_facts, render_page
from reasonembed.files import write_json, write_text
from reasonembed.llm.prices import Prices, load_prices
from reasonembed.llm.spending import spending_of
from reasonembed.manifest import read_manifest
from reasonembed.remixer import select
from reasonembed.workspace import Workspace

RESULTS_FILE = "statistics.json"
REPORT_FILE = "statistics.html"


def measure_statistics(
    workspace: Path | str,
    *,
    domains: Sequence[str] = (),
    sample: int | None = SAMPLE,
    seed: int = 0,
    prices: Prices | None = None,
) -> Statistics:
    """What the stages of a workspace came to; a synthesis that is still running shows what it has finished.

    domains: all that have a finished stage if empty.  sample: see `domain_statistics`.  prices: the shipped ones if not
    given. Raises InputError for what is no workspace or has nothing finished.
    """
    if sample is not None and sample < 1:
        raise ConfigError(f"the sample is {sample}; it must be at least 1 example a domain.")
    place, prices = Workspace(workspace), prices or load_prices()
    names = list(domains) or [
        name for name in place.domains() if read_manifest(place.stage_folder(name, select.STAGE)) is not None
    ]
    if not names:
        raise InputError(f"{place.path} has no finished stage. Run `reasonembed synthesize` first.")
    found = []
    with progress.task("statistics", total=len(names)) as advance:
        for name in names:
            found.append(domain_statistics(place, name, sample=sample, seed=seed))
            advance(1)
    costs = costs_of(spending_of(place.journal_path), prices)
    return Statistics(tuple(found), costs, prices.currency, sample=sample, seed=seed)


def write_statistics(folder: Path, found: Statistics, *, title: str, seconds: float | None = None) -> None:
    """Write `statistics.json` and `statistics.html` into `folder`. Raises StorageError."""
    write_json(folder / RESULTS_FILE, found.as_data())
    page = Page(title=title, facts=machine_facts(seconds=seconds))
    write_text(folder / REPORT_FILE, render_page(page, statistics_sections(found)))


__all__ = ["REPORT_FILE", "RESULTS_FILE", "measure_statistics", "write_statistics"]
