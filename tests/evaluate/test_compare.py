from __future__ import annotations

import itertools

import numpy as np
import pytest

from reasonembed.evaluate.compare import bootstrap_interval, holm, mean_over_domains, paired_difference

DOMAINS = ["a"] * 3 + ["b"]
SCORES = [0.0, 0.3, 0.6, 1.0]


def test_the_mean_is_that_over_domains_not_over_queries() -> None:
    assert mean_over_domains(SCORES, DOMAINS) == pytest.approx((0.3 + 1.0) / 2)
    assert bootstrap_interval(SCORES, DOMAINS).mean == pytest.approx(0.65)


def test_queries_are_drawn_within_their_domains() -> None:
    # Were queries drawn from all four, the one of b would be missing or repeated in most resamples.
    interval = bootstrap_interval([0.0, 0.0, 0.0, 1.0], DOMAINS)
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)


def test_the_interval_has_the_width_that_theory_gives() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0.5, 0.1, size=400)
    interval = bootstrap_interval(scores, ["only"] * 400)
    half = 1.96 * scores.std() / 20
    assert interval.low == pytest.approx(scores.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(scores.mean() + half, abs=0.1 * half)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    domains = [f"d{number % 4}" for number in range(120)]
    covered = 0
    for seed in range(200):
        interval = bootstrap_interval(rng.random(120), domains, resamples=1000, seed=seed)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_the_p_value_is_that_of_all_sign_flips_counted() -> None:
    a, b = [0.5, 0.9, 0.4, 0.8, 0.7, 0.6], [0.4, 0.5, 0.5, 0.6, 0.4, 0.5]
    domains = ["x", "x", "y", "y", "y", "y"]
    weights = np.array([1 / 4, 1 / 4, 1 / 8, 1 / 8, 1 / 8, 1 / 8])
    differences = np.subtract(a, b)
    observed = abs(weights @ differences)
    flips = [abs(weights @ (differences * signs)) for signs in itertools.product([1, -1], repeat=6)]
    exact = np.mean(np.array(flips) >= observed - 1e-12)
    assert paired_difference(a, b, domains).p == pytest.approx(exact, abs=0.01)


def test_a_clear_gain_excludes_0_and_a_system_against_itself_does_not() -> None:
    rng = np.random.default_rng(2)
    base, domains = rng.random(84), [f"d{number % 12}" for number in range(84)]
    gain = paired_difference(base + 0.05 + rng.normal(0, 0.05, 84), base, domains)
    assert 0 < gain.low < gain.difference < gain.high < 0.1
    assert gain.p == pytest.approx(1 / 10_001)
    same = paired_difference(base, base, domains)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_swapping_the_systems_mirrors_the_difference() -> None:
    a, b = np.random.default_rng(3).random((2, 40))
    domains = ["x", "y"] * 20
    one, other = paired_difference(a, b, domains), paired_difference(b, a, domains)
    assert other.difference == pytest.approx(-one.difference)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=0.005)
    assert other.p == pytest.approx(one.p, abs=0.02)


def test_the_seed_decides_and_the_order_of_queries_does_not() -> None:
    scores = np.random.default_rng(4).random(50)
    domains = np.array(["x", "y", "z", "x", "y"] * 10)
    order = np.random.default_rng(5).permutation(50)
    one = bootstrap_interval(scores, domains.tolist())
    assert bootstrap_interval(scores[order], domains[order].tolist()) == one
    assert bootstrap_interval(scores, domains.tolist(), seed=1) != one


def test_drawing_in_pieces_changes_only_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, domains = np.random.default_rng(6).random(50), ["x"] * 50
    whole = bootstrap_interval(scores, domains)
    monkeypatch.setattr("reasonembed.evaluate.compare._CELLS", 500)
    pieces = bootstrap_interval(scores, domains)
    assert pieces == whole


def test_scores_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval([], [])
    with pytest.raises(ValueError, match="2 queries"):
        bootstrap_interval([0.5], ["x", "y"])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([float("nan")], ["x"])
    with pytest.raises(ValueError, match="same queries"):
        paired_difference([0.5], [0.5, 0.6], ["x"])


def test_holm_is_the_closed_test_of_bonferroni_tests() -> None:
    """A hypothesis falls if every set of hypotheses that holds it falls: its p is the worst over those sets."""
    rng = np.random.default_rng(7)
    for size in (1, 2, 3, 5, 6):
        p = {f"s{number}": float(rng.random() ** 3) for number in range(size)}
        for name, corrected in holm(p).items():
            others = [other for other in p if other != name]
            sets = [(name, *rest) for count in range(size) for rest in itertools.combinations(others, count)]
            worst = max(min(1.0, len(chosen) * min(p[one] for one in chosen)) for chosen in sets)
            assert corrected == pytest.approx(worst)


def test_holm_keeps_order_names_and_ties_and_refuses_what_is_no_p() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert list(holm({"b": 0.5, "a": 0.5})) == ["b", "a"] and holm({"b": 0.5, "a": 0.5})["a"] == 1.0
    assert holm({}) == {}
    with pytest.raises(ValueError, match=r"the p value of a is 1\.5"):
        holm({"a": 1.5})
