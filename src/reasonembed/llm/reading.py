"""A journal opened to be read: nothing in it or beside it is changed, and another process may write meanwhile."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from reasonembed.errors import WorkspaceBusy
from reasonembed.llm.reply_rows import lenient_text
from reasonembed.llm.sqlite_errors import named_errors

_BUSY_TIMEOUT_S = 10


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write and sees the file as it is now, for the length of the block.

    While a writer has the file open, or after one was killed, the write-ahead log is read too. Where there is
    none, SQLite would make one to coordinate with writers; the file is taken as unchanging instead, and if a
    writer came after all, WorkspaceBusy is raised at the block's end, for what was read may be half of each.
    """
    still = not _log(path).exists()
    with named_errors(path):
        before = _state(path)
        uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    connection.text_factory = lenient_text
    try:
        with named_errors(path):
            connection.execute("BEGIN")
            yield connection
    finally:
        connection.close()
        if still and (_log(path).exists() or _state(path) != before):
            raise WorkspaceBusy(f"another process began to write to {path} while it was read. Run the command again.")


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


__all__ = ["reading"]
