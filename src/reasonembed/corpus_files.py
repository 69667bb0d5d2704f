"""The files of a corpus, document by document: JSONL (plain, .gz, .zst) and parquet, under the field's usual names.

Ids stand under `_id` (BEIR), `id` (BRIGHT, R2MED) or `docid`; texts under `text`, `content` (BRIGHT) or
`contents`; titles under `title`. Other fields are ignored. Files are read in batches, never whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.data_files import DATA_SUFFIXES, file_stem, parquet_columns, read_parquet
from reasonembed.errors import InputError, shown
from reasonembed.files import read_numbered_jsonl
from reasonembed.records import Document

_IDS = ("_id", "id", "docid")
_TEXTS = ("text", "content", "contents")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")  # a split's files, as `datasets` names them
_NOT_DOCUMENTS = ("queries", "query", "qrels", "examples")


class _Row(msgspec.Struct):
    """A line of a JSONL file."""

    beir_id: str | int | None = msgspec.field(name="_id", default=None)
    id: str | int | None = None
    docid: str | int | None = None
    text: str | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType = msgspec.UNSET
    contents: str | msgspec.UnsetType = msgspec.UNSET
    title: str | None = None


def read_documents(path: Path) -> Iterator[tuple[str, Document]]:
    """The documents of one file in its order, each with its place there ("line 3", "row 3").

    Raises InputError naming file and place for a document without id or text, for a value of the wrong type,
    and for a file that is not what its name says; MissingExtra for parquet without pyarrow.
    """
    rows = _parquet_rows(path) if path.name.endswith(".parquet") else _jsonl_rows(path)
    for place, raw_id, text, title in rows:
        if raw_id is None or raw_id == "":
            raise InputError(f'{path}, {place}: the document has no id. Add "_id" (BEIR) or "id".')
        document = Document(doc_id=str(raw_id), text=text, title=title)
        if not document.content.strip():
            raise InputError(
                f"{path}, {place}: the document {shown(document.doc_id)} has no text. Give it one or drop it."
            )
        yield place, document


def split_files(folder: Path, split: str | None = None) -> list[Path]:
    """The data files directly in `folder`, by name; of one split if there are several (`SPLIT-00000-of-00002`).

    Raises InputError if they belong to several splits and none is named.
    """
    files = [path for path in sorted(folder.iterdir()) if path.name.endswith(DATA_SUFFIXES) and path.is_file()]
    files = [path for path in files if file_stem(path) not in _NOT_DOCUMENTS]
    splits = {path: found.group(1) for path in files if (found := _SHARD.fullmatch(file_stem(path)))}
    if split is not None:
        return [path for path in files if splits.get(path) == split]
    names = sorted(set(splits.values()))
    if len(names) > 1:
        raise InputError(
            f"{folder} holds several splits: {', '.join(names)}. Name one, as if it were a file: {folder / names[0]}."
        )
    return files


Fields = tuple[str, str | int | None, str, str]  # place, id, text, title


def _jsonl_rows(path: Path) -> Iterator[Fields]:
    for number, row in read_numbered_jsonl(path, _Row):
        raw_id = next((one for one in (row.beir_id, row.id, row.docid) if one is not None), None)
        text = next((one for one in (row.text, row.content, row.contents) if isinstance(one, str)), None)
        if text is None:
            raise InputError(f"{path}, line {number}: missing required field `text` (or `content`, `contents`).")
        yield f"line {number}", raw_id, text, row.title or ""


def _parquet_rows(path: Path) -> Iterator[Fields]:
    names = parquet_columns(path)
    id_column, text_column = (_column(path, names, known) for known in (_IDS, _TEXTS))
    columns = [id_column, text_column, *(name for name in ("title",) if name in names)]
    for number, row in read_parquet(path, columns):
        yield _checked_row(path, number, row[id_column], row[text_column], row.get("title"))


def _column(path: Path, names: list[str], known: tuple[str, ...]) -> str:
    for name in known:
        if name in names:
            return name
    raise InputError(
        f"{path} has no column {', '.join(known[:-1])} or {known[-1]}; its columns are {', '.join(names) or 'none'}. "
        f"Rename the one that is meant."
    )


def _checked_row(path: Path, number: int, raw_id: Any, text: Any, title: Any) -> Fields:
    if isinstance(raw_id, bool) or not isinstance(raw_id, str | int | None):
        raise InputError(f"{path}, row {number}: the id is {shown(raw_id)}; it must be a text or a whole number.")
    if not isinstance(text, str):
        raise InputError(f"{path}, row {number}: the text is {shown(text)}; every document needs one. Drop the row.")
    if not isinstance(title, str | None):
        raise InputError(f"{path}, row {number}: the title is {shown(title)}; it must be a text.")
    return f"row {number}", raw_id, text, title or ""
