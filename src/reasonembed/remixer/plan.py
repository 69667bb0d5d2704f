"""What synthesis would do, before anyone pays for it."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from reasonembed.corpora import Corpus
from reasonembed.domains import Domain
from reasonembed.errors import StageChanged
from reasonembed.llm.chat import Door
from reasonembed.manifest import finished, read_manifest
from reasonembed.records import Qrels
from reasonembed.remixer import annotate, generate, mine, reason, select
from reasonembed.remixer.config import SynthesisConfig
from reasonembed.remixer.estimate import Costing, StageCost, stage_cost
from reasonembed.remixer.job import Job, make_job
from reasonembed.remixer.stages import STAGES, stage_names
from reasonembed.workspace import Workspace


class StagePlan(msgspec.Struct, frozen=True):
    """What a stage would do. `calls`: at most so many requests, counting those that the journal may hold."""

    stage: str
    state: str  # "done", "to do" or "changed"
    rows: int  # that it has, or at most will have
    calls: int
    note: str = ""
    cost: StageCost | None = None  # of the calls, where costs were asked for


def plan(
    corpus: Corpus,
    domain: Domain,
    workspace: Workspace,
    *,
    generator: Door,
    reasoner: Door | None = None,
    annotator: Door | None = None,
    config: SynthesisConfig | None = None,
    sources: Collection[str] | None = None,
    exclude_qrels: Qrels | None = None,
    costing: Costing | None = None,
) -> tuple[StagePlan, ...]:
    """What `synthesize` would do with the same arguments: per stage what is done, and how many calls at most.

    Asks nothing and writes nothing. Stages drop rows on the way, so the true numbers are lower.
    costing: prices and what else the tokens and cost of the calls are reckoned from.
    """
    job = make_job(
        corpus,
        domain,
        workspace,
        generator=generator,
        reasoner=reasoner,
        annotator=annotator,
        config=config,
        sources=sources,
        exclude_qrels=exclude_qrels,
    )
    plans: list[StagePlan] = []
    for name in stage_names(job.config):
        if all(before.state == "done" for before in plans):
            plans.append(_plan_stage(job, name, plans))
        else:
            plans.append(_expected(job, name, plans))
    return tuple(_with_cost(job, one, costing) for one in plans)


def _with_cost(job: Job, plan: StagePlan, costing: Costing | None) -> StagePlan:
    if costing is None or not plan.calls:
        return plan
    return msgspec.structs.replace(plan, cost=stage_cost(job, plan.stage, plan.calls, costing))


def _plan_stage(job: Job, name: str, before: list[StagePlan]) -> StagePlan:
    """The plan of a stage whose inputs are all there."""
    expected = _expected(job, name, before)
    try:
        manifest = finished(STAGES[name](job))
    except StageChanged as changed:
        return msgspec.structs.replace(expected, state="changed", note=str(changed))
    if manifest is None:
        return expected
    return StagePlan(stage=name, state="done", rows=manifest.rows_out, calls=0)


def _expected(job: Job, name: str, before: list[StagePlan]) -> StagePlan:
    """The most that a stage can do, given the plans of the stages before it."""
    rows = {one.stage: one.rows for one in before}
    if name == select.STAGE:
        return _expected_selection(job)
    if name in (generate.STAGE, reason.STAGE):
        sources = rows[select.STAGE if name == generate.STAGE else generate.STAGE]
        return StagePlan(stage=name, state="to do", rows=sources, calls=sources)
    if name == mine.STAGE:
        return StagePlan(stage=name, state="to do", rows=rows[reason.STAGE], calls=0)
    if name == annotate.STAGE:
        pairs, config = _candidates(job, rows[mine.STAGE], done=before[-1].state == "done"), job.config.annotate
        stop = config.stop_after_irrelevant
        note = f"fewer: of each query only until {stop} grades of 1 or 2 in a row" if stop else ""
        return StagePlan(stage=name, state="to do", rows=pairs, calls=pairs * config.samples, note=note)
    return StagePlan(stage=name, state="to do", rows=rows[mine.STAGE], calls=0)


def _expected_selection(job: Job) -> StagePlan:
    config = job.config.select
    eligible = select.eligible_ids(job.corpus, config, job.benchmark)
    allowed = eligible if job.listed is None else eligible.intersection(job.listed)
    wanted = min(config.max_documents, job.config.limit or config.max_documents)
    rows = min(wanted, len(allowed)) if len(allowed) >= config.sources_per_query else 0
    if not config.domain_check:
        return StagePlan(stage=select.STAGE, state="to do", rows=rows, calls=0)
    if job.listed is not None:
        return StagePlan(stage=select.STAGE, state="to do", rows=rows, calls=len(eligible))
    note = "" if rows == len(allowed) else "one more for each document that turns out to be off the domain"
    return StagePlan(stage=select.STAGE, state="to do", rows=rows, calls=rows, note=note)


def _candidates(job: Job, queries: int, *, done: bool) -> int:
    manifest = read_manifest(job.folder(mine.STAGE)) if done else None
    if manifest is not None:
        return manifest.counts.get("candidates", 0)
    others = max(0, len(job.corpus) - job.config.select.sources_per_query)
    return queries * min(job.config.mine.top_k, others)
