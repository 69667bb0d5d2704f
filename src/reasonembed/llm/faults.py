"""What goes wrong at a server, on purpose and by a seed: how the scripted server misbehaves, for tests."""

from __future__ import annotations

import asyncio
import random

import msgspec
from aiohttp import web

from reasonembed.texts import row_seed

FAULTS = (
    "429",  # too many requests
    "429-later",  # the same, with Retry-After
    "500",
    "hang",  # no answer for a minute
    "reset",  # the connection is cut
    "empty",  # 200 without a body
    "half",  # JSON that ends in the middle
    "wrong-model",  # a fluent answer by another model
    "huge",  # an answer of 10 MB
)
_HANG_S = 60.0
_RETRY_AFTER_S = 0.05
_HUGE_BYTES = 10_000_000


class Faults(msgspec.Struct, frozen=True):
    """A share of the tries that goes wrong, each by one of `kinds`; decided by the seed and the try's wire id."""

    share: float
    seed: int = 0
    kinds: tuple[str, ...] = FAULTS

    def of(self, wire_id: str) -> str:
        """What that try meets; empty: nothing."""
        draw = random.Random(row_seed(self.seed, wire_id))
        return draw.choice(self.kinds) if draw.random() < self.share else ""


async def misbehave(fault: str, request: web.Request) -> web.StreamResponse:
    """The response to `request` that `fault`, one of `FAULTS`, stands for."""
    match fault:
        case "429":
            return web.Response(status=429)
        case "429-later":
            return web.Response(status=429, headers={"Retry-After": str(_RETRY_AFTER_S)})
        case "500":
            return web.Response(status=500, text="upstream failed")
        case "hang":
            await asyncio.sleep(_HANG_S)
        case "reset":
            if request.transport is not None:
                request.transport.abort()
        case "half":
            return web.Response(body=_completion("cut off").removesuffix(b'"}}]}'), content_type="application/json")
        case "wrong-model":
            return web.Response(body=_completion("fluent, and wrong"), content_type="application/json")
        case "huge":
            return web.Response(body=_completion("x" * _HUGE_BYTES), content_type="application/json")
    return web.Response()


def _completion(text: str) -> bytes:
    return msgspec.json.encode({"model": "a-substitute", "choices": [{"message": {"content": text}}]})


__all__ = ["FAULTS", "Faults", "misbehave"]
