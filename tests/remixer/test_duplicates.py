"""R7: the source and its near-copies are found, however they are disguised; others are left alone."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest

from reasonembed.corpora import read_corpus
from reasonembed.pocket import POCKET_DOMAINS, pocket_folder
from reasonembed.records import Document
from reasonembed.remixer.duplicates import copy_groups, find_near_copies
from reasonembed.texts import words

SOURCES = [document for name in POCKET_DOMAINS[:4] for document in read_corpus(pocket_folder(name))]
LONG = [document for document in SOURCES if len(document.text) >= 200]


def replace_block(text: str, draw: random.Random) -> str:
    """Up to a tenth of the words replaced, in one block."""
    tokens = text.split()
    size = len(words(text)) // 10
    size = draw.randint(1, size)
    start = draw.randrange(len(tokens) - size + 1)
    return " ".join(
        [
            *tokens[:start],
            *(f"other{draw.random()}"[:9].replace(".", "") for _ in range(size)),
            *tokens[start + size :],
        ]
    )


def respace(text: str, draw: random.Random) -> str:
    return "\u2003" + "".join(draw.choice(["\n", "\t ", "\u00a0", " \u200b "]) if c == " " else c for c in text)


def disguise(text: str, draw: random.Random) -> dict[str, str]:
    """Every kind of planted copy."""
    full_width = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)
    tokens = text.split()
    cut = len(tokens) * 15 // 100
    return {
        "same": text,
        "spaces": respace(text, draw),
        "decomposed": unicodedata.normalize("NFD", text),
        "full width": full_width,
        "upper": text.upper(),
        "soft hyphens": text.replace("e", "e\u00ad"),
        "block": replace_block(text, draw),
        "block and spaces": respace(replace_block(text, draw), draw),
        "chunk before": " ".join(["Something else stood in front of it here.", *tokens[:-cut]]),
        "chunk after": " ".join([*tokens[cut:], *(f"next{number}" for number in range(cut))]),
        "part of it": " ".join(tokens[: len(tokens) // 3]),
        "within a longer text": " ".join(
            [*(f"before{n}" for n in range(300)), text, *(f"after{n}" for n in range(300))]
        ),
    }


def test_every_planted_copy_is_found_and_nothing_else():
    draw = random.Random(0)
    planted = {
        f"{document.doc_id} {kind}": (document.doc_id, text)
        for document in LONG
        for kind, text in disguise(document.content, draw).items()
    }
    corpus = [*SOURCES, *(Document(doc_id, text) for doc_id, (_, text) in planted.items())]
    copies = find_near_copies(LONG, corpus)
    found = {(source.doc_id, doc_id) for source in LONG for doc_id in copies.of(source.doc_id)}
    assert {(source_id, doc_id) for doc_id, (source_id, _) in planted.items()} <= found
    assert {doc_id.split()[0] for _, doc_id in found} == {document.doc_id for document in LONG}
    assert all(doc_id.startswith(source_id) for source_id, doc_id in found)


def test_the_rule_is_what_a_direct_count_of_3_grams_gives():
    draw = random.Random(1)
    vocabulary = [f"w{number}" for number in range(12)]
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(1, 14))) for _ in range(300)]
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    copies = find_near_copies(documents[:60], documents)

    def grams(text: str) -> set[tuple[str, ...]]:
        tokens = text.split()
        return set(zip(tokens, tokens[1:], tokens[2:], strict=False))

    def near(one: str, other: str) -> bool:
        a, b = grams(one), grams(other)
        return one == other or bool(a and b and len(a & b) >= 0.8 * min(len(a), len(b)) - 1e-9)

    for source in documents[:60]:
        expected = {d.doc_id for d in documents if d is not source and near(source.text, d.text)}
        assert set(copies.of(source.doc_id)) == expected


@pytest.mark.parametrize(("shared", "near"), [(8, True), (7, False)])
def test_eight_of_ten_shared_3_grams_make_a_near_copy_and_seven_do_not(shared: int, near: bool):
    source = Document("a", " ".join(f"w{n}" for n in range(12)))
    kept = [f"w{n}" for n in range(shared + 2)]
    other = Document("b", " ".join([*kept, *(f"x{n}" for n in range(12 - len(kept)))]))
    assert find_near_copies([source], [source, other]).of("a") == (("b",) if near else ())


def test_texts_of_fewer_than_three_words_are_copies_only_if_they_are_equal():
    documents = [
        Document("a", "Hello World"),
        Document("b", "hello  world"),
        Document("c", "hello"),
        Document("d", ""),
    ]
    copies = find_near_copies(documents, documents)
    assert (copies.of("a"), copies.of("c"), copies.of("d")) == (("b",), (), ())


def test_word_order_counts():
    one = Document("a", "alpha beta gamma delta epsilon zeta")
    other = Document("b", "zeta epsilon delta gamma beta alpha")
    assert find_near_copies([one], [one, other]).of("a") == ()


def test_in_scripts_without_spaces_characters_count_as_words():
    text = "遺伝的浮動とは、集団の大きさが有限であるために対立遺伝子の頻度が世代ごとに偶然に変動する現象である。"
    changed = text.replace("偶然に", "無作為")
    unlike = "需要が増えて供給が変わらないとき、市場における財の価格は上昇し、取引される数量も増えることになる。"
    documents = [
        Document("a", text),
        Document("b", changed),
        Document("c", unlike),
        Document("d", text[: len(text) // 2]),
    ]
    assert find_near_copies(documents[:1], documents).of("a") == ("b", "d")


def test_a_copy_under_another_title_is_a_copy():
    text = LONG[0].text
    documents = [
        Document("a", text, title="One title"),
        Document("b", text, title="Quite another"),
        Document("c", text),
    ]
    assert find_near_copies(documents[:1], documents).of("a") == ("b", "c")


def test_hostile_texts_and_ids_do_no_harm():
    documents = [
        Document("../a", "\x00 " * 50),
        Document("b" * 300, "𝒳" * 1000),
        Document("c\n", "a b c " * 2000),
    ]
    copies = find_near_copies(documents, documents)
    assert all(copies.of(document.doc_id) == () for document in documents)


def test_groups_join_sources_through_their_copies():
    copies = {"a": ("b", "x"), "b": ("a",), "c": (), "d": ("b",), "e": ("y",)}
    assert copy_groups(copies) == [["a", "b", "d"], ["c"], ["e"]]


def test_the_hashes_are_the_same_in_every_process(tmp_path: Path):
    import os
    import subprocess
    import sys

    code = (
        "from reasonembed.remixer.duplicates import _ShingleHasher;"
        "print(_ShingleHasher()(['one two three four']).hashes.tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_a_tenth_of_the_words_replaced_hides_no_copy_wherever_the_block_stands():
    """R7 at its hardest: the largest block, at every place of each text."""
    for document in LONG[::5]:
        tokens = document.content.split()
        size = len(words(document.content)) // 10
        copies = [
            Document(f"at {start}", " ".join([*tokens[:start], *["other"] * size, *tokens[start + size :]]))
            for start in range(len(tokens) - size + 1)
        ]
        assert len(find_near_copies([document], copies).of(document.doc_id)) == len(copies)


def test_blocks_of_documents_give_what_single_documents_give(monkeypatch: pytest.MonkeyPatch):
    texts = [document.content for document in LONG[:30]]
    documents = [Document(str(n), text) for n, text in enumerate([*texts, *(text[: len(text) // 2] for text in texts)])]
    together = find_near_copies(documents[:30], documents)
    monkeypatch.setattr("reasonembed.remixer.duplicates._BLOCK_CHARS", 1)
    alone = find_near_copies(documents[:30], documents)
    assert [together.of(d.doc_id) for d in documents[:30]] == [alone.of(d.doc_id) for d in documents[:30]]
    assert together.of("3") == ("33",)
