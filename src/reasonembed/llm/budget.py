"""The purse of a workspace: what all its replies cost so far, and whether another one may be asked for."""

from __future__ import annotations

import msgspec

from reasonembed.errors import BudgetReached, ConfigError, EndpointError
from reasonembed.llm.chat import Reply, Usage
from reasonembed.llm.journal import Journal
from reasonembed.llm.prices import Price, Prices


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits over all that the workspace's journal holds, earlier runs included; 0: none. Free to change."""

    max_cost: float = 0.0  # in the currency of the prices
    max_calls: int = 0
    max_tokens: int = 0  # prompt and completion together

    def __post_init__(self) -> None:
        for name in ("max_cost", "max_calls", "max_tokens"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be at least 0 (no limit).")


class Purse:
    """Counts calls, tokens and money over one journal; the doors of a run share it.

    Tokens are known once a reply is there. What is in flight is therefore reckoned at the mean of the replies
    so far: a limit on tokens or money may be passed by what the first replies cost more than that, no further.
    """

    def __init__(self, journal: Journal, *, budget: Budget | None = None, prices: Prices | None = None) -> None:
        self.budget = budget or Budget()
        self.prices = prices or Prices()
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self.cost = 0.0
        self.unpriced: set[str] = set()  # models whose price is not known
        self._in_flight = 0
        for spent in journal.spending():
            self.pay(spent.model, Usage(spent.prompt_tokens, spent.completion_tokens), calls=spent.calls)

    def price_of(self, model: str) -> Price | None:
        """The price of a model. Raises ConfigError if there is none and money is limited."""
        price = self.prices.of(model)
        if price is None and self.budget.max_cost:
            raise ConfigError(
                f"no price is known for {model!r}, so that max_cost cannot be kept. Give its price in a file "
                f"(--prices FILE), or limit calls or tokens instead (--max-calls, --max-tokens)."
            )
        return price

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens so far."""
        return self.prompt_tokens + self.completion_tokens

    def take(self) -> bool:
        """Whether another call may be made; if so, it counts as in flight until `put_back`."""
        budget, expected = self.budget, 1 + self._in_flight / max(self.calls, 1)
        if budget.max_calls and self.calls + self._in_flight >= budget.max_calls:
            return False
        if budget.max_tokens and self.tokens * expected >= budget.max_tokens:
            return False
        if budget.max_cost and self.cost * expected >= budget.max_cost:
            return False
        self._in_flight += 1
        return True

    def affords(self, model: str, *, calls: int, usage: Usage) -> bool:
        """Whether so many more calls, with so many tokens in all, stay within the budget."""
        budget = self.budget
        cost = self.prices.cost(model, usage.prompt_tokens, usage.completion_tokens) or 0.0
        tokens = usage.prompt_tokens + usage.completion_tokens
        return (
            (not budget.max_calls or self.calls + calls <= budget.max_calls)
            and (not budget.max_tokens or self.tokens + tokens <= budget.max_tokens)
            and (not budget.max_cost or self.cost + cost <= budget.max_cost)
        )

    def put_back(self) -> None:
        """A call is no longer in flight; if it was answered, `pay` for it too."""
        self._in_flight -= 1

    def pay(self, model: str, usage: Usage, *, calls: int = 1) -> float:
        """Count what was answered; gives what it costs, 0 where no price is known."""
        cost = self.prices.cost(model, usage.prompt_tokens, usage.completion_tokens)
        if cost is None:
            self.unpriced.add(model)
            cost = 0.0
        self.calls += calls
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.cost += cost
        return cost

    def check(self, reply: Reply) -> None:
        """Raises EndpointError if the reply tells no tokens although they, or the money for them, are limited."""
        if (self.budget.max_tokens or self.budget.max_cost) and reply.text and not reply.usage.completion_tokens:
            raise EndpointError(
                "the endpoint does not say how many tokens its replies took, so that --max-tokens and --max-cost "
                "cannot be kept. Limit the calls instead: --max-calls."
            )

    def words(self) -> str:
        """The cost so far for the progress line; the tokens where no price is known."""
        if self.cost:
            return f"{money(self.cost, self.prices.currency)}{' and unpriced models' if self.unpriced else ''}"
        return f"{self.tokens:,} tokens" if self.tokens else ""

    def stop(self, label: str) -> BudgetReached:
        """The error that says what was spent, and how to go on."""
        budget = self.budget
        spent = f"{self.calls:,} calls, {self.tokens:,} tokens"
        if self.cost or budget.max_cost:
            spent += f", {money(self.cost, self.prices.currency)}"
        limits = [
            f"--{name.replace('_', '-')} {value:g}" for name, value in msgspec.structs.asdict(budget).items() if value
        ]
        return BudgetReached(
            f"{label}: the budget is used up. The workspace has spent {spent} in all; the limit is "
            f"{', '.join(limits)}. Every reply is kept: raise the limit and run the same command again."
        )


def money(amount: float, currency: str) -> str:
    """An amount for people: cents, or more places where cents would say nothing."""
    return f"{amount:,.2f} {currency}" if amount >= 1 or amount == 0 else f"{amount:.4f} {currency}"


__all__ = ["Budget", "Purse", "money"]
