"""Selection: every document becomes a source or is dropped with the reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from reasonembed.domains import load_domain
from reasonembed.errors import InputError
from reasonembed.llm.chat import Failure
from reasonembed.records import Dropped
from reasonembed.remixer.config import SelectConfig
from reasonembed.remixer.rows import Source
from reasonembed.remixer.select import parse_verdict, read_sources, select_sources

BIOLOGY = load_domain("biology")
UNCHECKED = SelectConfig(domain_check=False)


def text(name: str, length: int = 300) -> str:
    return f"{name} ".ljust(length, "x")


def fates(corpus, config=UNCHECKED, **arguments) -> dict[str, str]:
    """doc_id -> "source" or the reason."""
    rows = select_sources(corpus, BIOLOGY, config, **{"seed": 0, **arguments})
    return dict((row.doc_id, "source") if isinstance(row, Source) else (row.row_id, row.reason) for row in rows)


def test_documents_of_200_to_5000_characters_pass(corpus_of):
    lengths = {"a": 199, "b": 200, "c": 5000, "d": 5001}
    corpus = corpus_of({name: text(name, length) for name, length in lengths.items()})
    assert fates(corpus) == {"a": "too_short", "b": "source", "c": "source", "d": "too_long"}


def test_a_document_that_qrels_name_is_never_a_source_unless_the_rule_is_lifted_and_then_it_is_counted(
    corpus_of,
):
    corpus = corpus_of({name: text(name) for name in "abc"})
    assert fates(corpus, benchmark={"b"})["b"] == "named_by_benchmark"
    counts: Counter[str] = Counter()
    lifted = SelectConfig(domain_check=False, allow_benchmark_sources=True)
    assert fates(corpus, lifted, benchmark={"b", "zz"}, counts=counts)["b"] == "source"
    assert counts["sources_named_by_benchmark"] == 1


def test_the_domain_check_takes_yes_and_drops_no_and_what_is_neither(corpus_of, door_to):
    answers = {
        "a": "Yes.",
        "b": "**No**",
        "c": "Perhaps",
        "d": "Yes and no",
        "e": Failure("refused", "I won't"),
    }
    corpus = corpus_of({name: text(name) for name in answers})
    door = door_to({f"select:biology:{name}": answer for name, answer in answers.items()})
    rows = list(select_sources(corpus, BIOLOGY, SelectConfig(), seed=0, door=door))
    assert rows == [
        Source("a"),
        Dropped("b", "off_domain"),
        Dropped("c", "domain_check_unparsable", "'Perhaps'"),
        Dropped("d", "domain_check_unparsable", "'Yes and no'"),
        Dropped("e", "reply_refused", "I won't"),
    ]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Yes", True),
        (" yes, it does.", True),
        ("NO.", False),
        ("**No**, because", False),
        ("", None),
        ("Maybe", None),
        ("Yesterday", None),
        ("Nothing", None),
        ("Yes or no?", None),
        ("I would say yes", None),
    ],
)
def test_only_a_reply_that_begins_with_yes_or_no_and_says_no_other_is_a_verdict(reply: str, verdict: bool | None):
    assert parse_verdict(reply) is verdict


def test_a_list_of_sources_restricts_after_all_documents_were_checked(corpus_of, door_to):
    corpus = corpus_of({name: text(name, 100 if name == "d" else 300) for name in "abcd"})
    door = door_to(lambda request: "No" if request.custom_id.endswith("b") else "Yes")
    chosen = fates(corpus, SelectConfig(), door=door, listed=["a", "b", "d"])
    assert chosen == {"a": "source", "b": "off_domain", "c": "not_listed", "d": "too_short"}
    assert sorted(door.backend.asked) == ["select:biology:a", "select:biology:b", "select:biology:c"]


def test_a_listed_source_that_the_corpus_lacks_is_named(corpus_of):
    corpus = corpus_of({"a": text("a")})
    with pytest.raises(InputError, match=r"1 of the 2 listed sources .*'b\.pdf'"):
        fates(corpus, listed=["a", "b.pdf"])


def test_an_exact_copy_of_a_source_is_dropped_and_the_listed_one_of_two_stays(corpus_of):
    corpus = corpus_of({"a": text("same"), "b": text("SAME").lower() + " ", "c": text("other")})
    assert sorted(fates(corpus).values()) == ["exact_copy", "source", "source"]
    assert fates(corpus, listed=["b"]) == {"a": "not_listed", "b": "source", "c": "not_listed"}


def test_a_limit_takes_a_part_of_what_a_higher_limit_takes_in_corpus_order(corpus_of):
    corpus = corpus_of({f"d{n:02}": text(f"d{n}") for n in range(40)})

    def chosen(limit: int, seed: int = 0) -> list[str]:
        return [doc_id for doc_id, fate in fates(corpus, limit=limit, seed=seed).items() if fate == "source"]

    assert len(chosen(5)) == 5
    assert set(chosen(5)) < set(chosen(20)) < set(chosen(0))
    assert chosen(20) == sorted(chosen(20))
    assert chosen(5) != chosen(5, seed=1)


def test_the_order_of_the_corpus_does_not_decide_who_is_sampled(corpus_of):
    texts = {f"d{n:02}": text(f"d{n}") for n in range(30)}
    first = fates(corpus_of(texts), limit=7)
    second = fates(corpus_of(dict(reversed(texts.items()))), limit=7)
    assert first == second


def test_with_a_limit_no_more_documents_are_checked_than_needed(corpus_of, door_to):
    corpus = corpus_of({f"d{n:02}": text(f"d{n}") for n in range(50)})
    door = door_to(lambda request: "No" if int(request.custom_id[-2:]) % 2 else "Yes")
    chosen = fates(corpus, SelectConfig(), door=door, limit=6)
    assert Counter(chosen.values())["source"] == 6
    assert len(door.backend.asked) == 6 + Counter(chosen.values())["off_domain"] < 30


def test_source_lists_are_read_from_plain_lines_and_from_jsonl(tmp_path: Path):
    (tmp_path / "ids.txt").write_text("a\n\n b \na\n")
    (tmp_path / "ids.jsonl").write_text('{"doc_id": "a", "query": "?"}\n{"doc_id": "b"}\n')
    assert read_sources(tmp_path / "ids.txt") == read_sources(tmp_path / "ids.jsonl") == ("a", "b")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="names no source"):
        read_sources(tmp_path / "empty.txt")
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(InputError, match=r"bad.jsonl, line 1.*doc_id"):
        read_sources(tmp_path / "bad.jsonl")
