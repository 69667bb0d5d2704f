"""A training may multiply float32 matrices coarsely where the hardware can; what it leaves is as float32 as ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from reasonembed.beir import Collection
from reasonembed.errors import StageChanged
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import StepRecord, read_log
from reasonembed.redapter.precision import coarse_on_cpu, float32_products, rounds_on_cpu, uses_autocast
from reasonembed.redapter.receipt import read_manifest
from reasonembed.redapter.train import TrainConfig, train

CONFIG = TrainConfig(start_step=0, temperature=0.2, learning_rate=2e-3, max_query_tokens=64, max_passage_tokens=64)
MEDIUM = msgspec.structs.replace(CONFIG, matmul_precision="medium")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_a_medium_precision_trains_near_the_highest(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, name: str
) -> None:
    seen: set[str] = set()

    def look(_record: StepRecord, _steps: int) -> None:
        seen.add(torch.get_float32_matmul_precision())

    losses = []
    for config in (CONFIG, MEDIUM):
        result = train(examples, tiny_models[name], tmp_path / config.matmul_precision, config, progress=look)
        losses.append([record.mean_loss for record in read_log(result.log_path)])
    assert seen == {"highest", "medium" if rounds_on_cpu("medium") else "high"}
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    whole, rounded = (tmp_path / name for name in ("highest", "medium"))
    assert {tensor.dtype for tensor in load_file(rounded / "model.safetensors").values()} == {torch.float32}
    assert (rounded / "config.json").read_bytes() == (whole / "config.json").read_bytes(), "attention is no part of it"
    manifest = read_manifest(rounded)
    assert manifest is not None and manifest.receipt.config["matmul_precision"] == "medium"


@pytest.mark.skipif(
    not coarse_on_cpu(MEDIUM), reason="this CPU has no products in bfloat16, which PyTorch would emulate"
)
def test_pytorch_rounds_float32_products_on_this_cpu_just_where_we_say_so() -> None:
    one, other = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = one.double() @ other.double()
    errors = {}
    for precision in ("highest", "medium"):
        torch.set_float32_matmul_precision(precision)
        errors[precision] = float((one @ other - exact).abs().max())
    assert errors["highest"] < 1e-4
    assert (1e-4 < errors["medium"] < 0.5) is rounds_on_cpu("medium")
    assert not rounds_on_cpu("highest") and not rounds_on_cpu("high")


@pytest.mark.parametrize(
    ("capabilities", "same_as"),
    [({"avx512_f", "avx512_bf16"}, {"bf16": True}), ({"avx512_f"}, {}), (set(), {})],
    ids=["AVX512-BF16", "AVX-512", "none"],
)
def test_where_pytorch_leaves_float32_products_in_full_medium_is_autocast_or_nothing(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    collections: dict[str, Collection], capabilities: set[str], same_as: dict[str, bool],
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(capabilities, True))
    expected = msgspec.structs.replace(CONFIG, **same_as)
    made = {}
    for name, config in (("medium", MEDIUM), ("expected", expected)):
        result = train(examples, tiny_models["bert"], tmp_path / name, config, validation=collections)
        made[name] = ((tmp_path / name / "model.safetensors").read_bytes(), result.validation)
    assert made["medium"] == made["expected"]
    assert not uses_autocast(MEDIUM, "cuda") and uses_autocast(MEDIUM, "cpu") is bool(same_as)


def test_where_pytorch_rounds_float32_products_itself_it_is_left_to_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_bf16": True})
    assert rounds_on_cpu("medium") and not uses_autocast(MEDIUM, "cpu")
    assert uses_autocast(msgspec.structs.replace(MEDIUM, bf16=True), "cpu")
    with float32_products("medium"):
        assert torch.get_float32_matmul_precision() == "medium"


def test_a_cpu_that_would_emulate_bfloat16_multiplies_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bw": True})
    assert not rounds_on_cpu("medium")
    one, other = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = one @ other
    with float32_products("medium"):
        assert torch.equal(one @ other, whole)
    assert torch.get_float32_matmul_precision() == "highest"


def test_packed_texts_keep_the_attention_that_they_are_packed_for(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    losses = []
    for config in (MEDIUM, msgspec.structs.replace(MEDIUM, packed=True)):
        result = train(examples, tiny_models["bert"], tmp_path / str(config.packed), config)
        losses.append([record.mean_loss for record in read_log(result.log_path)])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_what_was_set_before_is_set_again_whatever_happens() -> None:
    torch.set_float32_matmul_precision("high")
    with float32_products("highest"):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "high"
    with pytest.raises(RuntimeError, match="stop"), float32_products("medium"):
        raise RuntimeError("stop")
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_what_was_set_on_one_backend_stays_so(precision: str) -> None:
    backend = getattr(torch.backends.mkldnn, "matmul", None)
    if backend is None:
        pytest.skip("before torch 2.9 there is one setting for all")
    backend.fp32_precision = "bf16"
    with float32_products(precision):
        rounded = "bf16" if rounds_on_cpu("medium") else "tf32"
        assert backend.fp32_precision == {"highest": "ieee", "medium": rounded}[precision]
    assert backend.fp32_precision == "bf16"
    assert torch.backends.cuda.matmul.fp32_precision in ("ieee", "none")


def test_a_medium_training_goes_on_to_the_same_bytes_and_at_no_other_precision(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    class Killed(Exception):
        """Stands for a kill."""

    def kill(record: StepRecord, _steps: int) -> None:
        if record.step == 3:
            raise Killed

    config = msgspec.structs.replace(MEDIUM, checkpoint_every_steps=2)
    train(examples, tiny_models["bert"], tmp_path / "whole", config)
    with pytest.raises(Killed):
        train(examples, tiny_models["bert"], tmp_path / "cut", config, progress=kill)
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(StageChanged, match="matmul_precision was 'medium' and is 'highest' now"):
        train(
            examples,
            tiny_models["bert"],
            tmp_path / "cut",
            msgspec.structs.replace(config, matmul_precision="highest"),
        )
    train(examples, tiny_models["bert"], tmp_path / "cut", config)
    whole, cut = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
