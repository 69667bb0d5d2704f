"""Step 4, reasoning-enhanced relevance annotation: a grade for each query and candidate (PAPER.md section 1).

What a corpus says is data: query and document stand in a fence that they cannot close, and their score tags
are taken apart, so that an order inside a document cannot pass for the annotator's verdict.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from reasonembed.corpora import Corpus
from reasonembed.domains import Domain
from reasonembed.llm.chat import Door, Reply, Request, custom_id
from reasonembed.llm.prices import BATCH
from reasonembed.records import Document, Dropped, Label
from reasonembed.remixer.config import AnnotateConfig
from reasonembed.remixer.grades import Grade, Unparsable, aggregate, enough, parse_grade, spread
from reasonembed.remixer.prompt import fenced, fill, load_prompt
from reasonembed.remixer.rows import MinedQuery
from reasonembed.remixer.stopping import IRRELEVANT, STOPPED, Mined, judged_depths
from reasonembed.texts import row_seed

logger = logging.getLogger(__name__)

STAGE = "annotate"


def annotate_candidates(
    mined: Mined,
    queries: Mapping[str, str],
    corpus: Corpus,
    domain: Domain,
    config: AnnotateConfig,
    *,
    seed: int,
    door: Door,
    total: int | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[Label | Dropped]:
    """A label per query and candidate, in the order of `mined`, or the reason why there is none.

    With `config.stop_after_irrelevant`, candidates that were left unjudged are among the dropped ones.
    mined: called several times, as `Door.replies` wants it; streamed, so that memory stays flat.
    queries: query_id -> text.  total: pairs.
    counts: raised by the samples without a grade, by reason, where each pair is judged several times.
    """
    task = _Task(queries, corpus, domain, config, seed)
    label, tally = f"{domain.name} {STAGE}", counts if counts is not None else Counter()
    if not config.stop_after_irrelevant:
        asked = door.replies(
            lambda: task.requests(mined()), label=label, total=None if total is None else total * config.samples
        )
        yield from task.labels(mined(), asked, tally)
        return

    if door.payee.startswith(BATCH):
        logger.warning(
            "stop_after_irrelevant asks in waves, and of %s each wave is a batch of its own that is waited for: up to "
            "as many batches as a query has candidates. Ask the endpoint without batch:, or leave that key out.",
            door.payee,
        )

    def judge(rows: Mined, wave: int) -> Iterator[Label | Dropped]:
        asked = door.replies(lambda: task.requests(rows()), label=f"{label}, wave {wave}")
        return task.labels(rows(), asked, Counter())

    depths = judged_depths(mined, judge, config.stop_after_irrelevant)

    def judged() -> Iterator[MinedQuery]:
        for row in mined():
            yield msgspec.structs.replace(row, candidates=row.candidates[: depths[row.query_id]])

    labels = task.labels(judged(), door.recall(task.requests(judged())), tally)
    for row in mined():
        depth = depths[row.query_id]
        yield from islice(labels, depth)
        for candidate in row.candidates[depth:]:
            why = f"after {config.stop_after_irrelevant} in a row with grade {IRRELEVANT} or less, at rank {depth}"
            yield Dropped(dropped_id(row.query_id, candidate.doc_id), STOPPED, why)


class _Task(msgspec.Struct, frozen=True):
    """What is asked about a pair, and what its replies make of it."""

    queries: Mapping[str, str]
    corpus: Corpus
    domain: Domain
    config: AnnotateConfig
    seed: int

    def requests(self, rows: Iterable[MinedQuery]) -> Iterator[Request]:
        """All samples of every pair, in order."""
        for query_id, doc_id in _pairs(rows):
            query, document = self.queries[query_id], self.corpus[doc_id]
            for sample in range(self.config.samples):
                yield _request(query_id, query, document, self.domain, self.config, self.seed, sample)

    def labels(
        self, rows: Iterable[MinedQuery], asked: Iterator[tuple[Request, Reply]], counts: Counter[str]
    ) -> Iterator[Label | Dropped]:
        """The label of every pair, or why it has none, from the replies to `requests`."""
        replies = (reply for _, reply in asked)
        of_pairs = zip(*[replies] * self.config.samples, strict=True)  # that many replies at a time
        for (query_id, doc_id), of_pair in zip(_pairs(rows), of_pairs, strict=True):
            if len(of_pair) == 1:
                yield _label(query_id, doc_id, of_pair[0])
            else:
                yield _joined(query_id, doc_id, of_pair, self.config, counts)


def _pairs(rows: Iterable[MinedQuery]) -> Iterator[tuple[str, str]]:
    for row in rows:
        for candidate in row.candidates:
            yield row.query_id, candidate.doc_id


def dropped_id(query_id: str, doc_id: str) -> str:
    """The row id of a pair in the dropped file."""
    return f"{query_id} {doc_id}"


def _request(
    query_id: str, query: str, document: Document, domain: Domain, config: AnnotateConfig, seed: int, sample: int
) -> Request:
    fields = {
        "query_kind": domain.query_kind,
        "document_kind": domain.document_kind,
        "relevance": domain.relevance,
        "query": fenced(query),
        "document": fenced(document.content),
    }
    return Request(
        custom_id=custom_id(STAGE, domain.name, query_id, document.doc_id, sample_index=sample),
        messages=fill(load_prompt(STAGE), fields),
        sampling=config.sampling,
        seed=row_seed(seed, STAGE, query_id, document.doc_id, *([str(sample)] if sample else [])),
        sample_index=sample,
    )


def _grade(reply: Reply) -> Grade | Unparsable:
    if reply.failure:
        return Unparsable(f"reply_{reply.failure.kind}", reply.failure.detail)
    return parse_grade(reply.text)


def _label(query_id: str, doc_id: str, reply: Reply) -> Label | Dropped:
    parsed = _grade(reply)
    if isinstance(parsed, Unparsable):
        return Dropped(dropped_id(query_id, doc_id), parsed.reason, parsed.detail)
    return Label(query_id=query_id, doc_id=doc_id, grade=parsed.grade, reason=parsed.reason)


def _joined(
    query_id: str, doc_id: str, replies: Sequence[Reply], config: AnnotateConfig, counts: Counter[str]
) -> Label | Dropped:
    """The label on which several samples agree as `config.aggregate` says; samples without a grade are left out.

    Its reason is that of the first sample whose grade lies nearest to the joined one. Too few grades drop the pair.
    """
    parsed = [_grade(reply) for reply in replies]
    good = [one for one in parsed if isinstance(one, Grade)]
    bad = [one for one in parsed if isinstance(one, Unparsable)]
    counts.update(f"sample_{one.reason}" for one in bad)
    if not enough(len(good), len(parsed)):
        why = "; ".join(f"{one.reason}: {one.detail}" if one.detail else one.reason for one in bad)
        return Dropped(dropped_id(query_id, doc_id), "too_few_grades", f"{len(good)} of {len(parsed)} samples; {why}")
    grades = tuple(one.grade for one in good)
    joined = aggregate(grades, config.aggregate)
    return Label(
        query_id=query_id,
        doc_id=doc_id,
        grade=joined,
        reason=min(good, key=lambda one: abs(one.grade - joined)).reason,
        grades=grades,
        spread=spread(grades),
        failed=tuple(one.reason for one in bad),
    )
