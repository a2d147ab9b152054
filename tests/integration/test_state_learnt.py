"""An instance that has read less than what is kept of the state: it learns that, and goes on writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer

from core.kafka.state_topic import ready_topic
from core.messages.kept_state import order_partition
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.kept import ONLY_KEPT, KeptTopic, now_ms, wait_writers
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import Trader, order_command, order_event, order_id_of
from tests.integration.waiting import wait_until
from tools.kafka.running import quiet_client


def symbols_on(market: Market, partition: int) -> Iterator[str]:
    """Of which that partition has the market and the orders."""
    fresh = iter(fresh_symbol, "")
    return (symbol for symbol in fresh if order_partition(symbol, market.partitions) == partition)


@contextmanager
def nobody_writes(kept: KeptTopic) -> Iterator[None]:
    """As many members of the writers' group as there are partitions, each with one, by the order of their names."""
    properties = {**quiet_client(kept.market.bootstrap), "group.id": f"{kept.topic}-writers"}
    members = [Consumer({**properties, "client.id": f"00-{number}"}) for number in range(kept.market.partitions)]
    try:
        for member in members:
            member.subscribe([kept.topic])
        wait_until(
            lambda: [member.poll(0.01) for member in members] and all(len(one.assignment()) == 1 for one in members),
            "each has a partition",
        )
        yield
    finally:
        for member in members:
            member.close()


def told_of(gateway: Gateway, trader: Trader, symbols: list[str]) -> dict[str, Any]:
    """What a gateway knows of a trader's orders and fills, and of symbols."""
    asked = [
        "/api/order/history?limit=1000",
        *(f"/api/{what}?symbol={symbol}" for symbol in symbols for what in ("ticker", "candles", "trades", "book")),
    ]
    told = {path: gateway.get(path, trader.headers).json() for path in asked}
    fills = gateway.get("/api/fills?limit=1000", trader.headers).json()["fills"]
    orders = gateway.get("/api/order", trader.headers).json()["orders"]
    return {**told, "fills": fills, "open": sorted(orders, key=lambda order: order["order_id"])}


@pytest.mark.parametrize("consume", ["broadcast", "shared"])
def test_instance_that_knows_less_than_what_is_kept_learns_it_and_goes_on_writing(
    kept: KeptTopic, consume: str
) -> None:
    market, trader = kept.market, Trader()
    symbols = [next(symbols_on(market, partition)) for partition in range(market.partitions)]
    orders = {order_id_of(trader.user_id, f"{symbol}-{n}"): symbol for symbol in symbols for n in range(4)}
    for number, (order_id, symbol) in enumerate(orders.items()):
        name = f"{symbol}-{number % 4}"
        market.publish_orders(symbol, order_command(order_id, trader.user_id, symbol, client_order_id=name))
        if number % 4 == 0:
            market.publish(symbol, snapshot(symbol, timestamp=now_ms()))
        else:
            market.publish(symbol, order_event("accepted", order_id, symbol))
            market.publish(symbol, fill(symbol, buy_order_id=order_id, quantity="0.5", timestamp=now_ms()))
    assert ready_topic(market.bootstrap, {}, kept.topic, market.topic, market.partitions)
    ours = {"consume": consume, "group_id": f"group-of-{market.topic}"}
    with ExitStack() as stack:
        with nobody_writes(kept):
            less = stack.enter_context(kept.gateway({**ours, **ONLY_KEPT}))
            more = stack.enter_context(kept.gateway({"consume": "broadcast"}))
        wait_writers([less, more], market.partitions)
        kept.wait_written()
        learnt = list(more.health()["state"]["writer_of"])
        more.kill()
        # What is said until somebody else writes is not in what is kept.
        for number, (order_id, symbol) in enumerate(orders.items()):
            more_of_it = {"buy_order_id": order_id, "quantity": "0.25", "timestamp": now_ms()}
            market.publish(symbol, fill(symbol, **more_of_it))
            if number % 4 == 2:
                market.publish(symbol, order_event("filled", order_id, symbol))
        wait_writers([less], market.partitions)
        kept.wait_written()
        of_these = [symbol for number, symbol in enumerate(symbols) if number in learnt]
        # Of others it may have learnt while the group had not come to rest.
        assert less.log.count("it is read") >= len(learnt) == len(of_these) > 0
        with kept.gateway({"consume": "broadcast", "state_topic": ""}) as whole:
            expected, told = told_of(whole, trader, of_these), told_of(less, trader, of_these)
            for kind in ("fills", "open"):
                expected[kind] = [one for one in expected[kind] if one["symbol"] in of_these]
                told[kind] = [one for one in told[kind] if one["symbol"] in of_these]
            history = "/api/order/history?limit=1000"
            expected[history]["orders"] = [one for one in expected[history]["orders"] if one["symbol"] in of_these]
            assert told == expected
            assert expected["open"] and expected[history]["orders"] and expected["fills"]
