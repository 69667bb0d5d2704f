"""What a provider's batch came to: its files of outcomes read line by line, each judged as a server's response is."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from reasonembed.errors import shown
from reasonembed.llm.batch_file import Outcome, read_outcome
from reasonembed.llm.batch_state import BatchState, OpenBatch
from reasonembed.llm.chat import Reply
from reasonembed.llm.client import MAX_RESPONSE_BYTES, HttpBackend
from reasonembed.llm.outcomes import Hopeless, judge
from reasonembed.llm.replies import BrokenResponse
from reasonembed.llm.served_names import ServedNames

logger = logging.getLogger(__name__)

Keep = Callable[[list[tuple[bytes, Reply]]], None]

_GROUP = 500  # outcomes looked up and kept at once
_ALL_INVALID = 16  # our choice: so many verdicts of "invalid" and nothing else are the settings' fault
_LOOKED_AT = 100  # names of models, before one is taken for the server's own name
_TRIES_OF_NAME = 3


class _Named(msgspec.Struct):
    model: Any = None


class BatchOutcomes:
    """The outcomes of one batch, matched by the custom ids of their lines, whatever the order.

    keep: gets replies as they are read, in groups; one may come twice, if a file is read twice.
    `causes`: why a request came to no answer, by key.  `hopeless`: why no request like these will, if so.
    """

    def __init__(self, batch: OpenBatch, state: BatchState, backend: HttpBackend, keep: Keep) -> None:
        self.causes: dict[bytes, str] = {}
        self.hopeless: Hopeless | None = None
        self._batch = batch
        self._state = state
        self._backend = backend
        self._names = ServedNames(backend.endpoint.model)
        self._keep = keep
        self._proven = False  # some request was taken for a valid one
        self._invalid: dict[bytes, Reply] = {}

    def read(self, path: Path) -> int:
        """Take in a file of outcomes; gives how many of its lines could not be read."""
        if self._backend.config.check_model:
            self._learn_name(path)
        unreadable = strangers = 0
        group: list[Outcome] = []
        for line in _lines(path):
            try:
                group.append(read_outcome(self._backend.blot(line)))
            except BrokenResponse as broken:
                unreadable += 1
                logger.debug("%s: %s", shown(self._batch.batch_id), broken)
            if len(group) == _GROUP:
                strangers += self._take(group)
                group = []
        strangers += self._take(group)
        if unreadable or strangers:
            logger.warning(
                "%s: %d lines of its outcomes cannot be read, %d are to no request of ours.",
                shown(self._batch.batch_id),
                unreadable,
                strangers,
            )
        return unreadable

    def _learn_name(self, path: Path) -> None:
        """Where all answers are by one model of another name, that is the server's own name for it."""
        names = set()
        for _, line in zip(range(_LOOKED_AT), _lines(path), strict=False):
            with contextlib.suppress(BrokenResponse, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                outcome = read_outcome(line)
                if outcome.status == 200:
                    names.add(str(msgspec.json.decode(outcome.body, type=_Named).model))
        if len(names) == 1:
            for _ in range(_TRIES_OF_NAME):
                with contextlib.suppress(BrokenResponse):
                    self._names.check(*names)

    def _take(self, group: list[Outcome]) -> int:
        """Judge and keep; gives how many are to no request of this batch."""
        ours = self._state.waiting([outcome.key for outcome in group])
        replies: list[tuple[bytes, Reply]] = []
        strangers = 0
        for outcome in group:
            number, name = ours.get(outcome.key, (None, b""))
            if number != self._batch.number:
                strangers += 1
                continue
            reply = self._reply(outcome, name.decode("utf-8", "surrogatepass"))
            if reply is None:
                continue
            if reply.failure is not None and reply.failure.kind == "invalid" and not self._proven:
                self._invalid[outcome.key] = reply
                continue
            self._proven = True
            replies.append((outcome.key, reply))
        self._keep(replies)
        return strangers

    def _reply(self, outcome: Outcome, custom_id: str) -> Reply | None:
        if not outcome.status:
            self.causes[outcome.key] = outcome.error
            return None
        check = self._names.check if self._backend.config.check_model else None
        judged = judge(outcome.status, outcome.body, custom_id, check_model=check)
        if isinstance(judged, Reply):
            return judged
        self.causes[outcome.key] = judged.cause
        if isinstance(judged, Hopeless):
            self.hopeless = self.hopeless or judged
        return None

    def finish(self) -> None:
        """All files were read: keep verdicts of `invalid` too, unless there is nothing else."""
        if self._proven or len(self._invalid) < _ALL_INVALID:
            self._keep(list(self._invalid.items()))
            return
        failure = next(iter(self._invalid.values())).failure
        said = failure.detail if failure else ""
        self.causes |= dict.fromkeys(self._invalid, said)
        self.hopeless = self.hopeless or Hopeless(
            f"each of {len(self._invalid)} requests was called invalid: {said}",
            "Nothing of this was recorded. Mend the settings, then run the same command again.",
        )


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as handle:
        while line := handle.readline(MAX_RESPONSE_BYTES):
            if line.strip():
                yield line


__all__ = ["BatchOutcomes"]
