"""What can go wrong, as one small tree. Every message says what was found, what was expected, and what to do.

ReasonEmbedError            exit code 1: the work failed, though nobody asked for the impossible
├── EndpointError           a language model's endpoint could not be used; the stage is left undone
├── BudgetReached           a limit on calls, tokens or money was reached; the stage is left undone
├── DamageError             a journal, a rows file or a checkpoint is not what was written
├── StorageError            the disk refused a write (full, read-only, an I/O error)
└── UserError               exit code 2: something in the command, the config or the data must be changed
    ├── ConfigError         an unknown key, a value out of range
    ├── InputError          a corpus, a data file, a run, a model folder that cannot be used as it is
    ├── StageChanged        a finished stage was made from other inputs or settings
    ├── WorkspaceBusy       another process holds the workspace
    └── MissingExtra        an optional dependency is needed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReasonEmbedError(Exception):
    """Base of all errors that the toolkit raises on purpose; printed without a traceback by the CLI."""

    exit_code = 1


class EndpointError(ReasonEmbedError):
    """A model's endpoint could not be used after all retries; what it did answer is kept."""


class BudgetReached(ReasonEmbedError):
    """The calls, tokens or money that were allowed are spent; what was answered is kept."""


class DamageError(ReasonEmbedError):
    """A file of ours is torn or altered; the message names file and place."""


class StorageError(ReasonEmbedError):
    """The file system refused a write; the old file is whole."""


class UserError(ReasonEmbedError):
    """The user can mend this by changing the command, the config or the data."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration that cannot be used: unknown key, wrong type, value out of range."""


class InputError(UserError):
    """Data that cannot be used as it is; the message names the file and, where there is one, the line."""


class StageChanged(UserError):
    """A stage was finished with other inputs or deciding settings than those asked for now."""


class WorkspaceBusy(UserError):
    """Another process works in the same workspace."""


class MissingExtra(UserError):
    """An optional dependency is not installed; the message gives the command that installs it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion such as `; did you mean "text"?` for a mistyped `word`, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def shown(value: object, limit: int = 80) -> str:
    """`value` for use in a message: quoted, control characters escaped, at most `limit` characters."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
