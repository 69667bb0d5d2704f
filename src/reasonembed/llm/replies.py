"""Parsing of the OpenAI wire format: a response's bytes to a `Reply`. Pure; nothing is guessed over."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from reasonembed.errors import shown
from reasonembed.llm.chat import Failure, FailureKind, Reply, Usage

_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_OPEN, _CLOSE = "<think>", "</think>"
_TAIL_CHARS = 200  # of a truncated text, kept for people to look at
_MAX_TOKENS = 2**53  # a count beyond this is nonsense

_BROKEN_ENDINGS = frozenset({"error", "abort", "cancelled"})  # vLLM, SGLang, routers: the generation was cut short


class BrokenResponse(ValueError):
    """A body that is no chat completion: a fault of transport that may pass, not a model's answer."""


class UnknownModelName(BrokenResponse):
    """A reply under a name that was not asked for, from a server whose habits are not known yet."""


class Parsed(msgspec.Struct, frozen=True):
    """A text with its thinking taken out; `unclosed` if the thinking never ended."""

    text: str
    thinking: str
    unclosed: bool = False


class _Part(msgspec.Struct):
    type: str = "text"
    text: str = ""


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: Any = None  # no standard governs these two: whatever is no text is ignored
    reasoning: Any = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    model: Any = None
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Completion).decode


def parse_response(body: bytes, custom_id: str, *, check_model: Callable[[str], None] | None = None) -> Reply:
    """The reply in a chat completion's body (its first choice).

    Failures: `filtered` (finish reason content_filter), `refused` (a refusal), `truncated` (finish reason
    length), `empty` (no text beside the thinking). Raises BrokenResponse for anything that is no completion.
    check_model: gets the name of the model that the server says it used, and raises BrokenResponse if that is
    another than was asked.
    """
    completion = _decoded(body)
    if check_model is not None and isinstance(completion.model, str) and completion.model:
        check_model(completion.model)
    return _reply(completion.choices[0], custom_id, _usage(completion.usage))


def read_text(text: str, custom_id: str, *, finish_reason: str, usage: Usage) -> Reply:
    """The reply in a text that a model wrote in this process, with thinking and failures as from a server.

    finish_reason: "stop", or "length" if it was cut off.
    """
    return _reply(_Choice(_Message(content=text), finish_reason), custom_id, usage)


def _reply(choice: _Choice, custom_id: str, usage: Usage) -> Reply:
    message = choice.message
    parsed = split_thinking(_content(message))
    stated = [text for text in (message.reasoning_content, message.reasoning) if isinstance(text, str) and text]
    thinking = stated[0] if stated else parsed.thinking
    failure = _failure(choice, parsed)
    return Reply(
        custom_id=custom_id,
        text="" if failure else parsed.text,
        usage=usage,
        failure=failure,
        thinking=thinking.strip(),
    )


def split_thinking(text: str) -> Parsed:
    """`text` without `<think>...</think>` and without what stands before a lone `</think>`.

    Chat templates may open the thinking in the prompt, so that only its end is in the answer. What follows an
    unclosed `<think>` is thinking.
    """
    if _OPEN not in text and _CLOSE not in text:
        return Parsed(text=text.strip(), thinking="")
    thoughts = [match.group(1).strip() for match in _THOUGHT.finditer(text)]
    rest = _THOUGHT.sub("", text)
    before, lone_close, after = rest.rpartition(_CLOSE)
    if lone_close:
        thoughts.insert(0, before.strip())
        rest = after
    rest, unclosed, tail = rest.partition(_OPEN)
    if unclosed:
        thoughts.append(tail.strip())
    return Parsed(text=rest.strip(), thinking="\n\n".join(filter(None, thoughts)), unclosed=bool(unclosed))


def _decoded(body: bytes) -> _Completion:
    try:
        completion = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        start = shown(body[:200].decode("utf-8", "replace"), 120)
        raise BrokenResponse(f"the response is no chat completion ({error}): {start}") from error
    if not completion.choices:
        raise BrokenResponse("the response holds no choices")
    ending = completion.choices[0].finish_reason
    if ending in _BROKEN_ENDINGS:
        raise BrokenResponse(f"the generation was cut short (finish reason {ending!r})")
    return completion


def _content(message: _Message) -> str:
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content if part.type == "text")
    return message.content or ""


def _failure(choice: _Choice, parsed: Parsed) -> Failure | None:
    kind: FailureKind
    if choice.finish_reason == "content_filter":
        kind, detail = "filtered", parsed.text
    elif choice.message.refusal:
        kind, detail = "refused", choice.message.refusal
    elif choice.finish_reason == "length":
        kind, detail = "truncated", parsed.text
    elif parsed.unclosed:
        kind, detail = "empty", "the thinking never ended"
    elif not parsed.text:
        kind, detail = "empty", ""
    else:
        return None
    return Failure(kind=kind, detail=detail[-_TAIL_CHARS:])


def _usage(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    return Usage(prompt_tokens=_count(usage.prompt_tokens), completion_tokens=_count(usage.completion_tokens))


def _count(tokens: int | None) -> int:
    return tokens if tokens is not None and 0 <= tokens <= _MAX_TOKENS else 0


__all__ = ["BrokenResponse", "Parsed", "UnknownModelName", "parse_response", "read_text", "split_thinking"]
