"""The figures of `results.json` in words and in columns, for a report and a terminal. Pure functions.

Scores are fractions inside and points (0 to 100) for people. Whether a difference is clear is read from its
confidence interval alone: one that includes 0 is no clear difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from reasonembed.evaluate.compare import CONFIDENCE

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""system -> measure -> {mean, low, high, per_domain {domain: mean}, vs_base {difference, low, high, p, p_holm}}; the
last two may be absent, and so may p_holm."""

Outcome = Literal["higher", "lower", "unclear"]

INTERVAL = f"{CONFIDENCE:.0%}".replace("%", " %") + " interval"
_GAP = "   "


def measures_of(results: Results) -> list[str]:
    """The measures of all systems, in the order in which they come. Raises ValueError if there are none."""
    measures = list(dict.fromkeys(measure for cells in results.values() for measure in cells))
    if not measures:
        raise ValueError("the results hold no system with a measure; there is nothing to report")
    return measures


def domains_of(results: Results, measure: str) -> list[str]:
    """The domains for which any system has a score, in the order in which they come."""
    cells = (of_system[measure] for of_system in results.values() if measure in of_system)
    return list(dict.fromkeys(domain for cell in cells for domain in cell.get("per_domain", {})))


def best_systems(results: Results, measure: str) -> set[str]:
    """The systems with the highest mean: several only if their means are equal."""
    means = {name: cells[measure]["mean"] for name, cells in results.items() if measure in cells}
    return {name for name, mean in means.items() if mean == max(means.values())}


def outcome(versus: Mapping[str, float]) -> Outcome:
    """What a paired difference shows: the interval lies above 0, below 0, or includes it."""
    if versus["low"] > 0:
        return "higher"
    return "lower" if versus["high"] < 0 else "unclear"


def points(fraction: float) -> str:
    """A score in points, one decimal."""
    return f"{100 * fraction:.1f}"


def signed(fraction: float) -> str:
    """A difference in points with its sign; a second decimal where one would hide its side of 0."""
    for decimals in (1, 2):
        text = f"{100 * fraction:+.{decimals}f}"
        if float(text):
            return text
    return "0.0"


def p_value(p: float) -> str:
    """A p value, three decimals."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def findings(results: Results, measure: str, *, base: str = "base") -> str:
    """What the figures of one measure show, in sentences that claim no more than the intervals do."""
    scored = {name: cells[measure]["mean"] for name, cells in results.items() if measure in cells}
    versus = compared(results, measure, base)
    sentences = [_leader(scored, base)]
    reference = f"{base} ({points(scored[base])})" if base in scored else base
    wordings: dict[Outcome, str] = {
        "higher": f"Higher than {reference}",
        "lower": f"Lower than {reference}",
        "unclear": f"No clear difference from {reference}",
    }
    for kind, wording in wordings.items():
        if found := [_difference(name, cell) for name, cell in versus.items() if outcome(cell) == kind]:
            sentences.append(f"{wording}: {', '.join(found)}.")
    if versus:
        sentences.append(f"In brackets: the {INTERVAL} of the difference.")
    elif len(scored) > 1:
        sentences.append("The systems were not compared query by query, so which differences are clear is open.")
    return " ".join(sentences)


def _leader(scored: Mapping[str, float], base: str) -> str:
    """Who has the highest mean, and by how much where no comparison with the base says it."""
    first, *others = sorted(scored, key=lambda name: -scored[name])
    if not others:
        return f"{first} scores {points(scored[first])} points."
    lead = f"{first} has the highest mean of {len(scored)} systems, {points(scored[first])} points"
    second = others[0]
    if base in (first, second):
        return f"{lead}."
    ahead = scored[first] - scored[second]
    amount = f"{points(ahead)} above" if ahead >= 0.0005 else "less than 0.1 above" if ahead else "level with"
    return f"{lead}, {amount} {second}; these two were not compared query by query."


def compared(results: Results, measure: str, base: str) -> dict[str, Mapping[str, float]]:
    """system -> its difference from `base`, where there is one."""
    return {
        name: cells[measure]["vs_base"]
        for name, cells in results.items()
        if name != base and cells.get(measure, {}).get("vs_base")
    }


def corrected(versus: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the comparisons have p values corrected for their number, and more than one makes that worth a column."""
    return len(versus) > 1 and all("p_holm" in cell for cell in versus.values())


def _difference(name: str, versus: Mapping[str, float]) -> str:
    return f"{name} {signed(versus['difference'])} ({signed(versus['low'])} to {signed(versus['high'])})"


def text_table(
    results: Results,
    measures: Sequence[str] | None = None,
    *,
    base: str = "base",
    per_domain: bool = False,
) -> str:
    """The results for a terminal: a block for each measure, a line for each system; `*` marks the best.

    per_domain: a second block for each measure, one line for each domain and one column for each system.
    Raises ValueError for a measure that no system has.
    """
    known = measures_of(results)
    for measure in measures or ():
        if measure not in known:
            raise ValueError(f"no system has the measure {measure!r}; there are {', '.join(known)}")
    blocks = []
    for measure in measures or known:
        blocks.append(columns(_main_rows(results, measure, base)))
        if per_domain and (domains := domains_of(results, measure)):
            blocks.append(columns(_domain_rows(results, measure, domains)))
    return "\n\n".join(blocks)


def _main_rows(results: Results, measure: str, base: str) -> list[list[str]]:
    versus = compared(results, measure, base)
    head = [measure, "mean", INTERVAL, *versus_head(versus, f"vs {base}")]
    rows = [head]
    best = best_systems(results, measure)
    for name, cells in results.items():
        if (cell := cells.get(measure)) is None:
            rows.append([name] + ["-"] * (len(head) - 1))
            continue
        mean = ("* " if name in best else "") + points(cell["mean"])
        row = [name, mean, f"{points(cell['low'])} to {points(cell['high'])}"]
        if versus:
            row += versus_texts(versus, name, missing="-")
        rows.append(row)
    return rows


def versus_head(versus: Mapping[str, Mapping[str, float]], label: str) -> list[str]:
    """The heads of the columns that compare with the base; none where nothing was compared."""
    if not versus:
        return []
    return [label, INTERVAL, "p", *(["p, Holm"] if corrected(versus) else [])]


def versus_texts(versus: Mapping[str, Mapping[str, float]], name: str, *, missing: str) -> list[str]:
    """Difference, interval and p values of one system as texts; `missing` in each place where there are none."""
    if (cell := versus.get(name)) is None:
        return [missing] * len(versus_head(versus, ""))
    return [
        signed(cell["difference"]),
        f"{signed(cell['low'])} to {signed(cell['high'])}",
        p_value(cell["p"]),
        *([p_value(cell["p_holm"])] if corrected(versus) else []),
    ]


def _domain_rows(results: Results, measure: str, domains: Sequence[str]) -> list[list[str]]:
    cells = [of_system.get(measure, {}) for of_system in results.values()]

    def line(label: str, values: Sequence[float | None]) -> list[str]:
        return [label, *("-" if value is None else points(value) for value in values)]

    rows = [[f"{measure} by domain", *results]]
    rows += [line(domain, [cell.get("per_domain", {}).get(domain) for cell in cells]) for domain in domains]
    return [*rows, line("mean over domains", [cell.get("mean") for cell in cells])]


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Text in columns: the first to the left, the others to the right, a rule under the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(_GAP.join([first, *others]).rstrip())
    return "\n".join([lines[0], "-" * max(len(line) for line in lines), *lines[1:]])


__all__ = [
    "INTERVAL",
    "Outcome",
    "Results",
    "best_systems",
    "columns",
    "compared",
    "corrected",
    "domains_of",
    "findings",
    "measures_of",
    "outcome",
    "p_value",
    "points",
    "signed",
    "text_table",
    "versus_head",
    "versus_texts",
]
