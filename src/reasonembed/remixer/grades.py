"""From an annotator's replies to a grade, or to the reason why there is none (law 3). Pure functions."""

from __future__ import annotations

import collections
import re
import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

from reasonembed.errors import shown
from reasonembed.llm.replies import split_thinking

REASON_CHARS = 600  # our choice: a reason is for people to read; whole replies stay in the journal

_TAG = re.compile(r"<score>((?:(?!</?score>).)*)</score>", re.IGNORECASE | re.DOTALL)
_VERDICT_HEADING = re.compile(
    r"[\s*#>_-]*(?:\d[.)]?[\s*]*)?(?:relevance annotation|(?:relevance |final )?grade|score)[\s:*.]*\Z",
    re.IGNORECASE,
)
_DOCUMENT_HEADING = re.compile(r"\A.*?\bdocument analysis\b[\s:*.]*(?=\S)", re.IGNORECASE | re.DOTALL)
_GRADE = re.compile(r"\s*([1-5])\s*")


class Grade(msgspec.Struct, frozen=True):
    """What a reply says: a grade of 1 to 5, and the text that leads to it."""

    grade: int
    reason: str


class Unparsable(msgspec.Struct, frozen=True):
    """Why a reply has no grade; never guessed."""

    reason: str
    detail: str


def parse_grade(reply: str) -> Grade | Unparsable:
    """The grade on which all complete `<score>` tags of the reply agree, thinking stripped.

    A grade is one ASCII digit 1 to 5, with nothing but white space beside it in the tag. No complete tag, one
    that holds anything else, or two that differ make the reply unparsable.
    """
    text = split_thinking(reply).text
    tags = list(_TAG.finditer(text))
    if not tags:
        return Unparsable("grade_missing", f"no complete <score> tag in {shown(text)}")
    found = [match.group(1) for match in tags]
    grades = [_GRADE.fullmatch(content) for content in found]
    if any(grade is None for grade in grades):
        bad = next(content for content, grade in zip(found, grades, strict=True) if grade is None)
        return Unparsable("grade_invalid", f"{shown(bad)} is no integer from 1 to 5")
    said = {int(grade.group(1)) for grade in grades if grade}
    if len(said) > 1:
        return Unparsable("grades_differ", f"the reply says {' and '.join(map(str, sorted(said)))}")
    return Grade(grade=said.pop(), reason=reason_in(text[: tags[0].start()]))


def aggregate(grades: Sequence[int], how: Literal["majority", "mean"]) -> int:
    """One grade for the grades of several samples, of which there must be at least one.

    majority: the most frequent; of equally frequent ones the lowest.  mean: the nearest integer; a half goes down.
    Both lean towards the lower grade where it is a tie (our choice: a false positive teaches more wrong than a missed
    one).
    """
    if how == "mean":
        return -((len(grades) - 2 * sum(grades)) // (2 * len(grades)))  # ceil(mean - 1/2), in integers
    counts = collections.Counter(grades)
    return min(counts, key=lambda grade: (-counts[grade], grade))


def spread(grades: Sequence[int]) -> float:
    """The standard deviation of the grades (divided by their number), four decimals."""
    return round(statistics.pstdev(grades), 4)


def enough(graded: int, samples: int) -> bool:
    """Whether so many samples with a grade stand for all: more than half must have one (our choice)."""
    return 2 * graded > samples


def reason_in(analysis: str) -> str:
    """The document's part of what stands before the grade, without headings; all of it where there is none.

    The query's analysis is left out: it is much the same for all candidates of a query.
    """
    return clip(_VERDICT_HEADING.sub("", _DOCUMENT_HEADING.sub("", analysis)).strip())


def clip(text: str, limit: int = REASON_CHARS) -> str:
    """The end of `text`, where the verdict stands, on one line of at most `limit` characters."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    tail = line[-(limit - 1) :]
    _, space, rest = tail.partition(" ")
    return "…" + (rest if space and rest else tail)
