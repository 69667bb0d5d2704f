"""Text to index terms, as Lucene's analysers do it: words, lower case, no stop words, stems."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import chain

from reasonembed.domains import LANGUAGES
from reasonembed.errors import ConfigError, nearest

Analyser = Callable[[str], list[str]]

ENGLISH_STOP_WORDS = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no",
        "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this",
        "to", "was", "will", "with",
    )
)  # fmt: skip
"""Lucene's 33."""

MAX_TERM_CHARS = 255  # as Lucene: a longer word is cut into pieces

_BM25S_STOP_WORDS = {
    "da": "DANISH", "de": "GERMAN", "es": "SPANISH", "fr": "FRENCH", "it": "ITALIAN", "nl": "DUTCH",
    "no": "NORWEGIAN", "pt": "PORTUGUESE", "ru": "RUSSIAN", "sv": "SWEDISH", "tr": "TURKISH",
}  # fmt: skip

# Unicode Annex 29, the classes that matter: what may stand inside a word between two letters, or two digits.
_APOSTROPHES = "'\u2018\u2019\uff07"
_INSIDE_LETTERS = ".:\u00b7\u0387\u05f4\u2024\u2027"
_INSIDE_DIGITS = ".,;\u066c"
_IDEOGRAPHS = "\u3040-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_POSSESSIVE = re.compile(f"[{_APOSTROPHES}][sS]$")


def analyser(language: str = "en") -> Analyser:
    """The function from a text to its terms, in order, for one of the languages of `domains.LANGUAGES`.

    English follows Lucene's EnglishAnalyzer, BRIGHT's choice: words by Unicode Annex 29, the possessive 's
    removed, lower case, Lucene's 33 stop words, the Porter stemmer. Other languages: the same words (an
    apostrophe splits them), that language's stop words where bm25s ships a list (Danish, Dutch, French,
    German, Italian, Norwegian, Portuguese, Russian, Spanish, Swedish, Turkish; none for the others), its
    Snowball stemmer. Raises ConfigError for an unknown language.
    """
    if language not in LANGUAGES:
        raise ConfigError(
            f'there is no analyser for the language "{language}"'
            f"{nearest(language, LANGUAGES) or '.'} "
            f"Known: {', '.join(LANGUAGES)}."
        )
    return _english() if language == "en" else _snowball(language)


def _english() -> Analyser:
    stem = _porter()

    def term(word: str) -> str:
        lower = _POSSESSIVE.sub("", word).lower()
        return "" if lower in ENGLISH_STOP_WORDS else stem(lower)

    return _analyse(_APOSTROPHES, term)


def _snowball(language: str) -> Analyser:
    import Stemmer

    stop_words = _stop_words(language)
    stem = Stemmer.Stemmer(LANGUAGES[language]).stemWord

    def term(word: str) -> str:
        lower = _lower(word, language)
        return "" if lower in stop_words else str(stem(lower))

    return _analyse("", term)


class _Terms(dict[str, list[str]]):
    """word -> its terms, mostly one; each word is asked for once."""

    def __init__(self, term: Callable[[str], str]) -> None:
        super().__init__()
        self._term = term

    def __missing__(self, word: str) -> list[str]:
        pieces = (word[start : start + MAX_TERM_CHARS] for start in range(0, len(word), MAX_TERM_CHARS))
        terms = self[word] = [found for piece in pieces if piece.strip("_") and (found := self._term(piece))]
        return terms


def _analyse(apostrophes: str, term: Callable[[str], str]) -> Analyser:
    """The analyser that makes a term of each word by `term` (empty for none); see `_word_pattern`."""
    terms_of = _Terms(term).__getitem__
    words = _word_pattern(apostrophes).findall
    ascii_words = _ascii_pattern("'" if apostrophes else "").findall

    def analyse(text: str) -> list[str]:
        return list(chain.from_iterable(map(terms_of, ascii_words(text) if text.isascii() else words(text))))

    return analyse


def _lower(text: str, language: str) -> str:
    """Lower case; Turkish has its own dotless and dotted i."""
    return (text.replace("I", "ı").replace("İ", "i") if language == "tr" else text).lower()


def _stop_words(language: str) -> frozenset[str]:
    if language not in _BM25S_STOP_WORDS:
        return frozenset()
    from bm25s import stopwords

    return frozenset(getattr(stopwords, f"STOPWORDS_{_BM25S_STOP_WORDS[language]}"))


@lru_cache
def _word_pattern(apostrophes: str) -> re.Pattern[str]:
    """A word: letters, marks, digits and `_`, and what may stand between its letters or its digits."""
    marks = _marks()
    run = rf"[^\W{_IDEOGRAPHS}]+(?:[{marks}]+[^\W{_IDEOGRAPHS}]*)*"
    between_letters = rf"[{_INSIDE_LETTERS}{apostrophes}](?=[^\W\d_{_IDEOGRAPHS}])"
    between_digits = rf"(?<=\d)[{_INSIDE_DIGITS}{apostrophes}](?=\d)"
    joint = rf"(?<=[^\W\d_]){between_letters}|(?<=[{marks}]){between_letters}|{between_digits}"
    return re.compile(rf"{run}(?:(?:{joint}){run})*|[{_IDEOGRAPHS}]")


@lru_cache
def _ascii_pattern(apostrophe: str) -> re.Pattern[str]:
    """What `_word_pattern` comes to in a text of ASCII alone, in half the time."""
    between_letters = rf"(?<=[A-Za-z])[.:{apostrophe}](?=[A-Za-z])"
    between_digits = rf"(?<=\d)[.,;{apostrophe}](?=\d)"
    return re.compile(rf"\w+(?:(?:{between_letters}|{between_digits})\w+)*", re.ASCII)


def _marks() -> str:
    """The combining marks: Python's `\\w` lacks them, and Hindi or Tamil words would fall apart."""
    plane = range(min(sys.maxunicode, 0xFFFF) + 1)
    return "".join(chr(code) for code in plane if unicodedata.category(chr(code)) in ("Mn", "Mc"))


def _porter() -> Callable[[str], str]:
    """Porter's stemmer as in Lucene: Snowball's, with the later rules -bli to -ble and -logi to -log."""
    import Stemmer

    snowball = Stemmer.Stemmer("porter").stemWord

    def stem(word: str) -> str:
        term: str = snowball(word)
        if term.endswith("logi") and _measure(term[:-4]) > 0:
            return term[:-1]
        if term.endswith("bli") and _measure(term[:-3]) > 0:
            return str(snowball(term[:-1] + "e"))
        return term

    return stem


def _measure(stem: str) -> int:
    """Porter's m: how many times a vowel sequence is followed by a consonant sequence."""
    kinds = ""
    for place, letter in enumerate(stem):
        vowel = letter in "aeiou" or (letter == "y" and place > 0 and kinds[-1] == "c")
        kinds += "v" if vowel else "c"
    return len(re.findall("v+c+", kinds))
