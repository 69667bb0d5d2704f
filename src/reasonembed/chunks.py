"""Long texts cut into pieces: by characters, on paragraph borders where there are some, with an overlap."""

from __future__ import annotations

import re

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_SPACE = re.compile(r"\s+")


def chunks(text: str, *, chars: int, overlap: int) -> list[str]:
    """The pieces of `text` in order, stripped, each of at most `chars` characters; a short text is one piece.

    A piece ends at the last paragraph border in its second half, else at the last white space there, else after
    `chars` characters. The next one begins up to `overlap` characters before that end, with a whole word.
    Nothing but white space is lost. Raises ValueError unless 0 <= overlap <= chars / 2.
    """
    if not 0 <= overlap <= chars // 2 or chars < 1:
        raise ValueError(f"overlap is {overlap}; it must lie between 0 and half of the {chars} characters of a piece")
    pieces = []
    start, end = 0, 0
    while end < len(text):
        end = _end(text, start, chars)
        if piece := text[start:end].strip():
            pieces.append(piece)
        start = _next_start(text, end, overlap)
    return pieces


def _end(text: str, start: int, chars: int) -> int:
    """Where the piece that begins at `start` ends."""
    limit = start + chars
    if len(text) - start <= chars:
        return len(text)
    for border in (_PARAGRAPH, _SPACE):
        if ends := [found.start() for found in border.finditer(text, start + chars // 2 + 1, limit)]:
            return ends[-1]
    return limit


def _next_start(text: str, end: int, overlap: int) -> int:
    """Where the piece after `end` begins: at the first word border within the overlap, else at `end`."""
    space = _SPACE.search(text, end - overlap, end) if overlap else None
    return space.end() if space else end
