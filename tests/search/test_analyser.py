from __future__ import annotations

import random

import pytest

from reasonembed.domains import LANGUAGES
from reasonembed.errors import ConfigError
from reasonembed.search.analyser import ENGLISH_STOP_WORDS, MAX_TERM_CHARS, analyser


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The Dogs are running", ["dog", "run"]),
        ("Hamilton's rule, Hamilton’s rule", ["hamilton", "rule", "hamilton", "rule"]),
        ("a well-known e-mail", ["well", "known", "e", "mail"]),
        ("U.S.A. v1.2.3 costs 1,000.50", ["u.s.a", "v1.2.3", "cost", "1,000.50"]),
        ("don't stop: x=y; C++ foo_bar __ --", ["don't", "stop", "x", "y", "c", "foo_bar"]),
        ("日本語 text", ["日", "本", "語", "text"]),
        ("Café naïve", ["café", "naïv"]),
        ("", []),
    ],
)
def test_english_is_cut_as_lucene_cuts_it(text: str, terms: list[str]) -> None:
    assert analyser("en")(text) == terms


def test_the_stemmer_has_porters_two_later_rules_which_lucene_has_and_snowball_has_not() -> None:
    # -logi to -log and -bli to -ble where what precedes has a measure above 0: "psycho", not "bio".
    words = "psychology psychological technology biology possibly possible probably"
    expected = ["psycholog", "psycholog", "technolog", "biologi", "possibl", "possibl", "probabl"]
    assert analyser("en")(words) == expected


def test_lucenes_stop_words_are_33_and_vanish() -> None:
    assert len(ENGLISH_STOP_WORDS) == 33
    assert analyser("en")(" ".join(sorted(ENGLISH_STOP_WORDS)).upper()) == []


def test_an_endless_word_is_cut_into_pieces() -> None:
    assert [len(term) for term in analyser("en")("x" * (2 * MAX_TERM_CHARS + 7))] == [255, 255, 7]


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("de", "Die Häuser", "das Haus"),
        ("fr", "l'eau des rivières", "eau rivière"),
        ("es", "los libros", "el libro"),
        ("ru", "книги", "книга"),
        ("tr", "IŞIK", "ışık"),
    ],
)
def test_other_languages_are_stemmed_by_snowball(language: str, one: str, other: str) -> None:
    analyse = analyser(language)
    assert analyse(one)[-1] == analyse(other)[-1]


def test_words_with_combining_marks_stay_whole() -> None:
    assert len(analyser("hi")("विद्यार्थियों हिन्दी")) == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_that_a_domain_may_name_has_an_analyser(language: str) -> None:
    assert analyser(language)("Photosynthesis 42")


def test_an_unknown_language_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r'"xx".*Known: ar, ca'):
        analyser("xx")


@pytest.mark.parametrize("apostrophes", ["", "'\u2019"])
def test_the_short_way_for_ascii_finds_the_words_that_the_long_way_finds(apostrophes: str) -> None:
    from reasonembed.search.analyser import _ascii_pattern, _word_pattern

    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(draw.choices("abZ019_.:,;'\"- \n\x1c", k=30))
        assert _ascii_pattern("'" if apostrophes else "").findall(text) == _word_pattern(apostrophes).findall(text)
