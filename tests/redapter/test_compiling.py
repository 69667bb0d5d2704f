"""Compiled layers give the gradients of those that are not, and a model that cannot be compiled is refused at once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from reasonembed.encoder.lora import LoraSettings, layer_stack
from reasonembed.errors import ConfigError
from reasonembed.redapter import compiling
from reasonembed.redapter.batches import Batch
from reasonembed.redapter.compiling import compile_layers, run_eagerly
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.graph import checkpoint_activations
from reasonembed.redapter.log import read_log
from reasonembed.redapter.train import train

if TYPE_CHECKING:
    from conftest import GradientsOf, LoadToTrain

CONFIG = TrainConfig(
    start_step=0, max_query_tokens=48, max_passage_tokens=32, temperature=0.05, learning_rate=1e-3, compile=True
)
PLENTY = 1 << 40  # bytes


@pytest.fixture(autouse=True)
def _forget_what_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # which pytest would have it write
    torch._dynamo.reset()
    counters.clear()


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is captured and differentiated as ever, and no kernel is built: seconds instead of minutes."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")


@pytest.mark.usefixtures("without_kernels")
@pytest.mark.parametrize(
    ("name", "dtype", "how"),
    [
        ("bert", "float64", "frozen"),
        ("qwen3", "float32", "recomputed"),
        ("qwen3", "float32", "packed"),
    ],
)
def test_gradients_are_those_of_layers_that_are_not_compiled(
    tiny_models: dict[str, Path],
    batch: Batch,
    load_to_train: LoadToTrain,
    gradients_of: GradientsOf,
    name: str,
    dtype: str,
    how: str,
) -> None:
    encoder = load_to_train(tiny_models[name], dtype, how)
    eager, _ = gradients_of(encoder, batch, budget=200, graph_bytes=0)
    layers = layer_stack(encoder.model)[-1:] if how == "frozen" else layer_stack(encoder.model)
    if how == "frozen":
        encoder.keep_frozen(1)
    if how == "packed":
        encoder.pack()
    compile_layers(encoder, layers)
    if how == "recomputed":
        checkpoint_activations(layers)
    for budget, graph_bytes in ((1, 0), (200, PLENTY)):
        compiled, _ = gradients_of(encoder, batch, budget=budget, graph_bytes=graph_bytes)
        assert compiled.keys() == eager.keys() and len(eager) >= 10
        for key, gradient in eager.items():
            tolerance = (1e-10 if dtype == "float64" else 1e-5) * max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(compiled[key], gradient, rtol=0, atol=tolerance)
    assert counters["stats"]["unique_graphs"] > 0


@pytest.mark.parametrize(
    ("lora", "backend"),
    [
        (None, "inductor"),
        (LoraSettings(rank=2, alpha=4), "aot_eager"),
    ],  # one with kernels: half a minute, if none is kept
    ids=["all", "lora"],
)
def test_a_compiled_training_ends_in_the_weights_of_another_and_leaves_no_trace_in_the_model(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lora: LoraSettings | None,
    backend: str,
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", backend)
    config = msgspec.structs.replace(CONFIG, lora=lora)
    base = tiny_models["qwen3"]
    train(examples, base, tmp_path / "eager", msgspec.structs.replace(config, compile=False))
    assert not counters["stats"]
    result = train(examples, base, tmp_path / "compiled", config)
    assert 2 <= counters["stats"]["unique_graphs"] <= 8  # not one for every shape of a batch
    eager, compiled = (load_file(tmp_path / name / "model.safetensors") for name in ("eager", "compiled"))
    assert eager.keys() == compiled.keys()
    for key, tensor in eager.items():
        torch.testing.assert_close(compiled[key], tensor, rtol=0, atol=1e-4)
    logs = [
        [round(record.loss, 3) for record in read_log(tmp_path / name / "train_log.jsonl")]
        for name in ("eager", "compiled")
    ]
    assert logs[0] == logs[1] and result.totals.steps == len(logs[0])


@pytest.mark.usefixtures("without_kernels")
def test_validation_and_resume_go_with_it_and_it_may_change_between(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, collections: Any
) -> None:
    config = msgspec.structs.replace(CONFIG, checkpoint_every_steps=1, validate_every_steps=2, train_layers=1)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            examples,
            tiny_models["qwen3"],
            tmp_path / "m",
            config,
            validation=collections,
            progress=lambda record, _: stop() if record.step == 3 else None,
        )
    captured = counters["stats"]["unique_graphs"]
    assert captured > 0
    eager = msgspec.structs.replace(config, compile=False)
    result = train(examples, tiny_models["qwen3"], tmp_path / "m", eager, validation=collections)
    assert result.totals.steps == 4 and counters["stats"]["unique_graphs"] == captured


@pytest.mark.usefixtures("without_kernels")
def test_run_eagerly_undoes_it(tiny_models: dict[str, Path], load_to_train: LoadToTrain) -> None:
    encoder = load_to_train(tiny_models["bert"], "float32", "all")
    layers = layer_stack(encoder.model)
    compile_layers(encoder, layers)
    assert all("forward" in vars(layer) for layer in layers)
    run_eagerly(layers)
    assert not any("forward" in vars(layer) for layer in layers)


def _no_compiler(*_: Any) -> Any:
    raise RuntimeError("no C++ compiler was found\nsearched: g++, clang++")


def _wrong(graph: torch.fx.GraphModule, _: Any) -> Any:
    def run(*inputs: torch.Tensor) -> Any:
        return tuple(out.flip(-1) for out in graph(*inputs))

    return run


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (_no_compiler, r"could not be compiled: .*no C\+\+ compiler was found.*Install it, or leave compile out"),
        (_wrong, r"gives other vectors when its layers are compiled \(cosine .*Leave compile out"),
    ],
)
def test_what_cannot_be_compiled_is_refused_before_a_step(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: Any,
    message: str,
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", backend)
    with pytest.raises(ConfigError, match=message):
        train(examples, tiny_models["bert"], tmp_path / "m", CONFIG)
    assert not (tmp_path / "m").exists()


def test_dropout_is_refused_with_it() -> None:
    for how in ({"dropout": True}, {"lora": LoraSettings(dropout=0.1)}):
        with pytest.raises(ValueError, match="compile and dropout cannot go together"):
            TrainConfig(compile=True, **how)
