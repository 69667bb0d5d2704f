"""The report query by query: each system against the base, and the queries that gained and lost most, with texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from reasonembed.evaluate.blocks import Block, Cell, Fold, Paragraph, Section, Table, picture, typographic
from reasonembed.evaluate.per_query import CHANGES, Change, Key, Scored, largest_changes
from reasonembed.evaluate.tables import Outcome, points, signed

_TEXT_CHARS = 240


def queries_section(scored: Scored, texts: Mapping[Key, str], *, base: str, measure: str) -> Section | None:
    """Each system's queries against the base's, drawn and listed; None without scores of a base and another system."""
    others = [name for name in scored if name != base]
    if base not in scored or not others:
        return None
    from reasonembed.evaluate.plots import query_scatter

    counts = {name: _counts(scored[name], scored[base]) for name in others}
    said = "; ".join(f"{name} {count}" for name, count in counts.items())
    wide_in = 2.5 if len(others) > 1 else 4.0
    narrow_in = 1.75 if len(others) > 1 else 3.3
    plot = picture(
        query_scatter(scored, base, measure),
        alt=f"Scatter plots of {measure} of each query, system against {base}: {said}.",
        caption=f"{measure} of each query in points: {base} across, the system upwards; a larger dot stands for more "
        f"queries. Blue triangles above the line: higher than {base}; orange ones below: lower; grey: equal.",
        height_in=0.4 + wide_in * math.ceil(len(others) / 3),
        narrow_height_in=0.4 + narrow_in * math.ceil(len(others) / 2),
    )
    blocks: list[Block] = [Paragraph(f"Queries on which a system scores higher, lower, the same: {said}."), plot]
    for name in others:
        gains, losses = largest_changes(scored[name], scored[base])
        listed: list[tuple[str, list[Change], Outcome]] = [("gains", gains, "higher"), ("losses", losses, "lower")]
        tables = [
            _table(f"Largest {kind} of {name} over {base}", changes, texts, name, base, tone)
            for kind, changes, tone in listed
            if changes
        ]
        if tables:
            blocks.append(Fold(f"{name} against {base}: the {CHANGES} largest gains and losses", tuple(tables)))
    return Section("queries", "Query by query", tuple(blocks))


def _counts(scores: Mapping[Key, float], base: Mapping[Key, float]) -> str:
    shared = [(score, base[key]) for key, score in scores.items() if key in base]
    higher, lower = (sum(score > old for score, old in shared), sum(score < old for score, old in shared))
    return f"{higher:,} higher, {lower:,} lower, {len(shared) - higher - lower:,} equal"


def _table(
    caption: str, changes: Sequence[Change], texts: Mapping[Key, str], name: str, base: str, tone: Outcome
) -> Table:
    rows = tuple(
        (
            Cell(_name(change)),
            Cell(points(change.base)),
            Cell(points(change.score)),
            Cell(typographic(signed(change.difference)), tone=tone),
            Cell(_shortened(texts.get((change.domain, change.query_id), ""))),
        )
        for change in changes
    )
    return Table(caption, ("Query", base, name, "Difference", "Text"), rows, prose=(4,))


def _name(change: Change) -> str:
    """Domain and query id; the id alone where it names its domain."""
    return change.query_id if change.query_id.startswith(change.domain) else f"{change.domain} {change.query_id}"


def _shortened(text: str) -> str:
    """The text on one line, cut at a word with an ellipsis."""
    flat = " ".join(text.split())
    if len(flat) <= _TEXT_CHARS:
        return flat
    return flat[:_TEXT_CHARS].rsplit(" ", 1)[0] + " …"
