"""The report on contamination: distribution per domain, shares above thresholds, the nearest pairs with both texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

from reasonembed.analyze.contamination import THRESHOLDS, Contamination, Match
from reasonembed.evaluate.blocks import Block, Cell, Fold, Paragraph, Section, Table, cells, picture, quantile_texts

_NAMES = {"query": ("benchmark query", "training query"), "document": ("gold document", "training positive")}
_TITLES = {"query": "Queries", "document": "Gold documents"}
_SHADES = ("#56B4E9", "#0072B2")
_TEXT_CHARS = 600  # shown of each text of a pair
_SHOWN_PAIRS = 50


def contamination_section(found: Contamination, *, threshold: float) -> Section:
    """Distribution, thresholds, and the pairs of at least `threshold`."""
    blocks = [_intro(found), _plot(found), *_tables(found), *_pairs(found, threshold)]
    return Section(f"contamination-{found.kind}", _TITLES[found.kind], tuple(blocks))


def text_lines(found: Contamination) -> list[str]:
    """The distribution per domain as lines for a terminal."""
    there, here = _NAMES[found.kind]
    lines = [f"{there} against {found.training_texts:,} {here} texts: largest weighted Jaccard similarity"]
    lines.append(f"{'domain':<24} {'texts':>6} {'median':>7} {'max':>7} {'>= 0.3':>8} {'>= 0.5':>8} {'>= 0.7':>8}")
    for domain, row in found.summary().items():
        shares: dict[str, float] = row["share_at"]  # type: ignore[assignment]
        shown = " ".join(f"{100 * shares[key]:>6.1f} %" for key in ("0.3", "0.5", "0.7"))
        lines.append(f"{domain:<24} {row['texts']:>6} {row['median']:>7.3f} {row['max']:>7.3f} {shown}")
    return lines


def _intro(found: Contamination) -> Paragraph:
    there, here = _NAMES[found.kind]
    return Paragraph(
        f"For each of {len(found.matches):,} {there} texts the largest weighted Jaccard similarity (sum of the smaller "
        f"over sum of the larger word counts, every word counted) to any of {found.training_texts:,} {here} texts: 0 "
        f"if no word is shared, 1 if both hold the same words equally often. The search is exact."
    )


def _plot(found: Contamination) -> Block:
    from reasonembed.evaluate.plots import boxes

    pools = found.per_domain()
    medians = ", ".join(f"{name} {quantile_texts(values, [0.5], 3)[0]}" for name, values in pools.items())
    return picture(
        boxes(pools, "largest similarity to training data, 0 to 1", shades=list(islice(cycle(_SHADES), len(pools)))),
        alt=f"Box plot of the largest similarity per domain; medians: {medians}.",
        caption="Boxes span the quartiles with the median in black, whiskers the 5th to the 95th percentile.",
        height_in=1.1 + 0.5 * len(pools),
    )


def _tables(found: Contamination) -> list[Block]:
    rows, shares = [], []
    for domain, row in found.summary().items():
        at: dict[str, float] = row["share_at"]  # type: ignore[assignment]
        rows.append(cells(domain, f"{row['texts']:,}", *(f"{row[key]:.3f}" for key in ("mean", "median", "max"))))
        shares.append(cells(domain, *(f"{100 * share:.1f}" for share in at.values())))
    total = len(rows) > 1
    heads = ("Domain", *(f"{threshold:.1f}" for threshold in THRESHOLDS))
    return [
        Table(
            "Largest similarity of each text", ("Domain", "Texts", "Mean", "Median", "Max"), tuple(rows), total=total
        ),
        Table("Texts at or above a similarity, %", heads, tuple(shares), total=total),
    ]


def _pairs(found: Contamination, threshold: float) -> list[Block]:
    near = found.above(threshold)
    there, here = _NAMES[found.kind]
    if not near:
        return [Paragraph(f"No {there} comes to {threshold:g} or more.")]
    said = Paragraph(f"{len(near):,} {there} texts come to {threshold:g} or more.")
    head = ("Similarity", "Benchmark", there.capitalize(), "Example", here.capitalize())
    table = Table("The nearest pairs", head, tuple(map(_pair, near[:_SHOWN_PAIRS])), prose=(1, 2, 3, 4))
    label = f"The {min(len(near), _SHOWN_PAIRS)} nearest pairs, both texts"
    return [said, Fold(label, (table,))]


def _pair(match: Match) -> tuple[Cell, ...]:
    return cells(
        f"{match.similarity:.3f}",
        f"{match.domain}/{match.text_id}",
        _cut(match.text),
        f"{match.example_domain}/{match.example_id}",
        _cut(match.example_text),
    )


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _TEXT_CHARS else flat[: _TEXT_CHARS - 1] + "…"


__all__: Sequence[str] = ["contamination_section", "text_lines"]
