"""Step 3, source-excluded candidate mining: what a retriever finds for a query in the corpus.

The source and its near-copies are taken out before the cut, as are a query's further sources and theirs, so that a
query gets its `top_k` candidates all the same; where the retriever ranks fewer, there are fewer: nothing is filled in
(PAPER.md section 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

import msgspec

from reasonembed.corpora import Corpus
from reasonembed.domains import Domain
from reasonembed.records import Candidate, Companion, Dropped, kept_apart
from reasonembed.remixer.config import MineConfig
from reasonembed.remixer.duplicates import copies_within
from reasonembed.remixer.rankers import Rankers
from reasonembed.remixer.rows import GeneratedQuery, MinedQuery

STAGE = "mine"

_BATCH = 512  # queries ranked at once: bounds memory; vectors are read once per batch


def mine_candidates(
    queries: Iterable[GeneratedQuery],
    corpus: Corpus,
    domain: Domain,
    config: MineConfig,
    *,
    rankers: Rankers,
    task: Callable[..., AbstractContextManager[Callable[[int], None]]],
) -> Iterator[MinedQuery | Dropped]:
    """The candidates of each query, in the order of the queries, or the reason why it has none.

    task: shows progress, as `reasonembed.progress.task`.
    """
    queries = list(queries)
    sources = dict.fromkeys(doc_id for query in queries for doc_id in (query.source_id, *query.companion_ids))
    with task(f"{domain.name} near-copies", total=len(corpus)) as advance:
        copies = copies_within(corpus, sources, threshold=config.near_copy, advance=advance)
    with task(f"{domain.name} {STAGE}", total=len(queries)) as advance:
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            rows = [_unranked(query, copies) for query in batch]
            excluded = {row.query_id: kept_apart(row) for row in rows}
            texts = {query.query_id: query.query for query in batch}
            run = rankers.rank(corpus, domain, config, texts, excluded)
            for row in rows:
                yield _ranked(row, run.get(row.query_id, {}), config)
            advance(len(batch))


def keep_candidates(ranking: Mapping[str, float], *, excluded: Collection[str], limit: int) -> tuple[Candidate, ...]:
    """The best `limit` of a ranking (best first) without `excluded`: the query's sources and their copies."""
    kept = (Candidate(doc_id, score) for doc_id, score in ranking.items() if doc_id not in excluded)
    return tuple(itertools.islice(kept, limit))


def _unranked(query: GeneratedQuery, copies: Mapping[str, tuple[str, ...]]) -> MinedQuery:
    """The query's row before it has candidates."""
    return MinedQuery(
        query_id=query.query_id,
        source_id=query.source_id,
        copy_ids=copies[query.source_id],
        candidates=(),
        companions=tuple(Companion(doc_id, copies[doc_id]) for doc_id in query.companion_ids),
    )


def _ranked(row: MinedQuery, ranking: Mapping[str, float], config: MineConfig) -> MinedQuery | Dropped:
    candidates = keep_candidates(ranking, excluded=kept_apart(row), limit=config.top_k)
    if not candidates:
        return Dropped(row.query_id, "no_candidates", "the retriever found nothing but the source and its copies")
    return msgspec.structs.replace(row, candidates=candidates)
