"""Parquet in, a row group at a time, in memory that the file's size bounds, whatever its compression claims (S6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reasonembed.errors import InputError, MissingExtra
from reasonembed.files import MAX_LINE_BYTES, unpacked_limit_bytes


def read_parquet(
    path: Path, choose: Callable[[Sequence[str]], Sequence[str]] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a parquet file with their numbers, from 1: column -> value, in plain Python types.

    choose: gets the names of the columns and gives those to read; None reads all.
    Texts that a file stores once and refers to many times stay one object here.
    Raises InputError for what is no parquet file, unpacks to more than a file of its size can honestly hold, or has a
    text beyond `MAX_LINE_BYTES`; MissingExtra without pyarrow.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtra(f"reading {path} needs pyarrow. Install it with: pip install pyarrow") from error
    number, size_bytes = 0, path.stat().st_size if path.exists() else 0
    try:
        with ParquetFile(path) as file:
            schema = file.schema_arrow
            columns = list(schema.names if choose is None else choose(schema.names))
            _check_size(path, _unpacked_bytes(file.metadata, columns))
        texts = [name for name in columns if str(schema.field(name).type) in ("string", "large_string")]
        with ParquetFile(path, read_dictionary=texts) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns, use_threads=False)
                values = [_values(path, number, table.column(name)) for name in columns]
                for row in zip(*values, strict=True):
                    number += 1
                    yield number, dict(zip(columns, row, strict=True))
    except (ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be read after row {number} ({size_bytes:,} bytes): {error}. It may be truncated or not "
            f"be what its name says: make or download it again."
        ) from error


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


def _check_size(path: Path, size: int) -> None:
    packed = path.stat().st_size
    if size > unpacked_limit_bytes(packed):
        raise InputError(
            f"{path} has {packed:,} bytes and unpacks to {size:,}: no text shrinks so far. If it is meant, write it "
            f"anew without compression."
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


__all__ = ["read_parquet"]
