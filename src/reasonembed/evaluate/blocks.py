"""What a report is made of: sections of paragraphs, lists, tables, pictures. The template lays them out."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import msgspec
import numpy as np

if TYPE_CHECKING:
    from reasonembed.evaluate.plots import Draw

_MINUS = re.compile(r"(?<![\w.)-])-(?=\d)")


class Paragraph(msgspec.Struct, frozen=True):
    """A paragraph; `small` for what explains the figures beside it."""

    kind: ClassVar[str] = "paragraph"
    text: str
    small: bool = False


class Bullets(msgspec.Struct, frozen=True):
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]


class Heading(msgspec.Struct, frozen=True):
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


class Cell(msgspec.Struct, frozen=True):
    """A cell of a table."""

    text: str
    best: bool = False
    tone: str = ""  # "higher", "lower", "unclear": how the figure is coloured


class Table(msgspec.Struct, frozen=True):
    """A table; the first cell of each row names the row. `prose`: columns that hold text, not figures."""

    kind: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    prose: tuple[int, ...] = ()
    total: bool = False  # the last row sums up the others
    tag_best: bool = False  # the best cells carry the word, not bold type alone


class Picture(msgspec.Struct, frozen=True):
    """A plot drawn twice, for a page and for a telephone, as data URIs; `alt` says what it shows."""

    kind: ClassVar[str] = "picture"
    wide: str
    narrow: str
    alt: str
    caption: str


class Fold(msgspec.Struct, frozen=True):
    """Blocks that a reader may open."""

    kind: ClassVar[str] = "fold"
    label: str
    blocks: tuple[Table | Paragraph, ...]


Block = Paragraph | Bullets | Heading | Table | Picture | Fold


class Section(msgspec.Struct, frozen=True):
    """A part of the report under one heading; `anchor` is its id in the page."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


def cells(*texts: str) -> tuple[Cell, ...]:
    """A row of plain cells."""
    return tuple(Cell(typographic(text)) for text in texts)


def typographic(text: str) -> str:
    """`text` with true minus signs before its numbers."""
    return _MINUS.sub("\N{MINUS SIGN}", text)


def picture(draw: Draw, *, alt: str, caption: str, height_in: float, narrow_height_in: float | None = None) -> Picture:
    """The plot for both widths; height_in: of the wide one."""
    from reasonembed.evaluate.plots import svg

    return Picture(
        wide=_data_uri(svg(draw, narrow=False, height_in=height_in)),
        narrow=_data_uri(svg(draw, narrow=True, height_in=narrow_height_in or height_in)),
        alt=alt,
        caption=caption,
    )


def quantiles(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """The quantiles of `values` at `shares`."""
    found: list[float] = np.quantile(np.asarray(values, dtype=float), shares).tolist()
    return found


def quantile_texts(values: Sequence[float], shares: Sequence[float], decimals: int = 2) -> list[str]:
    """The quantiles of `values` at `shares`, as text."""
    return [f"{value:.{decimals}f}" for value in quantiles(values, shares)]


def _data_uri(image: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(image.encode("utf-8", "replace")).decode("ascii")
