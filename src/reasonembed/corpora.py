"""Corpora in: BEIR folders, JSONL and parquet files, BRIGHT's and R2MED's layouts, folders of text and Markdown."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from reasonembed.chunks import chunks
from reasonembed.corpus_files import read_documents, split_files
from reasonembed.data_files import DATA_SUFFIXES, JSONL_SUFFIXES
from reasonembed.errors import ConfigError, InputError, shown
from reasonembed.files import open_binary, sha256_file, sha256_json
from reasonembed.records import Document
from reasonembed.texts import text_key

TEXT_SUFFIXES = (".txt", ".md", ".markdown")

_ONE_PLACE = ("corpus", "documents")  # BEIR, R2MED; BRIGHT: a file or a folder of that name


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a corpus is read; part of what its hash names."""

    chunk_chars: int = 0  # files of texts are cut into pieces of so many characters; 0: whole (our choice: 2,000)
    chunk_overlap: int = 200  # characters that neighbouring pieces share at most
    merge_duplicates: bool = False  # of documents with the same text only the first stays

    def __post_init__(self) -> None:
        if self.chunk_chars < 0:
            raise ValueError(f"chunk_chars is {self.chunk_chars}; it must be at least 1, or 0 for whole files.")
        if self.chunk_chars and not 0 <= self.chunk_overlap <= self.chunk_chars // 2:
            raise ValueError(
                f"chunk_overlap is {self.chunk_overlap}; it must lie between 0 and half of chunk_chars, "
                f"{self.chunk_chars // 2}."
            )


class Corpus:
    """Documents by id, in the order of the file, with a hash that names their content.

    merged: the first of several equal documents -> the ids of the others, which are not in the corpus.
    overlapping: a piece of a file -> its neighbours, if they share text with it.
    """

    def __init__(
        self,
        documents: Mapping[str, Document],
        *,
        origin: str,
        sha256: str,
        reading: Reading | None = None,
        merged: Mapping[str, tuple[str, ...]] | None = None,
        overlapping: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.documents = documents if isinstance(documents, dict) else dict(documents)
        self.origin = origin
        self.sha256 = sha256
        self.reading = reading or Reading()
        self.merged = merged or {}
        self.overlapping = overlapping or {}

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


def read_corpus(path: Path | str, reading: Reading | None = None) -> Corpus:
    """The corpus under `path`: a JSONL or parquet file, a folder of them, or a folder of .txt and .md files.

    A folder may be BEIR's (`corpus.jsonl`), R2MED's or BRIGHT's (files in `corpus/` or `documents/`); of
    several splits, one is named as if it were a file: `documents/biology`.
    Raises InputError if there is none, if it is empty, for a duplicate id, for a document without text, and for
    what `read_documents` refuses; ConfigError if `reading` asks to cut what is no folder of texts.
    """
    path = Path(path)
    reading = reading or Reading()
    files = _data_files(path)
    if not files:
        corpus = _read_folder(path, reading)
    elif reading.chunk_chars:
        raise ConfigError(
            f"chunk_chars is {reading.chunk_chars}, but {path} is no folder of .txt/.md files: only those are cut. "
            f"Leave it out, or give a folder of texts."
        )
    else:
        corpus = _read_files(path, files, reading)
    return merge_duplicates(corpus) if reading.merge_duplicates else corpus


def merge_duplicates(corpus: Corpus) -> Corpus:
    """The corpus with the first of all documents of the same normalised text; the others stand in `merged`."""
    first: dict[str, str] = {}
    merged: dict[str, list[str]] = collections.defaultdict(list)
    documents: dict[str, Document] = {}
    for document in corpus:
        kept = first.setdefault(text_key(document.content), document.doc_id)
        if kept == document.doc_id:
            documents[kept] = document
        else:
            merged[kept].append(document.doc_id)
    return Corpus(
        documents,
        origin=corpus.origin,
        sha256=sha256_json({"corpus": corpus.sha256, "merge_duplicates": True}),
        reading=msgspec.structs.replace(corpus.reading, merge_duplicates=True),
        merged={kept: tuple(others) for kept, others in merged.items()},
        overlapping=corpus.overlapping,
    )


def _data_files(path: Path) -> list[Path]:
    """The JSONL or parquet files that make up the corpus; none for a folder of texts."""
    if path.is_dir():
        for name in _ONE_PLACE:
            for suffix in DATA_SUFFIXES:
                if (inner := path / f"{name}{suffix}").exists():
                    return [inner]
            if (path / name).is_dir() and (files := split_files(path / name)):
                return files
        files = split_files(path)
        if files and (texts := [one for one in path.iterdir() if one.suffix.lower() in TEXT_SUFFIXES]):
            raise InputError(
                f"{path} holds both {files[0].name} and {texts[0].name}. Give the data file itself, or a folder "
                f"of either kind."
            )
        return files
    if path.is_file() and path.name.endswith(DATA_SUFFIXES):
        return [path]
    if path.is_file():
        raise InputError(
            f"{path} is neither a folder nor a JSONL file (.jsonl, .jsonl.gz, .jsonl.zst) nor parquet. "
            f'Put one JSON object with "id" and "text" on each line, or give a folder of .txt/.md files.'
        )
    if path.parent.is_dir() and (files := split_files(path.parent, path.name)):
        return files
    raise InputError(
        f"there is no corpus at {path}. Give a BEIR folder, a .jsonl or .parquet file or a folder of .txt/.md files."
    )


def _read_files(path: Path, files: Sequence[Path], reading: Reading) -> Corpus:
    documents: dict[str, Document] = {}
    for file in files:
        for place, document in read_documents(file):
            if document.doc_id in documents:
                raise InputError(
                    f"{file}, {place}: the id {shown(document.doc_id)} stands on "
                    f"{_first_place(files, document.doc_id)} already. Ids must be unique."
                )
            documents[document.doc_id] = document
    if not documents:
        raise InputError(f"the corpus {path} is empty. Put one JSON object with an id and a text on each line.")
    hashes = [sha256_file(file) for file in files]
    return Corpus(
        documents, origin=str(path), sha256=hashes[0] if len(hashes) == 1 else sha256_json(hashes), reading=reading
    )


def _first_place(files: Sequence[Path], doc_id: str) -> str:
    """Read again, so that a million places need not be kept."""
    found = ((file, place) for file in files for place, document in read_documents(file) if document.doc_id == doc_id)
    file, place = next(found)
    return place if len(files) == 1 else f"{place} of {file.name}"


def _read_folder(folder: Path, reading: Reading) -> Corpus:
    documents: dict[str, Document] = {}
    overlapping: dict[str, tuple[str, ...]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in TEXT_SUFFIXES or not path.is_file():
            continue
        doc_id = path.relative_to(folder).as_posix()
        pieces = _pieces(doc_id, _read_text(path), reading)
        documents |= {piece.doc_id: piece for piece in pieces}
        if reading.chunk_chars and reading.chunk_overlap:
            overlapping |= _neighbours([piece.doc_id for piece in pieces])
    if not documents:
        raise InputError(
            f"the folder {folder} holds neither corpus.jsonl nor any .txt or .md file. "
            f"Give a BEIR folder, a .jsonl or .parquet file or a folder of texts."
        )
    sha256 = sha256_json({d.doc_id: d.text for d in documents.values()})
    return Corpus(documents, origin=str(folder), sha256=sha256, reading=reading, overlapping=overlapping)


def _read_text(path: Path) -> str:
    with open_binary(path) as handle:
        raw = handle.read()
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8 (byte {error.start}). Save the file as UTF-8.") from error
    if not text.strip():
        raise InputError(f"{path} has no text. Write some or remove the file.")
    return text


def _pieces(doc_id: str, text: str, reading: Reading) -> list[Document]:
    if not reading.chunk_chars:
        return [Document(doc_id=doc_id, text=text)]
    pieces = chunks(text, chars=reading.chunk_chars, overlap=reading.chunk_overlap)
    return [Document(doc_id=f"{doc_id}#{number:04}", text=piece) for number, piece in enumerate(pieces, 1)]


def _neighbours(doc_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each piece of a file -> those before and after it."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys(doc_ids, ())
    for one, other in pairwise(doc_ids):
        found[one] = (*found[one], other)
        found[other] = (*found[other], one)
    return found


__all__ = ["JSONL_SUFFIXES", "TEXT_SUFFIXES", "Corpus", "Reading", "merge_duplicates", "read_corpus"]
