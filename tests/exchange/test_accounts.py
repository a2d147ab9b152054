"""Accounts of the simulated exchange: what an order reserves, moves and releases, and that nothing comes of nothing."""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.accounts import MAX_ACCOUNTS, Accounts
from exchange.events import Event
from exchange.matching import Engine
from tests.exchange.test_matching import amend, cancel, kinds, place
from tests.exchange.test_matching_properties import COMMANDS
from tests.support.examples import examples

NOW_MS = 1_700_000_000_123
BOTH = ("alice", "bob")


class Ledger:
    """An engine with accounts, and what it has told of them, by user and currency: available and reserved."""

    def __init__(self, symbol: str = "KCN/EUR", **deposit: str) -> None:
        self.accounts = Accounts({name: Decimal(amount) for name, amount in deposit.items()}, lambda: NOW_MS)
        self.engine = Engine([(symbol, None)], lambda: NOW_MS, accounts=self.accounts)
        self.told: dict[str, dict[str, tuple[str, str]]] = {}
        self.records: list[dict[str, Any]] = []

    def execute(self, command: dict[str, Any]) -> list[Event]:
        events = self.engine.execute(command)
        self.tell()
        return events

    def tell(self) -> None:
        for user_id, value in self.accounts.take_changes():
            record = json.loads(value)
            self.records.append(record)
            self.told[user_id] = {
                currency: (one["available"], one["reserved"]) for currency, one in record["balances"].items()
            }

    def buy(self, order_id: str, quantity: str, price: str | None, user_id: str = "alice", **more: Any) -> list[Event]:
        return self.execute(place(order_id, "bid", quantity, price, user_id=user_id, **more))

    def sell(self, order_id: str, quantity: str, price: str | None, user_id: str = "bob", **more: Any) -> list[Event]:
        return self.execute(place(order_id, "ask", quantity, price, user_id=user_id, **more))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(EUR="100", KCN="10")


def test_order_reserves_what_it_may_cost_and_its_cancel_releases_that(ledger: Ledger) -> None:
    ledger.buy("a", "2", "10.50")
    assert ledger.told == {"alice": {"EUR": ("79", "21"), "KCN": ("10", "0")}}
    ledger.sell("b", "4", "20", user_id="alice")
    assert ledger.told["alice"] == {"EUR": ("79", "21"), "KCN": ("6", "4")}
    for order_id in ("a", "b"):
        ledger.execute(cancel(order_id, "alice"))
    assert ledger.told["alice"] == {"EUR": ("100", "0"), "KCN": ("10", "0")}
    assert ledger.records[-1]["timestamp"] == NOW_MS


def test_fill_moves_what_was_reserved_and_frees_what_was_saved(ledger: Ledger) -> None:
    ledger.sell("s", "3", "8")
    ledger.buy("a", "2", "10")
    assert ledger.told["alice"] == {"EUR": ("84", "0"), "KCN": ("12", "0")}
    assert ledger.told["bob"] == {"EUR": ("116", "0"), "KCN": ("7", "1")}
    ledger.buy("b", "3", "9")
    assert ledger.told["alice"] == {"EUR": ("58", "18"), "KCN": ("13", "0")}
    assert ledger.told["bob"] == {"EUR": ("124", "0"), "KCN": ("7", "0")}


def test_amend_reserves_what_the_order_may_cost_then(ledger: Ledger) -> None:
    ledger.buy("a", "2", "10")
    ledger.execute(amend("a", "12", "3", "alice"))
    assert ledger.told["alice"]["EUR"] == ("64", "36")
    ledger.execute(amend("a", None, "1", "alice"))
    assert ledger.told["alice"]["EUR"] == ("88", "12")
    [refused] = ledger.execute(amend("a", "100.5", None, "alice"))
    assert (refused["type"], refused["reason"]) == (
        "order_amend_rejected",
        "insufficient funds: 88.5 EUR more needed, 88 available",
    )
    ledger.sell("s", "4", "20")
    ledger.execute(amend("a", "20", "2", "alice"))
    assert ledger.told["alice"] == {"EUR": ("60", "0"), "KCN": ("12", "0")}
    ledger.execute(amend("s", "30", "10", "bob"))
    assert ledger.told["bob"] == {"EUR": ("140", "0"), "KCN": ("0", "8")}


@pytest.mark.parametrize("time_in_force", ["IOC", "FOK"])
def test_order_that_does_not_rest_leaves_nothing_reserved(ledger: Ledger, time_in_force: str) -> None:
    ledger.sell("s", "3", "8")
    ledger.buy("a", "4", "9", tif=time_in_force)
    reserved = {currency: one[1] for currency, one in ledger.told.get("alice", {}).items()}
    assert set(reserved.values()) <= {"0"}
    assert ledger.told.get("alice", {}).get("EUR") == (("76", "0") if time_in_force == "IOC" else None)


def test_market_order_costs_what_it_takes(ledger: Ledger) -> None:
    ledger.sell("s", "3", "8")
    ledger.sell("t", "5", "20")
    assert kinds(ledger.buy("a", "7", None)) == ["order_rejected"]  # 24 and 80
    ledger.buy("b", "6", None)  # 24 and 60
    assert ledger.told["alice"] == {"EUR": ("16", "0"), "KCN": ("16", "0")}
    assert ledger.told["bob"] == {"EUR": ("184", "0"), "KCN": ("2", "2")}


@pytest.mark.parametrize(
    ("side", "quantity", "price", "told"),
    [
        ("bid", "10.01", "10", "insufficient funds: 100.1 EUR needed, 100 available"),
        ("ask", "11", "10", "insufficient funds: 11 KCN needed, 10 available"),
        ("ask", "10.5", None, "insufficient funds: 10.5 KCN needed, 10 available"),
    ],
)
def test_order_that_its_user_cannot_pay_for_is_rejected(
    ledger: Ledger, side: str, quantity: str, price: str | None, told: str
) -> None:
    ledger.buy("b", "1", "1", user_id="carol")
    [event] = ledger.execute(place("a", side, quantity, price, user_id="alice"))
    assert (event["type"], event["reason"]) == ("order_rejected", told)
    assert ledger.told["alice"] == {"EUR": ("100", "0"), "KCN": ("10", "0")}


def test_those_without_an_account_pay_nothing(ledger: Ledger) -> None:
    ledger.accounts.without.add("maker")
    ledger.sell("s", "500", "8", user_id="maker")
    ledger.execute(place("n", "bid", "400", "8"))
    ledger.buy("a", "2", "8")
    assert ledger.told == {"alice": {"EUR": ("84", "0"), "KCN": ("12", "0")}}


def test_accounts_are_bounded(ledger: Ledger) -> None:
    for number in range(MAX_ACCOUNTS):
        ledger.accounts._accounts[str(number)] = {}
    [event] = ledger.buy("a", "1", "1")
    assert (event["type"], event["reason"]) == ("order_rejected", "too many accounts")


def test_account_that_was_opened_before_is_told_without_an_order(ledger: Ledger) -> None:
    ledger.accounts.open("alice")
    ledger.tell()
    ledger.accounts.open("alice")
    assert (ledger.told, ledger.accounts.take_changes()) == ({"alice": {"EUR": ("100", "0"), "KCN": ("10", "0")}}, [])
    ledger.accounts.tell_again(["alice", "nobody"])
    assert [user_id for user_id, _ in ledger.accounts.take_changes()] == ["alice"]


def test_account_of_an_earlier_exchange_is_taken_back_with_nothing_reserved(ledger: Ledger) -> None:
    ledger.buy("a", "2", "10.50")
    later = Ledger(EUR="1")
    later.accounts.restore(json.dumps(ledger.records[-1]).encode())
    later.tell()
    assert later.told == {"alice": {"EUR": ("100", "0"), "KCN": ("10", "0")}}


@pytest.mark.parametrize(
    "value",
    [None, b"", b"{", b"[]", b"{}", b'{"user_id":"a"}', b'{"user_id":"a","balances":[]}',
     b'{"user_id":"a","balances":{"EUR":{"available":"x","reserved":"0"}}}',
     b'{"user_id":"a","balances":{"EUR":{"available":"1"}}}', b'{"user_id":"a","balances":{"EUR":5}}'],
)  # fmt: skip
def test_account_that_cannot_be_read_is_not_taken_back(ledger: Ledger, value: bytes | None) -> None:
    ledger.accounts.restore(value)
    assert ledger.accounts.take_changes() == []


@settings(max_examples=examples(150))
@given(COMMANDS, st.sampled_from(["5", "20", "1000"]))
def test_nothing_comes_of_nothing_and_nobody_owes(commands: list[dict[str, Any]], deposit: str) -> None:
    """Of each currency all accounts together have the deposits, and what nobody's orders brought in or took away."""
    ledger = Ledger("A/B", A=deposit, B=deposit)
    owners: dict[int, str | None] = {}
    brought: dict[str, Decimal] = defaultdict(Decimal)
    for command in commands:
        if command["type"] == "place_order":
            owners.setdefault(command["order_id"], command["user_id"])
        for event in ledger.execute(command):
            if event["type"] == "fill":
                quantity, amount = Decimal(event["quantity"]), Decimal(event["quantity"]) * Decimal(event["price"])
                buyer, seller = owners[event["buy_order_id"]], owners[event["sell_order_id"]]
                brought["A"] += (buyer is not None) * quantity - (seller is not None) * quantity
                brought["B"] += (seller is not None) * amount - (buyer is not None) * amount
        amounts = [(currency, *map(Decimal, one)) for has in ledger.told.values() for currency, one in has.items()]
        assert all(available >= 0 and reserved >= 0 for _, available, reserved in amounts)
        for name in ("A", "B"):
            total = sum(available + reserved for currency, available, reserved in amounts if currency == name)
            assert total == Decimal(deposit) * len(ledger.told) + brought[name]
    for user_id in BOTH:
        for order_id in range(25):
            ledger.execute({"type": "cancel_order", "order_id": order_id, "symbol": "A/B", "user_id": user_id})
    assert {reserved for has in ledger.told.values() for _, reserved in has.values()} <= {"0"}
