"""`candles.{symbol}.{interval}`: what is told of candles, to whom and when."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from core.channels.publishing import AGE_SECONDS
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import Client, delta, fill, snapshot
from tests.core.market.naive_candles import Trade, naive_rows
from tests.support.examples import examples

SYMBOL = "KCN/EUR"
MINUTE = "candles.KCN/EUR.1m"
MINUTE_MS = 60_000


class Exchange(DrivenHub):
    """A symbol and its fills; the clock begins at a whole minute."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.wall_ms = self.began_ms = self.wall_ms - self.wall_ms % 86_400_000 + 36_000_000
        self.offset = 0
        self.trades: list[Trade] = []

    def trade(self, price: str = "1.5", age_ms: int = 0) -> None:
        time_ms = self.times.now_ms() - age_ms
        self.trades.append(Trade(Decimal(price), Decimal(2), time_ms))
        self.say((0, self.offset, fill(price=price, quantity="2", timestamp=time_ms)))
        self.offset += 1

    def other(self) -> None:
        self.say((0, self.offset, delta()))
        self.offset += 1


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


def told(client: Client) -> list[dict[str, Any]]:
    return [message["notification"] for message in client.messages()]


def minutes(exchange: Exchange, notification: dict[str, Any]) -> list[tuple[int, float, int, bool]]:
    """Of each candle which minute it is of, its close, how many trades, and whether it is closed."""
    rows = notification["candles"]
    return [((row[0] - exchange.began_ms) // MINUTE_MS, row[4], row[7], row[8]) for row in rows]


def test_snapshot_has_the_last_two(exchange: Exchange) -> None:
    for price in ("1", "2", "3"):
        exchange.trade(price)
        exchange.pass_time(60)
    [message] = exchange.connect(MINUTE).messages()
    assert message["seq"] == 2
    assert message["epoch"] == exchange.epoch
    assert message["notification"].pop("snapshot")
    assert minutes(exchange, message["notification"]) == [(2, 3, 1, True), (3, 3, 0, False)]


def test_snapshot_is_empty_when_the_symbol_has_not_traded_and_none_when_it_is_not_known(exchange: Exchange) -> None:
    early = exchange.connect(MINUTE)
    exchange.pass_time(5, step=0.5)
    assert told(early) == []
    exchange.say((0, 0, snapshot()))
    assert told(early) == told(exchange.connect(MINUTE)) == [{"candles": [], "snapshot": True}]


def test_what_changed_is_told_as_a_whole_at_most_every_250_ms(exchange: Exchange) -> None:
    exchange.trade("1")
    client = exchange.connect(MINUTE)
    client.texts()
    for price in ("2", "3", "1.75"):
        exchange.pass_time(0.01)
        exchange.trade(price)
    [first] = told(client)
    assert first["candles"] == [[exchange.began_ms, 1, 2, 1, 2, 4, 6, 2, False]]
    exchange.pass_time(0.2)
    assert told(client) == []
    exchange.pass_time(0.04)
    [second] = told(client)
    assert second["candles"] == [[exchange.began_ms, 1, 3, 1, 1.75, 8, 15.5, 4, False]]


def test_what_is_no_trade_changes_nothing(exchange: Exchange) -> None:
    exchange.trade()
    client = exchange.connect(MINUTE)
    client.texts()
    for _ in range(5):
        exchange.pass_time(1)
        exchange.other()
    assert told(client) == []


def test_end_of_a_period_is_told_by_the_clock_within_a_second(exchange: Exchange) -> None:
    exchange.trade()
    client = exchange.connect(MINUTE)
    client.texts()
    exchange.pass_time(59.9, step=0.05)
    assert told(client) == []
    exchange.pass_time(0.1 + AGE_SECONDS + 0.05, step=0.05)
    [first] = client.messages()
    assert (first["seq"], minutes(exchange, first["notification"])) == (0, [(0, 1.5, 1, True), (1, 1.5, 0, False)])
    exchange.pass_time(60, step=0.05)
    assert [minutes(exchange, one) for one in told(client)] == [[(1, 1.5, 0, True), (2, 1.5, 0, False)]]


def test_end_of_a_period_is_told_by_the_clock_when_the_next_one_has_traded_ahead_of_it(exchange: Exchange) -> None:
    exchange.trade()
    client = exchange.connect(MINUTE)
    exchange.pass_time(59.9, step=0.05)
    client.texts()
    exchange.trade("2", age_ms=-150)
    exchange.pass_time(0.05)
    assert [minutes(exchange, one) for one in told(client)] == [[(1, 2, 1, False)]]
    exchange.pass_time(0.05 + AGE_SECONDS + 0.05, step=0.05)
    assert [minutes(exchange, one) for one in told(client)] == [[(0, 1.5, 1, True)]]
    exchange.pass_time(60, step=0.05)
    assert [minutes(exchange, one) for one in told(client)] == [[(1, 2, 1, True), (2, 2, 0, False)]]


def test_end_of_a_period_is_told_when_nobody_looked_for_long(exchange: Exchange) -> None:
    exchange.trade()
    client = exchange.connect(MINUTE)
    exchange.pass_time(61)
    client.texts()
    exchange.pass_time(86_400)
    [after] = told(client)
    assert minutes(exchange, after) == [(1, 1.5, 0, True), (1440, 1.5, 0, True), (1441, 1.5, 0, False)]


def test_late_fill_is_told_with_the_candle_that_it_belongs_to(exchange: Exchange) -> None:
    for _ in range(5):
        exchange.trade("2")
        exchange.pass_time(60)
    client, hours = exchange.connect(MINUTE), exchange.connect("candles.KCN/EUR.1h")
    told(client), told(hours)
    exchange.trade("7", age_ms=250_000)
    exchange.trade("9", age_ms=190_000)
    exchange.pass_time(0.3)
    assert [minutes(exchange, one) for one in told(client)] == [[(0, 7, 2, True)], [(1, 9, 2, True)]]
    [first, second] = told(hours)
    assert [one["candles"][0][2:5] for one in (first, second)] == [[7, 2, 2], [9, 2, 2]]


def test_newcomer_gets_what_the_others_were_told_last(exchange: Exchange) -> None:
    exchange.trade("1")
    client = exchange.connect(MINUTE)
    exchange.pass_time(0.01)
    exchange.trade("2")
    exchange.pass_time(0.01)
    exchange.trade("3")
    newcomer = exchange.connect(MINUTE)
    exchange.pass_time(0.3)
    snapshot_of_newcomer, change = told(newcomer)
    assert (snapshot_of_newcomer["candles"][0][4], change["candles"][0][4]) == (2, 3)
    assert told(client)[-1] == change


def test_channel_of_a_lost_partition_is_stale_until_a_snapshot(exchange: Exchange) -> None:
    exchange.trade("1")
    client = exchange.connect(MINUTE)
    client.texts()
    exchange.lose(0)
    assert told(client) == [{"candles": [], "stale": True}]
    exchange.pass_time(120, step=0.5)
    assert told(client) == []
    exchange.hub.partition_changes.begin(0, 0)
    exchange.say((0, 0, fill(price="4", timestamp=exchange.times.now_ms())), live=False)
    exchange.hub.partition_changes.serve([0])
    [healed] = told(client)
    assert healed["snapshot"]
    assert minutes(exchange, healed) == [(2, 4, 1, False)]
    exchange.say((0, 1, fill(price="5", timestamp=exchange.times.now_ms() - 30_000)))
    exchange.pass_time(0.3)
    assert [minutes(exchange, one) for one in told(client)] == [[(1, 5, 1, True), (2, 4, 1, False)][:1]]


def test_symbol_that_was_only_read_back_is_told_with_its_next_event(exchange: Exchange) -> None:
    early = exchange.connect(MINUTE)
    exchange.say((0, 0, fill(timestamp=exchange.times.now_ms())), live=False)
    late = exchange.connect(MINUTE)
    assert told(early) == told(late) == []
    exchange.say((0, 1, delta()))
    for client in (early, late):
        [first] = told(client)
        assert (first["snapshot"], minutes(exchange, first)) == (True, [(0, 1.5, 1, False)])


def test_channel_is_not_stale_when_only_the_book_cannot_be_trusted(exchange: Exchange) -> None:
    exchange.trade("1")
    client = exchange.connect(MINUTE)
    client.texts()
    exchange.say((0, 1, snapshot(bid="7", ask="6")))
    exchange.offset = 2
    exchange.trade("2")
    exchange.pass_time(0.3)
    assert [minutes(exchange, one) for one in told(client)] == [[(0, 2, 2, False)]]


def test_slow_reader_gets_a_snapshot_of_the_last_two(exchange: Exchange) -> None:
    exchange.trade("1")
    client = exchange.connect(MINUTE, room=0, max_bytes=1)
    for price in ("2", "3", "4"):
        exchange.pass_time(0.3)
        exchange.trade(price)
    client.transport.settle()
    *_, last = told(client)
    assert (last["snapshot"], last["conflated"], minutes(exchange, last)) == (True, True, [(0, 4, 4, False)])


def test_subscribing_again_sends_a_new_snapshot_and_unsubscribing_ends_it(exchange: Exchange) -> None:
    exchange.trade("1")
    client = exchange.connect(MINUTE)
    exchange.subscribe(client, MINUTE)
    assert [one["snapshot"] for one in told(client)] == [True, True]
    exchange.hub.unsubscribe(client.subscriber, [MINUTE])
    exchange.trade("2")
    exchange.pass_time(120, step=0.5)
    assert told(client) == []
    series = exchange.market.of(SYMBOL).candles._series[0]
    assert series.changed is None


@pytest.mark.parametrize("seed", range(examples(30)))
def test_who_listens_holds_what_the_plain_model_says(seed: int) -> None:
    """Whatever is told is true when it is told, and who puts it together holds all that changed since its snapshot."""
    chance = random.Random(seed)
    exchange = Exchange(is_sliced=chance.random() < 0.5)
    exchange.trade("1")
    interval = chance.choice(["1m", "5m", "15m"])
    client = exchange.connect(f"candles.KCN/EUR.{interval}")
    exchange.give_turns()
    held: dict[int, Any] = {}
    for _ in range(60):
        exchange.pass_time(chance.choice([0.01, 0.3, 20, 59, 130]))
        if chance.random() < 0.7:
            exchange.trade(chance.choice(["1", "2", "3.5"]), age_ms=chance.choice([0, 0, 0, 61_000, 300_000]))
        exchange.give_turns()
        exchange.pass_time(AGE_SECONDS + 0.25, step=0.05)
        exchange.give_turns()
        for notification in told(client):
            held |= {row[0]: row for row in notification["candles"]}
        now_ms = exchange.times.now_ms()
        if now_ms % MINUTE_MS < 1_000:
            continue  # the end of a period may be told a second later
        rows = naive_rows(exchange.trades, interval, now_ms)
        # What repeats the close of one that was changed since is not told again, but for the last two.
        wanted = {
            int(row[0]): [float(one) for one in row]
            for number, row in enumerate(rows, 2 - len(rows))
            if row[7] or number >= 0
        }
        assert wanted.keys() <= held.keys()
        assert {start: list(map(float, held[start])) for start in wanted} == wanted
