"""Judging from words: systems and collections by name, and a folder with results, rankings and reports."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.beir import Collection
from reasonembed.encoder.shards import KeptAs, VectorCache
from reasonembed.errors import InputError
from reasonembed.evaluate.benchmarks import load_all, open_benchmark
from reasonembed.evaluate.metrics import MEASURES
from reasonembed.evaluate.mteb_export import task_results
from reasonembed.evaluate.per_query import Key, Scored, per_query_rows
from reasonembed.evaluate.protocol import Protocol
from reasonembed.evaluate.published import Beside, beside_published
from reasonembed.evaluate.report import ReportData, machine_facts, write_report
from reasonembed.evaluate.run import (
    Evaluation,
    domain_intervals,
    evaluate,
    mean_over_seeds,
    results_table,
    with_holm,
)
from reasonembed.evaluate.run_files import open_run
from reasonembed.evaluate.search_results import write_search_results
from reasonembed.files import write_json, write_jsonl
from reasonembed.llm.endpoint import NETWORK_KINDS, ClientConfig
from reasonembed.search.systems import Bm25System, DenseSystem, System
from reasonembed.trec import write_trec_run

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.json"
PROTOCOL_FILE = "protocol.json"
PER_QUERY_FILE = "per_query.jsonl"
MTEB_FOLDER = "mteb"
REPORT_FILE = "report.html"
_NAME_CHARS = 60  # our choice: of at most four bytes each, so that a suffix fits into the 255 of a file system


class Judgment(msgspec.Struct, frozen=True):
    """How several systems did on the same queries."""

    evaluations: dict[str, list[Evaluation]]  # system -> its evaluations, one a seed
    results: dict[str, dict[str, dict[str, Any]]]  # the content of results.json
    base: str | None  # the system that the others are compared with
    texts: dict[Key, str] = {}  # (domain, query_id) -> the original query
    seed: int = 0  # of the confidence intervals

    @property
    def labelled(self) -> dict[str, Evaluation]:
        """Every evaluation under the name of its files: the system's, with its seed where there are several."""
        named = {
            (name, number): f"{name}-seed{number}" if len(seeds) > 1 else name
            for name, seeds in self.evaluations.items()
            for number in range(len(seeds))
        }
        labels = file_names(named.values())
        return {label: self.evaluations[name][number] for (name, number), label in zip(named, labels, strict=True)}

    @property
    def measures(self) -> list[str]:
        """The measures of all systems, in the order in which they come."""
        return list(dict.fromkeys(measure for cells in self.results.values() for measure in cells))

    def scored(self, measure: str) -> Scored:
        """system -> (domain, query_id) -> score, averaged over seeds."""
        return {name: mean_over_seeds(seeds, measure) for name, seeds in self.evaluations.items()}

    @property
    def beside(self) -> Beside | None:
        """The scores beside published ones of the same benchmark, where there are any."""
        protocols: dict[str, Protocol] = {name: seeds[0].protocol for name, seeds in self.evaluations.items()}
        return beside_published(self.results, protocols)

    @property
    def protocols(self) -> dict[str, str]:
        """system -> how it was judged, to stand beside its scores."""
        return {name: str(seeds[0].protocol) for name, seeds in self.evaluations.items()}


def file_names(systems: Iterable[str]) -> list[str]:
    """A name for each system that can name a folder and tag a run.

    Without white space, separators or a dot in front, of at most `_NAME_CHARS` characters and some, and different from
    the others also where letters' case does not count.
    """
    taken: dict[str, str] = {}
    for system in systems:
        plain = re.sub(r"[^\w.+-]|^\.", "_", system)[:_NAME_CHARS] or "_"
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        name = next(one for one in itertools.chain([plain], numbered) if one.casefold() not in taken)
        taken[name.casefold()] = name
    return list(taken.values())


def judge(
    systems: Mapping[str, Callable[[], System] | Sequence[Callable[[], System]]],
    collections: Mapping[str, Collection],
    *,
    base: str | None = None,
    measures: Sequence[str] = MEASURES,
    k: int = 100,
    queries: str = "original",
    benchmark: str = "",
    seed: int = 0,
    holm: bool = True,
) -> Judgment:
    """Judge every system on every collection (domain -> collection).

    systems: name -> what makes it, or several makers for several seeds of one; each is made when its turn
    comes, so that one model is in memory at a time.  base: compared with the others, query by query; None compares
    nothing.  holm: the comparisons also carry p values corrected for their number (`with_holm`).
    """
    evaluations: dict[str, list[Evaluation]] = {}
    for name, makers in systems.items():
        evaluations[name] = [
            evaluate(make(), collections, measures=measures, k=k, queries=queries, benchmark=benchmark, seed=seed)
            for make in ([makers] if callable(makers) else makers)
        ]
    results = results_table(evaluations, base=base, seed=seed)
    if base is not None and holm:
        results = with_holm(results, base=base)
    texts = {
        (domain, query.query_id): query.text for domain, of in collections.items() for query in of.queries.values()
    }
    return Judgment(evaluations, results, base, texts, seed)


def bm25(weighting: str, *, language: str = "en") -> Callable[[], System]:
    """Makes BM25, `bag` of words or `query`-side."""
    return lambda: Bm25System(weighting, language=language)  # type: ignore[arg-type]


def dense(
    path: Path | str,
    *,
    name: str | None = None,
    model_name: str | None = None,
    instructions: str | Mapping[str, str] | None = None,
    max_tokens: int | None = None,
    longest: int | None = None,
    dtype: str = "float32",
    devices: Sequence[str] = (),
    cache: Path | None = None,
    kept_as: KeptAs = "float32",
) -> Callable[[], System]:
    """Makes a system from a model folder or name; instructions None takes the prompts that the model declares.

    model_name: what the protocol calls the model; its `public_name` if None, so that no path is published.
    longest: a benchmark's limit in tokens, used where `max_tokens` gives none, as far as the model has positions.
    devices: a process on each; none: this process, on the GPU where there is one.
    cache: a folder where vectors of documents are kept, as `kept_as`; None keeps them in memory alone.
    """

    def make() -> System:
        from reasonembed.encoder.backbones import public_name
        from reasonembed.encoder.devices import EncoderPool
        from reasonembed.encoder.folder import find_model, fingerprint
        from reasonembed.encoder.model import Encoder

        encoder: Encoder | EncoderPool
        if devices:
            encoder = EncoderPool(path, devices, max_tokens=max_tokens, dtype=dtype)
        else:
            encoder = Encoder.load(path, max_tokens=max_tokens, dtype=dtype)
        if instructions is None and not encoder.prompts:
            logger.warning(
                "%s declares no prompts: its queries are judged bare. If it was trained with an "
                "instruction, give it: another prompt is another protocol.",
                path,
            )
        kept = None
        if cache is not None:
            decides = {"weights": fingerprint(find_model(path)), "pooling": encoder.pooling}
            kept = VectorCache(cache, decides, kept_as)
        return DenseSystem(
            encoder,
            name=name,
            model_name=model_name or public_name(path),
            instructions=instructions or "",
            own_prompts=instructions is None,
            max_tokens=None if max_tokens or not longest else min(longest, encoder.position_limit or longest),
            cache=kept,
        )

    return make


def embeddings_endpoint(
    spec: str,
    *,
    name: str | None = None,
    instructions: str | Mapping[str, str] = "",
    config: Mapping[str, Any] | None = None,
    tell_queries_apart: bool = False,
    client: ClientConfig | None = None,
    cache: Path | None = None,
    kept_as: KeptAs = "float32",
) -> Callable[[], System]:
    """Makes a system from the model at an OpenAI-compatible embeddings endpoint.

    config: keys of `EndpointConfig`.  tell_queries_apart: send `input_type` query or document.
    """

    def make() -> System:
        from reasonembed.encoder.remote import EndpointConfig, EndpointEncoder

        keys = dict(config or {})
        types = ("document", "query") if tell_queries_apart else ("", "")
        encoder, query_encoder = (
            EndpointEncoder(spec, config=EndpointConfig(**keys, input_type=kind), client=client) for kind in types
        )
        decides = {"endpoint": encoder.name, "input_type": types[0]}
        return DenseSystem(
            encoder,
            name=name,
            instructions=instructions,
            query_encoder=query_encoder,
            cache=VectorCache(cache, decides, kept_as) if cache is not None else None,
        )

    return make


def is_endpoint(model: str | Path) -> bool:
    """Whether a model is reached over the network rather than loaded."""
    return str(model).startswith(NETWORK_KINDS)


def recorded_run(path: Path) -> Callable[[], System]:
    """Makes a system from a file or folder of rankings (see `open_run`); needs no model."""
    return lambda: open_run(path)


def collections_under(paths: Iterable[Path | str], *, split: str = "test") -> dict[str, Collection]:
    """The collections of all `paths` (see `open_benchmark`). Raises InputError if two have one name."""
    return load_all([open_benchmark(path, split=split) for path in paths])


def write_judgment(folder: Path, judgment: Judgment, report: ReportData) -> None:
    """Write all that was found into `folder`, the report last.

    `results.json`; `protocol.json` (the protocol of each evaluation); `per_query.jsonl`; the rankings as TREC runs
    (`runs/SYSTEM/DOMAIN.trec`) and as JSON search results (`search_results/SYSTEM/DOMAIN.json`); the scores in mteb's
    format (`mteb/SYSTEM/TASK.json`); `report.md`, `report.html`.
    """
    write_json(folder / RESULTS_FILE, judgment.results)
    write_json(folder / PROTOCOL_FILE, {label: one.protocol for label, one in judgment.labelled.items()})
    write_jsonl(folder / PER_QUERY_FILE, per_query_rows({name: judgment.scored(name) for name in judgment.measures}))
    for label, evaluation in judgment.labelled.items():
        for domain, run in evaluation.runs.items():
            write_search_results(
                folder / "search_results" / label / f"{domain}.json",
                run,
                model_name=label,
                dataset_name=domain,
                queries=evaluation.protocol.queries,
                eval_name=evaluation.protocol.benchmark,
            )
            try:
                write_trec_run(folder / "runs" / label / f"{domain}.trec", run, tag=label)
            except InputError as error:  # an id with white space cannot stand in a TREC file
                logger.warning("The ranking of %s on %s was not written as TREC: %s", label, domain, error)
        for result in task_results(evaluation):
            write_json(folder / MTEB_FOLDER / label / f"{result['task_name']}.json", result)
    write_report(folder / REPORT_FILE, _with_queries(report, judgment))


def _with_queries(report: ReportData, judgment: Judgment) -> ReportData:
    """The report with what the evaluations know beyond `results.json`: queries, intervals by domain, published rows."""
    scored = judgment.scored(judgment.measures[0])
    return msgspec.structs.replace(
        report,
        scored=scored if judgment.base is not None else {},
        texts=judgment.texts,
        domain_intervals={name: domain_intervals(scores, seed=judgment.seed) for name, scores in scored.items()},
        beside=judgment.beside,
    )


def plain_report(judgment: Judgment, *, title: str, summary: str = "", seconds: float | None = None) -> ReportData:
    """A report with scores, intervals and protocols."""
    return ReportData(
        title=title,
        summary=summary,
        results=judgment.results,
        base=judgment.base or "",
        facts=machine_facts(seconds=seconds),
        protocols=judgment.protocols,
    )
