"""Triviality: what training queries share with their sources, positives and negatives (the paper, section 5).

A query that was written from a document and shares its words teaches matching by form. Three signs of it: ROUGE-L
(every word counts, and their order), weighted Jaccard (function words left out, see `overlap`), and the rank of the
source under BM25 when the query is searched over its whole corpus.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec
import numpy as np

from reasonembed.analyze.distributions import distribution
from reasonembed.analyze.overlap import Kind, content_counts, weighted_jaccard
from reasonembed.analyze.rouge import rouge_l
from reasonembed.records import Example, kept_apart, source_ids
from reasonembed.redapter.data import TrainingExample
from reasonembed.search.bm25 import Bm25Index
from reasonembed.search.ranking import rank_of
from reasonembed.texts import words

KINDS: tuple[Kind, ...] = get_args(Kind)
TOP, FAR = 10, 100  # ranks up to the one are near, beyond the other far
NEAREST_PAIRS = 20

Values = dict[Kind, tuple[float, ...]]
"""What the text is to the query -> a figure for each such text, in the order of the example's own lists."""


class RankedSource(msgspec.Struct, frozen=True):
    """The text that a query was written from, or the texts, and the rank under BM25 (see `source_rank`)."""

    text: str
    rank: int
    companions: tuple[str, ...] = ()  # the further texts


class ExampleOverlap(msgspec.Struct, frozen=True):
    """What one query shares with its texts, figures from 0 to 1; without a source where none is known."""

    example_id: str
    rouge_l: Values  # a query written from several documents has a figure in "source" for each
    jaccard: Values
    source_rank: int | None = None  # from 1; the number of documents if query and source share no term


class NearPair(msgspec.Struct, frozen=True):
    """A query and one of its positives, both texts."""

    rouge_l: float
    domain: str
    example_id: str
    query: str
    positive: str


class DomainOverlap(msgspec.Struct, frozen=True):
    """One domain's examples as measured. `documents` is None where the data name no sources."""

    domain: str
    total: int  # examples that there are, of which some may have been drawn
    examples: tuple[ExampleOverlap, ...]
    nearest: tuple[NearPair, ...]  # by ROUGE-L, the largest first
    documents: int | None = None  # of the corpus that sources were ranked in

    def pool(self, figure: str, kind: Kind) -> list[float]:
        """`figure` ("rouge_l", "jaccard") of all pairs of a query and a text of this kind."""
        return [value for one in self.examples for value in getattr(one, figure).get(kind, ())]

    def ranks(self) -> list[int]:
        """The rank of every source; empty where there are none."""
        return [one.source_rank for one in self.examples if one.source_rank is not None]


class Triviality(msgspec.Struct, frozen=True):
    """The domains as measured. sample: at most so many examples of each were drawn by `seed`; None: all."""

    domains: tuple[DomainOverlap, ...]
    sample: int | None = None
    seed: int = 0

    @property
    def without_sources(self) -> list[str]:
        """The domains whose data name no sources."""
        return [one.domain for one in self.domains if one.documents is None]

    @property
    def several_sources(self) -> bool:
        """Whether queries were written from several documents, so that `source` has a pair for each of them."""
        return any(len(one.rouge_l.get("source", ())) > 1 for domain in self.domains for one in domain.examples)

    def pooled(self, figure: str) -> dict[Kind, list[float]]:
        """`figure` of all pairs of all domains, by what the text is to the query; kinds without a pair left out."""
        pools = {kind: [value for one in self.domains for value in one.pool(figure, kind)] for kind in KINDS}
        return {kind: values for kind, values in pools.items() if values}

    def ranks(self) -> list[int]:
        """The ranks of the sources of all domains."""
        return [rank for one in self.domains for rank in one.ranks()]

    def nearest(self) -> list[NearPair]:
        """The pairs of a query and a positive with the largest ROUGE-L of all domains."""
        pairs = (pair for one in self.domains for pair in one.nearest)
        return heapq.nlargest(NEAREST_PAIRS, pairs, key=lambda pair: pair.rouge_l)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Per domain, and over all pairs in `all`: examples, figures by kind of text, and the source's rank."""
        rows = {one.domain: _summary([one]) for one in self.domains}
        return rows if len(rows) == 1 else rows | {"all": _summary(self.domains)}


def example_overlap(example: TrainingExample, source: RankedSource | None = None) -> ExampleOverlap:
    """What the example's query shares with its texts; source: what it was written from, if known.

    Raises MissingExtra without rapidfuzz.
    """
    texts: dict[Kind, Sequence[str]] = {"positives": example.positives, "negatives": example.negatives}
    if source is not None:
        texts = {"source": (source.text, *source.companions), **texts}
    query = words(example.query)
    counts = content_counts(query)
    rouge: Values = {}
    jaccard: Values = {}
    for kind, of_kind in texts.items():
        split = [words(text) for text in of_kind]
        rouge[kind] = tuple(rouge_l(query, text) for text in split)
        jaccard[kind] = tuple(weighted_jaccard(counts, content_counts(text)) for text in split)
    return ExampleOverlap(example.example_id, rouge, jaccard, source.rank if source else None)


def source_rank(index: Bm25Index, example: Example, places: Mapping[str, int]) -> int:
    """The rank of the example's source when its query is searched by bag-of-words BM25 over the whole corpus.

    Copies of the source are not counted: they say the same. A source that shares no term with the query would not
    be found; its rank is the number of documents. Of several sources it is the one that ranks first, the others not
    counted either.  places: doc_id -> its row in the index.
    """
    scores = index.scores(example.query)
    sources = [places[doc_id] for doc_id in source_ids(example)]
    source = max(sources, key=lambda row: (np.float32(scores[row]), index.doc_ids[row]))
    if scores[source] <= 0:
        return len(places)
    apart = [places[doc_id] for doc_id in kept_apart(example) if doc_id in places]
    scores[[row for row in apart if row != source]] = -np.inf
    return rank_of(scores, index.doc_ids, source)


def nearest_pairs(
    examples: Iterable[TrainingExample], overlaps: Iterable[ExampleOverlap], *, count: int = NEAREST_PAIRS
) -> list[NearPair]:
    """The `count` pairs of a query and a positive with the largest ROUGE-L."""
    pairs = (
        (value, example, place)
        for example, overlap in zip(examples, overlaps, strict=True)
        for place, value in enumerate(overlap.rouge_l["positives"])
    )
    return [
        NearPair(value, example.domain, example.example_id, example.query, example.positives[place])
        for value, example, place in heapq.nlargest(count, pairs, key=lambda pair: pair[0])
    ]


def rank_bins(ranks: Iterable[int]) -> dict[str, int]:
    """How many of the ranks lie in each power of ten, from `1` and `2-10` to `above` 10k."""
    names = ("1", "2-10", "11-100", "to 1k", "to 10k", "above")
    found = np.searchsorted([1, 10, 100, 1_000, 10_000], list(ranks), side="left")
    return dict(zip(names, np.bincount(found, minlength=len(names)).tolist(), strict=True))


def _summary(domains: Sequence[DomainOverlap]) -> dict[str, Any]:
    measured = sum(len(one.examples) for one in domains)
    row: dict[str, Any] = {"examples": measured, "of": sum(one.total for one in domains)}
    for figure in ("rouge_l", "jaccard"):
        pools = {kind: [value for one in domains for value in one.pool(figure, kind)] for kind in KINDS}
        row[figure] = {kind: {"pairs": len(values), **distribution(values)} for kind, values in pools.items() if values}
    ranks = np.array([rank for one in domains for rank in one.ranks()])
    row["source_rank"] = None if not len(ranks) else {
        "queries": len(ranks),
        "documents": sum(one.documents or 0 for one in domains),
        "median": float(np.median(ranks)),
        "share_first": float((ranks == 1).mean()),
        f"share_top_{TOP}": float((ranks <= TOP).mean()),
        f"share_over_{FAR}": float((ranks > FAR).mean()),
    }  # fmt: skip
    return row


__all__ = [
    "DomainOverlap",
    "ExampleOverlap",
    "NearPair",
    "RankedSource",
    "Triviality",
    "example_overlap",
    "nearest_pairs",
    "rank_bins",
    "source_rank",
]
