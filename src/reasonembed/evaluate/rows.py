"""From rows of a benchmark's files to corpora, queries and qrels; what is wrong is named with its file and row."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from reasonembed.beir import Collection
from reasonembed.corpora import Corpus
from reasonembed.errors import InputError, shown
from reasonembed.evaluate.hugging_face import NumberedRow, Source
from reasonembed.files import sha256_json
from reasonembed.records import Document, Qrels, Query

logger = logging.getLogger(__name__)

Kind = TypeVar("Kind")

Id = str | int


def typed(rows: Iterable[NumberedRow], kind: type[Kind]) -> Iterator[tuple[str, Kind]]:
    """Each row as a `kind`, with its place. Raises InputError naming place and field for one that does not fit."""
    for place, fields in rows:
        try:
            yield place, msgspec.convert(fields, kind)
        except msgspec.ValidationError as error:
            raise InputError(f"{place}: {error}. Found {shown(fields)}.") from error


class Corpora:
    """The corpora of one benchmark: what several domains share is read once and is one object.

    Where a source cannot say beforehand that two splits are equal they are both read and one is kept.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._by_key: dict[str, Corpus] = {}
        self._by_content: dict[str, Corpus] = {}

    def read(self, config: str, split: str, texts: type[Any]) -> Corpus:
        """The corpus in a split; `texts`: a Struct with `id` and `text`, however the file calls them.

        A document that stands there twice with one text counts once. Raises InputError for an id with two
        texts, an empty id, or no document at all.
        """
        key = self._source.key(config, split)
        if key is not None and key in self._by_key:
            return self._by_key[key]
        documents = _documents(typed(self._source.rows(config, split), texts))
        if not documents:
            raise InputError(f"{config}, {split} of {self._source.origin}: there is no document. Download it again.")
        content = sha256_json([[doc_id, documents[doc_id].text] for doc_id in sorted(documents)])
        corpus = self._by_content.setdefault(
            content, Corpus(documents, origin=f"{self._source.origin}, {config}, {split}", sha256=content)
        )
        if key is not None:
            self._by_key[key] = corpus
        return corpus


def _documents(rows: Iterable[tuple[str, Any]]) -> dict[str, Document]:
    documents: dict[str, Document] = {}
    repeated = 0
    for place, row in rows:
        doc_id, text = identifier(place, row.id), row.text or ""
        if doc_id in documents:
            if documents[doc_id].text != text:
                raise InputError(f"{place}: the id {shown(doc_id)} stands there before with another text. Drop one.")
            repeated += 1
        documents[doc_id] = Document(doc_id, text)
    if repeated:
        logger.warning("%d documents stand in the corpus twice with the same id and text; each counts once.", repeated)
    return documents


def identifier(place: str, raw: Id) -> str:
    """The id as a string, to the letter. Raises InputError for an empty one."""
    if raw == "":
        raise InputError(f"{place}: the id is empty. Give the row one.")
    return str(raw)


def add_query(queries: dict[str, Query], place: str, raw: Id, text: str) -> str:
    """The id of a query, which now is in `queries`. Raises InputError for a second or an empty one."""
    query_id = identifier(place, raw)
    if query_id in queries:
        raise InputError(f"{place}: the query {shown(query_id)} stands there before. Query ids must be unique.")
    if not text.strip():
        raise InputError(f"{place}: the query {shown(query_id)} has no text. Mend or drop it.")
    queries[query_id] = Query(query_id, text)
    return query_id


def collection(
    name: str,
    corpus: Corpus,
    queries: Mapping[str, Query],
    qrels: Qrels,
    *,
    origin: str,
    excluded: Mapping[str, Iterable[str]] | None = None,
    rewrites: dict[str, dict[str, str]] | None = None,
) -> Collection:
    """A collection of the queries that have a judgment, in the order of the queries; oddities are logged.

    A judged document that the corpus lacks still counts as one to be found, as in everyone's scores; an excluded one
    that it lacks goes. Raises InputError if a document is relevant to a query and excluded for it, or if no query has
    a relevant document.
    """
    kept = {query_id: qrels[query_id] for query_id in queries if qrels.get(query_id)}
    if not any(grade > 0 for grades in kept.values() for grade in grades.values()):
        raise InputError(f"{name} of {origin}: no query has a relevant document, so nothing can be measured.")
    if len(kept) < len(queries):
        logger.warning("%s: %d queries have no judgment and are left out.", name, len(queries) - len(kept))
    if lacking := sum(doc_id not in corpus for grades in kept.values() for doc_id in grades):
        logger.warning("%s: %d judged documents are not in the corpus and can never be found.", name, lacking)
    without = {query_id: frozenset(excluded[query_id]) for query_id in kept if query_id in excluded} if excluded else {}
    for query_id, doc_ids in without.items():
        if both := sorted(doc_id for doc_id in doc_ids if kept[query_id].get(doc_id, 0) > 0):
            raise InputError(
                f"{name} of {origin}: document {shown(both[0])} is relevant to query {shown(query_id)} and excluded "
                f"for it. Drop one of the two."
            )
    there = {query_id: frozenset(d for d in doc_ids if d in corpus) for query_id, doc_ids in without.items()}
    return Collection(
        name=name,
        corpus=corpus,
        queries={query_id: queries[query_id] for query_id in kept},
        qrels=kept,
        excluded={query_id: doc_ids for query_id, doc_ids in there.items() if doc_ids},
        rewrites=rewrites or {},
        origin=origin,
    )
