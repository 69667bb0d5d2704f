"""Provider batch files in OpenAI's format: a request and an outcome as a line each. Pure.

A line carries the journal's key in hexadecimal as its custom id: a hash of all that decides the answer, so that an
outcome finds its request whatever the order, and no id or text of ours is told.
"""

from __future__ import annotations

import msgspec

from reasonembed.llm.replies import BrokenResponse

MAX_REQUESTS = 50_000  # in one file, as OpenAI has it
MAX_BYTES = 200_000_000
CHAT_PATH = "/v1/chat/completions"


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Problem(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _OutcomeLine(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Problem | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of one request: a response with its status, or (status 0) why there is none."""

    key: bytes
    status: int
    body: bytes
    error: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_OutcomeLine).decode


def request_line(key: bytes, body: bytes) -> bytes:
    """The line that asks for `body` (see `wire.wire_body`)."""
    return _encode(_Line(key.hex(), "POST", CHAT_PATH, msgspec.Raw(body))) + b"\n"


def read_outcome(line: bytes) -> Outcome:
    """The outcome in a line of an output or an error file. Raises BrokenResponse for anything else."""
    try:
        read = _decode(line)
        key = bytes.fromhex(read.custom_id)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BrokenResponse(f"no outcome of a batch ({error})") from error
    if read.response is not None and read.response.status_code:
        return Outcome(key, read.response.status_code, bytes(read.response.body))
    problem = read.error or _Problem()
    return Outcome(key, 0, b"", ": ".join(filter(None, [problem.code, problem.message])) or "no response")


__all__ = ["CHAT_PATH", "MAX_BYTES", "MAX_REQUESTS", "Outcome", "read_outcome", "request_line"]
