"""`tickers.{interval}`: the tickers of all symbols, as far as they changed."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from typing import Any

import pytest

from core.channels import tickers_channel as module
from core.channels.publishing import AGE_SECONDS
from core.channels.tickers_channel import MOST_TICKERS, TickersChannel
from core.market.quotes import ticker_text
from tests.core.driven_hub import EPOCH, DrivenHub
from tests.core.fakes import Client, delta, fill, snapshot
from tests.support.examples import examples

TICKERS = "tickers.1000ms"
DAY_MS = 86_400_000


@pytest.fixture
def exchange() -> DrivenHub:
    """Two symbols on two partitions."""
    exchange = DrivenHub(served=(0, 1))
    exchange.say((0, 4, snapshot("A/A")), (1, 7, snapshot("B/B", bid="2", ask="4")))
    return exchange


def told(client: Client) -> list[dict[str, Any]]:
    return [message["notification"] for message in client.messages()]


def bids(notification: dict[str, Any]) -> dict[str, float]:
    return {symbol: ticker["best_bid_price"] for symbol, ticker in notification["tickers"].items()}


def connected(exchange: DrivenHub, name: str = TICKERS, **more: Any) -> Client:
    client = exchange.connect(name, **more)
    exchange.hub.beat()
    return client


def test_snapshot_has_every_ticker_that_is_known_as_the_channel_of_each_tells_it(exchange: DrivenHub) -> None:
    [message] = connected(exchange).messages()
    assert (message["epoch"], message["seq"]) == (EPOCH, {"0": 4, "1": 7})
    assert message["notification"].pop("snapshot")
    for symbol in ("A/A", "B/B"):
        market = exchange.market.find(symbol)
        assert market is not None
        assert message["notification"]["tickers"][symbol] == json.loads(ticker_text(market))
    assert list(message["notification"]) == ["tickers"]


def test_what_changed_is_told_once_an_interval_and_nothing_else(exchange: DrivenHub) -> None:
    client = connected(exchange)
    client.texts()
    exchange.pass_time(2)
    for number in range(4):
        exchange.say((0, 5 + number, delta("A/A", price=f"1.4{number}")))
        exchange.pass_time(0.1)
    [first] = client.messages()
    assert (first["seq"], bids(first["notification"])) == ({"0": 5, "1": 7}, {"A/A": 1.4})
    exchange.pass_time(0.7, step=0.01)
    [second] = client.messages()
    assert (second["seq"], bids(second["notification"])) == ({"0": 8, "1": 7}, {"A/A": 1.43})
    exchange.pass_time(5, step=0.1)
    assert client.messages() == []


def test_event_that_changes_no_ticker_is_not_told(exchange: DrivenHub) -> None:
    client = connected(exchange)
    client.texts()
    exchange.pass_time(2)
    exchange.say((0, 5, delta("A/A", price="0.5", timestamp=exchange.times.now_ms())))
    exchange.pass_time(2)
    assert client.messages() == []


def test_first_listener_waits_for_the_first_symbol() -> None:
    exchange = DrivenHub()
    client = connected(exchange)
    exchange.pass_time(1)
    assert client.messages() == []
    exchange.say((0, 0, snapshot("A/A")))
    [first] = client.messages()
    assert (first["epoch"], bids(first["notification"]), first["notification"]["snapshot"]) == (
        EPOCH,
        {"A/A": 1.4},
        True,
    )
    exchange.say((0, 1, snapshot("B/B")))
    exchange.pass_time(1)
    assert [bids(one) for one in told(client)] == [{"B/B": 1.4}]


def test_newcomer_gets_what_the_others_were_told_last(exchange: DrivenHub) -> None:
    client = connected(exchange)
    exchange.say((0, 5, delta("A/A", price="1.45")))
    newcomer = connected(exchange)
    exchange.pass_time(1)
    [snapshot_of_newcomer, change] = told(newcomer)
    assert bids(snapshot_of_newcomer) == {"A/A": 1.4, "B/B": 2}
    assert bids(change) == {"A/A": 1.45}
    assert told(client)[-1] == change


def test_500_symbols_that_changed_cost_one_notification() -> None:
    exchange = DrivenHub()
    symbols = [f"S{number}/EUR" for number in range(500)]
    exchange.say(*((0, offset, snapshot(symbol)) for offset, symbol in enumerate(symbols)))
    client = connected(exchange)
    client.texts()
    for number in range(3):
        exchange.say(
            *((0, 1000 + 500 * number + n, delta(symbol, price=f"1.4{number + 1}")) for n, symbol in enumerate(symbols))
        )
    exchange.pass_time(0.9, step=0.1)
    assert client.texts() == []
    exchange.pass_time(0.2, step=0.1)
    [notification] = told(client)
    assert bids(notification) == dict.fromkeys(symbols, 1.43)


def test_snapshot_of_many_comes_in_parts_and_the_first_says_so() -> None:
    exchange = DrivenHub()
    symbols = [f"S{number}/EUR" for number in range(2 * MOST_TICKERS + 10)]
    exchange.say(*((0, offset, snapshot(symbol)) for offset, symbol in enumerate(symbols)))
    first, second = connected(exchange), None
    exchange.pass_time(0.01, step=0.001)
    second = connected(exchange)
    for client in (first, second):
        messages = client.messages()
        parts = [message["notification"] for message in messages]
        assert [len(part["tickers"]) for part in parts] == [MOST_TICKERS, MOST_TICKERS, 10]
        assert [part.get("snapshot") for part in parts] == [True, None, None]
        assert sorted(symbol for part in parts for symbol in part["tickers"]) == sorted(symbols)
        assert ["epoch" in message for message in messages] == [True, False, False]


def test_tickers_are_worked_out_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREPARED_AT_ONCE", 3)
    monkeypatch.setattr(module, "MOST_TICKERS", 10)
    exchange = DrivenHub(is_sliced=True)
    symbols = [f"S{number}/EUR" for number in range(25)]
    exchange.say(*((0, offset, snapshot(symbol)) for offset, symbol in enumerate(symbols)))
    exchange.give_turns()
    other = exchange.connect("book.S1/EUR.none.1.raw")
    exchange.connect(TICKERS)
    exchange.give_turns(4)
    other.texts()
    exchange.say((0, 30, delta("S1/EUR", price="1.45")))
    worked_out = [0]
    told_to_other = None
    while worked_out[-1] < len(symbols):
        exchange.give_turns(1)
        exchange.pass_time(0.0001)
        worked_out.append(sum(market.quoted is not None for market in exchange.market.on({0})))
        if told_to_other is None and other.texts():
            told_to_other = worked_out[-1]
    assert max(after - before for before, after in pairwise(worked_out)) <= 3
    assert told_to_other is not None
    assert told_to_other < len(symbols) / 2, "in between"


def test_symbol_of_a_lost_partition_is_told_as_stale_and_the_others_go_on(exchange: DrivenHub) -> None:
    client = connected(exchange, "tickers.60000ms")
    client.texts()
    exchange.lose(1)
    [message] = client.messages()
    stale = message["notification"]["tickers"]["B/B"]
    assert (message["seq"], list(message["notification"]["tickers"])) == ({"0": 4}, ["B/B"])
    assert (stale.pop("stale"), stale["best_bid_price"], stale["delta"]) == (True, 0, 1)
    assert stale.keys() == connected(exchange, "ticker.A/A.raw").messages()[0]["notification"].keys() - {"snapshot"}
    newcomer = connected(exchange, "tickers.60000ms")
    [seen] = told(newcomer)
    assert {symbol: ticker.get("stale") for symbol, ticker in seen["tickers"].items()} == {"A/A": None, "B/B": True}
    exchange.pass_time(10, step=0.5)
    exchange.hub.partition_changes.begin(1, 0)
    exchange.say((1, 7, snapshot("B/B", bid="3", ask="4")), live=False)
    assert told(client) == []
    exchange.hub.partition_changes.serve([1])
    assert [bids(one) for one in told(client)] == [{"B/B": 3}]


def test_symbol_of_a_partition_that_is_not_read_is_told_as_stale_until_it_is(exchange: DrivenHub) -> None:
    client = connected(exchange)
    client.texts()
    exchange.hub.partition_changes.set_unread({0, 1})
    [gone] = told(client)
    assert {symbol: ticker["stale"] for symbol, ticker in gone["tickers"].items()} == {"A/A": True, "B/B": True}
    exchange.hub.partition_changes.set_unread({0})
    exchange.pass_time(1)
    assert [bids(one) for one in told(client)] == [{"B/B": 2}]
    exchange.say((0, 5, delta("A/A", price="1.45")))
    exchange.pass_time(1)
    assert [bids(one) for one in told(client)] == [{"A/A": 1.45}]


def test_symbol_whose_book_cannot_be_trusted_is_told_as_stale_once(exchange: DrivenHub) -> None:
    client = connected(exchange, "tickers.60000ms")
    client.texts()
    exchange.say((0, 5, delta("A/A", price="1.7")))
    [crossed] = told(client)
    assert [(symbol, ticker["stale"]) for symbol, ticker in crossed["tickers"].items()] == [("A/A", True)]
    exchange.say((0, 6, delta("A/A", price="1.2")))
    exchange.pass_time(60, step=1)
    assert told(client) == []
    exchange.say((0, 7, snapshot("A/A", bid="1.1")))
    exchange.pass_time(60, step=1)
    assert [bids(one) for one in told(client)] == [{"A/A": 1.1}]


def test_symbol_whose_book_can_be_trusted_again_is_told_at_once_whatever_the_interval(exchange: DrivenHub) -> None:
    client = connected(exchange, "tickers.60000ms")
    client.texts()
    offset = 5
    for bid in (1.1, 1.2):
        exchange.say((0, offset, delta("A/A", price="1.7")))
        [crossed] = told(client)
        assert [(symbol, ticker["stale"]) for symbol, ticker in crossed["tickers"].items()] == [("A/A", True)]
        exchange.pass_time(2.5, step=0.05)
        exchange.say((0, offset + 1, snapshot("A/A", bid=str(bid))))
        assert [bids(one) for one in told(client)] == [{"A/A": bid}]
        [now] = told(connected(exchange, "tickers.60000ms"))
        assert bids(now) == {"A/A": bid, "B/B": 2}
        offset += 2
    exchange.say((0, offset, snapshot("A/A", bid="1.3")), (1, 8, snapshot("B/B", bid="3", ask="4")))
    exchange.pass_time(59, step=0.5)
    assert told(client) == [], "what was trusted all the time waits for the interval"
    exchange.pass_time(2, step=0.5)
    assert [bids(one) for one in told(client)] == [{"A/A": 1.3, "B/B": 3}]


def test_trade_that_becomes_a_day_old_is_told_within_a_second(exchange: DrivenHub) -> None:
    exchange.say((0, 5, fill("A/A", timestamp=exchange.times.now_ms() - DAY_MS + 6_000)))
    client = connected(exchange)
    assert told(client)[0]["tickers"]["A/A"]["volume_24h"] == 2
    exchange.pass_time(5.9, step=0.05)
    assert told(client) == []
    exchange.pass_time(0.1 + AGE_SECONDS + 0.05, step=0.05)
    [aged] = told(client)
    assert {symbol: ticker["volume_24h"] for symbol, ticker in aged["tickers"].items()} == {"A/A": 0}
    exchange.lose(0)
    exchange.pass_time(2, step=0.05)
    assert exchange.market._markets.keys() == {"B/B"}, "nobody makes one to look whether it aged"


def test_slow_reader_gets_a_snapshot_that_says_so(exchange: DrivenHub) -> None:
    client = connected(exchange, room=0, max_bytes=1)
    for number in range(4):
        exchange.pass_time(2)
        exchange.say((0, 5 + number, delta("A/A", price=f"1.4{number}")))
    client.transport.settle()
    *_, last = told(client)
    assert (last["snapshot"], last["conflated"], bids(last)) == (True, True, {"A/A": 1.43, "B/B": 2})


def test_ticker_that_cannot_be_worked_out_costs_no_other_its_place(
    exchange: DrivenHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connected(exchange)
    client.texts()
    exchange.pass_time(2)

    def broken(market: Any) -> str:
        if market.symbol == "A/A":
            raise RuntimeError("broken")
        return ticker_text(market)

    monkeypatch.setattr(module, "ticker_text", broken)
    exchange.say((0, 5, delta("A/A", price="1.45")), (1, 8, delta("B/B", price="2.5")))
    exchange.pass_time(2, step=0.1)
    assert {symbol: bid for one in told(client) for symbol, bid in bids(one).items()} == {"B/B": 2.5}


def test_channel_that_failed_tells_everybody_a_snapshot_once_it_can(
    exchange: DrivenHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connected(exchange)
    client.texts()
    exchange.pass_time(2)

    def broken(_channel: TickersChannel, _anew: bool = False) -> bool:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(TickersChannel, "take", broken)
        exchange.say((0, 5, delta("A/A", price="1.45")))
        first = connected(exchange, "tickers.raw")
    newcomer = connected(exchange)
    assert told(newcomer) == [{"tickers": {}}]
    exchange.pass_time(1)
    for listener in (client, newcomer, first):
        [healed] = told(listener)
        assert (healed["snapshot"], bids(healed)) == (True, {"A/A": 1.45, "B/B": 2})


def test_who_subscribes_again_while_the_channel_fails_gets_every_part_once_it_can(
    exchange: DrivenHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TICKERS", 1)
    client = connected(exchange)

    def broken(_channel: TickersChannel, _anew: bool = False) -> bool:
        raise RuntimeError("broken")

    exchange.pass_time(3, step=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(TickersChannel, "take", broken)
        exchange.say((0, 5, delta("A/A", price="1.45")))
        exchange.hub.beat()
    client.texts()
    exchange.subscribe(client, TICKERS)
    assert told(client) == [{"tickers": {}}]
    exchange.pass_time(3, step=0.1)
    assert {symbol: bid for one in told(client) for symbol, bid in bids(one).items()} == {"A/A": 1.45, "B/B": 2}


@pytest.mark.parametrize("leaves", [True, False])
def test_who_is_sent_a_snapshot_in_parts_may_leave_or_be_slow(leaves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TICKERS", 2)
    exchange = DrivenHub(is_sliced=True)
    symbols = [f"S{number}/EUR" for number in range(15)]
    exchange.say(*((0, offset, snapshot(symbol)) for offset, symbol in enumerate(symbols)))
    connected(exchange)
    for _ in range(15):
        exchange.pass_time(0.01)
        exchange.give_turns()
    client = exchange.connect(TICKERS)
    exchange.give_turns(2)
    parts = told(client)
    assert 0 < len(parts) < 5
    if leaves:
        exchange.hub.remove(client.subscriber)
        exchange.give_turns()
        assert told(client) == []
        return
    client.transport.room = 10
    exchange.give_turns()
    client.transport.settle()
    after = told(client)
    [begins] = [number for number, one in enumerate(after) if one.get("conflated")]
    assert after[begins]["snapshot"]
    assert sorted(symbol for one in after[begins:] for symbol in one["tickers"]) == sorted(symbols)


def test_channel_ends_with_its_last_listener(exchange: DrivenHub) -> None:
    client = connected(exchange)
    exchange.hub.unsubscribe(client.subscriber, [TICKERS])
    assert not exchange.hub._members.overviews
    client.texts()
    exchange.say((0, 5, delta("A/A", price="1.45")))
    exchange.pass_time(2)
    assert client.texts() == []


@pytest.mark.parametrize("seed", range(examples(30)))
def test_who_listens_holds_every_ticker_as_it_is(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(module, "PREPARED_AT_ONCE", 2)
    monkeypatch.setattr(module, "MOST_TICKERS", chance.choice([3, 500]))
    exchange = DrivenHub(served=(0, 1), is_sliced=chance.random() < 0.7)
    symbols = [f"S{number}/EUR" for number in range(8)]
    clients: dict[Client, dict[str, Any]] = {}
    served = {0, 1}
    offset = 0
    for _ in range(80):
        kind = chance.choice(["say"] * 6 + ["join", "unread", "lose", "return", "time"])
        if kind == "say":
            records = []
            for _ in range(chance.randrange(1, 6)):
                number = chance.randrange(len(symbols))
                if number % 2 in served:
                    offset += 1
                    price = f"1.{chance.randrange(10, 39)}"
                    records.append(
                        (number % 2, offset, chance.choice([snapshot, delta, fill])(symbols[number], bid=price))
                        if chance.random() < 0.5
                        else (number % 2, offset, delta(symbols[number], price=price))
                    )
            exchange.say(*records)
        elif kind == "join" and len(clients) < 4:
            clients[
                exchange.connect(chance.choice([TICKERS, "tickers.raw"]), room=chance.choice([0, float("inf")]))
            ] = {}
        elif kind == "unread":
            exchange.hub.partition_changes.set_unread(chance.choice([set(), {0}, {1}]) & served)
        elif kind == "lose" and len(served) == 2:
            lost = chance.choice([0, 1])
            exchange.lose(lost)
            served.discard(lost)
        elif kind == "return":
            for partition in {0, 1} - served:
                exchange.hub.partition_changes.begin(partition, 0)
                exchange.hub.partition_changes.serve([partition])
            served = {0, 1}
        else:
            exchange.pass_time(chance.choice([0.01, 0.5, 1.5]))
        exchange.give_turns(chance.randrange(4))
    for client in clients:
        client.transport.settle()
    exchange.hub.partition_changes.set_unread(set())
    for _ in range(20):
        exchange.pass_time(1)
        exchange.give_turns()
    known = {market.symbol: market for market in exchange.market.on(served)}
    for client, held in clients.items():
        for notification in told(client):
            if notification.get("snapshot"):
                held.clear()
            held |= notification["tickers"]
        fresh = {symbol: market for symbol, market in known.items() if not market.book.stale}
        for symbol, market in fresh.items():
            now, seen = json.loads(ticker_text(market)), dict(held[symbol])
            assert seen.pop("mark_timestamp") <= now.pop("mark_timestamp")
            assert seen == now
        assert all(held[symbol].get("stale") for symbol in held.keys() - fresh.keys())
