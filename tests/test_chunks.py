"""Pieces of long texts: short enough, cut where a reader would cut, and nothing lost."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from reasonembed.chunks import chunks


@pytest.mark.parametrize("seed", range(30))
def test_no_word_is_lost_no_piece_is_too_long_and_neighbours_share_at_most_the_overlap(seed: int) -> None:
    draw = random.Random(seed)
    words = [f"w{number}" for number in range(400)]
    text = words[0] + "".join(draw.choice([" ", " ", "\n", "\n\n", "\n  \n"]) + word for word in words[1:])
    chars, overlap = draw.randint(40, 300), draw.randint(0, 20)
    pieces = chunks(text, chars=chars, overlap=overlap)
    assert all(0 < len(piece) <= chars for piece in pieces)
    assert list(dict.fromkeys(word for piece in pieces for word in piece.split())) == words
    for one, other in pairwise(pieces):
        shared = [word for word in other.split() if word in set(one.split())]
        assert len(" ".join(shared)) <= overlap
        assert one.split()[len(one.split()) - len(shared) :] == shared


def test_a_piece_ends_at_a_paragraph_where_its_second_half_has_one() -> None:
    text = "\n\n".join(["one two three", "four five six", "seven eight nine ten eleven"])
    assert chunks(text, chars=40, overlap=0) == ["one two three\n\nfour five six", "seven eight nine ten eleven"]


def test_the_overlap_begins_with_a_whole_word() -> None:
    assert chunks("alpha beta gamma delta epsilon", chars=18, overlap=8) == [
        "alpha beta gamma",
        "gamma delta",
        "delta epsilon",
    ]


def test_what_has_no_space_is_cut_hard_and_what_is_short_stays_whole() -> None:
    assert chunks("x" * 25, chars=10, overlap=5) == ["x" * 10, "x" * 10, "x" * 5]
    assert chunks("  short\n", chars=10, overlap=5) == ["short"]
    assert chunks(" \n", chars=10, overlap=5) == []


@pytest.mark.parametrize(("chars", "overlap"), [(10, 6), (10, -1), (0, 0)])
def test_an_overlap_of_more_than_half_a_piece_is_refused(chars: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap is"):
        chunks("text", chars=chars, overlap=overlap)
