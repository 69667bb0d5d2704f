"""A share of the base's weights stays in the model that is saved and validated; training itself knows nothing of it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from reasonembed.beir import Collection
from reasonembed.encoder.lora import LoraSettings
from reasonembed.encoder.model import Encoder
from reasonembed.errors import StageChanged
from reasonembed.evaluate.run import evaluate
from reasonembed.files import read_jsonl
from reasonembed.redapter.base_share import BaseShare
from reasonembed.redapter.data import TrainingExample
from reasonembed.redapter.log import StepRecord, ValidationRecord, read_log
from reasonembed.redapter.train import TrainConfig, train
from reasonembed.redapter.validation import VALIDATION_LOG
from reasonembed.search.systems import DenseSystem

CONFIG = TrainConfig(
    start_step=0, temperature=0.2, learning_rate=5e-3, epochs=3, max_query_tokens=48, max_passage_tokens=32
)
LORA = LoraSettings(rank=4, alpha=8)
WAYS: dict[str, dict[str, Any]] = {
    "all": {},
    "last layer, medium": {"train_layers": 1, "matmul_precision": "medium"},
    "lora": {"lora": LORA},
    "lora on bfloat16": {"lora": LORA, "bf16": True},
    "qlora": {"lora": LoraSettings(rank=4, alpha=8, quantize_base=True)},
}
SHARE = 0.3


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _losses(folder: Path) -> list[float]:
    return [record.mean_loss for record in read_log(folder / "train_log.jsonl")]


def _validations(folder: Path) -> list[ValidationRecord]:
    return list(read_jsonl(folder / VALIDATION_LOG, ValidationRecord))


@pytest.mark.parametrize("way", WAYS)
def test_each_saved_weight_is_the_weighted_mean_of_the_trained_and_the_base_s(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path, way: str
) -> None:
    if way == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    config = msgspec.structs.replace(CONFIG, **WAYS[way])
    train(examples, tiny_models["qwen3"], tmp_path / "own", config)
    train(examples, tiny_models["qwen3"], tmp_path / "mixed", msgspec.structs.replace(config, base_share=SHARE))
    base, own, mixed = (_weights(path) for path in (tiny_models["qwen3"], tmp_path / "own", tmp_path / "mixed"))
    assert own.keys() == mixed.keys()
    moved = {name for name in own if not torch.equal(own[name], base[name])}
    assert moved, "something was trained"
    for name in own:
        expected = (1 - SHARE) * own[name].double() + SHARE * base[name].double()
        torch.testing.assert_close(mixed[name].double(), expected, rtol=0, atol=1e-6)
        assert torch.equal(mixed[name], base[name]) is (name not in moved), name
    assert _losses(tmp_path / "mixed") == _losses(tmp_path / "own"), "the training is the same"


def test_the_adapter_beside_the_model_is_the_one_that_was_merged(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    train(examples, tiny_models["bert"], tmp_path / "m", msgspec.structs.replace(CONFIG, lora=LORA, base_share=SHARE))
    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_models["bert"]), str(tmp_path / "m" / "adapter"))
    saved = _weights(tmp_path / "m")
    for name, weight in adapted.merge_and_unload().state_dict().items():
        if name in saved:
            torch.testing.assert_close(saved[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", ["all", "lora"])
def test_validation_judges_what_would_be_saved_and_leaves_the_trained_weights_as_they_were(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    way: str,
) -> None:
    config = msgspec.structs.replace(CONFIG, validate_every_steps=1, base_share=SHARE, **WAYS[way])
    result = train(examples, tiny_models["qwen3"], tmp_path / "m", config, validation=collections)
    alone = msgspec.structs.replace(config, base_share=0)
    train(examples, tiny_models["qwen3"], tmp_path / "alone", alone, validation=collections)
    assert _losses(tmp_path / "m") == _losses(tmp_path / "alone"), "whatever was validated in between"
    mixed, trained = (_validations(tmp_path / name) for name in ("m", "alone"))
    assert mixed[0].per_domain == trained[0].per_domain, "both are the base before the first step"
    assert [record.score for record in mixed] != [record.score for record in trained]
    assert result.validation is not None and result.validation.best_step > 0
    system = DenseSystem(Encoder.load(tmp_path / "m"), own_prompts=True, max_tokens=CONFIG.max_query_tokens)
    best = max(mixed, key=lambda record: record.score)
    assert best.step == result.validation.best_step
    assert best.per_domain == pytest.approx(evaluate(system, collections).per_domain["nDCG@10"])


class _Killed(Exception):
    """Stands for a kill: nothing is caught or saved on the way out."""


@pytest.mark.parametrize("validated", [True, False])
def test_it_goes_on_after_a_kill_to_the_same_bytes(
    tiny_models: dict[str, Path],
    examples: list[TrainingExample],
    collections: dict[str, Collection],
    tmp_path: Path,
    validated: bool,
) -> None:
    def kill(record: StepRecord, _steps: int) -> None:
        if record.step == 5:
            raise _Killed

    config = msgspec.structs.replace(CONFIG, base_share=SHARE, checkpoint_every_steps=2, validate_every_steps=2)
    chosen = collections if validated else None
    run: Callable[..., object] = lambda name, **more: train(  # noqa: E731
        examples, tiny_models["bert"], tmp_path / name, config, validation=chosen, **more
    )
    whole = run("whole")
    with pytest.raises(_Killed):
        run("cut", progress=kill)
    cut = run("cut")
    assert whole.validation == cut.validation
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == other


def test_it_is_weight_interpolation_done_by_hand(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    """The saved model's vectors are those of a folder whose weights were averaged outside our code."""
    train(examples, tiny_models["qwen3"], tmp_path / "own", CONFIG)
    train(examples, tiny_models["qwen3"], tmp_path / "mixed", msgspec.structs.replace(CONFIG, base_share=0.5))
    shutil.copytree(tmp_path / "own", tmp_path / "by hand")
    (tmp_path / "by hand" / "golden.json").unlink()
    base, own = _weights(tiny_models["qwen3"]), _weights(tmp_path / "own")
    mean = {name: (base[name] + own[name]) / 2 for name in own}
    save_file(mean, tmp_path / "by hand" / "model.safetensors", metadata={"format": "pt"})
    texts = ["why does water boil at altitude", "drift and heat"]
    mixed, by_hand, trained = (Encoder.load(tmp_path / name).encode(texts) for name in ("mixed", "by hand", "own"))
    np.testing.assert_allclose(mixed, by_hand, atol=1e-6)
    assert np.abs(mixed - trained).max() > 1e-3


def test_the_card_says_it_and_a_changed_share_does_not_go_on(
    tiny_models: dict[str, Path], examples: list[TrainingExample], tmp_path: Path
) -> None:
    config = msgspec.structs.replace(CONFIG, epochs=1, base_share=0.25)
    train(examples, tiny_models["bert"], tmp_path / "m", config)
    card = (tmp_path / "m" / "README.md").read_text()
    assert "mean of the base's, which counts 0.25, and the trained one" in card
    with pytest.raises(StageChanged, match=r"base_share was 0\.25 and is 0\.5 now"):
        train(examples, tiny_models["bert"], tmp_path / "m", msgspec.structs.replace(config, base_share=0.5))
    train(examples, tiny_models["bert"], tmp_path / "n", msgspec.structs.replace(config, base_share=0.0))
    assert "mean of the base's" not in (tmp_path / "n" / "README.md").read_text()


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_leaves_nothing_trained_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"base_share is .*; it must be 0 or more, and below 1"):
        TrainConfig(base_share=share)


def test_without_a_share_nothing_is_kept_or_changed() -> None:
    model = torch.nn.Linear(3, 3)
    before = model.weight.detach().clone()
    share = BaseShare(model, 0.0)
    torch.nn.init.ones_(model.weight)
    with share.mixed(model):
        assert torch.equal(model.weight, torch.ones(3, 3))
    share.mix(model)
    assert torch.equal(model.weight, torch.ones(3, 3)) and not torch.equal(before, model.weight)
    assert share._base == {}
