"""Contamination: how near training data come to a benchmark, by exact weighted Jaccard (the paper, figure 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

import msgspec

from reasonembed.analyze.closest import Nearest, nearest
from reasonembed.beir import Collection
from reasonembed.records import Dropped
from reasonembed.redapter.data import TrainingExample

THRESHOLDS = tuple(step / 10 for step in range(1, 10))
Kind = Literal["query", "document"]
REASONS: dict[Kind, str] = {
    "query": "its query is near a benchmark query",
    "document": "a positive is near a gold document",
}


class Match(msgspec.Struct, frozen=True):
    """A text of a benchmark and the training text most similar to it; 0 and empty where none shares a word."""

    domain: str  # of the benchmark
    text_id: str  # of the query or document
    similarity: float  # 0 to 1
    text: str
    example_domain: str = ""
    example_id: str = ""  # of the first example that holds the training text
    example_text: str = ""


class Contamination(msgspec.Struct, frozen=True):
    """The matches of all texts of a benchmark, of one kind."""

    kind: Kind  # "query": against training queries; "document": gold documents against training positives
    training_texts: int  # different ones that were searched
    matches: tuple[Match, ...]

    def per_domain(self) -> dict[str, list[float]]:
        """Benchmark domain -> the similarity of each of its texts."""
        values: dict[str, list[float]] = {}
        for match in self.matches:
            values.setdefault(match.domain, []).append(match.similarity)
        return values

    def above(self, threshold: float) -> list[Match]:
        """The matches of at least `threshold`, the most similar first."""
        return sorted((m for m in self.matches if m.similarity >= threshold), key=lambda m: -m.similarity)

    def summary(self) -> dict[str, dict[str, object]]:
        """Per benchmark domain, and in `all`: texts, mean, median, largest, and the share at each threshold."""
        pools = self.per_domain()
        pools = pools if len(pools) == 1 else pools | {"all": [match.similarity for match in self.matches]}
        return {domain: _summary(values) for domain, values in pools.items()}


class Cleaned(msgspec.Struct, frozen=True):
    """Training examples without those near a benchmark, and the latter with their reasons."""

    kept: tuple[TrainingExample, ...]
    dropped: tuple[Dropped, ...]


def contamination(
    examples: Sequence[TrainingExample],
    collections: Mapping[str, Collection],
    kind: Kind = "query",
    *,
    threads: int | None = None,
) -> Contamination:
    """For every query (or gold document) of the collections the nearest training query (or positive).

    Equal texts are compared once; the first example that holds one stands for it. Raises MissingExtra without numba.
    """
    first: dict[str, TrainingExample] = {}
    for example in examples:
        for text in _texts(example, kind):
            first.setdefault(text, example)
    texts = list(first)
    wanted = benchmark_texts(collections, kind)
    found = nearest([text for _, _, text in wanted], texts, threads=threads)

    def match(place: tuple[str, str, str], one: Nearest) -> Match:
        domain, text_id, text = place
        if one.row is None:
            return Match(domain, text_id, 0.0, text)
        example = first[texts[one.row]]
        return Match(domain, text_id, one.similarity, text, example.domain, example.example_id, texts[one.row])

    return Contamination(kind, len(texts), tuple(map(match, wanted, found)))


def benchmark_texts(collections: Mapping[str, Collection], kind: Kind) -> list[tuple[str, str, str]]:
    """(domain, id, text) of the queries, or of the documents that the qrels call relevant, each once a domain."""
    if kind == "query":
        return [
            (name, query.query_id, query.text) for name, one in collections.items() for query in one.queries.values()
        ]
    return [
        (name, doc_id, one.corpus[doc_id].content)
        for name, one in collections.items()
        for doc_id in dict.fromkeys(d for grades in one.qrels.values() for d, grade in grades.items() if grade > 0)
    ]


def drop_contaminated(
    examples: Sequence[TrainingExample],
    collections: Mapping[str, Collection],
    *,
    threshold: float,
    kinds: Iterable[Kind] = ("query",),
    threads: int | None = None,
) -> Cleaned:
    """`examples` without those of which a text comes to at least `threshold` to one of the benchmark.

    kinds: "query" compares queries with queries, "document" positives with gold documents.
    """
    reasons: dict[int, Dropped] = {}
    for kind in kinds:
        wanted = benchmark_texts(collections, kind)
        own = [_texts(example, kind) for example in examples]
        found = nearest([text for texts in own for text in texts], [text for _, _, text in wanted], threads=threads)
        ends = list(accumulate(map(len, own)))
        for number, (end, texts) in enumerate(zip(ends, own, strict=True)):
            worst = max(found[end - len(texts) : end], key=lambda one: one.similarity)
            if worst.row is not None and worst.similarity >= threshold and number not in reasons:
                domain, text_id, _ = wanted[worst.row]
                detail = f"{worst.similarity:.3f} to {domain}/{text_id}"
                reasons[number] = Dropped(examples[number].example_id, REASONS[kind], detail)
    kept = tuple(example for number, example in enumerate(examples) if number not in reasons)
    return Cleaned(kept, tuple(reasons[number] for number in sorted(reasons)))


def _texts(example: TrainingExample, kind: Kind) -> tuple[str, ...]:
    return (example.query,) if kind == "query" else example.positives


def _summary(values: Sequence[float]) -> dict[str, object]:
    import numpy as np

    pool = np.asarray(values)
    return {
        "texts": len(values),
        "mean": float(pool.mean()),
        "median": float(np.median(pool)),
        "max": float(pool.max()),
        "share_at": {f"{threshold:.1f}": float((pool >= threshold).mean()) for threshold in THRESHOLDS},
    }


__all__ = [
    "THRESHOLDS",
    "Cleaned",
    "Contamination",
    "Match",
    "benchmark_texts",
    "contamination",
    "drop_contaminated",
]
