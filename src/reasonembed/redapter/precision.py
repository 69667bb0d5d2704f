"""How finely float32 products are computed while a model trains: in full, or faster where the hardware can."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from reasonembed.redapter.config import TrainConfig


@contextlib.contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """While it lasts, PyTorch multiplies float32 matrices with this `precision`: highest, high or medium.

    What is left afterwards is what was set before, by that function or on a backend (`fp32_precision`), which PyTorch
    counts as two settings. Source: torch.set_float32_matmul_precision.
    """
    backends = _backends()
    each = [backend.fp32_precision for backend in backends]
    before = _common_precision()
    if precision == "medium" and not rounds_on_cpu(precision):
        precision = (
            "high"  # on GPUs the same; on a CPU with AVX-512 alone PyTorch would emulate bfloat16, which is slow
        )
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before or "highest")
        for backend, value in zip(backends, each, strict=True):
            if backend.fp32_precision != value:
                backend.fp32_precision = value


def _backends() -> list[Any]:
    """Those with a setting of their own: none before torch 2.9."""
    found = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    return [backend for backend in found if hasattr(backend, "fp32_precision")]


def _common_precision() -> str | None:
    """What was set for all backends together; None if they were set one by one."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def rounds_on_cpu(precision: str) -> bool:
    """Whether PyTorch multiplies float32 matrices in bfloat16 on this CPU with this `precision`.

    It does with AMX, and on ARM with BF16. With AVX512-BF16 alone (AMD since Zen 4) it leaves them in full.
    """
    return precision == "medium" and _cpu_has("amx_bf16", "bf16")  # the last is ARM's


def coarse_on_cpu(config: TrainConfig) -> bool:
    """Whether a training on this CPU multiplies in bfloat16: by autocast, or because PyTorch rounds."""
    return config.bf16 or (config.matmul_precision == "medium" and _cpu_has("amx_bf16", "bf16", "avx512_bf16"))


def uses_autocast(config: TrainConfig, device_type: str) -> bool:
    """Whether the model runs under bfloat16 autocast in this training: because `bf16` says so, or because
    `matmul_precision` is medium on a CPU that multiplies bfloat16, and not float32 matrices in it.
    """
    unrounded = device_type == "cpu" and not rounds_on_cpu(config.matmul_precision)
    return config.bf16 or (unrounded and coarse_on_cpu(config))


def _cpu_has(*names: str) -> bool:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.cpu, "get_capabilities")):
        return False
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in names)


def autocast(device_type: str, bf16: bool) -> contextlib.AbstractContextManager[object]:
    """bfloat16 autocast, if so; without its cache, which would but hold a copy of weights that are cast once a pass."""
    if not bf16:
        return contextlib.nullcontext()
    return torch.autocast(device_type, torch.bfloat16, cache_enabled=False)


def narrow_frozen(model: nn.Module) -> None:
    """Keep the linear layers that do not train in bfloat16, to which autocast rounds them at each use anyway.

    Under autocast vectors and gradients stay the same to the bit, in half of the memory; without it the model is of no
    use from here on.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.dtype == torch.float32:
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.bfloat16()


__all__ = ["autocast", "coarse_on_cpu", "float32_products", "narrow_frozen", "rounds_on_cpu", "uses_autocast"]
