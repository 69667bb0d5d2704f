"""Recipes: how a backbone is trained, as data; the paper's ship as `recipes/NAME.toml`, each key with its origin."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec

from reasonembed.config import load_toml
from reasonembed.errors import ConfigError, nearest
from reasonembed.redapter.config import TrainConfig


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A backbone and its training; batch shapes and instructions come from the domains of the data."""

    title: str
    base: str  # a name on the hub, a folder, or minilm
    training: TrainConfig


def recipe_names() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(path.name.removesuffix(".toml") for path in _folder().iterdir() if path.name.endswith(".toml"))


def load_recipe(name: str | Path) -> Recipe:
    """The shipped recipe of that name, or the one in a TOML file (a path ending in `.toml`).

    Raises ConfigError for an unknown name, listing those that there are, or for a mistake in the file, with its line.
    """
    if str(name).endswith(".toml"):
        return load_toml(Path(name), Recipe)
    if name not in (known := recipe_names()):
        raise ConfigError(
            f'unknown recipe "{name}"{nearest(str(name), known) or "."} Known: {", ".join(known)}; '
            f"or give the path of your own TOML file, ending in .toml."
        )
    with resources.as_file(_folder() / f"{name}.toml") as path:
        return load_toml(path, Recipe)


def _folder() -> Traversable:
    return resources.files("reasonembed.redapter") / "recipes"
