"""The layers of a model compiled by `torch.compile`: fewer and larger kernels, the same gradient but for rounding."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from reasonembed.encoder.model import Encoder
from reasonembed.errors import ConfigError

BACKEND = "inductor"
_VERSIONS = 64  # of one layer: with a gradient or not, with padding or not, one text or several


def compile_layers(encoder: Encoder, layers: Iterable[nn.Module], *, bf16: bool = False) -> None:
    """From now on `layers`, which are some of the encoder's, run compiled, for any number of texts and tokens.

    Layers of one kind share what is compiled, at their first use. Vectors of a few texts
    are compared with those from before.  bf16: whether it is going to run under bfloat16 autocast.
    Raises ConfigError where they differ, or nothing can be compiled.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VERSIONS)
    before_BD = encoder.check_vectors(bf16=bf16)
    for layer in layers:  # inside the layer's hooks
        layer.forward = torch.compile(layer.forward, dynamic=True, backend=BACKEND)
    try:
        cosine = encoder.changed_from(before_BD, bf16=bf16)
    except Exception as error:
        raise ConfigError(
            f"the layers of {encoder.name} could not be compiled: {_first_line(error)} torch.compile needs a C++ "
            f"compiler on a CPU, Triton on a GPU. Install it, or leave compile out."
        ) from error
    if cosine is not None:
        raise ConfigError(
            f"{encoder.name} gives other vectors when its layers are compiled (cosine {cosine:.5f} to those from "
            f"before). Leave compile out."
        )


def run_eagerly(layers: Iterable[nn.Module]) -> None:
    """Give layers their own forward pass back, whatever was put around it."""
    for layer in layers:
        vars(layer).pop("forward", None)


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "inner_exception", error)  # whose text dynamo puts under a heading
    line = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    return line if line.endswith(".") else f"{line}."


__all__ = ["compile_layers", "run_eagerly"]
