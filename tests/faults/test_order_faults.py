"""Orders while brokers and gateways are killed, frozen and ended: on a real cluster of three, with tokens, by the thousand.

Each fault comes when so many answers were there, never after a time. In the end every answer is held against the order
topic (tests/faults/order_truth.py), and a second instance has to know every order that was accepted.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.core.tokens import SECRET
from tests.faults.order_load import SLACK_SECONDS, Load, look_up
from tests.faults.order_truth import Silence, Verdict, judge
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.waiting import wait_until
from tests.support.examples import load
from tests.support.kafka import Bus, real_bus
from tools.kafka.cluster import KafkaCluster
from tools.kafka.running import quiet_client

BROKERS = 3
ACK_TIMEOUT_SECONDS = 2.0
# Orders of each fault, at least. What matters is that there are many at the moment of a fault: more are more such moments.
ORDERS = int(os.environ.get("FAULT_ORDERS", load(1500)))
FEW, MANY = 200, 400
CALM_SECONDS = 0.3
PLENTY = 1_000_000
SETTINGS: dict[str, Any] = {
    "kafka": {"consume": "broadcast"},
    "orders": {"ack_timeout_seconds": ACK_TIMEOUT_SECONDS},
    "limits": {
        "orders_per_second": PLENTY,
        "orders_burst": PLENTY,
        "requests_per_second": PLENTY,
        "requests_burst": PLENTY,
    },
}
ENVIRON = {"JWT_SECRET": SECRET}


@pytest.fixture
def bus(three_nodes: KafkaCluster) -> Iterator[Bus]:
    """Fresh topics, with three replicas each in sync."""
    with real_bus(three_nodes) as bus:
        try:
            yield bus
        finally:
            three_nodes.restore()


class Orders:
    """One test's instances and load, and in the end its judge."""

    def __init__(self, bus: Bus) -> None:
        assert bus.cluster is not None
        self.cluster = bus.cluster
        self.bus = bus
        self.market = Market(bus.bootstrap, bus.topic, bus.order_topic, embedded=False)

    def leaders(self, but: int | None = None) -> Counter[int]:
        """Of how many partitions of the order topic each broker is the leader, by its index; -2: of those that lack one.

        Any broker is asked but the one that is frozen or dead; no answer in a moment is no leaders.
        """
        asked = (but + 1) % BROKERS if but is not None else 0
        admin = AdminClient(quiet_client(f"127.0.0.1:{self.cluster.port(asked)}"))
        try:
            found = admin.list_topics(self.bus.order_topic, timeout=2).topics[self.bus.order_topic].partitions
        except KafkaException:
            return Counter()
        return Counter(one.leader - 1 for one in found.values())

    def wait_deposed(self, victim: int, load: Load) -> None:
        """Wait until other brokers lead all that this one led."""
        with calm(load):
            wait_until(lambda: (leaders := self.leaders(victim)) and not {victim, -2} & leaders.keys(), "other leaders")

    def start_brokers(self, load: Load, *victims: int) -> None:
        """Start those that are down again, and wait until they serve."""
        with calm(load):
            for victim in victims:
                self.cluster.start_broker(victim)
            self.cluster.wait_ready()

    @property
    def busiest(self) -> int:
        """The broker that leads the most partitions."""
        leaders = wait_until(self.leaders, "leaders")
        return int(leaders.most_common(1)[0][0])

    def judge(self, load: Load, silence: Silence = Silence.NONE) -> Verdict:
        """The verdict, after what holds for every fault."""
        verdict = judge(load, self.bus.read_all(self.bus.order_topic), silence)
        print(f"\n{verdict}")
        assert verdict.lies == []
        assert verdict.open == 0
        assert verdict.orders >= ORDERS
        assert verdict.longest_wait_seconds < ACK_TIMEOUT_SECONDS + SLACK_SECONDS
        return verdict


@contextmanager
def calm(load: Load) -> Iterator[None]:
    """Fewer orders while a cluster takes its seconds: what matters is that there are many at the moment of a fault."""
    before, load.pause_seconds = load.pause_seconds, max(load.pause_seconds, CALM_SECONDS)
    try:
        yield
    finally:
        load.pause_seconds = before


def wait_unknown(load: Load, count: int) -> None:
    """Wait until so many more orders have had no word within their time."""
    with calm(load):
        load.wait_more(count, 504)


@pytest.fixture
def orders(bus: Bus) -> Orders:
    return Orders(bus)


@contextmanager
def gateway_on(orders: Orders, **more: object) -> Iterator[Gateway]:
    with Gateway.on(orders.market, {**SETTINGS, **more}, ENVIRON) as gateway:
        yield gateway


def load_on(*gateways: Gateway, always_again: bool = False) -> Load:
    ports = [gateway.port for gateway in gateways]
    return Load(ports, SECRET, ack_timeout_seconds=ACK_TIMEOUT_SECONDS, always_again=always_again)


def finish(load: Load) -> None:
    """So many orders, and an end."""
    load.wait(lambda: len(load.orders) >= ORDERS, f"{ORDERS} orders")
    load.stop()


def told_the_truth(orders: Orders, faults: Callable[[Load], None]) -> Verdict:
    """The verdict on one instance's orders while these faults came over it; a second one has to know what was accepted."""
    with gateway_on(orders) as gateway, gateway_on(orders) as second:
        with load_on(gateway) as load:
            load.wait_more(MANY, 202)
            faults(load)
            finish(load)
        verdict = orders.judge(load)
        assert look_up(load, second.port) == []
    return verdict


def test_orders_are_told_the_truth_when_a_broker_freezes_past_the_deadline_and_thaws(orders: Orders) -> None:
    cluster = orders.cluster

    def freeze_past_the_deadline(load: Load) -> None:
        # First so short that it stays the leader, then so long that it is deposed.
        victim = orders.busiest
        cluster.freeze(victim)
        wait_unknown(load, 20)
        cluster.thaw(victim)
        load.wait_more(FEW, 202)
        victim = orders.busiest
        cluster.freeze(victim)
        wait_unknown(load, 20)
        orders.wait_deposed(victim, load)
        load.wait_more(FEW, 202)
        cluster.thaw(victim)
        cluster.wait_ready()
        load.wait_more(FEW, 202)
        # And all at once: after a while it is known that there is no bus, and orders are certainly not written.
        for index in range(BROKERS):
            cluster.freeze(index)
        load.wait_more(FEW // 3, 503)
        cluster.restore()

    verdict = told_the_truth(orders, freeze_past_the_deadline)
    assert verdict.answers[504] >= 40
    assert verdict.given_up > 0


def test_orders_are_told_the_truth_when_the_leader_is_killed_and_another_broker_ends_and_both_come_back(
    orders: Orders,
) -> None:
    cluster = orders.cluster

    def take_two_down(load: Load) -> None:
        first = orders.busiest
        cluster.kill(first)
        wait_unknown(load, 1)
        orders.wait_deposed(first, load)
        load.wait_more(FEW, 202)
        # In order, so that it is out of the replicas in sync: they are fewer than Kafka needs for a record.
        next_one = (first + 1) % BROKERS
        cluster.stop_broker(next_one)
        load.wait_more(FEW // 2)
        orders.start_brokers(load, first, next_one)
        load.wait_more(FEW, 202)

    verdict = told_the_truth(orders, take_two_down)
    assert verdict.answers[504] > 0


def test_every_order_is_answered_when_the_gateway_is_told_to_end(orders: Orders) -> None:
    with gateway_on(orders, drain_seconds=1) as gateway, gateway_on(orders) as second:
        with load_on(gateway, second) as load:
            load.wait_more(MANY, 202)
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(1 + ACK_TIMEOUT_SECONDS + 5 + SLACK_SECONDS) == 0
            load.wait_more(FEW, 202)
            finish(load)
        orders.judge(load, Silence.UNREAD)
        assert "Traceback" not in gateway.log
        with gateway_on(orders) as third:
            assert look_up(load, third.port) == []


def test_open_orders_of_a_killed_gateway_are_placed_once_by_the_next_one(orders: Orders) -> None:
    cluster = orders.cluster
    with gateway_on(orders) as gateway, gateway_on(orders) as second, gateway_on(orders) as third:
        with load_on(gateway, second, third, always_again=True) as load:
            load.wait_more(MANY, 202)
            gateway.kill()
            load.wait_more(MANY, 202)
            # And one that has told some that their orders' fate is unknown.
            victim = orders.busiest
            cluster.freeze(victim)
            wait_unknown(load, 20)
            second.kill()
            cluster.thaw(victim)
            load.wait_more(FEW, 202)
            finish(load)
        verdict = orders.judge(load, Silence.ANY)
        assert look_up(load, third.port) == []
    assert verdict.accepted == verdict.orders
