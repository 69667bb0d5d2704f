"""Budgets: counted over the whole journal, kept to the call, stopped cleanly, raised later; the ledger behind them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from reasonembed.errors import BudgetReached, ConfigError, EndpointError
from reasonembed.llm.budget import Budget, Purse
from reasonembed.llm.chat import Reply, Request, Usage
from reasonembed.llm.door import ChatDoor, open_door
from reasonembed.llm.journal import Journal
from reasonembed.llm.prices import Price, Prices
from reasonembed.llm.scripted import ScriptedBackend
from reasonembed.llm.spending import Spending, spending_of

AskFor = Callable[..., list[Request]]
PRICES = Prices(models={"scripted": Price(input=10_000.0, output=100_000.0)})  # 1 cent and 10 cents a token


def answer(request: Request) -> Reply:
    return Reply(request.custom_id, "text", Usage(prompt_tokens=3, completion_tokens=2))  # 23 cents


class Slow(ScriptedBackend):
    """Counts how many requests are in flight at once."""

    def __init__(self) -> None:
        super().__init__(answer)
        self.now = self.most = 0

    def session(self):
        import contextlib

        @contextlib.asynccontextmanager
        async def opened():
            async def ask(request: Request) -> Reply:
                self.now += 1
                self.most = max(self.most, self.now)
                await asyncio.sleep(0.001)
                self.now -= 1
                return self.answer(request)

            yield ask

        return opened()


def door_with(journal: Journal, concurrency: int = 8, **limits: float) -> ChatDoor:
    purse = Purse(journal, budget=Budget(**limits), prices=PRICES)
    return ChatDoor(Slow(), journal, concurrency=concurrency, purse=purse)


@pytest.mark.parametrize("concurrency", [1, 7, 32])
def test_a_limit_on_calls_is_kept_to_the_call_and_every_reply_is_committed(
    journal: Journal, ask_for: AskFor, concurrency: int
) -> None:
    door = door_with(journal, concurrency, max_calls=40)
    with pytest.raises(BudgetReached, match=r"spent 40 calls, 200 tokens, 9.20 USD in all.*--max-calls 40.*raise"):
        list(door.replies(lambda: ask_for(100), label="x"))
    assert len(door.backend.asked) == len(journal) == door.spent.asked == 40
    assert door.backend.most == min(concurrency, 40)


def test_a_raised_limit_goes_on_where_it_stopped_and_earlier_runs_count(journal: Journal, ask_for: AskFor) -> None:
    with pytest.raises(BudgetReached):
        list(door_with(journal, max_calls=40).replies(lambda: ask_for(100), label="x"))
    with pytest.raises(BudgetReached):
        list(door_with(journal, max_calls=40).replies(lambda: ask_for(100), label="x"))
    assert len(journal) == 40
    later = door_with(journal, max_calls=100)
    assert len(list(later.replies(lambda: ask_for(100), label="x"))) == 100
    assert (later.spent.asked, later.spent.from_journal) == (60, 40)


@pytest.mark.parametrize(("limits", "spent"), [({"max_tokens": 100}, 20), ({"max_cost": 4.6}, 20)])
def test_limits_on_tokens_and_money_reckon_with_what_is_in_flight(
    journal: Journal, ask_for: AskFor, limits: dict[str, float], spent: int
) -> None:
    """20 replies use the limit up exactly; with 4 at once it is not passed."""
    door = door_with(journal, 4, **limits)
    with pytest.raises(BudgetReached):
        list(door.replies(lambda: ask_for(100), label="x"))
    assert spent - 4 <= len(journal) <= spent


def test_a_budget_that_is_just_enough_is_no_error_and_neither_is_a_second_reading(
    journal: Journal, ask_for: AskFor
) -> None:
    for _ in range(2):
        assert len(list(door_with(journal, max_calls=30).replies(lambda: ask_for(30), label="x"))) == 30


def test_money_cannot_be_limited_where_no_price_is_known(journal: Journal) -> None:
    purse = Purse(journal, budget=Budget(max_cost=1.0), prices=Prices())
    with (
        pytest.raises(ConfigError, match=r"no price is known for 'scripted:plausible'.*--prices"),
        open_door("scripted", journal=journal, purse=purse),
    ):
        pass


def test_tokens_cannot_be_limited_where_the_endpoint_tells_none(journal: Journal, ask_for: AskFor) -> None:
    purse = Purse(journal, budget=Budget(max_tokens=1000), prices=PRICES)
    door = ChatDoor(ScriptedBackend(lambda _: "text"), journal, concurrency=1, purse=purse)
    with pytest.raises(EndpointError, match="--max-calls"):
        list(door.replies(lambda: ask_for(9), label="x"))
    assert len(journal) == 1  # what was paid for is kept


def test_the_cost_is_shown_as_it_grows_and_stands_in_what_was_spent(journal: Journal, ask_for: AskFor) -> None:
    door = door_with(journal)
    list(door.replies(lambda: ask_for(10), label="x"))
    assert door.spent.cost == pytest.approx(2.30)
    assert door_with(journal)._purse.words() == "2.30 USD"
    assert Purse(journal, prices=Prices()).words() == "50 tokens"


def test_the_ledger_tells_models_and_stages_apart(journal: Journal, ask_for: AskFor) -> None:
    for name, stage, count in (("a@r1", "generate", 3), ("b", "generate", 2), ("b", "annotate", 5)):
        door = ChatDoor(ScriptedBackend(answer, model=name), journal)
        list(door.replies(lambda s=stage, c=count: ask_for(c, stage=s), label="x"))
    assert journal.spending() == (
        Spending("a", "generate", 3, 9, 6),
        Spending("b", "annotate", 5, 15, 10),
        Spending("b", "generate", 2, 6, 4),
    )


def test_a_journal_without_a_ledger_gets_one_from_its_replies(tmp_path: Path, ask_for: AskFor) -> None:
    path = tmp_path / "old.sqlite"
    with Journal(path) as journal:
        list(ChatDoor(ScriptedBackend(answer), journal).replies(lambda: ask_for(4), label="x"))
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE spending")
    connection.close()
    assert spending_of(path) == (Spending("", "generate", 4, 12, 8),)  # read, and not written
    with Journal(path) as journal:
        assert journal.spending() == (Spending("", "generate", 4, 12, 8),)
        assert Purse(journal, budget=Budget(max_calls=4)).take() is False


def test_reading_the_ledger_for_a_plan_changes_nothing(tmp_path: Path, ask_for: AskFor) -> None:
    path = tmp_path / "journal.sqlite"
    assert spending_of(path) == () and not path.exists()
    with Journal(path) as journal:
        list(ChatDoor(ScriptedBackend(answer), journal).replies(lambda: ask_for(4), label="x"))
        assert spending_of(path) == journal.spending()  # while another one writes
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert spending_of(path)[0].calls == 4
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["max_cost", "max_calls", "max_tokens"])
def test_a_limit_below_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Budget(**{name: -1})
