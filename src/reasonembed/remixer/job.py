"""What synthesis on one domain works with, and the rows that its stages have written."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.corpora import Corpus, Reading, read_corpus
from reasonembed.domains import Domain
from reasonembed.errors import ConfigError, InputError
from reasonembed.llm.chat import Door
from reasonembed.manifest import ROWS, Manifest, read_manifest, read_rows
from reasonembed.records import Example, Label, Qrels
from reasonembed.remixer import annotate, assemble, generate, holdout, mine, reason, select
from reasonembed.remixer.config import SynthesisConfig
from reasonembed.remixer.rankers import Rankers
from reasonembed.remixer.rows import GeneratedQuery, MinedQuery, ReasonedQuery, Source
from reasonembed.workspace import Workspace


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """All that synthesis on one domain needs. The doors may be one and the same."""

    corpus: Corpus
    domain: Domain
    workspace: Workspace
    generator: Door  # writes queries, and answers the domain check
    reasoner: Door
    annotator: Door
    config: SynthesisConfig
    rankers: Rankers
    listed: tuple[str, ...] | None = None  # the only documents that may be sources
    benchmark: frozenset[str] = frozenset()  # documents that a benchmark's qrels name
    settings: Mapping[str, Any] = {}  # how it is run, for the manifests

    def folder(self, stage: str) -> Path:
        """The folder of one of the domain's stages."""
        return self.workspace.stage_folder(self.domain.name, stage)

    def rows_of(self, *stages: str) -> dict[str, str]:
        """The rows of earlier stages as inputs. Raises InputError if one is not finished."""
        hashes = {}
        for stage in stages:
            manifest = read_manifest(self.folder(stage))
            if manifest is None:
                raise InputError(f"the stage {stage} of {self.domain.name} is not finished; run it first.")
            hashes[stage] = manifest.outputs[ROWS]
        return hashes

    def total(self, stage: str, count: str = "") -> int | None:
        """The rows (or another count) of an earlier stage, for the progress display."""
        manifest = read_manifest(self.folder(stage))
        if manifest is None:
            return None
        return manifest.counts.get(count) if count else manifest.rows_out

    def domain_keys(self, *names: str) -> dict[str, str | int]:
        """Those keys of the domain that decide a stage's output."""
        return {name: getattr(self.domain, name) for name in ("name", *names)}

    def sources(self) -> Iterator[Source]:
        """The rows of `select`."""
        return read_rows(self.folder(select.STAGE), Source)

    def queries(self) -> Iterator[GeneratedQuery]:
        """The rows of `generate`."""
        return read_rows(self.folder(generate.STAGE), GeneratedQuery)

    def reasoned(self) -> Iterator[ReasonedQuery]:
        """The rows of `reason`."""
        return read_rows(self.folder(reason.STAGE), ReasonedQuery)

    def mined(self) -> Iterator[MinedQuery]:
        """The rows of `mine`."""
        return read_rows(self.folder(mine.STAGE), MinedQuery)

    def labels(self) -> Iterator[Label]:
        """The rows of `annotate`."""
        return read_rows(self.folder(annotate.STAGE), Label)

    def examples(self) -> Iterator[Example]:
        """The rows of `assemble`."""
        return read_rows(self.folder(assemble.STAGE), Example)

    def judged(self) -> Iterator[assemble.JudgedQuery]:
        """The mined queries with their labels."""
        queries = {row.query_id: row for row in self.queries()}
        reasoned = {row.query_id: row for row in self.reasoned()}
        return assemble.judged_queries(self.mined(), self.labels(), queries, reasoned)

    def held_out(self) -> frozenset[str]:
        """The sources set aside."""
        return holdout.choose_holdout(self.mined(), self.config.holdout, seed=self.config.seed)

    def tested(self, held_out: frozenset[str]) -> frozenset[str]:
        """All documents that the queries of the sources set aside were written from."""
        return holdout.tested_sources(self.mined(), held_out) if held_out else frozenset()


def make_job(
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
    settings: Mapping[str, Any] | None = None,
) -> Job:
    """The job that the arguments of `synthesize` describe: what is not given falls back as it says there.

    Raises ConfigError for several sources per query if the generator only repeats what was recorded.
    """
    config = config or SynthesisConfig()
    if config.select.sources_per_query > 1 and not generator.honours_conditions:
        raise ConfigError(
            f"sources_per_query is {config.select.sources_per_query}, but {generator.model} answers from recordings, "
            f"whose queries were written from one source each. Set it to 1, or give a model that can be asked."
        )
    named = {doc_id for grades in (exclude_qrels or {}).values() for doc_id in grades}
    return Job(
        corpus=corpus,
        domain=domain,
        workspace=workspace,
        generator=generator,
        reasoner=reasoner or generator,
        annotator=annotator or generator,
        config=config,
        rankers=rankers or Rankers(workspace.cache),
        listed=None if sources is None else tuple(sorted(set(sources))),
        benchmark=frozenset(named).union(kept for kept, others in corpus.merged.items() if named.intersection(others)),
        settings={
            "corpus": str(Path(corpus.origin).absolute()),
            "reading": msgspec.to_builtins(corpus.reading),
            **(settings or {}),
        },
    )


def corpus_of(selected: Manifest, corpus: Corpus | None = None) -> Corpus:
    """The corpus that `selected` (the manifest of `select`) was made from, read as it was then.

    corpus: None reads it from where it lay.  Raises InputError if it is gone or another one.
    """
    if corpus is None:
        origin = str(selected.settings.get("corpus", ""))
        try:
            corpus = read_corpus(origin, msgspec.convert(selected.settings.get("reading", {}), Reading))
        except InputError as error:
            raise InputError(
                f"the texts stand in the corpus, which cannot be read: {error} Or name the corpus."
            ) from error
    if corpus.sha256 != selected.inputs["corpus"]:
        raise InputError(
            f"the corpus {corpus.origin} is not the one that {selected.domain} was made from: its content differs. "
            f"Put it back as it was then, or synthesize anew in another workspace."
        )
    return corpus
