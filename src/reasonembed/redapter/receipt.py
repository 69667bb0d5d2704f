"""What decides a training's outcome, kept in its checkpoints and beside its model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from reasonembed import __version__
from reasonembed.encoder.folder import find_model, fingerprint
from reasonembed.errors import DamageError, InputError, StageChanged
from reasonembed.files import open_binary, read_sealed
from reasonembed.redapter.config import RUNNING_KEYS, TrainConfig
from reasonembed.redapter.data import TrainingExample, data_hash
from reasonembed.redapter.log import Totals, ValidationSummary

MANIFEST_FILE = "manifest.json"


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings, base model and data of a training. One with further keys cannot be compared, and is refused."""

    config: dict[str, Any]  # the deciding keys of TrainConfig
    base: str  # a hub name, or the last part of a path
    base_hash: str
    data_hash: str
    validation_hash: str = ""  # of the collections that choose the best weights; empty: the last are kept


class TrainManifest(msgspec.Struct, frozen=True):
    """The content of `manifest.json` beside the model: its presence means that the training is done."""

    receipt: Receipt
    running: dict[str, Any]  # the other keys of TrainConfig
    examples: int
    domains: list[str]
    totals: Totals
    versions: dict[str, str]
    validation: ValidationSummary | None = None


def make_receipt(
    examples: Sequence[TrainingExample], base: str | Path, config: TrainConfig, *, validation_hash: str = ""
) -> Receipt:
    """The receipt of a training to come. Raises InputError if `base` is no model."""
    deciding = {key: value for key, value in _as_read(config).items() if key not in RUNNING_KEYS}
    name = Path(base).resolve().name if Path(base).is_dir() else str(base)
    return Receipt(
        deciding,
        base=name,
        base_hash=fingerprint(find_model(base)),
        data_hash=data_hash(examples),
        validation_hash=validation_hash,
    )


def make_manifest(
    receipt: Receipt,
    examples: Sequence[TrainingExample],
    config: TrainConfig,
    totals: Totals,
    validation: ValidationSummary | None = None,
) -> TrainManifest:
    """The manifest of a finished training."""
    return TrainManifest(
        receipt=receipt,
        running={key: getattr(config, key) for key in RUNNING_KEYS},
        examples=len(examples),
        domains=sorted({example.domain for example in examples}),
        totals=totals,
        versions={"reasonembed": __version__} | {name: version(name) for name in ("torch", "transformers")},
        validation=validation,
    )


def read_manifest(folder: Path) -> TrainManifest | None:
    """The manifest of the training that ended in `folder`; None if nothing stands there.

    Raises InputError if something else stands there, DamageError if the manifest cannot be read.
    """
    path = folder / MANIFEST_FILE
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} holds what no training of ours left there. Choose another output folder.")
        return None
    with open_binary(path) as handle:
        raw = handle.read()
    try:
        return read_sealed(raw, TrainManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"{path} cannot be read: {error}. Remove {folder} and train again.") from error


def refuse_change(before: Receipt, now: Receipt, *, where: Path) -> None:
    """Raise StageChanged, naming the key, unless both decide the same outcome.

    A key that an older version did not know counts there with its default, which is what it did.
    """
    then = _as_read(TrainConfig()) | before.config
    changed = [key for key in now.config if then[key] != now.config[key]]
    if changed:
        detail = f"{changed[0]} was {then[changed[0]]!r} and is {now.config[changed[0]]!r} now"
    elif before.base_hash != now.base_hash:
        detail = f"the base model was {before.base} and is {now.base} now, or its weights changed"
    elif before.data_hash != now.data_hash:
        detail = "the training examples were others"
    elif before.validation_hash != now.validation_hash:
        detail = "the validation queries were others, or there were none, or there are none now"
    else:
        return
    raise StageChanged(
        f"{where} was trained otherwise: {detail}. Restore that, choose another output folder, or start anew "
        f"(resume=False), which discards what was trained there."
    )


def _as_read(config: TrainConfig) -> dict[str, Any]:
    """The keys of `config` as they come back from JSON, so that what was written equals what is at hand."""
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(config))
    return values
