"""Interrupted and resumed equals uninterrupted, bit for bit (law 6); damage is noticed and passed over."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from reasonembed.encoder.lora import LoraSettings
from reasonembed.errors import DamageError, StageChanged, StorageError
from reasonembed.redapter.checkpoint import newest_checkpoint, save_checkpoint
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import StepRecord, ValidationRecord, read_log
from reasonembed.redapter.memory import StepMemory
from reasonembed.redapter.receipt import Receipt, read_manifest
from reasonembed.redapter.train import TrainConfig, train

CONFIG = TrainConfig(
    start_step=5,
    epochs=3,
    learning_rate=2e-3,
    max_query_tokens=48,
    max_passage_tokens=32,
    checkpoint_every_steps=2,
)
MEMORY = StepMemory(CONFIG)


class _Killed(Exception):
    """Stands for a kill: nothing is caught or saved on the way out."""


def _kill_after(step: int) -> Callable[[StepRecord, int], None]:
    def kill(record: StepRecord, _steps: int) -> None:
        if record.step == step:
            raise _Killed

    return kill


def _same(one: Path, other: Path) -> bool:
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def _without_clock(path: Path) -> list[StepRecord]:
    return [msgspec.structs.replace(record, seconds=0) for record in read_log(path)]


@pytest.mark.parametrize(("name", "lora"), [("bert", None), ("qwen3", LoraSettings(rank=2, alpha=4))])
@pytest.mark.parametrize("steps", [(1,), (4,), (7, 8, 11)])
def test_a_training_killed_at_any_step_ends_in_the_same_bytes(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    name: str,
    lora: LoraSettings | None,
    steps: tuple[int, ...],
) -> None:
    config = msgspec.structs.replace(CONFIG, lora=lora)
    whole = train(examples, tiny_models[name], tmp_path / "whole", config)
    for step in steps:
        with pytest.raises(_Killed):
            train(examples, tiny_models[name], tmp_path / "cut", config, progress=_kill_after(step))
    torch.manual_seed(999)  # whatever else the process did must not matter
    done: list[int] = []
    cut = train(examples, tiny_models[name], tmp_path / "cut", config, progress=lambda r, _: done.append(r.step))
    assert done[0] == steps[-1] // 2 * 2 - (steps[-1] % 2 == 0) * 2 + 1, "from the last even step before the kill"
    assert _same(tmp_path / "whole", tmp_path / "cut")
    assert _without_clock(whole.log_path) == _without_clock(cut.log_path)


_SCRIPT = """
import sys
from pathlib import Path
import msgspec, torch
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.train import TrainConfig, train
torch.set_num_threads(1)
base, data, out, config = sys.argv[1:]
train(
    msgspec.json.decode(Path(data).read_bytes(), type=list[TrainingExample]), base, out,
    msgspec.json.decode(config, type=TrainConfig),
    progress=lambda record, steps: print(record.step, flush=True),
)
"""


def test_a_process_killed_by_sigkill_goes_on_to_the_same_bytes(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    data = tmp_path / "examples.json"
    data.write_bytes(msgspec.json.encode(examples))
    config = msgspec.json.encode(CONFIG).decode()
    command = [
        sys.executable,
        "-c",
        _SCRIPT,
        str(tiny_models["bert"]),
        str(data),
        str(tmp_path / "cut"),
        config,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "7":
                process.kill()
                break
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut").exists()
    steps = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert steps[0] in ("7", "9") and steps[-1] == "12"
    train(examples, tiny_models["bert"], tmp_path / "whole", CONFIG)
    assert _same(tmp_path / "whole", tmp_path / "cut")


def _interrupted(base: Path, examples: list[TrainingExample], out: Path) -> list[Path]:
    with pytest.raises(_Killed):
        train(examples, base, out, CONFIG, progress=_kill_after(7))
    return sorted(out.with_name(f"{out.name}.training").glob("step-*"))


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    checkpoints = _interrupted(tiny_models["bert"], examples, tmp_path / "cut")
    assert [path.name for path in checkpoints] == ["step-00000004", "step-00000006"], "the newest two stay"
    damaged = checkpoints[-1] / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    done: list[int] = []
    with caplog.at_level(logging.WARNING):
        train(examples, tiny_models["bert"], tmp_path / "cut", CONFIG, progress=lambda r, _: done.append(r.step))
    assert done[0] == 5
    assert any("step-00000006 is damaged" in record.message for record in caplog.records)
    train(examples, tiny_models["bert"], tmp_path / "whole", CONFIG)
    assert _same(tmp_path / "whole", tmp_path / "cut")


def test_damage_to_any_byte_of_the_state_is_noticed(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    receipt = Receipt(config={"loss": "infonce"}, base="b", base_hash="0", data_hash="0", validation_hash="0")
    validations = [ValidationRecord(0, 0.25, {"pony": 0.25}, 1.5)]
    saved = save_checkpoint(tmp_path, 1, receipt, model, optimizer, keep=1, memory=MEMORY, validations=validations)
    state = saved / "state.json"
    whole = state.read_bytes()
    for place in range(len(whole)):
        state.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with pytest.raises(DamageError):
            newest_checkpoint(tmp_path)
    state.write_bytes(whole.replace(b'"step": 1,', b'"step": 3,', 1))
    with pytest.raises(DamageError, match=r"step-00000001 is damaged: state\.json cannot be read \(it is not what was"):
        newest_checkpoint(tmp_path)


def test_a_checkpoint_of_a_version_that_wrote_no_checksum_is_read(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    receipt = Receipt(config={"loss": "infonce"}, base="b", base_hash="0", data_hash="0")
    optimizer = torch.optim.AdamW(model.parameters())
    state = save_checkpoint(tmp_path, 1, receipt, model, optimizer, keep=1, memory=MEMORY) / "state.json"
    found = newest_checkpoint(tmp_path)
    content = msgspec.json.decode(state.read_bytes())
    assert len(content.pop("checksum")) == 64
    state.write_bytes(msgspec.json.encode(content))
    assert newest_checkpoint(tmp_path) == found and found is not None


def test_a_bit_flipped_in_the_manifest_of_a_training_is_damage(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    """Or it changes nothing, as in the name of the checksum itself."""
    path = train(examples[:4], tiny_models["bert"], tmp_path / "m", CONFIG).model_folder / "manifest.json"
    whole, manifest = path.read_bytes(), read_manifest(path.parent)
    assert manifest is not None and manifest.examples == 4
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 7]) + whole[place + 1 :])
        with contextlib.suppress(DamageError):
            assert read_manifest(path.parent) == manifest, place
    path.write_bytes(whole.replace(b'"examples": 4', b'"examples": 5'))
    with pytest.raises(DamageError, match=r"manifest\.json cannot be read: it is not what was written.*train again"):
        train(examples[:4], tiny_models["bert"], tmp_path / "m", CONFIG)


def test_with_no_whole_checkpoint_left_it_says_so(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    for path in _interrupted(tiny_models["bert"], examples, tmp_path / "cut"):
        (path / "weights.safetensors").unlink()
    with pytest.raises(DamageError, match=r"no checkpoint .* is whole.*resume=False"):
        train(examples, tiny_models["bert"], tmp_path / "cut", CONFIG)


def test_a_resumed_training_with_another_setting_is_refused_by_key(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    _interrupted(tiny_models["bert"], examples, tmp_path / "cut")
    changed = msgspec.structs.replace(CONFIG, kappa=3.0)
    with pytest.raises(StageChanged, match=r"kappa was 5\.0 and is 3\.0 now"):
        train(examples, tiny_models["bert"], tmp_path / "cut", changed)
    free = msgspec.structs.replace(CONFIG, micro_batch_tokens=100, checkpoint_every_steps=0)
    done: list[int] = []
    train(examples, tiny_models["bert"], tmp_path / "cut", free, progress=lambda r, _: done.append(r.step))
    assert done == list(range(7, 13)), "how it is run may change"


def test_a_checkpoint_that_could_not_be_written_leaves_the_last_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    receipt = Receipt(config={}, base="b", base_hash="0", data_hash="0")
    save_checkpoint(tmp_path, 1, receipt, model, optimizer, keep=2, memory=MEMORY)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reasonembed.redapter.checkpoint.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        save_checkpoint(tmp_path, 2, receipt, model, optimizer, keep=2, memory=MEMORY)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found[1].step == 1


def test_a_checkpoint_holds_no_pickle(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    (_, last) = _interrupted(tiny_models["bert"], examples, tmp_path / "cut")
    assert sorted(path.name for path in last.iterdir()) == [
        "optimizer.safetensors", "rng.safetensors", "state.json", "weights.safetensors",
    ]  # fmt: skip
