from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest

from core.channels import hub, lossless_channels
from core.channels.membership import LEFT_AT_ONCE
from core.channels.names import parse_channel
from core.delivery.fanout import Fanout
from core.errors import CloseCode
from tests.core.driven_hub import DrivenHub
from tests.core.fakes import Client, delta, fill, snapshot

BOOKS = [f"book.KCN/EUR.none.{depth}.raw" for depth in range(1, 6)]
FOR_EVER = float("inf")


@pytest.fixture
def exchange() -> DrivenHub:
    exchange = DrivenHub(is_sliced=True)
    exchange.say((0, 0, snapshot()))
    return exchange


def heard(client: Client) -> dict[str, list[dict[str, Any]]]:
    by_channel: dict[str, list[dict[str, Any]]] = {}
    for message in client.messages():
        by_channel.setdefault(message["channel_name"], []).append(message["notification"])
    return by_channel


def bids(notifications: list[dict[str, Any]]) -> dict[float, float]:
    """What somebody holds who applies every change, each of which has to be of what it holds."""
    held: dict[float, float] = {}
    for notification in notifications:
        for price, old, new in notification["bid_changes"]:
            assert held.get(price, 0) == (0 if notification.get("snapshot") else old)
            held[price] = new
    return {price: quantity for price, quantity in held.items() if quantity}


def test_hub_joins_channels_one_a_slice_in_their_order(exchange: DrivenHub) -> None:
    client = exchange.connect(*BOOKS)
    joined = [list(heard(client))]
    while exchange.hub.pending(client.subscriber) is not None:
        exchange.give_turns(1)
        joined.append(list(heard(client)))
    assert [name for names in joined for name in names] == BOOKS
    assert max(map(len, joined)) == 1


@pytest.mark.parametrize("turns", range(8))
def test_hub_tells_who_joins_in_slices_of_what_comes_meanwhile_once(exchange: DrivenHub, turns: int) -> None:
    client = exchange.connect(*BOOKS, "trades.KCN/EUR", "events.KCN/EUR")
    exchange.give_turns(turns)
    exchange.say((0, 1, delta(price="1.3")), (0, 2, fill(timestamp=7000)))
    exchange.give_turns()
    exchange.say((0, 3, delta(price="1.2")))
    exchange.give_turns()
    said = heard(client)
    for depth, name in enumerate(BOOKS, 1):
        assert len(bids(said[name])) == min(depth, 3), name
        assert sum(len(n["trades"]) for n in said[name]) == 1, "a trade was left out or told twice"
    assert sum(len(n["trades"]) for n in said["trades.KCN/EUR"]) == 1
    events = [n["event"] for n in said["events.KCN/EUR"]]
    assert [event["type"] for event in events][-1] == "orderbook_delta"
    assert len(events) in (2, 4), "the snapshot with or before what came meanwhile, and what came then"


MANY = [f"{letter}/{letter}" for letter in "ABCDEFGH"]


@pytest.mark.parametrize("loses", [None, 0, 1])
@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("room", [FOR_EVER, 0])
def test_hub_sends_the_books_of_events_one_a_slice_without_a_hole_or_a_repeat(
    monkeypatch: pytest.MonkeyPatch, turns: int, loses: int | None, room: float
) -> None:
    monkeypatch.setattr(lossless_channels, "BOOKS_AT_ONCE", 1)
    exchange = DrivenHub(is_sliced=True)
    exchange.say(*((number % 2, number, snapshot(symbol)) for number, symbol in enumerate(MANY)))
    client = exchange.connect(room=room)
    exchange.hub.tell(client.subscriber, b"{}")
    exchange.subscribe(client, "events")
    client.transport.settle()
    exchange.give_turns(turns)
    exchange.say((0, 10, fill("A/A")), (1, 11, delta("B/B", price="1.3")), (1, 13, delta("H/H", price="1.3")))
    if loses is not None:
        exchange.lose(loses)
        exchange.give_turns(1)
        exchange.hub.partition_changes.begin(loses, 0)
        records = [(number % 2, number, snapshot(symbol)) for number, symbol in enumerate(MANY) if number % 2 == loses]
        more = [(0, 10, fill("A/A")), (1, 11, delta("B/B", price="1.3")), (1, 13, delta("H/H", price="1.3"))]
        missed = [(loses, 20 + loses, fill(MANY[loses]))]
        exchange.say(*records, *(one for one in more if one[0] == loses), *missed, live=False)
        exchange.hub.partition_changes.serve([loses])
    exchange.give_turns(1)
    exchange.say((0, 30, fill("C/C")), (1, 31, delta("D/D", price="1.3")))
    for _ in range(30):
        exchange.give_turns()
        client.transport.settle()
        exchange.hub.beat()
    told = [message for message in client.messages() if message.get("channel_name") == "events"]
    seqs: dict[int, int] = {}
    books = set[str]()
    events: list[tuple[int, int]] = []
    for message in told:
        partition, seq = message["partition"], message["seq"]
        assert seq >= seqs.get(partition, -1), "it goes back"
        seqs[partition] = seq
        event = message["notification"].get("event", {})
        if message["notification"].get("snapshot"):
            assert loses is not None or event["symbol"] not in books
            books.add(event["symbol"])
        elif event:
            events.append((partition, seq))
    assert books == set(MANY)
    expected = [(0, 10), (1, 11), (1, 13), *([(loses, 20 + loses)] if loses is not None else []), (0, 30), (1, 31)]
    began = min(expected.index(one) for one in events)
    assert sorted(events) == sorted(expected[began:]), "an event was left out or told twice"
    assert began == 0 or (room == 0 and not turns)


def test_hub_lets_go_of_many_channels_one_a_slice_when_a_connection_ends(exchange: DrivenHub) -> None:
    names = [f"{kind}.S{number}/EUR" for number in range(LEFT_AT_ONCE) for kind in ("events", "trades")]
    other = exchange.connect("trades.S1/EUR")
    leaving = exchange.connect(*names)
    exchange.give_turns()
    assert sum(exchange.hub.subscriptions().values()) == len(names) + 1
    exchange.hub.remove(leaving.subscriber)
    exchange.hub.remove(leaving.subscriber)
    leaving.outbox.close()
    assert sum(exchange.hub.subscriptions().values()) > len(names) // 2
    for turn in range(3 * len(names)):
        if turn == 5:
            exchange.say((0, 1, fill("S1/EUR")), (0, 2, fill(f"S{LEFT_AT_ONCE - 1}/EUR")))
        exchange.give_turns(1)
    assert sum(exchange.hub.subscriptions().values()) == 1
    assert [name.text for name in exchange.hub.open_views()] == ["trades.S1/EUR"]
    assert len(other.messages()) == 1
    assert exchange.turns == deque()


@pytest.mark.parametrize("turns", range(4))
def test_hub_joins_nothing_for_who_is_gone_before_its_turn(exchange: DrivenHub, turns: int) -> None:
    names = [f"{kind}.{symbol}" for symbol in MANY for kind in ("events", "trades")]
    client = exchange.connect(*names, "events")
    exchange.give_turns(turns)
    exchange.hub.remove(client.subscriber)
    exchange.say(*((0, number, fill(symbol)) for number, symbol in enumerate(MANY, 1)))
    exchange.give_turns()
    exchange.hub.beat()
    exchange.give_turns()
    assert sum(exchange.hub.subscriptions().values()) == 0
    assert not exchange.hub.open_views()
    assert not exchange.hub._promises._of_symbol


def test_hub_joins_what_leaves_nothing_out_when_something_is_said_on_it(exchange: DrivenHub) -> None:
    names = [f"trades.{symbol}" for symbol in MANY]
    client = exchange.connect(*names)
    exchange.say(*((0, number, fill(symbol)) for number, symbol in enumerate(MANY, 1)))
    assert sum(exchange.hub.subscriptions().values()) == len(MANY)
    exchange.give_turns()
    assert {name: len(told) for name, told in heard(client).items()} == dict.fromkeys(names, 1)


@pytest.mark.parametrize("turns", range(1, 5))
def test_hub_sends_no_more_books_to_who_leaves_events(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    monkeypatch.setattr(lossless_channels, "BOOKS_AT_ONCE", 1)
    exchange = DrivenHub(is_sliced=True)
    exchange.say(*((0, number, snapshot(symbol)) for number, symbol in enumerate(MANY)))
    client = exchange.connect("events")
    exchange.give_turns(turns)
    before = len(client.messages())
    assert 0 < before < len(MANY)
    exchange.hub.unsubscribe(client.subscriber, ["events"])
    exchange.give_turns()
    assert len(client.messages()) <= 1


@pytest.mark.parametrize("turns", range(9))
def test_hub_leaves_nothing_out_from_the_moment_that_it_was_asked(exchange: DrivenHub, turns: int) -> None:
    symbols = [f"S{number}/EUR" for number in range(6)]
    exchange.say((0, 1, fill("S5/EUR", timestamp=1)))
    client = exchange.connect(*(f"events.{symbol}" for symbol in symbols), "events", "trades.S4/EUR")
    exchange.give_turns(turns)
    exchange.say(*((0, 2 + number, fill(symbol, timestamp=2)) for number, symbol in enumerate(symbols)))
    exchange.give_turns()
    exchange.say(*((0, 8 + number, fill(symbol, timestamp=3)) for number, symbol in enumerate(symbols)))
    exchange.give_turns()
    said = heard(client)
    for symbol in symbols:
        assert [n["event"]["timestamp"] for n in said[f"events.{symbol}"]] == [2, 3]
    told = [n["event"] for n in said["events"] if not n.get("snapshot")]
    assert [(event["symbol"], event["timestamp"]) for event in told] == [(s, at) for at in (2, 3) for s in symbols]
    assert sum(len(n["trades"]) for n in said["trades.S4/EUR"]) == 2


def test_hub_tells_all_trades_of_one_drain_to_who_waits_for_the_first_one(exchange: DrivenHub) -> None:
    client = exchange.connect("trades.S0/EUR")
    exchange.say(*((0, number, fill("S0/EUR", timestamp=number)) for number in range(1, 251)))
    exchange.give_turns()
    assert [len(n["trades"]) for n in heard(client)["trades.S0/EUR"]] == [250]


@pytest.mark.parametrize("turns", range(6))
def test_hub_resumes_where_it_was_asked_to_when_something_is_said_before_the_turn_of_that(
    exchange: DrivenHub, turns: int
) -> None:
    exchange.say(*((0, number, fill(timestamp=number)) for number in (1, 2, 3)))
    since = {"events.KCN/EUR": 1, "trades.KCN/EUR": 2}
    client = exchange.connect()
    exchange.subscribe(client, *BOOKS[:3], *since, since=since)
    exchange.give_turns(turns)
    exchange.say((0, 4, fill(timestamp=4)))
    exchange.give_turns()
    exchange.say((0, 5, fill(timestamp=5)))
    exchange.give_turns()
    said = heard(client)
    assert [n["event"]["timestamp"] for n in said["events.KCN/EUR"]] == [2, 3, 4, 5]
    assert sum(len(n["trades"]) for n in said["trades.KCN/EUR"]) == 3


def test_hub_lets_a_connection_do_one_thing_after_the_other(exchange: DrivenHub) -> None:
    client = exchange.connect(*BOOKS)
    assert exchange.hub.unsubscribe(client.subscriber, BOOKS[:1]) == BOOKS[:1]
    exchange.subscribe(client, *BOOKS[:1])
    exchange.give_turns()
    assert exchange.hub.pending(client.subscriber) is None
    assert sorted(exchange.hub.channels_of(client.subscriber)) == BOOKS
    assert len(heard(client)[BOOKS[0]]) == 2


def test_hub_counts_the_views_that_are_about_to_be_joined(exchange: DrivenHub) -> None:
    client = exchange.connect(*BOOKS)
    assert {name.text for name in exchange.hub.open_views()} == set(BOOKS)
    exchange.hub.remove(client.subscriber)
    exchange.give_turns()
    assert not exchange.hub.open_views()
    assert exchange.hub.pending(client.subscriber) is None


def test_hub_ends_a_connection_when_what_it_asked_for_meets_a_fault_of_ours(
    exchange: DrivenHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = exchange.connect()
    monkeypatch.setattr(exchange.hub.resume, "begin", lambda *_: 1 / 0)
    exchange.subscribe(client, "trades.KCN/EUR", since={"trades.KCN/EUR": 0})
    exchange.give_turns()
    assert client.ends == [(CloseCode.INTERNAL, "internal error")]


def test_hub_says_what_is_due_one_channel_a_slice_conflated_and_with_its_chain(exchange: DrivenHub) -> None:
    client = exchange.connect(*BOOKS)
    exchange.give_turns()
    first = heard(client)
    for offset, price in enumerate(("1.1", "1.2", "1.3"), 1):
        exchange.say((0, offset, delta(price=price)))
    exchange.give_turns()
    told = heard(client)
    for depth, name in enumerate(BOOKS, 1):
        assert len(bids(first[name] + told.get(name, []))) == min(depth, 4)
    assert len(told[BOOKS[4]]) == 1, "conflated, for there was no time in between"


def test_hub_says_lossless_news_before_any_view_gets_a_slice(exchange: DrivenHub) -> None:
    viewer, trader = exchange.connect(*BOOKS), exchange.connect("trades.KCN/EUR", "events")
    exchange.give_turns()
    heard(viewer), heard(trader)
    exchange.say(*((0, offset, fill(timestamp=offset)) for offset in range(1, 50)))
    assert len(exchange.turns) == 1
    said = heard(trader)
    assert [len(n["trades"]) for n in said["trades.KCN/EUR"]] == [49]
    assert len(said["events"]) == 49
    assert len(heard(viewer)) <= 1


def test_hub_sends_what_one_client_is_told_in_a_slice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = DrivenHub()
    exchange.say((0, 0, snapshot()))
    client = exchange.connect(*(f"book.KCN/EUR.none.{depth}.raw" for depth in range(1, 101)))
    sends = len(client.transport.sends)
    monkeypatch.setattr(Fanout, "gather", lambda *_: pytest.fail("a plan of its own"))
    exchange.say((0, 1, delta(price="1.5")))
    assert len(client.transport.sends) == sends + 1
    assert len(heard(client)) == 100


@pytest.mark.parametrize("turns", range(6))
def test_hub_gives_who_joins_the_stream_each_book_and_what_follows_on_it(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = DrivenHub(is_sliced=True)
    monkeypatch.setattr("core.channels.hub.PART_BYTES", 1)
    symbols = [f"S{number}/EUR" for number in range(4)]
    exchange.say(*((0, number, snapshot(symbol)) for number, symbol in enumerate(symbols)))
    client = exchange.connect(stream=True)
    exchange.give_turns(turns)
    exchange.say(*((0, 10 + number, delta(symbol, price="1.3")) for number, symbol in enumerate(symbols)))
    exchange.say((0, 20, fill("new/EUR")), (0, 21, fill(symbols[3])))
    exchange.give_turns()
    exchange.say(*((0, 30 + number, delta(symbol, price="1.2")) for number, symbol in enumerate(symbols)))
    held: dict[str, set[str]] = {}
    others = []
    for event in map(json.loads, client.texts()):
        if event["type"] == "orderbook_snapshot":
            assert event["symbol"] not in held
            held[event["symbol"]] = {level["price"] for level in event["bids"]}
        elif event["type"] == "orderbook_delta":
            [change] = event["deltas"]
            assert change["price"] not in held[event["symbol"]], "a change that the snapshot has"
            held[event["symbol"]].add(change["price"])
        else:
            others.append(event["symbol"])
    assert held == {symbol: {"1.4", "1.3", "1.2"} for symbol in symbols}
    assert others == ["new/EUR", symbols[3]]
    assert exchange.hub.subscriptions()["stream"] == 1


def test_hub_lets_who_is_about_to_join_the_stream_leave_it(exchange: DrivenHub) -> None:
    exchange.say((1, 0, snapshot("B/B")))
    client = exchange.connect(stream=True)
    exchange.subscribe(client, "trades.B/B")
    exchange.give_turns()
    client.texts()
    exchange.say((0, 1, fill()))
    assert client.texts() == []
    assert exchange.hub.subscriptions()["stream"] == 0


def test_hub_takes_names_once(exchange: DrivenHub) -> None:
    client = exchange.connect(BOOKS[0], BOOKS[0])
    exchange.give_turns()
    assert list(exchange.hub.open_views()) == [parse_channel(BOOKS[0])]
    assert len(heard(client)[BOOKS[0]]) == 2


@pytest.mark.parametrize("at_once", [1, 2])
def test_hub_sends_the_books_of_events_that_are_shown_behind_one_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(lossless_channels, "BOOKS_AT_ONCE", at_once)
    exchange = DrivenHub(is_sliced=True)
    exchange.say(*((0, number, snapshot(symbol)) for number, symbol in enumerate(MANY)))
    client = exchange.connect("events")
    exchange.say(*((0, 10 + number, delta(symbol, price="99")) for number, symbol in enumerate(MANY[1:3])))
    exchange.give_turns()
    shown = [one["event"]["symbol"] for one in heard(client)["events"] if one.get("snapshot")]
    assert shown == [MANY[0], *MANY[3:]]


@pytest.mark.parametrize("turns", range(9))
def test_hub_leaves_nothing_out_for_who_asked_while_it_was_sent_the_books_of_the_stream(
    monkeypatch: pytest.MonkeyPatch, exchange: DrivenHub, turns: int
) -> None:
    monkeypatch.setattr(hub, "PART_BYTES", 1)
    exchange.say(*((0, number, snapshot(symbol)) for number, symbol in enumerate(MANY)))
    client = exchange.connect(stream=True)
    assert exchange.hub.pending(client.subscriber) is not None
    client.messages()
    names = ("events", "events.KCN/EUR", "trades.KCN/EUR", "trades.NEW/EUR")
    exchange.subscribe(client, *names)
    exchange.give_turns(turns)
    exchange.say((0, 20, fill(timestamp=2)), (0, 21, fill("NEW/EUR", timestamp=2)))
    exchange.give_turns()
    said = heard(client)
    assert [n["event"]["timestamp"] for n in said["events.KCN/EUR"] if not n.get("snapshot")] == [2]
    assert [n["event"]["symbol"] for n in said["events"] if not n.get("snapshot")] == ["KCN/EUR", "NEW/EUR"]
    assert [len(n["trades"]) for name in names[2:] for n in said[name] if n["trades"]] == [1, 1]
