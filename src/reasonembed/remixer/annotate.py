"""Step 4, reasoning-enhanced relevance annotation: a grade for each query and candidate (PAPER.md section 1).

What a corpus says is data: query and document stand in a fence that they cannot close, and their score tags
are taken apart, so that an order inside a document cannot pass for the annotator's verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from reasonembed.corpora import Corpus
from reasonembed.domains import Domain
from reasonembed.llm.chat import Door, Reply, Request, custom_id
from reasonembed.records import Document, Dropped, Label
from reasonembed.remixer.config import AnnotateConfig
from reasonembed.remixer.grades import Unparsable, parse_grade
from reasonembed.remixer.prompt import fenced, fill, load_prompt
from reasonembed.remixer.rows import MinedQuery
from reasonembed.texts import row_seed

STAGE = "annotate"


def annotate_candidates(
    mined: Callable[[], Iterable[MinedQuery]],
    queries: Mapping[str, str],
    corpus: Corpus,
    domain: Domain,
    config: AnnotateConfig,
    *,
    seed: int,
    door: Door,
    total: int | None = None,
) -> Iterator[Label | Dropped]:
    """A label per query and candidate, in the order of `mined`, or the reason why there is none.

    mined: called twice, as `Door.replies` wants it; streamed, so that memory stays flat.
    queries: query_id -> text.
    """

    def pairs() -> Iterator[tuple[str, str]]:
        for row in mined():
            for candidate in row.candidates:
                yield row.query_id, candidate.doc_id

    def requests() -> Iterator[Request]:
        for query_id, doc_id in pairs():
            yield _request(query_id, queries[query_id], corpus[doc_id], domain, config, seed)

    replies = door.replies(requests, label=f"{domain.name} {STAGE}", total=total)
    for (query_id, doc_id), (_, reply) in zip(pairs(), replies, strict=True):
        yield _label(query_id, doc_id, reply)


def dropped_id(query_id: str, doc_id: str) -> str:
    """The row id of a pair in the dropped file."""
    return f"{query_id} {doc_id}"


def _request(
    query_id: str, query: str, document: Document, domain: Domain, config: AnnotateConfig, seed: int
) -> Request:
    fields = {
        "query_kind": domain.query_kind,
        "document_kind": domain.document_kind,
        "relevance": domain.relevance,
        "query": fenced(query),
        "document": fenced(document.content),
    }
    return Request(
        custom_id=custom_id(STAGE, domain.name, query_id, document.doc_id),
        messages=fill(load_prompt(STAGE), fields),
        sampling=config.sampling,
        seed=row_seed(seed, STAGE, query_id, document.doc_id),
    )


def _label(query_id: str, doc_id: str, reply: Reply) -> Label | Dropped:
    if reply.failure:
        return Dropped(dropped_id(query_id, doc_id), f"reply_{reply.failure.kind}", reply.failure.detail)
    parsed = parse_grade(reply.text)
    if isinstance(parsed, Unparsable):
        return Dropped(dropped_id(query_id, doc_id), parsed.reason, parsed.detail)
    return Label(query_id=query_id, doc_id=doc_id, grade=parsed.grade, reason=parsed.reason)
