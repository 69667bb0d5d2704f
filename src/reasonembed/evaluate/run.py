"""Judge a system on collections: rank, score, average over domains, with intervals and the protocol."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from reasonembed.beir import Collection
from reasonembed.errors import ConfigError, InputError, shown
from reasonembed.evaluate.compare import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    bootstrap_interval,
    holm,
    paired_difference,
)
from reasonembed.evaluate.metrics import MEASURES, cutoff, score
from reasonembed.evaluate.protocol import Protocol
from reasonembed.files import sha256_json
from reasonembed.records import Run
from reasonembed.search.systems import Bm25System, Index, System

logger = logging.getLogger(__name__)

WORDINGS = ("original", "reasoning")
"""What every collection may have; others are names in its `rewrites`."""
Scores = dict[tuple[str, str], float]
"""(domain, query_id) -> score"""


class Evaluation(msgspec.Struct, frozen=True):
    """What one system scored. All figures are fractions; `measure` is a key such as `nDCG@10`."""

    system: str
    scores: dict[str, Scores]  # measure -> (domain, query_id) -> score
    per_domain: dict[str, dict[str, float]]  # measure -> domain -> mean over its queries
    mean: dict[str, Interval]  # measure -> mean over domains, with its confidence interval
    runs: dict[str, Run]  # domain -> ranking
    protocol: Protocol


def evaluate(
    system: System,
    collections: Mapping[str, Collection],
    *,
    measures: Sequence[str] = MEASURES,
    k: int = 100,
    queries: str = "original",
    seed: int = 0,
    benchmark: str = "",
) -> Evaluation:
    """Rank the queries of each collection (domain -> collection) with `system` and score the rankings.

    Corpora of equal content are indexed once. `k`: documents kept for each query, after exclusions.
    `queries`: "reasoning" puts each query's `reasoning_query` in its place, another word that of the collections'
    `rewrites`. `benchmark`: its name in the protocol; the names of the domains if empty. `seed`: of the intervals.
    Raises ConfigError for unknown measures or wordings, or a `k` that the measures look beyond, InputError if a query
    lacks its wording.
    """
    _check(collections, measures, k, queries)
    runs = dict(_rank(system, collections, k, queries))
    scores: dict[str, Scores] = {measure: {} for measure in measures}
    for domain, collection in collections.items():
        for measure, values in score(runs[domain], collection.qrels, measures).items():
            scores[measure] |= {(domain, query_id): value for query_id, value in values.items()}
    return Evaluation(
        system=system.name,
        scores=scores,
        per_domain={measure: domain_means(values) for measure, values in scores.items()},
        mean={measure: interval(values, seed=seed) for measure, values in scores.items()},
        runs={domain: runs[domain] for domain in collections},
        protocol=_protocol(
            system,
            collections,
            benchmark=benchmark,
            measures=measures,
            k=k,
            queries=queries,
            seed=seed,
        ),
    )


def _check(collections: Mapping[str, Collection], measures: Sequence[str], k: int, queries: str) -> None:
    if not collections:
        raise InputError("there is nothing to evaluate on: give at least one collection.")
    for collection in collections.values():
        if queries not in (known := (*WORDINGS, *collection.rewrites)):
            raise ConfigError(f'queries is "{queries}"; {collection.name} has {", ".join(known)}.')
    for measure in measures:
        if (cutoff(measure) or 0) > k:
            raise ConfigError(f"{measure} looks at more documents than are kept (k is {k}). Raise k.")
    if not measures:
        raise ConfigError("there is nothing to measure: give at least one measure, e.g. nDCG@10.")


def _rank(system: System, collections: Mapping[str, Collection], k: int, queries: str) -> Iterator[tuple[str, Run]]:
    """Domain and ranking; domains with the same corpus follow each other, so that one index is held."""
    index: Index | None = None
    indexed = ""
    for domain, collection in sorted(collections.items(), key=lambda item: item[1].corpus.sha256):
        if index is None or collection.corpus.sha256 != indexed:
            index = None  # free the last before the next is made
            index, indexed = system.index(collection.corpus), collection.corpus.sha256
        texts = query_texts(collection, queries)
        logger.info(
            "%s: ranking %d documents for %d queries of %s",
            system.name,
            len(collection.corpus),
            len(texts),
            domain,
        )
        yield domain, index.search(texts, domain=domain, k=k, excluded=collection.excluded)


def query_texts(collection: Collection, queries: str = "original") -> dict[str, str]:
    """query_id -> the text that is searched with. Raises InputError if the wording asked for is missing for a query."""
    if queries == "original":
        return {query_id: query.text for query_id, query in collection.queries.items()}
    if queries != "reasoning":
        return _rewritten(collection, queries)
    for query_id, query in collection.queries.items():
        if not query.reasoning_query:
            raise InputError(
                f"{collection.name}: the query {shown(query_id)} has no reasoning_query. Add it to "
                f"queries.jsonl or evaluate with the original queries."
            )
    return {query_id: query.reasoning_query for query_id, query in collection.queries.items()}


def _rewritten(collection: Collection, name: str) -> dict[str, str]:
    rewrites = collection.rewrites[name]
    if missing := [query_id for query_id in collection.queries if not rewrites.get(query_id, "").strip()]:
        raise InputError(
            f"{collection.name}: the rewrites {shown(name)} lack {len(missing)} of {len(collection.queries)} queries, "
            f"the first is {shown(missing[0])}. Add them or evaluate with the original queries."
        )
    return {query_id: rewrites[query_id] for query_id in collection.queries}


def _protocol(
    system: System,
    collections: Mapping[str, Collection],
    *,
    benchmark: str,
    measures: Sequence[str],
    k: int,
    queries: str,
    seed: int,
) -> Protocol:
    settings = {domain: system.setting(domain) for domain in collections}
    any_setting = next(iter(settings.values()))
    return Protocol(
        benchmark=benchmark or ", ".join(collections),
        revision=sha256_json({domain: collection.sha256 for domain, collection in collections.items()}),
        n_domains=len(collections),
        n_queries=sum(len(collection.qrels) for collection in collections.values()),
        queries=any_setting.queries or queries,
        model=any_setting.model,
        search=any_setting.search,
        instructions={domain: setting.instruction for domain, setting in settings.items()},
        max_tokens=any_setting.max_tokens,
        dtype=any_setting.dtype,
        n_excluded=sum(len(ids) for c in collections.values() for ids in c.excluded.values()),
        measures=tuple(measures),
        depth=k,
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
        seed=seed,
        origins=tuple(dict.fromkeys(c.origin for c in collections.values() if c.origin)),
    )


def domain_means(scores: Scores) -> dict[str, float]:
    """domain -> mean over its queries, in the order of the domains."""
    values: dict[str, list[float]] = {}
    for (domain, _), value in scores.items():
        values.setdefault(domain, []).append(value)
    return {domain: float(np.mean(of_domain)) for domain, of_domain in values.items()}


def interval(scores: Scores, *, seed: int = 0) -> Interval:
    """The mean over domains with its confidence interval."""
    return bootstrap_interval(list(scores.values()), [domain for domain, _ in scores], seed=seed)


def domain_intervals(scores: Mapping[tuple[str, str], float], *, seed: int = 0) -> dict[str, Interval]:
    """domain -> mean over its queries with its confidence interval, in the order of the domains."""
    parts: dict[str, Scores] = {}
    for key, value in scores.items():
        parts.setdefault(key[0], {})[key] = value
    return {domain: interval(part, seed=seed) for domain, part in parts.items()}


def mean_over_seeds(evaluations: Sequence[Evaluation], measure: str) -> Scores:
    """Each query's score averaged over seeds of one system. Raises ValueError if their queries differ."""
    first = evaluations[0].scores[measure]
    for other in evaluations[1:]:
        if other.scores[measure].keys() != first.keys():
            raise ValueError(f"{other.system}: seeds of one system must be judged on the same queries")
    return {key: float(np.mean([e.scores[measure][key] for e in evaluations])) for key in first}


def results_table(
    evaluations: Mapping[str, Evaluation | Sequence[Evaluation]], *, base: str | None = "base", seed: int = 0
) -> dict[str, dict[str, dict[str, Any]]]:
    """The content of `results.json`: system -> measure -> mean, low, high, per_domain, vs_base, as fractions.

    A system given as several evaluations (seeds) is averaged per query first. `vs_base` compares query by
    query with the system of that name (difference, low, high, p) and is left out where `base` is None.
    Raises ValueError if `base` is not among the systems, or if systems were judged on different queries.
    """
    if base is not None and base not in evaluations:
        raise ValueError(f"the base {base!r} is not among the systems: {', '.join(evaluations)}")
    seeds = {name: [e] if isinstance(e, Evaluation) else list(e) for name, e in evaluations.items()}
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for name, of_system in seeds.items():
        table[name] = {}
        for measure in of_system[0].scores:
            scores = mean_over_seeds(of_system, measure)
            cell = msgspec.to_builtins(interval(scores, seed=seed)) | {"per_domain": domain_means(scores)}
            if base is not None:
                cell["vs_base"] = _against(scores, mean_over_seeds(seeds[base], measure), name, seed)
            table[name][measure] = cell
    return table


def with_holm(table: Mapping[str, Mapping[str, dict[str, Any]]], *, base: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The same table with `p_holm` in each `vs_base`: p corrected by Holm's method.

    The family is the systems other than `base`, under one measure: each measure is a family of its own, since the
    measures of one ranking ask much the same. The base's own p (1, against itself) belongs to no family.
    """
    measures = dict.fromkeys(measure for cells in table.values() for measure in cells)
    families = {
        measure: holm({name: cells[measure]["vs_base"]["p"] for name, cells in table.items() if name != base})
        for measure in measures
    }

    def corrected(name: str, measure: str, cell: dict[str, Any]) -> dict[str, Any]:
        p = 1.0 if name == base else families[measure][name]
        return cell | {"vs_base": cell["vs_base"] | {"p_holm": p}}

    return {
        name: {measure: corrected(name, measure, cell) for measure, cell in cells.items()}
        for name, cells in table.items()
    }


def _against(scores: Scores, base: Scores, name: str, seed: int) -> dict[str, float]:
    if scores.keys() != base.keys():
        raise ValueError(f"{name} was judged on other queries than the base; they cannot be compared")
    paired = [base[key] for key in scores]
    domains = [domain for domain, _ in scores]
    difference: dict[str, float] = msgspec.to_builtins(
        paired_difference(list(scores.values()), paired, domains, seed=seed)
    )
    return difference


__all__ = [
    "WORDINGS",
    "Bm25System",
    "Evaluation",
    "Scores",
    "System",
    "domain_intervals",
    "domain_means",
    "evaluate",
    "interval",
    "mean_over_seeds",
    "query_texts",
    "results_table",
    "with_holm",
]
