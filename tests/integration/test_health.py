"""`/health`, `/ready`, `/metrics`, and instances beside each other (docs/contract.md#health, #scaling-out)."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.integration.clients import Closed, WebSocket, without_proxy
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.waiting import wait_until
from tests.support.kafka import Bus
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def bus(each_bus: Bus) -> Bus:
    """What is tested here is what a bus could get wrong."""
    return each_bus


OPTIONAL = {"auth": {"mode": "optional"}}


def shared(market: Market, session_seconds: float = 6) -> dict[str, Any]:
    """Settings of a member of a group, whose partitions wait for a session's length when it dies."""
    # An embedded cluster's groups take almost as long to form, each time.
    session_ms = 2500 if market.embedded else int(session_seconds * 1000)
    consumer = {"session.timeout.ms": session_ms, "heartbeat.interval.ms": 300}
    return {**OPTIONAL, "kafka": {"consume": "shared", "consumer": consumer}}


@contextlib.contextmanager
def forwarder(port: int, bootstrap: str) -> Iterator[None]:
    """Kafka's bootstrap address that comes into being now: 127.0.0.1:`port`, copied to and from the bus."""
    sockets: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", port))

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
                sockets.append(near)
                far = socket.create_connection(without_proxy(bootstrap.split(",")[0]))
            except OSError:
                return
            sockets.append(far)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=copy, args=pair, daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for one in sockets:
            one.close()


def test_gateway_without_kafka_is_degraded_and_becomes_ready_when_it_appears(bus: Bus) -> None:
    market = Market.create(bus)
    symbol = fresh_symbol()
    market.publish(symbol, snapshot(symbol))
    port = free_port()
    with Gateway.on(market, OPTIONAL, brokers=f"127.0.0.1:{port}", wait=False) as gateway:
        gateway.wait_log("bus is not reachable")
        health = gateway.get("/health")
        ready = gateway.get("/ready")
        order = gateway.post("/api/order", {"symbol": symbol, "side": "bid", "order_type": "market", "quantity": 1})
        with WebSocket(gateway.address) as early:
            early.expect_silence()
            assert (health.status, ready.status, order.status) == (200, 503, 503)
            told = health.json()
            assert (told["status"], told["kafka"]["connected"], told["kafka"]["partitions"]) == ("degraded", False, 0)
            assert told["known_since"] is None
            assert set(ready.json()) == set(told)
            assert order.headers["Content-Type"] == "application/problem+json"
            assert gateway.metric("gateway_ready") == 0
            with forwarder(port, market.bootstrap):
                gateway.wait_ready()
                assert json.loads(early.receive()) == json.loads(snapshot(symbol))
                market.publish(symbol, record := fill(symbol))
                assert early.receive() == record
                first_order = gateway.post(
                    "/api/order", {"symbol": symbol, "side": "bid", "order_type": "market", "quantity": 1}
                )
        assert first_order.status == 202
        assert len(market.commands_of(symbol)) == 1
        gateway.wait_until(lambda: gateway.metric("gateway_ready") == 1, "ready, as the metric has it")
        # Told when it changes, and not each time it is asked.
        gateway.wait_log("bus is reachable")
        told = re.findall("bus is (?:not )?reachable", gateway.log)
        assert all(one != after for one, after in pairwise(told)), told


def test_health_has_the_members_of_the_contract(bus: Bus) -> None:
    market = Market.create(bus)
    kafka = {"group_id": "instance-{hostname}-{pid}", "warmup_seconds": 600, "consume": "broadcast"}
    settings = {**OPTIONAL, "kafka": kafka}
    begun = time.time()
    with Gateway.on(market, settings) as gateway, WebSocket(gateway.address), WebSocket(gateway.address):
        told = gateway.wait_until(
            lambda: (told := gateway.health())["clients"] == 2 and told["status"] == "ok" and told,
            "two clients counted, and all well",
        )
        assert set(gateway.wait_status("/ready", 200).json()) == set(told)
        uptime = told.pop("uptime_seconds")
        assert 0 < float(uptime) < 600
        assert told.pop("version")
        known_since = float(told.pop("known_since"))
        # Warmed up from the whole minute before that.
        assert begun - 660 < known_since < time.time() - 600 + 1
        group = told["kafka"].pop("group")
        assert group == f"instance-{socket.gethostname()}-{gateway.process.pid}"
        assert told == {
            "status": "ok",
            "clients": 2,
            "state": {"restored": False, "age_seconds": None, "writer_of": []},
            "kafka": {
                "connected": True,
                "consume": "broadcast",
                "partitions": market.partitions,
                "partial": False,
                "lag": 0,
            },
        }
        assert gateway.metric("gateway_clients") == 2
        assert gateway.get("/metrics").headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert gateway.get("/health").headers["Cache-Control"] == "no-store"


def test_lag_is_told_while_a_gateway_catches_up(bus: Bus) -> None:
    market = Market.create(bus)
    symbol = fresh_symbol()
    count = 15_000
    market.publish(symbol, *(fill(symbol, n=number) for number in range(count)))

    def is_seen_behind() -> bool:
        lags = []
        with Gateway.on(market, OPTIONAL, wait=False) as gateway:

            def caught_up() -> bool:
                ready = gateway.get("/ready")
                lags.append((int(ready.json()["kafka"]["lag"]), ready.status))
                return ready.status == 200

            wait_until(caught_up, "ready")
            assert all(status == 503 for lag, status in lags if lag > count / 2)
            gateway.wait_until(lambda: int(gateway.health()["kafka"]["lag"]) == 0, "no lag")
        return max(lag for lag, _ in lags) > count / 2

    # It takes less than a second: who is held up meanwhile sees nothing of it.
    wait_until(is_seen_behind, "a gateway seen while it catches up")


def symbols_per_partition(market: Market) -> dict[int, str]:
    """For each partition a symbol whose records are on it."""
    found: dict[int, str] = {}
    while len(found) < market.partitions:
        symbol = fresh_symbol()
        [(partition, _)] = market.publish(symbol, fill(symbol))
        found.setdefault(partition, symbol)
    return found


def test_two_instances_of_a_group_share_the_symbols_and_one_takes_over_all(bus: Bus) -> None:
    market = Market.create(bus)
    settings = shared(market)
    symbols = symbols_per_partition(market)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Gateway.on(market, settings))
        first.wait_until(lambda: first.health()["kafka"]["partial"] is False, "it reads all")
        second = stack.enter_context(Gateway.on(market, settings, wait=False))

        def shares() -> list[int]:
            return [int(one.health()["kafka"]["partitions"]) for one in (first, second)]

        wait_until(lambda: sum(shares()) == market.partitions and 0 not in shares(), "the partitions shared")
        for one in (first, second):
            one.wait_ready()
            one.wait_until(lambda one=one: one.health()["kafka"]["partial"] is True, "it reads a part")
            one.wait_log(f"reading \\d of {market.partitions} partitions of")
        clients = [stack.enter_context(WebSocket(one.address)) for one in (first, second)]
        records = {partition: fill(symbol, n="shared") for partition, symbol in symbols.items()}
        market.publish_to(*records.items())
        seen = [
            {client.receive_until(lambda message: b'"shared"' in message)[-1] for _ in range(share)}
            for client, share in zip(clients, shares(), strict=True)
        ]
        assert seen[0] | seen[1] == set(records.values())
        assert not seen[0] & seen[1]
        second.kill()
        late = {partition: fill(symbol, n="late") for partition, symbol in symbols.items()}
        market.publish_to(*late.items())
        first.wait_until(lambda: first.health()["kafka"]["partitions"] == market.partitions, "it took over", 60)
        first.wait_ready()
        first.wait_until(lambda: first.health()["kafka"]["partial"] is False, "it reads all again")
        with WebSocket(first.address) as client:
            again = {partition: fill(symbol, n="again") for partition, symbol in symbols.items()}
            market.publish_to(*again.items())
            got = {client.receive_until(lambda message: b'"again"' in message)[-1] for _ in again}
        assert got == set(again.values())


# The embedded cluster rebalances at a session's end, whatever happened.
@pytest.mark.parametrize("each_bus", ["real"], indirect=True, scope="module")
def test_instance_that_leaves_in_order_hands_over_at_once(bus: Bus) -> None:
    market = Market.create(bus)
    settings = shared(market, session_seconds=120)
    with Gateway.on(market, settings) as first, Gateway.on(market, settings, wait=False) as second:
        wait_until(lambda: int(first.health()["kafka"]["partitions"]) < market.partitions, "the partitions shared")
        assert second.terminate() == 0
        first.wait_until(lambda: first.health()["kafka"]["partitions"] == market.partitions, "it took over")
        first.wait_ready()


def test_broadcast_instances_of_one_group_each_see_everything(bus: Bus) -> None:
    market = Market.create(bus)
    settings = {**OPTIONAL, "kafka": {"consume": "broadcast"}}
    symbols = symbols_per_partition(market)
    with Gateway.on(market, settings) as first, Gateway.on(market, settings) as second:
        for one in (first, second):
            told = one.health()["kafka"]
            assert (told["partitions"], told["partial"], told["consume"]) == (market.partitions, False, "broadcast")
        with WebSocket(first.address) as near, WebSocket(second.address) as far:
            records = {partition: fill(symbol, n="all") for partition, symbol in symbols.items()}
            market.publish_to(*records.items())
            for client in (near, far):
                got = {client.receive_until(lambda message: b'"all"' in message)[-1] for _ in records}
                assert got == set(records.values())


def test_peer_that_does_not_answer_pings_is_dropped_and_one_that_does_is_kept(bus: Bus) -> None:
    market = Market.create(bus)
    settings = {**OPTIONAL, "kafka": {"consume": "broadcast"}, "websocket": {"ping_interval_seconds": 1}}
    with Gateway.on(market, settings) as gateway, WebSocket(gateway.address, answer_pings=False) as dead:
        dropped = threading.Thread(target=dead.receive_close)
        dropped.start()

        def is_kept() -> bool:
            # Closed: we were held up, and it is us who did not answer in time.
            with WebSocket(gateway.address, "/ws?stream=none") as alive, contextlib.suppress(Closed, OSError):

                def is_alone() -> bool:
                    assert alive.result("public/ping") == "pong"
                    return alive.pings >= 3 and not dropped.is_alive()

                wait_until(is_alone, "the silent peer dropped, and this one pinged three times")
                return gateway.clients() == 1
            return False

        wait_until(is_kept, "one that answers kept")
        assert dead.pings >= 1
