"""Clients that come back with `since` (docs/contract.md#resume): nothing missing, nothing twice, or told that it is so."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from core.market.lag import PATIENCE_SECONDS
from tests.integration.clients import Closed, WebSocket, exact
from tests.integration.events import delta, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway, stopped
from tests.support.kafka import Bus
from tools.kafka.running import quiet_client


@pytest.fixture(scope="module")
def bus(each_bus: Bus) -> Bus:
    """What is tested here is what a bus could get wrong."""
    return each_bus


SETTINGS: dict[str, Any] = {"auth": {"mode": "optional"}, "kafka": {"consume": "broadcast"}}
SHORT_HISTORY = 50


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, SETTINGS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def other(market: Market) -> Iterator[Gateway]:
    """A second instance on the same topics."""
    with Gateway.on(market, SETTINGS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def forgetful(market: Market) -> Iterator[Gateway]:
    """One that keeps the last few records of each symbol only."""
    with Gateway.on(market, SETTINGS, {"GATEWAY_HISTORY_RECORDS": str(SHORT_HISTORY)}) as gateway:
        yield gateway


def quiet(gateway: Gateway) -> WebSocket:
    return WebSocket(gateway.address, "/ws?stream=none")


def first_of(gateway: Gateway, channel: str, since: object = None) -> Any:
    """What a subscriber is told first."""
    with quiet(gateway) as client:
        client.subscribe(channel, since=None if since is None else {channel: since})
        return exact(client.receive())


def numbered(symbol: str, first: int, end: int) -> list[bytes]:
    """Fills whose quantity and `n` are their number."""
    return [fill(symbol, n=n, quantity=str(n), taker_side="bid") for n in range(first, end)]


def folded(gateways: Gateway | list[Gateway], market: Market, symbol: str, *records: bytes) -> list[tuple[int, int]]:
    """Publish, and wait until a gateway, or each of several, has folded them in."""
    with ExitStack() as stack:
        several = gateways if isinstance(gateways, list) else [gateways]
        witnesses = [stack.enter_context(quiet(gateway)) for gateway in several]
        for witness in witnesses:
            witness.subscribe(f"events.{symbol}")
        places = market.publish(symbol, *records)
        for witness in witnesses:
            witness.receive_until(lambda message: exact(message)["seq"] >= places[-1][1])
    return places


class Follower(threading.Thread):
    """One client of a lossless channel that goes away and comes back, to one gateway after the other.

    `told` has every fill of its symbols: (partition or None, seq, number).
    """

    def __init__(self, gateways: list[Gateway], channel: str, symbols: list[str], count: int) -> None:
        super().__init__()
        self._gateways = gateways
        self._channel = channel
        self._symbols = symbols
        self._count = count
        # A notification of trades has many of them.
        self._longest = 6 if channel.startswith("trades") else 300
        self.told: list[tuple[int | None, int, int]] = []
        self.comings = 0
        self.recovered: list[bool] = []
        self.failure: BaseException | None = None
        self.settled = threading.Event()
        self._epoch = ""
        self._seqs: dict[str, int] = {}
        self._seq = -1

    def run(self) -> None:
        try:
            while len(self.told) < self._count:
                self._visit(self._gateways[self.comings % len(self._gateways)], 1 + self.comings * 37 % self._longest)
        except BaseException as error:
            self.failure = error
            self.settled.set()

    def since(self) -> object:
        return {"epoch": self._epoch, "seq": self._seqs or self._seq}

    def _visit(self, gateway: Gateway, messages: int) -> None:
        since = {self._channel: self.since()} if self._epoch else None
        self.comings += 1
        with quiet(gateway) as client:
            client.subscribe(self._channel, since=since)
            for number in range(messages):
                try:
                    told = exact(client.receive())
                except Closed as closed:
                    assert closed.code == 4008, closed
                    return
                self._take(told, is_first=number == 0, returned=since is not None)
                if len(self.told) >= self._count:
                    return

    def _take(self, told: dict[str, Any], *, is_first: bool, returned: bool) -> None:
        assert told["channel_name"] == self._channel
        inside = told["notification"]
        if is_first:
            assert ("recovered" in told) == returned
            if returned:
                self.recovered.append(told["recovered"])
                assert told["recovered"] is True, told
                assert told["epoch"] == self._epoch
            self._epoch = told["epoch"]
        partition = told.get("partition")
        last = self._seqs.get(str(partition), -1) if partition is not None else self._seq
        assert told["seq"] >= last, f"seq went back from {last}: {told}"
        if partition is None:
            self._seq = told["seq"]
        else:
            self._seqs[str(partition)] = told["seq"]
        if "trades" in inside:
            if not inside.get("snapshot"):
                self.told += [(None, told["seq"], int(trade[1])) for trade in inside["trades"]]
        elif inside and not inside.get("snapshot"):
            event = inside["event"]
            if event["symbol"] in self._symbols and event["type"] == "fill":
                self.told.append((partition, told["seq"], event["n"]))
        self.settled.set()


def test_clients_that_come_and_go_miss_nothing_and_see_nothing_twice_while_records_keep_coming(
    bus: Bus, market: Market, gateway: Gateway, request: pytest.FixtureRequest
) -> None:
    # The embedded cluster's epochs are of one start of a gateway: there clients come back to the same one.
    gateways = [gateway, request.getfixturevalue("other")] if bus.flavour == "real" else [gateway]
    symbols = [fresh_symbol("R") for _ in range(3)]
    for symbol in symbols:
        folded(gateways, market, symbol, snapshot(symbol))
    rounds, size = 100, 20
    total = rounds * size
    # Four: as many as a process reads back for at once; a fifth may be told that nothing was recovered.
    followers = [
        *(Follower(gateways, f"trades.{symbol}", [symbol], total) for symbol in symbols[:2]),
        Follower(gateways, f"events.{symbols[0]}", symbols[:1], total),
        Follower(gateways, "events", symbols, total * len(symbols)),
    ]
    for follower in followers:
        follower.start()
    placed: dict[str, list[tuple[int, int]]] = {symbol: [] for symbol in symbols}
    for follower in followers:
        assert follower.settled.wait(60)
    for number in range(rounds):
        for symbol in symbols:
            records = numbered(symbol, number * size, number * size + size)
            # A gateway far behind is not waited for by who comes to it, and then tells everything in a few messages.
            keeps_up = number % 5 == 4
            placed[symbol] += (
                folded(gateways, market, symbol, *records) if keeps_up else market.publish(symbol, *records)
            )
    for follower in followers:
        follower.join(120)
        assert not follower.is_alive(), f"{follower.name}: {len(follower.told)} told in {follower.comings} visits"
        if follower.failure is not None:
            raise follower.failure
    for follower, symbol in zip(followers, [*symbols[:2], symbols[0]], strict=False):
        assert [number for _, _, number in follower.told] == list(range(total))
        if follower is followers[2]:
            assert [seq for _, seq, _ in follower.told] == [offset for _, offset in placed[symbol]]
    everything = sorted((p, o, n) for symbol in symbols for n, (p, o) in enumerate(placed[symbol]))
    told = followers[3].told
    assert sorted(told, key=lambda one: (one[0] or 0, one[1])) == everything
    for follower in followers:
        assert len(follower.recovered) > 3, "too few returns: nothing was tested"


def test_client_of_another_epoch_is_told_that_nothing_was_recovered(
    bus: Bus, market: Market, gateway: Gateway, other: Gateway
) -> None:
    symbol = fresh_symbol("R")
    folded([gateway, other], market, symbol, snapshot(symbol), *numbered(symbol, 0, 5))
    for channel in (f"trades.{symbol}", f"events.{symbol}"):
        first = first_of(gateway, channel)
        since = {"epoch": first["epoch"], "seq": first["seq"]}
        there = first_of(other, channel, since)
        # What one start of an embedded cluster wrote is nothing to another: there are no ids to tell them by.
        assert there["recovered"] is (bus.flavour == "real")
        assert (there["epoch"] == first["epoch"]) is (bus.flavour == "real")
        assert there["notification"].get("snapshot", False) is (bus.flavour == "embedded")
        elsewhere = first_of(gateway, channel, {"epoch": "another", "seq": first["seq"]})
        assert (elsewhere["recovered"], elsewhere["notification"]["snapshot"]) == (False, True)
    if bus.flavour == "real":
        # The same seq on both: a cursor that every instance agrees on.
        assert first_of(gateway, f"trades.{symbol}")["seq"] == first_of(other, f"trades.{symbol}")["seq"]


def test_nothing_missed_is_an_empty_notification_that_says_recovered(market: Market, gateway: Gateway) -> None:
    symbol = fresh_symbol("R")
    places = folded(gateway, market, symbol, snapshot(symbol), *numbered(symbol, 0, 3))
    channel = f"trades.{symbol}"
    epoch = first_of(gateway, channel)["epoch"]
    with quiet(gateway) as client:
        client.subscribe(channel, since={channel: {"epoch": epoch, "seq": places[-1][1]}})
        first = exact(client.receive())
        assert (first["recovered"], first["notification"], first["epoch"]) == (True, {"trades": []}, epoch)
        [(_, offset)] = market.publish(symbol, *numbered(symbol, 3, 4))
        told = exact(client.receive())
        assert (told["seq"], [trade[1] for trade in told["notification"]["trades"]]) == (offset, [3])
        assert "recovered" not in told
    # A bare number is taken on trust; the book's channels do not resume.
    bare = first_of(gateway, channel, places[1][1])
    assert (bare["recovered"], [trade[1] for trade in bare["notification"]["trades"]]) == (True, [1, 2, 3])
    book = first_of(gateway, f"book.{symbol}.none.all.raw", {"epoch": epoch, "seq": 0})
    assert "recovered" not in book
    assert book["notification"]["snapshot"] is True


@pytest.mark.parametrize("kind", ["trades", "events"])
def test_what_left_the_history_is_read_back_from_the_bus(market: Market, forgetful: Gateway, kind: str) -> None:
    symbol, neighbour = fresh_symbol("R"), fresh_symbol("R")
    channel = f"{kind}.{symbol}"
    [start] = folded(forgetful, market, symbol, snapshot(symbol))
    epoch = first_of(forgetful, channel)["epoch"]
    places = []
    for first in range(0, 2000, 100):
        places += market.publish(symbol, *numbered(symbol, first, first + 100))
        market.publish_to((start[0], fill(neighbour)), (start[0], delta(symbol, first + 1, ("add", "bid", "9", "1"))))
    folded(forgetful, market, symbol, fill(symbol, n=2000, quantity="2000"))
    before = forgetful.metric("gateway_resumes_total", outcome="bus")
    with quiet(forgetful) as client:
        client.subscribe(channel, since={channel: {"epoch": epoch, "seq": places[9][1]}})
        market.publish(symbol, fill(symbol, n=2001, quantity="2001"))
        numbers: list[int] = []
        seqs: list[int] = []
        while not numbers or numbers[-1] < 2001:
            told = exact(client.receive())
            assert told.get("recovered", bool(numbers)) is True, told
            seqs.append(told["seq"])
            inside = told["notification"]
            assert "snapshot" not in inside
            if kind == "trades":
                numbers += [int(trade[1]) for trade in inside["trades"]]
            elif inside["event"]["type"] == "fill":
                numbers.append(inside["event"]["n"])
    assert numbers == list(range(10, 2002))
    assert seqs == sorted(seqs)
    assert forgetful.metric("gateway_resumes_total", outcome="bus") == before + 1


def test_events_with_a_map_of_partitions_are_read_back_of_each(market: Market, forgetful: Gateway) -> None:
    symbols: list[str] = []
    seqs: dict[str, int] = {}
    # On every partition: of one that is not in the map all that was ever written would be read back.
    while len(seqs) < market.partitions:
        symbols.append(fresh_symbol("R"))
        [(partition, offset)] = folded(forgetful, market, symbols[-1], snapshot(symbols[-1]))
        seqs[str(partition)] = offset
    epoch = first_of(forgetful, "events")["epoch"]
    expected: list[tuple[int, int, int]] = []
    for symbol in symbols:
        places = folded(forgetful, market, symbol, *numbered(symbol, 0, 2 * SHORT_HISTORY))
        expected += [(p, o, n) for n, (p, o) in enumerate(places)]
    with quiet(forgetful) as client:
        client.subscribe("events", since={"events": {"epoch": epoch, "seq": seqs}})
        told: list[tuple[int, int, int]] = []
        recovered = []
        marked = False
        while not marked:
            message = exact(client.receive())
            if "recovered" in message:
                recovered.append(message["recovered"])
                market.publish_all([(symbol, fill(symbol, n=-1)) for symbol in symbols])
            assert "snapshot" not in message["notification"]
            event = message["notification"]["event"]
            if event["symbol"] in symbols and event["type"] == "fill":
                told.append((message["partition"], message["seq"], event["n"]))
                marked = [n for _, _, n in told].count(-1) == len(symbols)
    assert recovered == [True]
    told = [one for one in told if one[2] >= 0]
    assert sorted(told) == sorted(expected)
    for partition in {p for p, _, _ in told}:
        offsets = [o for p, o, _ in told if p == partition]
        assert offsets == sorted(offsets)


def test_client_from_the_future_is_told_so(market: Market, gateway: Gateway) -> None:
    symbol = fresh_symbol("R")
    places = folded(gateway, market, symbol, snapshot(symbol))
    channel = f"events.{symbol}"
    epoch = first_of(gateway, channel)["epoch"]
    for ahead in (50, 10_000_000):  # perhaps of an instance that is a little faster; impossible
        first = first_of(gateway, channel, {"epoch": epoch, "seq": places[-1][1] + ahead})
        assert (first["recovered"], first["notification"]["snapshot"]) == (False, True)


def test_client_that_is_ahead_of_a_slower_instance_is_waited_for(market: Market, gateway: Gateway) -> None:
    symbol = fresh_symbol("R")
    [(_, start)] = folded(gateway, market, symbol, snapshot(symbol))
    channel = f"events.{symbol}"
    epoch = first_of(gateway, channel)["epoch"]
    told: list[Any] = []
    while not told or not told[0]["recovered"]:
        began = time.monotonic()
        with quiet(gateway) as client:
            # It has seen two records that this instance has yet to read.
            client.subscribe(channel, since={channel: {"epoch": epoch, "seq": start + 2}})
            places = market.publish(symbol, *numbered(symbol, 0, 4))
            assert [offset - start for _, offset in places] == [1, 2, 3, 4]
            told = [exact(client.receive())]
            # Only if it had to wait too long is it told so; then once more.
            assert told[0]["recovered"] or time.monotonic() - began >= PATIENCE_SECONDS, told
            while told[-1]["seq"] < places[-1][1]:
                told.append(exact(client.receive()))
        start = places[-1][1]
    numbers = [one["notification"]["event"]["n"] for one in told if one["notification"]]
    assert numbers == [2, 3]


# What only a real Kafka can show: its epochs outlive a gateway, and its topics can lose their beginning.


# What the embedded cluster has no such thing of.
REAL = pytest.mark.parametrize("each_bus", ["real"], indirect=True, scope="module")


@REAL
def test_client_moves_to_an_instance_that_stood_still_and_misses_nothing(
    bus: Bus, market: Market, gateway: Gateway, other: Gateway
) -> None:
    symbol = fresh_symbol("R")
    channel = f"trades.{symbol}"
    folded([gateway, other], market, symbol, snapshot(symbol))
    with quiet(gateway) as here, quiet(other) as there:
        here.subscribe(channel)
        epoch = exact(here.receive())["epoch"]
        with stopped(other):
            market.publish(symbol, *numbered(symbol, 0, 200))
            last: Any = None
            seen: list[int] = []
            while len(seen) < 200:
                last = exact(here.receive())
                seen += [int(trade[1]) for trade in last["notification"]["trades"]]
            since = {channel: {"epoch": epoch, "seq": last["seq"]}}
            there.send({"id": 1, "method": "public/subscribe", "params": {"channels": [channel], "since": since}})
            market.publish(symbol, *numbered(symbol, 200, 210))
        assert exact(there.receive())["result"] == [channel]
        first = exact(there.receive())
        assert first["recovered"] is True, first
        seen += [int(trade[1]) for trade in first["notification"]["trades"]]
        while seen[-1] < 209:
            seen += [int(trade[1]) for trade in exact(there.receive())["notification"]["trades"]]
    assert seen == list(range(210))


@pytest.mark.parametrize("end", ["terminate", "kill"])
@REAL
def test_client_of_a_gateway_that_was_started_again_misses_nothing(bus: Bus, market: Market, end: str) -> None:
    symbol = fresh_symbol("R")
    channels = [f"trades.{symbol}", f"events.{symbol}"]
    with Gateway.on(market, SETTINGS) as before:
        folded(before, market, symbol, snapshot(symbol), *numbered(symbol, 0, 20))
        firsts = {channel: first_of(before, channel) for channel in channels}
        getattr(before, end)()
    since = {channel: {"epoch": first["epoch"], "seq": first["seq"]} for channel, first in firsts.items()}
    market.publish(symbol, *numbered(symbol, 20, 50))
    with Gateway.on(market, SETTINGS) as after:
        for channel in channels:
            with quiet(after) as client:
                client.subscribe(channel, since={channel: since[channel]})
                told = [exact(client.receive())]
                assert (told[0]["recovered"], told[0]["epoch"]) == (True, firsts[channel]["epoch"])
                [(_, last)] = market.publish(symbol, delta(symbol, 9, ("add", "bid", "9", "1")), fill(symbol))[-1:]
                while told[-1]["seq"] < last:
                    told.append(exact(client.receive()))
                if channel == channels[0]:
                    numbers = [int(trade[1]) for one in told for trade in one["notification"]["trades"]][:30]
                else:
                    numbers = [one["notification"]["event"]["n"] for one in told[:30]]
                assert numbers == list(range(20, 50))


@REAL
def test_what_the_topic_no_longer_has_is_not_recovered(bus: Bus, market: Market, forgetful: Gateway) -> None:
    symbol = fresh_symbol("R")
    channel = f"trades.{symbol}"
    [(partition, start)] = folded(forgetful, market, symbol, snapshot(symbol))
    epoch = first_of(forgetful, channel)["epoch"]
    places = folded(forgetful, market, symbol, *numbered(symbol, 0, 4 * SHORT_HISTORY))
    admin = AdminClient(quiet_client(market.bootstrap))
    cut = TopicPartition(market.topic, partition, places[100][1])
    admin.delete_records([cut])[cut].result(30)
    gone = first_of(forgetful, channel, {"epoch": epoch, "seq": start})
    assert (gone["recovered"], gone["notification"]["snapshot"]) == (False, True)
    assert [trade[1] for trade in gone["notification"]["trades"]] == list(range(100, 200))
    # The first that is there is still enough for whoever has the one before it.
    kept = first_of(forgetful, channel, {"epoch": epoch, "seq": places[99][1]})
    assert kept["recovered"] is True
    assert kept["notification"]["trades"][0][1] == 100
