"""Recorded queries of the pocket collection to train on, and others to judge on, apart by idea; no test queries.

The test queries are of two kinds: three of seven in each domain are about ideas that no training query touches. So is
what is held out here. In each pocket domain and split, about four recorded queries are held out with everything that
shares a positive with them (*new ideas*: their answers are never a positive in training), and about four more, whose
ideas stay in training (*known ideas*).
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from reasonembed.beir import Collection
from reasonembed.corpora import read_corpus
from reasonembed.domains import load_domain
from reasonembed.files import read_jsonl
from reasonembed.pocket import POCKET_DOMAINS, pocket_folder
from reasonembed.records import Example, Graded, Query
from reasonembed.remixer.duplicates import find_near_copies
from reasonembed.texts import row_seed

NEW_IDEAS, KNOWN_IDEAS = 4, 4  # queries held out in a domain, about


class Recorded(msgspec.Struct, frozen=True):
    """A line of a domain's `recorded.jsonl`."""

    doc_id: str
    query: str
    reasoning_query: str
    labels: dict[str, tuple[int, str]]


class Split(msgspec.Struct, frozen=True):
    """Which queries of a domain are held out, of which kind, and which are trained on; the others rest."""

    new_ideas: frozenset[str]
    known_ideas: frozenset[str]
    trained: frozenset[str]


class DomainData(msgspec.Struct, frozen=True):
    """One domain: its recorded queries as examples to train on and as a collection to judge on."""

    examples: dict[str, Example]
    collection: Collection


def load_data(domain: str) -> DomainData:
    """The domain's recorded queries; a query's source and its near-copies count neither way."""
    corpus = read_corpus(pocket_folder(domain) / "corpus.jsonl")
    rows = list(read_jsonl(pocket_folder(domain) / "recorded.jsonl", Recorded))
    copies = find_near_copies([corpus[row.doc_id] for row in rows], corpus)
    examples, qrels, excluded = {}, {}, {}
    for row in rows:
        query_id = f"{row.doc_id}-q0"
        apart = {row.doc_id, *copies.of(row.doc_id)}
        graded = [
            Graded(doc_id, row.labels[doc_id][0] if doc_id in row.labels else 1)
            for doc_id in corpus.ids
            if doc_id not in apart
        ]
        examples[query_id] = Example(
            query_id=query_id,
            source_id=row.doc_id,
            query=row.query,
            reasoning_query=row.reasoning_query,
            positives=tuple(one for one in graded if one.grade >= 3),
            negatives=tuple(one for one in graded if one.grade < 3),
            copy_ids=tuple(copies.of(row.doc_id)),
        )
        qrels[query_id] = {doc_id: grade for doc_id, (grade, _) in row.labels.items() if doc_id not in apart}
        excluded[query_id] = frozenset(apart)
    queries = {name: Query(name, one.query, one.reasoning_query) for name, one in examples.items()}
    return DomainData(
        examples=examples,
        collection=Collection(domain, corpus, queries, qrels, excluded),
    )


@functools.cache
def all_data() -> dict[str, DomainData]:
    """Domain -> its recorded queries, read once."""
    return {domain: load_data(domain) for domain in POCKET_DOMAINS}


@functools.cache
def split_of(domain: str, number: int) -> Split:
    """Split `number` of a domain; -1 trains on everything and holds all of it out."""
    examples = all_data()[domain].examples
    if number < 0:
        return Split(frozenset(), frozenset(examples), frozenset(examples))
    positives = {name: {one.doc_id for one in example.positives} for name, example in examples.items()}
    near = {name: {other for other in positives if positives[name] & positives[other]} for name in positives}
    order = sorted(examples, key=lambda name: row_seed(number, "tune_demo", domain, name))
    apart: set[str] = set()
    new: set[str] = set()
    for name in order:
        if len(new) < NEW_IDEAS and not apart & near[name]:
            apart |= near[name]
            new = {one for one in apart if near[one] <= apart}
    rest = [name for name in order if name not in apart]
    known: set[str] = set()
    for name in rest:
        if len(known) < KNOWN_IDEAS and not known & near[name] and near[name] - {name}:
            known.add(name)
    return Split(frozenset(new), frozenset(known), frozenset(rest) - known)


def training_examples(split: int) -> list[Any]:
    """The redapter's examples of all domains that a split trains on."""
    from reasonembed.redapter.data import from_examples

    rows = []
    for domain, data in all_data().items():
        trained = split_of(domain, split).trained
        kept = [example for name, example in data.examples.items() if name in trained]
        rows += from_examples(kept, data.collection.corpus, load_domain(domain))
    return rows


def held_out_collections(split: int) -> dict[str, Collection]:
    """The collections with the held-out queries of one split only."""

    def part(domain: str, whole: Collection) -> Collection:
        parts = split_of(domain, split)
        kept = [name for name in whole.queries if name in parts.new_ideas | parts.known_ideas]
        return Collection(
            name=whole.name,
            corpus=whole.corpus,
            queries={name: whole.queries[name] for name in kept},
            qrels={name: whole.qrels[name] for name in kept},
            excluded={name: whole.excluded[name] for name in kept},
        )

    return {domain: part(domain, data.collection) for domain, data in all_data().items()}


@functools.cache
def new_ideas(split: int) -> set[str]:
    """The held-out queries of a split whose ideas are new to the model, as "domain/query_id"."""
    return {f"{domain}/{name}" for domain in all_data() for name in split_of(domain, split).new_ideas}
