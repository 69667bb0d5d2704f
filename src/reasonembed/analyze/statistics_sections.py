"""The report on synthesis in figures: stages, lengths, grades, overlap and spend, for a page and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from reasonembed.analyze.distributions import QUANTILES, distribution
from reasonembed.analyze.overlap import pooled
from reasonembed.analyze.statistics import TEXT_KINDS, DomainStatistics, Statistics
from reasonembed.evaluate.blocks import Block, Fold, Paragraph, Section, Table, cells, picture
from reasonembed.evaluate.data_sections import (
    PAIR_NAMES,
    PAIR_SHADES,
    STAGE_HEAD,
    grades_section,
    overlap_section,
    stage_texts,
    synthesis_section,
)
from reasonembed.evaluate.report import stage_row
from reasonembed.evaluate.tables import columns
from reasonembed.llm.budget import money

_TEXT_SHADES = ("#9aa5b1", PAIR_SHADES["source"], PAIR_SHADES["positives"], "#8fc1e3")

T = TypeVar("T")


def statistics_sections(found: Statistics) -> list[Section]:
    """Stages, lengths, grades, overlap, spend; what has no figures yet is left out."""
    sections = [
        _stages_section(found),
        _lengths_section(found),
        _with_domains(
            grades_section(found.grades, found.positives, found.negatives),
            found,
            (_grades_table(found), _per_query_table(found)),
        ),
        _with_domains(
            overlap_section(found.overlaps), found, (_overlap_table(found),), note=(*_several(found), *_drawn(found))
        ),
        _spend_section(found),
    ]
    return [section for section in sections if section is not None]


def text_lines(found: Statistics) -> list[str]:
    """The figures as lines for a terminal: a table of stages for each domain, then tables with a row a domain."""
    lines: list[str] = []
    for one in found.domains:
        rows = [list(stage_texts([stage_row(manifest)])) for manifest in one.stages]
        dropped = [row.pop(3) for row in rows]
        head = [one.domain, *(name for name in STAGE_HEAD[1:] if not name.startswith("Dropped"))]
        table = columns([head, *rows]).splitlines()
        lines += [*table[:2], *(f"{line}   dropped: {why}" for line, why in zip(table[2:], dropped, strict=True)), ""]
    for table_of in (_lengths_table, _grades_table, _per_query_table, _overlap_table, _spend_table):
        shown = table_of(found)
        if shown.rows:
            lines += [shown.caption, columns([shown.head, *([cell.text for cell in row] for row in shown.rows)]), ""]
    return [*lines, *(block.text for block in (*_unread(found), *_several(found), *_drawn(found)))]


def _stages_section(found: Statistics) -> Section | None:
    section = synthesis_section([stage_row(manifest) for manifest in found.manifests])
    if section is None:
        return None
    tables = tuple(_domain_stages(one) for one in found.domains)
    fold = (Fold("Stages by domain", tables),) if len(tables) > 1 else ()
    return Section("stages", "Stages", (*section.blocks, *fold, *_unread(found)))


def _domain_stages(one: DomainStatistics) -> Table:
    rows = tuple(cells(*stage_texts([stage_row(manifest)])) for manifest in one.stages)
    return Table(one.domain, STAGE_HEAD, rows, prose=(3,))


def _lengths_section(found: Statistics) -> Section | None:
    pools: dict[str, list[int]] = {kind: [one.words for one in found.lengths(kind)] for kind in TEXT_KINDS}
    shades = [shade for shade, values in zip(_TEXT_SHADES, pools.values(), strict=True) if values]
    pools = {kind: values for kind, values in pools.items() if values}
    if not pools:
        return None
    from reasonembed.evaluate.plots import boxes

    medians = ", ".join(f"{kind} {distribution(values)['median']:,.0f}" for kind, values in pools.items())
    plot = picture(
        boxes(pools, "words", shades=shades, decimals=0),
        alt=f"Box plot of the lengths of texts in words; medians: {medians}.",
        caption="All domains. Boxes span the quartiles with the median in black, whiskers the 5th to the 95th "
        "percentile.",
        height_in=1.1 + 0.5 * len(pools),
    )
    said = Paragraph("Words are runs of letters and digits; where a language sets no spaces, go by the characters.")
    return Section("lengths", "Lengths", (said, plot, _lengths_table(found), *_drawn(found)))


def _lengths_table(found: Statistics) -> Table:
    rows = []
    for one in found.domains:
        for kind in TEXT_KINDS:
            if values := one.lengths.get(kind, ()):
                of_words = distribution([length.words for length in values])
                middle = distribution([length.characters for length in values])["median"]
                figures = [f"{of_words[key]:,.0f}" for key in ("mean", *QUANTILES)]
                rows.append(cells(f"{one.domain}, {kind}", f"{len(values):,}", *figures, f"{middle:,.0f}"))
    head = ("Domain, texts", "Texts", "Mean", *_quantile_heads(), "Median characters")
    return Table("Lengths in words", head, tuple(rows))


def _grades_table(found: Statistics) -> Table:
    rows = []
    for name, grades in _named(found, [one.grades for one in found.domains], found.grades):
        if total := sum(grades.values()):
            shares = [f"{100 * grades.get(grade, 0) / total:.1f}" for grade in range(1, 6)]
            rows.append(cells(name, f"{total:,}", *shares))
    head = ("Domain", "Labels", *(f"Grade {grade}, %" for grade in range(1, 6)))
    return Table("Grades", head, tuple(rows), total=len(rows) > 1)


def _per_query_table(found: Statistics) -> Table:
    pairs = [(one.positives, one.negatives) for one in found.domains]
    rows = []
    for name, (positives, negatives) in _named(found, pairs, (found.positives, found.negatives)):
        if positives:
            rows.append(cells(name, f"{len(positives):,}", *_count_texts(positives), *_count_texts(negatives)))
    head = ("Domain", "Queries", "Positives, mean", "Median", "Most", "Negatives, mean", "Median", "Most")
    return Table("Positives and negatives of a query", head, tuple(rows), total=len(rows) > 1)


def _count_texts(counts: Sequence[int]) -> list[str]:
    figures = distribution(counts)
    return [f"{figures['mean']:.1f}", f"{figures['median']:g}", f"{max(counts):,}"]


def _overlap_table(found: Statistics) -> Table:
    rows = []
    of_domains: list[dict[str, list[float]]] = [dict(pooled(one.overlaps).items()) for one in found.domains]
    for name, pools in _named(found, of_domains, found.overlaps):
        if pools["source"]:
            medians = [f"{distribution(values)['median']:.3f}" for values in pools.values()]
            rows.append(cells(name, f"{len(pools['source']):,}", *medians))
    head = ("Domain", "Queries", *(f"With {name}" for name in PAIR_NAMES.values()))
    return Table("Weighted Jaccard similarity of a query, medians", head, tuple(rows), total=len(rows) > 1)


def _spend_section(found: Statistics) -> Section | None:
    if not found.costs:
        return None
    said = Paragraph(
        "All replies that the workspace's journal holds, whichever run asked for them, and in whichever domain.",
        small=True,
    )
    return Section("spend", "Spend", (_spend_table(found), said))


def _spend_table(found: Statistics) -> Table:
    rows = []
    for one in found.costs:
        spent = one.spending
        cost = "no price" if one.cost is None else money(one.cost, found.currency)
        name = f"{spent.stage}, {spent.model or 'not noted'}"
        rows.append(cells(name, f"{spent.calls:,}", f"{spent.prompt_tokens:,}", f"{spent.completion_tokens:,}", cost))
    if len(rows) > 1:
        sums = [
            sum(getattr(one.spending, name) for one in found.costs)
            for name in ("calls", "prompt_tokens", "completion_tokens")
        ]
        known = [one.cost for one in found.costs if one.cost is not None]
        total = money(sum(known), found.currency) if len(known) == len(rows) else "not known"
        rows.append(cells("all", *(f"{count:,}" for count in sums), total))
    head = ("Stage, model", "Calls", "Tokens in", "Tokens out", "Cost")
    return Table("Spend", head, tuple(rows), total=len(rows) > 1)


def _with_domains(
    section: Section | None, found: Statistics, tables: tuple[Table, ...], *, note: Sequence[Block] = ()
) -> Section | None:
    """The section over all domains with the figures of each."""
    if section is None:
        return None
    fold = Fold("The same by domain", tuple(table for table in tables if table.rows))
    blocks = (*section.blocks, *((fold,) if len(found.domains) > 1 else ()), *note)
    return Section(section.anchor, section.title, blocks)


def _named(found: Statistics, values: Sequence[T], whole: T) -> Iterator[tuple[str, T]]:
    """Each domain's value under its name, and where there are several the whole as `all`."""
    yield from zip((one.domain for one in found.domains), values, strict=True)
    if len(found.domains) > 1:
        yield "all", whole


def _quantile_heads() -> tuple[str, ...]:
    return tuple(key.replace("%", " %").capitalize() for key in QUANTILES)


def _several(found: Statistics) -> tuple[Paragraph, ...]:
    if not found.several_sources:
        return ()
    said = "Queries were written from several documents: the overlap with the source has a pair for each of them."
    return (Paragraph(said, small=True),)


def _drawn(found: Statistics) -> tuple[Paragraph, ...]:
    if found.sample is None:
        return ()
    said = (
        f"Lengths of documents and sources, and overlaps, are those of at most {found.sample:,} of each domain, drawn "
        f"by seed {found.seed}."
    )
    return (Paragraph(said, small=True),)


def _unread(found: Statistics) -> tuple[Paragraph, ...]:
    return tuple(
        Paragraph(f"{one.domain}: documents, sources and overlaps are left out. {one.unread}")
        for one in found.domains
        if one.unread
    )


__all__ = ["statistics_sections", "text_lines"]
