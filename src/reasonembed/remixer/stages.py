"""The stages in running order: what each reads, what decides it, what it writes.

A stage's inputs are the corpus, its prompt, and the rows of the stages before it that it reads, all by hash.
Its config holds its own table, the model's name, the seed, and those keys of the domain that it uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from reasonembed import progress
from reasonembed.files import sha256_json
from reasonembed.llm.chat import Door, Spent
from reasonembed.manifest import Calls, StageRun, read_rows
from reasonembed.records import Dropped, Example, Label, kept_apart, source_ids
from reasonembed.remixer import annotate, assemble, companions, generate, holdout, mine, reason, release, select
from reasonembed.remixer.card import CARD_FILE, write_card
from reasonembed.remixer.config import SynthesisConfig
from reasonembed.remixer.job import Job
from reasonembed.remixer.prompt import prompt_hash
from reasonembed.remixer.rankers import model_hashes
from reasonembed.remixer.rows import GeneratedQuery, MinedQuery, ReasonedQuery, Source


def stage_names(config: SynthesisConfig) -> list[str]:
    """The stages that a config asks for, in running order."""
    return [name for name in STAGES if name != holdout.STAGE or config.holdout > 0]


def _stage(
    job: Job,
    stage: str,
    produce: Callable[[Counter[str]], Iterable[object]],
    *,
    inputs: Mapping[str, str],
    config: Mapping[str, Any],
    door: Door | None = None,
    settings: Mapping[str, Any] | None = None,
    **more: Any,
) -> StageRun:
    deciding = dict(config)
    if door is not None:
        deciding |= {"model": door.model, "seed": job.config.seed}
    return StageRun(
        folder=job.folder(stage),
        stage=stage,
        domain=job.domain.name,
        inputs=inputs,
        config=deciding,
        produce=produce,
        settings={**job.settings, **(settings or {})},
        calls=_meter(door),
        **more,
    )


def _meter(door: Door | None) -> Callable[[], Calls]:
    """What the door is asked from now on."""
    if door is None:
        return Calls
    before = door.spent

    def calls() -> Calls:
        fields = Spent.__struct_fields__
        return Calls(**{name: getattr(door.spent, name) - getattr(before, name) for name in fields})

    return calls


def _select(job: Job) -> StageRun:
    config = job.config
    several = config.select.sources_per_query > 1

    def produce(counts: Counter[str]) -> Iterator[Source | Dropped]:
        if job.corpus.merged:
            counts["duplicates_merged"] = sum(map(len, job.corpus.merged.values()))
        selected = select.select_sources(
            job.corpus,
            job.domain,
            config.select,
            seed=config.seed,
            limit=config.limit,
            door=job.generator,
            listed=job.listed,
            benchmark=job.benchmark,
            counts=counts,
        )
        return _with_companions(job, selected) if several else selected

    inputs = {"corpus": job.corpus.sha256}
    if job.listed is not None:
        inputs["sources"] = sha256_json(sorted(job.listed))
    if job.benchmark:
        inputs["benchmark"] = sha256_json(sorted(job.benchmark))
    if config.select.domain_check:
        inputs["prompt"] = prompt_hash(select.STAGE)
    table = {"select": config.select.deciding, "limit": config.limit, "domain": job.domain_keys("document_kind")}
    if several:
        table |= {"domain": job.domain_keys("document_kind", "language"), "near_copy": config.mine.near_copy}
    if not config.select.domain_check:
        return _stage(job, select.STAGE, produce, inputs=inputs, config={**table, "seed": config.seed})
    return _stage(job, select.STAGE, produce, inputs=inputs, config=table, door=job.generator)


def _with_companions(job: Job, selected: Iterable[Source | Dropped]) -> Iterator[Source | Dropped]:
    """The sources with their companions, which only documents can be that might be sources themselves."""
    rows, count = list(selected), job.config.select.sources_per_query - 1
    eligible = select.eligible_ids(job.corpus, job.config.select, job.benchmark)
    found = companions.find_companions(
        [row.doc_id for row in rows if isinstance(row, Source)],
        job.corpus,
        job.rankers.bm25(job.corpus, job.domain.language),
        eligible=eligible if job.listed is None else eligible.intersection(job.listed),
        count=count,
        near_copy=job.config.mine.near_copy,
        task=progress.task,
    )
    return companions.with_companions(rows, found, count)


def _generate(job: Job) -> StageRun:
    def produce(_: Counter[str]) -> Iterator[GeneratedQuery | Dropped]:
        return generate.generate_queries(
            job.sources,
            job.corpus,
            job.domain,
            job.config.generate,
            seed=job.config.seed,
            door=job.generator,
            total=job.total(select.STAGE),
        )

    domain = job.domain_keys("language", "query_kind", "document_kind", "generation")
    return _stage(
        job,
        generate.STAGE,
        produce,
        inputs={
            "corpus": job.corpus.sha256,
            "prompt": prompt_hash(generate.prompt_name(job.config.select.sources_per_query)),
            **job.rows_of(select.STAGE),
        },
        config={"generate": job.config.generate, "domain": domain},
        door=job.generator,
    )


def _reason(job: Job) -> StageRun:
    def produce(_: Counter[str]) -> Iterator[ReasonedQuery | Dropped]:
        return reason.reason_queries(
            job.queries,
            job.domain,
            job.config.reason,
            seed=job.config.seed,
            door=job.reasoner,
            total=job.total(generate.STAGE),
        )

    return _stage(
        job,
        reason.STAGE,
        produce,
        inputs={"prompt": prompt_hash(reason.STAGE), **job.rows_of(generate.STAGE)},
        config={"reason": job.config.reason, "domain": job.domain_keys("language", "query_kind")},
        door=job.reasoner,
    )


def _mine(job: Job) -> StageRun:
    config = job.config.mine

    def produce(counts: Counter[str]) -> Iterator[MinedQuery | Dropped]:
        kept = {row.query_id for row in job.reasoned()}
        queries = (row for row in job.queries() if row.query_id in kept)
        for row in mine.mine_candidates(
            queries, job.corpus, job.domain, config, rankers=job.rankers, task=progress.task
        ):
            if isinstance(row, MinedQuery):
                counts["candidates"] += len(row.candidates)
                counts["near_copies"] += len(kept_apart(row)) - len(source_ids(row))
            yield row

    inputs = {
        "corpus": job.corpus.sha256,
        **job.rows_of(generate.STAGE, reason.STAGE),
        **model_hashes(config),
    }
    table = {key: value for key, value in msgspec.to_builtins(config).items() if key not in ("model", "pool")}
    if not config.models:
        table = {key: table[key] for key in ("retriever", "top_k", "near_copy")}
    if config.pool:
        table["pool"] = ["model" if name in config.models else name for name in config.pool]
    domain = job.domain_keys("language", *(["instruction"] if config.models and config.instruction else []))
    return _stage(
        job,
        mine.STAGE,
        produce,
        inputs=inputs,
        config={"mine": table, "domain": domain},
        settings={"retrievers": list(config.retrievers)},  # the names for the card; the weights' hashes decide
    )


def _annotate(job: Job) -> StageRun:
    def produce(counts: Counter[str]) -> Iterator[Label | Dropped]:
        return annotate.annotate_candidates(
            job.mined,
            {row.query_id: row.query for row in job.queries()},
            job.corpus,
            job.domain,
            job.config.annotate,
            seed=job.config.seed,
            door=job.annotator,
            total=job.total(mine.STAGE, "candidates"),
            counts=counts,
        )

    prompt = prompt_hash(annotate.STAGE)
    rows = job.rows_of(generate.STAGE, mine.STAGE)
    return _stage(
        job,
        annotate.STAGE,
        produce,
        inputs={"corpus": job.corpus.sha256, "prompt": prompt, **rows},
        config={
            "annotate": job.config.annotate.deciding,
            "domain": job.domain_keys("query_kind", "document_kind", "relevance"),
        },
        door=job.annotator,
    )


def _assemble(job: Job) -> StageRun:
    def produce(_: Counter[str]) -> Iterator[Example | Dropped]:
        held_out = job.held_out()
        tested = job.tested(held_out)
        return assemble.assemble_examples(job.judged(), job.config.assemble, held_out=held_out, tested=tested)

    return _stage(
        job,
        assemble.STAGE,
        produce,
        inputs=job.rows_of(generate.STAGE, reason.STAGE, mine.STAGE, annotate.STAGE),
        config=_parting(job),
    )


def _holdout(job: Job) -> StageRun:
    def produce(_: Counter[str]) -> Iterator[Example | Dropped]:
        return holdout.held_out_examples(job.judged(), job.held_out(), job.config.assemble)

    def finish() -> list[str]:
        folder = job.folder(holdout.STAGE)
        rows = read_rows(folder, Example)
        return holdout.write_holdout(folder, rows, job.corpus, job.domain, job.config.assemble)

    rows = job.rows_of(generate.STAGE, reason.STAGE, mine.STAGE, annotate.STAGE)
    inputs = {"corpus": job.corpus.sha256, **rows}
    return _stage(job, holdout.STAGE, produce, inputs=inputs, config=_parting(job), finish=finish)


def _parting(job: Job) -> dict[str, Any]:
    """What decides which examples are trained on and which are held out."""
    config: dict[str, Any] = {"assemble": job.config.assemble, "holdout": job.config.holdout}
    return config | ({"seed": job.config.seed} if job.config.holdout else {})


def _release(job: Job) -> StageRun:
    def produce(_: Counter[str]) -> Iterator[release.ReleasedExample]:
        return release.release(job.examples(), job.corpus, job.domain)

    def finish() -> list[str]:
        write_card(job.folder(release.STAGE), job.workspace, [job.domain.name], license=job.config.license)
        return [CARD_FILE]

    config: dict[str, Any] = {"domain": job.domain_keys("instruction", "group_size", "global_queries")}
    return _stage(
        job,
        release.STAGE,
        produce,
        inputs={"corpus": job.corpus.sha256, **job.rows_of(assemble.STAGE)},
        config=config if job.config.license == "unknown" else config | {"license": job.config.license},
        rows_name=release.release_name(job.domain.name),
        finish=finish,
    )


STAGES: dict[str, Callable[[Job], StageRun]] = {
    select.STAGE: _select,
    generate.STAGE: _generate,
    reason.STAGE: _reason,
    mine.STAGE: _mine,
    annotate.STAGE: _annotate,
    assemble.STAGE: _assemble,
    holdout.STAGE: _holdout,
    release.STAGE: _release,
}
"""The stages in running order; each gives what `run_stage` needs, once the stages before it are finished."""
