"""Market-data channels over real sockets (docs/contract.md#channels): what each says of a scripted series of records, digit
by digit.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.channels.world import NOW, NOW_MS, folded, level, quiet, received
from tests.integration.clients import news, notification
from tests.integration.events import delta, fill, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway


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
        assert received(client) == {
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
        told = received(client)
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


def test_day_goes_on_without_events_whatever_the_clock_of_one_record_said(
    gateway: Gateway, market: Market, symbol: str
) -> None:
    channel = f"ticker.{symbol}.raw"
    day_ms = 86_400_000
    now_ms = int(time.time() * 1000)
    old = fill(symbol, price="10.30", quantity="1", timestamp=now_ms - day_ms + 4_000)
    odd = fill(symbol, price="10.25", quantity="1", timestamp=now_ms + 2 * day_ms)
    odd_too = [
        delta(symbol, 2, ("add", "bid", "9", "1"), timestamp=now_ms * 1000),
        snapshot(symbol, 3, timestamp=2 * now_ms),
    ]
    honest = [fill(symbol, price="10.20", quantity="1", timestamp=now_ms) for _ in range(5)]
    folded(gateway, market, symbol, snapshot(symbol), old, *honest, odd, *odd_too, *honest)
    with quiet(gateway) as client:
        client.subscribe(channel)
        first = news(client, channel)
        before, stamp = first["notification"], first["notification"]["mark_timestamp"]
        assert (before["volume_24h"], before["high_price_24h"]) == (12, Decimal("10.30"))
        assert stamp <= Decimal(now_ms) / 1000 + 60
        told = news(client, channel)
        after = told["notification"]
        assert (after["volume_24h"], after["high_price_24h"], told["seq"]) == (11, Decimal("10.25"), first["seq"])
        assert 4 <= time.time() - now_ms / 1000 < 4 + 1 + 2, "a second late at the most, on a busy machine"


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
        book_news, ticker_news, lwt_news, trades = [received(client)["notification"] for client in clients]
    assert (book["bid_changes"], book["ask_changes"]) == ([[bid, "0", few]], [[ask, "0", many]])
    assert (book["total_bid_amount"], book["total_ask_amount"]) == (few, many)
    assert book_news["trades"] == [[bid, few, "sell", NOW, False]]
    [[*trade, trade_id]] = trades["trades"]
    assert [trade] == book_news["trades"]
    assert re.fullmatch(r"[0-9]+-[0-9]+", trade_id)
    names = ("best_bid_price", "best_bid_amount", "best_ask_price", "best_ask_amount")
    assert [ticker[name] for name in names] == [bid, few, ask, many]
    # Sums and products have as many digits as they need.
    assert ticker["mark_price"] == "123456789012.3456789012345678905"
    assert ticker_news["last_price"] == bid
    assert Decimal(ticker_news["value_24h"]) == Decimal("123456789012345678901234567890e-48")
    assert lwt["b"] == [bid, few, few]
    assert lwt["a"] == [ask, many, many]
    assert lwt_news["l"] == bid
