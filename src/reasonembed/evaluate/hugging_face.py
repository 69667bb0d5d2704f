"""Rows of a Hugging Face data set, by config and split: from the hub, or from a local folder of the same files."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from reasonembed.data_files import JSONL_SUFFIXES, place, read_parquet
from reasonembed.errors import EndpointError, InputError, MissingExtra, nearest
from reasonembed.files import read_numbered_jsonl, sha256_file, sha256_json

PARQUET_ROWS = 4096  # read at a time

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.parquet")

NumberedRow = tuple[str, dict[str, Any]]
"""Where a row stands ("FILE, row 3"), for messages, and its fields."""


class Source(Protocol):
    """A data set whose rows can be read."""

    @property
    def origin(self) -> str:
        """Where the rows come from, as a protocol says it: the repository with its commit, or "local files"."""
        ...

    def configs(self) -> list[str]:
        """The configs that there are, by name."""
        ...

    def splits(self, config: str) -> list[str]:
        """The splits of a config, none if there is no such config."""
        ...

    def key(self, config: str, split: str) -> str | None:
        """A name for the content that is had without reading rows; None where there is none."""
        ...

    def rows(self, config: str, split: str) -> Iterator[NumberedRow]:
        """The rows of a split, in order.

        Raises InputError for a config or split that is not there, and for files that cannot be read.
        """
        ...


class LocalSource:
    """A folder as the hub lays it out: `CONFIG/SPLIT-00000-of-00001.parquet`, `CONFIG/SPLIT.parquet` or `.jsonl`.

    Where a config has one split of its own name, `CONFIG.parquet` and `CONFIG.jsonl` are read too.
    """

    def __init__(self, folder: Path, repository: str) -> None:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}. Give the folder that holds the files of {repository}.")
        self.folder, self.repository = folder, repository

    @property
    def origin(self) -> str:
        name = self.folder.resolve().name
        return f"{self.repository}@{name}" if _COMMIT.fullmatch(name) else "local files"

    def configs(self) -> list[str]:
        inner = {path.name for path in self.folder.iterdir() if path.is_dir() and self.splits(path.name)}
        return sorted(inner | _names(self.folder))

    def splits(self, config: str) -> list[str]:
        inside = self.folder / config
        return sorted(_names(inside)) if inside.is_dir() else [config] if config in _names(self.folder) else []

    def key(self, config: str, split: str) -> str | None:
        return sha256_json([sha256_file(path) for path in self._files(config, split)])

    def rows(self, config: str, split: str) -> Iterator[NumberedRow]:
        for path in self._files(config, split):
            if path.suffix == ".parquet":
                rows = read_parquet(path)
            else:
                rows = read_numbered_jsonl(path, dict[str, Any])
            for number, row in rows:
                yield place(path, number), row

    def _files(self, config: str, split: str) -> list[Path]:
        folders = [self.folder / config] + ([self.folder] if config == split else [])
        for folder in folders:
            if found := _files_of(folder, split):
                return found
        known = self.splits(config)
        wanted = f"{self.folder / config / split}.parquet, .jsonl or {split}-00000-of-00001.parquet"
        if known:
            suggestion = nearest(split, known) or "."
            raise InputError(f"there is no {wanted}{suggestion} The splits of {config} there: {', '.join(known)}.")
        there = ", ".join(self.configs()) or "none"
        raise InputError(f"there is no {wanted}; the configs in {self.folder}: {there}. Is it the folder meant?")


def _names(folder: Path) -> set[str]:
    """What the data files of a folder are called, without shard numbers and suffixes."""
    names = set()
    for path in folder.iterdir():
        if match := _SHARD.fullmatch(path.name):
            names.add(match[1])
        elif suffix := next((s for s in (".parquet", *JSONL_SUFFIXES) if path.name.endswith(s)), ""):
            names.add(path.name.removesuffix(suffix))
    return names


def _files_of(folder: Path, split: str) -> list[Path]:
    shards = sorted(
        path for path in folder.glob("*.parquet") if (match := _SHARD.fullmatch(path.name)) and match[1] == split
    )
    if shards:
        expected = int(shards[0].stem.rsplit("-", 1)[1])
        if len(shards) != expected:
            raise InputError(
                f"{folder} holds {len(shards)} of the {expected} parts of {split}; the first there is "
                f"{shards[0].name}. Download the others."
            )
        return shards
    single = (folder / f"{split}{suffix}" for suffix in (".parquet", *JSONL_SUFFIXES))
    return next(([path] for path in single if path.is_file()), [])


class HubSource:
    """A data set of the hub at one commit, through `datasets` and its cache."""

    def __init__(self, repository: str, revision: str | None = None) -> None:
        self.repository, self.revision = repository, revision

    @functools.cached_property
    def commit(self) -> str:
        """The commit that the revision (a branch, a tag; None: main) names now."""
        hub, _ = self._libraries()
        try:
            return str(hub.HfApi().dataset_info(self.repository, revision=self.revision).sha)
        except Exception as error:  # whatever the HTTP library of the day raises
            raise self._unreachable(error) from error

    @property
    def origin(self) -> str:
        return f"{self.repository}@{self.commit}"

    def configs(self) -> list[str]:
        _, datasets = self._libraries()
        return self._asked(datasets.get_dataset_config_names, self.repository)

    def splits(self, config: str) -> list[str]:
        _, datasets = self._libraries()
        return self._asked(datasets.get_dataset_split_names, self.repository, config)

    def key(self, config: str, split: str) -> str | None:
        return None

    def rows(self, config: str, split: str) -> Iterator[NumberedRow]:
        _, datasets = self._libraries()
        dataset = self._asked(datasets.load_dataset, self.repository, config, split=split)
        place = f"{self.repository} ({config}, {split})"
        number = 0
        for table in dataset.with_format("arrow").iter(batch_size=PARQUET_ROWS):
            for row in table.to_pylist():
                number += 1
                yield f"{place}, row {number}", row

    def _asked(self, function: Any, *arguments: str, **named: str) -> Any:
        try:
            return function(*arguments, revision=self.commit, **named)
        except ValueError as error:  # an unknown config or split; the message names those that there are
            raise InputError(f"{self.repository} at {self.commit[:12]}: {error}") from error
        except OSError as error:
            raise self._unreachable(error) from error

    def _libraries(self) -> tuple[Any, Any]:
        try:
            import datasets
            import huggingface_hub
        except ImportError as error:
            raise MissingExtra(
                f"{self.repository} is read from the hub by `datasets`. Install it: pip install "
                f"'reasonembed[benchmarks]', or download the files and give their folder as NAME:FOLDER."
            ) from error
        return huggingface_hub, datasets

    def _unreachable(self, error: Exception) -> EndpointError:
        return EndpointError(
            f"the data set {self.repository} could not be had from the hub: {' '.join(str(error).split())[:300]} "
            f"Check the network, or download the files elsewhere and give their folder as NAME:FOLDER."
        )


def open_source(repository: str, *, folder: Path | None = None, revision: str | None = None) -> Source:
    """The data set's rows: from `folder` where one is given, else from the hub at `revision`."""
    return HubSource(repository, revision) if folder is None else LocalSource(folder, repository)
