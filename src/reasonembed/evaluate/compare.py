"""How sure a mean is, and whether two systems differ. Queries are drawn within their domains; pure NumPy.

The statistic is throughout the mean over domains of the domain's mean over its queries, as BRIGHT reports it.
N: queries, R: resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from reasonembed.texts import row_seed

Scores = NDArray[np.float64]
Draw = Callable[[Scores, int, np.random.Generator], Scores]

RESAMPLES = 10_000
CONFIDENCE = 0.95

_CELLS = 4_000_000  # drawn at a time: 32 MB, whatever the number of queries


class Interval(msgspec.Struct, frozen=True):
    """A mean over domains with its confidence interval, as fractions."""

    mean: float
    low: float
    high: float


class Difference(msgspec.Struct, frozen=True):
    """How much higher the first system scores than the second: mean, confidence interval, two-sided p."""

    difference: float
    low: float
    high: float
    p: float


def mean_over_domains(scores_N: ArrayLike, domains: Sequence[str]) -> float:
    """The mean over domains of each domain's mean score."""
    return float(np.mean([part.mean() for _, part in _by_domain(scores_N, domains)]))


def bootstrap_interval(
    scores_N: ArrayLike,
    domains: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """The mean over domains with its percentile bootstrap interval, queries drawn anew within each domain.

    scores_N: one score for each query.  domains: the domain of each query; their order decides nothing.
    With few queries a domain the interval is a little narrow: 12 domains of 7 queries cover the truth 93
    times in a hundred at a confidence of 95 % (1,000 simulated sets of uniform scores).
    Raises ValueError if there is no query or the lengths differ.
    """
    means_R = _over_domains(_by_domain(scores_N, domains), _resample, resamples, seed, "bootstrap")
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means_R, [tail, 100 - tail])
    return Interval(mean=mean_over_domains(scores_N, domains), low=float(low), high=float(high))


def paired_difference(
    a_N: ArrayLike,
    b_N: ArrayLike,
    domains: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Difference:
    """How much higher `a` scores than `b` on the same queries.

    The interval is the bootstrap of the paired differences, stratified by domain. p is from a two-sided
    paired randomisation test: the signs of the differences are flipped at random, (count + 1) / (resamples +
    1) of the flips give a mean as far from 0 as the one observed. Raises ValueError if the lengths differ.
    """
    a, b = np.asarray(a_N, dtype=np.float64), np.asarray(b_N, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} scores against {b.size}: both systems must answer the same queries")
    differences = a - b
    interval = bootstrap_interval(differences, domains, resamples=resamples, confidence=confidence, seed=seed)
    flipped_R = _over_domains(_by_domain(differences, domains), _flip, resamples, seed, "sign-flip")
    extreme = int(np.count_nonzero(np.abs(flipped_R) >= abs(interval.mean) - 1e-12))
    p = (extreme + 1) / (resamples + 1)
    return Difference(difference=interval.mean, low=interval.low, high=interval.high, p=p)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Each p value corrected for the family that all of them form, by Holm's step-down method; in their order.

    If those below 0.05 are called significant, the chance that any of them is a false alarm is at most 5 %, whatever
    their dependence. Raises ValueError for a value outside 0 to 1.  Source: Holm 1979.
    """
    if wrong := [name for name, p in p_values.items() if not 0 <= p <= 1]:
        raise ValueError(f"the p value of {wrong[0]} is {p_values[wrong[0]]}; it must lie between 0 and 1")
    corrected: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def _by_domain(scores_N: ArrayLike, domains: Sequence[str]) -> list[tuple[str, Scores]]:
    scores = np.asarray(scores_N, dtype=np.float64)
    if scores.shape != (len(domains),) or not len(domains):
        raise ValueError(f"scores of shape {scores.shape} for {len(domains)} queries; at least one is needed")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not a finite number")
    names = np.asarray(domains, dtype=object)
    return [(domain, np.sort(scores[names == domain])) for domain in sorted(set(domains))]


def _resample(part: Scores, rows: int, rng: np.random.Generator) -> Scores:
    """`rows` means of the part's scores drawn anew, with repetition."""
    return part[rng.integers(len(part), size=(rows, len(part)))].mean(axis=1)


def _flip(part: Scores, rows: int, rng: np.random.Generator) -> Scores:
    """`rows` means of the part's scores under random signs."""
    signs = 1.0 - 2.0 * rng.integers(2, size=(rows, len(part)))
    return signs @ part / len(part)


def _over_domains(parts: Sequence[tuple[str, Scores]], draw: Draw, resamples: int, seed: int, purpose: str) -> Scores:
    """The mean over domains of `draw`'s means, shape (R,); its name decides a domain's randomness."""
    means_R = np.zeros(resamples)
    for domain, part in parts:
        rng = np.random.default_rng(row_seed(seed, purpose, domain))
        step = max(1, _CELLS // len(part))
        for start in range(0, resamples, step):
            rows = min(step, resamples - start)
            means_R[start : start + rows] += draw(part, rows, rng) / len(parts)
    return means_R
