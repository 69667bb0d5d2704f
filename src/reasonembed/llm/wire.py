"""A request as it goes over the wire: OpenAI's chat format, and the custom id in a header. Pure."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

import msgspec

from reasonembed.llm.chat import Message, Request
from reasonembed.llm.endpoint import Endpoint

_MAX_ID_CHARS = 2000  # servers refuse header lines beyond some 8,000


class _Body(msgspec.Struct, omit_defaults=True):
    """A chat request as it is sent; what is None is left to the endpoint's default."""

    model: str
    messages: tuple[Message, ...]
    temperature: float
    seed: int
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    top_p: float | None = None
    top_k: int | None = None  # as vLLM and SGLang take it
    chat_template_kwargs: dict[str, bool] | None = None


_encode = msgspec.json.Encoder().encode


def wire_body(endpoint: Endpoint, request: Request) -> bytes:
    """The request as JSON in OpenAI's format. The seed is cut to 31 bits, and differs between samples."""
    sampling = request.sampling
    thinking = None if sampling.thinking is None else {"enable_thinking": sampling.thinking}
    body = _Body(
        model=endpoint.model,
        messages=request.messages,
        temperature=sampling.temperature,
        seed=(request.seed + request.sample_index) % 2**31,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        chat_template_kwargs=thinking,
    )
    setattr(body, endpoint.token_limit_field, sampling.max_tokens)
    return _encode(body)


def wire_id(custom_id: str) -> str:
    """The custom id as a header's value: percent-encoded (`unquote` with `surrogatepass` undoes it).

    A very long one becomes a hash. A second try of a request adds `;try=2`, so that a server which still
    works on the first does not take it for a duplicate.
    """
    name = quote(custom_id, safe=":#-_.~", errors="surrogatepass")
    if len(name) <= _MAX_ID_CHARS:
        return name
    return f"sha256-{hashlib.sha256(custom_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


__all__ = ["wire_body", "wire_id"]
