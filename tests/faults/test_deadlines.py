"""Late is no, with a broker that stands still: what it held the engine refuses, what is late is not produced
(docs/contract.md#deadlines).
"""

from __future__ import annotations

import time

from tests.faults.test_broker_frozen import ACK_TIMEOUT_SECONDS, frozen, is_connected
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on
from tests.integration.trading import NAMESPACE, Trader, check_problem, limit, settings
from tools.kafka.cluster import KafkaCluster

SETTINGS = settings(orders={"id_secret": str(NAMESPACE), "amend": True, "ack_timeout_seconds": ACK_TIMEOUT_SECONDS})


def soon() -> int:
    """As near as a deadline may be, and a little for the way."""
    return int(time.time() * 1000) + 1_000


def test_order_that_the_bus_held_past_its_deadline_is_refused_by_the_engine(
    cluster: KafkaCluster, market: Market
) -> None:
    symbol, trader = fresh_symbol(), Trader()
    with exchange_on(market), Gateway.on(market, SETTINGS) as gateway:
        before = trader.place(gateway, limit(symbol))["order_id"]
        trader.wait_for(gateway, before, "open")
        held = limit(symbol, client_order_id="held", deadline_ms=soon())
        with frozen(cluster):
            unknown = check_problem(trader.post(gateway, "/api/order", held), 504)
            gateway.wait_until(lambda: not is_connected(gateway), "the bus known to be unreachable")
            # By now it is late, and certainly not produced, whatever the bus does.
            late = limit(symbol, client_order_id="late", deadline_ms=held["deadline_ms"])
            refused = check_problem(trader.post(gateway, "/api/order", late), 422)
            assert refused["errors"] == [{"field": "deadline", "message": "passed"}]
            amend = {"order_id": before, "quantity": "3", "deadline_ms": held["deadline_ms"]}
            assert check_problem(trader.post(gateway, "/api/order/amend", amend), 422)["error"] == "deadline: passed"
        gateway.wait_ready()
        later = gateway.wait_until(
            lambda: (lambda answer: answer.json()["order_id"] if answer.status == 202 else None)(
                trader.post(gateway, "/api/order", limit(symbol))
            ),
            "an order is accepted",
        )
        trader.wait_for(gateway, later, "open")
        written = [command["client_order_id"] for command in market.commands_of(symbol)]
        assert "late" not in written
        assert {command["type"] for command in market.commands_of(symbol)} == {"place_order"}
        again = trader.post(gateway, "/api/order", held)
        if "held" in written:
            # It came late to the engine, and its repeat, which comes later still, is told so.
            assert again.json()["duplicate"] is True
            order = trader.wait_for(gateway, unknown["order_id"], "rejected")
            assert order["reason"] == "deadline_ms: has passed"
        else:
            check_problem(again, 504)
