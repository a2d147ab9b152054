"""Gateway and simulated exchange, which know nothing of each other, meet on Kafka alone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.clients import WebSocket
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    settings = {"auth": {"mode": "optional"}, "limits": {"orders_per_second": 0}}
    with exchange_on(market), Gateway.on(market, settings) as gateway:
        yield gateway


def place(gateway: Gateway, symbol: str, side: str, price: str | None, quantity: str, **more: object) -> str:
    body = {"symbol": symbol, "side": side, "order_type": "market" if price is None else "limit", "quantity": quantity}
    if price is not None:
        body["price"] = price
    answer = gateway.post("/api/order", {**body, **more})
    assert answer.status == 202, answer.body
    return str(answer.json()["order_id"])


def test_crossing_orders_trade_and_the_stream_shows_it(gateway: Gateway) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        client.subscribe(f"events.{symbol}")
        ask = place(gateway, symbol, "ask", "10.10", "2.50")
        bid = place(gateway, symbol, "bid", "10.20", "1.00")
        events = [
            json.loads(message)["notification"]["event"]
            for message in client.receive_until(lambda message: b'"fill"' in message)
        ]
        after = json.loads(client.receive())["notification"]["event"]
    trade = events[-1]
    assert (trade["buy_order_id"], trade["sell_order_id"]) == (bid, ask)
    assert (trade["price"], trade["quantity"], trade["symbol"]) == ("10.10", "1.00", symbol)
    assert [event["type"] for event in events] == ["orderbook_snapshot", "orderbook_delta", "fill"]
    assert after["type"] == "orderbook_delta"
    assert [(change["side"], change["price"], change["quantity"]) for change in after["deltas"]] == [
        ("ask", "10.10", "1.50")
    ]


def test_cancelled_order_leaves_the_book_and_trades_no_more(gateway: Gateway) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        client.subscribe(f"events.{symbol}")
        ask = place(gateway, symbol, "ask", "10", "1")
        client.receive_until(lambda message: b'"add"' in message)
        answer = gateway.post("/api/order/cancel", {"order_id": ask, "symbol": symbol})
        assert answer.status == 202
        removal = json.loads(client.receive())["notification"]["event"]
        assert [(change["action"], change["side"]) for change in removal["deltas"]] == [("remove", "ask")]
        place(gateway, symbol, "bid", "10", "1")
        resting = json.loads(client.receive())["notification"]["event"]
    assert (resting["type"], resting["deltas"][0]["side"]) == ("orderbook_delta", "bid")


def test_fill_or_kill_that_cannot_be_filled_leaves_nothing(gateway: Gateway) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        client.subscribe(f"events.{symbol}")
        place(gateway, symbol, "ask", "10", "1")
        client.receive_until(lambda message: b'"add"' in message)
        place(gateway, symbol, "bid", "10", "2", time_in_force="FOK")
        ioc = place(gateway, symbol, "bid", "10", "2", time_in_force="IOC")
        trade = json.loads(client.receive())["notification"]["event"]
        gone = json.loads(client.receive())["notification"]["event"]
    assert (trade["type"], trade["buy_order_id"], trade["quantity"]) == ("fill", ioc, "1")
    assert [(change["action"], change["side"]) for change in gone["deltas"]] == [("remove", "ask")]


def test_market_order_takes_what_is_there(gateway: Gateway) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        client.subscribe(f"events.{symbol}")
        asks = [place(gateway, symbol, "ask", price, "1") for price in ("10", "11")]
        place(gateway, symbol, "bid", None, "1.5")
        trades: list[tuple[str, str, str]] = []
        while len(trades) < 2:
            event = json.loads(client.receive())["notification"]["event"]
            if event["type"] == "fill":
                trades.append((event["sell_order_id"], event["price"], event["quantity"]))
    assert trades == [(asks[0], "10", "1"), (asks[1], "11", "0.5")]


def test_client_that_comes_later_gets_the_book_that_the_orders_made(gateway: Gateway) -> None:
    symbol = fresh_symbol()
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        client.subscribe(f"events.{symbol}")
        place(gateway, symbol, "bid", "9.90", "3")
        place(gateway, symbol, "ask", "10.10", "2")
        client.receive_until(lambda message: b'"10.10"' in message)
        with WebSocket(gateway.address) as late:
            [book] = [
                json.loads(message)
                for message in late.receive_until(lambda message: symbol.encode() in message)
                if symbol.encode() in message
            ]
    assert (book["bids"], book["asks"]) == (
        [{"price": "9.90", "quantity": "3"}],
        [{"price": "10.10", "quantity": "2"}],
    )
