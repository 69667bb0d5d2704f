"""A table of systems from one TOML file: each table of it is a system, and systems may be made of others.

[dense]
model = "models/trial"                  # or http://HOST/v1#MODEL, openai:MODEL
queries = ["original", "gpt4_reason"]   # the scores of several wordings are summed

[hybrid]
parts = ["bm25q", "dense"]
weights = [0.3, 0.7]                    # without weights: reciprocal rank fusion

[reranked]
first = "hybrid"
rerank = {model = "http://localhost:8000/v1#MODEL", k = 100, samples = 4, weight = 0.5}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from reasonembed.beir import Collection
from reasonembed.config import build, load_toml
from reasonembed.encoder.backbones import base_model
from reasonembed.encoder.shards import KeptAs
from reasonembed.errors import ConfigError, nearest
from reasonembed.evaluate.run import WORDINGS, query_texts
from reasonembed.llm.endpoint import ClientConfig
from reasonembed.search.combined import FusedSystem, RerankedSystem, WordedSystem
from reasonembed.search.systems import Bm25System, System
from reasonembed.workflow.judging import dense, embeddings_endpoint, is_endpoint, recorded_run
from reasonembed.workflow.reranking import AnnotatorGrader

JOURNAL = "journal.sqlite"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    queries: tuple[str, ...] = ()  # wordings to search with; none: those that the command names


class Bm25Table(_Table, frozen=True, kw_only=True):
    """BM25: a table with `retriever = "bm25"` or `"bm25q"`."""

    retriever: Literal["bm25", "bm25q"]
    language: str = "en"
    k1: float = 0.9
    b: float = 0.4


class DenseTable(_Table, frozen=True, kw_only=True):
    """A model: a table with `model`. Keys from `dimensions` on are for embeddings endpoints."""

    model: str
    retriever: Literal["dense"] = "dense"
    instruction: str | dict[str, str] | None = None  # one, or domain -> one; None: the model's own prompts
    max_tokens: int | None = None
    dtype: str = "float32"
    devices: tuple[str, ...] = ()  # a process on each; none: one device
    vectors: KeptAs = "float32"  # how documents are kept in the cache
    dimensions: int | None = None
    input_type: bool = False  # send input_type query or document
    max_chars: int | None = None
    batch_texts: int = 64
    api_key_env: str = ""
    concurrency: int = 8


class FusedTable(_Table, frozen=True, kw_only=True):
    """Several systems made one: a table with `parts`, names of other tables, or bm25 and bm25q."""

    parts: tuple[str, ...]
    retriever: Literal["fused"] = "fused"
    weights: tuple[float, ...] | None = None
    depth: int = 1000


class RerankTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the best documents are graded anew."""

    model: str
    k: int = 100
    samples: int = 1
    weight: float = 0.5  # of the grade; the rest is the first stage's
    domain: str = ""
    seed: int = 0
    api_key_env: str = ""
    concurrency: int = 32

    def __post_init__(self) -> None:
        for name in ("k", "samples", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be at least 1.")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight is {self.weight!r}; it must lie between 0 and 1.")


class RerankedTable(_Table, frozen=True, kw_only=True):
    """A reranked system: a table with `first`, the name of another."""

    first: str
    rerank: RerankTable
    retriever: Literal["reranked"] = "reranked"


class RunTable(_Table, frozen=True, kw_only=True):
    """A ranking that was made elsewhere: a table with `run`, a file or folder (see `open_run`)."""

    run: str
    retriever: Literal["run"] = "run"


Table = Bm25Table | DenseTable | FusedTable | RerankedTable | RunTable
_BY_RETRIEVER: dict[str, type[Table]] = {
    "bm25": Bm25Table,
    "bm25q": Bm25Table,
    "dense": DenseTable,
    "fused": FusedTable,
    "reranked": RerankedTable,
    "run": RunTable,
}
_BY_KEY: dict[str, type[Table]] = {"model": DenseTable, "parts": FusedTable, "first": RerankedTable, "run": RunTable}
_BUILT_IN: dict[str, Table] = {name: Bm25Table(retriever=name) for name in ("bm25", "bm25q")}


def read_tables(path: Path) -> dict[str, Table]:
    """The tables of a system file, in its order, checked: kinds, keys, and that parts exist without a circle.

    Raises ConfigError naming the table and the nearest known word.
    """
    raw = load_toml(path, dict[str, dict[str, Any]])
    if not raw:
        raise ConfigError(f'{path} names no system. Add a table such as [bm25q] with retriever = "bm25q".')
    tables = {name: build(_kind(values, name, path), values, where=f"{path}, [{name}]") for name, values in raw.items()}
    for name in tables:
        _check_parts(name, tables, path, above=())
    return tables


def _kind(values: Mapping[str, Any], name: str, path: Path) -> type[Table]:
    if "retriever" in values:
        word = str(values["retriever"])
        if word not in _BY_RETRIEVER:
            raise ConfigError(
                f'{path}, [{name}]: retriever is "{word}"{nearest(word, _BY_RETRIEVER) or "."} '
                f"Known: {', '.join(_BY_RETRIEVER)}."
            )
        return _BY_RETRIEVER[word]
    for key, kind in _BY_KEY.items():
        if key in values:
            return kind
    hint = next((near for key in values if (near := nearest(key, [*_BY_KEY, "retriever"]))), ".")
    raise ConfigError(
        f"{path}, [{name}]: it does not say what ranks{hint} Give model, parts, first, run, or "
        f"retriever = one of {', '.join(_BY_RETRIEVER)}."
    )


def _parts(table: Table) -> tuple[str, ...]:
    if isinstance(table, FusedTable):
        return table.parts
    return (table.first,) if isinstance(table, RerankedTable) else ()


def _check_parts(name: str, tables: Mapping[str, Table], path: Path, *, above: tuple[str, ...]) -> None:
    if name in above:
        raise ConfigError(f"{path}: {' is made of '.join([*above, name])}; a system cannot be made of itself.")
    for part in _parts(tables[name]) if name in tables else ():
        if part not in tables and part not in _BUILT_IN:
            raise ConfigError(
                f'{path}, [{name}]: there is no system "{part}"{nearest(part, [*tables, *_BUILT_IN]) or "."} '
                f"Known: {', '.join(dict.fromkeys([*tables, *_BUILT_IN]))}."
            )
        _check_parts(part, tables, path, above=(*above, name))


def systems_from(
    path: Path, collections: Mapping[str, Collection], *, cache: Path | None = None
) -> dict[str, Callable[[], System]]:
    """The systems of the file, by name, each as what makes it; see the module's example.

    collections: domain -> collection, whose wordings `queries` may name.  cache: for vectors of documents and the
    replies of rerankers. Raises ConfigError for a mistake in the file, or a reranker without a cache.
    """
    tables = read_tables(path)
    for name, table in tables.items():
        for word in table.queries:
            _check_wording(word, collections, f"{path}, [{name}]")
        if isinstance(table, RerankedTable) and cache is None:
            raise ConfigError(
                f"{path}, [{name}]: a reranker's replies are paid for and must be kept. Give --cache or --out."
            )
    workshop = _Workshop(tables, collections, cache)
    return {name: workshop.maker(name) for name in tables}


def _check_wording(word: str, collections: Mapping[str, Collection], where: str) -> None:
    for domain, collection in collections.items():
        if word not in (known := (*WORDINGS, *collection.rewrites)):
            raise ConfigError(
                f'{where}: queries names "{word}"{nearest(word, known) or "."} {domain} has {", ".join(known)}.'
            )


class _Workshop:
    """Makes systems from tables; each is made anew, so that one model is in memory at a time."""

    def __init__(self, tables: Mapping[str, Table], collections: Mapping[str, Collection], cache: Path | None) -> None:
        self._tables, self._collections, self._cache = tables, collections, cache

    def maker(self, name: str) -> Callable[[], System]:
        return lambda: self._make(name)

    def _make(self, name: str) -> System:
        table = self._tables[name] if name in self._tables else _BUILT_IN[name]
        system = self._bare(name, table)
        if not table.queries:
            return system
        texts = {
            word: {domain: query_texts(collection, word) for domain, collection in self._collections.items()}
            for word in table.queries
        }
        return WordedSystem(system, table.queries, texts)

    def _bare(self, name: str, table: Table) -> System:
        if isinstance(table, Bm25Table):
            weighting: Literal["bag", "query"] = "bag" if table.retriever == "bm25" else "query"
            return Bm25System(weighting, language=table.language, k1=table.k1, b=table.b)
        if isinstance(table, DenseTable):
            return self._dense(name, table)
        if isinstance(table, FusedTable):
            parts = [self._make(part) for part in table.parts]
            return FusedSystem(parts, name=name, depth=table.depth, weights=table.weights)
        if isinstance(table, RerankedTable):
            return self._reranked(name, table)
        return recorded_run(Path(table.run))()

    def _dense(self, name: str, table: DenseTable) -> System:
        if not is_endpoint(table.model):
            return dense(
                base_model(table.model),
                name=name,
                instructions=table.instruction,
                max_tokens=table.max_tokens,
                dtype=table.dtype,
                devices=table.devices,
                cache=self._cache,
                kept_as=table.vectors,
            )()
        if table.max_tokens is not None:
            raise ConfigError(f"[{name}]: an endpoint cuts texts by its own limit of tokens. Use max_chars instead.")
        return embeddings_endpoint(
            table.model,
            name=name,
            instructions=table.instruction or "",
            config={key: getattr(table, key) for key in ("dimensions", "max_chars", "batch_texts")},
            tell_queries_apart=table.input_type,
            client=ClientConfig(api_key_env=table.api_key_env, concurrency=table.concurrency),
            cache=self._cache,
            kept_as=table.vectors,
        )()

    def _reranked(self, name: str, table: RerankedTable) -> System:
        assert self._cache is not None
        settings = table.rerank
        grader = AnnotatorGrader(
            settings.model,
            journal=self._cache / JOURNAL,
            samples=settings.samples,
            domain=settings.domain,
            client=ClientConfig(api_key_env=settings.api_key_env, concurrency=settings.concurrency),
            seed=settings.seed,
        )
        return RerankedSystem(self._make(table.first), grader, name=name, depth=settings.k, weight=settings.weight)
