from __future__ import annotations

from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from exchange import matching
from exchange.commands import Instrument, Malformed
from exchange.events import Event
from exchange.matching import Engine

SYMBOL = "KCN/EUR"
INSTRUMENT = Instrument(SYMBOL, Decimal("0.01"), Decimal("0.001"), Decimal("0.010"))
NOW_MS = 1_700_000_000_123


def engine(**options: Any) -> Engine:
    return Engine([(SYMBOL, INSTRUMENT)], lambda: NOW_MS, **options)


def place(
    order_id: str | int, side: str, quantity: str, price: str | None, tif: str | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "type": "place_order",
        "order_id": order_id,
        "symbol": SYMBOL,
        "side": side,
        "order_type": "market" if price is None else "limit",
        "price": price,
        "quantity": quantity,
        "user_id": None,
        "time_in_force": tif,
        "timestamp": 1,
        **more,
    }


def cancel(order_id: str, user_id: str | None = None, symbol: str = SYMBOL) -> dict[str, Any]:
    return {"type": "cancel_order", "order_id": order_id, "symbol": symbol, "user_id": user_id, "timestamp": 1}


def amend(order_id: str, price: str | None, quantity: str | None, user_id: str | None = None) -> dict[str, Any]:
    return {
        "type": "amend_order",
        "order_id": order_id,
        "symbol": SYMBOL,
        "price": price,
        "quantity": quantity,
        "user_id": user_id,
        "timestamp": 1,
    }


def kinds(events: list[Event]) -> list[str]:
    return [event["type"] for event in events]


def test_engine_answers_a_resting_order_in_the_contracts_form() -> None:
    accepted, delta = engine().execute(place("a", "bid", "1.5", "0.1", user_id="alice"))
    assert accepted == {
        "type": "order_accepted",
        "order_id": "a",
        "symbol": SYMBOL,
        "side": "bid",
        "order_type": "limit",
        "price": "0.10",
        "quantity": "1.500",
        "user_id": "alice",
        "timestamp": NOW_MS,
    }
    assert delta == {
        "type": "orderbook_delta",
        "symbol": SYMBOL,
        "sequence": NOW_MS + 1,
        "deltas": [{"action": "add", "side": "bid", "price": "0.10", "quantity": "1.500"}],
        "timestamp": NOW_MS,
    }


def test_engine_reports_accepted_then_fills_then_closed_orders_then_one_delta() -> None:
    market = engine()
    market.execute(place("a", "ask", "1", "10.00", user_id="alice"))
    market.execute(place("b", "ask", "2", "10.01", user_id="bob"))
    events = market.execute(place("c", "bid", "4", "10.01", user_id="carol"))
    assert kinds(events) == ["order_accepted", "fill", "fill", "order_filled", "order_filled", "orderbook_delta"]
    assert events[1] == {
        "type": "fill",
        "symbol": SYMBOL,
        "buy_order_id": "c",
        "sell_order_id": "a",
        "price": "10.00",
        "quantity": "1.000",
        "taker_side": "bid",
        "timestamp": NOW_MS,
    }
    assert [(event["order_id"], event["user_id"]) for event in events[3:5]] == [("a", "alice"), ("b", "bob")]
    assert events[-1]["deltas"] == [
        {"action": "remove", "side": "ask", "price": "10.00", "quantity": "0"},
        {"action": "remove", "side": "ask", "price": "10.01", "quantity": "0"},
        {"action": "add", "side": "bid", "price": "10.01", "quantity": "1.000"},
    ]


def test_engine_update_carries_the_levels_new_total() -> None:
    market = engine()
    market.execute(place("a", "ask", "1", "10"))
    [_, joined] = market.execute(place("b", "ask", "2", "10.00"))
    hit = market.execute(place("c", "bid", "0.5", "10"))[-1]
    assert joined["deltas"] == [{"action": "update", "side": "ask", "price": "10.00", "quantity": "3.000"}]
    assert hit["deltas"] == [{"action": "update", "side": "ask", "price": "10.00", "quantity": "2.500"}]


def test_engine_reports_the_sellers_id_as_such_when_the_seller_takes() -> None:
    market = engine()
    market.execute(place("a", "bid", "1", "10"))
    fill = market.execute(place("b", "ask", "1", "9"))[1]
    assert (fill["buy_order_id"], fill["sell_order_id"], fill["taker_side"]) == ("a", "b", "ask")
    assert fill["price"] == "10.00"


@pytest.mark.parametrize(("price", "tif"), [(None, "IOC"), (None, "GTC"), (None, None), ("10.00", "IOC")])
def test_engine_cancels_the_remainder_when_an_order_may_not_rest(price: str | None, tif: str | None) -> None:
    market = engine()
    market.execute(place("a", "ask", "1", "10"))
    events = market.execute(place("b", "bid", "3", price, tif, user_id="bob"))
    assert kinds(events) == ["order_accepted", "fill", "order_filled", "order_cancelled", "orderbook_delta"]
    assert (events[3]["order_id"], events[3]["filled_quantity"], events[3]["user_id"]) == ("b", "1.000", "bob")
    assert market.snapshot(SYMBOL)["bids"] == []


def test_engine_publishes_no_delta_when_the_book_did_not_change() -> None:
    events = engine().execute(place("a", "bid", "1", "10", "IOC"))
    assert kinds(events) == ["order_accepted", "order_cancelled"]
    assert Decimal(events[1]["filled_quantity"]) == 0


@pytest.mark.parametrize("price", [None, "10.01"])
def test_engine_rejects_fill_or_kill_untouched_when_liquidity_is_short(price: str | None) -> None:
    market = engine()
    market.execute(place("a", "ask", "1", "10"))
    market.execute(place("b", "ask", "1", "10.01"))
    market.execute(place("c", "ask", "1", "10.02"))
    too_much = "3.001" if price is None else "2.001"
    [rejected] = market.execute(place("d", "bid", too_much, price, "FOK", user_id="dora"))
    assert (rejected["type"], rejected["order_id"], rejected["user_id"]) == ("order_rejected", "d", "dora")
    assert "insufficient liquidity" in rejected["reason"]
    enough = "3" if price is None else "2"
    assert kinds(market.execute(place("e", "bid", enough, price, "FOK"))).count("order_filled") == int(enough) + 1


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (place("x", "bid", "1", None), "no liquidity"),
        (place("x", "bid", "1", "10.001"), "multiple of the tick"),
        (place("x", "bid", "1.0001", "10"), "multiple of the lot"),
        (place("x", "bid", "0.009", "10"), "at least 0.010"),
        (place("x", "bid", "1", "10", symbol="DOGE/EUR"), "not traded"),
        (place("x", "bid", "1", "10", symbol="no symbol"), "symbol: must be"),
        (place("x", "sell", "1", "10"), "side: must be"),
        (place("x", "bid", "-1", "10"), "quantity: must be"),
    ],
)
def test_engine_rejects_with_a_reason(command: dict[str, Any], reason: str) -> None:
    [rejected] = engine().execute({**command, "user_id": "alice"})
    assert rejected["type"] == "order_rejected"
    assert reason in rejected["reason"]
    assert (rejected["order_id"], rejected["user_id"], rejected["timestamp"]) == ("x", "alice", NOW_MS)
    assert rejected.get("symbol") == (None if command["symbol"] == "no symbol" else command["symbol"])


def test_engine_raises_malformed_when_there_is_no_order_id() -> None:
    with pytest.raises(Malformed):
        engine().execute({"type": "place_order", "symbol": SYMBOL})


@pytest.mark.parametrize(
    "command", [place("a", "bid", "1", "10"), place("a", "bid", "1", None), place("a", "bid", "x", "10")]
)
def test_engine_drops_a_repeated_order_id_whatever_became_of_the_first(command: dict[str, Any]) -> None:
    market = engine()
    assert market.execute(command)
    assert market.execute(command) == []
    market.execute(cancel("a"))
    assert market.execute(place("a", "ask", "2", "20")) == []


def test_engine_forgets_the_oldest_order_ids_but_never_those_of_open_orders() -> None:
    market = engine(remembered_order_ids=2)
    for order_id in ("open", "closed", "b", "c"):
        market.execute(place(order_id, "bid", "1", "10", "IOC" if order_id == "closed" else None))
    assert market.execute(place("open", "bid", "1", "10")) == []
    assert kinds(market.execute(place("closed", "bid", "1", "10"))) == ["order_accepted", "orderbook_delta"]


def test_engine_cancel_names_what_was_filled() -> None:
    market = engine()
    market.execute(place("a", "bid", "3", "10", user_id="alice"))
    market.execute(place("b", "ask", "1", "10"))
    cancelled, delta = market.execute(cancel("a", "alice"))
    assert (cancelled["type"], cancelled["filled_quantity"], cancelled["user_id"]) == (
        "order_cancelled",
        "1.000",
        "alice",
    )
    assert delta["deltas"] == [{"action": "remove", "side": "bid", "price": "10.00", "quantity": "0"}]


@pytest.mark.parametrize("user_id", [None, "mallory"])
def test_engine_cancel_is_silent_when_the_order_is_another_users(user_id: str | None) -> None:
    market = engine()
    market.execute(place("a", "bid", "3", "10", user_id="alice"))
    assert market.execute(cancel("a", user_id)) == []
    assert market.order("a") is not None


@pytest.mark.parametrize("user_id", [None, "bob"])
def test_engine_cancel_by_anyone_works_when_the_order_is_nobodys(user_id: str | None) -> None:
    market = engine()
    market.execute(place("a", "bid", "3", "10"))
    assert kinds(market.execute(cancel("a", user_id))) == ["order_cancelled", "orderbook_delta"]


def test_engine_cancel_is_silent_when_the_order_is_unknown_closed_or_in_another_symbol() -> None:
    market = engine(open_symbols=True)
    market.execute(place("a", "bid", "3", "10"))
    assert market.execute(cancel("unknown")) == []
    assert market.execute(cancel("a", symbol="OTHER/EUR")) == []
    market.execute(cancel("a"))
    assert market.execute(cancel("a")) == []


def test_engine_lets_one_user_trade_with_himself() -> None:
    market = engine()
    market.execute(place("a", "bid", "1", "10", user_id="alice"))
    assert "fill" in kinds(market.execute(place("b", "ask", "1", "10", user_id="alice")))


def test_engine_sequence_rises_also_where_nothing_is_published() -> None:
    market = engine()
    first = market.snapshot(SYMBOL)["sequence"]
    market.execute(cancel("unknown"))
    assert market.snapshot(SYMBOL)["sequence"] == first + 2


def test_engine_sequence_goes_on_higher_when_restarted_later() -> None:
    clock = count(NOW_MS, 1000)
    before = Engine([(SYMBOL, None)], lambda: next(clock))
    last = [before.snapshot(SYMBOL)["sequence"] for _ in range(5)][-1]
    assert Engine([(SYMBOL, None)], lambda: next(clock)).snapshot(SYMBOL)["sequence"] > last


def test_engine_new_symbol_begins_with_a_snapshot_when_symbols_are_open() -> None:
    market = Engine([], lambda: NOW_MS, open_symbols=True)
    events = market.execute(place("a", "bid", "0.00000000000000000001", "3.10", symbol="NEW/EUR"))
    assert kinds(events) == ["orderbook_snapshot", "order_accepted", "orderbook_delta"]
    assert (events[0]["bids"], events[0]["asks"]) == ([], [])
    assert events[2]["sequence"] > events[0]["sequence"]
    assert market.snapshot("NEW/EUR")["bids"] == [{"price": "3.10", "quantity": "0.00000000000000000001"}]


def test_engine_new_symbol_gets_no_book_when_its_first_order_is_rejected() -> None:
    market = Engine([], lambda: NOW_MS, open_symbols=True)
    assert kinds(market.execute(place("a", "bid", "1", None, symbol="NEW/EUR"))) == ["order_rejected"]
    assert market.symbols == []


def test_engine_totals_stay_exact_when_quantities_lie_76_digits_apart() -> None:
    market = Engine([(SYMBOL, None)], lambda: NOW_MS)
    large, small = "9" * 38, "0." + "0" * 36 + "1"
    market.execute(place("a", "bid", large, "10"))
    market.execute(place("b", "bid", small, "10"))
    assert market.snapshot(SYMBOL)["bids"] == [{"price": "10", "quantity": large + small[1:]}]
    market.execute(cancel("a"))
    assert market.snapshot(SYMBOL)["bids"] == [{"price": "10", "quantity": small}]


def test_engine_snapshot_lists_the_best_levels_first() -> None:
    market = engine()
    for number, (side, price) in enumerate([("bid", "1"), ("bid", "3"), ("bid", "2"), ("ask", "5"), ("ask", "4")]):
        market.execute(place(number, side, "1", price))
    snapshot = market.snapshot(SYMBOL)
    assert [level["price"] for level in snapshot["bids"]] == ["3.00", "2.00", "1.00"]
    assert [level["price"] for level in snapshot["asks"]] == ["4.00", "5.00"]


def test_engine_bounds_what_strangers_can_make_it_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MAX_LEVELS_A_SIDE", 2)
    monkeypatch.setattr(matching, "MAX_OPEN_ORDERS", 3)
    monkeypatch.setattr(matching, "MAX_SYMBOLS", 1)
    market = engine(open_symbols=True)
    assert "symbols" in market.execute(place("s", "bid", "1", "1", symbol="NEW/EUR"))[0]["reason"]
    market.execute(place("a", "bid", "1", "1"))
    market.execute(place("b", "bid", "1", "2"))
    assert "levels" in market.execute(place("c", "bid", "1", "3"))[0]["reason"]
    assert kinds(market.execute(place("d", "bid", "1", "2"))) == ["order_accepted", "orderbook_delta"]
    assert "open orders" in market.execute(place("e", "bid", "1", "2"))[0]["reason"]
    assert "fill" in kinds(market.execute(place("f", "ask", "1", "2", "IOC")))


def test_engine_amends_in_the_contracts_form() -> None:
    market = engine()
    market.execute(place("a", "bid", "1.5", "0.10", user_id="alice"))
    amended, delta = market.execute(amend("a", "0.2", None, "alice"))
    assert amended == {
        "type": "order_amended",
        "order_id": "a",
        "symbol": SYMBOL,
        "price": "0.20",
        "quantity": "1.500",
        "user_id": "alice",
        "timestamp": NOW_MS,
    }
    assert delta["deltas"] == [
        {"action": "remove", "side": "bid", "price": "0.10", "quantity": "0"},
        {"action": "add", "side": "bid", "price": "0.20", "quantity": "1.500"},
    ]


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ((None, "1"), "a"), (("10", "1"), "a"), (("10.0", "2"), "a"), ((None, "3"), "b"), (("10.01", None), "b"),
    ],
)  # fmt: skip
def test_engine_keeps_the_place_of_an_amended_order_that_only_gets_less(
    change: tuple[str | None, str | None], first: str
) -> None:
    market = engine()
    for order_id in "ab":
        market.execute(place(order_id, "ask", "2", "10.00"))
    market.execute(amend("a", *change))
    assert market.execute(place("c", "bid", "0.5", "11"))[1]["sell_order_id"] == first


def test_engine_trades_an_amended_order_that_crosses() -> None:
    market = engine()
    market.execute(place("a", "ask", "1", "10.00"))
    market.execute(place("b", "bid", "3", "9.00"))
    events = market.execute(amend("b", "10.50", "2"))
    assert kinds(events) == ["order_amended", "fill", "order_filled", "orderbook_delta"]
    assert (events[1]["buy_order_id"], events[1]["price"], events[1]["taker_side"]) == ("b", "10.00", "bid")
    assert events[-1]["deltas"] == [
        {"action": "remove", "side": "bid", "price": "9.00", "quantity": "0"},
        {"action": "remove", "side": "ask", "price": "10.00", "quantity": "0"},
        {"action": "add", "side": "bid", "price": "10.50", "quantity": "1.000"},
    ]


def test_engine_closes_an_amended_order_that_is_filled_by_it() -> None:
    market = engine()
    market.execute(place("a", "ask", "1", "10.00"))
    market.execute(place("b", "bid", "1", "9.00"))
    events = market.execute(amend("b", "10.00", None))
    assert [event["order_id"] for event in events[2:-1]] == ["a", "b"]
    assert market.order("b") is None


@pytest.mark.parametrize("total", ["0.4", "0.5"])
def test_engine_cancels_an_order_that_is_amended_to_what_is_filled(total: str) -> None:
    market = engine()
    market.execute(place("a", "ask", "1", "10.00"))
    market.execute(place("b", "bid", "0.5", "10.00"))
    events = market.execute(amend("a", None, total))
    assert kinds(events) == ["order_cancelled", "orderbook_delta"]
    assert events[0]["filled_quantity"] == "0.500"


@pytest.mark.parametrize(
    ("change", "field"), [(("10.001", None), "price"), ((None, "1.0001"), "quantity"), ((None, "0.001"), "quantity")]
)
def test_engine_refuses_an_amend_that_breaks_the_instruments_rules(
    change: tuple[str | None, str | None], field: str
) -> None:
    market = engine()
    market.execute(place("a", "ask", "1", "10.00", user_id="alice"))
    [event] = market.execute(amend("a", *change, "alice"))
    assert event["type"] == "order_amend_rejected"
    assert event["reason"].startswith(f"{field}: must be ")
    assert (event["order_id"], event["user_id"]) == ("a", "alice")


def test_engine_refuses_an_amend_to_one_level_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MAX_LEVELS_A_SIDE", 1)
    market = engine()
    market.execute(place("a", "ask", "1", "10.00"))
    assert kinds(market.execute(amend("a", "10.01", None))) == ["order_amend_rejected"]
    assert kinds(market.execute(amend("a", None, "2"))) == ["order_amended", "orderbook_delta"]


@pytest.mark.parametrize(("order_id", "user_id"), [("none", "alice"), ("a", "bob"), ("a", None)])
def test_engine_does_not_answer_an_amend_of_what_is_not_the_users(order_id: str, user_id: str | None) -> None:
    market = engine()
    market.execute(place("a", "ask", "1", "10.00", user_id="alice"))
    assert market.execute(amend(order_id, "11", None, user_id)) == []
    assert market.order("a") is not None


def test_engine_leaves_a_book_without_rules_its_digits_when_it_amends() -> None:
    market = Engine([], lambda: NOW_MS, open_symbols=True)
    market.execute(place("a", "ask", "1", "10.00"))
    amended, _ = market.execute(amend("a", "10.5", "1.25"))
    assert (amended["price"], amended["quantity"]) == ("10.5", "1.25")


def test_engine_refuses_what_is_past_its_deadline() -> None:
    market = engine()
    [late] = market.execute(place("a", "ask", "1", "10.00", deadline_ms=NOW_MS - 1))
    assert (late["type"], late["reason"]) == ("order_rejected", "deadline_ms: has passed")
    market.execute(place("b", "ask", "1", "10.00", deadline_ms=NOW_MS))
    assert kinds(market.execute({**amend("b", None, "2"), "deadline_ms": NOW_MS - 1})) == ["order_amend_rejected"]
    assert kinds(market.execute({**amend("b", None, "2"), "deadline_ms": NOW_MS}))[0] == "order_amended"
    [odd] = market.execute(place("c", "ask", "1", "10.00", deadline_ms="soon"))
    assert odd["reason"].startswith("deadline_ms: ")
