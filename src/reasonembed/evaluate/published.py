"""Our scores beside published ones of the same benchmark; rows of another protocol are marked, with what differs."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from importlib import resources

import msgspec

from reasonembed.config import load_toml
from reasonembed.domains import load_domain
from reasonembed.evaluate import r2med
from reasonembed.evaluate.blocks import Block, Bullets, Cell, Paragraph, Section, Table, cells
from reasonembed.evaluate.protocol import Protocol
from reasonembed.evaluate.tables import Results, columns

MARK = "\N{DAGGER}"
_AVERAGE = "avg"


class PublishedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was published about one system, in points."""

    system: str
    protocol: str
    average: float
    scores: tuple[float, ...]  # in the order of the benchmark's domains
    departs: str = ""  # in what its protocol is another than the paper's; empty: it is the paper's


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Published scores on one benchmark, and the protocol that they belong to."""

    title: str
    measure: str
    decimals: int  # that the figures were published with
    n_queries: int
    max_tokens: int  # longest query and document of dense models
    exclusions: bool  # documents are removed from rankings
    source: str
    protocol: str
    domains: tuple[str, ...]
    short: tuple[str, ...]  # their names as columns
    rows: tuple[PublishedRow, ...]

    def instruction(self, domain: str) -> str:
        """What dense models put before the queries of a domain."""
        return r2med.INSTRUCTIONS.get(domain) or load_domain(domain).instruction


class PublishedTables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the package knows of published scores."""

    bright: Published
    r2med: Published


class BesideRow(msgspec.Struct, frozen=True):
    """A row of the table, in points; `departs`: why it is not like for like, empty if it is."""

    system: str
    scores: tuple[float, ...]
    departs: tuple[str, ...] = ()
    ours: bool = False

    @property
    def label(self) -> str:
        """The system's name, marked if its row belongs to another protocol."""
        return f"{self.system} {MARK}" if self.departs else self.system


class Beside(msgspec.Struct, frozen=True):
    """Published and judged systems on the same domains of one benchmark."""

    published: Published
    domains: tuple[str, ...]  # as the judged collections are named
    head: tuple[str, ...]  # of the columns of scores: the average, where there is one, and short names of the domains
    rows: tuple[BesideRow, ...]


def beside_published(results: Results, protocols: Mapping[str, Protocol]) -> Beside | None:
    """The table for what was judged; None unless that is BRIGHT's or R2MED's own queries, under the published measure.

    protocols: system -> how it was judged. A benchmark is known by its name (`bright`, `bright:FOLDER`, `r2med`):
    other collections never stand beside these figures. The average is shown where every domain was judged.
    """
    table = published_for({protocol.benchmark for protocol in protocols.values()})
    if table is None:
        return None
    judged = {name: cells[table.measure]["per_domain"] for name, cells in results.items() if table.measure in cells}
    found = {name: known for of in judged.values() for name in of if (known := known_domain(name, table.domains))}
    if not found or set(found) != {name for of in judged.values() for name in of}:
        return None
    domains = sorted(found, key=lambda name: table.domains.index(found[name]))
    whole = len(domains) == len(table.domains)
    rows = []
    for row in table.rows:
        by_domain = dict(zip(table.domains, row.scores, strict=True))
        scores = [by_domain[found[name]] for name in domains]
        average = [row.average] if whole else []
        rows.append(BesideRow(row.system, (*average, *scores), (row.departs,) if row.departs else ()))
    for name, of in judged.items():
        scores = [100 * of[domain] for domain in domains]
        average = [100 * results[name][table.measure]["mean"]] if whole else []
        rows.append(BesideRow(name, (*average, *scores), departures(protocols[name], table, found), ours=True))
    short = tuple(table.short[table.domains.index(found[name])] for name in domains)
    head = (_AVERAGE, *short) if whole else short
    return Beside(table, tuple(domains), head, tuple(rows))


def published_for(benchmarks: set[str]) -> Published | None:
    """The published figures for the one benchmark that was judged, by its name; None if there are none."""
    names = {benchmark_name(benchmark) for benchmark in benchmarks}
    return getattr(published_tables(), names.pop()) if names in ({"bright"}, {"r2med"}) else None


def benchmark_name(benchmark: str) -> str:
    """The benchmark's own name: `bright` of `bright:FOLDER` or `bright/pony`."""
    return re.split(r"[:/]", benchmark.lower(), maxsplit=1)[0]


def departures(protocol: Protocol, table: Published, domains: Mapping[str, str]) -> tuple[str, ...]:
    """In what a system was judged otherwise than the published rows, in words; empty if in nothing.

    domains: what was judged, by the names of the published domains.
    """
    found = []
    if protocol.queries != "original":
        found.append(f"queries: {protocol.queries}, not the original ones")
    if len(domains) == len(table.domains) and protocol.n_queries != table.n_queries:
        found.append(f"{protocol.n_queries:,} queries, not {table.n_queries:,}")
    if table.exclusions and not protocol.n_excluded:
        found.append("nothing was excluded")
    if protocol.search.startswith("as in the run file"):
        return (*found, "ranked elsewhere: its queries, instruction and length are not known here")
    if "bag-of-words" in protocol.search:
        found.append("bag-of-words BM25, where the published row is query-side")
    if protocol.dtype or protocol.max_tokens or any(protocol.instructions.values()):  # a model embeds
        found += _dense_departures(protocol, table, domains)
    return tuple(found)


def _dense_departures(protocol: Protocol, table: Published, domains: Mapping[str, str]) -> list[str]:
    found = []
    if protocol.max_tokens != table.max_tokens:
        limit = f"at most {protocol.max_tokens:,} tokens" if protocol.max_tokens else "texts of any length"
        found.append(f"{limit}, not {table.max_tokens:,}")
    other = [name for name, known in domains.items() if table.instruction(known) not in protocol.instructions[name]]
    if other:
        bare = not any(protocol.instructions[name] for name in other)
        count = "" if len(other) == len(domains) else f" in {len(other)} of {len(domains)} domains"
        found.append(f"{'no instruction' if bare else 'another instruction'}{count}")
    if "exact" not in protocol.search:
        found.append(f"search: {protocol.search}")
    return found


def published_section(beside: Beside) -> Section:
    """The table for the report, what the rows' protocols are, and in what the marked ones differ."""
    table = beside.published
    rows = tuple((Cell(row.label), *(Cell(text, best=row.ours) for text in _texts(row, table))) for row in beside.rows)
    said = (
        f"Published scores are quoted from {table.source}. Their protocol: {table.protocol}. Bold: judged here. "
        f"A row marked {MARK} belongs to another protocol, or to one that is not stated: it is not like for like."
    )
    blocks: list[Block] = [
        Paragraph(said),
        Table(f"{table.title}, {table.measure} in points", ("System", *beside.head), rows),
    ]
    if marked := [f"{MARK} {row.system}: {'; '.join(row.departs)}." for row in beside.rows if row.departs]:
        blocks.append(Bullets(tuple(marked)))
    kinds = tuple(cells(row.system, row.protocol) for row in table.rows)
    blocks.append(Table("What the published rows are", ("System", "Protocol"), kinds, prose=(1,)))
    return Section("published", "Beside published figures", tuple(blocks))


def published_lines(beside: Beside) -> Sequence[str]:
    """The table for a terminal, with the reasons for each mark below."""
    table = beside.published
    rows = [[f"{table.title}, {table.measure}", *beside.head]]
    rows += [[("> " if row.ours else "  ") + row.label, *_texts(row, table)] for row in beside.rows]
    notes = [f"{MARK} {row.system}: {'; '.join(row.departs)}" for row in beside.rows if row.departs]
    return [
        columns(rows),
        f"> judged here; the others as published ({table.source}); {MARK} another protocol, not like for like:",
        *notes,
    ]


def _texts(row: BesideRow, table: Published) -> list[str]:
    return [f"{score:.{table.decimals}f}" for score in row.scores]


def known_domain(name: str, domains: Sequence[str]) -> str | None:
    """The published domain of that name, whatever its case and hyphens, with or without the benchmark before it."""
    return {_plain(domain): domain for domain in domains}.get(_plain(name))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removeprefix("bright").removeprefix("r2med")


@functools.cache
def published_tables() -> PublishedTables:
    """The published scores that ship with the package."""
    with resources.as_file(resources.files("reasonembed.evaluate") / "published.toml") as path:
        return load_toml(path, PublishedTables)
