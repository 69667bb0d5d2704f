"""What counts as the same text, and what counts as a word: used to keep a query's source away from it."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """`text` without what a copy may change for free: Unicode form, case, white space, invisible characters.

    Normalisation form KC, case folded, runs of white space made one space. Our reading of "the same text after
    normalisation" (PAPER.md section 1, step 3); accents and punctuation are kept, they carry meaning.
    """
    if text.isascii():  # nothing to compose or to fold specially, and four fifths of the time saved
        return " ".join(text.casefold().split())
    folded = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def text_key(text: str) -> str:
    """A 128-bit hash of the normalised text in hexadecimal: equal for equal texts, whatever their spacing or case."""
    return hashlib.blake2b(normalise(text).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def words(text: str) -> list[str]:
    """The words of the normalised text: runs of letters, digits and underscores."""
    return normal_words(normalise(text))


def normal_words(normalised: str) -> list[str]:
    """The words of a text that is normalised already."""
    return _WORD.findall(normalised)


def row_seed(seed: int, *parts: str) -> int:
    """A 63-bit seed for one row, decided by the run's seed, the stage and the row's id alone (law 4)."""
    name = "\x1f".join([str(seed), *parts]).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1
