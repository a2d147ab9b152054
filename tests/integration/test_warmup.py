"""What was on the topic before a gateway started: folded in, shown as books, never as events (docs/contract.md#warm-up)."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection
from typing import Any

import pytest

from tests.integration.clients import WebSocket
from tests.integration.events import delta, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.support.kafka import Bus


@pytest.fixture(scope="module")
def bus(each_bus: Bus) -> Bus:
    """What is tested here is what a bus could get wrong."""
    return each_bus


OPTIONAL = {"auth": {"mode": "optional"}}


def known(gateway: Gateway) -> set[str]:
    return {one["symbol"] for one in gateway.get("/api/instruments").json()["instruments"]}


def books(gateway: Gateway, symbols: Collection[str]) -> dict[str, dict[str, Any]]:
    """The books that a connection is shown at once."""
    with WebSocket(gateway.address) as client:
        shown = [json.loads(client.receive()) for _ in symbols]
    return {book["symbol"]: book for book in shown if book["type"] == "orderbook_snapshot"}


def test_events_before_the_start_are_a_book_and_no_news(bus: Bus) -> None:
    market = Market.create(bus)
    symbol = fresh_symbol()
    [(partition, _), *_] = market.publish(
        symbol, snapshot(symbol, 1), delta(symbol, 2, ("add", "bid", "10.10", "4")), fill(symbol), b"poison"
    )
    end = market.publish(symbol, fill(symbol))[-1][1]
    with Gateway.on(market, OPTIONAL, wait=False) as gateway, WebSocket(gateway.address) as early:
        # Connected while it still reads back: it waits, and is not shown history as news.
        first = early.receive()
        gateway.wait_ready()
        with WebSocket(gateway.address) as late, WebSocket(gateway.address, "/ws?stream=none") as subscriber:
            subscriber.subscribe("events")
            told = json.loads(subscriber.receive())
            market.publish(symbol, news := fill(symbol, n="news"))
            assert [early.receive(), late.receive(), late.receive()] == [news, first, news]
            assert json.loads(subscriber.receive())["seq"] == end + 1
    book = json.loads(first)
    assert (book["type"], book["sequence"], book["bids"][0]) == (
        "orderbook_snapshot",
        2,
        {"price": "10.10", "quantity": "4"},
    )
    assert (told["seq"], told["partition"], told["notification"]) == (end, partition, {"event": book, "snapshot": True})


def test_gateway_on_empty_topics_is_ready(bus: Bus) -> None:
    market = Market.create(bus)
    with Gateway.on(market, OPTIONAL) as gateway, WebSocket(gateway.address) as client:
        client.expect_silence()
        symbol = fresh_symbol()
        market.publish(symbol, record := fill(symbol))
        assert client.receive() == record


# The embedded cluster cannot look up offsets by time, a real one always can.
@pytest.mark.parametrize("each_bus", ["real"], indirect=True, scope="module")
def test_warmup_goes_back_by_time(bus: Bus) -> None:
    market = Market.create(bus)
    now_ms = int(time.time() * 1000)
    old, young, mixed = fresh_symbol("OLD"), fresh_symbol("YOUNG"), fresh_symbol("MIXED")
    market.publish(old, snapshot(old), timestamp_ms=now_ms - 3_000_000)
    market.publish(mixed, snapshot(mixed, 1), timestamp_ms=now_ms - 3_000_000)
    market.publish(mixed, snapshot(mixed, 2), timestamp_ms=now_ms - 500_000)
    market.publish(young, snapshot(young), timestamp_ms=now_ms - 500_000)
    settings = {**OPTIONAL, "kafka": {"warmup_seconds": 1000, "warmup_min_records": 0}}
    with Gateway.on(market, settings) as gateway:
        assert {young, mixed} <= known(gateway)
        assert old not in known(gateway)
        # To the minute.
        assert now_ms / 1000 - 1060 <= float(gateway.health()["known_since"]) <= time.time() - 1000
    with Gateway.on(market, {**OPTIONAL, "kafka": {"warmup_seconds": 100, "warmup_min_records": 0}}) as gateway:
        assert known(gateway) == set()
        with WebSocket(gateway.address) as client:
            market.publish(old, record := fill(old))
            assert client.receive() == record


@pytest.mark.parametrize("each_bus", ["embedded"], indirect=True, scope="module")
def test_warmup_goes_back_by_records_where_time_cannot_be_asked(bus: Bus) -> None:
    market = Market.create(bus)
    old, young = fresh_symbol("OLD"), fresh_symbol("YOUNG")
    market.publish_to((0, snapshot(old)), *((0, snapshot(young, number)) for number in range(5)))
    settings = {**OPTIONAL, "kafka": {"warmup_records": 5, "warmup_min_records": 0}}
    with Gateway.on(market, settings) as gateway:
        assert known(gateway) == {young}
        assert float(gateway.health()["known_since"]) > time.time() - 600
    with Gateway.on(market, {**OPTIONAL, "kafka": {"warmup_records": 6, "warmup_min_records": 0}}) as gateway:
        assert known(gateway) == {old, young}


def test_restarted_gateway_knows_the_book_again_though_its_group_is_old(bus: Bus) -> None:
    market = Market.create(bus)
    symbol = fresh_symbol()
    settings = {**OPTIONAL, "drain_seconds": 0}
    with Gateway.on(market, settings) as gateway:
        market.publish(symbol, snapshot(symbol, 5))
        gateway.wait_until(lambda: symbol in known(gateway), "the symbol known")
        assert gateway.terminate() == 0
    with Gateway.on(market, settings) as gateway, WebSocket(gateway.address) as client:
        assert json.loads(client.receive())["sequence"] == 5


# Whatever the times of records are, for they are somebody else's.

REAL = pytest.mark.parametrize("each_bus", ["real"], indirect=True, scope="module")
HOUR_MS = 3_600_000


def at_times_of_others(bus: Bus, **config: str) -> Market:
    """Topics that keep records however old they say they are."""
    kept = {"retention.ms": "-1", **config}
    topics = [bus.new_topic(name, config=kept) for name in ("market-events", "order-commands")]
    return Market(bus.bootstrap, *topics, embedded=False)


@REAL
@pytest.mark.parametrize("ahead_ms", [-2 * HOUR_MS, -24 * HOUR_MS, HOUR_MS - 60_000, None])
def test_quiet_market_is_there_after_a_start_whatever_its_times(bus: Bus, ahead_ms: int | None) -> None:
    market, symbol = at_times_of_others(bus), fresh_symbol()
    # 1: Kafka's client takes a zero for the present.
    time_ms = 1 if ahead_ms is None else int(time.time() * 1000) + ahead_ms
    market.publish(
        symbol,
        snapshot(symbol, 1),
        delta(symbol, 2, ("add", "bid", "10.10", "4")),
        fill(symbol, timestamp=int(time.time() * 1000)),
        timestamp_ms=time_ms,
    )
    with Gateway.on(market, OPTIONAL) as gateway:
        assert known(gateway) == {symbol}
        assert books(gateway, [symbol])[symbol]["sequence"] == 2
        assert abs(float(gateway.health()["known_since"]) - (time.time() - 3600)) < 600


@REAL
def test_warmup_reads_back_records_where_the_brokers_clock_tells_their_time(bus: Bus) -> None:
    market, symbol = at_times_of_others(bus, **{"message.timestamp.type": "LogAppendTime"}), fresh_symbol()
    market.publish(symbol, snapshot(symbol, 7), timestamp_ms=1)
    # As if it had been quiet for an hour: nothing that is on the topic is as young as this.
    for least, expected in ((0, set()), (1, {symbol})):
        kafka = {"warmup_seconds": 0, "warmup_min_records": least}
        with Gateway.on(market, {**OPTIONAL, "kafka": kafka}) as gateway:
            assert known(gateway) == expected


@REAL
def test_quiet_market_is_there_after_a_start_behind_the_markers_of_transactions(bus: Bus) -> None:
    market, symbol = at_times_of_others(bus), fresh_symbol()
    old_ms = int(time.time() * 1000) - 2 * HOUR_MS
    market.publish(symbol, snapshot(symbol, 7), timestamp_ms=old_ms)
    market.publish_aborted(symbol, *[delta(symbol, 8, ("add", "bid", "10.10", "4"))] * 20, timestamp_ms=old_ms)
    with Gateway.on(market, {**OPTIONAL, "kafka": {"warmup_min_records": 5}}) as gateway:
        assert books(gateway, [symbol])[symbol]["sequence"] == 7


def changes(symbol: str, count: int) -> list[bytes]:
    """So many deltas, each of one level of ten."""
    return [delta(symbol, 2 + n, ("update", "bid", f"9.{n % 10}", str(1 + n))) for n in range(count)]


@REAL
def test_book_is_whole_whose_snapshot_is_older_than_what_is_read_back(bus: Bus) -> None:
    market = at_times_of_others(bus)
    symbol, other, lost = fresh_symbol("FAR"), fresh_symbol("NEAR"), fresh_symbol("LOST")
    now_ms = int(time.time() * 1000)
    records = [
        snapshot(lost, 1),
        *changes(lost, 10),
        fill(symbol, price="8.80", timestamp=now_ms),
        snapshot(symbol, 1),
        fill(symbol, price="7.70", timestamp=now_ms),
        *changes(symbol, 4_900),
        snapshot(other, 1),
        *changes(symbol, 5_000)[4_900:],
        *changes(lost, 11)[10:],
    ]
    old_ms = now_ms - 24 * HOUR_MS
    market.publish_to(*((1, record) for record in records), timestamp_ms=old_ms)
    with Gateway.on(market, {**OPTIONAL, "kafka": {"warmup_records": 5_010}}) as gateway:
        shown = books(gateway, [symbol, other])
        assert sorted(shown) == sorted([symbol, other])
        assert shown[symbol]["sequence"] == 5_001
        levels = {level["price"]: level["quantity"] for level in shown[symbol]["bids"]}
        assert levels == {"10.00": "1.50", **{f"9.{n}": str(4_991 + n) for n in range(10)}}
        with WebSocket(gateway.address, "/ws?stream=none") as client:
            client.subscribe(f"trades.{symbol}")
            assert b"7.70" in client.receive()
            client.subscribe(f"book.{lost}.none.10.raw")
            client.expect_silence()
        gateway.wait_log(f"no snapshot of 1 symbols among the last 5010 records: {lost}")
        assert known(gateway) == {symbol, other, lost}
        # What comes then is told, and changes the book.
        with WebSocket(gateway.address) as client:
            first = [json.loads(client.receive())["symbol"] for _ in range(2)]
            assert sorted(first) == sorted([symbol, other])
            market.publish_to((1, record := delta(symbol, 9_999, ("remove", "bid", "10.00", "0"))))
            assert client.receive() == record
        assert books(gateway, [symbol, other])[symbol]["bids"][0]["price"] == "9.9"


@REAL
def test_partition_gained_in_a_rebalance_has_books_whose_snapshots_are_old(bus: Bus) -> None:
    market = at_times_of_others(bus)
    symbols = [fresh_symbol(f"P{number}") for number in range(4)]
    old_ms = int(time.time() * 1000) - 2 * HOUR_MS
    for number, symbol in enumerate(symbols):
        records = [snapshot(symbol, 1), *changes(symbol, 300)]
        market.publish_to(*((number, record) for record in records), timestamp_ms=old_ms)
    group = f"gained-{uuid.uuid4().hex[:8]}"
    settings = {**OPTIONAL, "kafka": {"consume": "shared", "group_id": group, "warmup_min_records": 50}}
    with Gateway.on(market, settings) as stays:
        with Gateway.on(market, settings):
            stays.wait_until(lambda: stays.health()["kafka"]["partitions"] == 2, "the group shared")
        stays.wait_until(lambda: stays.health()["kafka"]["partitions"] == 4, "all of the market read here")
        stays.wait_ready()
        shown = books(stays, symbols)
        assert {symbol: book["sequence"] for symbol, book in shown.items()} == dict.fromkeys(symbols, 301)
