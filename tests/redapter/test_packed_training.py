"""Training on packed texts: the gradients of padded ones, nothing computed on padding, and it may change on resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reasonembed.encoder.lora import LoraSettings, layer_stack
from reasonembed.encoder.model import Encoder
from reasonembed.errors import ConfigError
from reasonembed.redapter.batches import Batch
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.graph import checkpoint_activations
from reasonembed.redapter.log import read_log
from reasonembed.redapter.train import TrainingStopped, train

if TYPE_CHECKING:
    from conftest import GradientsOf, LoadToTrain

CONFIG = TrainConfig(start_step=0, max_query_tokens=48, max_passage_tokens=32, temperature=0.05)
PLENTY = 1 << 40  # bytes


@pytest.mark.parametrize("graph_bytes", [0, PLENTY])
@pytest.mark.parametrize("how", ["all", "lora", "frozen", "recomputed"])
@pytest.mark.parametrize(("name", "dtype"), [("bert", "float64"), ("qwen3", "float32"), ("llama", "float32")])
def test_gradients_are_those_of_padded_texts(
    tiny_models: dict[str, Path],
    batch: Batch,
    load_to_train: LoadToTrain,
    gradients_of: GradientsOf,
    name: str,
    dtype: str,
    how: str,
    graph_bytes: int,
) -> None:
    encoder = load_to_train(tiny_models[name], dtype, how)
    padded, padding = gradients_of(encoder, batch, budget=200, graph_bytes=graph_bytes)
    assert padding > 0
    encoder.pack()
    if how == "frozen":
        encoder.keep_frozen(1)
    if how == "recomputed":
        checkpoint_activations(layer_stack(encoder.model))
    for budget in (1, 200, 100_000):
        packed, padding = gradients_of(encoder, batch, budget=budget, graph_bytes=graph_bytes)
        assert padding == 0
        assert packed.keys() == padded.keys() and len(padded) >= 10
        for key, gradient in padded.items():
            tolerance = (1e-10 if dtype == "float64" else 1e-5) * max(1.0, float(gradient.abs().max()))
            torch.testing.assert_close(packed[key], gradient, rtol=0, atol=tolerance)


def test_in_bfloat16_they_are_so_but_for_its_rounding(
    tiny_models: dict[str, Path], batch: Batch, load_to_train: LoadToTrain, gradients_of: GradientsOf
) -> None:
    encoder = load_to_train(tiny_models["qwen3"], "float32", "all")

    def flat() -> torch.Tensor:
        return torch.cat(
            [g.flatten() for g in gradients_of(encoder, batch, budget=200, graph_bytes=0, bf16=True)[0].values()]
        )

    padded = flat()
    encoder.pack(bf16=True)
    assert torch.nn.functional.cosine_similarity(padded, flat(), dim=0) > 0.99


@pytest.mark.parametrize(
    "how",
    [{}, {"lora": LoraSettings(rank=2, alpha=4)}, {"train_layers": 1, "activation_checkpointing": True}],
    ids=["all", "lora", "frozen"],
)
def test_a_packed_training_ends_in_the_weights_of_a_padded_one_and_leaves_no_trace_in_the_model(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, how: dict[str, Any]
) -> None:
    config = msgspec.structs.replace(CONFIG, learning_rate=1e-3, **how)
    base = tiny_models["qwen3"]  # without the biases of keys, whose gradient is 0 but for rounding: Adam magnifies it
    train(examples, base, tmp_path / "padded", config)
    result = train(examples, base, tmp_path / "packed", msgspec.structs.replace(config, packed=True))
    assert [record.padding_share for record in read_log(result.log_path)] == [0] * 4
    assert result.totals.padding_share == 0
    padded, packed = (load_file(tmp_path / name / "model.safetensors") for name in ("padded", "packed"))
    for key, tensor in padded.items():
        torch.testing.assert_close(packed[key], tensor, rtol=0, atol=1e-4)
    configs = [(tmp_path / name / "config.json").read_text() for name in ("padded", "packed")]
    assert configs[0] == configs[1]


def test_packing_may_change_when_a_training_goes_on(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, learning_rate=1e-3, packed=True)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, TrainingStopped)):
        train(
            examples,
            tiny_models["qwen3"],
            tmp_path / "m",
            msgspec.structs.replace(config, checkpoint_every_steps=1),
            progress=lambda record, _: stop() if record.step == 3 else None,
        )
    result = train(examples, tiny_models["qwen3"], tmp_path / "m", msgspec.structs.replace(config, packed=False))
    paddings = [record.padding_share for record in read_log(result.log_path)]
    assert len(paddings) == 4 and paddings[:2] == [0, 0] and paddings[-1] > 0


def test_a_base_that_cannot_take_packed_texts_is_refused_before_a_step(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Encoder.load

    def eager(*args: Any, **options: Any) -> Encoder:
        encoder = load(*args, **options)
        encoder.model.set_attn_implementation("eager")
        return encoder

    monkeypatch.setattr(Encoder, "load", eager)
    with pytest.raises(ConfigError, match=r'attention "eager".*Leave packed out'):
        train(examples, tiny_models["bert"], tmp_path / "m", msgspec.structs.replace(CONFIG, packed=True))
