"""Files in and out: JSONL (plain, .gz, .zst), atomic writes, hashes. A file under its own name is whole."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
import zstandard

from reasonembed.errors import InputError, StorageError, shown

Row = TypeVar("Row")

MAX_LINE_BYTES = 64 * 1024 * 1024  # our choice: a decompression bomb has no line ends (S6)
MAX_RATIO = 200  # our choice: texts shrink to a third or a thirtieth; what shrinks more is no text (S6)
_CHECKSUM = "checksum"  # the key of it
_ZSTD_LEVEL = 6
_BUFFER_BYTES = 1 << 16
_ZSTD_STEP = 2048  # bytes unpacked at a time: at most 64 MB of content, even in a bomb


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only when the block ends well, compressed by its suffix.

    The bytes depend on the content alone (no time stamps). Raises StorageError when the disk refuses; the old
    file, if any, is then untouched and nothing half-written is left.
    """
    temporary: Path | None = None
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
            temporary = Path(name)
            with os.fdopen(handle, "wb") as raw:
                with _compressor(raw, path) as out:
                    yield out
                raw.flush()
                os.fsync(raw.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """What the disk refuses in the block, as StorageError naming `path`, which the block must leave old or new."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}. What stood there before is untouched; "
            f"free some space or choose another folder, then run the same command again."
        ) from error


def _compressor(raw: IO[bytes], path: Path) -> contextlib.AbstractContextManager[Any]:
    if path.suffix == ".gz":
        return gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)
    if path.suffix == ".zst":
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).stream_writer(raw, closefd=False)
    return contextlib.nullcontext(raw)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_writer(path) as out:
        out.write(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` (built-in types or Structs) to `path` atomically, indented, keys in their given order."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def write_jsonl(path: Path, rows: Iterable[object]) -> int:
    """Write one JSON object a line, atomically; returns the number of rows."""
    encoder = msgspec.json.Encoder()
    count = 0
    with atomic_writer(path) as out:
        for row in rows:
            out.write(encoder.encode(row) + b"\n")
            count += 1
    return count


def sealed(value: object) -> dict[str, Any]:
    """`value`, which must be an object in JSON, as that is read back, and with a checksum of all the rest of it."""
    content: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return content | {_CHECKSUM: sha256_json(content)}


def read_sealed(raw: bytes, kind: type[Row]) -> Row:
    """What `sealed` was given, from its JSON; without a checksum, as older versions wrote it, it is not held to any.

    Raises msgspec.DecodeError, UnicodeDecodeError or RecursionError for anything else.
    """
    content = msgspec.json.decode(raw)
    checksum = content.pop(_CHECKSUM, None) if isinstance(content, dict) else None
    if checksum is not None and checksum != sha256_json(content):
        raise msgspec.DecodeError("it is not what was written: its checksum is another one")
    return msgspec.convert(content, kind)


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """The (decompressed) bytes of `path`.

    Raises InputError if it is missing, a folder, not to be read, or unpacks to more than `unpacked_limit_bytes`.
    """
    try:
        with path.open("rb") as raw:
            if path.suffix == ".gz":
                yield io.BufferedReader(_Bounded(gzip.GzipFile(fileobj=raw), path), _BUFFER_BYTES)
            elif path.suffix == ".zst":
                yield io.BufferedReader(_Bounded(_ZstdReader(raw), path), _BUFFER_BYTES)
            else:
                yield raw
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}. Check the path.") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; a file was expected.") from error
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. It may be truncated or not be what its name says."
        ) from error


def unpacked_limit_bytes(packed_bytes: int) -> int:
    """How much a file of so many bytes may unpack to: two of the longest lines, and `MAX_RATIO` times its size."""
    return 2 * MAX_LINE_BYTES + MAX_RATIO * packed_bytes


class _Bounded(io.RawIOBase):
    """The content of a packed file, as far as that is credible."""

    def __init__(self, content: Any, path: Path) -> None:
        self._content = content
        self._path, self._packed = path, path.stat().st_size
        self._left = unpacked_limit_bytes(self._packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._content.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise InputError(
                f"{self._path} has {self._packed:,} bytes and unpacks to more than "
                f"{unpacked_limit_bytes(self._packed):,}: no text shrinks so far. If it is meant, unpack it first."
            )
        return count


class _ZstdReader(io.RawIOBase):
    """The content of a .zst file; a file cut short is an error, where zstandard's own reader just ends."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame: Any = None  # the decompressor of the frame that is being read
        self._packed = b""
        self._content = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._content:
            packed = self._packed or self._raw.read(_ZSTD_STEP)
            if not packed:
                if self._frame is not None:
                    raise EOFError("it ends in the middle of the compressed data")
                return 0
            frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._content = memoryview(frame.decompress(packed))
            self._packed = frame.unused_data
            self._frame = None if frame.eof else frame
        count = min(len(buffer), len(self._content))
        buffer[:count] = self._content[:count]
        self._content = self._content[count:]
        return count


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers (from 1) and lines without their ends; blank lines are skipped.

    Raises InputError for a line longer than `MAX_LINE_BYTES`.
    """
    with open_binary(path) as handle:
        number = 0
        while line := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InputError(
                    f"{path}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB; is this a JSONL file?"
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if stripped := line.strip():
                yield number, stripped


def read_jsonl(path: Path, kind: type[Row]) -> Iterator[Row]:
    """The rows of a JSONL file, decoded and checked as `kind`.

    Raises InputError naming file and line for invalid UTF-8, broken JSON, a missing, mistyped or unknown
    field.
    """
    for _, row in read_numbered_jsonl(path, kind):
        yield row


def read_numbered_jsonl(path: Path, kind: type[Row]) -> Iterator[tuple[int, Row]]:
    """As `read_jsonl`, each row with the number of its line."""
    decoder = msgspec.json.Decoder(kind)
    for number, line in read_lines(path):
        try:
            yield number, decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: {_explain(line, error)}") from error


def _explain(line: bytes, error: Exception) -> str:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as bad:
        found = f"byte {bad.start} of the line is 0x{line[bad.start]:02x}"
        return f"not valid UTF-8 ({found}). Save the file as UTF-8."
    if isinstance(error, msgspec.ValidationError):
        return f"{error}. Found {shown(line.decode('utf-8'))}."
    return f"broken JSON ({error}). Each line must be one JSON object; found {shown(line.decode('utf-8'))}."


def sha256_file(path: Path) -> str:
    """The SHA-256 of the file's bytes as they lie on the disk, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """The SHA-256 of `value` as canonical JSON (sorted keys): a name for a configuration."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


__all__ = [
    "MAX_LINE_BYTES",
    "MAX_RATIO",
    "atomic_writer",
    "open_binary",
    "read_jsonl",
    "read_lines",
    "read_numbered_jsonl",
    "read_sealed",
    "sealed",
    "sha256_file",
    "sha256_json",
    "storage_errors",
    "unpacked_limit_bytes",
    "write_bytes",
    "write_json",
    "write_jsonl",
    "write_text",
]
