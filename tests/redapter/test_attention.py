"""Attention in full beside coarse products: PyTorch's own fused attention to the bit; coarse products stay on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from reasonembed.encoder.model import Encoder
from reasonembed.redapter.attention import ATTENTION, use_full_attention
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import read_log
from reasonembed.redapter.precision import coarse_on_cpu, float32_products
from reasonembed.redapter.train import TrainConfig, train

TEXTS = ["a short one", "a longer text of several words, so that rows are padded", "two words"]
MEDIUM = TrainConfig(matmul_precision="medium", start_step=0)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


def _gradients(encoder: Encoder, *, bf16: bool = False, padding_side: str = "right") -> dict[str, torch.Tensor]:
    encoder.model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        vectors = encoder.embed(encoder.tokenize(TEXTS), padding_side=padding_side)  # type: ignore[arg-type]
    (vectors * torch.linspace(-1, 1, vectors.shape[1])).sum().backward()
    return {name: p.grad for name, p in encoder.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["bert", "qwen3", "llama"])
def test_vectors_and_gradients_are_those_of_fused_attention(tiny_models: dict[str, Path], name: str, side: str) -> None:
    encoder = Encoder.load(tiny_models[name])
    vectors, gradients = encoder.encode(TEXTS), _gradients(encoder, padding_side=side)
    use_full_attention(encoder)
    assert encoder.model.config._attn_implementation == ATTENTION
    np.testing.assert_array_equal(encoder.encode(TEXTS), vectors)
    found = _gradients(encoder, padding_side=side)
    assert found.keys() == gradients.keys() and len(found) >= 20
    for key, gradient in gradients.items():
        torch.testing.assert_close(found[key], gradient, atol=1e-6, rtol=1e-5)


def _backwards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How PyTorch multiplies at each call of its kernel's backward pass."""
    kernel, seen = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward, []

    def watched(*args: object, **options: object) -> tuple[torch.Tensor, ...]:
        seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        return kernel(*args, **options)

    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", watched)
    return seen


def _attended(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, ...]]:
    """What PyTorch's kernel is given and gives, at each call."""
    kernel, seen = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, []

    def watched(query: torch.Tensor, *args: object, **options: object) -> tuple[torch.Tensor, ...]:
        out = kernel(query, *args, **options)
        seen.append((query.detach(), *(each.detach() for each in args[:2]), options["attn_mask"], out[0].detach()))
        return out

    monkeypatch.setattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", watched)
    return seen


@pytest.mark.parametrize("how", ["medium", "bf16"])
def test_attention_is_in_full_beside_coarse_products(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    use_full_attention(encoder)
    seen, backwards = _attended(encoder, monkeypatch), _backwards(monkeypatch)
    with float32_products("medium" if how == "medium" else "highest"):
        before = torch.get_float32_matmul_precision()
        _gradients(encoder, bf16=how == "bf16")
        assert torch.get_float32_matmul_precision() == before, "what it turned off is on again"
    assert len(seen) == encoder.model.config.num_hidden_layers
    assert backwards == ["ieee"] * len(seen)
    for query, key, value, mask, out in seen:
        assert {each.dtype for each in (query, key, value, out)} == {torch.float32}
        assert torch.equal(out, scaled_dot_product_attention(query, key, value, mask))


def test_attention_with_dropout_still_drops(tiny_models: dict[str, Path]) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    use_full_attention(encoder)
    still = encoder.encode(TEXTS)
    encoder.model.train()
    for name, module in encoder.model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5 if name.endswith("self.dropout") else 0.0
    dropped = [encoder.embed(encoder.tokenize(TEXTS)).detach().numpy() for _ in range(2)]
    assert not np.allclose(dropped[0], still) and not np.allclose(dropped[0], dropped[1])


def test_a_model_with_an_attention_of_its_own_keeps_it(tiny_models: dict[str, Path]) -> None:
    encoder = Encoder.load(tiny_models["bert"])
    encoder.model.set_attn_implementation("eager")
    use_full_attention(encoder)
    assert encoder.model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(bf16=True, start_step=0),
        pytest.param(
            MEDIUM,
            marks=pytest.mark.skipif(not coarse_on_cpu(MEDIUM), reason="this CPU multiplies in full"),
        ),
    ],
    ids=["bf16", "medium"],
)
def test_a_coarse_training_takes_it_and_saves_a_model_like_any_other(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, config: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    taken = []

    def take(encoder: Encoder) -> None:
        use_full_attention(encoder)
        taken.append(encoder.model.config._attn_implementation)

    monkeypatch.setattr("reasonembed.redapter.prepare.use_full_attention", take)
    result = train(examples, tiny_models["bert"], tmp_path / "model", config)
    assert taken == [ATTENTION] and read_log(result.log_path)
    assert ATTENTION not in (tmp_path / "model" / "config.json").read_text()
    assert Encoder.load(tmp_path / "model").model.config._attn_implementation == "sdpa"


def test_a_loaded_encoder_bounds_the_kernels_that_are_kept(tiny_models: dict[str, Path]) -> None:
    script = (
        "import os, sys\n"
        "from reasonembed.encoder.model import Encoder\n"
        "Encoder.load(sys.argv[1])\n"
        "print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])\n"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", script, str(tiny_models["bert"])],
            check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", **environment},
        ).stdout.strip()
        for environment in ({}, {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "7"})
    ]  # fmt: skip
    assert found == ["64", "7"], "what the user has set stays"
