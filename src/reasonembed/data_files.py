"""Files of rows, JSONL (plain, .gz, .zst) or parquet, read in batches: what fields they have, and rows of one type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reasonembed.errors import InputError, MissingExtra, shown
from reasonembed.files import read_numbered_jsonl

JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
DATA_SUFFIXES = (*JSONL_SUFFIXES, ".parquet")

_BATCH_ROWS = 4096

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

    Raises as `field_names`.
    """
    number = 0
    with _parquet(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, row


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Any]:
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
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read: {error}. It is truncated or not what its name "
            f"says; copy or download it again."
        ) from error
