"""Step 3, source-excluded candidate mining: what a retriever finds for a query in the corpus.

The source and its near-copies are taken out before the cut, so that a query gets its `top_k` candidates all
the same; where the retriever ranks fewer, there are fewer: nothing is filled in (PAPER.md section 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

from reasonembed.corpora import Corpus
from reasonembed.domains import Domain
from reasonembed.records import Candidate, Document, Dropped, Run
from reasonembed.remixer.config import MineConfig
from reasonembed.remixer.duplicates import NearCopies, find_near_copies
from reasonembed.remixer.rankers import Rankers
from reasonembed.remixer.rows import GeneratedQuery, MinedQuery

STAGE = "mine"

_REPORT_EVERY = 256  # documents
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
    sources = [corpus[query.source_id] for query in queries]
    with task(f"{domain.name} near-copies", total=len(corpus)) as advance:
        near = find_near_copies(sources, _counted(corpus, advance), threshold=config.near_copy)
    copies = {source.doc_id: _apart(source.doc_id, near, corpus) for source in sources}
    with task(f"{domain.name} {STAGE}", total=len(queries)) as advance:
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            excluded = {q.query_id: {q.source_id, *copies[q.source_id]} for q in batch}
            texts = {query.query_id: query.query for query in batch}
            run = rankers.rank(corpus, domain, config, texts, excluded)
            for query in batch:
                yield _row(query, run, copies[query.source_id], config)
            advance(len(batch))


def keep_candidates(ranking: Mapping[str, float], *, excluded: Collection[str], limit: int) -> tuple[Candidate, ...]:
    """The best `limit` of a ranking (best first) without `excluded`: the query's source and its copies."""
    kept = (Candidate(doc_id, score) for doc_id, score in ranking.items() if doc_id not in excluded)
    return tuple(itertools.islice(kept, limit))


def _row(query: GeneratedQuery, run: Run, copy_ids: tuple[str, ...], config: MineConfig) -> MinedQuery | Dropped:
    ranking = run.get(query.query_id, {})
    candidates = keep_candidates(ranking, excluded={query.source_id, *copy_ids}, limit=config.top_k)
    if not candidates:
        return Dropped(query.query_id, "no_candidates", "the retriever found nothing but the source and its copies")
    return MinedQuery(query_id=query.query_id, source_id=query.source_id, copy_ids=copy_ids, candidates=candidates)


def _apart(source_id: str, near: NearCopies, corpus: Corpus) -> tuple[str, ...]:
    """What counts as a copy of a source: its near-copies, and the pieces of its file that overlap it (law 1)."""
    return tuple(sorted({*near.of(source_id), *corpus.overlapping.get(source_id, ())}.intersection(corpus.documents)))


def _counted(corpus: Corpus, advance: Callable[[int], None]) -> Iterator[Document]:
    for number, document in enumerate(corpus, 1):
        yield document
        if number % _REPORT_EVERY == 0:
            advance(_REPORT_EVERY)
    advance(len(corpus) % _REPORT_EVERY)
