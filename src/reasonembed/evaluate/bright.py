"""BRIGHT (Su et al. 2024) in its Hugging Face layout: passages or long documents, exclusions, rewritten queries."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from reasonembed.beir import Collection
from reasonembed.domains import load_domain
from reasonembed.errors import InputError, shown
from reasonembed.evaluate.hugging_face import Source
from reasonembed.evaluate.rows import Corpora, Id, add_query, collection, identifier, typed
from reasonembed.records import Qrels, Query

REPOSITORY = "xlangai/BRIGHT"

DOMAINS = (
    "biology", "earth_science", "economics", "psychology", "robotics", "stackoverflow", "sustainable_living",
    "leetcode", "pony", "aops", "theoremqa_questions", "theoremqa_theorems",
)  # fmt: skip
LONG_DOMAINS = (*DOMAINS[:7], "pony")
"""The domains whose passages were cut from longer documents."""

MAX_TOKENS = 8192  # paper, Sec. 4.1: queries and documents in evaluation

_NONE = "N/A"  # in `excluded_ids`: nothing is excluded
_REWRITES = "_reason"  # how the configs of rewritten queries end


class _DocumentRow(msgspec.Struct):
    id: Id
    text: str | None = msgspec.field(name="content")


class _ExampleRow(msgspec.Struct):
    id: Id
    query: str
    gold_ids: list[Id] | None = None
    gold_ids_long: list[Id] | None = None
    excluded_ids: list[Id] | str | None = None


class _RewriteRow(msgspec.Struct):
    id: Id
    query: str


def instructions(domains: Sequence[str], *, long: bool = False) -> dict[str, str]:
    """domain -> its retrieval instruction; the long setting says "documents" for "passages" (PAPER.md section 3)."""
    texts = {domain: load_domain(domain).instruction for domain in domains}
    return {domain: text.replace("passages", "documents") if long else text for domain, text in texts.items()}


def read_bright(source: Source, domains: Sequence[str] = DOMAINS, *, long: bool = False) -> dict[str, Collection]:
    """domain -> collection. `long`: the long documents with `gold_ids_long`; else the passages with `gold_ids`.

    Every config of the data set that ends in `_reason` fills `rewrites`, where it has the domain. Raises InputError
    for a missing config or split, and for rows that cannot be used, by file and row.
    """
    corpora = Corpora(source)
    rewriting = [config for config in source.configs() if config.endswith(_REWRITES)]
    splits = {config: source.splits(config) for config in rewriting}
    read = {}
    for domain in domains:
        corpus = corpora.read("long_documents" if long else "documents", domain, _DocumentRow)
        queries, qrels, excluded = _examples(source, domain, long)
        read[domain] = collection(
            domain,
            corpus,
            queries,
            qrels,
            origin=source.origin,
            excluded=excluded,
            rewrites={name: _rewrites(source, name, domain) for name in rewriting if domain in splits[name]},
        )
    return read


def _examples(source: Source, domain: str, long: bool) -> tuple[dict[str, Query], Qrels, dict[str, list[str]]]:
    queries: dict[str, Query] = {}
    qrels: Qrels = {}
    excluded: dict[str, list[str]] = {}
    for place, row in typed(source.rows("examples", domain), _ExampleRow):
        query_id = add_query(queries, place, row.id, row.query)
        gold = row.gold_ids_long if long else row.gold_ids
        if gold is None:
            field = "gold_ids_long" if long else "gold_ids"
            raise InputError(f"{place}: the query {shown(query_id)} has no field {field}. Is this BRIGHT's file?")
        qrels[query_id] = {identifier(place, doc_id): 1 for doc_id in gold}
        given = [row.excluded_ids] if isinstance(row.excluded_ids, str) else row.excluded_ids or []
        excluded[query_id] = [str(doc_id) for doc_id in given if doc_id != _NONE]
    return queries, qrels, excluded


def _rewrites(source: Source, config: str, domain: str) -> dict[str, str]:
    return {identifier(place, row.id): row.query for place, row in typed(source.rows(config, domain), _RewriteRow)}
