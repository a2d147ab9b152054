"""Attributes, on instances that declare the demo's two, with the simulated engine behind them (docs/contract.md#attributes)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on
from tests.integration.test_private_channels import subscribe
from tests.integration.trading import NAMESPACE, Trader, check_problem, limit, own_commands, settings

ATTRIBUTES: dict[str, Any] = {
    "post_only": {"type": "boolean"},
    "stp": {"type": "enum", "values": ["cancel_newest", "cancel_oldest", "cancel_both"]},
}
DECLARING = settings(orders={"id_secret": str(NAMESPACE), "amend": True, "attributes": ATTRIBUTES})
ATTRIBUTED = {"post_only": True, "stp": "cancel_both"}


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, DECLARING) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def other(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, DECLARING) as gateway:
        yield gateway


def told(order: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (order or {}).items() if name in ATTRIBUTES}


def test_attributes_are_in_the_command_and_in_the_state_on_every_instance(
    gateway: Gateway, other: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    order_id = trader.place(gateway, limit(symbol, client_order_id="mine", **ATTRIBUTED))["order_id"]
    [command] = own_commands(market, symbol, "place_order")
    assert list(command)[-2:] == ["post_only", "stp"] and told(command) == ATTRIBUTED
    assert told(trader.order(gateway, order_id)) == ATTRIBUTED
    other.wait_until(lambda: trader.order(other, order_id) is not None, "the other instance has read it")
    assert told(trader.order(other, order_id)) == ATTRIBUTED
    with trader.connect(other) as client:
        assert [told(order) for order in subscribe(client) if order["order_id"] == order_id] == [ATTRIBUTED]
    same = limit(symbol, client_order_id="mine", **ATTRIBUTED)
    assert trader.place(other, same)["duplicate"] is True
    check_problem(trader.post(other, "/api/order", {**same, "stp": "cancel_newest"}), 409)
    assert len(own_commands(market, symbol, "place_order")) == 1


def test_attributes_are_checked_wherever_orders_come_in(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    wrong = limit(symbol, post_only=1, stp="no", other=True)
    expected = [
        {"field": "post_only", "message": "expected true or false"},
        {"field": "stp", "message": 'expected "cancel_newest" or "cancel_oldest" or "cancel_both"'},
        {"field": "other", "message": "unknown field"},
    ]
    assert check_problem(trader.post(gateway, "/api/order", wrong), 422)["errors"] == expected
    batch = {"requests": [{"method": "place", "params": each} for each in (wrong, limit(symbol, **ATTRIBUTED))]}
    refused, placed = trader.post(gateway, "/api/order/batch", batch).json()["results"]
    assert (refused["body"]["errors"], placed["status"]) == (expected, 202)
    with trader.connect(gateway) as client:
        client.send({"id": 9, "method": "private/place_order", "params": wrong})
        answer = json.loads(client.receive_until(lambda message: b'"id":9' in message)[-1])
        assert answer["error"]["data"]["errors"] == expected
    [command] = own_commands(market, symbol, "place_order")
    assert told(command) == ATTRIBUTED


def test_documents_and_instruments_tell_what_is_declared(gateway: Gateway) -> None:
    assert gateway.get("/api/instruments").json()["attributes"] == ATTRIBUTES
    schemas = gateway.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["limitOrder"]["properties"]["post_only"] == {"type": ["boolean", "null"]}
    assert schemas["orderState"]["properties"]["stp"] == {"enum": ATTRIBUTES["stp"]["values"]}
    messages = gateway.get("/asyncapi.json").json()["components"]["schemas"]
    assert messages["placeOrder"]["properties"]["stp"] == {"enum": [*ATTRIBUTES["stp"]["values"], None]}


def test_simulated_engine_honours_them(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with exchange_on(market):
        ask = trader.place(gateway, limit(symbol, side="ask", price="2"))["order_id"]
        trader.wait_for(gateway, ask, "open")
        refused = trader.place(gateway, limit(symbol, price="2", post_only=True))["order_id"]
        assert trader.wait_for(gateway, refused, "rejected")["reason"] == "post_only: would trade at once"
        resting = trader.place(gateway, limit(symbol, price="1", post_only=True))["order_id"]
        trader.wait_for(gateway, resting, "open")
        with trader.connect(gateway) as client:
            subscribe(client)
            answer = trader.post(gateway, "/api/order/amend", {"order_id": resting, "price": "2"})
            assert answer.status == 202
            [*_, said] = client.receive_until(lambda message: b"order_amend_rejected" in message)
            assert json.loads(said)["reason"] == "post_only: would trade at once"
        assert (trader.order(gateway, resting) or {})["price"] == "1"
        newest = trader.place(gateway, limit(symbol, price="2", stp="cancel_newest"))["order_id"]
        assert trader.wait_for(gateway, newest, "cancelled")["filled_quantity"] == "0"
        both = trader.place(gateway, limit(symbol, price="2", stp="cancel_both"))["order_id"]
        trader.wait_for(gateway, both, "cancelled")
        trader.wait_for(gateway, ask, "cancelled")
