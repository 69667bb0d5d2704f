"""The command line under the launchers that people use: two processes end with the weights of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reasonembed.files import write_jsonl
from reasonembed.redapter.log import read_log
from reasonembed.workflow.training import train

CONFIG = Path(__file__).parents[2] / "docs" / "accelerate" / "gpus.yaml"
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = ["accelerate.commands.launch", "--config_file", str(CONFIG), "--num_processes", "2"]
DEADLINE_S = 120
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
    train(folder / "biology-formatted.jsonl", base=tiny_models["qwen3"], out=folder / "alone", config=folder / "train.toml")
    return folder


def _launch(
    launcher: list[str], folder: Path, base: Path, name: str, meanwhile: Callable[[subprocess.Popen[str]], None]
) -> tuple[int, str]:
    """Exit code and output. A launch that goes on past the deadline is killed with all its processes, and a failure."""
    data, out = folder / "biology-formatted.jsonl", folder / name
    flags = ["--base", str(base), "--out", str(out), "--config", str(folder / "train.toml")]
    process = subprocess.Popen(
        [sys.executable, "-m", *launcher, "-m", "reasonembed", "train", str(data), *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        meanwhile(process)
        output, _ = process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"{launcher[0]} was not done after {DEADLINE_S} s:\n{output}")
    return process.returncode, output


def _nothing(process: subprocess.Popen[str]) -> None:
    """The launch is left alone."""


def _same_training(one: Path, other: Path) -> None:
    ours, theirs = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert (ours[key] - tensor).abs().max() < 1e-5, key
    steps, expected = read_log(one / "train_log.jsonl"), read_log(other / "train_log.jsonl")
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in expected], abs=1e-5)
    norms = [step.gradient_norm for step in expected]
    assert [step.gradient_norm for step in steps] == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_launched_processes_train_what_one_does_and_the_first_alone_reports(
    tiny_models: dict[str, Path], folder: Path, launcher: list[str]
) -> None:
    name = launcher[0].partition(".")[0]
    code, output = _launch(launcher, folder, tiny_models["qwen3"], name, _nothing)
    assert code == 0, output
    assert output.count("6 steps in") == 1, output
    _same_training(folder / name, folder / "alone")
