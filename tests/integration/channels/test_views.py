"""Views of a book: chained, conflated, stale and healed, limited (docs/contract.md#channels)."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import chain, count, islice
from typing import Any

import pytest

from tests.integration.channels.world import (
    HEARTBEAT_SECONDS,
    MAX_SUBSCRIPTIONS,
    MAX_VIEWS,
    NOW_MS,
    TICK,
    expect_no_news,
    folded,
    level,
    quiet,
    random_series,
    received,
)
from tests.integration.clients import ClientBook, exact, is_heartbeat, news
from tests.integration.events import delta, fill, fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway

# Views of a random series against a naive reference.


class NaiveBook:
    """Levels by side, from the records, as simply as can be."""

    def __init__(self) -> None:
        self.levels: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "ask": {}}

    def fold(self, record: bytes) -> None:
        event = json.loads(record)
        if event["type"] == "orderbook_snapshot":
            for side in ("bid", "ask"):
                self.levels[side] = {Decimal(one["price"]): Decimal(one["quantity"]) for one in event[f"{side}s"]}
        elif event["type"] == "orderbook_delta":
            for one in event["deltas"]:
                price, quantity = Decimal(one["price"]), Decimal(one["quantity"])
                self.levels[one["side"]].pop(price, None)
                if one["action"] != "remove" and quantity:
                    self.levels[one["side"]][price] = quantity

    def view(self, ticks: int | None, depth: int | None) -> tuple[list[Any], list[Any]]:
        sides = []
        for side, rounding in (("bid", ROUND_FLOOR), ("ask", ROUND_CEILING)):
            summed: dict[Decimal, Decimal] = defaultdict(Decimal)
            for price, quantity in self.levels[side].items():
                step = TICK * (ticks or 0)
                summed[(price / step).to_integral_value(rounding) * step if ticks else price] += quantity
            sides.append(sorted(summed.items(), reverse=side == "bid")[:depth])
        return sides[0], sides[1]


VIEWS = [
    ("none.all.raw", None, None),
    ("none.1.raw", None, 1),
    ("none.7.100ms", None, 7),
    ("10.3.raw", 10, 3),
    ("25.all.50ms", 25, None),
    ("100.1000.200ms", 100, 1000),
]


def test_every_view_chains_and_ends_where_the_engine_does(gateway: Gateway, market: Market, symbol: str) -> None:
    naive = NaiveBook()
    first, *records = random_series(symbol, 1500, seed=7)
    folded(gateway, market, symbol, first)
    naive.fold(first)
    with ExitStack() as stack:
        clients = [stack.enter_context(quiet(gateway)) for _ in VIEWS]
        books = [ClientBook() for _ in VIEWS]
        for client, (form, _, _) in zip(clients, VIEWS, strict=True):
            client.subscribe(f"book.{symbol}.{form}")
        writer = threading.Thread(
            target=lambda: [market.publish(symbol, *records[n : n + 50]) for n in range(0, len(records), 50)]
        )
        writer.start()
        for record in records:
            naive.fold(record)
        fills = [int(json.loads(record)["quantity"]) for record in records if b'"fill"' in record]
        joiner = stack.enter_context(quiet(gateway))
        clients.append(joiner)
        books.append(ClientBook())
        joiner.subscribe(f"book.{symbol}.{VIEWS[2][0]}")
        for client, book, (_, ticks, depth) in zip(clients, books, [*VIEWS, VIEWS[2]], strict=True):
            while book.levels() != naive.view(ticks, depth) or (client is not joiner and len(book.trades) < len(fills)):
                book.apply(exact(client.receive()))
        writer.join()
    for book in books[:-1]:
        assert [trade[1] for trade in book.trades] == fills
        assert book.kinds[0] == "snapshot"
        assert set(book.kinds[1:]) == {"changes"}


def test_interval_is_the_least_time_between_notifications_and_conflates(
    gateway: Gateway, market: Market, symbol: str
) -> None:
    folded(gateway, market, symbol, snapshot(symbol))
    with quiet(gateway) as client:
        channel = f"book.{symbol}.none.all.100ms"
        client.subscribe(channel)
        book = ClientBook()
        book.apply(news(client, channel))
        stop = threading.Event()

        def write() -> None:
            numbers = count(1)
            while not stop.is_set():
                # Many at once: how often it can publish is not in question.
                pairs = [
                    (delta(symbol, number, ("update", "bid", "10.00", f"{number}")), fill(symbol, n=number))
                    for number in islice(numbers, 50)
                ]
                market.publish(symbol, *chain.from_iterable(pairs))

        began = time.monotonic()
        writer = threading.Thread(target=write)
        writer.start()
        for _ in range(10):
            book.apply(news(client, channel))
        took = time.monotonic() - began
        stop.set()
        writer.join()
    # The first goes at once, and nine intervals lie between ten.
    assert took > 0.9 - 0.02
    assert len(book.trades) > 20


def test_first_change_after_quiet_goes_at_once_and_joiners_get_the_told_state(
    gateway: Gateway, market: Market, symbol: str
) -> None:
    channel, raw = f"book.{symbol}.none.all.60000ms", f"book.{symbol}.none.all.raw"
    folded(gateway, market, symbol, snapshot(symbol, bids=[level("10", "1")], asks=[]))
    with quiet(gateway) as client, quiet(gateway) as witness, quiet(gateway) as joiner:
        client.subscribe(channel)
        witness.subscribe(raw)
        news(client, channel)
        news(witness, raw)
        [(_, first)] = market.publish(symbol, delta(symbol, 2, ("update", "bid", "10", "2")))
        told = news(client, channel, 20)
        assert (told["seq"], told["notification"]["bid_changes"]) == (first, [[10, 1, 2]])
        news(witness, raw)
        market.publish(symbol, delta(symbol, 3, ("update", "bid", "10", "3")))
        assert news(witness, raw)["notification"]["bid_changes"] == [[10, 2, 3]]
        joiner.subscribe(channel)
        snap = news(joiner, channel)
        assert (snap["seq"], snap["notification"]["bid_changes"]) == (first, [[10, 0, 2]])
        expect_no_news(client)


def test_book_without_news_says_every_five_seconds_that_it_is_alive(
    gateway: Gateway, market: Market, symbol: str
) -> None:
    offset = folded(gateway, market, symbol, snapshot(symbol))
    channels = [
        f"book.{symbol}.none.all.raw",
        f"book.{symbol}.none.3.60000ms",
        f"ticker.{symbol}.raw",
        f"trades.{symbol}",
    ]
    with quiet(gateway) as client:
        began = time.monotonic()
        client.subscribe(*channels)
        assert [exact(client.receive())["channel_name"] for _ in channels] == channels
        beats = [exact(client.receive()) for _ in range(2)]
        took = time.monotonic() - began
    assert took > HEARTBEAT_SECONDS - 0.1
    assert [beat["channel_name"] for beat in beats] == channels[:2]
    assert all(is_heartbeat(beat) and beat["seq"] == offset for beat in beats)
    assert all(beat["notification"]["total_bid_amount"] == Decimal("1.50") for beat in beats)


@pytest.mark.parametrize("fault", ["crossed", "malformed"])
def test_delta_that_cannot_be_true_is_told_once_and_healed_by_the_next_snapshot(
    gateway: Gateway, market: Market, symbol: str, fault: str
) -> None:
    conflatable = [
        f"book.{symbol}.none.all.raw",
        f"book.{symbol}.none.1.1000ms",
        f"ticker.{symbol}.raw",
        f"lwt.{symbol}.raw",
    ]
    wrong = {
        "crossed": delta(symbol, 2, ("add", "bid", "10.20", "1")),
        "malformed": delta(symbol, 2, ("add", "bid", "ten", "1")),
    }[fault]
    folded(gateway, market, symbol, snapshot(symbol))
    with quiet(gateway) as client, quiet(gateway) as joiner, quiet(gateway) as tape:
        client.subscribe(*conflatable)
        firsts = [exact(client.receive()) for _ in conflatable]
        assert all(first["notification"]["snapshot"] for first in firsts)
        market.publish(symbol, wrong)
        stale = [received(client) for _ in conflatable]
        assert sorted(told["channel_name"] for told in stale) == sorted(conflatable)
        assert [told["notification"]["stale"] for told in stale] == [True] * len(conflatable)
        # Neither what follows nor the same fault again is worth a word; trades go on.
        tape.subscribe(f"trades.{symbol}")
        news(tape, f"trades.{symbol}")
        market.publish(symbol, wrong, delta(symbol, 3, ("add", "bid", "9", "1")), fill(symbol, timestamp=NOW_MS))
        assert len(news(tape, f"trades.{symbol}")["notification"]["trades"]) == 1
        client.expect_silence()
        joiner.subscribe(conflatable[0])
        assert exact(joiner.receive())["notification"]["stale"] is True
        [(_, offset)] = market.publish(symbol, snapshot(symbol, 9, bids=[level("8", "1")]))
        healed = [exact(client.receive()) for _ in conflatable]
        assert all(told["notification"]["snapshot"] and told["seq"] == offset for told in healed)
        assert "conflated" not in healed[0]["notification"]
        # Who joined meanwhile has held nothing.
        gone = [Decimal("10.00"), Decimal("1.50"), 0]
        for told, held in ((healed[0], [gone]), (exact(joiner.receive()), [])):
            assert told["notification"]["bid_changes"] == [[8, 0, 1], *held]
        market.publish(symbol, delta(symbol, 10, ("update", "bid", "8", "2")))
        assert news(joiner, conflatable[0])["notification"]["bid_changes"] == [[8, 1, 2]]


def test_fault_and_snapshot_in_one_batch_leave_no_book_without_a_word(
    gateway: Gateway, market: Market, symbol: str
) -> None:
    channel = f"book.{symbol}.none.all.raw"
    folded(gateway, market, symbol, snapshot(symbol))
    book = ClientBook()
    with quiet(gateway) as client:
        client.subscribe(channel)
        wrong = delta(symbol, 2, ("add", "bid", "10.20", "1"))
        market.publish(symbol, wrong, snapshot(symbol, 3, bids=[level("7", "1")], asks=[]))
        while book.levels() != ([(7, 1)], []):
            book.apply(exact(client.receive()))
    assert book.kinds[-1] in ("changes", "snapshot")


def test_unlisted_symbol_and_unknown_forms_are_refused(gateway: Gateway, symbol: str) -> None:
    with quiet(gateway) as client:
        for channel in (
            f"book.{fresh_symbol()}.none.10.raw",
            f"book.{symbol}.0.10.raw",
            f"book.{symbol}.none.0.raw",
            f"book.{symbol}.none.1001.raw",
            f"book.{symbol}.none.10.10ms",
            f"ticker.{symbol}",
            f"trades.{symbol}.raw",
        ):
            answer, before = client.call("public/subscribe", {"channels": [f"trades.{symbol}", channel]})
            assert (answer["error"]["code"], before) == (-32602, []), channel
        assert client.result("unsubscribe", {"channels": [f"trades.{symbol}"]}) == []


def test_grouping_without_a_tick_is_refused(market: Market) -> None:
    symbol = fresh_symbol()
    with Gateway.on(market) as other, quiet(other) as client:
        answer, _ = client.call("public/subscribe", {"channels": [f"book.{symbol}.5.10.raw"]})
        assert answer["error"]["code"] == -32602
        client.subscribe(f"book.{symbol}.none.10.raw")


# Limits.


def test_views_and_subscriptions_beyond_their_limits_are_too_many_requests(gateway: Gateway, symbol: str) -> None:
    gateway.wait_until(lambda: gateway.clients() == 0, "the connections of the last test gone")
    channels = [f"book.{symbol}.none.{depth}.raw" for depth in range(1, MAX_VIEWS + 2)]
    with quiet(gateway) as one, quiet(gateway) as two:
        answer, _ = one.call("public/subscribe", {"channels": channels[: MAX_SUBSCRIPTIONS + 1]})
        assert answer["error"]["code"] == 10003
        assert answer["error"]["data"]["retry_after"] > 0
        one.subscribe(*channels[:MAX_SUBSCRIPTIONS])
        answer, _ = two.call("public/subscribe", {"channels": channels[MAX_SUBSCRIPTIONS:]})
        assert answer["error"]["code"] == 10003
        two.subscribe(*channels[MAX_SUBSCRIPTIONS:-1])
        answer, _ = two.call("public/subscribe", {"channels": channels[-1:]})
        assert answer["error"]["code"] == 10003
        # What somebody listens to already is no further view, and what nobody does any more makes room.
        two.subscribe(*channels[:2])
        two.result("unsubscribe", {"channels": channels[MAX_VIEWS - 1 : MAX_VIEWS]})
        two.subscribe(channels[-1])
