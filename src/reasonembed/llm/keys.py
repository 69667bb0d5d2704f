"""The name under which the journal keeps an answer: a hash of all that decides it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from reasonembed.llm.chat import Request

_encode = msgspec.json.Encoder().encode


class _Question(msgspec.Struct, omit_defaults=True):
    """All that decides an answer; what stands at the endpoint's default is left out."""

    model: str
    messages: Sequence[tuple[str, str]]
    temperature: float
    max_tokens: int
    seed: int
    top_p: float | None = None
    top_k: int | None = None
    thinking: bool | None = None
    sample_index: int = 0
    custom_id: str | None = None


def reply_key(model: str, request: Request, *, with_custom_id: bool = False) -> bytes:
    """32 bytes that name the answer: a hash of the model, messages, sampling, seed and sample index.

    with_custom_id: for recordings and scripts, whose answer depends on the custom id too. Where the endpoint
    stands and how it is called (URL, concurrency, time-outs) is no part of it.
    """
    sampling = request.sampling
    question = _Question(
        model=model,
        messages=[(message.role, message.content) for message in request.messages],
        temperature=float(sampling.temperature),
        max_tokens=sampling.max_tokens,
        seed=request.seed,
        top_p=None if sampling.top_p is None else float(sampling.top_p),
        top_k=sampling.top_k,
        thinking=sampling.thinking,
        sample_index=request.sample_index,
        custom_id=id_bytes(request.custom_id).hex() if with_custom_id else None,
    )
    return hashlib.sha256(_encode(question)).digest()


def id_bytes(custom_id: str) -> bytes:
    """Ids may come from file names, and those may hold what UTF-8 proper cannot."""
    return custom_id.encode("utf-8", "surrogatepass")


__all__ = ["id_bytes", "reply_key"]
