"""A workspace: the folder of one run of synthesis and training, held by one process at a time.

    runs/NAME/journal.sqlite                                  every reply of a language model
    runs/NAME/DOMAIN/STAGE/{rows.jsonl.zst, dropped.jsonl, manifest.json}
    runs/NAME/cache/                                          vectors that can be computed again

Ids of documents and queries are data and never become file names; domain and stage names are checked here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from reasonembed.errors import InputError, StorageError, WorkspaceBusy, shown

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_RESERVED = {"cache", "models"}  # folders of the workspace itself


class Workspace:
    """The paths inside one workspace, and its lock. Making one touches nothing on the disk."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._held = 0
        self._descriptor: int | None = None

    @property
    def journal_path(self) -> Path:
        """Where all replies of language models are kept."""
        return self.path / "journal.sqlite"

    @property
    def cache(self) -> Path:
        """The folder of what can be computed again: vectors of documents."""
        return self.path / "cache"

    def domain_folder(self, domain: str) -> Path:
        """The folder of a domain's stages. Raises InputError for a name that cannot be one."""
        if domain in _RESERVED:
            raise InputError(f'"{domain}" cannot name a domain: the workspace keeps its own files there. Rename it.')
        return self.path / _checked(domain, "domain")

    def stage_folder(self, domain: str, stage: str) -> Path:
        """The folder of one stage: rows.jsonl.zst, dropped.jsonl, manifest.json."""
        return self.domain_folder(domain) / _checked(stage, "stage")

    def domains(self) -> list[str]:
        """The domains that have a folder here, by name."""
        if not self.path.is_dir():
            return []
        inner = (entry.name for entry in self.path.iterdir() if entry.is_dir() and entry.name not in _RESERVED)
        return sorted(name for name in inner if _NAME.fullmatch(name))

    @contextlib.contextmanager
    def lock(self) -> Iterator[Workspace]:
        """Hold the workspace alone; the same object may enter again.

        The operating system releases the lock when the process ends, however it ends, so none is ever stale.
        Raises WorkspaceBusy at once, naming the process, if another one holds it.
        """
        if self._held == 0:
            self._descriptor = self._acquire()
        self._held += 1
        try:
            yield self
        finally:
            self._held -= 1
            if self._held == 0 and self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _acquire(self) -> int:
        path = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except (FileExistsError, NotADirectoryError) as error:
            raise InputError(f"{self.path} is a file, not a folder. Choose another workspace.") from error
        except OSError as error:
            raise StorageError(
                f"cannot write in the workspace {self.path}: {error.strerror}. Choose a folder that you may write to."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise WorkspaceBusy(
                f"the workspace {self.path} is in use by process {holder}. Wait until it has ended, "
                f"or choose another one."
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise StorageError(
                f"cannot lock {path}: {error.strerror}. Choose a workspace on a local disk that has some space left."
            ) from error
        return descriptor


def _checked(name: str, kind: str) -> str:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{shown(name)} cannot name a {kind}; use lower-case letters, digits and underscores, "
            f"at most 64 characters."
        )
    return name
