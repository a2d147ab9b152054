"""`orders.max_terminal`: of the orders that closed the oldest are let go, and answered for as unknown ones."""

from __future__ import annotations

import time
import uuid

from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import Trader, check_problem, limit, order_event, settings
from tests.support.kafka import Bus


def test_oldest_closed_orders_are_let_go_beyond_so_many_and_unknown_then(bus: Bus) -> None:
    market, symbol, trader = Market.create(bus), fresh_symbol(), Trader()
    with Gateway.on(market, settings(orders={"max_terminal": 2})) as gateway:
        ids = [trader.place(gateway, limit(symbol, client_order_id=name))["order_id"] for name in "abcd"]
        yesterday_ms = int(time.time() * 1000) - 25 * 3_600_000
        for order_id in ids[:3]:
            # The last one by a record that Kafka takes for a day old: what counts is when it was heard.
            kafka_ms = yesterday_ms if order_id == ids[2] else 0
            market.publish(symbol, order_event("filled", order_id, symbol), timestamp_ms=kafka_ms)
            trader.wait_for(gateway, order_id, "filled")
        gateway.wait_until(lambda: trader.order(gateway, ids[0]) is None, "the oldest forgotten")
        assert [order["order_id"] for order in trader.orders(gateway)] == ids[3:]
        assert trader.orders(gateway, "?client_order_id=a") == []
        gone, unknown = (trader.look_up(gateway, order_id) for order_id in (ids[0], str(uuid.uuid4())))
        assert check_problem(gone, 404)["error"] == check_problem(unknown, 404)["error"]
        check_problem(trader.cancel(gateway, order_id=ids[0]), 404)
        check_problem(trader.cancel(gateway, client_order_id="a"), 404)
        for kept in ids[1:3]:
            check_problem(trader.cancel(gateway, order_id=kept), 409)
        assert gateway.metric("gateway_known_orders") == 3
