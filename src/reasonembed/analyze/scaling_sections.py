"""The report on data size: the curve of scores over numbers of samples, and the protocol that all points share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from reasonembed.evaluate.blocks import Block, Bullets, Heading, Section, Table, cells, picture
from reasonembed.evaluate.compare import Interval
from reasonembed.evaluate.tables import INTERVAL, Results, measures_of, points, signed

BASE = "base"


class SizePoint(msgspec.Struct, frozen=True):
    """One size: how many samples of each domain, and the optimiser steps that the recipe makes of them."""

    samples: int
    domains: dict[str, int]
    steps: int

    @property
    def system(self) -> str:
        """What the trained model is called among the systems."""
        return f"{self.samples} {'sample' if self.samples == 1 else 'samples'}"


def scaling_section(sizes: Sequence[SizePoint], results: Results, protocol: Sequence[str]) -> Section:
    """A plot and a table for each measure; results: of `base` and of each size's system."""
    blocks = [
        block for measure in measures_of(results) for block in (Heading(measure), *_curve(sizes, results, measure))
    ]
    return Section("scaling", "Score against training samples", (*blocks, Heading("How"), Bullets(tuple(protocol))))


def text_lines(sizes: Sequence[SizePoint], protocol: Sequence[str]) -> list[str]:
    """The plan as lines for a terminal: sizes, steps, samples by domain, and what the points share."""
    lines = [f"{'samples':>9} {'steps':>8}  by domain"]
    for size in sizes:
        by_domain = ", ".join(f"{domain} {count:,}" for domain, count in size.domains.items())
        lines.append(f"{size.samples:>9,} {size.steps:>8,}  {by_domain}")
    return [*lines, "", *protocol]


def _curve(sizes: Sequence[SizePoint], results: Results, measure: str) -> list[Block]:
    from reasonembed.evaluate.plots import growth

    spans = {size.samples: _interval(results, size.system, measure) for size in sizes}
    base = _interval(results, BASE, measure)
    listed = ", ".join(f"{samples:,}: {points(span.mean)}" for samples, span in spans.items())
    plot = picture(
        growth(spans, measure, base=base),
        alt=f"Line plot of {measure} in points over training samples; {listed}; base: {points(base.mean)}.",
        caption=f"{measure}, mean over domains. Lines: {INTERVAL} of the score over queries; the band is the base's. "
        f"All sizes answer the same queries, so the differences in the table are surer than the lines suggest.",
        height_in=3.6,
    )
    rows = [cells(BASE, "0", *_score(base), "–", "–")]
    for size, span in zip(sizes, spans.values(), strict=True):
        versus = results[size.system][measure]["vs_base"]
        between = f"{signed(versus['low'])} to {signed(versus['high'])}"
        rows.append(cells(f"{size.samples:,}", f"{size.steps:,}", *_score(span), signed(versus["difference"]), between))
    head = ("Samples", "Steps", "Mean", INTERVAL, "Against base", INTERVAL)
    return [plot, Table(f"{measure}, mean over domains, in points", head, tuple(rows))]


def _score(span: Interval) -> tuple[str, str]:
    return points(span.mean), f"{points(span.low)} to {points(span.high)}"


def _interval(results: Results, system: str, measure: str) -> Interval:
    cell: Mapping[str, float] = results[system][measure]
    return Interval(mean=cell["mean"], low=cell["low"], high=cell["high"])


__all__: Sequence[str] = ["BASE", "SizePoint", "scaling_section", "text_lines"]
