from __future__ import annotations

import gzip
import hashlib
import stat
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest
import zstandard

from reasonembed import files
from reasonembed.errors import InputError, StorageError
from reasonembed.files import (
    atomic_writer,
    read_jsonl,
    read_lines,
    read_numbered_jsonl,
    sha256_file,
    sha256_json,
    write_json,
    write_jsonl,
    write_text,
)

SUFFIXES = [".jsonl", ".jsonl.gz", ".jsonl.zst"]


class Row(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    count: int = 0


ROWS = [Row("a", 1), Row("ü\u2028\n", 2), Row("", 3)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_come_back_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "deep" / "er" / f"rows{suffix}"
    assert write_jsonl(path, ROWS) == 3
    assert list(read_jsonl(path, Row)) == ROWS
    assert [number for number, _ in read_numbered_jsonl(path, Row)] == [1, 2, 3]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_bytes_depend_on_the_content_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    one, other = tmp_path / f"one{suffix}", tmp_path / f"a much longer name{suffix}"
    write_jsonl(one, ROWS)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_jsonl(other, iter(ROWS))
    assert one.read_bytes() == other.read_bytes()


def test_the_common_tools_can_unpack_what_we_write(tmp_path: Path) -> None:
    write_text(tmp_path / "a.gz", "text")
    write_text(tmp_path / "a.zst", "text")
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"text"
    with (tmp_path / "a.zst").open("rb") as raw:
        assert zstandard.ZstdDecompressor().stream_reader(raw).read() == b"text"


class FullDisk:
    """A file that takes so many writes and then says, as the disk would, that no space is left."""

    def __init__(self, raw: IO[bytes], writes: int) -> None:
        self.raw, self.writes = raw, writes

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()

    def write(self, content: bytes) -> int:
        if self.writes == 0:
            raise OSError(28, "No space left on device")
        self.writes -= 1
        return self.raw.write(content)

    def flush(self) -> None:
        self.raw.flush()

    def fileno(self) -> int:
        return self.raw.fileno()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_full_disk_leaves_the_old_file_whole_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, writes: int
) -> None:
    path = tmp_path / f"rows{suffix}"
    write_jsonl(path, [Row("old")])
    real = files.os.fdopen
    monkeypatch.setattr(files.os, "fdopen", lambda handle, mode: FullDisk(real(handle, mode, 0), writes))
    incompressible = (Row(hashlib.sha256(str(n).encode()).hexdigest()) for n in range(20_000))
    with pytest.raises(StorageError, match=r"rows.*No space left on device.*untouched"):
        write_jsonl(path, incompressible)
    monkeypatch.undo()
    assert list(read_jsonl(path, Row)) == [Row("old")]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_at_the_very_end_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "rows.jsonl"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os if broken == "fsync" else Path, broken, fail)
    with pytest.raises(StorageError, match="Input/output error"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_block_leaves_nothing(tmp_path: Path, interruption: type[BaseException]) -> None:
    with pytest.raises(interruption):
        with atomic_writer(tmp_path / "rows.jsonl.zst") as out:
            out.write(b"half")
            raise interruption
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file/rows.jsonl"):
        write_text(tmp_path / "file" / "rows.jsonl", "x")


def test_written_files_may_be_read_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"name": "a"}\n{"name": \n', r"line 2: broken JSON .*found '\{\"name\":'"),
        (
            b'{"name": "a"}\n\n\n{"name": "\xff"}\n',
            r"line 4: not valid UTF-8 \(byte 10 of the line is 0xff\)",
        ),
        (b'{"count": 1}', "line 1: .*missing required field `name`"),
        (b'{"name": 1}', r"line 1: Expected `str`, got `int`"),
        (b'{"name": "a", "nmae": 1}', "line 1: .*unknown field `nmae`"),
        (b'{"name": "a"} {"name": "b"}', "line 1: broken JSON"),
        (b"[1]", "line 1: Expected `object`"),
        (b"\x00\x01", "line 1: broken JSON"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"rows\.jsonl, {found}"):
        list(read_jsonl(path, Row))


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"name": "a"}\r\n\r\n  \n{"name": "b"}')
    assert [(number, row.name) for number, row in read_numbered_jsonl(path, Row)] == [(1, "a"), (4, "b")]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "not packed"])
def test_a_damaged_packed_file_is_an_error_and_not_a_shorter_file(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    write_jsonl(path, [Row(hashlib.sha256(str(n).encode()).hexdigest()) for n in range(3000)])
    whole = path.read_bytes()
    middle = len(whole) // 2
    spoiled = {
        "truncated": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :],
        "not packed": b'{"name": "plain"}\n',
    }
    path.write_bytes(spoiled[damage])
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        list(read_jsonl(path, Row))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_cut_anywhere_is_noticed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    write_jsonl(path, ROWS)
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            list(read_lines(path))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_flipped_byte_is_noticed_or_harmless(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.jsonl{suffix}"
    write_jsonl(path, ROWS)
    whole, lines = path.read_bytes(), list(read_lines(path))
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert list(read_lines(path)) == lines  # e.g. the time stamp in the head of a .gz
        except InputError:
            continue


def test_files_packed_piece_by_piece_are_read_to_the_end(tmp_path: Path) -> None:
    pieces = [b'{"name": "a"}\n', b"", b'{"name": "b"}\n{"name"', b': "c"}\n']
    (tmp_path / "a.zst").write_bytes(b"".join(zstandard.compress(piece) for piece in pieces))
    (tmp_path / "a.gz").write_bytes(b"".join(gzip.compress(piece) for piece in pieces))
    for name in ("a.zst", "a.gz"):
        assert [row.name for row in read_jsonl(tmp_path / name, Row)] == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / f"bomb{suffix}"
    with atomic_writer(path) as out:
        for _ in range(40):
            out.write(b"0" * (1 << 16))
    with pytest.raises(InputError, match="line 1: longer than 1 MiB"):
        list(read_lines(path))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*nowhere"):
        list(read_lines(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="is a folder"):
        list(read_lines(tmp_path))


def test_json_is_written_for_people(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": Row("x")})
    text = (tmp_path / "a.json").read_text()
    assert text.startswith('{\n  "b": 1,\n  "a": {\n') and text.endswith("}\n")


def test_hashes_are_those_of_the_bytes_and_of_canonical_json(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    values: list[Any] = [{"b": 1, "a": [1, 2]}, {"a": [1, 2], "b": 1}]
    assert sha256_json(values[0]) == sha256_json(values[1]) == hashlib.sha256(b'{"a":[1,2],"b":1}').hexdigest()
    assert sha256_json({"a": [2, 1], "b": 1}) != sha256_json(values[0])
