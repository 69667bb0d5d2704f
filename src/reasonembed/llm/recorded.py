"""Replies that a model gave once, kept in files and answered by custom id: the pipeline without a model.

A folder holds one folder per domain: `corpus.jsonl`, `recorded.jsonl` (one source document a line, with its
query, reasoning query, analysis and labels) and optionally `off_domain.jsonl`. "pocket" is the bundled one.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from reasonembed.corpora import read_corpus
from reasonembed.errors import InputError, nearest, shown
from reasonembed.files import read_jsonl, sha256_file
from reasonembed.llm.backend import Ask
from reasonembed.llm.chat import Failure, Reply, Request, split_custom_id
from reasonembed.pocket import POCKET_FOLDER

_QUERY_SUFFIX = "-q0"  # a query's id is its source's id and this
_FILES = ("corpus.jsonl", "recorded.jsonl", "off_domain.jsonl")
_IRRELEVANT = "The document does not bear on what the query needs."


class Recording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of `recorded.jsonl`: all that the model said about one source document."""

    doc_id: str
    query: str
    reasoning_query: str
    analysis: str
    labels: dict[str, tuple[int, str]]  # doc_id -> grade and reason; what is not listed was graded 1


class _OffDomain(msgspec.Struct, frozen=True):
    doc_id: str


class _Domain(msgspec.Struct, frozen=True):
    recordings: dict[str, Recording]
    doc_ids: frozenset[str]
    off_domain: frozenset[str]


class _NotRecorded(Exception):
    pass


class RecordedBackend:
    """Answers from a folder of recordings (or "pocket", the bundled one), by custom id alone.

    `select:DOMAIN:DOC` gives Yes or No, `generate:DOMAIN:SOURCE` the query, `reason:DOMAIN:SOURCE` the
    reasoning query, `annotate:DOMAIN:SOURCE-q0:DOC` analysis, reason and `<score>`. What was not recorded is
    a Failure of kind `not_recorded`. Raises InputError if the folder holds no recordings.
    """

    honours_conditions = False
    keyed_by_custom_id = True

    def __init__(self, folder: Path | str) -> None:
        pocket = str(folder) == "pocket"
        self.folder = POCKET_FOLDER if pocket else Path(folder)
        self._folders = _domain_folders(self.folder)
        self._domains: dict[str, _Domain] = {}
        self.model = f"recorded:{'pocket' if pocket else self.folder.name}@{_digest(self._folders)}"

    def __repr__(self) -> str:
        return f"RecordedBackend({self.model!r}, {len(self._folders)} domains)"

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """A function that answers from the recordings."""

        async def ask(request: Request) -> Reply:
            return self.answer(request)

        yield ask

    def answer(self, request: Request) -> Reply:
        """The recorded reply to `request`."""
        try:
            return Reply(custom_id=request.custom_id, text=self._text(request.custom_id))
        except _NotRecorded as missing:
            return Reply(custom_id=request.custom_id, text="", failure=Failure("not_recorded", str(missing)))

    def _text(self, custom_id: str) -> str:
        try:
            stage, domain_name, parts, sample_index = split_custom_id(custom_id)
        except ValueError:
            raise _NotRecorded(f"the custom id {shown(custom_id)} is not of the form STAGE:DOMAIN:ID") from None
        if sample_index:
            raise _NotRecorded(f"one sample was recorded; this asks for number {sample_index}")
        domain = self._domain(domain_name)
        match stage, parts:
            case "select", [doc_id]:
                return "No" if _known(domain, doc_id) in domain.off_domain else "Yes"
            case "generate", [source_id]:
                return _recording(domain, source_id).query
            case "reason", [source_id]:
                return _recording(domain, source_id).reasoning_query
            case "annotate", [query_id, doc_id]:
                recording = _recording(domain, query_id.removesuffix(_QUERY_SUFFIX))
                return _annotation(recording, _known(domain, doc_id))
        raise _NotRecorded(f"no recording for {shown(custom_id)}: known are select, generate, reason and annotate")

    def _domain(self, name: str) -> _Domain:
        if name not in self._domains:
            folder = self._folders.get(name)
            if folder is None:
                raise _NotRecorded(f"no recordings for the domain {shown(name)}{nearest(name, self._folders)}")
            self._domains[name] = _read_domain(folder)
        return self._domains[name]


def _domain_folders(folder: Path) -> dict[str, Path]:
    found = folder.glob("*/recorded.jsonl") if folder.is_dir() else []
    folders = {path.parent.name: path.parent for path in sorted(found)}
    if not folders:
        raise InputError(
            f"{folder} holds no recordings. Give a folder with DOMAIN/recorded.jsonl and "
            f"DOMAIN/corpus.jsonl, or `recorded:pocket` for the bundled ones."
        )
    return folders


def _digest(folders: dict[str, Path]) -> str:
    """Names the recordings' content, so that a journal does not outlive a change in them."""
    paths = [folder / name for folder in folders.values() for name in _FILES if (folder / name).is_file()]
    names = [f"{path.parent.name}/{path.name} {sha256_file(path)}" for path in paths]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _read_domain(folder: Path) -> _Domain:
    off_domain = folder / "off_domain.jsonl"
    rows = read_jsonl(off_domain, _OffDomain) if off_domain.is_file() else []
    return _Domain(
        recordings={row.doc_id: row for row in read_jsonl(folder / "recorded.jsonl", Recording)},
        doc_ids=frozenset(read_corpus(folder).ids),
        off_domain=frozenset(row.doc_id for row in rows),
    )


def _recording(domain: _Domain, source_id: str) -> Recording:
    if source_id not in domain.recordings:
        raise _NotRecorded(f"nothing was recorded for the source {shown(source_id)}")
    return domain.recordings[source_id]


def _known(domain: _Domain, doc_id: str) -> str:
    if doc_id not in domain.doc_ids:
        raise _NotRecorded(f"the document {shown(doc_id)} is not in the recorded corpus")
    return doc_id


def _annotation(recording: Recording, doc_id: str) -> str:
    """The three steps in the form in which a live model gives them (PAPER.md section 1, step 4)."""
    grade, reason = recording.labels.get(doc_id, (1, _IRRELEVANT))
    return (
        f"Query analysis: {recording.analysis}\n\n"
        f"Document analysis: {reason}\n\n"
        f"Relevance annotation: <score>{grade}</score>"
    )


__all__ = ["RecordedBackend", "Recording"]
