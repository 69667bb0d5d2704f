"""Expected scores as data: what a published system should score under which protocol, and how near ours come."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import msgspec

from reasonembed.config import load_toml
from reasonembed.errors import ConfigError, nearest

Verdict = Literal["OK", "close", "FAIL"]

AVERAGE = "mean over domains"


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In points, for a domain and for the mean alike: up to `ok` is OK, up to `close` close, above it FAIL."""

    ok: float
    close: float

    def __post_init__(self) -> None:
        if not 0 <= self.ok <= self.close:
            raise ValueError(f"[tolerance] is ok {self.ok}, close {self.close}; it must be 0 <= ok <= close.")


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scores in points. `domains` may be empty where only the mean is known."""

    average: float | None = None
    domains: dict[str, float] = {}


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One system on one benchmark: all that decides its scores, and the scores."""

    name: str
    title: str
    source: str  # whose figures they are
    benchmark: str  # as `open_benchmark` knows it
    expected: Expected
    tolerance: Tolerance
    model: str = ""  # a model folder or name
    bm25: Literal["", "bag", "query"] = ""
    measure: str = "nDCG@10"
    queries: str = "original"
    max_tokens: int | None = None
    dtype: str = "float32"
    note: str = ""

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.bm25):
            raise ValueError('give either "model" or "bm25" ("bag" or "query").')
        if self.expected.average is None and not self.expected.domains:
            raise ValueError("[expected] is empty; give average, or scores under [expected.domains].")

    def command(self) -> list[str]:
        """The words of the command that judges the same: what `reproduce` does, without the comparison."""
        words = ["reasonembed", "evaluate", "--benchmark", self.benchmark, "--measure", self.measure]
        if self.bm25:
            words.append("--bm25q" if self.bm25 == "query" else "--bm25")
        else:
            words += ["--model", self.model, "--dtype", self.dtype]
        if self.max_tokens:
            words += ["--max-tokens", str(self.max_tokens)]
        return words if self.queries == "original" else [*words, "--queries", self.queries]


class Comparison(msgspec.Struct, frozen=True):
    """One domain, or the mean over domains, in points."""

    domain: str
    ours: float
    expected: float
    verdict: Verdict

    @property
    def difference(self) -> float:
        """How much higher ours is."""
        return self.ours - self.expected


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _folder().iterdir() if path.name.endswith(".toml"))


def load_recipe(name: str | Path) -> Recipe:
    """The shipped recipe of that name, or the one in a TOML file (a path ending in `.toml`).

    Raises ConfigError for an unknown name, or a mistake in the file with its line.
    """
    if str(name).endswith(".toml"):
        return load_toml(Path(name), Recipe)
    names = recipe_names()
    if name not in names:
        suggestion = nearest(str(name), names) or "."
        raise ConfigError(f'unknown recipe "{name}"{suggestion} Known: {", ".join(names)}; or give a TOML file.')
    with resources.as_file(_folder() / f"{name}.toml") as path:
        return load_toml(path, Recipe)


def _folder() -> Traversable:
    return resources.files("reasonembed") / "reproduce"


def compare(recipe: Recipe, per_domain: Mapping[str, float], mean: float | None) -> list[Comparison]:
    """Ours against what is expected, domain by domain, the mean last; only what both sides have.

    per_domain, mean: fractions; None where not all domains were judged, so that there is no mean to compare.
    """
    expected = recipe.expected
    judged = {domain: value for domain, value in expected.domains.items() if domain in per_domain}
    lines = [_line(recipe, domain, per_domain[domain], value) for domain, value in judged.items()]
    if mean is not None and expected.average is not None:
        lines.append(_line(recipe, AVERAGE, mean, expected.average))
    return lines


def _line(recipe: Recipe, domain: str, fraction: float, expected: float) -> Comparison:
    apart = abs(100 * fraction - expected) - 1e-9  # a difference as large as the tolerance is within it
    tolerance = recipe.tolerance
    verdict: Verdict = "OK" if apart <= tolerance.ok else "close" if apart <= tolerance.close else "FAIL"
    return Comparison(domain, 100 * fraction, expected, verdict)
