"""Limits and caps, with the clock in the test's hand; what a server calls its model."""

from __future__ import annotations

import pytest

from reasonembed.llm.limits import AdaptiveLimit, RateCap, TokenEstimate
from reasonembed.llm.replies import BrokenResponse, UnknownModelName
from reasonembed.llm.served_names import ServedNames, is_same_model


def test_a_limit_is_halved_once_a_round_and_never_below_one() -> None:
    limit = AdaptiveLimit(64)
    limit.in_flight = 64
    for _ in range(40):
        limit.halve(sent_at=1.0, now=2.0)
    assert limit.limit == 32, "refusals of requests that were on their way say nothing about the new limit"
    limit.halve(sent_at=2.5, now=3.0)
    assert limit.limit == 16
    limit.in_flight = 6
    limit.halve(sent_at=4.0, now=5.0)
    assert limit.limit == 3, "what was not in use cannot be what was too much"
    for now in range(6, 20):
        limit.halve(sent_at=now, now=now)
    assert limit.limit == 1 and limit.load == 6


@pytest.mark.parametrize(("ceiling", "step"), [(8, 1), (512, 16)])
def test_a_round_of_successes_adds_one_step_up_to_the_ceiling(ceiling: int, step: int) -> None:
    limit = AdaptiveLimit(ceiling)
    limit.in_flight = ceiling
    limit.halve(sent_at=0.0, now=1.0)
    for _ in range(ceiling // 2):
        limit.grow()
    assert limit.limit == pytest.approx(ceiling / 2 + step, rel=0.05)
    for _ in range(40 * ceiling):
        limit.grow()
    assert limit.limit == ceiling


def test_a_cap_spreads_what_is_taken_over_the_minute() -> None:
    cap = RateCap(120)
    starts = [10 + cap.take(1, now=10.0) for _ in range(240)]
    assert starts[:3] == [10, 10.5, 11]
    assert starts[-1] == pytest.approx(10 + 119.5)
    assert cap.take(1, now=500.0) == 0, "an idle time is not saved up"
    assert RateCap(0).take(10**9, now=0.0) == 0 == RateCap(0).take(1, now=0.0)


def test_what_was_booked_too_high_or_too_low_is_made_good() -> None:
    cap = RateCap(6000)
    assert cap.take(3000, now=0.0) == 0
    cap.correct(-2000)
    assert cap.take(1000, now=0.0) == pytest.approx(10)
    cap.correct(500)
    assert cap.take(1, now=0.0) == pytest.approx(25)


def test_tokens_are_guessed_from_the_answers_so_far() -> None:
    estimate = TokenEstimate()
    assert estimate.guess(400, 2048) == 100 + 2048
    estimate.learn(10)
    estimate.learn(30)
    assert estimate.guess(400, 2048) == 100 + 20


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("m", "m"),
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-sonnet-4", "claude-sonnet-4-20250514"),
        ("llama3", "llama3:latest"),
    ],
)
def test_usual_spellings_of_one_name_are_the_same_model(asked: str, named: str) -> None:
    assert is_same_model(asked, named)


@pytest.mark.parametrize(
    ("asked", "named"),
    [("gpt-4o", "gpt-4o-mini"), ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13"), ("Qwen3-8B", "Qwen3-4B"), ("m", "")],
)
def test_a_sibling_or_another_version_is_another_model(asked: str, named: str) -> None:
    assert not is_same_model(asked, named)


def test_a_name_that_the_first_answers_agree_on_is_the_servers_own() -> None:
    names = ServedNames("my-deployment")
    for _ in range(2):
        with pytest.raises(UnknownModelName):
            names.check("gpt-4o-2024-08-06")
    names.check("gpt-4o-2024-08-06")
    names.check("gpt-4o-2024-08-06")
    with pytest.raises(BrokenResponse, match=r"by the model 'gpt-4o-mini'.*'my-deployment' was asked for"):
        names.check("gpt-4o-mini")


def test_after_an_answer_under_the_right_name_no_other_is_taken() -> None:
    names = ServedNames("m")
    with pytest.raises(UnknownModelName):
        names.check("other")
    names.check("m")
    for _ in range(10):
        with pytest.raises(BrokenResponse) as caught:
            names.check("other")
        assert not isinstance(caught.value, UnknownModelName)
