"""The report's plots as SVG text: drawn on `Figure` objects (no pyplot, no global state left behind).

Each function draws one figure, wide for a page or narrow for a telephone. Colours are Okabe and Ito's, told
apart by all kinds of colour vision; systems differ in their marker too. Importing it loads matplotlib.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.backends.backend_svg
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from reasonembed.evaluate.compare import Interval
from reasonembed.evaluate.per_query import Scored
from reasonembed.evaluate.tables import Results, domains_of

Values = NDArray[np.float64]
Draw = Callable[[Figure, bool], None]
Intervals = Mapping[str, Mapping[str, Interval]]

PALETTE = ("#56B4E9", "#0072B2", "#000000", "#009E73", "#D55E00", "#CC79A7", "#E69F00")
HIGHER, LOWER = "#0072B2", "#D55E00"
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")

_WIDE_IN, _NARROW_IN = 8.0, 3.7
_BINS = 60  # points on a curve over training steps, at most
_LABEL_CHARS = 28
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a8f98",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": "#3b4048",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9.5,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "reasonembed",
    "text.parse_math": False,
    "xtick.color": "#3b4048",
    "ytick.color": "#3b4048",
}


def svg(draw: Draw, *, narrow: bool, height_in: float) -> str:
    """The figure that `draw` draws, as an SVG document; equal figures give equal bytes."""
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key}
    with (
        matplotlib.rc_context(defaults | _STYLE),
        warnings.catch_warnings(),
    ):  # whatever the user's matplotlibrc
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's fonts draw them, not ours
        figure = Figure(figsize=(_NARROW_IN if narrow else _WIDE_IN, height_in), layout="constrained")
        draw(figure, narrow)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return out.getvalue()


def label(text: str, limit: int = _LABEL_CHARS) -> str:
    """`text` fit for an axis: control characters made visible, cut with an ellipsis."""
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def colour(index: int) -> str:
    """The colour of the system at this place among the systems."""
    return PALETTE[index % len(PALETTE)]


def domain_dots(results: Results, measure: str, intervals: Intervals | None = None) -> Draw:
    """A row for each domain and one for their mean, in each a marker for each system.

    The mean has its interval; the domains have theirs where `intervals` (system -> domain -> interval) holds them.
    """
    bounds = intervals or {}
    names = [name for name, cells in results.items() if measure in cells]
    domains = domains_of(results, measure)
    offsets = np.linspace(-0.34, 0.34, len(names)) if len(names) > 1 else np.zeros(1)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for place, name in enumerate(names):
            cell = results[name][measure]
            style: dict[str, Any] = {
                "color": colour(place),
                "marker": MARKERS[place % len(MARKERS)],
                "linestyle": "none",
            }
            mean, low, high = (100 * cell[key] for key in ("mean", "low", "high"))
            axes.plot([low, high], [offsets[place]] * 2, color=colour(place), linewidth=2, alpha=0.55)
            axes.plot([mean], [offsets[place]], markersize=6, label=label(name), **style)
            found = [(row, cell["per_domain"][domain]) for row, domain in enumerate(domains, 1)
                     if domain in cell.get("per_domain", {})]  # fmt: skip
            rows = [row + offsets[place] for row, _ in found]
            for row, domain in enumerate(domains, 1):
                if (span := bounds.get(name, {}).get(domain)) is not None:
                    line: dict[str, Any] = {"color": colour(place), "linewidth": 1.4, "alpha": 0.5}
                    axes.plot([100 * span.low, 100 * span.high], [row + offsets[place]] * 2, **line)
            axes.plot([100 * score for _, score in found], rows, markersize=5, **style)
        for row in range(0, len(domains) + 1, 2):
            axes.axhspan(row - 0.5, row + 0.5, color="#f3f5f8", zorder=0, linewidth=0)
        axes.axhline(0.5, color="#8a8f98", linewidth=1)
        ticks = [label(text, 20 if narrow else _LABEL_CHARS) for text in domains]
        axes.set_yticks(range(len(domains) + 1), ["mean over\ndomains", *ticks])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(domains) + 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"{label(measure)}, points")
        figure.legend(loc="outside upper left", ncols=2 if narrow else 6, columnspacing=1.2, handletextpad=0.3)

    return draw


def query_scatter(scored: Scored, base: str, measure: str) -> Draw:
    """A panel for each system but `base`: its score against the base's, a dot for each pair of scores.

    A dot's area grows with the number of queries that it stands for (scores to two decimals). Dots above the diagonal
    gained, those below lost.
    """
    names = [name for name in scored if name != base]

    def draw(figure: Figure, narrow: bool) -> None:
        columns = min(len(names), 2 if narrow else 3)
        panels = np.atleast_1d(figure.subplots(math.ceil(len(names) / columns), columns, squeeze=False)).ravel()
        for axes in panels[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(panels, names, strict=False):
            keys = [key for key in scored[name] if key in scored[base]]
            pairs = np.array([[scored[base][key], scored[name][key]] for key in keys])
            (x, y), counts = (found := np.unique(pairs.round(2), axis=0, return_counts=True))[0].T * 100, found[1]
            axes.plot([0, 100], [0, 100], color="#8a8f98", linewidth=1, zorder=1)
            for shade, marker, chosen in ((HIGHER, "^", y > x), (LOWER, "v", y < x), ("#8a8f98", "o", y == x)):
                sizes = np.minimum(10 + 6 * counts[chosen], 160)
                axes.scatter(x[chosen], y[chosen], s=sizes, c=shade, marker=marker, alpha=0.65, linewidths=0, zorder=2)
            axes.set(xlim=(-4, 104), ylim=(-4, 104), aspect="equal", xticks=(0, 50, 100), yticks=(0, 50, 100))
            axes.grid(visible=True, axis="both")
            axes.set_title(label(name, 18 if narrow else _LABEL_CHARS), loc="left", color="#3b4048")
        style: dict[str, Any] = {"fontsize": 9.5, "color": "#3b4048"}
        figure.supxlabel(f"{label(measure)} of a query under {label(base)}, points", **style)
        figure.supylabel("under the system", **style)

    return draw


def over_steps(
    curves: Mapping[str, tuple[Sequence[int], Sequence[Sequence[float]]]],
    title: str,
    colours: Sequence[str],
    *,
    reference: float | None = None,
) -> Draw:
    """For each named curve (steps, the values at each step) the median over steps, and its quartile band.

    reference: a value to draw a dotted line at.
    """

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        if reference is not None:
            axes.axhline(reference, color="#3b4048", linewidth=1.2, linestyle=":")
        for order, (shade, (name, (steps, values))) in enumerate(zip(colours, curves.items(), strict=True)):
            place, low, middle, high = quartile_band(steps, values)
            style: dict[str, Any] = {"linestyle": _DASHES[order % 4], "marker": "o" if len(place) < 8 else ""}
            axes.plot(place, middle, color=shade, linewidth=2, label=label(name), **style)
            axes.fill_between(place, low, high, color=shade, alpha=0.2, linewidth=0)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5 if narrow else 9, integer=True))
        axes.set_xlabel("optimiser step")
        axes.set_ylabel(title)
        if len(curves) > 1:
            figure.legend(loc="outside upper left", ncols=2 if narrow else 5)

    return draw


def quartile_band(
    steps: Sequence[int], values: Sequence[Sequence[float]], *, bins: int = _BINS
) -> tuple[Values, Values, Values, Values]:
    """Mean step, first quartile, median, third quartile of the values, in at most `bins` bins of steps."""
    chunks = np.array_split(np.arange(len(steps)), min(bins, len(steps)))
    pools = [np.concatenate([np.asarray(values[index], dtype=float) for index in chunk]) for chunk in chunks]
    places = np.array([np.mean([steps[index] for index in chunk]) for chunk in chunks])
    low, middle, high = np.array([np.quantile(pool, (0.25, 0.5, 0.75)) for pool in pools]).T
    return places, low, middle, high


def growth(points: Mapping[int, Interval], title: str, *, base: Interval) -> Draw:
    """The mean with its interval (fractions, drawn in points) at each number of training samples, on a log axis.

    base: the untrained model, a dotted line over a band.
    """

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        sizes = list(points)
        axes.axhspan(100 * base.low, 100 * base.high, color="#8a8f98", alpha=0.15, linewidth=0)
        axes.axhline(100 * base.mean, color="#3b4048", linewidth=1.2, linestyle=":", label="base, untrained")
        means = [100 * one.mean for one in points.values()]
        spans = [[100 * (one.mean - one.low) for one in points.values()],
                 [100 * (one.high - one.mean) for one in points.values()]]  # fmt: skip
        axes.errorbar(sizes, means, yerr=spans, color=HIGHER, marker="o", linewidth=2, elinewidth=1.4, capsize=3,
                      label="trained")  # fmt: skip
        axes.set_xscale("log", base=2)
        shown = sizes if len(sizes) <= (5 if narrow else 10) else sizes[:: -math.ceil(len(sizes) / 5)]
        axes.set_xticks(shown, [f"{size:,}" for size in shown])
        axes.minorticks_off()
        axes.margins(x=0.08)
        axes.set_xlabel("training samples, logarithmic")
        axes.set_ylabel(f"{label(title)}, points")
        figure.legend(loc="outside upper left", ncols=2)

    return draw


def two_histograms(pools: Mapping[str, Sequence[float]], title: str, *, limit: float) -> Draw:
    """Shares of up to a few pools of values, as outlines over common bins from 0 to `limit`."""
    edges = np.linspace(0, limit, 26)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for place, (name, values) in enumerate(pools.items()):
            counts, _ = np.histogram(np.clip(values, 0, limit), bins=edges)
            shade = ("#8a8f98", "#D55E00")[place % 2]
            axes.stairs(100 * counts / len(values), edges, color=shade, linewidth=2, fill=False, label=label(name))
            axes.stairs(100 * counts / len(values), edges, color=shade, alpha=0.15, fill=True)
        axes.set_xlabel(title)
        axes.set_ylabel("share of examples, %")
        axes.set_xlim(0, limit)
        figure.legend(loc="outside upper left", ncols=2)

    return draw


def bars(counts: Mapping[str, int], title: str, *, shades: Sequence[str]) -> Draw:
    """A bar for each count, with the count and its share above."""
    total = max(1, sum(counts.values()))

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        drawn = axes.bar(list(map(label, counts)), list(counts.values()), color=list(shades), width=0.72)
        texts = [f"{count:,}\n{100 * count / total:.1f} %" for count in counts.values()]
        axes.bar_label(drawn, texts, padding=2, fontsize=8.5)
        axes.margins(y=0.16)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel(title)
        _whole_numbers(axes)

    return draw


def count_histograms(counts: Mapping[str, Sequence[int]], shades: Sequence[str]) -> Draw:
    """A panel for each list of whole numbers: how many queries have how many."""

    def draw(figure: Figure, narrow: bool) -> None:
        shape = (len(counts), 1) if narrow else (1, len(counts))
        panels = np.atleast_1d(figure.subplots(*shape)).ravel()
        for axes, shade, (name, values) in zip(panels, shades, counts.items(), strict=True):
            step = max(1, math.ceil((max(values) - min(values) + 1) / 30))
            edges = np.arange(min(values), max(values) + step + 1, step) - 0.5
            axes.hist(values, bins=edges.tolist(), color=shade, rwidth=0.9)
            axes.axvline(float(np.median(values)), color="#3b4048", linewidth=1.2, linestyle="--")
            axes.set_title(f"median {np.median(values):g}", loc="right", color="#3b4048")
            axes.set_xlabel(name)
            axes.set_ylabel("queries")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
            _whole_numbers(axes)

    return draw


def boxes(pools: Mapping[str, Sequence[float]], title: str, *, shades: Sequence[str], decimals: int = 3) -> Draw:
    """A lying box for each pool: quartiles, median, and whiskers from the 5th to the 95th percentile.

    decimals: of the median that is written above each box.
    """

    def draw(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        drawn = axes.boxplot(
            [list(values) for values in pools.values()],
            orientation="horizontal",
            whis=(5, 95),
            widths=0.55,
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "#000000", "linewidth": 2},
        )
        for box, shade in zip(drawn["boxes"], shades, strict=True):
            box.set(facecolor=shade, alpha=0.75)
        for row, values in enumerate(pools.values(), 1):
            middle = float(np.median(values))
            axes.text(middle, row - 0.32, f"{middle:,.{decimals}f}", ha="center", va="bottom", fontsize=8.5)
        axes.set_yticks(range(1, len(pools) + 1), list(map(label, pools)))
        axes.set_ylim(len(pools) + 0.55, 0.35)
        axes.set_xlim(left=0)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(title)

    return draw


def _whole_numbers(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
