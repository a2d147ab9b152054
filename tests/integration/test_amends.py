"""Amends, on two instances whose engine knows them: a test's, and the simulated one (docs/contract.md#amends)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import WebSocket
from tests.integration.events import fill, fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on
from tests.integration.test_private_channels import next_change, subscribe
from tests.integration.trading import (
    NAMESPACE,
    Trader,
    check_problem,
    error_of,
    limit,
    order_command,
    order_event,
    own_commands,
    settings,
)

AMENDING = settings(orders={"id_secret": str(NAMESPACE), "amend": True})


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, AMENDING) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def other(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, AMENDING) as gateway:
        yield gateway


def amend(trader: Trader, gateway: Gateway, **body: object) -> dict[str, Any]:
    answer = trader.post(gateway, "/api/order/amend", body)
    assert answer.status == 202, (answer.status, answer.body)
    assert answer.json()["status"] == "amend_requested"
    return dict(answer.json())


def test_amend_goes_to_the_engine_and_its_word_to_every_instance(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol, client_order_id="mine"))["order_id"]
    market.publish(symbol, order_event("accepted", order_id, symbol))
    trader.wait_for(other, order_id, "open")
    with trader.connect(gateway) as client, trader.connect(other) as there:
        [before] = subscribe(client)
        subscribe(there)
        assert amend(trader, other, client_order_id="mine", price="1.20", quantity="3.0") == {
            "order_id": order_id, "status": "amend_requested",
        }  # fmt: skip
        [command] = own_commands(market, symbol, "amend_order")
        assert command.pop("timestamp") > 1_700_000_000_000
        assert command == {
            "type": "amend_order", "order_id": order_id, "symbol": symbol, "user_id": trader.user_id,
            "price": "1.20", "quantity": "3.0",
        }  # fmt: skip
        amended = order_event("amended", order_id, symbol, price="1.20", quantity="3.0", timestamp=1_700_000_000_123)
        market.publish(symbol, amended)
        for one in (client, there):
            assert one.receive() == amended
            assert next_change(one) == {**before, "price": "1.20", "quantity": "3.0", "time": 1_700_000_000.123}
        market.publish(symbol, fill(symbol, buy_order_id=order_id, quantity="2.5", timestamp=1_700_000_000_124))
        assert next_change(client)["filled_quantity"] == "2.5"
        market.publish(symbol, order_event("amended", order_id, symbol, price="1.20", quantity="2.5"))
        client.receive()
        assert next_change(client)["status"] == "cancelled"
    closed = check_problem(trader.post(gateway, "/api/order/amend", {"order_id": order_id, "price": "1.3"}), 409)
    assert closed["order_status"] == "cancelled"


def test_engines_refusal_of_an_amend_is_told_once(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol))["order_id"]
    market.publish(symbol, order_event("accepted", order_id, symbol))
    trader.wait_for(gateway, order_id, "open")
    with trader.connect(gateway) as client:
        [before] = subscribe(client)
        amend(trader, gateway, order_id=order_id, quantity=5)
        refused = order_event("amend_rejected", order_id, symbol)
        market.publish(symbol, refused)
        assert client.receive() == refused
        assert next_change(client) == {**before, "amend_rejected": "it is too dear"}
        client.expect_silence()
    assert {**(trader.order(gateway, order_id) or {}), "time": before["time"]} == before
    assert "duplicate" not in amend(trader, gateway, order_id=order_id, quantity=5), "another try"


def test_repeat_of_an_amend_produces_nothing_on_any_instance(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol))["order_id"]
    assert "duplicate" not in amend(trader, gateway, order_id=order_id, price="1.20")
    assert amend(trader, gateway, order_id=order_id, price="1.2")["duplicate"] is True
    # The other one has read the order's record behind which the amend is, once it knows a later order.
    later = trader.place(gateway, limit(symbol))["order_id"]
    trader.wait_for(other, later, "pending")
    assert amend(trader, other, order_id=order_id, price="1.20")["duplicate"] is True
    market.publish(symbol, order_event("amended", order_id, symbol, price="1.20", quantity="2"))
    other.wait_until(lambda: (trader.order(other, order_id) or {})["price"] == "1.20", "it is amended")
    assert amend(trader, other, order_id=order_id, price="1.20", quantity="2.0")["duplicate"] is True
    assert len(own_commands(market, symbol, "amend_order")) == 1


def test_amend_of_an_order_that_another_instance_took_needs_no_symbol(
    gateway: Gateway, other: Gateway, trader: Trader
) -> None:
    order_id = trader.place(gateway, limit(fresh_symbol()))["order_id"]
    assert amend(trader, other, order_id=order_id, price="1.3")["order_id"] == order_id


def test_amend_is_refused_over_websocket_as_over_rest(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol))["order_id"]
    with trader.connect(gateway) as client:
        assert client.result("private/amend_order", {"order_id": order_id, "quantity": "3"}) == {"order_id": order_id}
        error = error_of(client.call("private/amend_order", {"order_id": order_id})[0], -32602)
        assert error["data"]["errors"][0]["field"] == "price"
        error_of(client.call("private/amend_order", {"order_id": "nobody's", "price": 1})[0], 10002)
    with Trader().connect(gateway) as stranger:
        error_of(stranger.call("private/amend_order", {"order_id": order_id, "price": 1, "symbol": symbol})[0], 10002)
    assert len(own_commands(market, symbol, "amend_order")) == 1


def test_amended_terms_are_kept_whichever_topic_tells_first(market: Market, gateway: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()
    order_id = symbol.partition("/")[0]
    accepted = order_event("accepted", order_id, symbol, user_id=trader.user_id)
    market.publish(symbol, accepted, order_event("amended", order_id, symbol, price="1.20", quantity="3"))
    gateway.wait_until(lambda: (trader.order(gateway, order_id) or {}).get("price") == "1.20", "it is amended")
    market.publish_orders(symbol, order_command(order_id, trader.user_id, symbol, client_order_id="late"))
    gateway.wait_until(lambda: trader.orders(gateway, "?client_order_id=late"), "the record is read")
    order = trader.order(gateway, order_id)
    assert order is not None and (order["price"], order["quantity"]) == ("1.20", "3")


def test_amend_is_404_where_orders_cannot_be_amended(market: Market, trader: Trader) -> None:
    with Gateway.on(market, settings()) as plain:
        order_id = trader.place(plain, limit(fresh_symbol()))["order_id"]
        body = {"order_id": order_id, "price": "1.2"}
        assert "cannot be amended" in check_problem(trader.post(plain, "/api/order/amend", body), 404)["error"]
        with trader.connect(plain) as client:
            error_of(client.call("private/amend_order", body)[0], -32601)


def test_simulated_engine_amends_and_trades(market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with exchange_on(market), Gateway.on(market, AMENDING) as gateway, trader.connect(gateway) as client:
        subscribe(client)
        ask = trader.place(gateway, limit(symbol, side="ask", price="2"))["order_id"]
        bid = trader.place(gateway, limit(symbol, price="1"))["order_id"]
        trader.wait_for(gateway, ask, "open")
        trader.wait_for(gateway, bid, "open")
        amend(trader, gateway, order_id=bid, quantity="5")
        gateway.wait_until(lambda: (trader.order(gateway, bid) or {})["quantity"] == "5", "it is amended")
        amend(trader, gateway, order_id=bid, price="2.5")
        trader.wait_for(gateway, ask, "filled")
        part = trader.wait_for(gateway, bid, "partially_filled")
        assert (part["price"], part["quantity"], part["filled_quantity"]) == ("2.5", "5", "2")
        amend(trader, gateway, order_id=bid, quantity="1")
        assert trader.wait_for(gateway, bid, "cancelled")["filled_quantity"] == "2"
        kinds = [event["type"] for event in events_of(client, "order_cancelled")]
        assert (kinds.count("order_amended"), kinds.count("order_filled")) == (2, 1)


def events_of(client: WebSocket, last: str) -> list[dict[str, Any]]:
    """The engine's own events of a user's orders, up to one of that type."""
    messages = client.receive_until(lambda message: last.encode() in message)
    return [event for event in map(json.loads, messages) if "type" in event]
