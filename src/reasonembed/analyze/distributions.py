"""How values are spread: their mean and five percentiles, under the names that tables and JSON files share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = {"5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95}


def distribution(values: Sequence[float]) -> dict[str, float]:
    """`mean`, `5%`, `25%`, `median`, `75%` and `95%` of the values, of which there must be at least one."""
    cuts = np.quantile(np.asarray(values), list(QUANTILES.values())).tolist()
    return {"mean": float(np.mean(values)), **dict(zip(QUANTILES, cuts, strict=True))}


__all__ = ["QUANTILES", "distribution"]
