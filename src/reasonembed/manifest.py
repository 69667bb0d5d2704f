"""A stage and its receipt: rows, dropped rows with reasons, and a manifest that is written last.

A stage is a function that yields rows and `Dropped` in an order that its inputs decide. A manifest means
done: a finished stage is not run again, and one whose inputs or deciding settings changed is never mixed with
new rows.
"""

from __future__ import annotations

import collections
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reasonembed import __version__
from reasonembed.errors import DamageError, ReasonEmbedError, StageChanged, shown
from reasonembed.files import atomic_writer, read_jsonl, read_sealed, sealed, sha256_file, storage_errors, write_json
from reasonembed.records import Dropped

logger = logging.getLogger(__name__)

ROWS = "rows.jsonl.zst"
DROPPED = "dropped.jsonl"
MANIFEST = "manifest.json"

Row = TypeVar("Row")


class Calls(msgspec.Struct, frozen=True):
    """What a stage asked of language models."""

    asked: int = 0  # answered by the model while the stage ran
    from_journal: int = 0  # answered before, not paid again
    failures: int = 0  # final failures among both
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # of these tokens, in the currency of the prices; 0 where no price is known


class Manifest(msgspec.Struct, frozen=True):
    """A stage's receipt."""

    stage: str
    domain: str
    version: str  # of this package; informs, decides nothing
    inputs: dict[str, str]  # name -> SHA-256
    config: dict[str, Any]  # decides the output
    settings: dict[str, Any]  # how it was run: free to change
    rows_in: int
    rows_out: int
    dropped: dict[str, int]  # reason -> rows
    counts: dict[str, int]  # what else the stage counted
    calls: Calls
    seconds: float
    outputs: dict[str, str]  # file -> SHA-256


class StageRun(msgspec.Struct, frozen=True):
    """A stage about to run: where, from what, and how.

    `produce` yields rows and `Dropped`; it may raise the numbers in the counter that it is given.
    `finish`, if given, writes further files into the folder once the rows stand there, and names them.
    """

    folder: Path
    stage: str
    domain: str
    inputs: Mapping[str, str]
    config: Mapping[str, Any]
    produce: Callable[[collections.Counter[str]], Iterable[object]]
    settings: Mapping[str, Any] = {}
    calls: Callable[[], Calls] = Calls
    finish: Callable[[], Sequence[str]] | None = None
    rows_name: str = ROWS


class StageResult(msgspec.Struct, frozen=True):
    """A finished stage; `fresh` is False if it had been finished before and nothing was done."""

    manifest: Manifest
    folder: Path
    fresh: bool

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.manifest.stage


def run_stage(work: StageRun) -> StageResult:
    """Run the stage, or do nothing if its manifest says that it is done with the same inputs and config.

    Raises StageChanged if it is done with others, DamageError if a file of it is missing or altered, and what
    `produce` raises; then nothing that looks whole is left behind.
    """
    if (manifest := finished(work)) is not None:
        check_outputs(work.folder, manifest)
        logger.info("%s %s: done before, %d rows", work.domain, work.stage, manifest.rows_out)
        return StageResult(manifest=manifest, folder=work.folder, fresh=False)
    _remove_leftovers(work.folder)
    started = time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    rows_out, dropped = _write_rows(work, counts)
    extra = work.finish() if work.finish else ()
    manifest = Manifest(
        stage=work.stage,
        domain=work.domain,
        version=__version__,
        inputs=dict(work.inputs),
        config=_plain(work.config),
        settings=dict(work.settings),
        rows_in=rows_out + sum(dropped.values()),
        rows_out=rows_out,
        dropped=dict(sorted(dropped.items())),
        counts=dict(sorted(counts.items())),
        calls=work.calls(),
        seconds=round(time.monotonic() - started, 3),
        outputs={name: sha256_file(work.folder / name) for name in (work.rows_name, DROPPED, *extra)},
    )
    write_json(work.folder / MANIFEST, sealed(manifest))
    logger.info("%s %s: %s", work.domain, work.stage, summary(manifest))
    return StageResult(manifest=manifest, folder=work.folder, fresh=True)


def finished(work: StageRun) -> Manifest | None:
    """The manifest of the stage if it is done as asked for now; None if it is not done.

    Raises StageChanged, naming the first input or key that differs.
    """
    manifest = read_manifest(work.folder)
    if manifest is None:
        return None
    pairs = (("input", manifest.inputs, dict(work.inputs)), ("key", manifest.config, _plain(work.config)))
    for what, old, new in pairs:
        if difference := _first_difference(_flat(old), _flat(new)):
            key, before, now = difference
            raise StageChanged(
                f"the stage {work.stage} of {work.domain} in {work.folder} was finished with another {what}: "
                f"{key} was {before} and is {now} now. Use the old one again, choose another workspace, or "
                f"add --restart-from {work.stage}: replies that the journal holds are not paid again."
            )
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a stage's folder, None if the stage is not done. Raises DamageError if it is torn."""
    path = folder / MANIFEST
    try:
        return read_sealed(path.read_bytes(), Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"{path} is damaged ({error}). Run again with --restart-from {folder.name}.") from error


def check_outputs(folder: Path, manifest: Manifest) -> None:
    """Raises DamageError if a file that the manifest names is missing or is not what was written."""
    for name, expected in manifest.outputs.items():
        path = folder / name
        if not path.is_file():
            found = "is missing"
        elif sha256_file(path) != expected:
            found = "is not what was written: its SHA-256 differs from the manifest's"
        else:
            continue
        raise DamageError(
            f"{path} {found}. Run again with --restart-from {manifest.stage}: replies that the journal "
            f"holds are not paid again."
        )


def read_rows(folder: Path, kind: type[Row], *, name: str = ROWS) -> Iterator[Row]:
    """The rows of a finished stage, one at a time."""
    return read_jsonl(folder / name, kind)


def read_dropped(folder: Path) -> Iterator[Dropped]:
    """What a finished stage refused, with reasons."""
    return read_jsonl(folder / DROPPED, Dropped)


def delete_stage(folder: Path) -> None:
    """Remove a stage's folder, its manifest first, so that an interruption leaves the stage undone."""
    with storage_errors(folder):
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)


def summary(manifest: Manifest) -> str:
    """The receipt in one line."""
    parts = [f"{manifest.rows_out} rows of {manifest.rows_in}"]
    parts += [f"{count} dropped: {reason}" for reason, count in manifest.dropped.items()]
    if manifest.calls.asked or manifest.calls.from_journal:
        parts.append(f"{manifest.calls.asked} calls, {manifest.calls.from_journal} answers from the journal")
    if manifest.calls.cost:
        parts.append(f"cost {manifest.calls.cost:,.4f}")
    return ", ".join(parts) + f" ({manifest.seconds:.1f} s)"


def _write_rows(work: StageRun, counts: collections.Counter[str]) -> tuple[int, collections.Counter[str]]:
    encoder = msgspec.json.Encoder()
    dropped: collections.Counter[str] = collections.Counter()
    rows_out = 0
    with atomic_writer(work.folder / work.rows_name) as rows, atomic_writer(work.folder / DROPPED) as refused:
        for row in _produced(work, counts):
            if isinstance(row, Dropped):
                dropped[row.reason] += 1
                refused.write(encoder.encode(row) + b"\n")
            else:
                rows_out += 1
                rows.write(encoder.encode(row) + b"\n")
    return rows_out, dropped


def _produced(work: StageRun, counts: collections.Counter[str]) -> Iterator[object]:
    """The stage's rows; what it fails to read must not pass for a failure to write them."""
    try:
        yield from work.produce(counts)
    except OSError as error:
        raise ReasonEmbedError(
            f"the stage {work.stage} of {work.domain} could not go on: {error}. Run the same command again."
        ) from error


def _remove_leftovers(folder: Path) -> None:
    """Temporary files of a process that was killed here; the lock says that nobody writes them."""
    with storage_errors(folder):
        for path in folder.glob(".tmp-*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(value))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, str, str] | None:
    for key in [*new, *(key for key in old if key not in new)]:
        if key not in old or key not in new or old[key] != new[key]:
            return (
                key,
                shown(old[key]) if key in old else "absent",
                shown(new[key]) if key in new else "absent",
            )
    return None
