from __future__ import annotations

import unicodedata

import pytest

from reasonembed.texts import normalise, row_seed, text_key, words

TEXT = "The Fish — a “caf\u00e9” eater — weighs 3\u00a0kg."


@pytest.mark.parametrize(
    "copy",
    [
        TEXT.upper(),
        TEXT.replace(" ", "  \n\t"),
        f"\ufeff  {TEXT}\r\n",
        unicodedata.normalize("NFD", TEXT),
        TEXT.replace("Fish", "F\u200bi\u00adsh"),
        TEXT.replace("Fish", "\ufb01sh").replace("Fish", "fish"),
        TEXT.replace("3", "\uff13"),
    ],
)
def test_a_copy_that_changes_only_what_is_free_has_the_same_key(copy: str) -> None:
    assert copy != TEXT
    assert text_key(copy) == text_key(TEXT)


@pytest.mark.parametrize("other", ["The fish", TEXT.replace("\u00e9", "e"), TEXT.replace(".", "!"), TEXT + " x", ""])
def test_a_text_that_says_something_else_has_another_key(other: str) -> None:
    assert text_key(other) != text_key(TEXT)


def test_normalising_twice_changes_nothing() -> None:
    for text in (TEXT, "\u0130stanbul \u1e9e \u03a3\u03b1\u03c2", "\ufdfa", "a\u0301\u200db"):
        assert normalise(normalise(text)) == normalise(text)


def test_words_are_runs_of_letters_digits_and_underscores() -> None:
    assert words("Don't stop_me, 3.5 Caf\u00c9s!") == ["don", "t", "stop_me", "3", "5", "caf\u00e9s"]
    assert words(" — … ") == []


def test_a_lone_surrogate_has_a_key_too() -> None:
    assert len(text_key("\ud800")) == 32


def test_a_rows_seed_depends_on_seed_stage_and_id_alone() -> None:
    seeds = {row_seed(0, "generate", "d1"), row_seed(1, "generate", "d1"), row_seed(0, "reason", "d1")}
    seeds |= {row_seed(0, "generate", "d2"), row_seed(0, "generated", "1"), row_seed(0, "generate")}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert row_seed(0, "generate", "d1") == row_seed(0, "generate", "d1") == 7000565857360316914
