"""Checkpoints: all that a training needs to go on as if nothing had happened (law 6). No pickle.

A checkpoint is a folder `step-00000050/` that appears by rename once its files are on the disk:
`weights.safetensors` (what trains), `optimizer.safetensors`, `rng.safetensors`, and `state.json` with the
position, the configuration, the validations so far and the hash of each file. Where a training is validated,
`best.safetensors` is a further name of the weights that have scored best. The step counts optimiser steps, for the
schedule, the batches and RI's `start_step` alike.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reasonembed.errors import DamageError, StorageError
from reasonembed.files import read_sealed, sealed, sha256_file, write_json
from reasonembed.redapter.deepspeed import DeepSpeedAdamW
from reasonembed.redapter.log import ValidationRecord
from reasonembed.redapter.memory import StepMemory
from reasonembed.redapter.optimizer import Optimizer, SharedAdamW
from reasonembed.redapter.receipt import Receipt
from reasonembed.redapter.sharding import part_for, whole_tensors

logger = logging.getLogger(__name__)

BEST = "best.safetensors"
_STATE = "state.json"


class SavedWeights(NamedTuple):
    """A file of weights and its hash."""

    path: Path
    sha256: str


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `state.json`."""

    step: int  # optimiser steps done
    receipt: Receipt
    sha256: dict[str, str]
    micro_batch_tokens: int = 0  # as configured
    halvings: int = 0  # of it, where memory ran out; a resumed run does not find that out again
    validations: tuple[ValidationRecord, ...] = ()  # as far as they were done


def save_checkpoint(
    folder: Path,
    step: int,
    receipt: Receipt,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    keep: int,
    memory: StepMemory,
    validations: Sequence[ValidationRecord] = (),
    best: SavedWeights | None = None,
    write: bool = True,
) -> Path:
    """Write `folder/step-...` whole or not at all; only the newest `keep` stay. Raises StorageError.

    validations, best: what the training was validated on so far, and the weights that scored best.
    Where several processes hold parts of the weights or of the optimiser all must call this; one alone is to `write`.
    """
    final = folder / f"step-{step:08d}"
    temporary = folder / f".tmp-{final.name}"
    parts = {
        "weights": whole_tensors(trained_weights(model), keep=write),
        "optimizer": _optimizer_tensors(optimizer, keep=write),
        "rng": _rng_tensors(),
    }
    if not write:
        return final
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        hashes = {
            f"{name}.safetensors": _write_tensors(temporary / f"{name}.safetensors", tensors)
            for name, tensors in parts.items()
        }
        if best is not None:
            same_file(best.path, temporary / BEST)
            hashes[BEST] = best.sha256
        state = State(
            step,
            receipt,
            hashes,
            micro_batch_tokens=memory.asked_tokens,
            halvings=memory.halvings,
            validations=tuple(validations),
        )
        write_json(temporary / _STATE, sealed(state))
        shutil.rmtree(final, ignore_errors=True)
        temporary.replace(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"cannot write the checkpoint {final}: {error}. Free some space; the last whole one stays."
        ) from error
    for old in _folders(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest_checkpoint(folder: Path) -> tuple[Path, State] | None:
    """The newest whole checkpoint in `folder`, or None if there is none at all.

    A damaged one is passed over for the one before it, and logged. Raises DamageError if all are damaged.
    """
    problem = None
    for path in _folders(folder):
        try:
            return path, _verified(path)
        except DamageError as error:
            logger.warning("%s Trying the checkpoint before it.", error)
            problem = error
    if problem is not None:
        raise DamageError(
            f"no checkpoint in {folder} is whole; the last problem: {problem} Start anew with resume=False."
        )
    return None


def restore(path: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Put weights, optimiser state and random generators back to what `save_checkpoint` saw."""
    load_weights(path / "weights.safetensors", model)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(path / "optimizer.safetensors").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    _restore_state(optimizer, state)
    random = load_file(path / "rng.safetensors")
    torch.set_rng_state(random.pop("cpu"))
    for device in range(torch.cuda.device_count()):  # perhaps others than those of the processes before
        if (tensor := random.get(f"cuda:{device}")) is not None:
            torch.cuda.set_rng_state(tensor, device)


def _restore_state(optimizer: Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
    """Give the optimiser this process's part of the whole state, which is told by the weights' numbers."""
    if isinstance(optimizer, DeepSpeedAdamW):
        optimizer.load_whole_state(state)
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    mine = {
        number: {name: part_for(parameters[number], value) for name, value in entry.items()}
        for number, entry in state.items()
        if not isinstance(optimizer, SharedAdamW) or optimizer.owns(number)
    }
    optimizer.load_state_dict({"state": mine, "param_groups": optimizer.state_dict()["param_groups"]})


def save_weights(path: Path, model: nn.Module, *, write: bool = True) -> SavedWeights | None:
    """Write what of `model` trains to `path`, whole or not at all. Raises StorageError.

    Where several processes hold parts of the weights all must call this; one alone is to `write`, the others get None.
    """
    weights = whole_tensors(trained_weights(model), keep=write)
    if not write:
        return None
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.unlink(missing_ok=True)
        saved = SavedWeights(path, _write_tensors(temporary, weights))
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write the weights {path}: {error}. Free some space and try again.") from error
    return saved


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write them through to the disk; the file's hash."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    _sync(path)
    return sha256_file(path)


def load_weights(path: Path, model: nn.Module) -> None:
    """Put what of `model` trains to what `path` holds. Raises DamageError if those are another model's."""
    weights = load_file(path)
    trained = trained_weights(model)
    if trained.keys() != weights.keys():
        raise DamageError(f"{path} holds weights of another model: {sorted(trained.keys() ^ weights.keys())[:3]}.")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(part_for(parameter, weights[name]))


def same_file(path: Path, name: Path) -> None:
    """Give the file at `path` a further name, in the place of what had it; where a disk has no such links, a copy.

    The file lives as long as any of its names: writing another under the first one changes nothing here.
    """
    temporary = name.with_name(f".tmp-{name.name}")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, temporary)
        _sync(temporary)
    temporary.replace(name)
    temporary.unlink(missing_ok=True)  # a rename onto the same file does nothing


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that train, by name, without a gradient."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def _optimizer_tensors(optimizer: Optimizer, *, keep: bool) -> dict[str, Tensor]:
    if isinstance(optimizer, (SharedAdamW, DeepSpeedAdamW)):
        return {name: tensor.cpu() for name, tensor in optimizer.whole_state() if keep}
    state = optimizer.state_dict()["state"]
    tensors = {f"{number}.{name}": tensor for number, entry in state.items() for name, tensor in entry.items()}
    return whole_tensors(tensors, keep=keep)


def _rng_tensors() -> dict[str, Tensor]:
    states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), **{f"cuda:{number}": state for number, state in enumerate(states)}}


def _verified(path: Path) -> State:
    try:
        state = read_sealed((path / _STATE).read_bytes(), State)
        for name, expected in state.sha256.items():
            if sha256_file(path / name) != expected:
                raise DamageError(f"the checkpoint {path} is damaged: {name} is not what was written.")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(f"the checkpoint {path} is damaged: {_STATE} cannot be read ({error}).") from error
    except OSError as error:
        raise DamageError(f"the checkpoint {path} is damaged: {error}.") from error
    return state


def _folders(folder: Path) -> list[Path]:
    """The checkpoint folders, newest first."""
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
