"""S2 and S6: files made to harm, one for each reader: nothing in them runs, and none takes more memory than its size
allows. Each is an error that names the file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zstandard

from reasonembed.beir import read_beir
from reasonembed.config import load_toml
from reasonembed.corpora import read_corpus
from reasonembed.data_files import read_parquet
from reasonembed.domains import load_domain
from reasonembed.encoder.folder import read_model_folder
from reasonembed.encoder.shards import VectorCache
from reasonembed.errors import ReasonEmbedError
from reasonembed.evaluate.search_results import read_search_results
from reasonembed.files import MAX_RATIO, read_lines, unpacked_limit_bytes
from reasonembed.llm.chat import Reply
from reasonembed.llm.journal import Journal
from reasonembed.llm.prices import load_prices
from reasonembed.llm.reply_rows import BadRow, RowFormat, _checksum
from reasonembed.manifest import read_manifest
from reasonembed.redapter.checkpoint import newest_checkpoint
from reasonembed.redapter.data import read_released
from reasonembed.redapter.log import read_log
from reasonembed.redapter.receipt import read_manifest as read_training_manifest
from reasonembed.remixer.config import SynthesisConfig
from reasonembed.trec import read_trec_qrels, read_trec_run

DEEP = "[" * 200_000
MiB = 1 << 20


class Canary:
    """Pickled, it writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.path, "it sang")


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "corpus": ("c.jsonl", lambda path: list(read_corpus(path))),
    "corpus, gz": ("c.jsonl.gz", lambda path: list(read_corpus(path))),
    "corpus, zst": ("c.jsonl.zst", lambda path: list(read_corpus(path))),
    "corpus, parquet": ("c.parquet", lambda path: list(read_corpus(path))),
    "released": ("biology-formatted.jsonl", read_released),
    "toml": ("c.toml", lambda path: load_toml(path, SynthesisConfig)),
    "domain": ("d.toml", load_domain),
    "prices": ("p.toml", load_prices),
    "journal": ("journal.sqlite", lambda path: Journal(path).close()),
    "manifest": ("manifest.json", lambda path: read_manifest(path.parent)),
    "training manifest": ("manifest.json", lambda path: read_training_manifest(path.parent)),
    "search results": ("r.json", read_search_results),
    "run": ("r.trec", read_trec_run),
    "qrels": ("q.qrels", read_trec_qrels),
}


def contents(canary: Path) -> dict[str, bytes]:
    sung = pickle.dumps(Canary(canary))
    return {
        "pickle": sung,
        "pickle, gz": gzip.compress(sung),
        "pickle, zst": zstandard.compress(sung),
        "deep JSON": b'{"_id": "a", "text": "b", "more": ' + DEEP.encode() + b"}",
        "deep JSON, gz": gzip.compress(b'{"_id": "a", "text": "b", "more": ' + DEEP.encode() + b"}"),
        "deep TOML": b"seed = " + DEEP.encode() + b"]" * len(DEEP),
        "a key of many parts": b"a" + b".a" * 20_000 + b" = 1",
        "a quoted key of many parts": b'"a b"' + b'."a b"' * 20_000 + b" = 1",
        "a table of many parts": b"[" + b"a." * 20_000 + b"a]",
        "a long number": b"seed = " + b"9" * 10_000,
        "lone surrogates": b'{"_id": "a", "text": "\\ud800"}',
        "NUL": b"\x00" * 4096,
        "parquet's magic alone": b"PAR1" + b"\xff" * 64 + b"PAR1",
        "SQLite's magic alone": b"SQLite format 3\x00" + b"\xff" * 4096,
    }


@pytest.mark.parametrize("reader", READERS)
def test_a_malicious_file_is_an_error_that_names_it_and_nothing_runs(reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    canary = tmp_path / "canary"
    for kind, content in contents(canary).items():
        path = tmp_path / kind.replace(" ", "-") / name
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(ReasonEmbedError) as refused:
            read(path)
        assert str(path) in str(refused.value), kind
        assert len(str(refused.value)) < 1000, kind
    assert not canary.exists()


def test_the_canary_sings_where_pickles_are_loaded(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))  # noqa: S301
    assert (tmp_path / "canary").exists()


class Encodes:
    dtype, max_tokens, dimension = "float32", 8, 3

    def encode(self, texts, *, prompt="", max_tokens=None):
        return np.ones((len(texts), 3), dtype=np.float32)


def npy(header: str) -> bytes:
    packed = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(packed)) + packed


@pytest.mark.parametrize(
    "content",
    [
        "an object array",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 99999999999)}"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 3)}") + b"\x00" * 64,
        npy("__import__('os').abort()"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}"),
        b"\x93NUMPY\x09\x09",
    ],
    ids=["objects", "huge shape", "object type", "code", "negative", "version"],
)
def test_a_malicious_npy_is_damage_and_nothing_runs(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "b"}')
    corpus, cache = read_corpus(tmp_path / "c.jsonl"), VectorCache(tmp_path / "cache", {"model": "m"})
    cache.document_vectors(Encodes(), corpus)
    (path,) = (tmp_path / "cache").rglob("*.npy")
    if isinstance(content, str):
        np.save(path, np.array([[Canary(tmp_path / "canary")] * 3], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(content)
    with pytest.raises(ReasonEmbedError, match=r"is damaged|were expected") as refused:
        cache.document_vectors(Encodes(), corpus)
    assert str(path) in str(refused.value) and not (tmp_path / "canary").exists()


def safetensors(header: object, size: int | None = None) -> bytes:
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed) if size is None else size) + packed


@pytest.mark.parametrize(
    "content",
    [
        safetensors({}, size=1 << 62),
        safetensors(
            {"embeddings.word_embeddings.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}
        ),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 40]}}),
        struct.pack("<Q", 200_000) + DEEP.encode(),
        b"",
    ],
    ids=["header size", "shape", "offsets", "deep header", "empty"],
)
def test_malicious_weights_are_refused(tiny_models: dict[str, Path], tmp_path: Path, content: bytes) -> None:
    import shutil

    from reasonembed.encoder.model import Encoder

    folder = tmp_path / "model"
    shutil.copytree(tiny_models["bert"], folder)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ReasonEmbedError, match="model"):
        Encoder.load(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json", "modules.json"])
def test_a_malicious_tokenizer_or_config_is_refused(minilm_path: Path, tmp_path: Path, name: str) -> None:
    import shutil

    from reasonembed.encoder.model import Encoder

    for number, content in enumerate((DEEP.encode(), pickle.dumps(Canary(tmp_path / "canary")), b"{", b"\xff")):
        folder = shutil.copytree(minilm_path, tmp_path / str(number))
        (folder / name).write_bytes(content)
        with pytest.raises(ReasonEmbedError, match=str(folder)):
            Encoder.load(folder)
    assert not (tmp_path / "canary").exists()


def test_deep_json_in_a_model_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auto_map": ' + DEEP)
    with pytest.raises(ReasonEmbedError, match=r"config\.json: broken JSON"):
        read_model_folder(tmp_path)


def test_deep_json_in_a_checkpoint_is_damage_and_in_a_training_log_no_step(tmp_path: Path) -> None:
    state = tmp_path / "step-00000001" / "state.json"
    state.parent.mkdir()
    state.write_text('{"step": 1, "receipt": {"config": {"loss": ' + DEEP)
    with pytest.raises(ReasonEmbedError, match=r"step-00000001 is damaged: state\.json cannot be read .*resume=False"):
        newest_checkpoint(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": ' + DEEP)
    assert read_log(tmp_path / "log.jsonl") == []


def pack(suffix: str, piece: bytes, times: int) -> bytes:
    if suffix == ".gz":
        compressor = __import__("zlib").compressobj(9, wbits=31)
        return b"".join([*(compressor.compress(piece) for _ in range(times)), compressor.flush()])
    zstd = zstandard.ZstdCompressor(level=3).compressobj()
    return b"".join([*(zstd.compress(piece) for _ in range(times)), zstd.flush()])


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("line", [b'{"_id": "%s", "text": "b"}\n' % (b"a" * 900), b"\n"], ids=["rows", "blank lines"])
def test_a_bomb_of_short_lines_ends_where_no_text_shrinks_so_far(
    tmp_path: Path, suffix: str, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reasonembed.files.MAX_LINE_BYTES", 1 << 16)
    piece = line * (MiB // len(line))
    path = tmp_path / f"bomb.jsonl{suffix}"
    path.write_bytes(pack(suffix, piece, 4))
    assert 4 * len(piece) > unpacked_limit_bytes(path.stat().st_size)
    read = 0
    with pytest.raises(ReasonEmbedError, match=r"bomb.*unpacks to more than [\d,]+: no text shrinks so far") as refused:
        for _, found in read_lines(path):
            read += len(found)
    assert read <= unpacked_limit_bytes(path.stat().st_size) and str(path) in str(refused.value)


def test_what_shrinks_as_texts_do_is_read_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that differ in a number alone shrink by far more than texts, and less than the bound."""
    monkeypatch.setattr("reasonembed.files.MAX_LINE_BYTES", 1 << 16)
    rows = b"".join(b'{"_id": "d%d", "text": "the same few words again and again"}\n' % n for n in range(50_000))
    for name, content in (("a.jsonl.gz", gzip.compress(rows)), ("a.jsonl.zst", zstandard.compress(rows, 6))):
        (tmp_path / name).write_bytes(content)
        assert 10 < len(rows) / len(content) < MAX_RATIO / 2
        assert sum(1 for _ in read_lines(tmp_path / name)) == 50_000


def test_a_parquet_bomb_is_refused_by_what_its_footer_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    monkeypatch.setattr("reasonembed.files.MAX_LINE_BYTES", 1 << 16)
    path = tmp_path / "bomb.parquet"
    table = pa.table({"id": [str(n) for n in range(20)], "text": ["a" * MiB] * 20})
    write_table(table, path, compression="zstd", use_dictionary=False)
    assert 20 * MiB > unpacked_limit_bytes(path.stat().st_size)
    for read in (read_corpus, lambda place: list(read_parquet(place))):
        with pytest.raises(ReasonEmbedError, match=r"bomb\.parquet has [\d,]+ bytes and unpacks to [\d,]+: no text"):
            read(path)
    assert [row["id"] for _, row in read_parquet(path, ["id"])] == table["id"].to_pylist()


BOMB_READER = """
import resource, sys
from pathlib import Path
from reasonembed.corpora import read_corpus
from reasonembed.errors import ReasonEmbedError
list(read_corpus(Path(sys.argv[1])))  # what reading takes is loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(len(read_corpus(Path(sys.argv[2]))))
except ReasonEmbedError as error:
    print(type(error).__name__)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_text_that_a_parquet_file_holds_once_and_names_a_thousand_times_takes_its_room_once(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pa.table({"id": ["a"], "text": ["b"]}), tmp_path / "small.parquet")
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["a" * (8 * MiB)]))
    write_table(pa.table({"id": [str(n) for n in range(2000)], "text": text}), tmp_path / "bomb.parquet")
    command = [sys.executable, "-c", BOMB_READER, str(tmp_path / "small.parquet"), str(tmp_path / "bomb.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows, grown_mib = done.stdout.split()
    assert rows == "2000" and int(grown_mib) < 400, "16 GiB, written out"


def test_the_longest_text_of_a_parquet_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    monkeypatch.setattr("reasonembed.data_files.MAX_LINE_BYTES", 1000)
    write_table(pa.table({"id": ["a", "b"], "text": ["fits", "x" * 1001]}), tmp_path / "c.parquet")
    with pytest.raises(ReasonEmbedError, match=r"c\.parquet, after row 0: a text is longer"):
        read_corpus(tmp_path / "c.parquet")


def test_a_journals_reply_that_unpacks_to_more_than_a_reply_is_damage() -> None:
    row = RowFormat().pack(b"k" * 32, Reply("id", "text"), model="m", answered_at=1.0)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(msgspec.json.encode({"text": "a"}))
    deep = zstandard.compress(b'{"text":"a","more":' + DEEP.encode())
    for body in (zstandard.compress(b'{"text":"' + b"a" * (65 * MiB) + b'"}'), unsized, b"no zstd", deep):
        altered = row._replace(body=body)
        altered = altered._replace(checksum=_checksum(altered))  # whoever alters it can do that too
        with pytest.raises(BadRow):
            RowFormat().unpack(altered)


def test_a_beir_folder_packed_as_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reasonembed.files.MAX_LINE_BYTES", 1 << 16)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl.gz").write_bytes(pack(".gz", b"\n" * MiB, 2))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "why"}')
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    with pytest.raises(ReasonEmbedError, match=r"corpus\.jsonl\.gz has [\d,]+ bytes and unpacks"):
        read_beir(tmp_path)


def test_a_journal_with_triggers_of_its_own_runs_none(tmp_path: Path) -> None:
    """A trigger could rewrite what is put; it is no part of the schema that we know."""
    import sqlite3

    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.put_many([(b"k" * 32, Reply("id", "text"))])
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TRIGGER evil AFTER INSERT ON replies BEGIN UPDATE replies SET failure = 'x'; END")
    raw.close()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ReasonEmbedError, match="the trigger 'evil' is none of ours"):
        Journal(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
