"""R3: the disk refuses the n-th write, for every n of every stage, or fills up: a clean error, and the same end."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import pytest

from reasonembed import files
from reasonembed.domains import load_domain
from reasonembed.errors import StorageError
from reasonembed.llm.door import ChatDoor
from reasonembed.llm.journal import Journal
from reasonembed.llm.scripted import ScriptedBackend, plausible_reply
from reasonembed.manifest import check_outputs, read_manifest
from reasonembed.remixer.config import MineConfig, SelectConfig, SynthesisConfig
from reasonembed.remixer.pipeline import synthesize
from reasonembed.remixer.stages import STAGES
from reasonembed.workspace import Workspace

BIOLOGY = load_domain("biology")
CONFIG = SynthesisConfig(holdout=0.3, select=SelectConfig(domain_check=False), mine=MineConfig(top_k=4))


def texts() -> dict[str, str]:
    draw = random.Random(0)
    vocabulary = [f"{a}{b}" for a in ("salt", "water", "slug", "gene", "cell") for b in ("", "ing", "ed", "ward")]
    return {f"d{n}": " ".join(draw.choices(vocabulary, k=50)) for n in range(8)}


class FailingDisk:
    """The file layer beneath `reasonembed.files`: the n-th thing asked of it fails, and all after that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self.refused: list[str] = []
        for owner, name in ((files.tempfile, "mkstemp"), (files.os, "fsync"), (Path, "chmod"), (Path, "replace")):
            monkeypatch.setattr(owner, name, self._guarded(name, getattr(owner, name)))
        real = files.os.fdopen
        monkeypatch.setattr(files.os, "fdopen", lambda handle, mode: _File(real(handle, mode, 0), self))

    def ask(self, what: str) -> None:
        self.left -= 1
        if self.left < 0:
            self.refused.append(what)
            code = errno.ENOSPC if len(self.refused) % 2 else errno.EIO
            raise OSError(code, os.strerror(code))

    def _guarded(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **named: Any) -> Any:
            self.ask(name)
            return real(*arguments, **named)

        return guarded


class _File:
    def __init__(self, raw: IO[bytes], disk: FailingDisk) -> None:
        self.raw, self.disk = raw, disk

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()

    def write(self, content: bytes) -> int:
        self.disk.ask("write")
        return self.raw.write(content)

    def flush(self) -> None:
        self.raw.flush()

    def fileno(self) -> int:
        return self.raw.fileno()


def outputs(folder: Path) -> dict[str, bytes]:
    """All files but the manifests, which tell times and calls."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def finished(workspace: Workspace) -> int:
    """The number of stages whose receipt is there; each must be whole."""
    manifests = [(workspace.stage_folder("biology", stage), stage) for stage in STAGES]
    receipts = [(folder, receipt) for folder, _ in manifests if (receipt := read_manifest(folder)) is not None]
    for folder, receipt in receipts:
        check_outputs(folder, receipt)
    return len(receipts)


def test_whichever_write_of_a_stage_fails_the_error_is_clean_and_the_end_the_same(
    corpus_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = corpus_of(texts())
    unbroken, workspace = Workspace(tmp_path / "unbroken"), Workspace(tmp_path / "broken")
    with Journal(tmp_path / "unbroken.sqlite") as journal:
        synthesize(
            corpus, BIOLOGY, unbroken, generator=ChatDoor(ScriptedBackend(plausible_reply), journal), config=CONFIG
        )
    expected = outputs(unbroken.domain_folder("biology"))
    with Journal(tmp_path / "broken.sqlite") as journal, monkeypatch.context() as patched:
        disk = FailingDisk(patched)
        door = ChatDoor(ScriptedBackend(plausible_reply), journal)
        done = allowed = 0
        for _ in range(1000):
            disk.left = allowed
            try:
                synthesize(corpus, BIOLOGY, workspace, generator=door, config=CONFIG)
                break
            except StorageError as error:
                assert str(workspace.path) in str(error) and "run the same command again" in str(error)
            assert not list(workspace.path.rglob(".tmp-*"))
            assert all(expected[name] == raw for name, raw in outputs(workspace.domain_folder("biology")).items())
            before, done = done, finished(workspace)
            allowed = 0 if done > before else allowed + 1
    assert finished(workspace) == len(STAGES)
    assert outputs(workspace.domain_folder("biology")) == expected
    assert len(door.backend.asked) == len(set(door.backend.asked)), "no reply was paid for twice"
    assert set(disk.refused) == {"mkstemp", "write", "fsync", "chmod", "replace"}
    assert len(disk.refused) > 15 * len(STAGES)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system in memory of so many KiB, which can grow: a real full disk."""
    place = tmp_path / "disk"
    place.mkdir()

    def sized(kib: int) -> Path:
        how = "remount," if place.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", f"{how}size={kib}k", "none", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this test must mount a tmpfs, which is not permitted here: {error}")
        return place

    yield sized
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_ends_the_command_in_one_sentence_and_more_room_ends_it_well(
    small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(b"\n".join(msgspec.json.encode({"_id": key, "text": text}) for key, text in texts().items()))

    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "reasonembed", "synthesize", str(corpus), "--domain", "biology", "--workspace"]
        return subprocess.run(
            [*command, str(folder), "--model", "scripted", "--holdout", "0.3"],
            env={**os.environ, "COLUMNS": "500"},
            capture_output=True,
            text=True,
            timeout=100,
        )

    unbroken = run(tmp_path / "unbroken")
    assert unbroken.returncode == 0, unbroken.stderr
    refused = []
    for kib in (16, 64, 128, 176, 8192):
        done = run(small_disk(kib) / "run")
        if done.returncode == 0:
            break
        assert done.returncode == 1 and "Traceback" not in done.stderr, (kib, done.stderr)
        assert "run the same command again" in done.stderr, (kib, done.stderr)
        refused.append(done.stderr)
    place = small_disk(8192) / "run"
    assert done.returncode == 0 and len(refused) >= 3
    assert any("the journal" in said for said in refused) and any("cannot write" in said for said in refused)
    assert outputs(place / "biology") == outputs(tmp_path / "unbroken/biology")
    with Journal(place / "journal.sqlite") as journal, Journal(tmp_path / "unbroken/journal.sqlite") as whole:
        assert [one.calls for one in journal.spending()] == [one.calls for one in whole.spending()]
