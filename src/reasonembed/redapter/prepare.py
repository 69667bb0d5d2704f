"""Before the first step: what cannot be trained on is refused, and the base model is made ready to train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from reasonembed.beir import Collection
from reasonembed.encoder.frozen import FrozenStates
from reasonembed.encoder.lora import add_lora, layer_stack, train_last_layers
from reasonembed.encoder.model import Encoder
from reasonembed.errors import ConfigError, InputError, shown
from reasonembed.redapter.attention import use_full_attention
from reasonembed.redapter.base_share import BaseShare
from reasonembed.redapter.batches import check_negatives, check_weights
from reasonembed.redapter.checkpoint import trained_weights
from reasonembed.redapter.compiling import compile_layers
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.dropout import Dropout
from reasonembed.redapter.gather import Ranks
from reasonembed.redapter.graph import checkpoint_activations
from reasonembed.redapter.memory import StepMemory
from reasonembed.redapter.optimizer import Optimizer, make_optimizer
from reasonembed.redapter.precision import coarse_on_cpu, narrow_frozen, uses_autocast
from reasonembed.redapter.receipt import Receipt
from reasonembed.redapter.sharding import shard_model
from reasonembed.redapter.validation import Validation


class Training(NamedTuple):
    """What a running training holds."""

    encoder: Encoder
    optimizer: Optimizer
    dropout: Dropout
    base_share: BaseShare
    memory: StepMemory
    config: TrainConfig
    receipt: Receipt
    validation: Validation

    @property
    def ranks(self) -> Ranks:
        """The processes that train together."""
        return self.validation.ranks

    @property
    def bf16(self) -> bool:
        """Whether the model runs under bfloat16 autocast."""
        return uses_autocast(self.config, self.encoder.device.type)

    @property
    def work(self) -> Path:
        """Where checkpoints and log lie."""
        return self.validation.work


def check_data(examples: Sequence[TrainingExample], config: TrainConfig, validation: Mapping[str, Collection]) -> None:
    """Raise InputError or ConfigError, with what to do, for data that cannot be trained on with this `config`."""
    if not examples:
        raise InputError("there are no training examples. Give a data file or a workspace that holds some.")
    check_weights(config.domain_weights, sorted({example.domain for example in examples}))
    check_negatives(examples, config.group_size)
    if config.patience is not None and not validation:
        raise ConfigError(
            f"patience is {config.patience} and there is nothing to validate on. Give validation queries "
            f"(--validation FOLDER), or leave patience out."
        )
    for example in examples:
        where = f"the example {shown(example.example_id)} of {example.domain}"
        if config.needs_reasoning and not example.reasoning_query.strip():
            without = "distill_weight = 0 and " if config.distill_weight else ""
            raise InputError(
                f"{where} has no reasoning query, which reasoning intensity is measured by and distillation learns "
                f'from. Add it, or train with {without}loss = "infonce" (--loss infonce).'
            )
        if config.listwise_weight and not example.is_graded:
            raise InputError(
                f"{where} has no grade for every passage, which listwise_weight needs. Add pos_scores and neg_scores, "
                f"or set listwise_weight to 0."
            )


def prepare(
    base: str | Path, config: TrainConfig, receipt: Receipt, frozen: FrozenStates | None, validation: Validation
) -> Training:
    """The base model, whole or this process's part of it, and its optimiser, as they are before the first step.

    frozen: see `train.train`. Raises InputError if `base` is no model, or smaller than `matryoshka_dims` asks for;
    ConfigError if it cannot take packed texts, or has no dropout, that `config` asks for.
    """
    ranks = validation.ranks
    torch.manual_seed(config.seed)
    quantize = config.lora is not None and config.lora.quantize_base
    encoder = _load(base, config, device=str(ranks.device), quantize=quantize)
    bf16 = uses_autocast(config, encoder.device.type)
    if max(config.matryoshka_dims, default=0) > encoder.dimension:
        raise InputError(
            f"matryoshka_dims asks for {max(config.matryoshka_dims)} dimensions and {receipt.base} has "
            f"{encoder.dimension}. Choose fewer; all {encoder.dimension} are trained anyway."
        )
    if config.packed:
        encoder.pack(bf16=bf16)
    if config.train_layers is not None and not ranks.sharded:  # which keeps all processes in step, also below
        encoder.keep_frozen(config.train_layers, frozen)
    ranks.same_weights(encoder.model)  # adapters begin at random
    dropout = Dropout(encoder, config, rank=ranks.rank)
    layers = layer_stack(encoder.model)[-(config.train_layers or 0) :]
    if config.compile:
        compile_layers(encoder, layers, bf16=bf16)
    if config.activation_checkpointing:
        checkpoint_activations(layers, drops=config.drops)
    if ranks.sharded:
        shard_model(encoder.model, ranks)
    elif config.keeps_base_coarse and config.bf16:
        narrow_frozen(encoder.model)
    optimizer = make_optimizer(encoder.model, config, ranks)
    base_share = BaseShare(encoder.model, config.base_share)
    return Training(encoder, optimizer, dropout, base_share, StepMemory(config), config, receipt, validation)


def _load(base: str | Path, config: TrainConfig, *, device: str, quantize: bool = False) -> Encoder:
    """The base model, with room for the texts' tokens, and what of it trains requiring a gradient."""
    encoder = Encoder.load(base, device=device, pooling=config.pooling, quantize=quantize)
    wanted = max(encoder.max_tokens, config.max_query_tokens, config.max_passage_tokens)
    encoder.max_tokens = min(wanted, encoder.position_limit or wanted)
    if encoder.device.type == "cpu" and coarse_on_cpu(config) and not config.packed:
        use_full_attention(encoder)
    if config.lora is not None:
        encoder.model = add_lora(encoder.model, config.lora)
    else:
        train_last_layers(encoder.model, config.train_layers)
    return encoder


def with_weights(base: str | Path, config: TrainConfig, weights: Mapping[str, torch.Tensor]) -> Encoder:
    """The base model anew and in full, with `weights` for those that train: what a training is saved from whose own
    model is in parts, or in fewer bits.
    """
    encoder = _load(base, config, device="cpu")
    with torch.no_grad():
        for name, parameter in trained_weights(encoder.model).items():
            parameter.copy_(weights[name])
    return encoder


__all__ = ["Training", "check_data", "prepare", "with_weights"]
