"""The 24 hours of a symbol go on without its events: for who joins, and for who listens."""

from __future__ import annotations

from decimal import Decimal
from itertools import chain

import pytest

from core.channels.publishing import AGE_SECONDS, AGED_A_BEAT
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import delta, fill, snapshot

DAY_MS = 86_400_000
SYMBOL = "KCN/EUR"


@pytest.fixture
def quiet() -> DrivenHub:
    """A book, and one trade of almost a day ago: six seconds are left."""
    driven = DrivenHub()
    at_ms = driven.times.now_ms()
    driven.say((0, 0, snapshot(timestamp=at_ms)), (0, 1, fill(price="1.5", timestamp=at_ms - DAY_MS + 6_000)))
    return driven


def test_trade_that_is_a_day_old_is_not_shown_to_who_joins(quiet: DrivenHub) -> None:
    quiet.pass_time(14)
    client = quiet.connect("ticker.KCN/EUR.raw", "book.KCN/EUR.none.5.raw")
    ticker, book = [message["notification"] for message in client.messages()]
    assert (ticker["volume_24h"], ticker["high_price_24h"], ticker["last_price"]) == (0, 0, 1.5)
    assert (book["stats_24h"]["volume_24h"], book["stats_24h"]["last_price"]) == (0, 1.5)


@pytest.mark.parametrize("name", ["ticker.KCN/EUR.raw", "book.KCN/EUR.none.5.raw", "book.KCN/EUR.none.1.100ms"])
def test_trade_that_becomes_a_day_old_is_told_to_who_listens_within_a_second(quiet: DrivenHub, name: str) -> None:
    client = quiet.connect(name)

    def volumes() -> list[Decimal]:
        notifications = [message["notification"] for message in client.exact_messages()]
        return [n.get("stats_24h", n)["volume_24h"] for n in notifications]

    assert volumes() != [0]
    quiet.pass_time(5.9, step=0.01)
    assert 0 not in volumes()
    quiet.pass_time(1.1, step=0.01)
    assert volumes() == [0], "once, and nothing besides"


def test_listener_of_many_views_is_told_once_in_each(quiet: DrivenHub) -> None:
    names = [f"book.KCN/EUR.none.{depth}.raw" for depth in range(1, 6)]
    client = quiet.connect(*names, "lwt.KCN/EUR.raw", "trades.KCN/EUR", "events.KCN/EUR")
    client.texts()
    quiet.pass_time(4, step=0.1)
    quiet.say((0, 2, fill(price="1.6", timestamp=quiet.times.now_ms())))
    client.texts()
    quiet.pass_time(3.5, step=0.1)
    told = [message for message in client.messages() if message["notification"].get("stats_24h")]
    assert [message["channel_name"] for message in told] == names
    assert {message["notification"]["stats_24h"]["low_24h"] for message in told} == {1.6}
    assert [message["notification"]["bid_changes"] for message in told] == [[]] * 5


def test_busy_symbol_is_not_told_again_for_each_trade_of_yesterday() -> None:
    driven = DrivenHub()
    began_ms = driven.times.now_ms()
    driven.say((0, 0, snapshot(bid="1.4", ask="1.6")))
    driven.say(*((0, 1 + n, fill(price="1.5", timestamp=began_ms - DAY_MS + n * 10)) for n in range(200)))
    client = driven.connect("book.KCN/EUR.none.1.raw")
    client.texts()
    for n in range(200):
        driven.now += 0.01
        driven.say((0, 300 + n, delta(price=f"1.{n % 10}1", side="ask" if n % 10 > 6 else "bid", quantity="0")))
    assert len(client.texts()) <= 2 / AGE_SECONDS + 1


def test_each_of_many_symbols_is_told_within_a_second_and_few_at_a_time() -> None:
    driven = DrivenHub()
    symbols = [f"S{number}/EUR" for number in range(3 * AGED_A_BEAT)]
    at_ms = driven.times.now_ms() - DAY_MS + 6_000
    driven.say(*((0, n, fill(symbol=symbol, timestamp=at_ms)) for n, symbol in enumerate(symbols)))
    client = driven.connect(*(f"ticker.{symbol}.raw" for symbol in symbols), max_bytes=1 << 30)
    driven.pass_time(5.9, step=0.01)
    client.texts()
    told = []
    for _ in range(110):
        driven.pass_time(0.01)
        told.append([message["channel_name"] for message in client.messages()])
    assert sorted(chain.from_iterable(told)) == sorted(f"ticker.{symbol}.raw" for symbol in symbols)
    assert max(map(len, told)) == AGED_A_BEAT


def test_symbol_that_nobody_looks_at_is_left_alone(quiet: DrivenHub) -> None:
    quiet.connect("ticker.ABC/EUR.raw")
    quiet.pass_time(14, step=0.1)
    stats = quiet.market.of(SYMBOL).statistics
    assert stats.volume == 2, "nothing was worked out"
    quiet.connect("lwt.KCN/EUR.raw")
    assert stats.volume == 0
