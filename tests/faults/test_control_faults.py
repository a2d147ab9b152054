"""What the control topic carries, while instances are killed, stand still and end, and while the topic itself is away: three
brokers, three instances (docs/contract.md#cancel-on-disconnect, #cancel-all-after, #blocks-and-halts, #control-topic).

Each step waits for what it is about, never for a time.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.faults.steady_orders import SteadyOrders, Tried
from tests.integration.clients import WebSocket
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.operating import ADMIN, operators_of
from tests.integration.processes import Gateway, stopped
from tests.integration.trading import Trader, limit, own_commands, settings
from tests.integration.waiting import wait_until
from tests.support.kafka import Bus, real_bus
from tools.admin import Failure
from tools.kafka.cluster import KafkaCluster
from tools.kafka.running import quiet_client

GRACE_SECONDS = 3
# Ten times as often as by itself a gateway learns what has become of its topics.
REFRESHED = {"topic.metadata.refresh.interval.ms": 1000}
SET = "private/set_cancel_on_disconnect"
PATH = "/api/order/cancel_all_after"


class Fleet:
    """Three instances, and whose orders were cancelled."""

    def __init__(self, bus: Bus, ended: ExitStack) -> None:
        assert bus.cluster is not None
        self.cluster = bus.cluster
        self.topic = f"control-{uuid.uuid4().hex[:12]}"
        self.symbol = fresh_symbol()
        self.market = Market(bus.bootstrap, bus.topic, bus.order_topic, embedded=False)
        self._ended = ended

    def start(self, count: int = 3, **more: Any) -> list[Gateway]:
        gateways = [Gateway.on(self.market, {**self._settings(), **more}, wait=False) for _ in range(count)]
        started = [self._ended.enter_context(gateway) for gateway in gateways]
        for gateway in started:
            gateway.wait_ready(60)
        return started

    def _settings(self) -> dict[str, Any]:
        how: dict[str, Any] = settings()
        kafka = {"control_topic": self.topic, "consumer": REFRESHED, "producer": REFRESHED}
        return {
            **how,
            "kafka": {**how["kafka"], **kafka},
            "orders": {**how["orders"], "disconnect_grace_seconds": GRACE_SECONDS, "ack_timeout_seconds": 2},
        }

    def connect(self, trader: Trader, gateway: Gateway) -> WebSocket:
        """A connection with cancel on disconnect."""
        client = self._ended.enter_context(trader.connect(gateway))
        assert client.result(SET, {"enabled": True}) == {"enabled": True}
        return client

    def try_connect(self, trader: Trader, gateway: Gateway) -> WebSocket | None:
        """The same; None where it is refused."""
        with ExitStack() as ended:
            client = ended.enter_context(trader.connect(gateway))
            if "error" in client.call(SET, {"enabled": True})[0]:
                return None
            self._ended.push(ended.pop_all())
            return client

    def place(self, client: WebSocket) -> str:
        """An open order."""
        order_id = client.result("private/place_order", limit(self.symbol))["order_id"]
        assert isinstance(order_id, str)
        return order_id

    def cancelled(self) -> set[str]:
        return {command["order_id"] for command in own_commands(self.market, self.symbol, "cancel_order")}

    def wait_cancelled(self, *order_ids: str) -> None:
        wait_until(lambda: set(order_ids) <= self.cancelled(), f"cancels of {order_ids}", 60)

    def wait_taken_over(self, gateway: Gateway, count: int) -> None:
        name = "gateway_cancel_on_disconnect_total"
        gateway.wait_until(lambda: gateway.metric(name, outcome="taken_over") >= count, "taken over", 60)

    def create_on(self, broker: int) -> None:
        """The control topic, on this broker alone."""
        admin = AdminClient(quiet_client(self.market.bootstrap))
        config = {"cleanup.policy": "compact", "min.insync.replicas": "1"}
        topic = NewTopic(self.topic, num_partitions=1, replica_assignment=[[broker + 1]], config=config)
        admin.create_topics([topic])[self.topic].result(30)


@pytest.fixture
def fleet(three_nodes: KafkaCluster) -> Iterator[Fleet]:
    """Fresh topics, with three replicas each in sync."""
    with real_bus(three_nodes) as bus, ExitStack() as ended:
        try:
            yield Fleet(bus, ended)
        finally:
            three_nodes.restore()


def test_orders_of_who_does_not_come_back_are_cancelled_whatever_became_of_the_instance(fleet: Fleet) -> None:
    one, two, three = fleet.start()
    alice, bob, carol, dave = (Trader() for _ in range(4))
    gone, kept = fleet.place(fleet.connect(alice, one)), fleet.place(fleet.connect(bob, one))

    one.send_signal(signal.SIGKILL)
    back = fleet.connect(bob, two)
    fleet.wait_cancelled(gone)
    fleet.wait_taken_over(two, 1)

    second = fleet.place(back)
    gone = fleet.place(fleet.connect(carol, two))
    with stopped(two):
        back = fleet.connect(bob, three)
        fleet.wait_cancelled(gone)
        fleet.wait_taken_over(three, 2)
    two.wait_log("was taken for gone by another instance")
    two.wait_until(lambda: not two.clients(), "its connections closed")
    assert {kept, second}.isdisjoint(fleet.cancelled())

    [again] = fleet.start(1)
    gone = fleet.place(fleet.connect(dave, three))
    three.send_signal(signal.SIGTERM)
    assert back.receive_close().code == 1001
    back = fleet.connect(bob, again)
    assert three.wait() == 0
    fleet.wait_cancelled(gone)
    fleet.wait_taken_over(again, 2)
    assert {kept, second}.isdisjoint(fleet.cancelled())

    back.socket.close()  # and now nobody comes back
    fleet.wait_cancelled(kept, second)


def test_last_instances_cancel_before_they_end(fleet: Fleet) -> None:
    one, two = fleet.start(2)
    order_ids = [fleet.place(fleet.connect(Trader(), gateway)) for gateway in (one, two)]
    for gateway in (one, two):
        gateway.send_signal(signal.SIGTERM)
    assert [gateway.wait() for gateway in (one, two)] == [0, 0]
    assert fleet.cancelled() == set(order_ids)


def test_timer_that_two_instances_fire_cancels_nothing_that_came_later(fleet: Fleet) -> None:
    one, two, three = fleet.start()
    alice = Trader()
    with alice.connect(three) as client:
        order_id = fleet.place(client)
        moment = alice.post(one, PATH, {"timeout_seconds": 1}).json()["trigger_time_ms"]
        # All at once: of a second, nothing else is to be waited for before.
        with stopped(one):
            with stopped(two, three):
                wait_until(lambda: time.time() * 1000 > moment + 1000, "its time has come for all")
            fleet.wait_cancelled(order_id)  # by one of those two, or by both
            for gateway in (two, three):
                gateway.wait_until(lambda gateway=gateway: not gateway.metric("gateway_armed_timers"), "it is fired")
            later = fleet.place(client)
        one.wait_until(lambda: not one.metric("gateway_armed_timers"), "it has heard of that")
        assert one.metric("gateway_timers_total", outcome="fired") == 0
        assert later not in fleet.cancelled()


def test_control_topic_that_is_away_costs_only_what_needs_it(fleet: Fleet) -> None:
    broker = 2
    fleet.create_on(broker)
    fleet.cluster.kill(broker)
    one, two, three = fleet.start()
    alice, bob = Trader(), Trader()
    with alice.connect(one) as client:
        fleet.place(client)
        assert client.call(SET, {"enabled": True})[0]["error"]["code"] == 10004
    assert alice.post(one, PATH, {"timeout_seconds": 5}).status == 503

    fleet.cluster.start_broker(broker)
    fleet.cluster.wait_ready()
    connected = wait_until(lambda: fleet.try_connect(alice, one), "the topic to be there", 60)
    other = wait_until(lambda: fleet.try_connect(bob, two), "the topic to be there for another", 60)
    left, stays = fleet.place(connected), fleet.place(other)

    fleet.cluster.kill(broker)
    connected.socket.close()
    three.wait_until(lambda: alice.post(three, PATH, {"timeout_seconds": 5}).status == 503, "its loss noticed", 60)
    fleet.cluster.start_broker(broker)
    fleet.cluster.wait_ready()
    fleet.wait_cancelled(left)
    assert stays not in fleet.cancelled()


def test_connections_are_held_on_a_control_topic_that_was_made_anew(fleet: Fleet) -> None:
    one, two, _ = fleet.start()
    order_id = fleet.place(fleet.connect(Trader(), one))
    two.wait_until(lambda: two.metric("gateway_held_connections") == 1, "it is known")
    fleet.cluster.delete_topic(fleet.topic)
    two.wait_until(lambda: not two.metric("gateway_held_connections"), "it is forgotten")
    two.wait_until(lambda: two.metric("gateway_held_connections") == 1, "it is known again")
    one.send_signal(signal.SIGKILL)
    fleet.wait_cancelled(order_id)


@dataclass(frozen=True)
class Halt:
    """When it was asked for, known everywhere, and to be taken back; seconds since the Unix epoch."""

    asked: float
    acknowledged: float
    heard: float
    ending: float


def until_done(gateway: Gateway, act: str, symbol: str) -> float:
    """Ask until it is done, as whoever is told that it is not, or may not be; when that was."""
    operators, refusals = operators_of(gateway), Counter[str]()

    def done() -> bool:
        try:
            operators.ask(act, {"symbol": symbol})
        except Failure as failure:
            refusals[str(failure)] += 1
            return False
        return True

    try:
        gateway.wait_until(done, act)
    finally:
        print(f"{act}: {sum(refusals.values())} times in vain, {dict(refusals)}")
    return time.time()


def wait_halts(gateways: list[Gateway], count: int) -> float:
    """Wait until each instance has heard of so many; when that was."""
    for gateway in gateways:
        gateway.wait_until(lambda gateway=gateway: gateway.metric("gateway_halts") == count, "it has heard")
    return time.time()


@contextmanager
def harmed(cluster: KafkaCluster, broker: int, how: str) -> Iterator[None]:
    """A broker that is killed or frozen, and serves again afterwards."""
    if how == "killed":
        cluster.kill(broker)
        yield
        cluster.start_broker(broker)
    else:
        cluster.freeze(broker)
        yield
        cluster.thaw(broker)
    cluster.wait_ready()


def halted_while_harmed(fleet: Fleet, gateways: list[Gateway], orders: SteadyOrders, broker: int, how: str) -> Halt:
    """A halt while one broker is away, whose resume comes when it is there again."""
    asked_at = gateways[broker]
    with harmed(fleet.cluster, broker, how):
        asked = time.time()
        acknowledged = until_done(asked_at, "halt", orders.symbol)
        heard = wait_halts(gateways, 1)
        orders.wait_at_each(lambda one: one.status == 403, f"orders refused while a broker is {how}")
        for gateway, order_id in zip(gateways, list(orders.accepted().values())[-3:], strict=True):
            gateway.wait_until(
                lambda gateway=gateway, order_id=order_id: (
                    orders.trader.cancel(gateway, order_id=order_id).status == 202
                ),
                "an order cancelled",
            )
            assert order_id in fleet.cancelled()
    orders.wait_at_each(lambda one: one.status == 403, "orders refused once it is back")
    ending = time.time()
    until_done(asked_at, "resume", orders.symbol)
    orders.wait_at_each(lambda one: one.status == 202, "orders taken again")
    return Halt(asked, acknowledged, heard, ending)


def check_honest(orders: SteadyOrders, halts: list[Halt], commands: list[dict[str, Any]]) -> None:
    """Each answer is held against the topic, and against when the symbol was halted."""

    def is_halted(one: Tried) -> bool:
        return any(halt.heard < one.began and one.ended < halt.ending for halt in halts)

    written = Counter(command["client_order_id"] for command in commands)
    for one in orders.tried:
        if is_halted(one):
            assert one.status == 403, one
        match one.status:
            case 202:
                assert written[one.client_order_id] == 1, one
            case 403:
                assert (one.body["symbol"], one.body["state"]) == (orders.symbol, "halted"), one
                assert any(halt.asked < one.ended for halt in halts), one
                assert not written[one.client_order_id], one
            case 503:
                assert not written[one.client_order_id], one
            case _:
                assert one.status == 504, one  # either may be
    for command in commands:
        made = command["timestamp"] / 1000
        assert not any(halt.heard < made < halt.ending for halt in halts), command


def test_halt_holds_at_every_instance_while_brokers_are_killed_and_frozen(fleet: Fleet) -> None:
    gateways = fleet.start(**ADMIN)
    with SteadyOrders(gateways, fleet.symbol) as orders:
        orders.wait_at_each(lambda one: one.status == 202, "orders taken")
        faults = enumerate(("frozen", "killed"))
        halts = [halted_while_harmed(fleet, gateways, orders, broker, how) for broker, how in faults]
    took = [halt.heard - halt.acknowledged for halt in halts]
    print(
        f"{len(orders.tried)} orders; heard everywhere {', '.join(f'{1000 * one:.0f}' for one in took)} ms after that"
    )
    # Not the slowest: the machine may be busy with other things.
    assert min(took) < 1
    commands = own_commands(fleet.market, fleet.symbol)
    check_honest(orders, halts, commands)
    written = {command["order_id"] for command in commands}
    for number, gateway in enumerate(gateways):
        known = {one["order_id"] for one in orders.trader.orders(gateway)}
        unknown = {one.body["order_id"] for one in orders.tried if one.instance == number and one.status == 504}
        assert written <= known <= written | unknown
