"""A market topic that is deleted, made again, or cut off under a gateway: said, survived, and never a silent hole."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from tests.integration.clients import WebSocket
from tests.integration.events import fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway, stopped
from tools.kafka.running import RunningKafka, quiet_client

# Ten times as often as by itself a gateway learns what has become of its topics.
REFRESHED = {"topic.metadata.refresh.interval.ms": 1000}


def settings(consume: str) -> dict[str, object]:
    return {
        "auth": {"mode": "optional"},
        "kafka": {"consume": consume, "consumer": REFRESHED, "producer": REFRESHED},
    }


def epoch_of(gateway: Gateway, symbol: str) -> str:
    """The epoch that a new subscriber is told."""
    with WebSocket(gateway.address, "/ws?stream=none") as client:
        client.subscribe(f"events.{symbol}")
        return str(client.news()["epoch"])


@pytest.mark.parametrize("partitions", [6, 4, 2])
@pytest.mark.parametrize("consume", ["broadcast", "shared"])
def test_topic_made_again_is_read_from_its_new_beginning(
    real_kafka: RunningKafka, market: Market, consume: str, partitions: int
) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, settings(consume)) as gateway, WebSocket(gateway.address) as client:
        market.publish(symbol, snapshot(symbol, 1), *(fill(symbol, n=number) for number in range(20)))
        client.receive_until(lambda message: b'"n":19' in message)
        epoch = epoch_of(gateway, symbol)
        real_kafka.delete_topic(market.topic)
        real_kafka.create_topic(market.topic, partitions)
        again = market.reopened()
        if partitions != 4:
            gateway.wait_log(rf"number of partitions of {market.topic} changed to {partitions}", 60)
        # Fewer records than the old topic had: who goes on from the old offset never sees them.
        symbols = [fresh_symbol("NEW") for _ in range(partitions)]
        again.publish_to(*((number, snapshot(one, 5)) for number, one in enumerate(symbols)))
        waiting = set(symbols)

        def shown() -> bool:
            waiting.discard(client.news().get("symbol"))
            return not waiting

        gateway.wait_until(shown, "the new topic's books shown")
        gateway.wait_until(lambda: gateway.health()["kafka"]["partitions"] == partitions, "all partitions read")
        gateway.wait_ready(60)
        # Another number of partitions moves symbols, and may be a mistake: that stays visible.
        assert gateway.health()["status"] == ("ok" if partitions == 4 else "degraded")
        gateway.wait_until(lambda: epoch_of(gateway, symbols[0]) != epoch, "another epoch")
        again.publish_to((0, record := fill(symbols[0], n="news")))
        client.receive_until(lambda message: message == record)


@pytest.mark.parametrize("consume", ["broadcast", "shared"])
def test_topic_made_again_and_already_longer_than_the_old_one_is_not_taken_for_it(
    real_kafka: RunningKafka, market: Market, consume: str
) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, settings(consume)) as gateway, WebSocket(gateway.address) as client:
        [(partition, _)] = market.publish(symbol, snapshot(symbol, 1))
        assert client.news()["sequence"] == 1
        epoch = epoch_of(gateway, symbol)
        with stopped(gateway):
            real_kafka.delete_topic(market.topic)
            real_kafka.create_topic(market.topic, 4)
            again = market.reopened()
            again.publish_to((partition, snapshot(symbol, 2)), *((partition, fill(symbol)) for _ in range(50)))
        client.receive_until(lambda message: b'"sequence":2' in message)
        gateway.wait_until(lambda: epoch_of(gateway, symbol) != epoch, "another epoch")
        again.publish_to((partition, record := fill(symbol, n="news")))
        client.receive_until(lambda message: message == record)


def test_subscriber_is_told_the_new_epoch_before_seq_steps_back(real_kafka: RunningKafka, market: Market) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, settings("broadcast")) as gateway, WebSocket(gateway.address, "/ws?stream=none") as client:
        client.subscribe(f"events.{symbol}")
        [(partition, _), *_] = market.publish(symbol, snapshot(symbol, 1), *(fill(symbol) for _ in range(20)))
        messages = [client.news() for _ in range(21)]
        with stopped(gateway):
            real_kafka.delete_topic(market.topic)
            real_kafka.create_topic(market.topic, 4)
            market.reopened().publish_to((partition, snapshot(symbol, 2)), (partition, fill(symbol, n="last")))
        while messages[-1]["notification"]["event"].get("sequence") != 2:
            messages.append(client.news())
    epoch, last = "", -1
    for message in messages:
        if message.get("epoch", epoch) != epoch:
            epoch, last = message["epoch"], -1
        assert message["seq"] > last
        last = message["seq"]
    assert epoch != messages[0]["epoch"]


@pytest.mark.parametrize("consume", ["broadcast", "shared"])
def test_partitions_that_are_added_are_read_and_make_a_new_epoch(market: Market, consume: str) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, settings(consume)) as gateway, WebSocket(gateway.address) as client:
        market.publish(symbol, snapshot(symbol))
        client.receive()
        epoch = epoch_of(gateway, symbol)
        admin = AdminClient(quiet_client(market.bootstrap))
        admin.create_partitions([NewPartitions(market.topic, 6)])[market.topic].result(30)
        gateway.wait_log(rf"number of partitions of {market.topic} changed to 6", 60)
        added = fresh_symbol("ADDED")
        market.reopened().publish_to((5, snapshot(added)))
        client.receive_until(lambda message: added.encode() in message)
        gateway.wait_ready(60)
        assert gateway.health()["kafka"]["partitions"] == 6
        gateway.wait_until(lambda: epoch_of(gateway, symbol) != epoch, "another epoch")


def test_records_that_are_gone_before_they_were_read_are_said_and_the_book_is_sent_anew(market: Market) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market, settings("broadcast")) as gateway, WebSocket(gateway.address) as client:
        [(partition, _)] = market.publish(symbol, snapshot(symbol, 1))
        assert client.news()["sequence"] == 1
        with stopped(gateway):
            # A fetch may wait at the broker, and is answered with 1 MiB at most; the others are not asked for before they go.
            market.publish(symbol, *(fill(symbol, n=number, padding="x" * 10_000) for number in range(200)))
            [(_, end)] = market.publish(symbol, snapshot(symbol, 2))
            admin = AdminClient(quiet_client(market.bootstrap))
            cut = TopicPartition(market.topic, partition, end)
            admin.delete_records([cut])[cut].result(30)
        messages = client.receive_until(lambda message: b'"sequence":2' in message, 60)
        seen = [json.loads(message)["n"] for message in messages if b'"n":' in message]
        assert seen == list(range(len(seen)))
        assert len(seen) < 200
        # Not a hole that nobody is told of.
        gateway.wait_log(rf"partition {partition}: the records after offset \d+ are gone")
        market.publish(symbol, record := fill(symbol, n="news"))
        client.receive_until(lambda message: message == record)
