"""Files of rows, JSONL (plain, .gz, .zst) or parquet, read in batches: what fields they have, and rows of one type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reasonembed.errors import InputError, MissingExtra, shown
from reasonembed.files import MAX_LINE_BYTES, read_numbered_jsonl, unpacked_limit_bytes

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
DATA_SUFFIXES = (*JSONL_SUFFIXES, ".parquet")

Row = TypeVar("Row")


def field_names(path: Path) -> list[str]:
    """The columns of a parquet file, or the keys of a JSONL file's first row; none if it has no rows.

    Raises InputError for a file that is not what its name says, MissingExtra for parquet without pyarrow.
    """
    if path.suffix == ".parquet":
        return parquet_columns(path)
    first = next(read_numbered_jsonl(path, dict[str, msgspec.Raw]), None)
    return [] if first is None else list(first[1])


def read_rows(path: Path, kind: type[Row]) -> Iterator[tuple[int, Row]]:
    """The rows of a JSONL or parquet file, checked as `kind` (a msgspec Struct), each with its number from 1.

    Of a parquet file the columns that `kind` knows are read. Raises InputError naming file and row (`place`) for a
    missing or mistyped field, and what `field_names` raises.
    """
    if path.suffix != ".parquet":
        yield from read_numbered_jsonl(path, kind)
        return
    known = {field.encode_name for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    for number, row in read_parquet(path, [name for name in parquet_columns(path) if name in known]):
        try:
            yield number, msgspec.convert(row, kind)
        except msgspec.ValidationError as error:
            raise InputError(f"{place(path, number)}: {error}. Found {shown(row)}.") from error


def place(path: Path, number: int) -> str:
    """Where a row stands, for messages: "FILE, line 3" of JSONL, "FILE, row 3" of parquet."""
    return f"{path}, {'row' if path.suffix == '.parquet' else 'line'} {number}"


def file_stem(path: Path) -> str:
    """The file's name without the suffix of its format."""
    return next((path.name.removesuffix(suffix) for suffix in DATA_SUFFIXES if path.name.endswith(suffix)), path.name)


def parquet_columns(path: Path) -> list[str]:
    """The names of a parquet file's columns. Raises as `field_names`."""
    with _parquet(path) as file:
        return list(file.schema_arrow.names)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a parquet file with their numbers from 1; of some columns, where these are named.

    A row group at a time, in memory that the file's size bounds, whatever its compression claims (S6); texts that the
    file stores once and names many times stay one object. Raises as `field_names`, and InputError for a file that
    unpacks to more than one of its size can honestly hold, or has a text beyond `MAX_LINE_BYTES`.
    """
    with _parquet(path) as file:
        schema = file.schema_arrow
        columns = list(schema.names if columns is None else columns)
        _check_size(path, _unpacked_bytes(file.metadata, columns))
    texts = [name for name in columns if str(schema.field(name).type) in ("string", "large_string")]
    number = 0
    with _parquet(path, read_dictionary=texts) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns, use_threads=False)
            values = [_values(path, number, table.column(name)) for name in columns]
            for row in zip(*values, strict=True):
                number += 1
                yield number, dict(zip(columns, row, strict=True))


def _unpacked_bytes(metadata: Any, columns: Sequence[str]) -> int:
    """What the footer says of the columns: bytes after unpacking, or values, where those are more."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    chunks = (group.column(number) for group in groups for number in range(group.num_columns))
    inside = tuple(f"{name}." for name in columns)  # a list's values stand in a column below it
    return sum(
        max(chunk.total_uncompressed_size, chunk.num_values)
        for chunk in chunks
        if chunk.path_in_schema in columns or chunk.path_in_schema.startswith(inside)
    )


def _check_size(path: Path, unpacked: int) -> None:
    packed = path.stat().st_size
    if unpacked > unpacked_limit_bytes(packed):
        raise InputError(
            f"{path} has {packed:,} bytes and unpacks to {unpacked:,}: no text shrinks so far. If it is meant, write "
            f"it anew without compression."
        )


def _values(path: Path, number: int, column: Any) -> Iterator[Any]:
    """A column's values; texts come from their dictionary, so that one that is named often is one object."""
    for chunk in column.chunks:
        dictionary = getattr(chunk, "dictionary", None)
        if dictionary is None:
            yield from chunk.to_pylist()
            continue
        if dictionary.nbytes > MAX_LINE_BYTES and any(len(text.as_buffer()) > MAX_LINE_BYTES for text in dictionary):
            raise InputError(f"{path}, after row {number}: a text is longer than {MAX_LINE_BYTES >> 20} MiB. Cut it.")
        texts = dictionary.to_pylist()
        yield from (None if place is None else texts[place] for place in chunk.indices.to_pylist())


@contextlib.contextmanager
def _parquet(path: Path, **options: Any) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra(
            f"{path} is parquet, which needs pyarrow. Install it: pip install 'reasonembed[benchmarks]'"
        ) from error
    if not path.is_file():
        raise InputError(f"there is no file {path}. Check the path.")
    try:
        with pyarrow.parquet.ParquetFile(path, **options) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read: {error}. It is truncated or not what its name "
            f"says; copy or download it again."
        ) from error
