"""Settings are checked once, on construction, and the schedule is what it says."""

from __future__ import annotations

import pytest

from reasonembed.config import build, override
from reasonembed.encoder.lora import LoraSettings
from reasonembed.errors import ConfigError
from reasonembed.redapter.config import TrainConfig
from reasonembed.redapter.optimizer import learning_rate_at, make_optimizer
from reasonembed.redapter.recipe import load_recipe


def test_the_defaults_are_the_papers() -> None:
    config = TrainConfig()
    assert (config.loss, config.temperature, config.kappa, config.start_step) == (
        "ri-infonce",
        0.02,
        5.0,
        100,
    )
    assert (config.learning_rate, config.warmup_share, config.epochs) == (1e-4, 0.1, 1)
    assert (config.max_query_tokens, config.max_passage_tokens) == (512, 512)
    assert LoraSettings() == LoraSettings(rank=32, alpha=64)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", 0), ("kappa", -1.0), ("epsilon", -1.0), ("learning_rate", 0.0), ("warmup_share", 1.5),
        ("epochs", 0), ("start_step", -1), ("group_size", 0), ("global_queries", 0), ("train_layers", 0),
        ("micro_batch_tokens", 0), ("gradient_clip", 0.0), ("max_query_tokens", 4), ("keep_checkpoints", 0),
        ("kept_graph_mb", -1), ("loss", "infonse"), ("seed", "one"), ("mask_margin", -0.1), ("listwise_weight", -1.0),
        ("distill_weight", float("nan")), ("matryoshka_dims", [0]), ("matryoshka_dims", [8, 8]),
        ("matryoshka_dims", ["all"]), ("domain_weights", {"pony": 0}), ("domain_weights", {"pony": float("inf")}),
        ("domain_weights", {"pony": "much"}), ("pooling", "max"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        build(TrainConfig, {key: value}, where="train.toml")


def test_an_unknown_key_gets_a_suggestion_and_tables_are_read() -> None:
    with pytest.raises(ConfigError, match='did you mean "temperature"'):
        build(TrainConfig, {"temprature": 0.02}, where="train.toml")
    assert build(TrainConfig, {"lora": {"rank": 8}}, where="x").lora == LoraSettings(rank=8, alpha=64)
    assert override(TrainConfig(), {"epochs": 3, "seed": None}).epochs == 3
    with pytest.raises(ConfigError, match="cannot go together"):
        build(TrainConfig, {"lora": {}, "train_layers": 2}, where="x")


@pytest.mark.parametrize(("key", "value"), [("mask_margin", 0.1), ("multi_positive", True)])
def test_an_option_that_contradicts_another_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{key} is {value} and mask_positives is False"):
        build(TrainConfig, {key: value, "mask_positives": False}, where="train.toml")
    assert getattr(build(TrainConfig, {key: value}, where="train.toml"), key) == value


def test_an_option_of_a_recipe_can_be_switched_off_beside_what_contradicts_it() -> None:
    recipe = load_recipe("minilm").training
    with pytest.raises(ConfigError, match=r"mask_margin is 0\.0 and .*set it to 2\.0"):
        override(recipe, {"mask_positives": False})
    assert not override(recipe, {"mask_positives": False, "mask_margin": 2.0}).mask_positives


def test_patience_without_validations_between_first_and_last_step_is_refused() -> None:
    message = (
        r"train\.toml: patience is 3 and validate_every_steps is 0: .*Raise validate_every_steps, or leave patience"
    )
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, {"patience": 3, "validate_every_steps": 0}, where="train.toml")
    assert build(TrainConfig, {"validate_every_steps": 0}, where="train.toml").patience is None


def test_passages_of_a_query_alone_need_others_in_the_batch() -> None:
    assert TrainConfig(group_size=1, global_queries=2).group_size == 1
    with pytest.raises(ConfigError, match="nothing would be a negative"):
        build(TrainConfig, {"group_size": 1, "global_queries": 1}, where="train.toml")
    with pytest.raises(ConfigError, match="a list of one passage"):
        build(TrainConfig, {"group_size": 1, "listwise_weight": 0.5}, where="train.toml")


def test_the_rate_climbs_for_the_first_share_and_falls_to_zero() -> None:
    config = TrainConfig(learning_rate=1.0, warmup_share=0.2)
    rates = [learning_rate_at(step, 10, config) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert learning_rate_at(0, 1, TrainConfig(learning_rate=1.0, warmup_share=0.0)) == 1.0


def test_only_matrices_decay() -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    groups = make_optimizer(model, TrainConfig(weight_decay=0.1)).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 3)]
