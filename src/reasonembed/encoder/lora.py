"""What of a model trains: LoRA adapters through `peft`, or its last layers, or all of it."""

from __future__ import annotations

from typing import Any

import msgspec

from reasonembed.errors import InputError

_DECODER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_ENCODER = ("query", "key", "value", "dense")


class LoraSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size of the adapters (paper, Sec. 4.1)."""

    rank: int = 32
    alpha: int = 64  # the update is scaled by alpha / rank
    dropout: float = 0.0  # of the adapters' inputs while training, from 0 to below 1 (our choice: the paper gives none)
    quantize_base: bool = False  # the base in 4-bit NormalFloat while it trains (our option: QLoRA, arXiv 2305.14314)

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1:
            raise ValueError(f"lora has rank {self.rank} and alpha {self.alpha}; both must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout is {self.dropout}; it must be 0 or more, and below 1.")


def lora_targets(model: Any) -> list[str]:
    """Which projections get an adapter: the seven of a decoder, else query, key, value, dense of a BERT.

    Raises InputError for a model that has neither.
    """
    from torch import nn

    present = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for known in (_DECODER, _ENCODER):
        if found := [name for name in known if name in present]:
            return found
    raise InputError(
        f"no place for LoRA in {type(model).__name__}: its linear layers are called {', '.join(sorted(present))}; "
        f"expected {', '.join(_DECODER)} or {', '.join(_ENCODER)}. Train it without `lora`."
    )


def add_lora(model: Any, settings: LoraSettings) -> Any:
    """`model` with fresh adapters (which change nothing yet); only they require a gradient."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=lora_targets(model),
        exclude_modules=r".*pooler.*" if hasattr(model, "pooler") else None,  # no vector passes through it
        lora_dropout=settings.dropout,
        bias="none",
    )
    return get_peft_model(model, config).eval()


def layer_stack(model: Any) -> Any:
    """The model's layers, a `torch.nn.ModuleList`."""
    from torch import nn

    return max((module for module in model.modules() if isinstance(module, nn.ModuleList)), key=len)


def train_last_layers(model: Any, count: int | None) -> None:
    """Freeze all but the last `count` layers (None: nothing), and always what no embedding passes through.

    A final norm after the layers trains with them. Raises InputError if the model has fewer layers.
    """
    from torch import nn

    layers = layer_stack(model)
    if count is not None:
        if count > len(layers):
            raise InputError(f"train_layers is {count}; {type(model).__name__} has {len(layers)} layers.")
        model.requires_grad_(False)
        for layer in layers[len(layers) - count :]:
            layer.requires_grad_(True)
        if isinstance(final_norm := getattr(model, "norm", None), nn.Module):
            final_norm.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if name.startswith("pooler."):
            parameter.requires_grad_(False)
