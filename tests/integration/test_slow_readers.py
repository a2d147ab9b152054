"""Clients that do not read (docs/contract.md#slow-consumers): bounded, told so, and nobody else's trouble."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.integration.clients import ClientBook, Closed, WebSocket, exact
from tests.integration.events import delta, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway

MAX_BUFFER_BYTES = 65_536
# What a healthy client may wait for news while others are stuck, on a machine that has other work too.
IN_TIME_SECONDS = 30.0
# What the gateway may grow by for all that is stuck: its own buffers, and what Python keeps for itself.
GROWTH_BYTES = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    settings = {
        "auth": {"mode": "optional"},
        # Who does not read answers no pings either; that is not what is tested here.
        "websocket": {"max_buffer_bytes": MAX_BUFFER_BYTES, "ping_interval_seconds": 3600},
        "limits": {"requests_per_second": 0},
        "kafka": {"consume": "broadcast"},
    }
    # Who comes back finds everything here: the embedded cluster itself forgets after 5 MiB.
    with Gateway.on(market, settings, {"GATEWAY_HISTORY_RECORDS": "50000"}) as gateway:
        yield gateway


def quiet(gateway: Gateway) -> WebSocket:
    return WebSocket(gateway.address, "/ws?stream=none")


def lazy(gateway: Gateway, path: str = "/ws?stream=none") -> WebSocket:
    """A client for which the kernel keeps next to nothing."""
    return WebSocket(gateway.address, path, receive_buffer=4096)


def read_fast(client: WebSocket) -> None:
    """Give a lazy client room, so that the kernel lets through at once what waits for it."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)


def folded(gateway: Gateway, market: Market, symbol: str, *records: bytes) -> int:
    """Publish, and wait until the gateway has folded them in; the last one's offset."""
    with quiet(gateway) as witness:
        witness.subscribe(f"events.{symbol}")
        places = market.publish(symbol, *records)
        witness.receive_until(lambda message: exact(message)["seq"] >= places[-1][1])
    return places[-1][1]


def resident_bytes(gateway: Gateway) -> int:
    """VmRSS of the process."""
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found.group(1)) * 1024


def numbers_of(told: dict[str, Any]) -> list[int]:
    """The numbers of the fills that a message tells of."""
    inside = told.get("notification", told)
    if "trades" in inside:
        return [int(trade["quantity"] if isinstance(trade, dict) else trade[1]) for trade in inside["trades"]]
    event = inside.get("event", inside)
    return [event["n"]] if event.get("type") == "fill" else []


def padded(symbol: str, first: int, count: int) -> list[bytes]:
    """Fills whose quantity and `n` are their number; large, for the kernel takes some megabytes before anyone waits."""
    ids = {"buy_order_id": "b" * 128, "sell_order_id": "s" * 128}
    return [fill(symbol, n=n, quantity=str(n), **ids) for n in range(first, first + count)]


@pytest.mark.parametrize("kind", ["trades", "events", "stream"])
def test_stuck_lossless_reader_is_closed_with_4008_while_others_get_everything_in_time(
    gateway: Gateway, market: Market, kind: str
) -> None:
    symbol = fresh_symbol("S")
    channel = f"{kind}.{symbol}"
    folded(gateway, market, symbol, snapshot(symbol))
    before = gateway.metric("gateway_slow_closes_total", cause="overflow")
    written = 0
    with lazy(gateway, "/ws" if kind == "stream" else "/ws?stream=none") as stuck, quiet(gateway) as healthy:
        epoch = ""
        if kind != "stream":
            # In the older dialect trades have their orders' ids.
            stuck.send({"type": "subscribe", "channel": channel})
            epoch = exact(stuck.receive())["epoch"]
        healthy.subscribe(channel if kind != "stream" else f"events.{symbol}")
        got: list[int] = []
        slowest = 0.0
        while gateway.metric("gateway_slow_closes_total", cause="overflow") == before:
            assert written < 40_000, "nothing ever overflowed"
            # Few at a time: whoever is not read from within 5 s of the Close frame does not get it.
            market.publish(symbol, *padded(symbol, written, 250))
            written += 250
            began = time.monotonic()
            while not got or got[-1] < written - 1:
                got += numbers_of(exact(healthy.receive()))
            slowest = max(slowest, time.monotonic() - began)
        read_fast(stuck)
        assert got == list(range(written))
        assert slowest < IN_TIME_SECONDS
        # What had been on its way is whole; then the end, and why.
        read: list[int] = []
        last: dict[str, Any] = {}
        ended: Closed | None = None
        while ended is None:
            try:
                last = exact(stuck.receive())
            except Closed as closed:
                ended = closed
            else:
                read += [n for n in numbers_of(last) if last.get("symbol", symbol) == symbol]
        assert (ended.code, ended.reason) == (4008, "slow consumer")
        assert read == list(range(len(read)))
        assert len(read) < written
        healthy.expect_silence()
    if kind == "stream":
        return
    with quiet(gateway) as again:
        since = {channel: {"epoch": epoch, "seq": last["seq"]}}
        again.subscribe(channel, since=since)
        first = exact(again.receive())
        assert first["recovered"] is True
        read += numbers_of(first)
        while len(read) < written:
            read += numbers_of(exact(again.receive()))
    assert read == list(range(written))


def wide(symbol: str, number: int) -> bytes:
    """A delta that gives 1,000 levels another quantity."""
    return delta(symbol, number, *(("update", "bid", f"5.{step:03d}", f"{number}") for step in range(1000)))


def wide_channels(symbol: str) -> list[str]:
    """Views that say a thousand changes each: one delta becomes 100 KB for a client of all."""
    return [f"book.{symbol}.none.{depth}.raw" for depth in ("all", "1000", "999", "998", "997", "996")]


def test_stuck_book_reader_skips_ahead_and_comes_back_with_a_conflated_snapshot(
    gateway: Gateway, market: Market
) -> None:
    symbol = fresh_symbol("S")
    folded(gateway, market, symbol, snapshot(symbol, bids=[]))
    books = wide_channels(symbol)
    channels = [*books, f"ticker.{symbol}.raw", f"lwt.{symbol}.raw"]
    before = gateway.metric("gateway_conflations_total", kind="book")
    with lazy(gateway) as stuck, quiet(gateway) as healthy:
        for client in (stuck, healthy):
            client.subscribe(*channels)
        here = {channel: ClientBook() for channel in books}
        there = {channel: ClientBook() for channel in books}
        seqs: dict[str, list[int]] = {channel: [] for channel in channels}

        def read_up_to(client: WebSocket, held: dict[str, ClientBook], seq: int) -> None:
            while any(book.seq < seq for book in held.values()):
                told = exact(client.receive())
                if told["channel_name"] in held:
                    held[told["channel_name"]].apply(told)
                elif client is stuck:
                    seqs[told["channel_name"]].append(told["seq"])

        slowest = 0.0
        number = 0
        while gateway.metric("gateway_conflations_total", kind="book") < before + len(books):
            assert number < 500, "not everything was conflated"
            number += 1
            [(_, offset)] = market.publish(symbol, wide(symbol, number))
            began = time.monotonic()
            read_up_to(healthy, there, offset)
            slowest = max(slowest, time.monotonic() - began)
        # Skipped: nothing of all this is there for it.
        skipped = [fill(symbol, n=n) for n in range(20)]
        places = market.publish(symbol, *skipped, *(wide(symbol, number + n) for n in range(1, 5)))
        read_up_to(healthy, there, places[-1][1])
        read_up_to(stuck, here, places[-1][1])
        assert slowest < IN_TIME_SECONDS
        for channel in books:
            assert here[channel].kinds.count("conflated") == 1
            assert here[channel].levels() == there[channel].levels()
            assert set(there[channel].kinds[1:]) == {"changes"}
            assert len(here[channel].trades) < len(there[channel].trades) == len(skipped)
        assert all(one == sorted(one) for one in seqs.values())
        # It is a client like any other again.
        [(_, offset)] = market.publish(symbol, wide(symbol, number + 300))
        for client, held in ((stuck, here), (healthy, there)):
            read_up_to(client, held, offset)
        for channel in books:
            assert here[channel].kinds[-1] == there[channel].kinds[-1] == "changes"
            assert here[channel].levels() == there[channel].levels()


def test_slow_reader_of_books_and_trades_loses_changes_of_books_and_no_trade(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol("S")
    folded(gateway, market, symbol, snapshot(symbol, bids=[]))
    books, trades = wide_channels(symbol), f"trades.{symbol}"
    before = gateway.metric("gateway_conflations_total", kind="book")
    with lazy(gateway) as stuck, quiet(gateway) as witness:
        stuck.subscribe(*books, trades)
        witness.subscribe(trades)
        written = 0
        while gateway.metric("gateway_conflations_total", kind="book") < before + len(books):
            assert written < 500, "not everything was conflated"
            written += 1
            [_, (_, offset)] = market.publish(
                symbol, wide(symbol, written), fill(symbol, n=written, quantity=str(written))
            )
            while exact(witness.receive())["seq"] < offset:
                pass
        held = {channel: ClientBook() for channel in books}
        told_trades: list[int] = []
        while len(told_trades) < written or any("conflated" not in book.kinds for book in held.values()):
            told = exact(stuck.receive())
            if told["channel_name"] == trades:
                told_trades += numbers_of(told)
            else:
                held[told["channel_name"]].apply(told)
    assert told_trades == list(range(1, written + 1))
    assert all(len(book.trades) < written for book in held.values())


def times_skipped(client: WebSocket, books: list[str], seq: int) -> list[int]:
    """Read all books up to `seq`; of each, how often it was said that something had been skipped."""
    read_fast(client)
    told, read = dict.fromkeys(books, 0), dict.fromkeys(books, -1)
    while min(read.values()) < seq:
        # Megabytes for each client: what is in them is the other tests' business.
        message = client.receive()
        found = re.search(rb'"channel_name":"([^"]+)","seq":(\d+)', message)
        assert found is not None
        channel = found[1].decode()
        read[channel] = int(found[2])
        told[channel] += b'"conflated":true' in message
    return list(told.values())


def test_memory_stays_bounded_however_many_do_not_read(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol("S")
    count = 30
    folded(gateway, market, symbol, snapshot(symbol, bids=[]), wide(symbol, 1))
    books = wide_channels(symbol)
    started = gateway.metric("gateway_conflations_total", kind="book")
    with ExitStack() as stack:
        witness = stack.enter_context(quiet(gateway))
        witness.subscribe(f"lwt.{symbol}.raw")
        stuck = [stack.enter_context(lazy(gateway)) for _ in range(count)]
        for client in stuck:
            client.subscribe(*books)
        before = highest = resident_bytes(gateway)
        skipped, number, left = 0.0, 1, 20
        # When all are full, 20 more rounds of 100 KB for each: 60 MB if that waited. Not more, and all are read from at
        # once, because whoever is stuck for half a minute is closed.
        while left:
            assert number < 500, "not everything was conflated"
            number += 1
            [(_, offset)] = market.publish(symbol, wide(symbol, number))
            while exact(witness.receive())["seq"] < offset:
                pass
            highest = max(highest, resident_bytes(gateway))
            skipped = gateway.metric("gateway_conflations_total", kind="book") - started
            left -= skipped >= count * len(books)
        assert highest - before < GROWTH_BYTES, f"{(highest - before) >> 20} MiB more"
        assert gateway.clients() == count + 1
        # However much the kernel took: whoever is skipped is told so once, and before that is not skipped again.
        with ThreadPoolExecutor(count) as pool:
            told = list(chain.from_iterable(pool.map(lambda client: times_skipped(client, books, offset), stuck)))
        assert min(told) >= 1
        assert sum(told) == skipped


def test_memory_stays_bounded_when_a_client_that_does_not_read_asks_again_and_again(
    gateway: Gateway, market: Market
) -> None:
    symbol = fresh_symbol("S")
    levels = [{"price": f"1.{step:04d}", "quantity": "1.00000001"} for step in range(4000)]
    folded(gateway, market, symbol, snapshot(symbol, bids=levels))
    channels = [f"book.{symbol}.none.all.raw", f"events.{symbol}"]
    asked = 300
    with lazy(gateway) as stuck:
        stuck.subscribe(*channels)
        before = resident_bytes(gateway)
        requests = gateway.metric("gateway_client_messages_total")
        for number in range(asked):
            # More than 200 KB of snapshots each.
            stuck.send({"id": number, "method": "public/subscribe", "params": {"channels": channels}})
        gateway.wait_until(
            lambda: gateway.metric("gateway_client_messages_total") >= requests + asked, "the requests read"
        )
        grown = resident_bytes(gateway) - before
        assert grown < GROWTH_BYTES, f"{grown >> 20} MiB more"
        answers = snapshots = 0
        kinds: set[str] = set()
        while answers < asked or kinds != set(channels):
            told = exact(stuck.receive())
            if "result" in told:
                answers += 1
                kinds.clear()
            elif told["notification"].get("snapshot"):
                snapshots += 1
                kinds.add(told["channel_name"])
        # Owed is the last one, not each.
        assert snapshots < asked * len(channels)
