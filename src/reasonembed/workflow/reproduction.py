"""Reproducing published scores: a recipe is judged as it says, and held against what it expects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from reasonembed.errors import ConfigError
from reasonembed.evaluate.benchmarks import Benchmark, open_benchmark
from reasonembed.evaluate.reproduction import Comparison, Recipe, compare
from reasonembed.workflow.judging import Judgment, bm25, dense, judge


class Reproduction(msgspec.Struct, frozen=True):
    """How near a recipe came to its expected scores."""

    recipe: Recipe
    comparisons: list[Comparison]
    judgment: Judgment

    @property
    def failed(self) -> bool:
        """Whether any score is further from the expected one than what passes as close."""
        return any(comparison.verdict == "FAIL" for comparison in self.comparisons)


def reproduce(
    recipe: Recipe,
    *,
    data: str | None = None,
    model: str | Path | None = None,
    domains: Sequence[str] | None = None,
) -> Reproduction:
    """Judge as `recipe` says and compare.

    data: the benchmark's files, e.g. `bright:FOLDER`, in place of the hub's.  model: where the model lies, in place
    of its name.  domains: only these. The mean is compared where every domain of the recipe was judged.
    Raises ConfigError for data of another benchmark, a model for BM25, or where nothing can be compared, and what
    judging refuses.
    """
    if model is not None and recipe.bm25:
        raise ConfigError(f"{recipe.name} is BM25, which needs no model. Drop --model.")
    benchmark = _benchmark(recipe, data, domains)
    maker = (
        bm25(recipe.bm25)
        if recipe.bm25
        else dense(
            model or recipe.model,
            model_name=recipe.model,
            instructions=benchmark.instructions or None,
            max_tokens=recipe.max_tokens,
            dtype=recipe.dtype,
        )
    )
    judgment = judge(
        {recipe.name: maker},
        benchmark.load(),
        measures=(recipe.measure,),
        queries=recipe.queries,
        benchmark=benchmark.name,
    )
    cell = judgment.results[recipe.name][recipe.measure]
    every = set(open_benchmark(recipe.benchmark).instructions or recipe.expected.domains or cell["per_domain"])
    comparisons = compare(recipe, cell["per_domain"], cell["mean"] if every == set(cell["per_domain"]) else None)
    if not comparisons:
        judged = ", ".join(cell["per_domain"])
        raise ConfigError(f"{recipe.name} expects no score of its own for {judged}: nothing can be compared.")
    return Reproduction(recipe, comparisons, judgment)


def _benchmark(recipe: Recipe, data: str | None, domains: Sequence[str] | None) -> Benchmark:
    """The recipe's, from `data`. Raises ConfigError for another: its scores would mean something else."""
    expected = open_benchmark(recipe.benchmark, domains=domains)
    benchmark = expected if data is None else open_benchmark(data, domains=domains)
    published = bool(expected.instructions)
    if published and benchmark.name != expected.name:
        raise ConfigError(
            f'{recipe.name} is judged on {recipe.benchmark}; the data is "{data}". Write {recipe.benchmark}:FOLDER.'
        )
    return benchmark
