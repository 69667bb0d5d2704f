"""Packed texts: the vectors of padded ones, whatever stands beside a text; what a model cannot do is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    MambaConfig,
    MambaModel,
    MistralConfig,
    MistralModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from reasonembed.encoder import packed
from reasonembed.encoder.lora import train_last_layers
from reasonembed.encoder.model import Encoder
from reasonembed.encoder.pooling import POOLINGS
from reasonembed.encoder.tokens import Tokenizer
from reasonembed.errors import ConfigError

TEXTS = [
    "drift",
    "why does heat boil water at altitude and pressure " * 6,
    "a robot joint torque",
    "prime modulus graph",
    "the shortest path of the lambda actor",
    "a robot joint torque",
]
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def _made_of(tiny_models: dict[str, Path], model: Any, pooling: str = "mean") -> Encoder:
    """An encoder around a model that no folder holds, with BERT's small tokenizer."""
    tokenizer = Tokenizer(PreTrainedTokenizerFast.from_pretrained(tiny_models["bert"]), append_eos=False)
    return Encoder(model, tokenizer, name=type(model).__name__, pooling=pooling, max_tokens=128)  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ["qwen3", "llama", "bert"])
def test_packed_vectors_are_the_padded_ones(
    tiny_models: dict[str, Path], load_exact: Callable[[Path], Encoder], name: str, pooling: str
) -> None:
    encoder = load_exact(tiny_models[name])
    encoder.pooling = pooling  # type: ignore[assignment]
    ids = encoder.tokenize(TEXTS)
    padded = encoder.embed(ids)
    encoder.pack()
    assert encoder.packed is not None
    torch.testing.assert_close(encoder.embed(ids), padded, rtol=0, atol=1e-10)
    torch.testing.assert_close(encoder.embed(ids[:1]), padded[:1], rtol=0, atol=1e-10)
    torch.testing.assert_close(encoder.embed(ids, padding_side="left"), padded, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["minilm", "qwen3", "bert"])
def test_packed_texts_are_encoded_alike_in_any_budget_and_half_precision(
    tiny_models: dict[str, Path], minilm_path: Path, name: str
) -> None:
    encoder = Encoder.load(minilm_path if name == "minilm" else tiny_models[name], device="cpu")
    padded = encoder.encode(TEXTS)
    encoder.pack()
    for budget in (1, 40, 10_000):
        np.testing.assert_allclose(encoder.encode(TEXTS, micro_batch_tokens=budget), padded, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert (encoder.encode(TEXTS) * padded).sum(axis=1).min() > 0.999


def test_nothing_but_the_texts_is_computed_and_no_mask_is_built(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny_models["qwen3"], device="cpu")
    ids = encoder.tokenize(TEXTS)
    encoder.pack()
    monkeypatch.setattr("transformers.masking_utils.sdpa_mask", lambda **_: pytest.fail("a mask was built"))
    shapes = []
    encoder.model.layers[0].register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    encoder.embed(ids)
    assert shapes == [(1, sum(map(len, ids)), 64)]


@pytest.mark.parametrize("name", ["qwen3", "llama", "bert"])
def test_a_text_sees_neither_neighbour(
    tiny_models: dict[str, Path], load_exact: Callable[[Path], Encoder], name: str
) -> None:
    encoder = load_exact(tiny_models[name])
    encoder.pack()
    ids = encoder.tokenize(TEXTS)
    before = encoder.embed(ids)
    for changed in range(len(ids)):
        others = [row for row in range(len(ids)) if row != changed]
        again = list(ids)
        again[changed] = np.roll(ids[changed], 1)[: max(1, len(ids[changed]) - 1)]
        after = encoder.embed(again)
        torch.testing.assert_close(after[others], before[others], rtol=0, atol=1e-12)
        assert (after[changed] - before[changed]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["qwen3", "bert"])
def test_frozen_layers_keep_what_they_make_of_packed_texts(
    tiny_models: dict[str, Path], load_exact: Callable[[Path], Encoder], name: str
) -> None:
    encoder = load_exact(tiny_models[name])
    train_last_layers(encoder.model, 1)
    ids = encoder.tokenize(TEXTS)
    padded = encoder.embed(ids)
    encoder.pack()
    encoder.keep_frozen(1)
    for _ in range(2):  # computed, then found
        torch.testing.assert_close(encoder.embed(ids), padded, rtol=0, atol=1e-10)
    assert encoder.frozen is not None and len(encoder.frozen.states) == len(set(TEXTS))


def test_positions_of_a_roberta_begin_behind_its_padding(tiny_models: dict[str, Path]) -> None:
    torch.manual_seed(0)
    config = RobertaConfig(vocab_size=400, max_position_embeddings=140, pad_token_id=3, initializer_range=0.2, **SMALL)
    encoder = _made_of(tiny_models, RobertaModel(config).double())
    ids = encoder.tokenize(TEXTS)
    padded = encoder.embed(ids)
    encoder.pack()
    torch.testing.assert_close(encoder.embed(ids), padded, rtol=0, atol=1e-10)


def test_unpacked_again_a_model_has_its_own_attention(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_models["bert"], device="cpu")
    encoder.pack()
    encoder.model.save_pretrained(tmp_path)
    assert packed.ATTENTION not in (tmp_path / "config.json").read_text()
    encoder.unpack()
    assert encoder.packed is None and encoder.model.config._attn_implementation == "sdpa"


def _mpnet() -> Any:
    return MPNetModel(MPNetConfig(vocab_size=400, **SMALL))


def _windowed() -> Any:
    return MistralModel(MistralConfig(vocab_size=400, sliding_window=4, num_key_value_heads=2, **SMALL))


def _mamba() -> Any:
    return MambaModel(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_mpnet, "(AttentionInterface|with attention)"),
        (_windowed, "windows of 4 tokens"),
        (_mamba, "takes no position_ids"),
    ],
)
def test_a_model_that_cannot_take_packed_texts_is_refused_and_left_as_it_was(
    tiny_models: dict[str, Path], make: Callable[[], Any], why: str
) -> None:
    torch.manual_seed(0)
    encoder = _made_of(tiny_models, make())
    before = encoder.encode(TEXTS)
    with pytest.raises(ConfigError, match=why):
        encoder.pack()
    assert encoder.packed is None
    np.testing.assert_array_equal(encoder.encode(TEXTS), before)


def test_a_model_that_counts_positions_through_is_found_out_by_its_vectors(tiny_models: dict[str, Path]) -> None:
    encoder = Encoder.load(tiny_models["bert"], device="cpu")
    embeddings = encoder.model.embeddings.forward
    encoder.model.embeddings.forward = lambda position_ids=None, **options: embeddings(**options)
    with pytest.raises(ConfigError, match="does not start anew with each text"):
        encoder.pack()
    assert encoder.packed is None and encoder.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("option", ["softcap", "s_aux", "position_bias", "sliding_window"])
def test_what_attention_is_asked_for_besides_is_refused_by_name(option: str) -> None:
    tensor, ends = torch.zeros(1, 2, 4, 8), torch.tensor([0, 4], dtype=torch.int32)
    more = {option: torch.ones(1), "cu_seq_lens_q": ends, "max_length_q": 4}
    with pytest.raises(ConfigError, match=option):
        packed.attend(torch.nn.Identity(), tensor, tensor, tensor, None, **more)
    with pytest.raises(ConfigError, match="mask"):
        packed.attend(torch.nn.Identity(), tensor, tensor, tensor, tensor, cu_seq_lens_q=ends, max_length_q=4)


class _Kernel:
    """In place of `varlen_attn`, which computes on GPUs alone: its arguments as it documents them, by plain means.

    shares_heads: whether several query heads may share a key head (`enable_gqa`), as from torch 2.13 on.
    """

    def __init__(self, *, shares_heads: bool) -> None:
        self.shares_heads = shares_heads
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
        enable_gqa: bool = False,
    ) -> Tensor:
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert query.ndim == 3 and query.dtype == key.dtype == value.dtype
        assert enable_gqa == (query.shape[1] != key.shape[1]) and query.stride(-1) == 1
        assert self.shares_heads or not enable_gqa
        lengths = cu_seq_q.diff()
        assert cu_seq_q[0] == 0 and cu_seq_q[-1] == len(query) == len(key) == len(value)
        assert max_q == max_k == int(lengths.max()) and torch.equal(cu_seq_q, cu_seq_k)
        self.calls.append({"dtype": query.dtype, "window_size": window_size, "tokens": len(query), "gqa": enable_gqa})
        group = query.shape[1] // key.shape[1]
        outs = []
        for q, k, v in zip(*(part.split(lengths.tolist()) for part in (query, key, value)), strict=True):
            scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(group, dim=1)) * scale
            if window_size == (-1, 0):
                scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
            outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.repeat_interleave(group, dim=1)))
        return torch.cat(outs)


@pytest.fixture(params=["torch 2.13", "torch 2.11"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> _Kernel:
    kernel = _Kernel(shares_heads=request.param == "torch 2.13")
    monkeypatch.setattr(packed, "varlen_attn", kernel)
    monkeypatch.setattr(packed, "_TAKEN", packed._NEEDED | ({"enable_gqa"} if kernel.shares_heads else set()))
    monkeypatch.setattr(packed, "kernel_suits", lambda *_: True)
    return kernel


@pytest.mark.parametrize("name", ["qwen3", "llama", "bert"])
def test_the_kernel_gets_what_it_documents(
    tiny_models: dict[str, Path], load_exact: Callable[[Path], Encoder], name: str, kernel: _Kernel
) -> None:
    encoder = load_exact(tiny_models[name])
    ids = encoder.tokenize(TEXTS)
    padded = encoder.embed(ids)
    encoder.pack()
    kernel.calls.clear()
    vectors = encoder.embed(ids)
    torch.testing.assert_close(vectors, padded, rtol=0, atol=1e-10)
    window = (-1, -1) if name == "bert" else (-1, 0)
    shared = name != "bert" and kernel.shares_heads
    expected = {"dtype": torch.float64, "window_size": window, "tokens": sum(map(len, ids)), "gqa": shared}
    assert kernel.calls == [expected] * 2, "one call a layer"


def test_under_autocast_the_kernel_gets_one_half_precision_type(tiny_models: dict[str, Path], kernel: _Kernel) -> None:
    encoder = Encoder.load(tiny_models["qwen3"], device="cpu")  # whose norms of queries and keys give float32
    encoder.pack()
    kernel.calls.clear()
    with torch.autocast("cpu", torch.bfloat16):
        encoder.embed(encoder.tokenize(TEXTS))
    assert [call["dtype"] for call in kernel.calls] == [torch.bfloat16] * 2


def test_the_kernel_is_taken_for_heads_and_types_that_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu(Tensor):
        is_cuda = True  # type: ignore[assignment]

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    for size, dtype, suits in (
        (64, torch.bfloat16, True),
        (128, torch.float16, True),
        (128, torch.float32, False),
        (20, torch.bfloat16, False),
        (512, torch.bfloat16, False),
    ):
        heads = torch.zeros(1, 2, 4, size).as_subclass(OnGpu)
        assert packed.kernel_suits(heads, heads, dtype) == suits
        assert not packed.kernel_suits(torch.zeros(1, 2, 4, size), heads, dtype)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not packed.kernel_suits(torch.zeros(1, 2, 4, 64).as_subclass(OnGpu), heads, torch.bfloat16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel computes on a GPU")
@pytest.mark.parametrize("name", ["qwen3", "llama", "bert"])
def test_on_a_gpu_the_kernel_gives_the_padded_vectors_and_gradients(tiny_models: dict[str, Path], name: str) -> None:
    encoder = Encoder.load(tiny_models[name], device="cuda")
    ids = encoder.tokenize(TEXTS)

    def vectors_and_gradient() -> tuple[Tensor, Tensor]:
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            vectors = encoder.embed(ids)
        (vectors @ torch.linspace(-1, 1, vectors.shape[1], device="cuda")).square().sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in encoder.model.parameters() if p.grad is not None])
        encoder.model.zero_grad()
        return vectors.detach(), gradient

    padded, expected = vectors_and_gradient()
    encoder.pack(bf16=True)
    vectors, gradient = vectors_and_gradient()
    assert (vectors * padded).sum(dim=1).min() > 0.999
    assert torch.nn.functional.cosine_similarity(gradient, expected, dim=0) > 0.99
