"""The report on the training data: grades, lexical overlap, and what each stage of synthesis dropped."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import TypedDict

from reasonembed.evaluate.blocks import Block, Paragraph, Section, Table, cells, picture, quantile_texts
from reasonembed.evaluate.facts import duration

StageRow = TypedDict(
    "StageRow",
    {
        "domain": str,
        "stage": str,
        "in": int,
        "out": int,
        "dropped": Mapping[str, int],  # reason -> rows
        "calls": int,  # replies of a language model that the stage used
        "seconds": float,
    },
)
"""One stage of one domain, as its manifest counts it."""

_GRADE_SHADES = ("#9aa5b1", "#9aa5b1", "#8fc1e3", "#3f93cc", "#0072B2")
PAIR_SHADES = {"source": "#E69F00", "positives": "#0072B2", "negatives": "#9aa5b1"}
STAGE_HEAD = ("Stage", "Rows in", "Rows out", "Dropped, by reason", "Calls", "Time")
PAIR_NAMES = {"source": "its source", "positives": "its positives", "negatives": "its negatives"}


def grades_section(
    grades: Mapping[int, int], positives_per_query: Sequence[int], negatives_per_query: Sequence[int]
) -> Section | None:
    """The annotator's grades, and the positives and negatives that they leave a query; None without data."""
    blocks: list[Block] = []
    if sum(grades.values()):
        blocks += _grade_blocks({grade: grades.get(grade, 0) for grade in range(1, 6)})
    counts = {"positives per query": positives_per_query, "negatives per query": negatives_per_query}
    if given := {name: values for name, values in counts.items() if len(values)}:
        blocks += _per_query_blocks(given)
    return Section("grades", "Grades, positives and negatives", tuple(blocks)) if blocks else None


def _grade_blocks(grades: Mapping[int, int]) -> list[Block]:
    from reasonembed.evaluate.plots import bars

    total = sum(grades.values())
    positive = sum(count for grade, count in grades.items() if grade >= 3)
    listed = ", ".join(f"grade {grade}: {count:,}" for grade, count in grades.items())
    plot = picture(
        bars({str(grade): count for grade, count in grades.items()}, "grade", shades=_GRADE_SHADES),
        alt=f"Bar chart of the annotator's grades; {listed}.",
        caption="The annotator's grades, 1 (irrelevant) to 5 (directly and fully responsive). Grades 3 to 5 "
        "make positives (blue), 1 and 2 negatives (grey).",
        height_in=2.8,
    )
    said = f"{total:,} pairs of query and document were graded; {100 * positive / total:.1f} % are positives."
    return [Paragraph(said), plot]


def _per_query_blocks(counts: Mapping[str, Sequence[int]]) -> list[Block]:
    from reasonembed.evaluate.plots import count_histograms

    texts = [
        f"{name}: median {quantile_texts(values, [0.5], 0)[0]}, {min(values)} to {max(values)}"
        for name, values in counts.items()
    ]
    queries = max(len(values) for values in counts.values())
    plot = picture(
        count_histograms(counts, [PAIR_SHADES[name.split()[0]] for name in counts]),
        alt=f"Histograms over {queries:,} training queries; {'; '.join(texts)}.",
        caption=f"{queries:,} training queries by their positives and negatives; dashed: the median.",
        height_in=2.6,
        narrow_height_in=2.3 * len(counts),
    )
    return [plot]


def overlap_section(overlaps: Mapping[str, Sequence[float]]) -> Section | None:
    """How many words queries share with their sources, positives and negatives; None without data."""
    pools = {name: list(values) for name, values in overlaps.items() if len(values)}
    if not pools:
        return None
    from reasonembed.evaluate.plots import boxes

    named = {PAIR_NAMES.get(name, name): values for name, values in pools.items()}
    medians = [f"{name} {quantile_texts(values, [0.5], 3)[0]}" for name, values in named.items()]
    shades = [PAIR_SHADES.get(name, "#8fc1e3") for name in pools]
    plot = picture(
        boxes(named, "weighted Jaccard similarity, 0 to 1", shades=shades),
        alt=f"Box plot of the lexical overlap of a query with other texts; medians: {', '.join(medians)}.",
        caption="Boxes span the quartiles with the median in black, whiskers the 5th to the 95th percentile.",
        height_in=1.1 + 0.5 * len(pools),
    )
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    rows = [cells(name, f"{len(values):,}", *quantile_texts(values, shares, 3)) for name, values in named.items()]
    head = ("Query with", "Pairs", "5 %", "25 %", "Median", "75 %", "95 %")
    intro = (
        "Weighted Jaccard similarity of the word counts, function words left out: 0 if a query and a text "
        "share no word, 1 if they hold the same words. In trivial training data queries share many words "
        "with what they are to find."
    )
    table = Table("Percentiles of the overlap", head, tuple(rows))
    return Section("overlap", "Lexical overlap", (Paragraph(intro), plot, table))


def synthesis_section(stages: Sequence[StageRow]) -> Section | None:
    """What came into each stage, came out and was dropped, and why, over all domains; None without data."""
    if not stages:
        return None
    names = dict.fromkeys(stage["stage"] for stage in stages)
    rows = tuple(cells(*stage_texts([stage for stage in stages if stage["stage"] == name])) for name in names)
    domains = len({stage["domain"] for stage in stages})
    caption = f"Stages of synthesis over {domains} {'domain' if domains == 1 else 'domains'}"
    return Section("synthesis", "Synthesis", (Table(caption, STAGE_HEAD, rows, prose=(3,)), _CALLS))


def stage_texts(rows: Sequence[StageRow]) -> tuple[str, ...]:
    """One stage over some domains as texts under `STAGE_HEAD`; reasons by their frequency."""
    reasons: collections.Counter[str] = collections.Counter()
    for row in rows:
        reasons.update(dict(row["dropped"]))
    came, went, calls = (sum(row[key] for row in rows) for key in ("in", "out", "calls"))
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "none"
    seconds = sum(row["seconds"] for row in rows)
    return rows[0]["stage"], f"{came:,}", f"{went:,}", dropped, f"{calls:,}", duration(seconds)


_CALLS = Paragraph(
    "Calls are the replies of a language model that a stage used. Dropped rows are kept beside the stage's "
    "rows, each with its reason.",
    small=True,
)
