"""ReMixer from corpus to training data: the stages one after the other, each with its receipt.

A second run does nothing; an interrupted one goes on where it stopped, and pays for no reply twice (law 2).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.corpora import Corpus
from reasonembed.domains import Domain
from reasonembed.errors import ConfigError, nearest
from reasonembed.llm.chat import Door, Spent
from reasonembed.manifest import StageResult, delete_stage, run_stage
from reasonembed.records import Qrels
from reasonembed.remixer import assemble, holdout, release
from reasonembed.remixer.config import SynthesisConfig
from reasonembed.remixer.job import make_job
from reasonembed.remixer.plan import StagePlan, plan
from reasonembed.remixer.rankers import Rankers
from reasonembed.remixer.stages import STAGES, stage_names
from reasonembed.workspace import Workspace


class SynthesisReport(msgspec.Struct, frozen=True):
    """What synthesis on one domain came to."""

    domain: str
    folder: Path  # of the domain, in the workspace
    stages: tuple[StageResult, ...]  # in running order

    @property
    def spent(self) -> Spent:
        """What was asked of language models in this run; nothing for stages that were finished before."""
        calls = [result.manifest.calls for result in self.stages if result.fresh]
        return Spent(**{name: sum(getattr(one, name) for one in calls) for name in Spent.__struct_fields__})

    @property
    def examples(self) -> int:
        """The number of training examples; 0 if assembly was not reached."""
        return sum(result.manifest.rows_out for result in self.stages if result.stage == assemble.STAGE)

    @property
    def release_path(self) -> Path | None:
        """The file in the published format, if it was reached."""
        path = self.folder / release.STAGE / release.release_name(self.domain)
        return path if any(result.stage == release.STAGE for result in self.stages) else None

    @property
    def holdout_folder(self) -> Path | None:
        """The BEIR folder of the held-out queries, if there is one."""
        beir = [r for r in self.stages if r.stage == holdout.STAGE and "queries.jsonl" in r.manifest.outputs]
        return beir[0].folder if beir else None


def synthesize(
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
    rankers: Rankers | None = None,
    stop_after: str | None = None,
    restart_from: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> SynthesisReport:
    """Training data from a corpus, in `workspace/DOMAIN/`; what is finished there already is kept.

    generator: writes queries and answers the domain check.  reasoner, annotator: the generator if not given.
    sources: restricts which documents queries are written from.
    exclude_qrels: a benchmark's; documents that it names are no sources (but see `[select]` in the config).
    rankers: shared between domains that share a corpus, so that it is indexed once.
    restart_from: forget that stage and those after it; the journal is kept.
    settings: how it is run, for the manifests; decides nothing.
    Raises WorkspaceBusy, StageChanged, EndpointError, DamageError, InputError; what was finished is kept
    then.
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
        rankers=rankers,
        settings=settings,
    )
    names = stage_names(job.config)
    if restart_from:
        _check_stage(restart_from, STAGES)
    if stop_after:
        _check_stage(stop_after, names)
    results = []
    with workspace.lock():
        if restart_from:
            restart(workspace, domain.name, restart_from)
        for name in names:
            results.append(run_stage(STAGES[name](job)))
            if name == stop_after:
                break
    return SynthesisReport(domain=domain.name, folder=workspace.domain_folder(domain.name), stages=tuple(results))


def restart(workspace: Workspace, domain: str, stage: str) -> None:
    """Forget a stage and those after it, the last first; the journal is kept. Hold the lock."""
    _check_stage(stage, STAGES)
    names = list(STAGES)
    for name in reversed(names[names.index(stage) :]):
        delete_stage(workspace.stage_folder(domain, name))


def _check_stage(name: str, known: Collection[str]) -> None:
    if name not in known:
        hint = nearest(name, known)
        raise ConfigError(f'this run has no stage "{name}"{hint} Its stages: {", ".join(known)}.')


__all__ = ["StagePlan", "SynthesisReport", "plan", "restart", "synthesize"]
