"""R6: a grade is an integer 1 to 5 on which all complete score tags agree, or a reason why there is none."""

from __future__ import annotations

import fractions
import itertools
import random
import re

import pytest

from reasonembed.remixer.grades import REASON_CHARS, Grade, Unparsable, aggregate, clip, enough, parse_grade, spread


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("Because.\n<score>4</score>", 4),
        ("<score> 1\n</score>", 1),
        ("<SCORE>5</Score> indeed", 5),
        ("First <score>3</score>, so <score>3</score>.", 3),
        ("The tag <score> is next: <score>2</score>", 2),
        ("<think>surely <score>5</score></think>No. <score>2</score>", 2),
        ("maybe <score>5</score></think><score>1</score>", 1),
        ("<score>2</score> <score>5", 2),
    ],
)
def test_a_clear_verdict_is_a_grade(reply: str, grade: int):
    parsed = parse_grade(reply)
    assert isinstance(parsed, Grade)
    assert parsed.grade == grade


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "grade_missing"),
        ("The grade is 4.", "grade_missing"),
        ("<score>4", "grade_missing"),
        ("4</score>", "grade_missing"),
        ("<think><score>4</score>", "grade_missing"),
        ("<score>0</score>", "grade_invalid"),
        ("<score>6</score>", "grade_invalid"),
        ("<score>7</score>", "grade_invalid"),
        ("<score>4.5</score>", "grade_invalid"),
        ("<score>4.0</score>", "grade_invalid"),
        ("<score>+4</score>", "grade_invalid"),
        ("<score>04</score>", "grade_invalid"),
        ("<score>4/5</score>", "grade_invalid"),
        ("<score>45</score>", "grade_invalid"),
        ("<score>٤</score>", "grade_invalid"),
        ("<score>four</score>", "grade_invalid"),
        ("<score></score>", "grade_invalid"),
        ("<score>N</score> is <score>3</score>", "grade_invalid"),
        ("<score>3</score> or <score>4</score>", "grades_differ"),
    ],
)
def test_anything_else_is_a_reason_and_never_a_grade(reply: str, reason: str):
    parsed = parse_grade(reply)
    assert isinstance(parsed, Unparsable)
    assert parsed.reason == reason


_PIECES = ["<score>", "</score>", "<SCORE>", "<think>", "</think>", *"0123456789.- x<²４", "\n", "four"]
_TAGS = [f"<score>{content}</score>" for content in ("1", "2", " 3\n", "5", "7", "4.5")]


def test_10_000_random_replies_give_a_grade_just_when_a_plain_reading_of_the_rule_does():
    draw = random.Random(0)
    graded = 0
    for _ in range(10_000):
        pieces = draw.choices(_PIECES + _TAGS, k=draw.randrange(12))
        reply = "".join([*pieces, draw.choice(["", *_TAGS])])
        parsed = parse_grade(reply)
        assert (parsed.grade if isinstance(parsed, Grade) else None) == _plain_reading(reply), reply
        graded += isinstance(parsed, Grade)
    assert 1000 < graded < 9000


def _plain_reading(reply: str) -> int | None:
    """The rule once more, by scanning instead of a pattern."""
    while "<think>" in reply and "</think>" in reply[reply.index("<think>") :]:
        start = reply.index("<think>")
        reply = reply[:start] + reply[reply.index("</think>", start) + len("</think>") :]
    reply = reply.rpartition("</think>")[2].partition("<think>")[0]
    contents, opened = [], None
    for token in re.split(r"(</?score>)", reply, flags=re.IGNORECASE):
        match token.lower():
            case "<score>":
                opened = ""
            case "</score>":
                if opened is not None:
                    contents.append(opened)
                opened = None
            case _ if opened is not None:
                opened += token
    said = {content.strip() for content in contents}
    return int(said.pop()) if len(said) == 1 and said <= set("12345") else None


def test_a_reply_of_ten_megabytes_is_read_at_once():
    assert isinstance(parse_grade("<score>" * 1_500_000), Unparsable)


def test_the_reason_is_the_documents_part_without_headings():
    reply = (
        "**1. Query analysis:** What is needed is a theory.\n\n"
        "**2. Document analysis:** It states the theory.\n\n"
        "**3. Relevance annotation:** <score>4</score>"
    )
    parsed = parse_grade(reply)
    assert parsed == Grade(4, "It states the theory.")
    assert parse_grade("It helps. <score>4</score>") == Grade(4, "It helps.")


def test_a_long_reason_keeps_its_end_from_a_words_beginning():
    text = " ".join(f"word{number}" for number in range(500))
    clipped = clip(text)
    assert len(clipped) <= REASON_CHARS
    assert re.fullmatch(r"…word\d+( word\d+)* word499", clipped)
    assert clip("x" * 5000) == "…" + "x" * (REASON_CHARS - 1)


@pytest.mark.parametrize(
    ("grades", "majority", "mean"),
    [
        ([4], 4, 4),
        ([1, 5, 5], 5, 4),  # mean 3.67
        ([2, 4, 4, 2], 2, 3),  # a tie goes to the lower; mean 3
        ([1, 2, 3, 4, 5], 1, 3),
        ([2, 3], 2, 2),  # mean 2.5: a half goes down
        ([3, 4, 4, 3, 4], 4, 4),  # mean 3.6
        ([5, 5, 4, 4], 4, 4),  # mean 4.5
    ],
)
def test_several_grades_are_joined_as_worked_by_hand(grades: list[int], majority: int, mean: int):
    for order in (grades, grades[::-1], sorted(grades)):
        assert aggregate(order, "majority") == majority
        assert aggregate(order, "mean") == mean


def test_a_mean_is_the_nearest_integer_for_every_three_grades():
    for grades in itertools.product(range(1, 6), repeat=3):
        joined, exact = aggregate(grades, "mean"), fractions.Fraction(sum(grades), 3)
        assert abs(joined - exact) <= fractions.Fraction(1, 2)


def test_the_spread_is_the_standard_deviation_of_numpy():
    np = pytest.importorskip("numpy")
    for grades in itertools.product((1, 3, 5), repeat=4):
        assert spread(grades) == pytest.approx(np.std(grades), abs=5e-5)


def test_more_than_half_of_the_samples_must_have_a_grade():
    assert [enough(graded, 4) for graded in range(5)] == [False, False, False, True, True]
    assert [enough(graded, 3) for graded in range(4)] == [False, False, True, True]
