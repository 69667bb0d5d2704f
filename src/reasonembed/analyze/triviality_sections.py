"""The report on triviality: overlap by what a text is to its query, the source's rank, the most similar pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reasonembed.analyze.distributions import QUANTILES
from reasonembed.analyze.overlap import Kind
from reasonembed.analyze.triviality import FAR, KINDS, TOP, Triviality, rank_bins
from reasonembed.evaluate.blocks import Block, Fold, Paragraph, Section, Table, cells, picture, quantile_texts
from reasonembed.evaluate.data_sections import PAIR_NAMES, PAIR_SHADES
from reasonembed.evaluate.tables import columns

_FIGURES = {
    "rouge_l": (
        "ROUGE-L",
        "F measure of the longest common sequence of words: 2 LCS over the number of words of query and text, every "
        "word counted, none stemmed.",
    ),
    "jaccard": (
        "Weighted Jaccard",
        "Sum of the smaller over sum of the larger word counts, English function words left out.",
    ),
}
_BM25 = "bag-of-words BM25 (k1 0.9, b 0.4), the query over the source's whole corpus"
_RANK_SHADE = "#0072B2"
_TEXT_CHARS = 600  # shown of each text of a pair


def triviality_sections(found: Triviality) -> list[Section]:
    """What was measured, ROUGE-L, weighted Jaccard, the source's rank, the most similar pairs."""
    return [
        Section("measured", "What was measured", _measured(found)),
        *(_overlap_section(found, figure) for figure in _FIGURES),
        _rank_section(found),
        _pairs_section(found),
    ]


def text_lines(found: Triviality) -> list[str]:
    """The figures as lines for a terminal."""
    summary = found.summary()
    lines = ["Overlap of a query with its texts, 0 to 1, medians over pairs. " + _drawn(found)]
    for figure, (name, _) in _FIGURES.items():
        rows = [[domain, *(_median(row[figure], kind) for kind in KINDS)] for domain, row in summary.items()]
        lines += ["", columns([[name, *KINDS], *rows])]
    lines.append("")
    ranked = {domain: row["source_rank"] for domain, row in summary.items() if row["source_rank"]}
    if ranked:
        lines.append(f"Rank of the source under {_BM25}")
        lines.append(columns([_rank_head(), *([domain, *_rank_texts(row)] for domain, row in ranked.items())]))
    lines += [block.text for block in (*_several(found), *_unmeasured(found))]
    return lines


def _measured(found: Triviality) -> tuple[Block, ...]:
    return (Paragraph(_drawn(found)), *_several(found), *_unmeasured(found), _counts(found))


def _several(found: Triviality) -> list[Paragraph]:
    if not found.several_sources:
        return []
    return [
        Paragraph(
            "Queries were written from several documents: each of them makes a pair with its query, and the rank is "
            "that of the one that ranks first, the others not counted."
        )
    ]


def _drawn(found: Triviality) -> str:
    total = sum(one.total for one in found.domains)
    measured = sum(len(one.examples) for one in found.domains)
    if measured == total:
        return f"All {total:,} examples were measured."
    return (
        f"Of {total:,} examples {measured:,} were measured: at most {found.sample:,} of each domain, drawn by seed "
        f"{found.seed}."
    )


def _unmeasured(found: Triviality) -> list[Paragraph]:
    if not (names := found.without_sources):
        return []
    return [
        Paragraph(
            f"Not measured: overlap with the source and the source's rank for {', '.join(names)}. The data name no "
            f"sources, as the released format does not; a workspace of `synthesize` does."
        )
    ]


def _counts(found: Triviality) -> Table:
    rows = [
        cells(domain, f"{row['examples']:,}", f"{row['of']:,}", *(_pairs_text(row, kind) for kind in KINDS))
        for domain, row in found.summary().items()
    ]
    head = ("Domain", "Examples measured", "Examples in all", *(f"Pairs with {PAIR_NAMES[kind]}" for kind in KINDS))
    return Table("Examples and pairs", head, tuple(rows), total=len(rows) > 1)


def _overlap_section(found: Triviality, figure: str) -> Section:
    from reasonembed.evaluate.plots import boxes

    name, meaning = _FIGURES[figure]
    pools = found.pooled(figure)
    medians = ", ".join(f"{PAIR_NAMES[kind]} {quantile_texts(values, [0.5], 3)[0]}" for kind, values in pools.items())
    plot = picture(
        boxes(
            {PAIR_NAMES[kind]: values for kind, values in pools.items()},
            f"{name}, 0 to 1",
            shades=[PAIR_SHADES[kind] for kind in pools],
        ),
        alt=f"Box plot of {name} of a query with other texts; medians: {medians}.",
        caption="All pairs of all domains. Boxes span the quartiles with the median in black, whiskers the 5th to the "
        "95th percentile.",
        height_in=1.1 + 0.5 * len(pools),
    )
    tables = tuple(_quantile_table(found, figure, kind) for kind in pools)
    label = "The same by domain"
    return Section(figure.replace("_", "-"), name, (Paragraph(meaning), plot, Fold(label, tables)))


def _quantile_table(found: Triviality, figure: str, kind: Kind) -> Table:
    rows = []
    for domain, row in found.summary().items():
        if (cell := row[figure].get(kind)) is not None:
            figures = [f"{cell[key]:.3f}" for key in ("mean", *QUANTILES)]
            rows.append(cells(domain, f"{cell['pairs']:,}", *figures))
    head = ("Domain", "Pairs", "Mean", *(key.replace("%", " %").capitalize() for key in QUANTILES))
    return Table(f"{_FIGURES[figure][0]} of a query with {PAIR_NAMES[kind]}", head, tuple(rows), total=len(rows) > 1)


def _rank_section(found: Triviality) -> Section:
    title = "Rank of the source"
    ranks = found.ranks()
    if not ranks:
        return Section("source-rank", title, tuple(_unmeasured(found)))
    from reasonembed.evaluate.plots import bars

    bins = rank_bins(ranks)
    plot = picture(
        bars(bins, "rank of the source", shades=[_RANK_SHADE] * len(bins)),
        alt="Bar chart of the rank of the source; " + ", ".join(f"{name}: {count:,}" for name, count in bins.items()),
        caption=f"{len(ranks):,} queries by the rank of the document that they were written from; k: thousand.",
        height_in=2.8,
    )
    intro = Paragraph(
        f"Ranked by {_BM25}. Copies of the source are not counted; a source that shares no term with its query has the "
        f"number of documents as its rank. The nearer a source ranks, the more a query gives it away by its words. The "
        f"source itself is neither positive nor negative in training."
    )
    rows = [
        cells(domain, *_rank_texts(row["source_rank"])) for domain, row in found.summary().items() if row["source_rank"]
    ]
    table = Table("Rank of the source", tuple(map(str.capitalize, _rank_head())), tuple(rows), total=len(rows) > 1)
    return Section("source-rank", title, (intro, plot, table))


def _rank_head() -> list[str]:
    return ["domain", "queries", "documents", "median", "at 1, %", f"to {TOP}, %", f"over {FAR}, %"]


def _rank_texts(row: dict[str, Any]) -> list[str]:
    shares = (row["share_first"], row[f"share_top_{TOP}"], row[f"share_over_{FAR}"])
    counts = [f"{row['queries']:,}", f"{row['documents']:,}", f"{row['median']:,.0f}"]
    return [*counts, *(f"{100 * share:.1f}" for share in shares)]


def _pairs_section(found: Triviality) -> Section:
    rows = tuple(
        cells(f"{pair.rouge_l:.3f}", f"{pair.domain}/{pair.example_id}", _cut(pair.query), _cut(pair.positive))
        for pair in found.nearest()
    )
    table = Table("Largest ROUGE-L first", ("ROUGE-L", "Example", "Query", "Positive"), rows, prose=(1, 2, 3))
    said = Paragraph("Queries and positives that are most alike, for a person to judge: are they trivial, or copies?")
    fold: Block = Fold(f"The {len(rows)} pairs of query and positive with the largest ROUGE-L", (table,))
    return Section("pairs", "The most similar pairs", (said, fold))


def _median(figures: dict[str, Any], kind: str) -> str:
    return f"{figures[kind]['median']:.3f}" if kind in figures else "-"


def _pairs_text(row: dict[str, Any], kind: str) -> str:
    return f"{row['rouge_l'][kind]['pairs']:,}" if kind in row["rouge_l"] else "–"


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _TEXT_CHARS else flat[: _TEXT_CHARS - 1] + "…"


__all__: Sequence[str] = ["text_lines", "triviality_sections"]
