"""Benchmarks by one word or path: what they are judged by, and their collections when they are loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from reasonembed.beir import Collection, is_beir, read_beir
from reasonembed.errors import ConfigError, InputError, nearest
from reasonembed.evaluate import bright, r2med
from reasonembed.evaluate.hugging_face import Source, open_source
from reasonembed.evaluate.metrics import MEASURES
from reasonembed.pocket import POCKET_DOMAINS, pocket_folder

PUBLISHED = ("bright", "bright-long", "r2med")

_WORD = re.compile(rf"({'|'.join(PUBLISHED)})(?:/([^@:]+))?(?:@([^:]+))?(?::(.+))?")

Load = Callable[[], dict[str, Collection]]


class Benchmark(msgspec.Struct, frozen=True):
    """What to judge on, and how it is judged by its own protocol; nothing is read before `load()`."""

    name: str  # as the protocol says it
    load: Load  # domain -> collection
    measures: tuple[str, ...] = MEASURES
    max_tokens: int | None = None  # of queries and documents; None: the model's own limit
    instructions: dict[str, str] = {}  # domain -> what stands before its queries; empty: the model's own prompts


def open_benchmark(
    word: Path | str, *, split: str = "test", domains: Sequence[str] | None = None, revision: str | None = None
) -> Benchmark:
    """The benchmark that a word or a path names.

    `bright`, `bright-long` and `r2med` come from the Hugging Face hub at `revision` (None: the newest), or from a
    folder of the same files: `bright:FOLDER`. `bright/biology,pony` takes some domains, as does `domains`;
    `bright@REVISION` a revision. Anything else is `pocket`, a BEIR folder or a folder of BEIR folders, whose qrels
    are those of `split`. Raises ConfigError for an unknown domain, InputError if there is no such folder.
    """
    match = _WORD.fullmatch(str(word))
    if match is None:
        return Benchmark(str(word), lambda: _chosen(_read_folders(word, split), domains))
    name, selection, tag, path = match.groups()
    chosen = domains or (selection.split(",") if selection else None)
    folder = Path(path) if path else None
    if folder is not None and not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}. Give the folder of {name}'s files, or {name} alone for the hub."
        )
    return _published(name, folder, chosen, tag or revision)


def _published(name: str, folder: Path | None, chosen: Sequence[str] | None, revision: str | None) -> Benchmark:
    if name == "r2med":
        medical = _known(r2med.DOMAINS, chosen)

        def open_domain(domain: str) -> Source:
            inner = None if folder is None else folder / domain
            return open_source(r2med.repository(domain), folder=inner, revision=revision)

        return Benchmark(
            name,
            lambda: r2med.read_r2med(open_domain, medical),
            ("nDCG@10",),
            r2med.MAX_TOKENS,
            {domain: r2med.INSTRUCTIONS[domain] for domain in medical},
        )
    long = name == "bright-long"
    names = _known(bright.LONG_DOMAINS if long else bright.DOMAINS, chosen)
    return Benchmark(
        name,
        lambda: bright.read_bright(open_source(bright.REPOSITORY, folder=folder, revision=revision), names, long=long),
        ("Recall@1",) if long else ("nDCG@10",),
        bright.MAX_TOKENS,
        bright.instructions(names, long=long),
    )


def _known(names: Sequence[str], chosen: Sequence[str] | None) -> list[str]:
    """Those of `names` that were chosen, in their own order."""
    wanted = [name.strip() for name in chosen] if chosen else list(names)
    for name in wanted:
        if name not in names:
            raise ConfigError(f'unknown domain "{name}"{nearest(name, names) or "."} Known: {", ".join(names)}.')
    return [name for name in names if name in wanted]


def _chosen(collections: Mapping[str, Collection], chosen: Sequence[str] | None) -> dict[str, Collection]:
    return {name: collections[name] for name in _known(list(collections), chosen)}


def load_collections(path: Path | str, *, split: str = "test") -> dict[str, Collection]:
    """Domain -> collection of what `open_benchmark` knows by that word or path; see there for what is refused."""
    return open_benchmark(path, split=split).load()


def together(benchmarks: Sequence[Benchmark]) -> Benchmark:
    """Several benchmarks as one, whose measures are those of all.

    Raises ConfigError if their longest texts differ, so that one protocol cannot serve them; its `load` raises
    InputError if two collections have one name.
    """
    if len(benchmarks) == 1:
        return benchmarks[0]
    limits = {benchmark.max_tokens for benchmark in benchmarks}
    if len(limits) > 1:
        raise ConfigError(
            f"{' and '.join(benchmark.name for benchmark in benchmarks)} are judged with texts of different lengths. "
            f"Judge them apart, each with its own --out."
        )
    return Benchmark(
        ", ".join(benchmark.name for benchmark in benchmarks),
        lambda: load_all(benchmarks),
        tuple(dict.fromkeys(measure for benchmark in benchmarks for measure in benchmark.measures)),
        limits.pop(),
        {domain: text for benchmark in benchmarks for domain, text in benchmark.instructions.items()},
    )


def load_all(benchmarks: Iterable[Benchmark]) -> dict[str, Collection]:
    """Domain -> collection over all `benchmarks`. Raises InputError if two have one name."""
    merged: dict[str, Collection] = {}
    for benchmark in benchmarks:
        for name, collection in benchmark.load().items():
            if name in merged:
                raise InputError(
                    f'two collections are named "{name}"; rename a folder of {benchmark.name}, or judge them apart.'
                )
            merged[name] = collection
    return merged


def _read_folders(path: Path | str, split: str) -> dict[str, Collection]:
    """The bundled `pocket` (a folder of that name is `./pocket`), a BEIR folder, or a folder of BEIR folders."""
    if str(path) == "pocket":
        return {domain: read_beir(pocket_folder(domain), split) for domain in POCKET_DOMAINS}
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}. Give {', '.join(PUBLISHED)}, one of them with the folder of its files "
            f'(bright:FOLDER), a BEIR folder, a folder of such folders, or "pocket".'
        )
    if is_beir(folder):
        return {folder.resolve().name: read_beir(folder, split)}
    inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and is_beir(child)]
    if not inner:
        raise InputError(
            f"{folder} is no BEIR folder (corpus.jsonl, queries.jsonl, qrels/{split}.tsv) and holds none. "
            f'Give such a folder, a folder of them, or "pocket".'
        )
    return {child.name: read_beir(child, split) for child in inner}
