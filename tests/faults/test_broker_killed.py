"""A broker that dies (SIGKILL) and comes back, or comes late: nobody restarts the gateway for it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import Any

from confluent_kafka import Producer

from tests.integration.clients import WebSocket
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import Trader, settings
from tools.kafka.cluster import KafkaCluster
from tools.kafka.running import quiet_client

SETTINGS = {
    "auth": {"mode": "optional"},
    "limits": {"orders_per_second": 0},
}


def test_client_misses_nothing_and_sees_nothing_twice_when_the_broker_dies_and_comes_back(
    cluster: KafkaCluster, market: Market
) -> None:
    symbol = fresh_symbol()
    placed: list[tuple[int, int]] = []

    def publish() -> None:
        for _ in range(30):
            first = len(placed)
            placed.extend(market.publish(symbol, *(fill(symbol, n=first + step) for step in range(20))))

    with (
        Gateway.on(market, SETTINGS) as gateway,
        WebSocket(gateway.address) as stream,
        WebSocket(gateway.address, "/ws?stream=none") as client,
    ):
        client.subscribe(f"events.{symbol}")
        notifications = []
        for _ in range(2):
            publisher = threading.Thread(target=publish)
            publisher.start()
            notifications += [client.news() for _ in range(200)]
            cluster.kill(0)
            gateway.wait_until(lambda: gateway.get("/ready").status == 503, "the loss noticed")
            assert gateway.health()["kafka"]["connected"] is False
            cluster.start_broker(0)
            gateway.wait_ready(60)
            publisher.join()
            notifications += [client.news() for _ in range(400)]
        seen = [message["notification"]["event"]["n"] for message in notifications]
        _, behind = client.call("public/ping")
        assert not any(b'"channel_name"' in message for message in behind)
        assert seen == list(range(1200))
        assert [message["seq"] for message in notifications] == [offset for _, offset in placed]
        assert [stream.news()["n"] for _ in placed] == seen
        assert sum("epoch" in message for message in notifications) == 1


def test_orders_find_the_broker_again_and_the_first_one_is_accepted(cluster: KafkaCluster, market: Market) -> None:
    symbol = fresh_symbol()
    order = {"symbol": symbol, "side": "bid", "order_type": "limit", "price": "1", "quantity": "1"}
    with Gateway.on(market, SETTINGS) as gateway:
        accepted = [gateway.post("/api/order", order).json()["order_id"] for _ in range(5)]
        cluster.kill(0)
        gateway.wait_until(lambda: gateway.get("/ready").status == 503, "the loss noticed")
        refused = [gateway.post("/api/order", order) for _ in range(5)]
        cluster.start_broker(0)
        cluster.wait_ready()
        gateway.wait_ready(60)
        again = [gateway.post("/api/order", order) for _ in range(5)]
        accepted += [answer.json()["order_id"] for answer in again]
    assert [answer.status for answer in refused] == [503] * 5
    assert [answer.status for answer in again] == [202] * 5
    # Nothing else: none of the refused ones, under whatever id.
    assert Counter(command["order_id"] for command in market.commands_of(symbol)) == Counter(accepted)


def test_gateway_starts_without_a_broker_and_is_ready_when_it_comes(cluster: KafkaCluster, market: Market) -> None:
    symbol = fresh_symbol()
    market.publish(symbol, snapshot(symbol, 3))
    cluster.kill(0)
    with Gateway.on(market, SETTINGS, wait=False) as gateway, WebSocket(gateway.address) as client:
        gateway.wait_log("bus is not reachable")
        assert (gateway.get("/health").status, gateway.get("/ready").status) == (200, 503)
        client.expect_silence()
        cluster.start_broker(0)
        gateway.wait_ready(60)
        assert client.news()["sequence"] == 3


def test_log_of_an_outage_is_a_few_lines(cluster: KafkaCluster, market: Market) -> None:
    with Gateway.on(market, SETTINGS) as gateway:
        before = len(gateway.log.splitlines())
        cluster.kill(0)
        gateway.wait_until(lambda: gateway.get("/ready").status == 503, "the loss noticed")
        # Ten attempts to reach it: each could have said something.
        counted = gateway.metric("gateway_kafka_errors_total", name="_TRANSPORT")
        gateway.wait_until(
            lambda: gateway.metric("gateway_kafka_errors_total", name="_TRANSPORT") > counted + 2, "it keeps trying"
        )
        cluster.start_broker(0)
        cluster.wait_ready()
        gateway.wait_ready(60)

        def lines_of(text: str) -> int:
            return sum(text in line for line in gateway.log.splitlines()[before:])

        gateway.wait_until(lambda: lines_of("bus is reachable"), "the return said")
        assert lines_of("bus is not reachable") == lines_of("bus is reachable") == 1
        lines = gateway.log.splitlines()[before:]
    assert len(lines) < 20, lines


def test_balances_are_told_as_stale_while_the_broker_is_away(cluster: KafkaCluster, market: Market) -> None:
    alice, topic = Trader(), f"{market.topic}-accounts"
    cluster.create_topic(topic, 2, {"cleanup.policy": "compact"})

    def write(available: str) -> None:
        balances = {"EUR": {"available": available, "reserved": "0"}}
        producer = Producer({**quiet_client(market.bootstrap), "acks": "all"})
        producer.produce(topic, json.dumps({"user_id": alice.user_id, "balances": balances}), alice.user_id)
        assert producer.flush(60) == 0

    def asked() -> int:
        return gateway.request("GET", "/api/balance", headers=alice.headers).status

    def told() -> dict[str, Any]:
        message: dict[str, Any] = client.news()["notification"]
        return {
            **message["balances"].get("EUR", {}),
            **{name: True for name in ("snapshot", "stale") if name in message},
        }

    write("1")
    with (
        Gateway.on(market, settings(kafka={"consume": "broadcast", "account_topic": topic})) as gateway,
        alice.connect(gateway) as client,
    ):
        client.call("private/subscribe", {"channels": ["account.balances"]})
        assert told() == {"available": "1", "reserved": "0", "snapshot": True}
        cluster.kill(0)
        gateway.wait_until(lambda: asked() == 503, "balances that nobody can know are not told")
        assert told() == {"stale": True}
        cluster.start_broker(0)
        cluster.wait_ready()
        assert told() == {"available": "1", "reserved": "0", "snapshot": True}
        write("2")
        assert told() == {"available": "2", "reserved": "0"}
        assert asked() == 200
