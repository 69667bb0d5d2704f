"""Corpora in: BEIR folders, JSONL files (plain, .gz, .zst), folders of text and Markdown files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from reasonembed.errors import InputError, shown
from reasonembed.files import open_binary, read_numbered_jsonl, sha256_file, sha256_json
from reasonembed.records import Document

TEXT_SUFFIXES = (".txt", ".md", ".markdown")
JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


class _Row(msgspec.Struct):
    """A line of `corpus.jsonl` (BEIR: `_id`) or of plain JSONL (`id`); other fields are ignored."""

    text: str
    title: str | None = None
    beir_id: str | int | None = msgspec.field(name="_id", default=None)
    id: str | int | None = None


class Corpus:
    """Documents by id, in the order of the file, with a hash that names their content."""

    def __init__(self, documents: Mapping[str, Document], *, origin: str, sha256: str) -> None:
        self.documents = dict(documents)
        self.origin = origin
        self.sha256 = sha256

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents.values())

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self.documents

    def __getitem__(self, doc_id: str) -> Document:
        return self.documents[doc_id]

    @property
    def ids(self) -> list[str]:
        """The document ids in corpus order."""
        return list(self.documents)


def read_corpus(path: Path | str) -> Corpus:
    """The corpus under `path`: a BEIR folder (`corpus.jsonl`), a JSONL file, or a folder of .txt and .md files.

    Raises InputError if there is none, if it is empty, for a duplicate id, for a document without text, and for
    what `read_jsonl` refuses.
    """
    path = Path(path)
    if path.is_dir():
        for suffix in JSONL_SUFFIXES:
            inner = path / f"corpus{suffix}"
            if inner.exists():
                return _read_file(inner)
        return _read_folder(path)
    if not path.exists():
        raise InputError(
            f"there is no corpus at {path}. Give a BEIR folder, a .jsonl file or a folder of .txt/.md files."
        )
    if not path.name.endswith(JSONL_SUFFIXES):
        raise InputError(
            f"{path} is neither a folder nor a JSONL file (.jsonl, .jsonl.gz, .jsonl.zst). "
            f'Put one JSON object with "id" and "text" on each line, or give a folder of .txt/.md files.'
        )
    return _read_file(path)


def _read_file(path: Path) -> Corpus:
    documents: dict[str, Document] = {}
    lines: dict[str, int] = {}
    for number, row in read_numbered_jsonl(path, _Row):
        raw_id = row.beir_id if row.beir_id is not None else row.id
        if raw_id is None or raw_id == "":
            raise InputError(f'{path}, line {number}: the document has no id. Add "_id" (BEIR) or "id".')
        document = Document(doc_id=str(raw_id), text=row.text, title=row.title or "")
        _add(documents, lines, document, path, number)
    if not documents:
        raise InputError(f"the corpus {path} is empty. Put one JSON object with an id and a text on each line.")
    return Corpus(documents, origin=str(path), sha256=sha256_file(path))


def _add(documents: dict[str, Document], lines: dict[str, int], document: Document, path: Path, number: int) -> None:
    doc_id = document.doc_id
    if doc_id in documents:
        raise InputError(
            f"{path}, line {number}: the id {shown(doc_id)} stands on line {lines[doc_id]} already. Ids must be unique."
        )
    if not document.content.strip():
        raise InputError(
            f"{path}, line {number}: the document {shown(doc_id)} has no text. Give it one or drop the line."
        )
    documents[doc_id] = document
    lines[doc_id] = number


def _read_folder(folder: Path) -> Corpus:
    documents: dict[str, Document] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in TEXT_SUFFIXES or not path.is_file():
            continue
        doc_id = path.relative_to(folder).as_posix()
        with open_binary(path) as handle:
            raw = handle.read()
        try:
            text = raw.decode("utf-8").removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not valid UTF-8 (byte {error.start}). Save the file as UTF-8.") from error
        if not text.strip():
            raise InputError(f"{path} has no text. Write some or remove the file.")
        documents[doc_id] = Document(doc_id=doc_id, text=text)
    if not documents:
        raise InputError(
            f"the folder {folder} holds neither corpus.jsonl nor any .txt or .md file. "
            f"Give a BEIR folder, a .jsonl file or a folder of texts."
        )
    return Corpus(documents, origin=str(folder), sha256=sha256_json({d.doc_id: d.text for d in documents.values()}))
