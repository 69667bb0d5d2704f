"""SQLite's errors as the toolkit's own: what happened to which file, and what to do."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from reasonembed.errors import DamageError, InputError, ReasonEmbedError, StorageError, WorkspaceBusy

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
CURE = "Restore it from a copy, or move it away; `reasonembed journal FILE --check` lists what is damaged."


@contextlib.contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, with the file's name and the remedy."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        raise _named(path, error) from error
    except OSError as error:
        raise StorageError(f"cannot open the journal {path}: {error.strerror or error}. Check the folder.") from error


def _named(path: Path, error: sqlite3.Error) -> ReasonEmbedError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return WorkspaceBusy(f"another process is writing to {path}. Wait for it to end, then run the command again.")
    if code == sqlite3.SQLITE_NOTADB:
        return InputError(f"{path} is no journal of replies ({error}). Choose another path, or move that file away.")
    if code in _DAMAGED:
        return DamageError(f"the journal {path} is damaged ({error}). {CURE}")
    return StorageError(
        f"the journal {path} cannot be used: {error}. What was committed is whole; free some space or mend "
        f"the permissions, then run the same command again."
    )


__all__ = ["CURE", "named_errors"]
