"""Market-data channels over real sockets (contract, section 3): what each says of a scripted series of records, digit by
digit, in all dialects, compressed or not.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.integration.support import (
    ClientBook,
    Gateway,
    Market,
    WebSocket,
    delta,
    dump,
    exact,
    fill,
    fresh_symbol,
    is_heartbeat,
    news,
    notification,
    snapshot,
)
from tests.support.kafka import Bus

MAX_SUBSCRIPTIONS = 20
MAX_VIEWS = 30
HEARTBEAT_SECONDS = 5.0
TICK = Decimal("0.01")
# Recent: statistics are of the last 24 hours.
NOW_MS = int(time.time() * 1000)
NOW = f"{NOW_MS // 1000}.{NOW_MS % 1000:03d}"
# Grouping needs a tick, ticks need configured instruments, and who configures some takes no others.
LISTED = [fresh_symbol("CH") for _ in range(60)]


@pytest.fixture(scope="module")
def market(bus: Bus) -> Market:
    return Market.create(bus)


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    settings = {
        "auth": {"mode": "optional"},
        "websocket": {"compression": True, "max_subscriptions": MAX_SUBSCRIPTIONS, "max_views": MAX_VIEWS},
        "orders": {"default_symbol": LISTED[0]},
        "instruments": [
            {"symbol": symbol, "tick": str(TICK), "lot": "0.001", "min_quantity": "0.001"} for symbol in LISTED
        ],
    }
    with Gateway.on(market, settings) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def _symbols(market: Market) -> Iterator[str]:
    return iter(LISTED[1:])


@pytest.fixture
def symbol(_symbols: Iterator[str]) -> str:
    """One that no other test has touched."""
    return next(_symbols)


def quiet(gateway: Gateway, receive_buffer: int = 0) -> WebSocket:
    return WebSocket(gateway.address, "/ws?stream=none", receive_buffer=receive_buffer)


def folded(gateway: Gateway, market: Market, symbol: str, *records: bytes) -> int:
    """Publish, and wait until the gateway has folded them in; the last one's offset."""
    with quiet(gateway) as witness:
        witness.subscribe(f"events.{symbol}")
        places = market.publish(symbol, *records, timestamp_ms=NOW_MS)
        witness.receive_until(lambda message: exact(message)["seq"] >= places[-1][1])
    return places[-1][1]


def level(price: str, quantity: str) -> dict[str, str]:
    return {"price": price, "quantity": quantity}


# What each channel says.


def test_book_begins_with_a_snapshot_and_goes_on_with_chained_changes(
    gateway: Gateway, market: Market, symbol: str
) -> None:
    channel = f"book.{symbol}.none.10.raw"
    book = snapshot(symbol, bids=[level("10.00", "1.50"), level("9.9900", "2")], asks=[level("10.20", "0.125")])
    offset = folded(gateway, market, symbol, book)
    with quiet(gateway) as client:
        client.subscribe(channel)
        first = notification(client.receive())
        assert first.pop("epoch")
        assert first == {
            "channel_name": channel,
            "seq": str(offset),
            "notification": {
                "trades": [],
                "bid_changes": [["10.00", "0", "1.50"], ["9.9900", "0", "2"]],
                "ask_changes": [["10.20", "0", "0.125"]],
                "total_bid_amount": "3.5",
                "total_ask_amount": "0.125",
                "time": NOW,
                "snapshot": True,
            },
        }
        change = delta(
            symbol,
            5,
            ("update", "bid", "10.00", "1.75"),
            ("add", "ask", "10.30", "4"),
            ("remove", "bid", "9.9900", "2"),
        )
        [(_, offset)] = market.publish(symbol, change, timestamp_ms=NOW_MS + 250)
        assert notification(client.receive()) == {
            "channel_name": channel,
            "seq": str(offset),
            "notification": {
                "trades": [],
                "bid_changes": [["10.00", "1.50", "1.75"], ["9.9900", "2", "0"]],
                "ask_changes": [["10.30", "0", "4"]],
                "total_bid_amount": "1.75",
                "total_ask_amount": "4.125",
                "time": f"{(NOW_MS + 250) // 1000}.{(NOW_MS + 250) % 1000:03d}",
            },
        }
        trade = fill(symbol, price="10.20", quantity="0.1250", timestamp=NOW_MS + 300, taker_side="bid")
        [(_, offset)] = market.publish(symbol, trade)
        told = notification(client.receive())
        at = f"{(NOW_MS + 300) // 1000}.{(NOW_MS + 300) % 1000:03d}"
        assert (told["seq"], told["notification"]["bid_changes"], told["notification"]["ask_changes"]) == (
            str(offset),
            [],
            [],
        )
        assert told["notification"]["trades"] == [["10.20", "0.1250", "buy", at, False]]
        day = {name: Decimal(value) for name, value in told["notification"]["stats_24h"].items()}
        price = Decimal("10.20")
        assert day == {
            "high_24h": price,
            "low_24h": price,
            "volume_24h": Decimal("1.275"),
            "open_24h": price,
            "last_price": price,
        }


def test_depth_says_what_leaves_and_enters_the_window_and_nothing_of_what_is_below(
    gateway: Gateway, market: Market, symbol: str
) -> None:
    channel = f"book.{symbol}.none.2.raw"
    folded(gateway, market, symbol, snapshot(symbol, bids=[level(p, "1") for p in ("10", "9", "8")], asks=[]))
    with quiet(gateway) as client:
        client.subscribe(channel)
        first = news(client, channel)
        assert first["notification"]["bid_changes"] == [[10, 0, 1], [9, 0, 1]]
        assert first["notification"]["total_bid_amount"] == 3
        # The first of these is below the window: the next notification is of the second.
        market.publish(symbol, delta(symbol, 2, ("add", "bid", "7", "5")))
        market.publish(symbol, delta(symbol, 3, ("add", "bid", "11", "2")))
        entered = news(client, channel)["notification"]
        assert sorted(entered["bid_changes"]) == [[9, 1, 0], [11, 0, 2]]
        assert entered["total_bid_amount"] == 10
        market.publish(symbol, delta(symbol, 4, ("remove", "bid", "11", "0")))
        assert sorted(news(client, channel)["notification"]["bid_changes"]) == [[9, 0, 1], [11, 2, 0]]


def test_grouped_book_sums_levels_bids_down_and_asks_up(gateway: Gateway, market: Market, symbol: str) -> None:
    channel = f"book.{symbol}.10.all.raw"
    bids = [level("10.09", "1"), level("10.01", "0.5"), level("10.00", "0.25"), level("9.99", "3")]
    asks = [level("10.11", "1.000"), level("10.20", "2.5"), level("10.21", "4")]
    folded(gateway, market, symbol, snapshot(symbol, bids=bids, asks=asks))
    with quiet(gateway) as client:
        client.subscribe(channel)
        first = news(client, channel)["notification"]
        tenth = Decimal("0.1")
        assert first["bid_changes"] == [[100 * tenth, 0, Decimal("1.75")], [99 * tenth, 0, 3]]
        assert first["ask_changes"] == [[102 * tenth, 0, Decimal("3.5")], [103 * tenth, 0, 4]]
        market.publish(symbol, delta(symbol, 2, ("remove", "bid", "10.01", "0"), ("update", "ask", "10.21", "5")))
        told = news(client, channel)["notification"]
        assert told["bid_changes"] == [[100 * tenth, Decimal("1.75"), Decimal("1.25")]]
        assert told["ask_changes"] == [[103 * tenth, 4, 5]]


def test_ticker_says_best_prices_mark_and_day(gateway: Gateway, market: Market, symbol: str) -> None:
    channel = f"ticker.{symbol}.raw"
    folded(gateway, market, symbol, snapshot(symbol))
    with quiet(gateway) as client:
        client.subscribe(channel)
        first = news(client, channel)
        assert first["epoch"]
        inside = first["notification"]
        assert (inside["snapshot"], inside["last_price"], inside["mark_price"]) == (True, 0, Decimal("10.10"))
        for price, quantity, after_ms in (("10.20", "0.500", 1), ("9.95", "2", 2), ("10.05", "1", 3)):
            trade = fill(symbol, price=price, quantity=quantity, timestamp=NOW_MS + after_ms)
            [(_, offset)] = market.publish(symbol, trade)
            told = news(client, channel)
        assert told["seq"] == offset
        inside = told["notification"]
        stamp = inside.pop("mark_timestamp")
        assert stamp == Decimal(NOW_MS + 3) / 1000
        mark = Decimal("10.10")
        assert inside == {
            "mark_price": mark,
            "best_bid_price": Decimal("10.00"),
            "best_bid_amount": Decimal("1.50"),
            "best_ask_price": Decimal("10.20"),
            "best_ask_amount": 2,
            "last_price": Decimal("10.05"),
            "volume_24h": Decimal("3.5"),
            "value_24h": Decimal("35.05"),
            "low_price_24h": Decimal("9.95"),
            "high_price_24h": Decimal("10.20"),
            "change_24h": Decimal("-0.15"),
            "delta": 1,
            **dict.fromkeys(("index", "forward", "collar_low", "collar_high"), mark),
            "funding_mark": 0,
            "funding_rate": 0,
            "realised_funding_24h": 0,
            "average_funding_rate_24h": 0,
            "open_interest": 0,
        }
        market.publish(symbol, delta(symbol, 2, ("remove", "ask", "10.20", "0")))
        inside = news(client, channel)["notification"]
        assert [inside[name] for name in ("mark_price", "best_ask_price", "best_ask_amount")] == [
            Decimal("10.05"),
            0,
            0,
        ]


def test_lwt_says_best_levels_with_their_totals(gateway: Gateway, market: Market, symbol: str) -> None:
    channel = f"lwt.{symbol}.raw"
    offset = folded(gateway, market, symbol, snapshot(symbol))
    with quiet(gateway) as client:
        client.subscribe(channel)
        first = notification(client.receive())
        assert first.pop("epoch")
        state = {"b": ["10.00", "1.50", "1.5"], "a": ["10.20", "2", "2"], "l": "0", "snapshot": True}
        assert Decimal(first["notification"].pop("m")) == Decimal("10.10")
        assert first == {"channel_name": channel, "seq": str(offset), "notification": state}
        market.publish(symbol, delta(symbol, 2, ("add", "bid", "10.10", "0.30"), ("remove", "ask", "10.20", "0")))
        told = notification(client.receive())["notification"]
        assert Decimal(told["b"].pop()) == Decimal("1.80")
        assert told == {"b": ["10.10", "0.30"], "a": ["0", "0", "0"], "l": "0", "m": "0"}


def test_trades_begin_with_the_last_hundred_and_leave_none_out(gateway: Gateway, market: Market, symbol: str) -> None:
    channel = f"trades.{symbol}"
    fills = [fill(symbol, quantity=str(n), timestamp=NOW_MS + n, taker_side="ask") for n in range(1, 131)]
    offset = folded(gateway, market, symbol, *fills)
    with quiet(gateway) as client:
        client.subscribe(channel)
        first = news(client, channel)
        assert (first["seq"], first["notification"]["snapshot"]) == (offset, True)
        assert [trade[1] for trade in first["notification"]["trades"]] == list(range(31, 131))
        assert first["notification"]["trades"][-1] == [
            Decimal("10.10"), 130, "sell", Decimal(NOW_MS + 130) / 1000, False
        ]  # fmt: skip
        places = market.publish(symbol, *(fill(symbol, quantity=str(n)) for n in range(131, 731)))
        quantities: list[Any] = []
        last = offset
        while len(quantities) < 600:
            told = news(client, channel)
            assert told["seq"] > last
            last = told["seq"]
            quantities += [trade[1] for trade in told["notification"]["trades"]]
        assert (quantities, last) == (list(range(131, 731)), places[-1][1])


@pytest.mark.parametrize(
    ("more", "side"),
    [
        ({"price": "10.00", "taker_side": "bid"}, "buy"),
        ({"price": "10.20", "taker_side": "ask"}, "sell"),
        ({"price": "10.20"}, "buy"),
        ({"price": "10.00"}, "sell"),
        ({"price": "10.15"}, "buy"),
        ({"price": "10.05"}, "sell"),
    ],
)
def test_aggressor_is_told_by_the_engine_or_else_by_the_quote(
    gateway: Gateway, market: Market, symbol: str, more: dict[str, str], side: str
) -> None:
    channel = f"trades.{symbol}"
    folded(gateway, market, symbol, snapshot(symbol))
    with quiet(gateway) as client:
        client.subscribe(channel)
        assert news(client, channel)["notification"] == {"trades": [], "snapshot": True}
        market.publish(symbol, fill(symbol, **more))
        [trade] = news(client, channel)["notification"]["trades"]
        assert trade[2] == side


def test_every_digit_of_thirty_arrives_on_every_channel(gateway: Gateway, market: Market, symbol: str) -> None:
    bid, ask = "123456789012.345678901234567890", "123456789012.345678901234567891"
    few, many = "0.000000000000000000000000000001", "987654321098765432109876543210"
    channels = [f"book.{symbol}.none.all.raw", f"ticker.{symbol}.raw", f"lwt.{symbol}.raw", f"trades.{symbol}"]
    with ExitStack() as stack:
        clients = [stack.enter_context(quiet(gateway)) for _ in channels]
        for client, channel in zip(clients, channels, strict=True):
            client.subscribe(channel)
        market.publish(symbol, snapshot(symbol, bids=[level(bid, few)], asks=[level(ask, many)]))
        book, ticker, lwt, _ = [notification(client.receive())["notification"] for client in clients]
        market.publish(symbol, fill(symbol, price=bid, quantity=few, taker_side="ask", timestamp=NOW_MS))
        book_news, ticker_news, lwt_news, trades = [notification(c.receive())["notification"] for c in clients]
    assert (book["bid_changes"], book["ask_changes"]) == ([[bid, "0", few]], [[ask, "0", many]])
    assert (book["total_bid_amount"], book["total_ask_amount"]) == (few, many)
    for of in (book_news, trades):
        assert of["trades"] == [[bid, few, "sell", NOW, False]]
    names = ("best_bid_price", "best_bid_amount", "best_ask_price", "best_ask_amount")
    assert [ticker[name] for name in names] == [bid, few, ask, many]
    # Sums and products have as many digits as they need.
    assert ticker["mark_price"] == "123456789012.3456789012345678905"
    assert ticker_news["last_price"] == bid
    assert Decimal(ticker_news["value_24h"]) == Decimal("123456789012345678901234567890e-48")
    assert lwt["b"] == [bid, few, few]
    assert lwt["a"] == [ask, many, many]
    assert lwt_news["l"] == bid


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


def random_series(symbol: str, count: int, seed: int) -> list[bytes]:
    """Deltas with fills between them and a rare snapshot; bids below 10, asks above, never crossed."""
    chance = random.Random(seed)
    records = []
    for number in range(count):
        kind = chance.random()
        if number == 0 or kind < 0.01:
            sides = {
                f"{side}s": [level(f"{base + n}", str(chance.randint(1, 9))) for n in range(chance.randint(0, 5))]
                for side, base in (("bid", 1), ("ask", 11))
            }
            records.append(snapshot(symbol, number + 1, **sides))
        elif kind < 0.2:
            records.append(fill(symbol, quantity=str(number), timestamp=NOW_MS))
        else:
            changes = []
            for _ in range(chance.randint(1, 3)):
                side = chance.choice(["bid", "ask"])
                price = (
                    f"{chance.randint(3, 9) if side == 'bid' else chance.randint(11, 17)}.{chance.randint(0, 99):02d}"
                )
                action = chance.choice(["add", "update", "remove"])
                changes.append((action, side, price, f"{chance.randint(1, 999)}.{chance.randint(0, 99):02d}"))
            records.append(delta(symbol, number + 1, *changes))
    return records


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
            number = 0
            while not stop.is_set():
                number += 1
                quantity = f"{number}"
                market.publish(
                    symbol, delta(symbol, number, ("update", "bid", "10.00", quantity)), fill(symbol, n=number)
                )

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
        answer, before = client.call("public/ping")
        assert (answer["result"], [m for m in before if not is_heartbeat(exact(m))]) == ("pong", [])


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
    assert HEARTBEAT_SECONDS - 0.1 < took < HEARTBEAT_SECONDS + 5
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
        stale = [exact(client.receive(20)) for _ in conflatable]
        assert sorted(told["channel_name"] for told in stale) == sorted(conflatable)
        assert [told["notification"] for told in stale] == [{"stale": True}] * len(conflatable)
        # Neither what follows nor the same fault again is worth a word; trades go on.
        tape.subscribe(f"trades.{symbol}")
        news(tape, f"trades.{symbol}")
        market.publish(symbol, wrong, delta(symbol, 3, ("add", "bid", "9", "1")), fill(symbol, timestamp=NOW_MS))
        assert len(news(tape, f"trades.{symbol}")["notification"]["trades"]) == 1
        client.expect_silence()
        joiner.subscribe(conflatable[0])
        assert exact(joiner.receive())["notification"] == {"stale": True}
        [(_, offset)] = market.publish(symbol, snapshot(symbol, 9, bids=[level("8", "1")]))
        healed = [exact(client.receive()) for _ in conflatable]
        assert all(told["notification"]["snapshot"] and told["seq"] == offset for told in healed)
        assert "conflated" not in healed[0]["notification"]
        for told in (healed[0], exact(joiner.receive())):
            assert told["notification"]["bid_changes"] == [[8, 0, 1]]
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


# Older dialects.


@pytest.mark.parametrize("verb", ["action", "type"])
def test_older_dialects_subscribe_without_an_answer_and_get_trades_as_objects(
    gateway: Gateway, market: Market, symbol: str, verb: str
) -> None:
    book, trades = f"book.{symbol}.none.10.raw", f"trades.{symbol}"
    folded(gateway, market, symbol, snapshot(symbol))
    with quiet(gateway) as old, quiet(gateway) as new:
        for channel in (book, trades):
            old.send({verb: "subscribe", "channel": channel})
            first = news(old, channel)
            assert first["notification"]["snapshot"] is True
        new.subscribe(book)
        assert len(news(new, book)["notification"]["bid_changes"]) == 1
        record = fill(symbol, price="10.200", quantity="0.5", timestamp=NOW_MS, buy_order_id=7, taker_side="bid")
        market.publish(symbol, record)
        told = [news(old, channel)["notification"]["trades"] for channel in (book, trades)]
        [as_tuple] = news(new, book)["notification"]["trades"]
        assert as_tuple == [Decimal("10.2"), Decimal("0.5"), "buy", Decimal(NOW_MS) / 1000, False]
        expected = {
            "price": Decimal("10.200"),
            "quantity": Decimal("0.5"),
            "side": "buy",
            "timestamp": NOW_MS,
            "buy_order_id": 7,
            "sell_order_id": json.loads(record)["sell_order_id"],
        }
        assert told == [[expected], [expected]]
        old.send({verb: "unsubscribe", "channel": book})
        old.expect_silence()
        market.publish(symbol, fill(symbol))
        assert news(old, trades)["notification"]["trades"][0]["price"] == Decimal("10.10")
        old.expect_silence()


def test_orders_of_the_first_dialect_reach_the_order_topic_and_bad_ones_are_skipped(
    gateway: Gateway, market: Market
) -> None:
    good = [
        {"side": "bid", "order_type": "limit", "price": "10.05", "quantity": "0.500"},
        {"side": "ask", "order_type": "market", "price": None, "quantity": "2"},
    ]
    bad = [{"side": "up", "order_type": "limit", "price": "1", "quantity": "1"}, 5]
    with quiet(gateway) as client:
        client.send({"type": "orders", "orders": [good[0], *bad, good[1]]})
        gateway.wait_until(lambda: len(market.commands_of(LISTED[0])) == 2, "both orders on the topic")
        client.expect_silence()
    commands = sorted(market.commands_of(LISTED[0]), key=lambda command: str(command["side"]), reverse=True)
    kept = ("symbol", "side", "order_type", "price", "quantity", "user_id", "time_in_force", "type")
    assert [[command[name] for name in kept] for command in commands] == [
        [LISTED[0], "bid", "limit", "10.05", "0.500", None, "GTC", "place_order"],
        [LISTED[0], "ask", "market", None, "2", None, "IOC", "place_order"],
    ]


# Compression.


def test_client_with_compression_reads_the_same_as_one_without(gateway: Gateway, market: Market, symbol: str) -> None:
    channels = [f"book.{symbol}.none.all.raw", f"trades.{symbol}", f"events.{symbol}", f"ticker.{symbol}.raw"]
    request = json.dumps({"id": 1, "method": "public/subscribe", "params": {"channels": channels}})
    records = random_series(symbol, 400, seed=3)
    mark = dump({**json.loads(fill(symbol)), "last": True})
    asked, introduced = threading.Event(), threading.Event()

    async def compressed() -> tuple[list[bytes], str]:
        url = gateway.address.replace("http", "ws") + "/ws?stream=none"
        client: WebSocketClientConnection = await websocket_connect(url, compression_options={})
        agreed = client.headers.get("Sec-WebSocket-Extensions", "")
        await client.write_message(request)
        messages: list[bytes] = []
        while not messages or b'"last"' not in messages[-1]:
            message = await asyncio.wait_for(client.read_message(), 60)
            assert message is not None, "closed"
            messages.append(message.encode() if isinstance(message, str) else message)
            asked.set()
            if len(messages) > len(channels):
                introduced.set()
        client.close()
        return messages, agreed

    results: list[tuple[list[bytes], str]] = []
    reader = threading.Thread(target=lambda: results.append(asyncio.run(compressed())))
    with quiet(gateway) as plain:
        plain.send(request)
        answer = plain.receive()
        reader.start()
        assert asked.wait(60)
        # What comes with the first notifications is in their snapshots: everything would be, in one busy moment.
        market.publish(symbol, records[0])
        read = [plain.receive() for _ in channels]
        assert introduced.wait(60)
        for start in range(1, len(records), 40):
            market.publish(symbol, *records[start : start + 40])
        market.publish(symbol, mark)
        read += plain.receive_until(lambda message: b'"last"' in message)
        reader.join()
    [(messages, agreed)] = results
    assert "permessage-deflate" in agreed
    assert messages[0] == answer
    assert messages[1:] == read
    assert len(read) > 400
