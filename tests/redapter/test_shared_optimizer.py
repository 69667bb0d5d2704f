"""Processes that share the optimiser's state out train as those that do not, to the bit (law 5), from any checkpoint.

Every world of processes is run once, by `world.py`; the tests look at what it left.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reasonembed.encoder.lora import LoraSettings
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.optimizer import make_optimizer

if TYPE_CHECKING:
    from conftest import Worlds

SIZE = 3  # by which nothing divides
KINDS: dict[str, dict[str, Any]] = {"all weights": {}, "lora": {"lora": LoraSettings(rank=2, alpha=4)}}
TURNED = ("whole to shared", "shared to whole")


@pytest.fixture(scope="module")
def worlds(
    rows: list[TrainingExample],
    training_job: Callable[..., dict[str, Any]],
    run_worlds: Callable[[Path, list[dict[str, Any]]], Worlds],
    tmp_path_factory: pytest.TempPathFactory,
) -> Worlds:
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "examples.json").write_bytes(msgspec.json.encode(rows))

    def training(name: str, size: int, *, shared: bool = True, **how: Any) -> dict[str, Any]:
        return training_job(folder, name, size, shard_optimizer=shared, **how)

    stop = {"rank": 0, "step": 3, "what": "SIGTERM"}
    jobs = [
        *(training(f"{kind}, whole", SIZE, shared=False, **changes) for kind, changes in KINDS.items()),
        *(training(f"{kind}, shared", SIZE, **changes) for kind, changes in KINDS.items()),
        training("whole to shared", SIZE, happens=stop, shared=False),
        training("shared to whole", SIZE, happens=stop),
        training("whole to shared, resumed", SIZE, into="whole to shared"),
        training("shared to whole, resumed", SIZE, into="shared to whole", shared=False),
        training("killed", SIZE, happens={"rank": 1, "step": 3, "what": "SIGKILL"}),
        training("killed, resumed", SIZE, into="killed"),
    ]
    return run_worlds(folder, jobs)


def _weights(worlds: Worlds, name: str) -> bytes:
    return (worlds.folder / name / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_an_optimiser_that_is_whole_to_the_bit(worlds: Worlds, kind: str) -> None:
    assert worlds.codes[f"{kind}, shared"] == [0] * SIZE, worlds.said
    assert _weights(worlds, f"{kind}, shared") == _weights(worlds, f"{kind}, whole")


@pytest.mark.parametrize("kind", KINDS)
def test_each_process_holds_the_state_of_its_part_alone(worlds: Worlds, kind: str) -> None:
    held = {
        how: [int((worlds.folder / f"{kind}, {how}.state-{rank}").read_text()) for rank in range(SIZE)]
        for how in ("whole", "shared")
    }
    total = held["whole"][0]
    assert held["whole"] == [total] * SIZE and total > 0
    assert sum(held["shared"]) == total and max(held["shared"]) < 0.6 * total, "no weight is cut"


def test_a_checkpoint_holds_the_whole_state_whoever_wrote_it(worlds: Worlds) -> None:
    states = []
    for name in TURNED:
        assert worlds.codes[name] == [130] * SIZE, worlds.said
        states.append(load_file(worlds.folder / f"{name}.training" / "step-00000003" / "optimizer.safetensors"))
    whole, shared = states
    assert whole.keys() == shared.keys() and len(whole) > 30
    assert all(torch.equal(whole[key], shared[key]) for key in whole)


@pytest.mark.parametrize("name", TURNED)
def test_a_training_goes_on_with_the_state_shared_or_whole(worlds: Worlds, name: str) -> None:
    assert worlds.codes[f"{name}, resumed"] == [0] * SIZE, worlds.said
    assert _weights(worlds, name) == _weights(worlds, "all weights, whole")


def test_after_a_kill_the_others_end_and_the_same_command_goes_on(worlds: Worlds) -> None:
    first, killed, last = worlds.codes["killed"]
    assert killed == -9 and first not in (0, 99) and last not in (0, 99), worlds.said
    assert worlds.codes["killed, resumed"] == [0] * SIZE, worlds.said
    assert _weights(worlds, "killed") == _weights(worlds, "all weights, whole")


def test_a_process_alone_has_the_usual_optimiser() -> None:
    optimizer = make_optimizer(torch.nn.Linear(2, 2), TrainConfig(shard_optimizer=True))
    assert type(optimizer) is torch.optim.AdamW


def test_weights_that_are_shared_out_have_their_state_shared_out_already() -> None:
    with pytest.raises(ValueError, match="leave shard_optimizer out"):
        TrainConfig(shard=True, shard_optimizer=True)
