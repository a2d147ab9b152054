"""A topic that is made again, as every instance knows its orders on: those of the embedded cluster cannot be deleted."""

from __future__ import annotations

import uuid

import pytest

from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import (
    Trader,
    limit,
    order_command,
    order_event,
    settings,
)
from tests.support.kafka import Bus

REAL = pytest.mark.parametrize("bus", ["real"], indirect=True, scope="module")


@REAL
def test_order_topic_made_again_leaves_the_orders_known_and_is_read_from_its_beginning(
    bus: Bus, trader: Trader
) -> None:
    assert bus.cluster is not None
    market, symbol = Market.create(bus), fresh_symbol()
    with Gateway.on(market, settings()) as gateway, trader.connect(gateway) as client:
        old = [trader.place(gateway, limit(symbol))["order_id"] for _ in range(20)]
        bus.cluster.delete_topic(market.order_topic)
        bus.cluster.create_topic(market.order_topic, 4)
        again = market.reopened()
        # Fewer records than the old topic had: who goes on from the old offset never sees them.
        new = str(uuid.uuid4())
        gateway.wait_log(f"topic {market.order_topic} was deleted and made again")
        again.publish_orders(symbol, order_command(new, trader.user_id, symbol))
        gateway.wait_until(lambda: trader.order(gateway, new), "the new order known")
        assert {order["order_id"] for order in trader.orders(gateway)} == {*old, new}
        market.publish(symbol, *(events := [order_event("accepted", one, symbol) for one in (old[0], new)]))
        assert [client.receive() for _ in events] == events
        # Orders go out again, once the producer has found the new topic.
        gateway.wait_until(lambda: trader.post(gateway, "/api/order", limit(symbol)).status == 202, "orders taken")
        # What nobody owns is given up again, so the marks of the new topic are asked for.
        market.publish(symbol, order_event("accepted", str(uuid.uuid4()), symbol))
        gateway.wait_until(lambda: gateway.metric("gateway_ownerless_events_total", why="unknown") >= 1, "given up")


@REAL
@pytest.mark.parametrize("consume", ["broadcast", "shared"])
def test_market_topic_made_again_goes_on_telling_owners_each_event_once(bus: Bus, trader: Trader, consume: str) -> None:
    assert bus.cluster is not None
    market, symbol = Market.create(bus), fresh_symbol()
    given = settings(kafka={"consume": consume, "group_id": f"again-{uuid.uuid4().hex[:8]}"})
    with Gateway.on(market, given) as gateway, trader.connect(gateway) as client:
        ids = [trader.place(gateway, limit(symbol))["order_id"] for _ in range(10)]
        market.publish(symbol, *(events := [order_event("accepted", order_id, symbol) for order_id in ids]))
        assert [client.receive() for _ in events] == events
        bus.cluster.delete_topic(market.topic)
        bus.cluster.create_topic(market.topic, 4)
        again = market.reopened()
        gateway.wait_log(f"topic {market.topic} was deleted and made again")
        # Fewer than there were: who goes on from the old offsets never hears of them.
        again.publish(symbol, *(events := [order_event("cancelled", order_id, symbol) for order_id in ids[:3]]))
        for order_id in ids[:3]:
            trader.wait_for(gateway, order_id, "cancelled")
        assert [order["order_id"] for order in trader.orders(gateway)] == ids[3:]
        again.publish(symbol, last := order_event("rejected", ids[3], symbol))
        told = client.receive_until(lambda message: message == last)
        assert [message for message in told if b"stream_status" not in message] == [*events, last]
        client.expect_silence()
