"""Systems made of systems: fused, searched with other wordings of the queries, reranked by a grader."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from reasonembed.corpora import Corpus
from reasonembed.errors import ConfigError, InputError, shown
from reasonembed.records import Run
from reasonembed.search.fuse import min_max, reciprocal_rank_fusion, weighted_fusion
from reasonembed.search.ranking import best_first
from reasonembed.search.systems import Excluded, Index, Queries, Setting, System, wordings

logger = logging.getLogger(__name__)


class FusedSystem:
    """Several systems made one from their best `depth` (or k, if more) documents.

    weights: one for each system, for the weighted sum of scores after min-max; None: reciprocal rank fusion.
    """

    def __init__(
        self,
        systems: Sequence[System],
        *,
        name: str = "fused",
        depth: int = 1000,
        weights: Sequence[float] | None = None,
    ) -> None:
        if not systems:
            raise ConfigError("nothing to fuse: give at least one system.")
        if weights is not None and (len(weights) != len(systems) or min(weights) < 0 or max(weights) <= 0):
            raise ConfigError(
                f"{name}: the weights are {list(weights)}; {len(systems)} were expected, none below 0, not all 0."
            )
        self.systems, self.name, self.depth = tuple(systems), name, depth
        self.weights = None if weights is None else tuple(weights)

    def index(self, corpus: Corpus) -> FusedRanker:
        return FusedRanker([system.index(corpus) for system in self.systems], self.depth, self.weights)

    def setting(self, domain: str) -> Setting:
        parts = [system.setting(domain) for system in self.systems]
        limits = [part.max_tokens for part in parts if part.max_tokens is not None]
        searches = " and ".join(part.search for part in parts)
        how = "reciprocal rank fusion (60, " if self.weights is None else "weighted sum after min-max ("
        if self.weights is not None:
            how += f"weights {', '.join(f'{weight:g}' for weight in self.weights)}, "
        worded = any(part.queries for part in parts)
        return Setting(
            model=" + ".join(part.model for part in parts),
            search=f"{how}depth {self.depth}) of {searches}",
            instruction=" / ".join(dict.fromkeys(part.instruction for part in parts if part.instruction)),
            max_tokens=max(limits, default=None),
            dtype=" + ".join(dict.fromkeys(part.dtype for part in parts if part.dtype)),
            queries=" / ".join(part.queries or "as given" for part in parts) if worded else "",
        )


class FusedRanker:
    """The indexes of the fused systems over one corpus."""

    def __init__(self, indexes: Sequence[Index], depth: int, weights: Sequence[float] | None) -> None:
        self._indexes, self._depth, self._weights = indexes, depth, weights

    def search(self, queries: Queries, *, domain: str = "", k: int = 100, excluded: Excluded | None = None) -> Run:
        deep = max(k, self._depth)
        runs = [index.search(queries, domain=domain, k=deep, excluded=excluded) for index in self._indexes]
        if self._weights is None:
            return reciprocal_rank_fusion(runs, k=k)
        return weighted_fusion(runs, self._weights, k=k)


class WordedSystem:
    """A system that searches with other wordings of the queries; the scores of several are summed.

    names: of the wordings, for the protocol.  texts: name -> domain -> query_id -> text.
    """

    def __init__(
        self, system: System, names: Sequence[str], texts: Mapping[str, Mapping[str, Mapping[str, str]]]
    ) -> None:
        self.system, self.name, self.names, self.texts = system, system.name, tuple(names), texts

    def index(self, corpus: Corpus) -> WordedIndex:
        return WordedIndex(self, self.system.index(corpus))

    def setting(self, domain: str) -> Setting:
        return msgspec.structs.replace(self.system.setting(domain), queries=" + ".join(self.names))


class WordedIndex:
    """An index whose queries are put into the wordings of `WordedSystem`."""

    def __init__(self, system: WordedSystem, index: Index) -> None:
        self._system, self._index = system, index

    def search(self, queries: Queries, *, domain: str = "", k: int = 100, excluded: Excluded | None = None) -> Run:
        """As any index. Raises InputError for a query that lacks one of the wordings."""
        worded = {
            query_id: tuple(self._text(name, domain, query_id) for name in self._system.names) for query_id in queries
        }
        return self._index.search(worded, domain=domain, k=k, excluded=excluded)

    def _text(self, name: str, domain: str, query_id: str) -> str:
        text = self._system.texts.get(name, {}).get(domain, {}).get(query_id, "")
        if not text.strip():
            raise InputError(
                f"{domain or 'the collection'}: the query {shown(query_id)} has no wording {shown(name)}. Add it, or "
                f"leave that wording out."
            )
        return text


class Grader(Protocol):
    """The seam to whatever judges a query and a document together."""

    @property
    def model(self) -> str:
        """What the protocol calls it, with how it is asked."""
        ...

    def grades(
        self, domain: str, queries: Mapping[str, str], candidates: Mapping[str, Sequence[str]], corpus: Corpus
    ) -> dict[tuple[str, str], float]:
        """(query_id, doc_id) -> grade, for those of the `candidates` (query_id -> doc ids) that got one."""
        ...


class RerankedSystem:
    """A system whose best `depth` documents are graded and ordered anew.

    Their score is `weight` times the grade plus `1 - weight` times the first stage's score, both after min-max
    over a query's graded documents. A document without a grade keeps its first-stage score, and documents below
    `depth` their order, behind the others.
    """

    def __init__(self, first: System, grader: Grader, *, name: str, depth: int = 100, weight: float = 0.5) -> None:
        if depth < 1 or not 0 <= weight <= 1:
            raise ConfigError(f"{name}: k is {depth} and weight {weight}; expected k from 1 up and weight from 0 to 1.")
        self.first, self.grader, self.name, self.depth, self.weight = first, grader, name, depth, weight

    def index(self, corpus: Corpus) -> RerankedIndex:
        return RerankedIndex(self, self.first.index(corpus), corpus)

    def setting(self, domain: str) -> Setting:
        first = self.first.setting(domain)
        how = f"best {self.depth} reranked by {self.grader.model}, weight {self.weight:g} after min-max"
        return msgspec.structs.replace(first, search=f"{first.search}; {how}")


class RerankedIndex:
    """The first stage's index, and the corpus to read the candidates in."""

    def __init__(self, system: RerankedSystem, first: Index, corpus: Corpus) -> None:
        self._system, self._first, self._corpus = system, first, corpus

    def search(self, queries: Queries, *, domain: str = "", k: int = 100, excluded: Excluded | None = None) -> Run:
        """As any index; the grader reads a query's first wording. Logs how many candidates got no grade."""
        system = self._system
        run = self._first.search(queries, domain=domain, k=max(k, system.depth), excluded=excluded)
        heads = {query_id: best_first(ranking)[: system.depth] for query_id, ranking in run.items()}
        texts = {query_id: wordings(text)[0] for query_id, text in queries.items()}
        grades = system.grader.grades(domain, texts, heads, self._corpus)
        asked = sum(map(len, heads.values()))
        if len(grades) < asked:
            logger.warning(
                "%s: %d of %d candidates of %s got no grade and keep their first-stage score.",
                system.name,
                asked - len(grades),
                asked,
                domain or "the collection",
            )
        return {
            query_id: rerank(
                ranking,
                {doc_id: grades[query_id, doc_id] for doc_id in heads[query_id] if (query_id, doc_id) in grades},
                depth=system.depth,
                weight=system.weight,
                k=k,
            )
            for query_id, ranking in run.items()
        }


def rerank(
    ranking: Mapping[str, float], grades: Mapping[str, float], *, depth: int, weight: float, k: int
) -> dict[str, float]:
    """The best `k` of one query's `ranking`, its first `depth` documents blended with their `grades`.

    Scores of those run from 0 to 1, scores of the rest lie below.
    """
    order = best_first(ranking)
    first = min_max({doc_id: ranking[doc_id] for doc_id in order[:depth]})
    judged = min_max(grades) if len(set(grades.values())) > 1 else {}  # equal grades order nothing
    blended = {doc_id: weight * judged.get(doc_id, score) + (1 - weight) * score for doc_id, score in first.items()}
    behind = {doc_id: -float(place) for place, doc_id in enumerate(order[depth:], 1)}
    blended |= behind
    return {doc_id: blended[doc_id] for doc_id in best_first(blended)[:k]}
