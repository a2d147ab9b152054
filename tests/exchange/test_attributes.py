"""What the simulated engine makes of the attributes that the demo declares."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from exchange.commands import SelfTrade
from exchange.events import Event
from exchange.matching import WOULD_TRADE, Engine
from tests.exchange.test_accounts import Ledger
from tests.exchange.test_matching import amend, engine, kinds, place


def ids(events: list[Event]) -> list[tuple[Any, ...]]:
    return [
        (event["type"], event.get("order_id"), event.get("filled_quantity"))
        for event in events
        if event["type"] != "orderbook_delta"
    ]


def post(order_id: str, price: str = "10", **more: Any) -> dict[str, Any]:
    return place(order_id, "bid", "1", price, user_id="alice", post_only=True, **more)


@pytest.mark.parametrize(("price", "trades"), [("9.99", False), ("10", True), ("10.01", True)])
def test_engine_refuses_a_post_only_order_that_would_trade(price: str, trades: bool) -> None:
    made = engine()
    made.execute(place("a", "ask", "1", "10"))
    [first, *_] = made.execute(post("b", price))
    assert first["type"] == ("order_rejected" if trades else "order_accepted")
    assert first.get("reason") == (WOULD_TRADE if trades else None)
    assert (made.order("a") is not None, made.order("b") is not None) == (True, not trades)


def test_engine_takes_an_order_that_is_not_post_only_as_ever() -> None:
    made = engine()
    made.execute(place("a", "ask", "1", "10"))
    assert "fill" in kinds(made.execute(post("b", "10") | {"post_only": False}))


def test_engine_refuses_an_amend_by_which_a_post_only_order_would_trade() -> None:
    made = engine()
    made.execute(post("a", "9"))
    made.execute(place("b", "ask", "1", "10"))
    [refused] = made.execute(amend("a", "10", None, "alice"))
    assert (refused["type"], refused["reason"]) == ("order_amend_rejected", WOULD_TRADE)
    order = made.order("a")
    assert order is not None and order.price == Decimal(9)
    assert kinds(made.execute(amend("a", "9.5", "2", "alice"))) == ["order_amended", "orderbook_delta"]


@pytest.mark.parametrize("more", [{"tif": "IOC"}, {"tif": "FOK"}, {"price": None}])
def test_engine_refuses_a_post_only_order_that_cannot_rest(more: dict[str, Any]) -> None:
    [refused] = engine().execute(post("a", **more))
    assert refused["type"] == "order_rejected" and refused["reason"].startswith("post_only: is for orders that rest")


@pytest.mark.parametrize(
    ("field", "value"), [("post_only", 1), ("post_only", "true"), ("stp", "cancel"), ("stp", True)]
)
def test_engine_refuses_an_attribute_that_it_does_not_know(field: str, value: object) -> None:
    [refused] = engine().execute(place("a", "bid", "1", "10", **{field: value}))
    assert refused["type"] == "order_rejected" and refused["reason"].startswith(f"{field}: must be")


CANCELLED = {
    "cancel_newest": [("order_cancelled", "taker", "1.000")],
    "cancel_oldest": [("order_cancelled", "own", "0.000"), ("fill", None, None), ("order_filled", "behind", None)],
    "cancel_both": [("order_cancelled", "own", "0.000"), ("order_cancelled", "taker", "1.000")],
}


def with_own_order() -> Engine:
    made = engine()
    made.execute(place("before", "ask", "1", "10", user_id="bob"))
    made.execute(place("own", "ask", "1", "10", user_id="alice"))
    made.execute(place("behind", "ask", "1", "10", user_id="bob"))
    return made


@pytest.mark.parametrize("stp", CANCELLED)
def test_engine_cancels_instead_of_letting_a_user_trade_with_itself(stp: str) -> None:
    made = with_own_order()
    events = ids(made.execute(place("taker", "bid", "3", "10", user_id="alice", stp=stp)))
    head, rest = events[:2], sorted(events[2:], key=str)
    assert head == [("order_accepted", "taker", None), ("fill", None, None)]
    assert rest == sorted([("order_filled", "before", None), *CANCELLED[stp]], key=str)
    assert (made.order("own") is None) == (stp != "cancel_newest")
    assert (made.order("behind") is None) == (stp == "cancel_oldest")
    taker = made.order("taker")
    assert (taker is not None and taker.remaining == 1) == (stp == "cancel_oldest")


def test_engine_cancels_an_amended_order_that_meets_one_of_its_user() -> None:
    made = engine()
    made.execute(place("own", "ask", "1", "10", user_id="alice"))
    made.execute(place("a", "bid", "2", "9", user_id="alice", stp="cancel_newest"))
    events = ids(made.execute(amend("a", "10", None, "alice")))
    assert events == [("order_amended", "a", None), ("order_cancelled", "a", "0.000")]
    assert made.order("a") is None and made.order("own") is not None


def test_engine_takes_nobodys_orders_for_those_of_different_users() -> None:
    made = engine()
    made.execute(place("a", "ask", "1", "10"))
    assert "fill" in kinds(made.execute(place("b", "bid", "1", "10", stp="cancel_both")))


@pytest.mark.parametrize(("stp", "quantity"), [("cancel_newest", "1"), ("cancel_both", "1"), ("cancel_oldest", "2")])
def test_engine_fills_or_kills_by_what_there_is_for_the_user(stp: str, quantity: str) -> None:
    for more, expected in (("0", "order_accepted"), ("0.001", "order_rejected")):
        made = with_own_order()
        taker = place("taker", "bid", str(Decimal(quantity) + Decimal(more)), "10", "FOK", user_id="alice", stp=stp)
        assert kinds(made.execute(taker))[0] == expected
        assert (made.order("own") is not None) == (expected == "order_rejected" or stp != "cancel_oldest")


@pytest.mark.parametrize("stp", SelfTrade)
def test_engine_reserves_nothing_for_what_was_cancelled_instead_of_trading(stp: SelfTrade) -> None:
    ledger = Ledger(EUR="100", KCN="10")
    ledger.sell("own", "1", "1", "alice")
    ledger.sell("dear", "1", "50")
    events = ledger.buy("a", "1", None, stp=stp.value)
    bought = stp is SelfTrade.CANCEL_OLDEST
    assert ("fill" in kinds(events)) == bought
    left = "1" if stp is SelfTrade.CANCEL_NEWEST else "0"
    assert ledger.told["alice"]["EUR"] == ("50" if bought else "100", "0")
    assert ledger.told["alice"]["KCN"] == (str(Decimal(10) + bought - int(left)), left)
