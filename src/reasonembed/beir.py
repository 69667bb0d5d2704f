"""BEIR folders in and out: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv`; ours: `excluded.tsv`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.corpora import JSONL_SUFFIXES, Corpus, read_corpus
from reasonembed.errors import InputError, StorageError, shown
from reasonembed.files import read_lines, read_numbered_jsonl, sha256_json, write_jsonl, write_text
from reasonembed.records import Qrels, Query

QRELS_HEADER = ("query-id", "corpus-id", "score")
EXCLUDED_HEADER = ("query-id", "corpus-id")


class Collection(msgspec.Struct, frozen=True):
    """A corpus with the queries to judge on it: what one domain of a benchmark consists of.

    `queries` are those of one split, each with at least one line in `qrels`. `excluded` names the documents
    that are removed from a query's ranking before the cut. `flags` holds the true values of further boolean
    fields of `queries.jsonl`, e.g. `flags["unseen"]`: the ids of the queries whose idea no training query
    touches. `rewrites` holds other wordings to search with: name -> query_id -> text; BRIGHT's `gpt4_reason` is one.
    `origin` says where a benchmark's files come from, with their commit; empty for folders.
    """

    name: str
    corpus: Corpus
    queries: dict[str, Query]
    qrels: Qrels
    excluded: dict[str, frozenset[str]] = {}
    flags: dict[str, frozenset[str]] = {}
    rewrites: dict[str, dict[str, str]] = {}
    origin: str = ""

    @property
    def sha256(self) -> str:
        """A hash of all that decides a score: corpus, queries, qrels, exclusions."""
        return sha256_json(
            {
                "corpus": self.corpus.sha256,
                "queries": self.queries,
                "qrels": self.qrels,
                "excluded": {query_id: sorted(ids) for query_id, ids in self.excluded.items()},
            }
        )


class _QueryRow(msgspec.Struct):
    """A line of `queries.jsonl`. `reasoning_query` is ours; boolean fields become flags, others go."""

    text: str
    beir_id: str | int = msgspec.field(name="_id")
    reasoning_query: str | None = None


def is_beir(folder: Path) -> bool:
    """Whether `folder` looks like a BEIR folder: it holds a corpus and queries."""
    return all(
        any((folder / f"{name}{suffix}").is_file() for suffix in JSONL_SUFFIXES) for name in ("corpus", "queries")
    )


def read_beir(folder: Path | str, split: str = "test") -> Collection:
    """The collection in a BEIR folder, named after it; only queries that the split judges are kept.

    Raises InputError naming file and line for what `read_corpus` and `read_jsonl` refuse, for duplicate or
    empty queries, for qrels without header, with a grade that is no whole number of 0 or more, naming unknown
    queries or documents, or judging a pair twice, and if no query has a relevant document.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"there is no BEIR folder {folder}. It must hold corpus.jsonl, queries.jsonl, qrels/{split}.tsv."
        )
    corpus = read_corpus(_jsonl(folder, "corpus"))
    queries, flags = _read_queries(_jsonl(folder, "queries"))
    qrels_path = _qrels_path(folder, split)
    qrels = read_tsv_qrels(qrels_path, lambda line, q, d: _check_known(qrels_path, line, q, d, queries, corpus))
    if not any(grade > 0 for grades in qrels.values() for grade in grades.values()):
        raise InputError(
            f"{qrels_path}: no query has a relevant document (a score above 0), so nothing can be measured."
        )
    excluded = _read_excluded(folder / "excluded.tsv", queries, corpus, qrels)
    return Collection(
        name=folder.resolve().name,
        corpus=corpus,
        queries={query_id: query for query_id, query in queries.items() if query_id in qrels},
        qrels={query_id: qrels[query_id] for query_id in queries if query_id in qrels},
        excluded={query_id: frozenset(ids) for query_id, ids in excluded.items() if query_id in qrels},
        flags={flag: frozenset(ids & qrels.keys()) for flag, ids in flags.items()},
    )


def _jsonl(folder: Path, name: str) -> Path:
    for suffix in JSONL_SUFFIXES:
        if (path := folder / f"{name}{suffix}").exists():
            return path
    raise InputError(f"{folder} holds no {name}.jsonl, so it is no BEIR folder. Add the file or give another folder.")


def _qrels_path(folder: Path, split: str) -> Path:
    path = folder / "qrels" / f"{split}.tsv"
    if not path.is_file():
        there = sorted(found.stem for found in (folder / "qrels").glob("*.tsv"))
        known = f"The splits there are: {', '.join(there)}." if there else "There is no other split either."
        raise InputError(f"there is no {path}. {known}")
    return path


def _read_queries(path: Path) -> tuple[dict[str, Query], dict[str, set[str]]]:
    queries: dict[str, Query] = {}
    lines: dict[str, int] = {}
    flags: dict[str, set[str]] = {}
    for number, fields in read_numbered_jsonl(path, dict[str, Any]):
        try:
            row = msgspec.convert(fields, _QueryRow)
        except msgspec.ValidationError as error:
            raise InputError(f"{path}, line {number}: {error}. Each query needs an _id and a text.") from error
        query_id = str(row.beir_id)
        if query_id in queries:
            raise InputError(
                f"{path}, line {number}: the id {shown(query_id)} stands on line {lines[query_id]} already. "
                f"Ids must be unique."
            )
        if not query_id or not row.text.strip():
            raise InputError(
                f"{path}, line {number}: the query {shown(query_id)} has no id or no text. Mend or drop it."
            )
        queries[query_id] = Query(query_id, row.text, row.reasoning_query or "")
        lines[query_id] = number
        for flag in (name for name, value in fields.items() if value is True):
            flags.setdefault(flag, set()).add(query_id)
    if not queries:
        raise InputError(f"{path} holds no query. Put one JSON object with _id and text on each line.")
    return queries, flags


def _read_tsv(path: Path, header: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and columns below the header, each pair of first two columns once."""
    seen: dict[tuple[str, str], int] = {}
    expected = " <tab> ".join(header)
    headed = False
    for number, line in read_lines(path):
        try:
            columns = line.decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number}: not valid UTF-8. Save the file as UTF-8.") from error
        if not headed:
            if tuple(columns) != header:
                raise InputError(
                    f"{path}, line {number}: the header is missing. It must read {expected}; found {shown(columns)}."
                )
            headed = True
            continue
        if len(columns) != len(header):
            raise InputError(f"{path}, line {number}: {len(columns)} column(s); expected {len(header)}: {expected}.")
        pair = (columns[0], columns[1])
        if pair in seen:
            raise InputError(
                f"{path}, line {number}: query {shown(pair[0])} and document {shown(pair[1])} stand on line "
                f"{seen[pair]} already. Drop one of the two."
            )
        seen[pair] = number
        yield number, columns
    if not headed:
        raise InputError(f"{path} is empty. It must begin with the header {expected}.")


def read_tsv_qrels(path: Path, check: Callable[[int, str, str], None] | None = None) -> Qrels:
    """The qrels in a tab separated file with BEIR's header; `check` is called with each line, query id and document id.

    Raises InputError naming file and line for a missing header, another number of columns, a score that is no whole
    number of 0 or more, or a pair that is judged twice.
    """
    qrels: Qrels = {}
    for number, (query_id, doc_id, raw) in _read_tsv(path, QRELS_HEADER):
        if check:
            check(number, query_id, doc_id)
        if not (raw.isascii() and raw.isdigit()):
            raise InputError(
                f"{path}, line {number}: the score is {shown(raw)}; it must be a whole number of 0 (not "
                f"relevant) or more. Correct the line."
            )
        qrels.setdefault(query_id, {})[doc_id] = int(raw)
    return qrels


def _check_known(
    path: Path, number: int, query_id: str, doc_id: str, queries: Mapping[str, Query], corpus: Corpus
) -> None:
    if query_id not in queries:
        raise InputError(
            f"{path}, line {number}: queries.jsonl has no query {shown(query_id)}. Add it or drop the line."
        )
    if doc_id not in corpus:
        raise InputError(f"{path}, line {number}: the corpus has no document {shown(doc_id)}. Add it or drop the line.")


def _read_excluded(path: Path, queries: Mapping[str, Query], corpus: Corpus, qrels: Qrels) -> dict[str, set[str]]:
    excluded: dict[str, set[str]] = {}
    if not path.exists():
        return excluded
    for number, (query_id, doc_id) in _read_tsv(path, EXCLUDED_HEADER):
        _check_known(path, number, query_id, doc_id, queries, corpus)
        if qrels.get(query_id, {}).get(doc_id, 0) > 0:
            raise InputError(
                f"{path}, line {number}: document {shown(doc_id)} is relevant to query {shown(query_id)} by "
                f"the qrels and cannot be excluded too. Drop one of the two lines."
            )
        excluded.setdefault(query_id, set()).add(doc_id)
    return excluded


def write_beir(folder: Path | str, collection: Collection, *, split: str = "test", overwrite: bool = False) -> None:
    """Write `collection` as a BEIR folder that `read_beir` gives back; it appears whole, by rename.

    Raises InputError if `folder` exists and is not empty (with `overwrite` an older BEIR folder is replaced),
    or if an id cannot stand in a tab separated file; StorageError when the disk refuses: what stood there
    before is then untouched.
    """
    folder = Path(folder)
    _check_ids(collection)
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (overwrite and is_beir(folder)))):
        raise InputError(f"{folder} exists already. Remove it or choose another folder.")
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
        new = temporary / "new"
        _write_files(new, collection, split)
        _put_in_place(new, folder, aside=temporary / "old")
    except OSError as error:
        raise StorageError(
            f"cannot write {folder}: {error.strerror or error}. Free some space or choose another folder."
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(temporary)


def _put_in_place(new: Path, folder: Path, *, aside: Path) -> None:
    if folder.exists():
        folder.rename(aside)
    try:
        new.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        raise


def _check_ids(collection: Collection) -> None:
    for kind, ids in (("document", collection.corpus.ids), ("query", collection.queries)):
        for name in ids:
            if name != name.strip() or any(mark in name for mark in "\t\n\r"):
                raise InputError(
                    f"the {kind} id {shown(name)} cannot stand in a tab separated file: tabs, line ends and "
                    f"white space at its ends are not allowed. Rename it."
                )


def _write_files(folder: Path, collection: Collection, split: str) -> None:
    write_jsonl(
        folder / "corpus.jsonl",
        ({"_id": d.doc_id, "title": d.title, "text": d.text} for d in collection.corpus),
    )
    write_jsonl(
        folder / "queries.jsonl",
        (_query_row(query, collection.flags) for query in collection.queries.values()),
    )
    qrels = ((q, d, str(grade)) for q, grades in collection.qrels.items() for d, grade in grades.items())
    _write_tsv(folder / "qrels" / f"{split}.tsv", QRELS_HEADER, qrels)
    if any(collection.excluded.values()):
        pairs = ((q, d) for q, ids in collection.excluded.items() for d in sorted(ids))
        _write_tsv(folder / "excluded.tsv", EXCLUDED_HEADER, pairs)


def _query_row(query: Query, flags: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    row: dict[str, Any] = {"_id": query.query_id, "text": query.text}
    if query.reasoning_query:
        row["reasoning_query"] = query.reasoning_query
    return row | {flag: query.query_id in ids for flag, ids in flags.items()}


def _write_tsv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    write_text(path, "".join("\t".join(row) + "\n" for row in [header, *rows]))
