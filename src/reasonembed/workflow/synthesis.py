"""Synthesis from paths and words: opens corpus, domain, workspace and models, then runs ReMixer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec
import tomli_w

from reasonembed.config import load_toml
from reasonembed.corpora import Corpus, Reading, read_corpus
from reasonembed.domains import Domain, load_domain
from reasonembed.errors import ConfigError
from reasonembed.evaluate.benchmarks import load_collections
from reasonembed.files import write_text
from reasonembed.llm.budget import Budget, Purse
from reasonembed.llm.chat import Door
from reasonembed.llm.door import open_door
from reasonembed.llm.endpoint import ClientConfig
from reasonembed.llm.journal import Journal
from reasonembed.llm.prices import BATCH, Prices, load_prices
from reasonembed.llm.spending import spending_of
from reasonembed.llm.tokenizers import prompt_counter
from reasonembed.records import Qrels
from reasonembed.remixer.config import SynthesisConfig
from reasonembed.remixer.estimate import Costing
from reasonembed.remixer.pipeline import StagePlan, SynthesisReport, plan
from reasonembed.remixer.pipeline import synthesize as run_stages
from reasonembed.remixer.rankers import Rankers
from reasonembed.remixer.select import read_sources
from reasonembed.workspace import Workspace

DOMAIN_FILE = "domain.toml"


class Models(msgspec.Struct, frozen=True):
    """Which language model does what; what is empty falls back on the generator."""

    generator: str  # writes queries, answers the domain check
    reasoner: str = ""  # thinks queries through
    annotator: str = ""  # grades candidates


def synthesize(
    corpus: Corpus | Path | str,
    *,
    domain: Domain | Path | str = "general",
    workspace: Workspace | Path | str,
    model: str | Models,
    config: SynthesisConfig | Path | None = None,
    sources: Path | Collection[str] | None = None,
    benchmarks: Iterable[Path | str] = (),
    client: ClientConfig | None = None,
    budget: Budget | None = None,
    prices: Prices | None = None,
    rankers: Rankers | None = None,
    stop_after: str | None = None,
    restart_from: str | None = None,
) -> SynthesisReport:
    """Training data from a corpus: all stages of ReMixer in `workspace/DOMAIN/`. A second call does nothing.

    corpus: see `read_corpus`.  domain: a shipped name, a TOML file, or a `Domain`.
    model: one of `llm.door.KINDS` for all stages, or `Models`.
    sources: ids, or a file of them, that alone may serve as sources.
    benchmarks: collections (see `load_collections`) whose judged documents may not serve as sources.
    client: how an HTTP endpoint is called.  restart_from: forget that stage and those after it.
    budget: what the workspace may spend in all, earlier runs included.  prices: the shipped ones if not given.
    Raises what `remixer.pipeline.synthesize` raises; what was finished is kept then.
    """
    place = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    corpus, domain, config, listed = _inputs(corpus, domain, config, sources)
    judged = benchmark_qrels(benchmarks)
    with place.lock(), Journal(place.journal_path, durable=bool(client and client.durable)) as journal:
        purse = Purse(journal, budget=budget, prices=prices or load_prices())
        with open_doors(model, journal, client=client, purse=purse) as (generator, reasoner, annotator):
            path = place.domain_folder(domain.name) / DOMAIN_FILE
            write_text(path, tomli_w.dumps(msgspec.to_builtins(domain)))
            return run_stages(
                corpus,
                domain,
                place,
                generator=generator,
                reasoner=reasoner,
                annotator=annotator,
                config=config,
                sources=listed,
                exclude_qrels=judged,
                rankers=rankers,
                stop_after=stop_after,
                restart_from=restart_from,
            )


def plan_synthesis(
    corpus: Corpus | Path | str,
    *,
    domain: Domain | Path | str = "general",
    workspace: Path | str,
    model: str | Models,
    config: SynthesisConfig | Path | None = None,
    sources: Path | Collection[str] | None = None,
    benchmarks: Iterable[Path | str] = (),
    client: ClientConfig | None = None,
    prices: Prices | None = None,
) -> tuple[StagePlan, ...]:
    """What `synthesize` would do with the same arguments: per stage what is done, how many calls, their cost.

    Prompt tokens are counted with the model's tokenizer if the model's name is a folder that has one, else
    estimated (see `remixer.estimate`). Writes nothing; an endpoint is asked at most which model it serves.
    """
    corpus, domain, config, listed = _inputs(corpus, domain, config, sources)
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "none.sqlite") as journal:
        with open_doors(model, journal, client=client) as (generator, reasoner, annotator):
            return plan(
                corpus,
                domain,
                Workspace(workspace),
                generator=generator,
                reasoner=reasoner,
                annotator=annotator,
                config=config,
                sources=listed,
                exclude_qrels=benchmark_qrels(benchmarks),
                costing=_costing(Workspace(workspace), prices, {generator.payee, reasoner.payee, annotator.payee}),
            )


def _costing(place: Workspace, prices: Prices | None, payees: Iterable[str]) -> Costing:
    counters = {payee: prompt_counter(payee.removeprefix(BATCH)) for payee in payees}
    return Costing(
        prices=prices or load_prices(),
        spending=spending_of(place.journal_path),
        tokenizers={payee: counter for payee, counter in counters.items() if counter},
    )


@contextlib.contextmanager
def open_doors(
    model: str | Models, journal: Journal, *, client: ClientConfig | None = None, purse: Purse | None = None
) -> Iterator[tuple[Door, Door, Door]]:
    """The doors of generator, reasoner and annotator; the same words share one door."""
    models = Models(model) if isinstance(model, str) else model
    specs = (models.generator, models.reasoner or models.generator, models.annotator or models.generator)
    with contextlib.ExitStack() as stack:
        doors = {
            spec: stack.enter_context(open_door(spec, journal=journal, client=client, purse=purse))
            for spec in dict.fromkeys(specs)
        }
        yield doors[specs[0]], doors[specs[1]], doors[specs[2]]


def benchmark_qrels(benchmarks: Iterable[Path | str]) -> Qrels:
    """The judgments of all collections under `benchmarks` in one; only their document ids matter here."""
    merged: Qrels = {}
    for path in benchmarks:
        for domain, collection in load_collections(path).items():
            merged |= {f"{domain}/{query_id}": grades for query_id, grades in collection.qrels.items()}
    return merged


def _inputs(
    corpus: Corpus | Path | str,
    domain: Domain | Path | str,
    config: SynthesisConfig | Path | None,
    sources: Path | Collection[str] | None,
) -> tuple[Corpus, Domain, SynthesisConfig, Collection[str] | None]:
    config = load_toml(config, SynthesisConfig) if isinstance(config, Path) else config or SynthesisConfig()
    if not isinstance(corpus, Corpus):
        corpus = read_corpus(corpus, config.corpus)
    elif config.corpus not in (Reading(), corpus.reading):
        raise ConfigError("[corpus] in the config says how to read a corpus, but this one was read already. Drop it.")
    return (
        corpus,
        domain if isinstance(domain, Domain) else load_domain(domain),
        config,
        read_sources(sources) if isinstance(sources, Path) else sources,
    )
