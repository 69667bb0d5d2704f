"""A small server that answers by a script in OpenAI's wire format, on this machine only: for tests.

    python -m reasonembed.llm.scripted_server --port 0 --latency-s 0.05 --log asked.jsonl [--faults 0.2 --seed 7]

prints its base URL as one line and answers until it is stopped. Equal requests get equal answers; with `--faults`
that share of the tries meets one of the faults of `reasonembed.llm.faults` instead.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote

import msgspec
from aiohttp import web

from reasonembed.llm.chat import Message, Reply, Request, Sampling
from reasonembed.llm.faults import FAULTS, Faults, misbehave
from reasonembed.llm.scripted import ScriptedBackend, plausible_reply
from reasonembed.texts import row_seed

_HOST = "127.0.0.1"
_FINISH_REASONS = {"truncated": "length", "filtered": "content_filter"}
_MAX_REQUEST_BYTES = 16 * 1024 * 1024


class _ChatBody(msgspec.Struct):
    """What we read of a request; other fields (the official client sends some) are ignored."""

    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None


class Asked(msgspec.Struct, frozen=True):
    """A line of the server's log: one request that came in."""

    sha256: str  # of the body
    custom_id: str


def make_app(
    backend: ScriptedBackend, *, latency_s: float = 0.0, log: IO[bytes] | None = None, faults: Faults | None = None
) -> web.Application:
    """An aiohttp application that serves `backend`: `/v1/models` and `/v1/chat/completions`.

    latency_s: waited before each answer.  log: gets an `Asked` as a JSON line for each request, flushed
    before that is answered.  faults: what some tries meet instead of an answer.
    """

    async def models(_: web.Request) -> web.Response:
        entry = {"id": backend.model, "object": "model", "created": 0, "owned_by": "reasonembed"}
        return _json({"object": "list", "data": [entry]})

    async def chat(http_request: web.Request) -> web.StreamResponse:
        raw = await http_request.read()
        custom_id = _custom_id(http_request.headers.get("X-Request-Id", ""))
        if log is not None:
            log.write(msgspec.json.encode(Asked(hashlib.sha256(raw).hexdigest(), custom_id)) + b"\n")
            log.flush()
        await asyncio.sleep(latency_s)
        if faults is not None and (fault := faults.of(http_request.headers.get("X-Request-Id", ""))):
            return await misbehave(fault, http_request)
        try:
            body = msgspec.json.decode(raw, type=_ChatBody)
            request = _request(body, custom_id)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            return _problem(400, f"this request cannot be read: {error}")
        if body.model != backend.model:
            return _problem(404, f"The model `{body.model}` does not exist.", code="model_not_found")
        reply = backend.answer(request)
        if reply.failure is not None and reply.failure.kind in ("invalid", "not_recorded"):
            return _problem(400, reply.failure.detail)
        return _json(_completion(reply, request, backend.model))

    app = web.Application(client_max_size=_MAX_REQUEST_BYTES)
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    return app


def _custom_id(header: str) -> str:
    """The custom id as `wire.wire_id` sent it; a retry has the id of the first try."""
    return unquote(header.partition(";")[0], errors="surrogatepass")


def _request(body: _ChatBody, custom_id: str) -> Request:
    sampling = Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        max_tokens=body.max_tokens or body.max_completion_tokens or 2048,
    )
    return Request(custom_id=custom_id, messages=body.messages, sampling=sampling, seed=body.seed or 0)


def _completion(reply: Reply, request: Request, model: str) -> dict[str, object]:
    kind = reply.failure.kind if reply.failure else ""
    message: dict[str, object] = {"role": "assistant", "content": reply.text}
    if reply.thinking:
        message["reasoning_content"] = reply.thinking
    if reply.failure is not None and kind == "refused":
        message["refusal"] = reply.failure.detail or "I cannot help with that."
    prompt_tokens = reply.usage.prompt_tokens or sum(len(m.content.split()) for m in request.messages)
    completion_tokens = reply.usage.completion_tokens or len(reply.text.split())
    return {
        "id": f"chatcmpl-{row_seed(0, repr(request)):016x}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": _FINISH_REASONS.get(kind, "stop")}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _problem(status: int, message: str, *, code: str = "") -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code or None}
    return _json({"error": error}, status)


async def _serve(app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, _HOST, port).start()
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    sys.stdout.write(f"http://{_HOST}:{runner.addresses[0][1]}/v1\n")
    sys.stdout.flush()
    await stopped.wait()
    await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve plausible replies until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m reasonembed.llm.scripted_server",
        description="Serves plausible scripted replies in OpenAI's wire format, on this machine only.",
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one (the default)")
    parser.add_argument("--model", default="scripted", help="the model's name (default: scripted)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other answers")
    parser.add_argument("--latency-s", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--faults", type=float, default=0.0, metavar="SHARE", help="of the tries that go wrong")
    parser.add_argument("--fault-kinds", nargs="+", choices=FAULTS, default=FAULTS, metavar="KIND", help="default: all")
    parser.add_argument("--log", type=Path, help="append one JSON line for each request to this file")
    options = parser.parse_args(arguments)
    backend = ScriptedBackend(functools.partial(plausible_reply, seed=options.seed), model=options.model)
    faults = Faults(options.faults, seed=options.seed, kinds=tuple(options.fault_kinds)) if options.faults else None
    log = options.log.open("ab") if options.log else None
    try:
        asyncio.run(_serve(make_app(backend, latency_s=options.latency_s, log=log, faults=faults), options.port))
    finally:
        if log is not None:
            log.close()


__all__ = ["Asked", "make_app"]


if __name__ == "__main__":
    main()
