"""What is kept of orders and books while its writers and brokers are killed, frozen and replaced (docs/contract.md#kept-state).

One story on a real cluster of three, with orders placed all the while: each fault comes when so many answers were there. In the
end no gateway is left, and one that reads nothing but what is kept has to know all, while traders and streams noticed nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.core.tokens import SECRET
from tests.faults.order_load import SYMBOLS, Load
from tests.faults.order_truth import Silence, judge
from tests.faults.test_order_faults import ACK_TIMEOUT_SECONDS, BROKERS, Orders, look_up
from tests.integration.clients import WebSocket, exact
from tests.integration.events import fill
from tests.integration.kept import ONLY_KEPT, KeptTopic, wait_writers
from tests.integration.processes import Gateway, stopped
from tests.integration.trading import NAMESPACE, bearer
from tests.integration.waiting import wait_until
from tests.support.kafka import real_bus
from tools.kafka.cluster import KafkaCluster

ORDER_SETTINGS = {"ack_timeout_seconds": ACK_TIMEOUT_SECONDS, "id_secret": str(NAMESPACE)}
# Each writing costs the brokers a transaction a partition.
KAFKA = {"state_interval_seconds": 0.5}
RETRIES = 40
# So that what waits for sessions to time out costs little; there are 64 traders.
PAUSE = 1.0
FEW, MANY = 20, 50


@pytest.fixture
def orders(three_nodes: KafkaCluster) -> Iterator[Orders]:
    """Fresh topics, with three replicas each in sync."""
    with real_bus(three_nodes) as bus:
        try:
            yield Orders(bus)
        finally:
            three_nodes.restore()


@pytest.fixture
def kept(orders: Orders) -> Iterator[KeptTopic]:
    with KeptTopic.of(orders.market, orders.cluster) as kept:
        yield kept


class Tape:
    """Numbered trades of one symbol, and a client that has to be told each once."""

    def __init__(self, orders: Orders, gateway: Gateway) -> None:
        self._market = orders.market
        self._count = 0
        self._client = WebSocket(gateway.address, "/ws?stream=none")
        self._client.subscribe(f"events.{SYMBOLS[0]}")

    def go_on(self) -> None:
        numbers = range(self._count, self._count + 10)
        self._market.publish(SYMBOLS[0], *(fill(SYMBOLS[0], n=number) for number in numbers))
        self._count += 10

    def expect_all(self) -> None:
        with self._client as client:
            last = f'"n":{self._count - 1}}}'.encode()
            told = [exact(message) for message in client.receive_until(lambda message: last in message)]
            events = [one["notification"]["event"] for one in told if "event" in one.get("notification", {})]
            assert [event["n"] for event in events] == list(range(self._count))
            assert {one.get("status") for one in told if "event" not in one.get("notification", {})} <= {
                "stale",
                "live",
            }


def take_brokers_down(orders: Orders, tape: Tape, load: Load) -> None:
    """One is killed, and while others lead what it led another one ends; then all are back."""
    first = orders.busiest
    orders.cluster.kill(first)
    orders.wait_deposed(first, load)
    load.wait_more(FEW, 202)
    tape.go_on()
    orders.cluster.stop_broker((first + 1) % BROKERS)
    load.wait_more(FEW)
    orders.cluster.restore()
    load.wait_more(FEW, 202)


def freeze_a_writer(kept: KeptTopic, frozen: Gateway, other: Gateway, load: Load) -> None:
    """Until the other one has taken its place, and written there."""
    _, share = wait_writers([other, frozen], kept.market.partitions)
    with stopped(frozen):
        wait_writers([other], kept.market.partitions)
        kept.read()
        before = {number: len(kept.cursors[number]) for number in share}
        load.wait_more(FEW, 202)

        def is_written() -> bool:
            kept.read()
            return all(len(kept.cursors[number]) > count + 1 for number, count in before.items())

        wait_until(is_written, f"partitions {share} written by the other instance")
    wait_writers([other, frozen], kept.market.partitions)


def test_what_is_kept_survives_whatever_happens_to_its_writers_and_brokers(orders: Orders, kept: KeptTopic) -> None:
    with (
        kept.gateway(KAFKA, orders=ORDER_SETTINGS) as first,
        kept.gateway(KAFKA, orders=ORDER_SETTINGS) as second,
        kept.gateway(KAFKA, orders=ORDER_SETTINGS) as third,
    ):
        wait_writers([first, second, third], orders.market.partitions)
        tape = Tape(orders, second)
        ports = [first.port, second.port]
        with Load(
            ports, SECRET, ack_timeout_seconds=ACK_TIMEOUT_SECONDS, always_again=True, pause_seconds=PAUSE
        ) as load:
            load.wait_more(MANY, 202)
            tape.go_on()
            first.kill()
            load.wait_more(MANY, 202)
            tape.go_on()
            take_brokers_down(orders, tape, load)
            tape.go_on()
            freeze_a_writer(kept, third, second, load)
            tape.go_on()
            load.stop()
        verdict = judge(load, orders.bus.read_all(orders.bus.order_topic), Silence.ANY)
        print(f"\n{verdict}")
        assert verdict.lies == []
        assert verdict.accepted == verdict.orders
        tape.expect_all()
        second.kill()
        third.kill()
        for gateway in (second, third):
            assert "Traceback" not in gateway.log, gateway.log
    with kept.gateway({**KAFKA, **ONLY_KEPT}, orders=ORDER_SETTINGS) as fresh:
        assert fresh.health()["state"]["restored"] is True
        assert look_up(load, fresh.port) == []
        assert_lists_every_open_order(fresh, load)
        records = len(orders.market.orders())
        for order in load.orders[:: max(1, len(load.orders) // RETRIES)]:
            again = fresh.post("/api/order", order.body, bearer(load.tokens[order.user_id]))
            assert (again.status, again.json()["duplicate"]) == (202, True), again.body
        assert len(orders.market.orders()) == records
        kept.wait_written()
    kept.expect_equal()
    # Nobody wrote after a successor had: what is kept never goes back.
    for cursors in kept.cursors.values():
        assert all(earlier.is_before(later) for earlier, later in pairwise(cursors))


def assert_lists_every_open_order(gateway: Gateway, load: Load) -> None:
    accepted = Counter(order.user_id for order in load.orders if order.is_accepted)
    listed = {
        user_id: len(json.loads(gateway.get("/api/order", bearer(token)).body)["orders"])
        for user_id, token in load.tokens.items()
    }
    assert listed == accepted
