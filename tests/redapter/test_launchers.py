"""The command line under the launchers that people use: two processes end with the weights of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reasonembed.config import load_toml
from reasonembed.files import write_jsonl
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.log import read_log
from reasonembed.workflow.training import train

CONFIGS = Path(__file__).parents[2] / "docs" / "accelerate"
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = ["accelerate.commands.launch", "--num_processes", "2", "--config_file"]
DEADLINE_S = 240  # a launch takes 12 s; a starved machine is no failure, and pytest itself waits for 300
TOPICS = ("drift", "heat", "memory", "price", "torque", "graph")
SETTINGS = """
start_step = 2
epochs = 3
global_queries = 3
group_size = 3
temperature = 0.1
checkpoint_every_steps = 0
"""


@pytest.fixture(scope="module")
def folder(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the data, the settings, and `alone`, the model that one process trained on them."""
    folder = tmp_path_factory.mktemp("launchers")
    rows = [
        {"prompt": "", "query": f"why {t}", "reasoning_query": f"think {t}", "pos": [f"{t} is so"], "neg": ["the sea"]}
        for t in TOPICS
    ]
    write_jsonl(folder / "biology-formatted.jsonl", rows)
    (folder / "train.toml").write_text(SETTINGS)
    torch.set_num_threads(1)
    data, settings = folder / "biology-formatted.jsonl", folder / "train.toml"
    train(data, base=tiny_models["qwen3"], out=folder / "alone", config=settings)
    return folder


def _start(launcher: list[str], folder: Path, name: str, base: Path, *flags: str) -> subprocess.Popen[str]:
    data, out, settings = folder / "biology-formatted.jsonl", folder / name, folder / "train.toml"
    command = ["train", str(data), "--base", str(base), "--out", str(out), "--config", str(settings), *flags]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", "reasonembed", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str]) -> str:
    """What the launch printed. One that goes on past the deadline is killed with all its processes, and a failure."""
    try:
        return process.communicate(timeout=DEADLINE_S)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"not done after {DEADLINE_S} s: {process.args!r}\n{process.communicate()[0]}")


def _same_training(one: Path, other: Path) -> None:
    ours, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert (ours[key] - tensor).abs().max() < 1e-5, key
    steps, expected = read_log(one / "train_log.jsonl"), read_log(other / "train_log.jsonl")
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in expected], abs=1e-5)
    norms = [step.gradient_norm for step in expected]
    assert [step.gradient_norm for step in steps] == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize("config", sorted(path.name for path in CONFIGS.iterdir()))
def test_two_processes_of_accelerate_train_what_one_does_and_the_first_alone_reports(
    tiny_models: dict[str, Path], folder: Path, config: str
) -> None:
    process = _start([*ACCELERATE, str(CONFIGS / config)], folder, config, tiny_models["qwen3"])
    output = _finish(process)
    assert process.returncode == 0, output
    assert output.count("6 steps in") == 1, output
    _same_training(folder / config, folder / "alone")


def test_sigterm_to_torchrun_saves_where_all_processes_are_and_one_process_goes_on(
    tiny_models: dict[str, Path], folder: Path
) -> None:
    process = _start(TORCHRUN, folder, "stopped", tiny_models["qwen3"], "--epochs", "100")
    log = folder / "stopped.training" / "train_log.jsonl"
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline and not (log.exists() and log.stat().st_size):
        time.sleep(0.01)
    process.terminate()
    output = _finish(process)
    assert process.returncode != 0 and "stopped by SIGTERM after step" in output, output
    (saved,) = log.parent.glob("step-*")
    assert read_log(log)[-1].step == int(saved.name.removeprefix("step-")) < 200, "no step after the one saved"
    assert not (folder / "stopped").exists()
    first, alone = read_log(log)[0], read_log(folder / "alone" / "train_log.jsonl")[0]
    assert (first.tokens, first.domain) == (alone.tokens, alone.domain)
    assert first.loss == pytest.approx(alone.loss, abs=1e-5), "before the schedules of the two part"
    assert first.gradient_norm == pytest.approx(alone.gradient_norm, rel=1e-4)
    config = msgspec.structs.replace(load_toml(folder / "train.toml", TrainConfig), epochs=100)
    data, base = folder / "biology-formatted.jsonl", tiny_models["qwen3"]
    assert train(data, base=base, out=folder / "stopped", config=config).totals.steps == 200
