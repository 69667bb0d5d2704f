"""Whether an answer comes from the model that was asked: servers rename models, gateways substitute them."""

from __future__ import annotations

import logging
import re

from reasonembed.errors import shown
from reasonembed.llm.replies import BrokenResponse, UnknownModelName

logger = logging.getLogger(__name__)

_AGREEING = 3  # answers under one other name, before any under the right one, that make it the server's own name for it
_VERSION = re.compile(r"[-@:](latest|v?\d{4}[\d-]*)$")  # as providers and Ollama add it


def is_same_model(asked: str, named: str) -> bool:
    """Whether two names differ at most in case, the owner's prefix, and a date or `latest` that one of them lacks."""
    one, other = (name.rstrip("/").rpartition("/")[2].lower() for name in (asked, named))
    return other in (one, _VERSION.sub("", one)) or _VERSION.sub("", other) == one


class ServedNames:
    """What one server calls the model that it is asked for.

    Many servers know it by a name of their own (a deployment, a path): where the first answers agree on one
    such name, that is taken for it. Anything else is another model.
    """

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._settled = False
        self._known: set[str] = set()
        self._other = ""
        self._agreeing = 0

    def check(self, named: str) -> None:
        """Raises BrokenResponse if `named` is another model, UnknownModelName while that cannot be told."""
        if named in self._known:
            return
        if is_same_model(self._asked, named):
            self._known.add(named)
            self._settled = True
            return
        cause = f"the answer is by the model {shown(named)}, and {shown(self._asked)} was asked for"
        if self._settled:
            raise BrokenResponse(cause)
        self._agreeing = self._agreeing + 1 if named == self._other else 1
        self._other = named
        if self._agreeing < _AGREEING:
            raise UnknownModelName(cause)
        logger.warning("the server calls the model %s %s; taken for the same.", shown(self._asked), shown(named))
        self._known.add(named)
        self._settled = True


__all__ = ["ServedNames", "is_same_model"]
