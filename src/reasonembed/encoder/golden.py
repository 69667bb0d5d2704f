"""Golden vectors: a few texts and what the model made of them when it was saved, checked on every load.

Last-token pooling breaks silently: a wrong padding side, a missing EOS or a changed tokenizer gives vectors
that look healthy and are wrong. Here it does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from reasonembed.errors import DamageError
from reasonembed.files import open_binary, write_json

if TYPE_CHECKING:
    from reasonembed.encoder.model import Encoder

GOLDEN_FILE = "golden.json"
GOLDEN_TEXTS = (
    "Why does a pot of water take longer to boil at night in winter?",
    "Nine founders carry at most eighteen copies of any gene.",
    "def area(r):\n    return 3.14159 * r ** 2",
    "Übergrößenträger kostet 12,50 €; 日本語; ∑ x² ≤ 1",
)
_LEAST_COSINE = {"float64": 0.9999, "float32": 0.9999, "float16": 0.999, "bfloat16": 0.99}


class GoldenRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text, its token ids and its vector."""

    text: str
    token_ids: list[int]
    vector: list[float]


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `golden.json`."""

    dtype: Literal["float64", "float32", "float16", "bfloat16"]
    max_tokens: int
    rows: list[GoldenRow]


def write_golden(encoder: Encoder, folder: Path) -> None:
    """Leave `golden.json` in `folder`."""
    ids = encoder.tokenize(GOLDEN_TEXTS)
    vectors = encoder.encode(GOLDEN_TEXTS)
    rows = [
        GoldenRow(text=text, token_ids=row.tolist(), vector=vector.tolist())
        for text, row, vector in zip(GOLDEN_TEXTS, ids, vectors, strict=True)
    ]
    golden = Golden(dtype=encoder.dtype, max_tokens=encoder.max_tokens, rows=rows)  # type: ignore[arg-type]
    write_json(folder / GOLDEN_FILE, golden)


def _read_golden(path: Path, dimension: int) -> Golden:
    """The file's content. Raises DamageError, which says what to do, for anything else than `write_golden` left."""
    with open_binary(path) as handle:
        raw = handle.read()
    try:
        golden = msgspec.json.decode(raw, type=Golden)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"{path} cannot be read: {error}. Copy the model folder again.") from error
    lengths = {len(row.vector) for row in golden.rows}
    if lengths != {dimension} or golden.max_tokens < 1:
        raise DamageError(
            f"{path} cannot be read: it holds vectors of {sorted(lengths)} numbers, cut at {golden.max_tokens} tokens, "
            f"and the model gives {dimension}. Copy the model folder again."
        )
    return golden


def check_golden(encoder: Encoder, folder: Path) -> None:
    """Encode the folder's golden texts, if any, again. Raises DamageError if tokens or vectors differ."""
    path = folder / GOLDEN_FILE
    if not path.exists():
        return
    golden = _read_golden(path, encoder.dimension)
    texts = [row.text for row in golden.rows]
    for row, ids in zip(golden.rows, encoder.tokenize(texts, golden.max_tokens), strict=True):
        if ids.tolist() != row.token_ids:
            raise DamageError(
                f"{folder}: the tokenizer gives {ids.tolist()[:12]}... for {row.text[:30]!r}, it gave "
                f"{row.token_ids[:12]}... when the model was saved (a missing EOS token?). Restore the tokenizer's "
                f"files."
            )
    expected = np.array([row.vector for row in golden.rows], dtype=np.float32)
    cosines = (encoder.encode(texts, max_tokens=golden.max_tokens) * expected).sum(axis=1)
    least = min(_LEAST_COSINE[encoder.dtype], _LEAST_COSINE[golden.dtype])
    if not cosines.min() >= least:
        worst = texts[int(cosines.argmin())]
        raise DamageError(
            f"{folder}: the vector of {worst[:30]!r} has cosine {cosines.min():.4f} to the one it was saved with; at "
            f"least {least} was expected. Weights or pooling changed since: copy the model folder again."
        )
