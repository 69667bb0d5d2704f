"""Judging from words: systems and collections by name, and a folder with results, rankings and a report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.beir import Collection
from reasonembed.encoder.shards import KeptAs, VectorCache
from reasonembed.errors import InputError
from reasonembed.evaluate.benchmarks import load_collections
from reasonembed.evaluate.metrics import MEASURES
from reasonembed.evaluate.report import ReportData, machine_facts, write_report
from reasonembed.evaluate.run import Evaluation, evaluate, results_table
from reasonembed.files import write_json
from reasonembed.llm.endpoint import ClientConfig
from reasonembed.search.systems import Bm25System, DenseSystem, RunSystem, System
from reasonembed.trec import read_trec_run, write_trec_run

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"


class Judgment(msgspec.Struct, frozen=True):
    """How several systems did on the same queries."""

    evaluations: dict[str, list[Evaluation]]  # system -> its evaluations, one a seed
    results: dict[str, dict[str, dict[str, Any]]]  # the content of results.json
    base: str | None  # the system that the others are compared with

    @property
    def protocols(self) -> dict[str, str]:
        """system -> how it was judged, to stand beside its scores."""
        return {name: str(seeds[0].protocol) for name, seeds in self.evaluations.items()}


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
) -> Judgment:
    """Judge every system on every collection (domain -> collection).

    systems: name -> what makes it, or several makers for several seeds of one; each is made when its turn
    comes, so that one model is in memory at a time.  base: compared with the others, query by query; None compares
    nothing.
    """
    evaluations: dict[str, list[Evaluation]] = {}
    for name, makers in systems.items():
        evaluations[name] = [
            evaluate(make(), collections, measures=measures, k=k, queries=queries, benchmark=benchmark, seed=seed)
            for make in ([makers] if callable(makers) else makers)
        ]
    return Judgment(evaluations, results_table(evaluations, base=base, seed=seed), base)


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
    dtype: str = "float32",
    cache: Path | None = None,
    kept_as: KeptAs = "float32",
) -> Callable[[], System]:
    """Makes a system from a model folder or name; instructions None takes the prompts that the model declares.

    cache: a folder where vectors of documents are kept, as `kept_as`; None keeps them in memory alone.
    """

    def make() -> System:
        from reasonembed.encoder.folder import find_model, fingerprint
        from reasonembed.encoder.model import Encoder

        encoder = Encoder.load(path, max_tokens=max_tokens, dtype=dtype)
        kept = None
        if cache is not None:
            decides = {"weights": fingerprint(find_model(path)), "pooling": encoder.pooling}
            kept = VectorCache(cache, decides, kept_as)
        if instructions is None:
            if not encoder.prompts:
                logger.warning(
                    "%s declares no prompts: its queries are judged bare. If it was trained with an "
                    "instruction, give it: another prompt is another protocol.",
                    path,
                )
            return DenseSystem(encoder, name=name, model_name=model_name, own_prompts=True, cache=kept)
        return DenseSystem(encoder, name=name, model_name=model_name, instructions=instructions, cache=kept)

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
    return str(model).startswith(("http://", "https://", "openai:"))


def recorded_run(path: Path) -> Callable[[], System]:
    """Makes a system from a TREC run file; needs no model."""
    return lambda: RunSystem(read_trec_run(path), name=path.stem)


def collections_under(paths: Iterable[Path | str], *, split: str = "test") -> dict[str, Collection]:
    """The collections of all `paths` (see `load_collections`). Raises InputError if two have one name."""
    merged: dict[str, Collection] = {}
    for path in paths:
        for name, collection in load_collections(path, split=split).items():
            if name in merged:
                raise InputError(f'two collections are named "{name}"; rename the folder {path}, or judge them apart.')
            merged[name] = collection
    return merged


def write_judgment(folder: Path, judgment: Judgment, report: ReportData) -> None:
    """Write results.json, the rankings as TREC runs (`runs/SYSTEM/DOMAIN.trec`), and the HTML report last."""
    write_json(folder / RESULTS_FILE, judgment.results)
    for name, seeds in judgment.evaluations.items():
        for number, evaluation in enumerate(seeds):
            label = name.replace("/", "_") + (f"-seed{number}" if len(seeds) > 1 else "")
            for domain, run in evaluation.runs.items():
                try:
                    write_trec_run(folder / "runs" / label / f"{domain}.trec", run, tag=label)
                except InputError as error:  # an id with white space cannot stand in a TREC file
                    logger.warning("The ranking of %s on %s was not written as TREC: %s", name, domain, error)
    write_report(folder / REPORT_FILE, report)


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
