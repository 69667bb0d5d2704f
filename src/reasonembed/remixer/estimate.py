"""What the calls of a plan will cost: prompts sampled from the stages, answers as in the journal or assumed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from reasonembed.llm.chat import Door, Reply, Request, Spent
from reasonembed.llm.prices import Prices
from reasonembed.llm.spending import Spending
from reasonembed.records import Candidate
from reasonembed.remixer import annotate, generate, mine, reason, select
from reasonembed.remixer.config import SelectConfig
from reasonembed.remixer.job import Job
from reasonembed.remixer.rows import Conditions, GeneratedQuery, MinedQuery, Source, query_id_of
from reasonembed.texts import row_seed

SAMPLE = 200  # prompts measured per stage; our choice: their mean is within a few parts in a hundred
CHARS_PER_TOKEN = 4  # the usual rule for English
ANSWER_TOKENS = {  # of a model that does not think; one that does writes several times as much
    select.STAGE: 5,  # a word
    generate.STAGE: 221,  # paper: mean length of the released queries
    reason.STAGE: 700,  # our choice
    annotate.STAGE: 400,  # our choice; the prompt allows 512 words
}

_QUERY = "word " * round(ANSWER_TOKENS[generate.STAGE] * CHARS_PER_TOKEN / 5)  # stands for queries not written yet


class Costing(msgspec.Struct, frozen=True, kw_only=True):
    """What an estimate rests on."""

    prices: Prices
    spending: tuple[Spending, ...] = ()  # of the workspace's journal
    tokenizers: Mapping[str, Callable[[Request], int]] = {}  # by model: the tokens of a prompt


class StageCost(msgspec.Struct, frozen=True):
    """What a stage's calls will take at most. `cost` is None where no price is known for `model`."""

    model: str
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    counted: bool  # prompt tokens by the model's tokenizer; otherwise characters / 4
    answers_seen: int  # calls of the journal that the completion tokens are the mean of; 0: ANSWER_TOKENS


def stage_cost(job: Job, stage: str, calls: int, costing: Costing) -> StageCost:
    """The cost of `calls` calls of a stage. Asks nothing."""
    model = _door(job, stage).payee
    prompts = sample_prompts(job, stage)
    count = costing.tokenizers.get(model)
    mean = sum((count or estimated_tokens)(prompt) for prompt in prompts) / max(len(prompts), 1)
    seen = [one for one in costing.spending if (one.model, one.stage) == (model, stage) and one.completion_tokens]
    answers = sum(one.calls for one in seen)
    written = sum(one.completion_tokens for one in seen) / answers if answers else ANSWER_TOKENS[stage]
    return StageCost(
        model=model,
        prompt_tokens=round(mean * calls),
        completion_tokens=round(written * calls),
        cost=costing.prices.cost(model, mean * calls, written * calls),
        counted=count is not None,
        answers_seen=answers,
    )


def estimated_tokens(prompt: Request) -> int:
    """Tokens by the rule of four characters each."""
    return round(sum(len(message.content) for message in prompt.messages) / CHARS_PER_TOKEN)


def sample_prompts(job: Job, stage: str) -> list[Request]:
    """Up to `SAMPLE` requests as the stage itself would make them; rows that are not there yet are stood in for."""
    door = _Sampler()
    with contextlib.suppress(_Enough):
        for _ in _run(job, stage, door):
            pass
    return door.requests


class _Enough(Exception):
    """The sample is taken."""


class _Sampler:
    """A door that notes the first requests and answers none."""

    model = payee = ""
    honours_conditions = True
    spent = Spent()

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def replies(
        self, make_requests: Callable[[], Iterable[Request]], *, label: str, total: int | None = None
    ) -> Iterator[tuple[Request, Reply]]:
        self.requests += islice(make_requests(), SAMPLE)
        raise _Enough

    def recall(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Reply]]:
        raise _Enough


def _door(job: Job, stage: str) -> Door:
    return {reason.STAGE: job.reasoner, annotate.STAGE: job.annotator}.get(stage, job.generator)


def _run(job: Job, stage: str, door: Door) -> Iterable[object]:
    config, seed = job.config, job.config.seed
    if stage == select.STAGE:
        return select.select_sources(
            job.corpus, job.domain, config.select, seed=seed, door=door, listed=job.listed, benchmark=job.benchmark
        )
    if stage == generate.STAGE:
        return generate.generate_queries(
            lambda: _sources(job), job.corpus, job.domain, config.generate, seed=seed, door=door
        )
    if stage == reason.STAGE:
        return reason.reason_queries(lambda: _queries(job), job.domain, config.reason, seed=seed, door=door)
    texts = {row.query_id: row.query for row in _queries(job)}
    return annotate.annotate_candidates(
        lambda: _pairs(job, texts), texts, job.corpus, job.domain, config.annotate, seed=seed, door=door
    )


def _sources(job: Job) -> Sequence[Source]:
    if job.total(select.STAGE) is not None:
        return list(islice((one for one in job.sources() if one.doc_id in job.corpus), SAMPLE))
    eligible = select.eligible_ids(job.corpus, job.config.select, job.benchmark)
    allowed = eligible if job.listed is None else eligible.intersection(job.listed)
    drawn = _spread(allowed)
    return [Source(one, _stand_ins(drawn, place, job.config.select)) for place, one in enumerate(drawn)]


def _stand_ins(drawn: Sequence[str], place: int, config: SelectConfig) -> tuple[str, ...]:
    """The documents after the one at `place`, for companions that are not chosen yet: about as long, all the same."""
    following = (*drawn[place + 1 :], *drawn[:place])
    return following[: config.sources_per_query - 1]


def _queries(job: Job) -> Sequence[GeneratedQuery]:
    if job.total(generate.STAGE) is not None:
        return list(islice(job.queries(), SAMPLE))
    conditions = Conditions(conditioned=False)
    return [GeneratedQuery(query_id_of(one.doc_id), one.doc_id, _QUERY, conditions) for one in _sources(job)]


def _pairs(job: Job, texts: Mapping[str, str]) -> Iterator[MinedQuery]:
    """One candidate a query, so that a small sample sees many of both."""
    if job.total(mine.STAGE) is None:
        for query_id, doc_id in zip(texts, _spread(job.corpus.ids), strict=False):
            yield MinedQuery(query_id, "", (), (Candidate(doc_id, 0.0),))
        return
    for number, row in enumerate(row for row in job.mined() if row.query_id in texts):
        known = [candidate for candidate in row.candidates if candidate.doc_id in job.corpus]
        if known:
            yield msgspec.structs.replace(row, candidates=(known[number % len(known)],))


def _spread(doc_ids: Iterable[str]) -> list[str]:
    return sorted(doc_ids, key=lambda doc_id: row_seed(0, "estimate", doc_id))[:SAMPLE]


__all__ = [
    "ANSWER_TOKENS",
    "CHARS_PER_TOKEN",
    "Costing",
    "StageCost",
    "estimated_tokens",
    "sample_prompts",
    "stage_cost",
]
