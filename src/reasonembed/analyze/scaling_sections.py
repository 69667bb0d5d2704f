"""The report on data size: the curve of scores over numbers of samples, and the protocol that all points share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from reasonembed.evaluate.blocks import Bullets, Heading, Picture, Section, Table, cells, picture
from reasonembed.evaluate.compare import Interval
from reasonembed.evaluate.tables import INTERVAL, Results, measures_of, points

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
    """A plot for each measure, the sizes as a table, and the protocol; results: of `base` and each size's system."""
    plots = [_curve(sizes, results, measure) for measure in measures_of(results)]
    rows = (cells(f"{size.samples:,}", f"{size.steps:,}", _by_domain(size)) for size in sizes)
    table = Table("Sizes", ("Samples", "Optimiser steps", "Samples by domain"), tuple(rows), prose=(2,))
    return Section(
        "scaling", "Score against training samples", (*plots, table, Heading("How"), Bullets(tuple(protocol)))
    )


def text_lines(sizes: Sequence[SizePoint], protocol: Sequence[str]) -> list[str]:
    """The plan as lines for a terminal: sizes, steps, samples by domain, and what the points share."""
    lines = [f"{'samples':>9} {'steps':>8}  by domain"]
    for size in sizes:
        lines.append(f"{size.samples:>9,} {size.steps:>8,}  {_by_domain(size)}")
    return [*lines, "", *protocol]


def _curve(sizes: Sequence[SizePoint], results: Results, measure: str) -> Picture:
    from reasonembed.evaluate.plots import growth

    spans = {size.samples: _interval(results, size.system, measure) for size in sizes}
    base = _interval(results, BASE, measure)
    listed = ", ".join(f"{samples:,}: {points(span.mean)}" for samples, span in spans.items())
    return picture(
        growth(spans, measure, base=base),
        alt=f"Line plot of {measure} in points over training samples; {listed}; base: {points(base.mean)}.",
        caption=f"{measure}, mean over domains. Lines: {INTERVAL} of the score over queries; the band is the base's. "
        f"All sizes answer the same queries, so the differences under Results are surer than the lines suggest.",
        height_in=3.6,
    )


def _by_domain(size: SizePoint) -> str:
    return ", ".join(f"{domain} {count:,}" for domain, count in size.domains.items())


def _interval(results: Results, system: str, measure: str) -> Interval:
    cell: Mapping[str, float] = results[system][measure]
    return Interval(mean=cell["mean"], low=cell["low"], high=cell["high"])


__all__: Sequence[str] = ["BASE", "SizePoint", "scaling_section", "text_lines"]
