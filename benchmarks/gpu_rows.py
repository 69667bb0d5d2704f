"""What `gpu.py` measures, as rows: their fields, their table, and how they stand to the goals."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch

OURS, PACKED, KEPT = "ours, padded", "ours, packed", "ours, packed, graph kept if it fits"
COMPILED = "ours, packed, layers compiled"
PLAIN, ADDED = "ours, packed, InfoNCE", "ours, packed, what RI adds"
TOKENIZED = "tokenising of the batch"
RELEASE, MNRL, MNRL_TOKENS, PEER = "release", "cached-mnrl", "cached-mnrl, tokens", "sentence-transformers"
SAME_AS = {
    OURS: PACKED,
    KEPT: PACKED,
    COMPILED: PACKED,
    RELEASE: PACKED,
    MNRL: PLAIN,
    MNRL_TOKENS: PLAIN,
}  # whose gradient each must have


class Row(msgspec.Struct, omit_defaults=True):
    """One line of the results."""

    part: str
    size: str
    side: str
    seconds: float = 0.0  # median
    runs: list[float] = []
    tokens: int = 0  # real ones
    tokens_per_s: float = 0.0
    padding: float | None = None
    mfu: float | None = None
    peak_gib: float | None = None  # of the GPU's memory beyond weights and gradients
    against: str = ""
    cosine: float | None = None  # to the side `against`: of the gradients, or the least of the vectors
    speed: float | None = None  # times that of `against`
    note: str = ""


class Bench:
    """Rows as they come, and the clock that all parts look at."""

    def __init__(self, out: Path, device: torch.device, seconds: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.device = out, device
        self.ends = time.monotonic() + seconds
        self.rows: list[Row] = []
        self.rate = 0.0  # FLOP/s
        self.pace: dict[str, float] = {}  # size -> real tokens/s of the fastest run so far

    def add(self, row: Row) -> None:
        """Print a row, and write all rows anew, so that nothing is lost if the run is cut short."""
        self.rows.append(row)
        print(_line(row), flush=True)
        encoder = msgspec.json.Encoder()
        (self.out / "gpu.jsonl").write_bytes(b"".join(encoder.encode(row) + b"\n" for row in self.rows))
        (self.out / "gpu.md").write_text(_page(self.rows), encoding="utf-8")

    def time_for(self, seconds: float) -> bool:
        """Whether so many are left."""
        return time.monotonic() + seconds < self.ends


COLUMNS: dict[str, Callable[[Row], str]] = {
    "part": lambda row: f"{row.part} {row.size}".strip(),
    "side": lambda row: row.side,
    "seconds": lambda row: f"{row.seconds:,.3f}" if row.seconds else "",
    "real tokens/s": lambda row: f"{row.tokens_per_s:,.0f}" if row.tokens_per_s else "",
    "padding": lambda row: "" if row.padding is None else f"{row.padding:.1%}",
    "MFU": lambda row: "" if row.mfu is None else f"{row.mfu:.1%}",
    "peak GiB": lambda row: "" if row.peak_gib is None else f"{row.peak_gib:.2f}",
    "times the speed of": lambda row: f"{row.speed:.2f} x {row.against}" if row.speed else "",
    "cosine to it": lambda row: "" if row.cosine is None else f"{row.cosine:.6f}",
    "note": lambda row: row.note,
}


def _line(row: Row) -> str:
    cells = [f"{name} {value}" if name not in ("part", "side", "note") else value for name, value in _cells(row)]
    return "  ".join(cells)


def _cells(row: Row) -> list[tuple[str, str]]:
    return [(name, value) for name, show in COLUMNS.items() if (value := show(row))]


def _page(rows: list[Row]) -> str:
    """The rows as a Markdown table, below what they were taken on."""
    taken_on = [f"{row.part}: {row.side}" for row in rows if not row.size]
    lines = [[show(row) for show in COLUMNS.values()] for row in rows if row.size]
    table = [list(COLUMNS), ["---"] * len(COLUMNS), *lines]
    return "\n".join([*taken_on, "", *(f"| {' | '.join(cells)} |" for cells in table), ""])


def goals(rows: list[Row]) -> list[str]:
    """How each part stands to goals P1 to P4."""
    sides: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        sides.setdefault((row.part, row.size), {})[row.side] = row
    found = []
    for (part, size), of in sides.items():
        theirs = of.get(PEER if part == "encode" else RELEASE)
        for name in (OURS, PACKED, KEPT, COMPILED):
            mine = of.get(name)
            if not (mine and theirs and mine.seconds and theirs.seconds):
                continue
            speed = theirs.seconds / mine.seconds
            text = f"{part} {size}, {name}: {speed:.2f} x {theirs.side} (goal {1.5 if part == 'encode' else 2.5})"
            if mine.mfu is not None:
                text += f", MFU {mine.mfu:.1%} (goal for LoRA of 4b: 45 %)"
            if mine.peak_gib and theirs.peak_gib:
                text += f", {mine.peak_gib / theirs.peak_gib:.2f} of its memory (goal 0.5)"
            found.append(text)
    return found
