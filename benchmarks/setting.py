"""What a benchmark's figures were taken on, as one line: commit, processor, cores, load, date."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path


def setting() -> str:
    """For instance `commit 1a2b3c4 (changed), SOME CPU @ 2 GHz, 2 cores, load 0.3, Python 3.11.7, 2026-11-25`."""
    return (
        f"commit {_commit()}, {_processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, {datetime.date.today()}"
    )


def _commit() -> str:
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (" (changed)" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
