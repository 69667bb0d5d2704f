"""Document vectors on the disk, in shards: encoding that was stopped goes on at the last whole shard.

    CACHE/vectors-HASH/{decides.json, 00000.npy, 00001.npy, ...}

HASH names all that decides the vectors. Every shard but the last has `SHARD_ROWS` rows; a shard is written beside
its place and renamed, so one that has its name is whole. The folder may be deleted at any time.
N: documents, D: dimension, R: rows asked for.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from reasonembed import progress
from reasonembed.corpora import Corpus
from reasonembed.errors import DamageError
from reasonembed.files import atomic_writer, sha256_json, write_json
from reasonembed.workspace import Workspace

SHARD_ROWS = 4096  # our choice: little to lose in a kill, little padding within, a hundred files for 414,000 documents
KeptAs = Literal["float32", "float16"]


class Encodes(Protocol):
    """What is asked of a model here (see `reasonembed.encoder.model.Encoder`)."""

    @property
    def max_tokens(self) -> int:
        """The longest text, special tokens included; 0 where the model cuts by itself."""
        ...

    @property
    def dtype(self) -> str:
        """Of the weights; empty where it is not known."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        ...

    def encode(self, texts: Sequence[str], *, prompt: str = "", max_tokens: int | None = None) -> NDArray[np.float32]:
        """L2-normalised vectors, shape (texts, dimension), in the order of the texts."""
        ...


class Vectors:
    """Memory-mapped shards seen as one array of shape (N, D): rows come by slice or by number."""

    ndim = 2

    def __init__(self, shards: Sequence[NDArray[np.floating]], dimension: int) -> None:
        self._shards = list(shards)
        self._starts = [0, *itertools.accumulate(map(len, shards))]
        self.shape = (self._starts[-1], dimension)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray[np.floating]:
        """The rows of a slice without step, or those of the given numbers, shape (R, D)."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self))
            return self._slice(start, stop)
        numbers = np.asarray(rows)
        picked = np.empty((len(numbers), self.shape[1]), dtype=self._shards[0].dtype)
        shard_of = np.searchsorted(self._starts, numbers, side="right") - 1
        for shard in np.unique(shard_of).tolist():
            places = np.flatnonzero(shard_of == shard)
            picked[places] = self._shards[shard][numbers[places] - self._starts[shard]]
        return picked

    def _slice(self, start: int, stop: int) -> NDArray[np.floating]:
        first = bisect.bisect_right(self._starts, start) - 1
        pieces = []
        for number in range(first, len(self._shards)):
            begin = self._starts[number]
            if begin >= stop:
                break
            pieces.append(self._shards[number][max(0, start - begin) : stop - begin])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty((0, self.shape[1]), np.float32)])


class VectorCache(msgspec.Struct, frozen=True):
    """Where a model keeps the vectors of documents.

    decides: what names the model: the fingerprint of its weights, its pooling.  kept_as: float16 halves the
    disk and moves scores by some 1e-4.
    """

    folder: Path
    decides: dict[str, str]
    kept_as: KeptAs = "float32"
    shard_rows: int = SHARD_ROWS

    def document_vectors(self, encoder: Encodes, corpus: Corpus, *, max_tokens: int | None = None) -> Vectors:
        """The vectors of all documents in corpus order; only shards that are not there yet are encoded.

        Raises DamageError naming a shard that is cut short or not what was written, WorkspaceBusy if another
        process encodes the same, StorageError when the disk refuses.
        """
        names = {
            **self.decides,
            "dtype": encoder.dtype,
            "max_tokens": max_tokens or encoder.max_tokens,
            "prompt": "",  # documents stay bare
            "corpus": corpus.sha256,
            "kept_as": self.kept_as,
            "shard_rows": self.shard_rows,
        }
        folder = self.folder / f"vectors-{sha256_json(names)[:32]}"
        starts = range(0, len(corpus), self.shard_rows)
        paths = [folder / f"{number:05}.npy" for number in range(len(starts))]
        if not all(path.exists() for path in paths):
            with Workspace(folder).lock():
                write_json(folder / "decides.json", names)
                for leftover in folder.glob(".tmp-*"):  # of a process that was killed; the folder is ours alone
                    leftover.unlink()
                self._encode(encoder, corpus, paths, max_tokens)
        sizes = [min(self.shard_rows, len(corpus) - start) for start in starts]
        shards = [self._open(path, (size, encoder.dimension)) for path, size in zip(paths, sizes, strict=True)]
        return Vectors(shards, encoder.dimension)

    def _encode(self, encoder: Encodes, corpus: Corpus, paths: Sequence[Path], max_tokens: int | None) -> None:
        documents = list(corpus)
        with progress.task(f"encode {corpus.origin}", total=len(documents)) as advance:
            for number, path in enumerate(paths):
                part = documents[number * self.shard_rows : (number + 1) * self.shard_rows]
                if not path.exists():
                    vectors = encoder.encode([document.content for document in part], max_tokens=max_tokens)
                    _write(path, vectors.astype(f"<f{np.dtype(self.kept_as).itemsize}"))
                advance(len(part))

    def _open(self, path: Path, shape: tuple[int, int]) -> NDArray[np.floating]:
        try:
            shard: NDArray[np.floating] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DamageError(f"{path} is damaged ({error}). Delete it: it will be computed again.") from error
        if shard.shape != shape or shard.dtype != self.kept_as:
            raise DamageError(
                f"{path} holds {shard.shape} numbers of {shard.dtype}; {shape} of {self.kept_as} were expected. "
                f"Delete it: it will be computed again."
            )
        return shard


def _write(path: Path, vectors: NDArray[np.floating]) -> None:
    """Written in order and renamed: through a memory map, a full disk would be a crash."""
    header: dict[str, Any] = {"descr": vectors.dtype.str, "fortran_order": False, "shape": vectors.shape}
    with atomic_writer(path) as out:
        np.lib.format.write_array_header_1_0(out, header)
        out.write(np.ascontiguousarray(vectors).data)
