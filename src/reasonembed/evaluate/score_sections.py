"""The report's first half: what the systems scored, in all and by domain, under which protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reasonembed.evaluate.blocks import (
    Block,
    Bullets,
    Cell,
    Fold,
    Heading,
    Paragraph,
    Section,
    Table,
    cells,
    picture,
    typographic,
)
from reasonembed.evaluate.compare import Interval
from reasonembed.evaluate.tables import (
    INTERVAL,
    Results,
    best_systems,
    compared,
    corrected,
    domains_of,
    findings,
    measures_of,
    outcome,
    points,
    versus_head,
    versus_texts,
)


def results_section(
    results: Results, *, base: str, notes: Sequence[str] = (), protocols: Mapping[str, str] | None = None
) -> Section:
    """The main table, what it shows, what to bear in mind, and the protocol that the scores belong to."""
    blocks: list[Block] = []
    for measure in measures_of(results):
        said = typographic(findings(results, measure, base=base))
        blocks += [Heading(measure), Paragraph(said), _main_table(results, measure, base)]
    blocks.append(Paragraph(_legend(results, base), small=True))
    if notes:
        blocks += [Heading("Read the figures with this in mind"), Bullets(tuple(notes))]
    if protocols:
        blocks += [Heading("Protocol"), *_protocol(protocols)]
    return Section("results", "Results", tuple(blocks))


def _main_table(results: Results, measure: str, base: str) -> Table:
    versus, best = compared(results, measure, base), best_systems(results, measure)
    head = ["System", "Mean", INTERVAL, *versus_head(versus, f"Against {base}")]
    rows = []
    for name, of_system in results.items():
        if (cell := of_system.get(measure)) is None:
            rows.append(cells(name, *["–"] * (len(head) - 1)))
            continue
        mean = Cell(points(cell["mean"]), best=name in best)
        row = [Cell(name), mean, Cell(f"{points(cell['low'])} to {points(cell['high'])}")]
        if versus:
            tone = outcome(versus[name]) if name in versus else ""
            difference, *others = cells(*versus_texts(versus, name, missing="–"))
            row += [Cell(difference.text, tone=tone), *others]
        rows.append(tuple(row))
    return Table(f"{measure}, mean over domains, in points", tuple(head), tuple(rows), tag_best=True)


def _legend(results: Results, base: str) -> str:
    said = "All scores are points from 0 to 100."
    families = [compared(results, measure, base) for measure in measures_of(results)]
    if not any(families):
        return said
    said += (
        f" A difference from {base} is taken query by query; it is called higher or lower only if its interval "
        f"excludes 0, and no clear difference otherwise. Systems other than {base} were not compared with each other. "
        f"p is that of a paired randomisation test"
    )
    if all(corrected(family) for family in families):
        return f"{said}; p, Holm: the same corrected for the {len(families[0])} systems compared under one measure."
    return f"{said}, not corrected for the number of comparisons."


def _protocol(protocols: Mapping[str, str]) -> list[Block]:
    """What all systems share is said once, what is a system's own beside its name."""
    lines = {name: [line.strip() for line in text.splitlines() if line.strip()] for name, text in protocols.items()}
    first = next(iter(lines.values()))
    shared = [line for line in first if all(line in of_system for of_system in lines.values())]
    blocks: list[Block] = [Bullets(tuple(shared))] if shared else []
    own = {name: [line for line in of_system if line not in shared] for name, of_system in lines.items()}
    if any(own.values()):
        rows = tuple(cells(name, " ".join(of_system) or "as above") for name, of_system in own.items())
        blocks.append(Table("Each system's own settings", ("System", "How it was judged"), rows, prose=(1,)))
    return blocks


def domains_section(
    results: Results, *, intervals: Mapping[str, Mapping[str, Interval]] | None = None
) -> Section | None:
    """Each domain's scores, drawn and in a table; None if no domain is named.

    intervals: system -> domain -> confidence interval, under the first measure.
    """
    measures = [measure for measure in measures_of(results) if domains_of(results, measure)]
    if not measures:
        return None
    from reasonembed.evaluate.plots import domain_dots

    first, domains = measures[0], domains_of(results, measures[0])
    row_in = 0.2 + 0.13 * max(2, len(results))
    lines = "Lines are confidence intervals" if intervals else "Lines beside the means are confidence intervals"
    plot = picture(
        domain_dots(results, first, intervals),
        alt=_domain_alt(results, first, domains),
        caption=f"{first} by domain. {lines}; a domain alone has few queries, so read single domains with care. "
        f"All figures stand in the table below.",
        height_in=1.4 + row_in * (len(domains) + 1),
        narrow_height_in=1.8 + row_in * (len(domains) + 1),
    )
    tables = [_domain_table(results, measure) for measure in measures]
    if intervals:
        tables.insert(1, _interval_table(intervals, first, domains))
    return Section("domains", "Scores by domain", (plot, Fold("The same figures as a table", tuple(tables))))


def _interval_table(intervals: Mapping[str, Mapping[str, Interval]], measure: str, domains: Sequence[str]) -> Table:
    def texts(domain: str) -> list[str]:
        found = [of_system.get(domain) for of_system in intervals.values()]
        return ["–" if span is None else f"{points(span.low)} to {points(span.high)}" for span in found]

    rows = tuple(cells(domain, *texts(domain)) for domain in domains)
    return Table(f"{measure} by domain, {INTERVAL} in points", ("Domain", *intervals), rows)


def _domain_alt(results: Results, measure: str, domains: Sequence[str]) -> str:
    means = [f"{name} {points(of[measure]['mean'])}" for name, of in results.items() if measure in of]
    return f"Dot plot of {measure} in points over {len(domains)} domains; means: {', '.join(means)}."


def _domain_table(results: Results, measure: str) -> Table:
    systems = [of_system.get(measure, {}) for of_system in results.values()]
    rows = []
    for domain in domains_of(results, measure):
        rows.append(_score_row(domain, [cell.get("per_domain", {}).get(domain) for cell in systems]))
    rows.append(_score_row("mean over domains", [cell.get("mean") for cell in systems]))
    return Table(
        f"{measure} by domain, in points, best in bold",
        ("Domain", *results),
        tuple(rows),
        total=True,
    )


def _score_row(label: str, scores: Sequence[float | None]) -> tuple[Cell, ...]:
    best = max((score for score in scores if score is not None), default=None)
    row = [Cell("–") if score is None else Cell(points(score), best=score == best) for score in scores]
    return (Cell(label), *row)
