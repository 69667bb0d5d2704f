"""Systems as commands make them from flags, and whether the packages that they need are there."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reasonembed.encoder.backbones import base_model
from reasonembed.errors import ConfigError, MissingExtra, nearest
from reasonembed.llm.endpoint import ClientConfig

if TYPE_CHECKING:
    from reasonembed.beir import Collection
    from reasonembed.search.systems import System


def need_training() -> None:
    """Raises MissingExtra, with the cure, if the packages that load and train models are missing."""
    names = ("torch", "transformers", "peft", "accelerate", "sentence_transformers")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"this needs {', '.join(missing)}, not installed here. Install PyTorch for your machine, then: "
            f"pip install 'reasonembed[train]'"
        )


def dense_system(
    model: str,
    *,
    instruction: str | None = None,
    instructions: Mapping[str, str] | None = None,
    name: str | None = None,
    max_tokens: int | None = None,
    longest: int | None = None,
    dtype: str = "float32",
    devices: Sequence[str] = (),
    api_key_env: str = "",
    cache: Path | None = None,
) -> Callable[[], System]:
    """Makes a dense system; an instruction of "none" means bare queries, "own" the model's own prompts.

    model: a folder, a name, or an embeddings endpoint, whose queries are bare unless there is an instruction.
    None takes `instructions` (domain -> text), and where there are none the model's own prompts. `longest`: a limit in
    tokens that is used where `max_tokens` gives none, as far as the model has positions.
    """
    from reasonembed.workflow.judging import dense, embeddings_endpoint, is_endpoint

    words: dict[str | None, str | Mapping[str, str] | None] = {"none": "", "own": None, None: instructions or None}
    before = words.get(instruction, instruction)
    if is_endpoint(model):
        if max_tokens is not None:
            raise ConfigError(f"{model} cuts texts by its own limit of tokens. Leave --max-tokens out.")
        client = ClientConfig(api_key_env=api_key_env, concurrency=8)
        return embeddings_endpoint(model, name=name, instructions=before or "", client=client, cache=cache)
    need_training()
    return dense(
        base_model(model),
        name=name,
        instructions=before,
        max_tokens=max_tokens,
        longest=longest,
        dtype=dtype,
        devices=devices,
        cache=cache,
    )


def named_systems(
    *,
    models: Sequence[str],
    bm25: bool,
    bm25q: bool,
    runs: Sequence[Path],
    instruction: str | None,
    instructions: Mapping[str, str] | None = None,
    language: str,
    max_tokens: int | None,
    longest: int | None = None,
    dtype: str,
    devices: Sequence[str] = (),
    base: str | None,
    file: Path | None = None,
    collections: Mapping[str, Collection] | None = None,
    api_key_env: str = "",
    cache: Path | None = None,
) -> dict[str, Callable[[], System]]:
    """The systems that the flags of `evaluate` and the system `file` name, by name.

    Raises ConfigError for none, or an unknown base.
    """
    from reasonembed.workflow.judging import bm25 as bm25_system
    from reasonembed.workflow.judging import is_endpoint, recorded_run

    systems: dict[str, Callable[[], System]] = {}
    if bm25:
        systems["bm25"] = bm25_system("bag", language=language)
    if bm25q:
        systems["bm25q"] = bm25_system("query", language=language)
    for path in runs:
        _add(systems, recorded_run(path), path.stem, _with_folder(path, path.stem))
    for model in models:
        label = Path(model).name or model
        made = dense_system(
            model,
            instruction=instruction,
            instructions=instructions,
            name=label,
            max_tokens=max_tokens,
            longest=longest,
            dtype=dtype,
            devices=devices,
            api_key_env=api_key_env,
            cache=cache,
        )
        _add(systems, made, label, model if is_endpoint(model) else _with_folder(Path(model), label))
    if file is not None:
        from reasonembed.workflow.systems import systems_from

        for name, made in systems_from(file, collections or {}, cache=cache).items():
            _add(systems, made, name, f"{file.stem}/{name}")
    if not systems:
        raise ConfigError("nothing to evaluate: give --model, --run, --bm25, --bm25q or --systems.")
    if base is not None and base not in systems:
        raise ConfigError(f'--base is "{base}"{nearest(base, systems)} The systems here: {", ".join(systems)}.')
    return systems


def _add(systems: dict[str, Callable[[], System]], made: Callable[[], System], *labels: str) -> None:
    """Under the first label that is free, or the last with a number: no label is a path, for it is published."""
    numbered = (f"{labels[-1]}-{number}" for number in itertools.count(2))
    systems[next(label for label in itertools.chain(labels, numbered) if label not in systems)] = made


def _with_folder(path: Path, label: str) -> str:
    """The label with the one folder above it, as far as that has a name."""
    return f"{path.absolute().parent.name}/{label}".lstrip("/")
