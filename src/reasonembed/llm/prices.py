"""What models cost: prices per million tokens, from the file that ships with the package and from the user's own."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import msgspec

from reasonembed.config import build, load_toml
from reasonembed.errors import ConfigError

_MILLION = 1_000_000
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}\Z")  # gpt-4.1-mini-2025-04-14 costs what gpt-4.1-mini does
BATCH = "batch:"
"""Stands before a model's name where its replies came by way of provider batch files."""
LOCAL = "local:"
"""Stands before the name of a model that writes in this process."""


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a million tokens cost, in the currency of the table; at least 0."""

    input: float
    output: float
    batch: float = 1.0  # factor for provider batch files

    def __post_init__(self) -> None:
        for name in ("input", "output", "batch"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be at least 0.")

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost."""
        return (self.input * prompt_tokens + self.output * completion_tokens) / _MILLION


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prices by model name, all in one currency."""

    currency: str = "USD"
    as_of: str = ""  # when they were listed, for people
    models: dict[str, Price] = {}

    def of(self, model: str) -> Price | None:
        """The price of a model, or None if none is known. A dated snapshot costs what its model does.

        `batch:MODEL` is the model by way of provider batch files; a model in this process (`local:MODEL`) costs
        nothing unless a price says otherwise.
        """
        if model.startswith(BATCH):
            price = self.of(model.removeprefix(BATCH))
            return price and Price(input=price.input * price.batch, output=price.output * price.batch)
        listed = self.models.get(model) or self.models.get(_SNAPSHOT.sub("", model))
        return listed or (Price(input=0, output=0) if model.startswith(LOCAL) else None)

    def cost(self, model: str, prompt_tokens: float, completion_tokens: float) -> float | None:
        """What so many tokens cost with a model, or None if its price is not known."""
        price = self.of(model)
        return price.cost(prompt_tokens, completion_tokens) if price else None


def load_prices(path: Path | None = None) -> Prices:
    """The shipped prices, with those of a file of the same form before them.

    A file in another currency stands alone: sums over two currencies would mean nothing. Raises InputError or
    ConfigError for a file that cannot be used.
    """
    text = resources.files("reasonembed.llm").joinpath("prices.toml").read_text(encoding="utf-8")
    shipped = build(Prices, tomllib.loads(text), where="prices.toml", text=text)
    if path is None:
        return shipped
    own = load_toml(path, Prices)
    if not own.models:
        raise ConfigError(f'{path} names no model. Write a line such as "my-model" = {{ input = 0.4, output = 1.6 }}.')
    if own.currency != shipped.currency:
        return own
    return Prices(currency=own.currency, as_of=own.as_of or shipped.as_of, models={**shipped.models, **own.models})


__all__ = ["BATCH", "LOCAL", "Price", "Prices", "load_prices"]
