"""Prices: what ships, what a user's file changes, what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasonembed.errors import ConfigError
from reasonembed.llm.prices import Price, Prices, load_prices


def test_a_price_is_per_million_tokens_read_and_written() -> None:
    assert Price(input=0.4, output=1.6).cost(500_000, 250_000) == pytest.approx(0.2 + 0.4)


def test_the_shipped_prices_say_when_and_in_what_they_are_and_writing_costs_more_than_reading() -> None:
    prices = load_prices()
    assert prices.currency == "USD" and prices.as_of[:2] == "20"
    assert len(prices.models) >= 10
    assert all(0 < price.input < price.output and price.batch == 0.5 for price in prices.models.values())


def test_a_dated_snapshot_costs_what_its_model_does_unless_it_is_listed_itself() -> None:
    prices = load_prices()
    assert prices.of("gpt-4.1-mini-2025-04-14") == prices.of("gpt-4.1-mini")
    assert prices.of("gpt-4o-2024-05-13") != prices.of("gpt-4o")


def test_provider_batch_files_cost_their_share() -> None:
    assert load_prices().of("batch:gpt-4.1") == Price(input=1.0, output=4.0)


def test_a_model_in_this_process_costs_nothing_unless_a_price_says_otherwise() -> None:
    own = Price(input=0.01, output=0.02)
    assert load_prices().of("local:Qwen/Qwen3-8B") == Price(input=0, output=0)
    assert Prices(models={"local:Qwen/Qwen3-8B": own}).of("local:Qwen/Qwen3-8B") == own


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "batch:nobody", "", "openai/gpt-4.1"])
def test_a_model_that_is_not_listed_has_no_price(model: str) -> None:
    assert load_prices().of(model) is None


def test_a_file_of_ones_own_goes_before_the_shipped_prices(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('[models]\n"gpt-4.1" = { input = 9, output = 10 }\nmine = { input = 0, output = 0.5 }\n')
    prices = load_prices(path)
    assert prices.of("gpt-4.1") == Price(input=9, output=10)
    assert prices.of("mine") == Price(input=0, output=0.5)
    assert prices.of("o3") == load_prices().of("o3")


def test_prices_in_another_currency_stand_alone(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('currency = "EUR"\n[models]\nmine = { input = 1, output = 2 }\n')
    assert set(load_prices(path).models) == {"mine"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models]\nm = { input = -1, output = 2 }", "input is -1"),
        ("[models]\nm = { input = 1 }", "output"),
        ("[model]\nm = { input = 1, output = 2 }", 'did you mean "models"'),
        ('currency = "EUR"', "names no model"),
    ],
)
def test_a_mistake_in_a_price_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_prices(path)
