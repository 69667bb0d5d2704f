"""With dropout the gradient is that of the loss that was drawn, whatever passes a step takes; and trainings repeat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reasonembed.encoder.lora import LoraSettings, add_lora, train_last_layers
from reasonembed.encoder.model import Encoder
from reasonembed.errors import ConfigError
from reasonembed.redapter.batches import Batch, epoch_batches
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.dropout import Dropout
from reasonembed.redapter.gradcache import StepOutcome, cached_backward, tokenize_batch
from reasonembed.redapter.log import StepRecord, read_log
from reasonembed.redapter.objective import batch_loss
from reasonembed.redapter.train import train

DROPS = TrainConfig(
    dropout=True, start_step=0, temperature=0.2, learning_rate=2e-3, max_query_tokens=48, max_passage_tokens=32
)
ADAPTERS = msgspec.structs.replace(DROPS, dropout=False, lora=LoraSettings(rank=2, alpha=4, dropout=0.3))
PLENTY = 1 << 40  # bytes


@pytest.fixture
def batch(examples: list[TrainingExample]) -> Batch:
    (batch,) = epoch_batches(examples[:5], seed=3, epoch=0, group_size=4, global_queries=5)
    return batch


@pytest.fixture
def encoders(tiny_models: dict[str, Path], load_exact: Callable[[Path], Encoder]) -> Callable[[TrainConfig], Encoder]:
    """A BERT with its own dropout, or a Qwen3 whose adapters have some, in float64."""

    def load(config: TrainConfig) -> Encoder:
        if config.lora is None:
            encoder = load_exact(tiny_models["bert"])
            train_last_layers(encoder.model, config.train_layers)
            return encoder
        encoder = load_exact(tiny_models["qwen3"])
        torch.manual_seed(0)
        encoder.model = add_lora(encoder.model, config.lora).double()
        with torch.no_grad():
            for parameter in encoder.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.02)
        return encoder

    return load


def _step(
    encoder: Encoder, batch: Batch, config: TrainConfig, *, step: int = 3, graph_bytes: int = 0, rank: int = 0
) -> tuple[StepOutcome, dict[str, torch.Tensor]]:
    texts = tokenize_batch(encoder, batch, config)
    encoder.model.zero_grad()
    with Dropout(encoder, config, rank=rank).acting(step) as draws:
        outcome = cached_backward(
            encoder,
            texts,
            lambda vectors: batch_loss(vectors, texts, batch, config, step=0),
            budget_tokens=100,
            graph_bytes=graph_bytes,
            draws=draws,
        )
    return outcome, {n: p.grad.clone() for n, p in encoder.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config", [DROPS, ADAPTERS], ids=["bert", "adapters"])
def test_the_gradient_is_the_slope_of_the_loss_that_was_drawn(
    encoders: Callable[[TrainConfig], Encoder], batch: Batch, config: TrainConfig
) -> None:
    config = msgspec.structs.replace(config, loss="infonce")  # RI's weights have no gradient, but a slope
    encoder = encoders(config)
    _, gradients = _step(encoder, batch, config)
    weights = dict(encoder.model.named_parameters())
    generator = torch.Generator().manual_seed(1)
    direction = {name: torch.randn(g.shape, generator=generator, dtype=g.dtype) for name, g in gradients.items()}
    size = 1e-6
    losses = []
    for sign in (1, -2):
        with torch.no_grad():
            for name, along in direction.items():
                weights[name].add_(sign * size * along)
        losses.append(float(_step(encoder, batch, config)[0].losses.loss))
    slope = sum(float((gradients[name] * along).sum()) for name, along in direction.items())
    assert slope == pytest.approx((losses[0] - losses[1]) / (2 * size), rel=1e-5)


@pytest.mark.parametrize(
    "config", [DROPS, ADAPTERS, msgspec.structs.replace(DROPS, train_layers=1)], ids=["bert", "adapters", "a layer"]
)
def test_both_passes_a_kept_graph_and_a_repeated_step_drop_alike_and_another_step_does_not(
    encoders: Callable[[TrainConfig], Encoder], batch: Batch, config: TrainConfig
) -> None:
    encoder = encoders(config)
    outcome, cached = _step(encoder, batch, config)
    torch.manual_seed(99)  # whatever else draws must not matter
    kept_outcome, kept = _step(encoder, batch, config, graph_bytes=PLENTY)
    assert (outcome.graph_kept, kept_outcome.graph_kept) == (False, True)
    assert cached.keys() == kept.keys()
    for name, gradient in cached.items():
        torch.testing.assert_close(kept[name], gradient, rtol=1e-9, atol=1e-12)
    loss = float(outcome.losses.loss)
    assert float(_step(encoder, batch, config)[0].losses.loss) == loss
    undropped = TrainConfig(lora=LoraSettings(rank=2, alpha=4) if config.lora else None)
    settings = msgspec.structs.replace(config, dropout=False, lora=undropped.lora)
    others = [
        float(_step(encoder, batch, config, step=4)[0].losses.loss),
        float(_step(encoder, batch, config, rank=1)[0].losses.loss),
        float(_step(encoder, batch, msgspec.structs.replace(config, seed=7))[0].losses.loss),
        float(_step(encoder, batch, settings)[0].losses.loss),
    ]
    assert len({loss, *others}) == 5
    assert not any(module.training for module in encoder.model.modules()), "it drops in a step alone"


def test_it_leaves_the_random_numbers_of_others_alone(encoders: Callable[[TrainConfig], Encoder], batch: Batch) -> None:
    encoder = encoders(DROPS)
    before = torch.get_rng_state()
    _step(encoder, batch, DROPS)
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_that_do_not_train_drop_nothing(encoders: Callable[[TrainConfig], Encoder]) -> None:
    config = msgspec.structs.replace(DROPS, train_layers=1)
    encoder = encoders(config)
    with Dropout(encoder, config).acting(0):
        *frozen, last = encoder.model.encoder.layer
        assert last.training and not any(layer.training for layer in frozen) and not encoder.model.embeddings.training


class _Killed(Exception):
    """Stands for a kill: nothing is caught or saved on the way out."""


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("bert", DROPS),
        ("bert", msgspec.structs.replace(DROPS, train_layers=1)),
        ("qwen3", ADAPTERS),
        ("qwen3", msgspec.structs.replace(ADAPTERS, packed=True)),
    ],
    ids=["bert", "a layer", "adapters", "packed adapters"],
)
def test_a_training_with_dropout_repeats_itself_resumed_and_with_activations_run_again(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    tmp_path: Path,
    name: str,
    config: TrainConfig,
) -> None:
    def kill(record: StepRecord, _steps: int) -> None:
        if record.step == 3:
            raise _Killed

    config = msgspec.structs.replace(config, checkpoint_every_steps=2, kept_graph_mb=0)
    again = msgspec.structs.replace(config, activation_checkpointing=True)
    none = msgspec.structs.replace(config, dropout=False, lora=config.lora and LoraSettings(rank=2, alpha=4))
    with pytest.raises(_Killed):
        train(examples, tiny_models[name], tmp_path / "cut", config, progress=kill)
    torch.manual_seed(5)
    losses = {}
    for folder, settings in {"whole": config, "cut": config, "again": again, "none": none}.items():
        result = train(examples, tiny_models[name], tmp_path / folder, settings)
        losses[folder] = [record.mean_loss for record in read_log(result.log_path)]
    weights = {folder: load_file(tmp_path / folder / "model.safetensors") for folder in losses}
    assert losses["whole"] == losses["cut"] == losses["again"] != losses["none"]
    for key, weight in weights["whole"].items():
        assert torch.equal(weights["cut"][key], weight) and torch.equal(weights["again"][key], weight), key


def test_the_trained_model_drops_nothing(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    train(examples, tiny_models["bert"], tmp_path / "out", DROPS)
    texts = ["why does water boil at altitude", "drift and heat"]
    ours = Encoder.load(tmp_path / "out", device="cpu").encode(texts)
    theirs = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts, normalize_embeddings=True)
    assert abs(ours - theirs).max() < 1e-5


def test_dropout_that_a_model_does_not_have_or_packed_attention_cannot_compute_is_refused(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"nothing that trains in .* drops anything.*lora = \{ dropout = 0.1 \}"):
        train(examples, tiny_models["qwen3"], tmp_path / "none", DROPS)
    with pytest.raises(ConfigError, match="asks for dropout in attention"):
        train(examples, tiny_models["bert"], tmp_path / "packed", msgspec.structs.replace(DROPS, packed=True))
    for bad in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"lora\.dropout is .*below 1"):
            LoraSettings(dropout=bad)
