"""Token-budget micro-batches: texts of like length together, so that little is computed on padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.intp]


def plan(lengths: Sequence[int] | npt.NDArray[np.integer], budget_tokens: int) -> list[Rows]:
    """Rows of `lengths` in micro-batches, longest first, each of at most `budget_tokens` once padded.

    A micro-batch's padded size is its count times its longest length; a single text longer than the budget
    stands alone. Longest first, so that a budget that memory cannot bear shows at once. Equal lengths keep
    their order. Raises ValueError if the budget is below 1.
    """
    if budget_tokens < 1:
        raise ValueError(f"budget_tokens is {budget_tokens}; it must be at least 1.")
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    batches: list[Rows] = []
    start = 0
    while start < len(order):
        count = max(1, budget_tokens // max(1, int(sizes[order[start]])))
        batches.append(order[start : start + count])
        start += count
    return batches


def padding_share(lengths: Sequence[int] | npt.NDArray[np.integer], batches: Sequence[Rows]) -> float:
    """The share of padding among all tokens computed when `batches` are padded to their longest: 0 to 1."""
    sizes = np.asarray(lengths, dtype=np.int64)
    padded = sum(len(rows) * int(sizes[rows].max()) for rows in batches)
    real = sum(int(sizes[rows].sum()) for rows in batches)
    return 1 - real / padded if padded else 0.0
