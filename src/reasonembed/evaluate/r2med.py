"""R2MED (Li et al. 2025) in its Hugging Face layout: eight medical data sets with graded judgments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from reasonembed.beir import Collection
from reasonembed.errors import InputError, shown
from reasonembed.evaluate.hugging_face import Source
from reasonembed.evaluate.rows import Corpora, Id, add_query, collection, identifier, typed
from reasonembed.records import Qrels, Query

logger = logging.getLogger(__name__)

_POST = "Given a {} post, retrieve relevant passages that help answer the post."
_EXAM = "Given a Medical Exam, retrieve relevant passages that help answer the exam."
_CASE = "Given a Clinical Case, retrieve {}."

INSTRUCTIONS = {
    "Biology": _POST.format("Biology"),
    "Bioinformatics": _POST.format("Bioinformatics"),
    "Medical-Sciences": _POST.format("Medical Science"),
    "MedXpertQA-Exam": _EXAM,
    "MedQA-Diag": _EXAM,
    "PMC-Treatment": _CASE.format("relevant passages that help answer the case"),
    "PMC-Clinical": _CASE.format("similar cases that help diagnose the case"),
    "IIYi-Clinical": _CASE.format("similar cases that help diagnose the case"),
}
"""Data set -> its retrieval instruction, in the benchmark's order (PAPER.md section 3)."""

DOMAINS = tuple(INSTRUCTIONS)
MAX_TOKENS = 512  # PAPER.md section 4: of queries and documents


class _TextRow(msgspec.Struct):
    id: Id
    text: str | None


class _QrelsRow(msgspec.Struct):
    q_id: Id
    p_id: Id
    score: float


def repository(domain: str) -> str:
    """The data set's name on the hub."""
    return f"R2MED/{domain}"


def read_r2med(open_domain: Callable[[str], Source], domains: Sequence[str] = DOMAINS) -> dict[str, Collection]:
    """domain -> collection. `open_domain`: gives the files of one of the data sets.

    Raises InputError for a missing config, and for rows that cannot be used, by file and row.
    """
    return {domain: _read(open_domain(domain), domain) for domain in domains}


def _read(source: Source, domain: str) -> Collection:
    queries: dict[str, Query] = {}
    for place, row in typed(source.rows("query", "query"), _TextRow):
        add_query(queries, place, row.id, row.text or "")
    return collection(
        domain,
        Corpora(source).read("corpus", "corpus", _TextRow),
        queries,
        _qrels(source, domain, queries),
        origin=source.origin,
    )


def _qrels(source: Source, domain: str, queries: dict[str, Query]) -> Qrels:
    qrels: Qrels = {}
    repeated = 0
    for place, row in typed(source.rows("qrels", "qrels"), _QrelsRow):
        query_id, doc_id = identifier(place, row.q_id), identifier(place, row.p_id)
        if query_id not in queries:
            raise InputError(f"{place}: there is no query {shown(query_id)}. Add it or drop the row.")
        if row.score < 0 or not row.score.is_integer():
            raise InputError(
                f"{place}: the score is {row.score:g}; it must be a whole number of 0 (not relevant) or more. Mend it."
            )
        grades = qrels.setdefault(query_id, {})
        if grades.get(doc_id, row.score) != row.score:
            raise InputError(
                f"{place}: query {shown(query_id)} and document {shown(doc_id)} were judged {grades[doc_id]} before "
                f"and {row.score:g} now. Drop one of the two rows."
            )
        repeated += doc_id in grades
        grades[doc_id] = int(row.score)
    if repeated:
        logger.warning("%s: %d judgments stand in the qrels twice with one grade; each counts once.", domain, repeated)
    return qrels
