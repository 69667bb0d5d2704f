"""A workspace keeps its files inside itself and is held by one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonembed.errors import InputError, StorageError, WorkspaceBusy
from reasonembed.workspace import Workspace

HOLDER = """
import sys, time
from reasonembed.workspace import Workspace
with Workspace(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the workspace."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_at_once_and_told_who_holds_the_workspace(holder, tmp_path: Path):
    with pytest.raises(WorkspaceBusy, match=rf"in use by process {holder.pid}\. Wait"):
        with Workspace(tmp_path / "run").lock():
            pass


def test_of_several_processes_that_start_at_once_on_a_new_folder_one_alone_holds_it(tmp_path: Path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "new/run")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        refused = []
        while len(refused) < 3:
            ended = [one for one in processes if one not in refused and one.poll() is not None]
            refused += ended or (time.sleep(0.01) or [])
        (winner,) = [one for one in processes if one not in refused]
        assert winner.stdout is not None and winner.stdout.readline() == "held\n"
        for one in refused:
            output, errors = one.communicate()
            assert output == "" and one.returncode == 1
            assert "WorkspaceBusy" in errors and "is in use by process" in errors
    finally:
        for one in processes:
            one.kill()
            one.communicate()


def test_a_killed_process_leaves_no_stale_lock(holder, tmp_path: Path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with Workspace(tmp_path / "run").lock():
        pass


def test_the_same_object_may_lock_again_and_two_objects_may_not(tmp_path: Path):
    workspace = Workspace(tmp_path / "run")
    with workspace.lock():
        with workspace.lock():
            pass
        with pytest.raises(WorkspaceBusy):
            with Workspace(tmp_path / "run").lock():
                pass
    with Workspace(tmp_path / "run").lock():
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").symlink_to(victim)
    with pytest.raises(StorageError):
        with Workspace(run).lock():
            pass
    assert victim.read_text() == "precious"


def test_a_workspace_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(InputError, match="is a file, not a folder"):
        with Workspace(tmp_path / "run").lock():
            pass


@pytest.mark.parametrize(
    "name", ["", "..", ".", "a/b", "/etc", "A", "a b", "a\x00", "ä", "a" * 65, "_a", "cache", "models"]
)
def test_names_that_could_leave_the_workspace_or_hit_its_own_folders_are_refused(name: str, tmp_path: Path):
    with pytest.raises(InputError, match="cannot name a domain"):
        Workspace(tmp_path).stage_folder(name, "select")


@given(st.text(max_size=80), st.text(max_size=80))
def test_every_stage_folder_lies_two_levels_inside_the_workspace(domain: str, stage: str):
    try:
        folder = Workspace("/run").stage_folder(domain, stage)
    except InputError:
        return
    assert Path(os.path.normpath(folder)).parent.parent == Path("/run")


def test_domains_lists_the_folders_that_stages_made(tmp_path: Path):
    assert Workspace(tmp_path / "none").domains() == []
    for name in ("biology", "aops", "cache", "models", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "journal.sqlite").touch()
    assert Workspace(tmp_path).domains() == ["aops", "biology"]
