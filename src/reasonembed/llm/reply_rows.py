"""A reply as a row of the journal: its columns, the compressed body, and the checksum over both."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec
import zstandard

from reasonembed.llm.chat import Failure, Reply, Usage
from reasonembed.llm.keys import id_bytes

_MAX_BODY_BYTES = 64 * 1024 * 1024  # our choice: no reply is larger, so a larger one is a bomb


class Row(NamedTuple):
    """A row of table `replies`, in the order of its columns."""

    number: int
    key: bytes
    custom_id: bytes
    failure: str  # its kind; empty: a usable text
    prompt_tokens: int
    completion_tokens: int
    body: bytes
    checksum: bytes
    answered_at: float  # seconds since 1970
    model: str | None  # None: written under schema version 1, which kept no models


class BadRow(ValueError):
    """A row that is not what was written; the message says in what."""


class _Body(msgspec.Struct, omit_defaults=True):
    """What of a reply is compressed; the rest stands in columns."""

    text: str
    thinking: str = ""
    detail: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Body).decode


class RowFormat:
    """Replies to rows and back. Not for several threads at once."""

    def __init__(self) -> None:
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def pack(self, key: bytes, reply: Reply, *, model: str, answered_at: float) -> Row:
        """The row of a reply; its number is 0 until SQLite gives it one."""
        failure = reply.failure
        body = _Body(text=reply.text, thinking=reply.thinking, detail=failure.detail if failure else "")
        row = Row(
            number=0,
            key=key,
            custom_id=id_bytes(reply.custom_id),
            failure=failure.kind if failure else "",
            prompt_tokens=reply.usage.prompt_tokens,
            completion_tokens=reply.usage.completion_tokens,
            body=self._compress(_encode(body)),
            checksum=b"",
            answered_at=answered_at,
            model=model,
        )
        return row._replace(checksum=_checksum(row))

    def unpack(self, row: Row) -> Reply:
        """The reply in a row. Raises BadRow if the row is not what was written."""
        try:
            if _checksum(row) != row.checksum:
                raise BadRow("the checksum does not match")
            if not 0 <= zstandard.frame_content_size(row.body) <= _MAX_BODY_BYTES:
                raise BadRow("its size is impossible")
            body = _decode(self._decompress(row.body))
            failure = None
            if row.failure:
                failure = msgspec.convert({"kind": row.failure, "detail": body.detail}, Failure)
            custom_id = row.custom_id.decode("utf-8", "surrogatepass")
        except (ValueError, TypeError, AttributeError, RecursionError, zstandard.ZstdError) as error:
            # msgspec's errors are ValueErrors
            raise BadRow(str(error)) from error
        usage = Usage(prompt_tokens=row.prompt_tokens, completion_tokens=row.completion_tokens)
        return Reply(custom_id=custom_id, text=body.text, usage=usage, failure=failure, thinking=body.thinking)


def _checksum(row: Row) -> bytes:
    digest = hashlib.blake2b(row.key, digest_size=16)
    digest.update(
        b"%d %d %d %s " % (row.prompt_tokens, row.completion_tokens, len(row.custom_id), row.failure.encode())
    )
    digest.update(row.custom_id)
    digest.update(row.body)
    if row.model is not None:  # rows of schema version 1 end here
        digest.update(f" {row.answered_at.hex()} {row.model}".encode())
    return digest.digest()


def lenient_text(raw: bytes) -> str:
    """For SQLite: damaged text is to reach the checksum, which names the row, and not to fail in the decoder."""
    return raw.decode("utf-8", "replace")


__all__ = ["BadRow", "Row", "RowFormat", "lenient_text"]
