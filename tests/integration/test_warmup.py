"""What was on the topic before a gateway started: folded in, shown as books, never as events (docs/contract.md#warm-up)."""

from __future__ import annotations

import json
import time

import pytest

from tests.integration.clients import WebSocket
from tests.integration.events import delta, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.support.kafka import Bus


@pytest.fixture(scope="module")
def bus(each_bus: Bus) -> Bus:
    """What is tested here is what a bus could get wrong."""
    return each_bus


OPTIONAL = {"auth": {"mode": "optional"}}


def known(gateway: Gateway) -> set[str]:
    return {one["symbol"] for one in gateway.get("/api/instruments").json()["instruments"]}


def test_events_before_the_start_are_a_book_and_no_news(bus: Bus) -> None:
    market = Market.create(bus)
    symbol = fresh_symbol()
    [(partition, _), *_] = market.publish(
        symbol, snapshot(symbol, 1), delta(symbol, 2, ("add", "bid", "10.10", "4")), fill(symbol), b"poison"
    )
    end = market.publish(symbol, fill(symbol))[-1][1]
    with Gateway.on(market, OPTIONAL, wait=False) as gateway, WebSocket(gateway.address) as early:
        # Connected while it still reads back: it waits, and is not shown history as news.
        first = early.receive()
        gateway.wait_ready()
        with WebSocket(gateway.address) as late, WebSocket(gateway.address, "/ws?stream=none") as subscriber:
            subscriber.subscribe("events")
            told = json.loads(subscriber.receive())
            market.publish(symbol, news := fill(symbol, n="news"))
            assert [early.receive(), late.receive(), late.receive()] == [news, first, news]
            assert json.loads(subscriber.receive())["seq"] == end + 1
    book = json.loads(first)
    assert (book["type"], book["sequence"], book["bids"][0]) == (
        "orderbook_snapshot",
        2,
        {"price": "10.10", "quantity": "4"},
    )
    assert (told["seq"], told["partition"], told["notification"]) == (end, partition, {"event": book, "snapshot": True})


def test_gateway_on_empty_topics_is_ready(bus: Bus) -> None:
    market = Market.create(bus)
    with Gateway.on(market, OPTIONAL) as gateway, WebSocket(gateway.address) as client:
        client.expect_silence()
        symbol = fresh_symbol()
        market.publish(symbol, record := fill(symbol))
        assert client.receive() == record


# The embedded cluster cannot look up offsets by time, a real one always can.
@pytest.mark.parametrize("each_bus", ["real"], indirect=True, scope="module")
def test_warmup_goes_back_by_time(bus: Bus) -> None:
    market = Market.create(bus)
    now_ms = int(time.time() * 1000)
    old, young, mixed = fresh_symbol("OLD"), fresh_symbol("YOUNG"), fresh_symbol("MIXED")
    market.publish(old, snapshot(old), timestamp_ms=now_ms - 3_000_000)
    market.publish(mixed, snapshot(mixed, 1), timestamp_ms=now_ms - 3_000_000)
    market.publish(mixed, snapshot(mixed, 2), timestamp_ms=now_ms - 500_000)
    market.publish(young, snapshot(young), timestamp_ms=now_ms - 500_000)
    settings = {**OPTIONAL, "kafka": {"warmup_seconds": 1000}}
    with Gateway.on(market, settings) as gateway:
        assert {young, mixed} <= known(gateway)
        assert old not in known(gateway)
        assert abs(float(gateway.health()["known_since"]) - (time.time() - 1000)) < 60
    with Gateway.on(market, {**OPTIONAL, "kafka": {"warmup_seconds": 100}}) as gateway:
        assert known(gateway) == set()
        with WebSocket(gateway.address) as client:
            market.publish(old, record := fill(old))
            assert client.receive() == record


@pytest.mark.parametrize("each_bus", ["embedded"], indirect=True, scope="module")
def test_warmup_goes_back_by_records_where_time_cannot_be_asked(bus: Bus) -> None:
    market = Market.create(bus)
    old, young = fresh_symbol("OLD"), fresh_symbol("YOUNG")
    market.publish_to((0, snapshot(old)), *((0, snapshot(young, number)) for number in range(5)))
    settings = {**OPTIONAL, "kafka": {"warmup_records": 5}}
    with Gateway.on(market, settings) as gateway:
        assert known(gateway) == {young}
        assert float(gateway.health()["known_since"]) > time.time() - 600
    with Gateway.on(market, {**OPTIONAL, "kafka": {"warmup_records": 6}}) as gateway:
        assert known(gateway) == {old, young}


def test_restarted_gateway_knows_the_book_again_though_its_group_is_old(bus: Bus) -> None:
    market = Market.create(bus)
    symbol = fresh_symbol()
    settings = {**OPTIONAL, "drain_seconds": 0}
    with Gateway.on(market, settings) as gateway:
        market.publish(symbol, snapshot(symbol, 5))
        gateway.wait_until(lambda: symbol in known(gateway), "the symbol known")
        assert gateway.terminate() == 0
    with Gateway.on(market, settings) as gateway, WebSocket(gateway.address) as client:
        assert json.loads(client.receive())["sequence"] == 5
