"""How much may be asked: a limit that adapts to the server, and caps per minute. Pure: time is passed in."""

from __future__ import annotations

import math

_STEPS = 32  # our choice: from one request in flight back to the ceiling in so many rounds of success


class AdaptiveLimit:
    """Requests in flight that a server bears: grows by a step per round of success, is halved when it is busy.

    ceiling: never more, and what it starts at. Source: additive increase, multiplicative decrease (Chiu and
    Jain 1989), as TCP does it: of all refusals in one round only the first halves.
    """

    def __init__(self, ceiling: int) -> None:
        self.limit = float(ceiling)
        self.in_flight = 0
        self._ceiling = ceiling
        self._step = max(1.0, ceiling / _STEPS)
        self._halved_at = -math.inf

    @property
    def load(self) -> float:
        """The share of the limit that is in use; below 1 there is room for a request."""
        return self.in_flight / int(self.limit)

    def grow(self) -> None:
        """A request went well."""
        self.limit = min(float(self._ceiling), self.limit + self._step / self.limit)

    def halve(self, *, sent_at: float, now: float) -> None:
        """A request sent at `sent_at` was one too many; one sent before the last halving says nothing new."""
        if sent_at >= self._halved_at:
            self._halved_at = now
            self.limit = max(1.0, min(self.limit, self.in_flight) / 2)


class RateCap:
    """At most so much a minute (0: no cap), evenly spread: who takes is told how long to wait first."""

    def __init__(self, per_minute: float) -> None:
        self._seconds_each = 60 / per_minute if per_minute else 0.0
        self._free_at = -math.inf

    def take(self, amount: float, *, now: float) -> float:
        """Seconds to wait before going on with `amount`, which is taken at once."""
        starts_at = max(self._free_at, now)
        self._free_at = starts_at + amount * self._seconds_each
        return starts_at - now

    def correct(self, difference: float) -> None:
        """What was taken turned out to be so much more (or less, below 0) than was said."""
        self._free_at += difference * self._seconds_each


class TokenEstimate:
    """What a request will cost in tokens, before it is sent: a guess by its size and by the answers so far."""

    _BYTES_PER_TOKEN = 4.0  # English text in JSON; only the first requests depend on it

    def __init__(self) -> None:
        self._completion_tokens = 0.0
        self._answers = 0

    def guess(self, body_bytes: int, max_tokens: int) -> float:
        """Tokens of prompt and answer; until an answer came, that has its full length."""
        mean = self._completion_tokens / self._answers if self._answers else float(max_tokens)
        return body_bytes / self._BYTES_PER_TOKEN + mean

    def learn(self, completion_tokens: int) -> None:
        """An answer had so many tokens."""
        self._completion_tokens += completion_tokens
        self._answers += 1


__all__ = ["AdaptiveLimit", "RateCap", "TokenEstimate"]
