"""Market-data channels while the bus stands still, and after its topic was made anew or got more partitions: what cannot
be trusted is said to be so, and nothing is missing in silence (docs/contract.md#quiet-or-dead, #resume).
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from tests.faults.test_topic_recreated import REFRESHED
from tests.integration.clients import ClientBook, WebSocket, exact, is_heartbeat
from tests.integration.events import delta, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tools.kafka.cluster import KafkaCluster
from tools.kafka.running import RunningKafka, quiet_client

# What the contract gives a partition that is not read, and what a busy machine may add.
UNREAD_SECONDS = 5.0
SLACK_SECONDS = 10.0


def settings(consume: str = "broadcast") -> dict[str, Any]:
    kafka = {"consume": consume, "consumer": REFRESHED, "producer": REFRESHED}
    return {"auth": {"mode": "optional"}, "kafka": kafka}


def quiet(gateway: Gateway) -> WebSocket:
    return WebSocket(gateway.address, "/ws?stream=none")


def told(client: WebSocket) -> Any:
    """The next message that is not a heartbeat."""
    while is_heartbeat(message := exact(client.receive())):
        pass
    return message


def folded(gateway: Gateway, market: Market, symbol: str, *records: bytes) -> tuple[int, int]:
    """Publish, and wait until the gateway has folded them in; partition and offset of the last."""
    with quiet(gateway) as witness:
        witness.subscribe(f"events.{symbol}")
        place = market.publish(symbol, *records)[-1]
        witness.receive_until(lambda message: exact(message).get("seq", -1) >= place[1])
    return place


def first_of(gateway: Gateway, channel: str, since: object = None) -> Any:
    with quiet(gateway) as client:
        client.subscribe(channel, since=None if since is None else {channel: since})
        return exact(client.receive())


@pytest.mark.parametrize("consume", ["broadcast", "shared"])
def test_frozen_broker_makes_channels_stale_once_and_nothing_is_lost_when_it_thaws(
    cluster: KafkaCluster, market: Market, consume: str
) -> None:
    symbol = fresh_symbol("F")
    conflatable = [f"book.{symbol}.none.all.raw", f"ticker.{symbol}.1000ms", f"lwt.{symbol}.raw"]
    lossless = [f"trades.{symbol}", f"events.{symbol}", "events"]
    with Gateway.on(market, settings(consume)) as gateway, ExitStack() as stack:
        folded(gateway, market, symbol, snapshot(symbol))
        quotes, joiner = stack.enter_context(quiet(gateway)), stack.enter_context(quiet(gateway))
        quotes.subscribe(*conflatable)
        assert all(exact(quotes.receive())["notification"]["snapshot"] for _ in conflatable)
        tapes = {channel: stack.enter_context(quiet(gateway)) for channel in lossless}
        for channel, client in tapes.items():
            client.subscribe(channel)
            assert exact(client.receive())["notification"]["snapshot"] is True
        tapes["stream"] = stack.enter_context(WebSocket(gateway.address))
        assert exact(tapes["stream"].receive())["type"] == "orderbook_snapshot"
        cluster.freeze(0)
        began = time.monotonic()
        try:
            stale = [told(quotes) for _ in conflatable]
            assert time.monotonic() - began < UNREAD_SECONDS + SLACK_SECONDS
            assert sorted(one["channel_name"] for one in stale) == sorted(conflatable)
            assert [one["notification"]["stale"] for one in stale] == [True] * len(conflatable)
            for client in tapes.values():
                status = exact(client.receive())
                assert (status["type"], status["status"]) == ("stream_status", "stale")
                assert symbol in status["symbols"]
            joiner.subscribe(conflatable[0], lossless[0])
            first, second, third = (exact(joiner.receive()) for _ in range(3))
            assert first["notification"]["stale"] is True
            assert {second.get("status"), third.get("status")} == {"stale", None}
            # Nothing more, whatever is due: not even a heartbeat after its five seconds.
            quiet_until = time.monotonic() + 5.5
            while (left := quiet_until - time.monotonic()) > 0:
                with pytest.raises(AssertionError, match="nothing more came"):
                    quotes.receive(left)
            quotes.expect_silence()
        finally:
            cluster.thaw(0)
        records = [fill(symbol, n=n, quantity=str(n + 1)) for n in range(300)]
        change = delta(symbol, 2, ("add", "bid", "9.99", "7"))
        market.publish(symbol, change, *records)
        events: dict[str, list[int]] = {channel: [] for channel in tapes}
        for channel, client in tapes.items():
            statuses: list[str] = []
            while len(events[channel]) < len(records):
                message = exact(client.receive())
                if message.get("type") == "stream_status":
                    # Of symbols on other partitions, which may be found to be unread a moment later, it tells apart.
                    if symbol in message["symbols"]:
                        statuses.append(message["status"])
                    continue
                inside = message.get("notification", message)
                assert "snapshot" not in inside, message
                if "trades" in inside:
                    events[channel] += [int(trade[1]) - 1 for trade in inside["trades"]]
                else:
                    event = inside.get("event", inside)
                    events[channel] += [event["n"]] if event.get("type") == "fill" else []
            # It is live again, once; a machine that stands still may take the broker away for as long another time.
            assert statuses == [("live", "stale")[number % 2] for number in range(len(statuses))], (
                f"{channel}: {statuses}"
            )
            assert statuses[-1:] == ["live"], f"{channel}: {statuses}"
            assert events[channel] == list(range(300))
        held = {channel: ClientBook() for channel in conflatable[:1]}
        [book] = held.values()
        snapshots = set()
        while len(snapshots) < len(conflatable) or len(book.bid) < 2:
            message = told(quotes)
            if message["notification"].get("snapshot"):
                snapshots.add(message["channel_name"])
            assert message["channel_name"] in snapshots, f"before its snapshot: {message}"
            if message["channel_name"] == conflatable[0]:
                book.apply(message)
        assert book.kinds[0] == "snapshot"


@pytest.mark.parametrize("consume", ["broadcast", "shared"])
def test_topic_made_again_is_another_epoch_and_its_offsets_are_not_taken_for_the_old_ones(
    real_kafka: RunningKafka, market: Market, consume: str
) -> None:
    symbol = fresh_symbol("F")
    channels = [f"trades.{symbol}", f"events.{symbol}"]
    with Gateway.on(market, settings(consume)) as gateway, quiet(gateway) as there:
        partition, offset = folded(gateway, market, symbol, snapshot(symbol, 1), *(fill(symbol) for _ in range(20)))
        since = {channel: first_of(gateway, channel) for channel in channels}
        book = f"book.{symbol}.none.all.raw"
        there.subscribe(book, channels[1])
        held = ClientBook()
        held.apply(exact(there.receive()))
        assert exact(there.receive())["channel_name"] == channels[1]
        real_kafka.delete_topic(market.topic)
        real_kafka.create_topic(market.topic, market.partitions)
        again = market.reopened()
        # More records than there were: the old cursors would fit.
        again.publish_to(
            (partition, snapshot(symbol, 5, bids=[{"price": "1", "quantity": "1"}])),
            *((partition, fill(symbol, n=n)) for n in range(2 * offset)),
        )
        # Whoever was there: a stale book, then a snapshot; of the events it is told that they were not recovered.
        recovered: list[bool] = []
        last: dict[str, Any] = {}
        while not recovered or held.kinds[-2:] != ["stale", "snapshot"] or last.get("n") != 2 * offset - 1:
            message = told(there)
            if message.get("type") == "stream_status":
                continue
            recovered += [message["recovered"]] if "recovered" in message else []
            if message["channel_name"] == book:
                if message["notification"].get("snapshot"):
                    held.seq = -1  # it begins anew with the topic's life
                held.apply(message)
                held.kinds = [kind for kind in held.kinds if kind != "changes"]
            else:
                last = message["notification"].get("event", last)
                if last.get("type") == "orderbook_snapshot":
                    # It stands for what is before it.
                    last = {"n": 2 * offset - 1} if message["seq"] >= 2 * offset else last
        assert recovered == [False]
        assert held.bid == {1: 1}
        for channel in channels:
            old = since[channel]
            first = first_of(gateway, channel, {"epoch": old["epoch"], "seq": old["seq"]})
            assert (first["recovered"], first["notification"]["snapshot"]) == (False, True)
            assert first["epoch"] != old["epoch"]
            now = first_of(gateway, channel, {"epoch": first["epoch"], "seq": first["seq"]})
            assert (now["recovered"], now["epoch"]) == (True, first["epoch"])


@pytest.mark.parametrize("consume", ["broadcast", "shared"])
def test_added_partitions_are_logged_degraded_and_another_epoch(market: Market, consume: str) -> None:
    symbol = fresh_symbol("F")
    channel = f"events.{symbol}"
    with Gateway.on(market, settings(consume)) as gateway:
        folded(gateway, market, symbol, snapshot(symbol), fill(symbol))
        old = first_of(gateway, channel)
        admin = AdminClient(quiet_client(market.bootstrap))
        admin.create_partitions([NewPartitions(market.topic, 6)])[market.topic].result(30)
        gateway.wait_log(rf"number of partitions of {market.topic} changed to 6", 60)
        gateway.wait_ready(60)
        assert gateway.health()["status"] == "degraded"
        gateway.wait_until(lambda: first_of(gateway, channel)["epoch"] != old["epoch"], "another epoch")
        first = first_of(gateway, channel, {"epoch": old["epoch"], "seq": old["seq"]})
        assert (first["recovered"], first["notification"]["snapshot"]) == (False, True)
        added = fresh_symbol("ADDED")
        with quiet(gateway) as client:
            client.subscribe(f"book.{added}.none.all.raw")
            market.reopened().publish_to((5, snapshot(added)))
            assert told(client)["notification"]["snapshot"] is True
