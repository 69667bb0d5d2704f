"""Step 2, the reasoning query: a query thought through (PAPER.md section 1).

The model sees the query alone, never its source: what it writes measures how far reasoning leads, not what
the source says. The release has no code for this step; the prompt is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from reasonembed.domains import LANGUAGES, Domain
from reasonembed.llm.chat import Door, Reply, Request, custom_id
from reasonembed.records import Dropped
from reasonembed.remixer.config import ReasonConfig
from reasonembed.remixer.generate import clean_query
from reasonembed.remixer.prompt import fenced, fill, load_prompt
from reasonembed.remixer.rows import GeneratedQuery, ReasonedQuery
from reasonembed.texts import row_seed

STAGE = "reason"


def reason_queries(
    queries: Callable[[], Iterable[GeneratedQuery]],
    domain: Domain,
    config: ReasonConfig,
    *,
    seed: int,
    door: Door,
    total: int | None = None,
) -> Iterator[ReasonedQuery | Dropped]:
    """A reasoning query per query, in their order, or the reason why there is none.

    queries: called twice, as `Door.replies` wants it.
    """

    def requests() -> Iterator[Request]:
        for query in queries():
            yield _request(query, domain, config, seed)

    replies = door.replies(requests, label=f"{domain.name} {STAGE}", total=total)
    for query, (_, reply) in zip(queries(), replies, strict=True):
        yield _row(query, reply)


def _request(query: GeneratedQuery, domain: Domain, config: ReasonConfig, seed: int) -> Request:
    fields = {
        "query_kind": domain.query_kind,
        "language": LANGUAGES[domain.language].capitalize(),
        "query": fenced(query.query),
    }
    return Request(
        custom_id=custom_id(STAGE, domain.name, query.source_id),
        messages=fill(load_prompt(STAGE), fields),
        sampling=config.sampling,
        seed=row_seed(seed, STAGE, query.query_id),
    )


def _row(query: GeneratedQuery, reply: Reply) -> ReasonedQuery | Dropped:
    if reply.failure:
        return Dropped(query.query_id, f"reply_{reply.failure.kind}", reply.failure.detail)
    text = clean_query(reply.text)
    if not text:
        return Dropped(query.query_id, "reply_empty", "nothing but thinking or marks")
    return ReasonedQuery(query_id=query.query_id, source_id=query.source_id, reasoning_query=text)
