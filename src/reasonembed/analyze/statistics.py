"""Statistics of synthesis, per domain: what each stage kept, how long texts are, what grades they got, what it cost.

Read from a workspace as it stands: a stage that is not finished has no figures. Nothing is asked and nothing is locked.
"""

from __future__ import annotations

import collections
import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from reasonembed.analyze.distributions import distribution
from reasonembed.analyze.overlap import QueryOverlaps, pooled, query_overlaps
from reasonembed.corpora import Corpus
from reasonembed.errors import InputError
from reasonembed.llm.prices import Prices
from reasonembed.llm.spending import Spending
from reasonembed.manifest import Manifest, read_manifest, read_rows
from reasonembed.records import Example, Label
from reasonembed.remixer import annotate, assemble, generate, reason, select
from reasonembed.remixer.job import corpus_of
from reasonembed.remixer.rows import GeneratedQuery, ReasonedQuery, Source
from reasonembed.remixer.stages import STAGES
from reasonembed.texts import row_seed, words
from reasonembed.workspace import Workspace

TextKind = Literal["documents", "sources", "queries", "reasoning queries"]
TEXT_KINDS: tuple[TextKind, ...] = get_args(TextKind)
SAMPLE = 2_000  # documents and examples of a domain that are measured; our choice: quantiles within a few percent


class Length(msgspec.Struct, frozen=True):
    """How long a text is. Words are those of `texts.words`, which mean little where a language sets no spaces."""

    words: int
    characters: int


class DomainStatistics(msgspec.Struct, frozen=True):
    """One domain of a workspace in figures."""

    domain: str
    stages: tuple[Manifest, ...]  # the finished ones, in running order
    lengths: Mapping[TextKind, Sequence[Length]] = {}  # documents and sources: of the sample
    grades: Mapping[int, int] = {}  # grade -> labels
    positives: Sequence[int] = ()  # of each example
    negatives: Sequence[int] = ()
    overlaps: Sequence[QueryOverlaps] = ()  # of the sampled examples
    unread: str = ""  # why the corpus could not be read, and with it documents, sources and overlaps


class Cost(msgspec.Struct, frozen=True):
    """What one model was paid for in one stage, over all domains and runs. `cost` is None where no price is known."""

    spending: Spending
    cost: float | None


class Statistics(msgspec.Struct, frozen=True):
    """A workspace in figures."""

    domains: tuple[DomainStatistics, ...]
    costs: tuple[Cost, ...] = ()
    currency: str = "USD"
    sample: int | None = SAMPLE  # None: everything was measured
    seed: int = 0

    @property
    def manifests(self) -> list[Manifest]:
        """The receipts of all finished stages of all domains."""
        return [manifest for one in self.domains for manifest in one.stages]

    @property
    def grades(self) -> dict[int, int]:
        """grade -> labels, over all domains; empty if nothing was graded."""
        counted: collections.Counter[int] = collections.Counter()
        for one in self.domains:
            counted.update(dict(one.grades))
        return dict(sorted(counted.items()))

    @property
    def positives(self) -> list[int]:
        """The number of positives of each example, over all domains."""
        return [count for one in self.domains for count in one.positives]

    @property
    def negatives(self) -> list[int]:
        """The number of negatives of each example, over all domains."""
        return [count for one in self.domains for count in one.negatives]

    @property
    def several_sources(self) -> bool:
        """Whether queries were written from several documents, so that `overlaps` has a pair for each of them."""
        return any(overlap.companions for one in self.domains for overlap in one.overlaps)

    @property
    def overlaps(self) -> dict[str, list[float]]:
        """What a text is to its query -> weighted Jaccard similarities, over all domains."""
        return dict(pooled(overlap for one in self.domains for overlap in one.overlaps).items())

    def lengths(self, kind: TextKind) -> list[Length]:
        """The lengths of all texts of this kind, over all domains."""
        return [length for one in self.domains for length in one.lengths.get(kind, ())]

    def as_data(self) -> dict[str, Any]:
        """The content of `statistics.json`: plain types, distributions instead of single values."""
        return {
            "sample": self.sample,
            "seed": self.seed,
            "domains": {one.domain: _domain_data(one) for one in self.domains},
            "spend": [{**msgspec.structs.asdict(one.spending), "cost": one.cost} for one in self.costs],
            "currency": self.currency,
        }


def domain_statistics(
    workspace: Workspace, domain: str, *, sample: int | None = SAMPLE, seed: int = 0, corpus: Corpus | None = None
) -> DomainStatistics:
    """The figures of one domain. Raises InputError if no stage of it is finished, DamageError for a torn file.

    sample: measure at most so many documents, sources and examples, drawn by (seed, domain, id) alone; None: all.
    corpus: where the texts stand; None reads it from where `synthesize` found it. If it is gone or another one, what
    needs texts of documents is left out, and `unread` says why.
    """
    manifests = [read_manifest(workspace.stage_folder(domain, stage)) for stage in STAGES]
    finished = {manifest.stage: manifest for manifest in manifests if manifest is not None}
    if not finished:
        known = ", ".join(workspace.domains()) or "none"
        raise InputError(f"{workspace.path} has no finished stage of {domain} (domains here: {known}).")
    folders = {stage: workspace.stage_folder(domain, stage) for stage in finished}
    lengths: dict[TextKind, Sequence[Length]] = {}
    unread = ""
    try:
        corpus = corpus_of(finished[select.STAGE], corpus)
    except InputError as error:
        corpus, unread = None, str(error)
    if corpus is not None:
        rows = read_rows(folders[select.STAGE], Source)
        source_ids = list(dict.fromkeys(doc_id for row in rows for doc_id in (row.doc_id, *row.companion_ids)))
        lengths["documents"] = _lengths(corpus[one].content for one in _drawn(corpus.ids, sample, seed, domain))
        lengths["sources"] = _lengths(corpus[one].content for one in _drawn(source_ids, sample, seed, domain))
    if generate.STAGE in finished:
        lengths["queries"] = _lengths(row.query for row in read_rows(folders[generate.STAGE], GeneratedQuery))
    if reason.STAGE in finished:
        reasoned = read_rows(folders[reason.STAGE], ReasonedQuery)
        lengths["reasoning queries"] = _lengths(row.reasoning_query for row in reasoned)
    labels = read_rows(folders[annotate.STAGE], Label) if annotate.STAGE in finished else ()
    examples = list(read_rows(folders[assemble.STAGE], Example)) if assemble.STAGE in finished else []
    return DomainStatistics(
        domain=domain,
        stages=tuple(finished.values()),
        lengths={kind: values for kind, values in lengths.items() if values},
        grades=dict(sorted(collections.Counter(label.grade for label in labels).items())),
        positives=[len(one.positives) for one in examples],
        negatives=[len(one.negatives) for one in examples],
        overlaps=_overlaps(examples, corpus, sample, seed, domain) if corpus is not None else (),
        unread=unread,
    )


def costs_of(spending: Iterable[Spending], prices: Prices) -> tuple[Cost, ...]:
    """Each line of a journal's ledger with what it cost."""
    return tuple(Cost(one, prices.cost(one.model, one.prompt_tokens, one.completion_tokens)) for one in spending)


def _drawn(ids: Sequence[str], sample: int | None, seed: int, domain: str) -> Sequence[str]:
    """At most `sample` of the ids, decided by (seed, domain, id) alone, in the order given."""
    if sample is None or len(ids) <= sample:
        return ids
    chosen = set(heapq.nsmallest(sample, ids, key=lambda one: (row_seed(seed, "statistics", domain, one), one)))
    return [one for one in ids if one in chosen]


def _lengths(texts: Iterable[str]) -> list[Length]:
    return [Length(len(words(text)), len(text)) for text in texts]


def _overlaps(
    examples: Sequence[Example], corpus: Corpus, sample: int | None, seed: int, domain: str
) -> list[QueryOverlaps]:
    chosen = set(_drawn([one.query_id for one in examples], sample, seed, domain))
    return [
        query_overlaps(
            one.query,
            corpus[one.source_id].content,
            [corpus[graded.doc_id].content for graded in one.positives],
            [corpus[graded.doc_id].content for graded in one.negatives],
            companions=[corpus[companion.doc_id].content for companion in one.companions],
        )
        for one in examples
        if one.query_id in chosen
    ]


def _domain_data(one: DomainStatistics) -> dict[str, Any]:
    def per_query(counts: Sequence[int]) -> dict[str, float]:
        return {"queries": len(counts), **(distribution(counts) if counts else {})}

    stages = ("stage", "rows_in", "rows_out", "dropped", "counts", "calls", "seconds")
    data: dict[str, Any] = {
        "stages": [{name: getattr(manifest, name) for name in stages} for manifest in one.stages],
        "lengths": {
            kind: {
                "texts": len(values),
                "words": distribution([length.words for length in values]),
                "characters": distribution([length.characters for length in values]),
            }
            for kind, values in one.lengths.items()
        },
        "grades": {str(grade): count for grade, count in one.grades.items()},
        "positives_per_query": per_query(one.positives),
        "negatives_per_query": per_query(one.negatives),
        "overlap": {
            kind: {"pairs": len(values), **distribution(values)}
            for kind, values in pooled(one.overlaps).items()
            if values
        },
    }
    return data | ({"unread": one.unread} if one.unread else {})


__all__ = [
    "SAMPLE",
    "TEXT_KINDS",
    "Cost",
    "DomainStatistics",
    "Length",
    "Statistics",
    "TextKind",
    "costs_of",
    "domain_statistics",
]
