"""What an endpoint's response means: a reply, a fault that may pass, or that nothing will help. Pure."""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from reasonembed.llm.chat import Failure, Reply
from reasonembed.llm.replies import BrokenResponse, UnknownModelName, parse_response

_MESSAGE_CHARS = 400
_BUSY = frozenset({503, 529})  # besides 429
_PASSING = frozenset({408, 409, 423, 425})  # besides 5xx: time-outs, conflicts, too early
_ABOUT_REQUEST = frozenset({400, 404, 413, 422})
_TOO_LONG = re.compile(r"context.?length|too long|too many tokens|maximum.{0,40}tokens|exceeds?\b.{0,40}\btokens", re.I)
_NO_MODEL = re.compile(r"\bmodel\b.{0,200}\b(not found|not exist|unknown|not available|no such)|model_not_found", re.I)
_REFUSED_PARAMETER = re.compile(
    r"(?=.*(not (support|permitted|allowed)|unsupported|unrecogni[sz]ed|unknown|unexpected|extra inputs))"
    r".*?\b(temperature|top_p|top_k|max_tokens|max_completion_tokens|seed|chat_template_kwargs|enable_thinking)\b",
    re.I | re.S,
)


class Again(msgspec.Struct, frozen=True):
    """No answer this time, though there may be one later."""

    cause: str
    after_s: float | None = None  # what Retry-After asks for
    uses_attempt: bool = True  # False for 429: the server is busy, nothing failed
    busy: bool = False  # the server has too much to do: it is to be asked less at once


class Hopeless(msgspec.Struct, frozen=True):
    """No request of this kind will be answered until somebody changes something."""

    cause: str
    remedy: str = ""
    wants_key: bool = False  # the remedy is the key, of which only the client knows the variable


class Problem(msgspec.Struct, frozen=True):
    """A server's error message in whichever of the usual forms it came; `stated` if it is an API's own."""

    message: str
    code: str = ""
    stated: bool = False


def judge(
    status: int,
    body: bytes,
    custom_id: str,
    *,
    after_s: float | None = None,
    check_model: Callable[[str], None] | None = None,
) -> Reply | Again | Hopeless:
    """What a response to a chat request means.

    after_s: seconds that its Retry-After asks for, if any.  check_model: see `parse_response`.
    """
    if status == 200:
        try:
            return parse_response(body, custom_id, check_model=check_model)
        except BrokenResponse as broken:
            return Again(str(broken), after_s, uses_attempt=not isinstance(broken, UnknownModelName))
    problem = read_problem(body)
    said = f"HTTP {status}: {problem.message}" if problem.message else f"HTTP {status}"
    if status == 429:
        if problem.code == "insufficient_quota":
            return Hopeless(said, "Top up the account or use another key, then run the same command again.")
        return Again(said, after_s, uses_attempt=False, busy=True)
    if status >= 500 or status in _PASSING:
        return Again(said, after_s, busy=status in _BUSY)
    if status in (401, 403):
        return Hopeless(said, wants_key=True)
    if status in _ABOUT_REQUEST:
        return _refusal(status, problem, said, custom_id)
    return Hopeless(said, "Check the base URL (it usually ends in /v1) and what the server's log says.")


def _refusal(status: int, problem: Problem, said: str, custom_id: str) -> Reply | Hopeless:
    """A final failure where the request is at fault; Hopeless where each further one would share its fate."""
    message = problem.message
    kind: Any = "filtered" if problem.code == "content_filter" else "invalid"
    if kind == "invalid" and status != 413 and not _TOO_LONG.search(message):
        if _NO_MODEL.search(f"{problem.code} {message}") or (status == 404 and "model" in message.lower()):
            return Hopeless(said, "Name a model that the server lists under /models.")
        if status == 404 and not problem.stated:
            return Hopeless(said, "There is no chat endpoint at that address: the base URL usually ends in /v1.")
        if _REFUSED_PARAMETER.match(message):
            return Hopeless(said, "Leave that setting out of the stage's sampling, or use a model that takes it.")
    return Reply(custom_id=custom_id, text="", failure=Failure(kind, said))


def read_problem(body: bytes) -> Problem:
    """The error message in `body`: OpenAI's form, vLLM's, FastAPI's, or the start of what text there is."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Problem(_clip(body[:2000].decode("utf-8", "replace")))
    if not isinstance(value, dict):
        return Problem(_clip(str(value)))
    inner = value.get("error", value)
    if isinstance(inner, dict) and "message" in inner:
        return Problem(_clip(str(inner["message"])), code=str(inner.get("code") or ""), stated=True)
    if isinstance(inner, str):
        return Problem(_clip(inner), stated=True)
    return Problem(_clip(str(value.get("detail", value))))


def _clip(message: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return plain if len(plain) <= _MESSAGE_CHARS else plain[: _MESSAGE_CHARS - 3] + "..."


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds to wait by a Retry-After header in either form (seconds, an HTTP date); None if it is neither.

    now: the time as `time.time()` gives it. Never negative.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


__all__ = ["Again", "Hopeless", "Problem", "judge", "parse_retry_after", "read_problem"]
