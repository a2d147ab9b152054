"""A gateway that dies (SIGKILL) under clients and orders, and one that takes its place."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from tests.faults.test_broker_frozen import Placing
from tests.integration.clients import WebSocket
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway

SETTINGS = {"auth": {"mode": "optional"}, "limits": {"orders_per_second": 0}}


@pytest.mark.parametrize("consume", ["shared", "broadcast"])
def test_next_gateway_serves_what_the_killed_one_did(market: Market, consume: str) -> None:
    symbol = fresh_symbol()
    consumer = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    settings = {**SETTINGS, "kafka": {"consume": consume, "consumer": consumer}}
    with Gateway.on(market, settings) as gateway, WebSocket(gateway.address) as client:
        market.publish(symbol, snapshot(symbol, 1), fill(symbol, n="last"))
        client.receive_until(lambda message: b'"last"' in message)
        gateway.kill()
        assert client.receive_close().code is None
        market.publish(symbol, snapshot(symbol, 2), fill(symbol, n="missed"))
        # In a group the dead member's partitions are free only when its session is over.
        with Gateway.on(market, settings) as heir, WebSocket(heir.address) as late:
            assert late.news()["sequence"] == 2
            market.publish(symbol, record := fill(symbol, n="new"))
            assert late.receive() == record


def test_every_order_that_a_killed_gateway_accepted_is_on_the_topic_once(market: Market) -> None:
    symbol = fresh_symbol()
    stop = threading.Event()
    with Gateway.on(market, SETTINGS) as gateway:
        traders = [Placing(gateway, symbol, stop) for _ in range(8)]
        for trader in traders:
            trader.start()
        gateway.wait_until(
            lambda: sum(status == 202 for trader in traders for status, _ in list(trader.told)) > 200,
            "orders under way",
        )
        gateway.kill()
        stop.set()
        for trader in traders:
            trader.join()
    told = [order_id for trader in traders for status, order_id in trader.told if status == 202]
    assert len(told) > 200
    counts = Counter(command["order_id"] for command in market.commands_of(symbol))
    assert [order_id for order_id in told if counts[order_id] != 1] == []
    assert max(counts.values()) == 1
