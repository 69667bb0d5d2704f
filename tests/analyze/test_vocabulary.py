"""The compiled numbering of words against a dictionary over `texts.words`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reasonembed.analyze import vocabulary as module
from reasonembed.analyze.vocabulary import Vocabulary
from reasonembed.texts import words

SPACES_AND_MARKS = (" ", "\n", "\x1f", "\x00", "\x7f", "e\u0301", "\u200b", "\u00ad", "\u00a0", "\ud800")
PIECES = st.sampled_from([*"aAbB_7-.'éÉßẞİıſKﬁ²３漢—–‘’“”…𝐀", "ab", "x_1", "ーア", "हि", *SPACES_AND_MARKS])
TEXTS = st.lists(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30), max_size=12)


def by_dictionary(texts: Sequence[str]) -> tuple[list[int], list[int], int]:
    """The number of each word, where each text's end, and how many there are."""
    numbers: dict[str, int] = {}
    flat, ends = [], []
    for text in texts:
        flat += [numbers.setdefault(word, len(numbers)) for word in words(text)]
        ends.append(len(flat))
    return flat, ends, len(numbers)


def by_loop(texts: Sequence[str], vocabulary: Vocabulary) -> tuple[list[int], list[int], int]:
    found = vocabulary.number(texts)
    return found.words.tolist(), found.ends.tolist(), len(vocabulary)


@settings(deadline=None)  # the first call loads the compiled loops
@given(TEXTS)
@example(["Don't stop_me, 3.5", "DON'T STOP_ME", "", " ", "don_t 35"])
@example(["“It’s so…so—so” A\u00a0B", "so\u0301 …\u0301 —"])
@example(["Straße STRASSE stra\u00dfe", "caf\u00e9 cafe\u0301 CAFÉ"])
def test_words_get_the_numbers_that_a_dictionary_over_the_words_gives(texts: list[str]) -> None:
    assert by_loop(texts, Vocabulary()) == by_dictionary(texts)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_a_vocabulary_goes_on_where_it_ended(first: list[str], second: list[str]) -> None:
    vocabulary = Vocabulary()
    before = vocabulary.number(first)
    after = vocabulary.number(second)
    assert [*before.words, *after.words] == by_dictionary([*first, *second])[0]


def test_a_vocabulary_that_outgrows_its_table_again_and_again_keeps_every_word_apart() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{number}" for number in rng.integers(0, 150_000, 4000)) for _ in range(130)]
    assert by_loop(texts, Vocabulary()) == by_dictionary(texts)


def test_words_of_one_hash_are_told_apart_by_their_letters() -> None:
    loops = module.hot_loops()
    vocabulary = Vocabulary()
    vocabulary.number(["first"])
    other = Vocabulary()
    other.number(["other"])
    vocabulary._hashes[0] = other._hashes[0]  # now "first" is held under the hash of "other"
    vocabulary._slots[:] = -1
    loops.fill_slots(vocabulary._slots, vocabulary._hashes, 1)
    assert vocabulary.number(["other"]).words.tolist() == [1]
