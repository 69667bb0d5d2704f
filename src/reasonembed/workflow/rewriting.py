"""Other wordings of a benchmark's queries: written by a language model through the door, kept in a JSONL file.

{"domain": "biology", "query_id": "0", "text": "..."}
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from reasonembed.beir import Collection
from reasonembed.domains import load_domain, shipped_or_general
from reasonembed.errors import InputError, shown
from reasonembed.files import read_numbered_jsonl, write_jsonl
from reasonembed.llm.chat import Door
from reasonembed.records import Dropped
from reasonembed.remixer.config import ReasonConfig
from reasonembed.remixer.reason import reason_queries
from reasonembed.remixer.rows import Conditions, GeneratedQuery


class Rewrite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the file: another wording of one query."""

    domain: str
    query_id: str
    text: str


class RewriteReport(msgspec.Struct, frozen=True):
    """What rewriting came to."""

    written: int
    dropped: list[Dropped]  # named DOMAIN QUERY_ID, with the reason


def rewrite_queries(
    collections: Mapping[str, Collection],
    out: Path,
    *,
    door: Door,
    config: ReasonConfig | None = None,
    domain: str = "",
    seed: int = 0,
) -> RewriteReport:
    """Write each query thought through (the prompt of ReMixer's step 2, prompts/reason.txt) to `out`.

    domain: a shipped one or a TOML file whose words the prompt uses; empty: the collection's where it is a shipped
    one, else `general`. Queries whose reply is refused, cut or empty are left out and reported.
    Raises EndpointError, after what was answered was committed, if some requests failed in transport.
    """
    rows: list[Rewrite] = []
    dropped: list[Dropped] = []
    for name, collection in collections.items():
        words = load_domain(domain) if domain else shipped_or_general(name)
        replies = reason_queries(
            functools.partial(_as_generated, collection),
            words,
            config or ReasonConfig(),
            seed=seed,
            door=door,
            total=len(collection.queries),
        )
        for row in replies:
            if isinstance(row, Dropped):
                dropped.append(msgspec.structs.replace(row, row_id=f"{name} {row.row_id}"))
            else:
                rows.append(Rewrite(name, row.query_id, row.reasoning_query))
    write_jsonl(out, rows)
    return RewriteReport(written=len(rows), dropped=dropped)


def _as_generated(collection: Collection) -> Iterable[GeneratedQuery]:
    for query_id, query in collection.queries.items():
        yield GeneratedQuery(query_id, query_id, query.text, Conditions(conditioned=False))


def read_rewrites(path: Path) -> dict[str, dict[str, str]]:
    """domain -> query_id -> text. Raises InputError naming the line of a query that stands there twice."""
    texts: dict[str, dict[str, str]] = {}
    for number, row in read_numbered_jsonl(path, Rewrite):
        of_domain = texts.setdefault(row.domain, {})
        if row.query_id in of_domain:
            raise InputError(
                f"{path}, line {number}: the query {shown(row.query_id)} of {row.domain} stands there twice. "
                f"Drop one of the two."
            )
        of_domain[row.query_id] = row.text
    return texts


def with_rewrites(collections: Mapping[str, Collection], paths: Iterable[Path]) -> dict[str, Collection]:
    """The collections with the wordings of each file, named by the file's stem, added to their `rewrites`.

    Raises InputError for a file that has no wording for any of the queries, or whose name is taken.
    """
    worded = dict(collections)
    for path in paths:
        name = path.name.split(".")[0]
        texts = read_rewrites(path)
        found = 0
        for domain, collection in worded.items():
            if name in ("original", "reasoning", *collection.rewrites):
                raise InputError(f'{path}: {domain} has a wording named "{name}" already. Rename the file.')
            of_domain = texts.get(domain, {})
            found += len(of_domain.keys() & collection.queries.keys())
            worded[domain] = msgspec.structs.replace(collection, rewrites={**collection.rewrites, name: of_domain})
        if not found:
            raise InputError(
                f"{path} has no wording for any query of {', '.join(worded)}; it speaks of "
                f"{', '.join(texts) or 'nothing'}. Its domains must be named like the benchmark's."
            )
    return worded
