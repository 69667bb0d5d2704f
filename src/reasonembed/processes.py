"""Which of several processes this is, as `torchrun` and `accelerate launch` tell it."""

from __future__ import annotations

import os


def is_first() -> bool:
    """Whether this process is the one that speaks and writes; a process alone is."""
    return os.environ.get("RANK", "0") == "0"


__all__ = ["is_first"]
