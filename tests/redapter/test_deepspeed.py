"""With DeepSpeed's ZeRO stage 1 processes train as with our own optimiser (law 5), and go on to the bit (law 6).

Every world of processes is run once, by `world.py`; the tests look at what it left.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reasonembed.encoder.lora import LoraSettings
from reasonembed.errors import ConfigError, MissingExtra
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.gather import join_ranks
from reasonembed.redapter.log import StepRecord, read_log

if TYPE_CHECKING:
    from conftest import Worlds

SIZE = 3  # by which nothing divides
KINDS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "lora, unclipped": {"lora": LoraSettings(rank=2, alpha=4), "gradient_clip": None},
    "coarse base": {"lora": LoraSettings(rank=2, alpha=4), "bf16": True},
}
LAUNCHED = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}
TURNED = ("with to without", "without to with", "on two processes")


@pytest.fixture(scope="module")
def worlds(
    rows: list[TrainingExample],
    training_job: Callable[..., dict[str, Any]],
    run_worlds: Callable[[Path, list[dict[str, Any]]], Worlds],
    tmp_path_factory: pytest.TempPathFactory,
) -> Worlds:
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "examples.json").write_bytes(msgspec.json.encode(rows))

    def training(name: str, size: int = SIZE, *, deepspeed: bool = True, **how: Any) -> dict[str, Any]:
        return training_job(folder, name, size, environment=LAUNCHED if deepspeed else None, **how)

    stop = {"rank": 0, "step": 3, "what": "SIGTERM"}
    jobs = [
        *(training(f"{kind}, without", deepspeed=False, **changes) for kind, changes in KINDS.items()),
        *(training(f"{kind}, with", **changes) for kind, changes in KINDS.items()),
        training("stopped", happens=stop),
        training("stopped, resumed", into="stopped"),
        training("with to without", happens=stop),
        training("with to without, resumed", into="with to without", deepspeed=False),
        training("without to with", happens=stop, deepspeed=False),
        training("without to with, resumed", into="without to with"),
        training("on two processes", happens=stop),
        training("on two processes, resumed", into="on two processes", size=2),
        training("alone", size=1),
        training("killed", happens={"rank": 1, "step": 3, "what": "SIGKILL"}),
        *(
            training(f"infinite, {how}", happens={"rank": 1, "step": 3, "what": "infinity"}, deepspeed=how == "with")
            for how in ("with", "without")
        ),
    ]
    return run_worlds(folder, jobs)


def _weights(worlds: Worlds, name: str) -> dict[str, torch.Tensor]:
    return load_file(worlds.folder / name / "model.safetensors")


def _log(worlds: Worlds, name: str) -> list[StepRecord]:
    return read_log(worlds.folder / name / "train_log.jsonl")


def _apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max()) for key in one)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_losses_and_norms_are_those_of_our_own_optimiser(worlds: Worlds, kind: str) -> None:
    assert worlds.codes[f"{kind}, with"] == [0] * SIZE, worlds.said
    assert _apart(_weights(worlds, f"{kind}, with"), _weights(worlds, f"{kind}, without")) < 2e-5
    ours, expected = _log(worlds, f"{kind}, with"), _log(worlds, f"{kind}, without")
    assert [step.loss for step in ours] == pytest.approx([step.loss for step in expected], rel=1e-5)
    norms = [step.gradient_norm for step in expected]
    assert [step.gradient_norm for step in ours] == pytest.approx(norms, rel=1e-4)
    assert max(norms) > 1, "or nothing was clipped"


@pytest.mark.parametrize("kind", KINDS)
def test_each_process_holds_the_state_of_its_part_alone(worlds: Worlds, kind: str) -> None:
    held = {
        how: [int((worlds.folder / f"{kind}, {how}.state-{rank}").read_text()) for rank in range(SIZE)]
        for how in ("with", "without")
    }
    total = held["without"][0]
    assert max(held["with"]) < total / SIZE * 1.1


def test_a_training_that_was_stopped_goes_on_to_the_bit(worlds: Worlds) -> None:
    assert worlds.codes["stopped"] == [130] * SIZE and worlds.codes["stopped, resumed"] == [0] * SIZE, worlds.said
    files = [worlds.folder / name / "model.safetensors" for name in ("stopped", "all weights, with")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_checkpoint_is_the_one_that_our_own_optimiser_leaves(worlds: Worlds) -> None:
    ours, theirs = (
        load_file(worlds.folder / f"{name}.training" / "step-00000003" / "optimizer.safetensors")
        for name in ("without to with", "with to without")
    )
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: tensor.shape for key, tensor in theirs.items()}
    assert _apart(ours, theirs) < 1e-5
    assert max(float(tensor.abs().max()) for key, tensor in ours.items() if not key.endswith(".step")) > 1e-3


@pytest.mark.parametrize("name", TURNED)
def test_a_training_goes_on_with_another_optimiser_or_number_of_processes(worlds: Worlds, name: str) -> None:
    assert worlds.codes[name] == [130] * SIZE, worlds.said
    assert set(worlds.codes[f"{name}, resumed"]) == {0}, worlds.said
    assert _apart(_weights(worlds, name), _weights(worlds, "all weights, without")) < 2e-5


def test_after_a_kill_the_others_end_and_say_why(worlds: Worlds) -> None:
    assert worlds.codes["killed"] == [1, -9, 1], worlds.said
    assert worlds.said.count("ReasonEmbedError: another process of this training is gone") >= 2


def test_a_process_alone_trains_as_without(worlds: Worlds) -> None:
    assert worlds.codes["alone"] == [0], worlds.said
    assert _apart(_weights(worlds, "alone"), _weights(worlds, "all weights, without")) < 2e-5


@pytest.mark.parametrize("how", ["with", "without"])
def test_a_gradient_that_is_infinite_in_one_process_stops_all_and_names_the_batch(worlds: Worlds, how: str) -> None:
    codes = worlds.codes[f"infinite, {how}"]
    assert len(set(codes)) == 1 and codes[0] not in (0, 99), worlds.said
    found = json.loads((worlds.folder / f"infinite, {how}.training" / "diverged.json").read_text())
    assert found["step"] == 3 and found["examples"] and found["gradient_norm"] in ("nan", "inf")
    assert not (worlds.folder / f"infinite, {how}").exists()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2", r"zero_stage 2, and this training takes 1 .*set shard\."),
        ("ACCELERATE_DEEPSPEED_ZERO_STAGE", None, r"zero_stage 2, and this training takes 1"),
        ("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu", "offload_optimizer_device cpu.*takes none"),
        ("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "nvme", "offload_param_device nvme.*takes none"),
        ("ACCELERATE_DEEPSPEED_CONFIG_FILE", "ds.json", r"deepspeed_config_file ds\.json.*zero_stage: 1"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "gradient_accumulation_steps 4.*micro_batch_tokens"),
        ("ACCELERATE_GRADIENT_CLIPPING", "1.0", r"gradient_clipping 1\.0.*Set gradient_clip in the training"),
    ],
)
def test_what_deepspeed_is_not_asked_to_do_here_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, told: str
) -> None:
    for name, launched in (LAUNCHED | {variable: value}).items():
        if launched is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, launched)
    with pytest.raises(ConfigError, match=told):
        join_ranks()


def test_weights_that_are_shared_out_leave_deepspeed_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"shard is set.*leave shard out"):
        join_ranks(shard=True)


def test_a_version_that_steps_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.18.9")
    monkeypatch.setattr("reasonembed.redapter.launch.version", lambda name: "0.18.9")
    with pytest.raises(ConfigError, match=r"of which 0\.18\.9 is installed.*needs 0\.19 or newer: pip install -U"):
        join_ranks()


def test_without_the_library_the_way_that_needs_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"reasonembed\[deepspeed\].*shard_optimizer"):
        join_ranks()
