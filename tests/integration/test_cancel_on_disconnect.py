"""Cancel on disconnect where there is a control topic: on one process, whose broker is its own (docs/contract.md#cancel-on-disconnect).

What several instances do for each other is in tests/faults/test_control_faults.py.
"""

from __future__ import annotations

from tests.integration.processes import Gateway
from tests.integration.trading import Trader, limit, settings


def test_orders_outlive_the_connection_for_the_grace_and_go_with_the_one_that_took_them_over() -> None:
    how = settings(kafka={"brokers": "embedded", "consume": "broadcast"})
    how["orders"]["disconnect_grace_seconds"] = 2
    alice = Trader()
    with Gateway(how) as gateway:
        gateway.wait_ready()
        with alice.connect(gateway) as first:
            first.result("private/set_cancel_on_disconnect", {"enabled": True})
            order_id = first.result("private/place_order", limit("KCN/EUR"))["order_id"]
        with alice.connect(gateway) as second:
            second.result("private/set_cancel_on_disconnect", {"enabled": True})
            name = "gateway_cancel_on_disconnect_total"
            gateway.wait_until(lambda: gateway.metric(name, outcome="taken_over") == 1, "taken over")
            assert gateway.metric(name, outcome="cancelled") == 0
        gateway.wait_until(lambda: gateway.metric(name, outcome="cancelled") >= 1, "cancelled with it")
        gateway.wait_log("1 orders cancelled")
        assert [order["order_id"] for order in alice.orders(gateway)] == [order_id]  # there is no engine that ends it
        gateway.wait_until(lambda: not gateway.metric("gateway_held_connections"), "nothing is left")


def test_connection_goes_on_when_it_is_switched_off() -> None:
    """Whether what is said of it is read before it is acknowledged, or after."""
    how = settings(kafka={"brokers": "embedded", "consume": "broadcast"})
    alice = Trader()
    with Gateway(how) as gateway:
        gateway.wait_ready()
        with alice.connect(gateway) as client:
            for _ in range(10):
                client.result("private/set_cancel_on_disconnect", {"enabled": True})
                gateway.wait_until(lambda: gateway.metric("gateway_held_connections") == 1, "it is held")
                client.result("private/set_cancel_on_disconnect", {"enabled": False})
                gateway.wait_until(lambda: gateway.metric("gateway_held_connections") == 0, "it is held no more")
            assert client.result("public/ping") is not None
        assert "taken for gone" not in gateway.log
