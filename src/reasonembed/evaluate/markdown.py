"""A report's sections as Markdown: the same words and tables as the HTML page; pictures by what they show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from reasonembed.evaluate.blocks import Block, Bullets, Cell, Fold, Heading, Paragraph, Picture, Section, Table

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&!])")
_AT_START = re.compile(r"^(\d*)([-+=.)])(?=\s|$|\2)")  # a list, a rule, an underlined heading


def render_markdown(title: str, summary: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """The report as GitHub's Markdown. Texts are data: what would be markup in them is escaped, and nothing is HTML."""
    parts = [f"# {_plain(title)}"]
    if summary:
        parts.append(_plain(summary))
    if facts:
        parts.append("\n".join(f"- {_plain(name)}: {_plain(value)}" for name, value in facts.items()))
    for section in sections:
        parts.append(f"## {_plain(section.title)}")
        parts += (text for block in section.blocks for text in _block(block))
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph():
            yield _plain(block.text)
        case Heading():
            yield f"### {_plain(block.text)}"
        case Bullets():
            yield "\n".join(f"- {_plain(item)}" for item in block.items)
        case Picture():
            yield f"*In report.html: {_plain(block.alt)}*"
        case Table():
            yield f"**{_plain(block.caption)}**"
            yield _table(block)
        case Fold():
            yield f"### {_plain(block.label)}"
            for inner in block.blocks:
                yield from _block(inner)


def _table(table: Table) -> str:
    rules = ["---" if place == 0 or place in table.prose else "---:" for place in range(len(table.head))]
    rows = [[_plain(text) or " " for text in table.head], rules]
    rows += [[_cell(cell) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(cell: Cell) -> str:
    text = _plain(cell.text)
    return f"**{text}**" if cell.best and text else text


def _plain(text: str) -> str:
    """The text on one line, every sign that Markdown would read as markup behind a backslash."""
    return _AT_START.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", " ".join(text.split())))
