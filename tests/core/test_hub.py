from __future__ import annotations

import gc
import json
import weakref
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.channels import parse_channel
from core.errors import CloseCode
from core.frames import text_frame
from core.hub import Hub, News
from core.market import Market
from tests.core.fakes import Client, delta, fill, filled, snapshot

EPOCH = 'topic"7.4'

Record = tuple[int, int, bytes]


class Exchange:
    """A hub over a market of which every partition is served, unless told otherwise, and its deliveries."""

    def __init__(self, served: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        self.market = Market(lambda *_: None, lambda _: None, lambda *_: None)
        self.deliveries: list[tuple[int, int]] = []
        self.hub = Hub(self.market, lambda: EPOCH, lambda count, size: self.deliveries.append((count, size)))
        self.hub.serve(list(served))

    def say(self, *records: Record, live: bool = True) -> None:
        """Records arrive in one drain."""
        news = []
        for partition, offset, value in records:
            event = self.market.fold(partition, offset, value)
            if event is not None and live:
                news.append(News(event, partition, offset))
        if news:
            self.hub.publish(news)

    def connect(
        self, *channels: str, stream: bool = False, max_bytes: int = 1 << 20, room: float = float("inf")
    ) -> Client:
        client = Client(max_bytes, room)
        self.hub.add(client.subscriber, stream)
        if channels:
            self.subscribe(client, *channels)
        return client

    def subscribe(self, client: Client, *channels: str, since: dict[str, object] | None = None) -> None:
        self.hub.subscribe(client.subscriber, [parse_channel(name) for name in channels], since)


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


def book_of(exchange: Exchange, symbol: str) -> bytes:
    return exchange.market.books[symbol].snapshot_event()


# The market-data stream.


def test_stream_begins_with_a_snapshot_of_every_known_book_and_goes_on_with_the_engines_bytes(
    exchange: Exchange,
) -> None:
    exchange.say((0, 1, snapshot("B/B")), (1, 1, snapshot("A/A")), (2, 1, fill("C/C")))
    client = exchange.connect(stream=True)
    assert client.texts() == [book_of(exchange, "A/A"), book_of(exchange, "B/B")]
    odd = fill("A/A", note="u").replace(b'"A/A"', b' "A\\/A"').replace(b'"1.50"', b"1.500") + b" \n"
    records = [odd, delta("B/B"), snapshot("B/B", 9), fill("C/C")]
    exchange.say((1, 2, records[0]), (0, 2, records[1]))
    exchange.say((0, 3, records[2]), (2, 3, records[3]))
    assert client.texts() == records


def test_stream_shows_no_user_id_and_no_private_event(exchange: Exchange) -> None:
    client = exchange.connect(stream=True)
    exchange.say((0, 1, filled("o", user_id="alice")), (0, 2, fill(user_id="alice")), (0, 3, b"poison"))
    [text] = client.texts()
    assert json.loads(text) == json.loads(fill())
    assert b"alice" not in text


def test_stream_begins_with_nothing_when_no_book_is_known(exchange: Exchange) -> None:
    exchange.deliveries.clear()
    client = exchange.connect(stream=True)
    assert client.texts() == []
    assert exchange.deliveries == []


def test_stream_is_silent_for_a_connection_that_asked_for_none(exchange: Exchange) -> None:
    exchange.say((0, 1, snapshot()))
    client = exchange.connect(stream=False)
    exchange.say((0, 2, fill()))
    exchange.hub.serve([0])
    assert client.texts() == []
    assert not client.subscriber.on_stream


def test_stream_is_narrowed_for_good_by_the_first_subscription(exchange: Exchange) -> None:
    client = exchange.connect(stream=True)
    exchange.subscribe(client, "events.A/A")
    exchange.say((0, 1, fill("B/B")))
    assert client.texts() == []
    assert exchange.hub.unsubscribe(client.subscriber, ["events.A/A"]) == ["events.A/A"]
    exchange.say((0, 2, fill("B/B")), (0, 3, fill("A/A")))
    assert client.texts() == []
    assert not client.subscriber.on_stream


def test_stream_goes_on_when_only_an_unsubscription_came(exchange: Exchange) -> None:
    client = exchange.connect(stream=True)
    assert exchange.hub.unsubscribe(client.subscriber, ["events"]) == []
    exchange.say((0, 1, fill()))
    assert client.texts() == [fill()]
    assert client.subscriber.on_stream


def test_stream_shows_a_stale_book_to_nobody_until_it_is_healed(exchange: Exchange) -> None:
    exchange.say((0, 1, snapshot()), (0, 2, delta(price="9")))
    early = exchange.connect(stream=True)
    assert early.texts() == []
    exchange.say((0, 3, snapshot(sequence=3)))
    assert early.texts() == [snapshot(sequence=3)]
    assert exchange.connect(stream=True).texts() == [book_of(exchange, "KCN/EUR")]


# Channels.


def test_channel_sends_a_snapshot_and_then_each_event_untouched_with_its_offset(exchange: Exchange) -> None:
    exchange.say((0, 40, snapshot()), (0, 41, delta()))
    client = exchange.connect("events.KCN/EUR")
    odd = fill().replace(b'"1.50"', b" 1.500").replace(b'"KCN/EUR"', b'"KCN\\/EUR"')
    exchange.say((0, 42, odd), (0, 44, fill()))
    assert client.texts() == [
        b'{"epoch":"topic\\"7.4","channel_name":"events.KCN/EUR","seq":41,"notification":{"event":'
        + book_of(exchange, "KCN/EUR")
        + b',"snapshot":true}}',
        b'{"channel_name":"events.KCN/EUR","seq":42,"notification":{"event":' + odd + b"}}",
        b'{"channel_name":"events.KCN/EUR","seq":44,"notification":{"event":' + fill() + b"}}",
    ]


def test_channel_events_spans_partitions_and_says_which(exchange: Exchange) -> None:
    exchange.say((0, 7, snapshot("B/B")), (3, 9, snapshot("A/A")))
    client = exchange.connect("events")
    exchange.say((3, 10, fill("A/A")), (0, 8, fill("B/B")))
    told = [(m["partition"], m["seq"], m["notification"]["event"]["symbol"]) for m in client.messages()]
    assert told == [(3, 9, "A/A"), (0, 7, "B/B"), (3, 10, "A/A"), (0, 8, "B/B")]


def test_channel_of_a_symbol_tells_nothing_of_others_and_no_partition(exchange: Exchange) -> None:
    exchange.say((0, 1, snapshot("A/A")), (0, 2, snapshot("B/B")))
    client = exchange.connect("events.A/A")
    exchange.say((0, 3, fill("B/B")), (0, 4, fill("A/A")), (0, 5, delta("B/B")))
    messages = client.messages()
    assert {m["notification"]["event"]["symbol"] for m in messages} == {"A/A"}
    assert [m["seq"] for m in messages] == [2, 4]
    assert not any("partition" in m for m in messages)


def test_channel_names_the_epoch_in_its_first_notification_only(exchange: Exchange) -> None:
    exchange.say((0, 1, snapshot("A/A")), (0, 2, snapshot("B/B")))
    client = exchange.connect("events", "events.A/A", "events.C/C")
    exchange.say((0, 3, fill("A/A")), (0, 4, fill("C/C")), (0, 5, fill("C/C")))
    seen: defaultdict[str, list[Any]] = defaultdict(list)
    for message in client.messages():
        seen[message["channel_name"]].append(message.get("epoch"))
    assert seen == {
        "events": [EPOCH, None, None, None, None],
        "events.A/A": [EPOCH, None],
        "events.C/C": [EPOCH, None],
    }


@pytest.mark.parametrize("is_known", [True, False], ids=["with a snapshot", "with a first record"])
def test_channel_says_that_nothing_was_recovered_once_and_only_to_who_asked(exchange: Exchange, is_known: bool) -> None:
    if is_known:
        exchange.say((0, 1, snapshot()))
    asked, other = exchange.connect(), exchange.connect("events.KCN/EUR", "events")
    exchange.subscribe(asked, "events.KCN/EUR", "events", since={"events.KCN/EUR": 1, "events.A/A": 1})
    exchange.say((0, 2, fill()))
    exchange.say((0, 3, fill()))
    told = [(m["channel_name"], m.get("recovered")) for m in asked.messages() if "epoch" in m or "recovered" in m]
    assert told == [("events.KCN/EUR", False), ("events", None)]
    assert not any("recovered" in message for message in other.messages())


def test_channel_subscribed_again_sends_a_new_snapshot_and_the_epoch(exchange: Exchange) -> None:
    exchange.say((0, 1, snapshot()))
    client = exchange.connect("events.KCN/EUR")
    exchange.say((0, 2, fill()))
    client.texts()
    exchange.subscribe(client, "events.KCN/EUR", since={"events.KCN/EUR": 2})
    exchange.say((0, 3, fill()))
    again, event = client.messages()
    assert (again["seq"], again["epoch"], again["recovered"]) == (2, EPOCH, False)
    assert again["notification"]["snapshot"] is True
    assert (event["seq"], "epoch" in event) == (3, False)


def test_channel_subscribed_again_tells_nothing_twice_when_there_is_no_snapshot(exchange: Exchange) -> None:
    client = exchange.connect("events.KCN/EUR")
    exchange.say((0, 1, fill()))
    client.texts()
    exchange.subscribe(client, "events.KCN/EUR")
    exchange.say((0, 2, fill()), (0, 3, fill()))
    exchange.say((0, 4, snapshot()))
    exchange.hub.serve([0])
    assert [(m["seq"], "epoch" in m) for m in client.messages()] == [(2, True), (3, False), (4, False), (4, False)]


def test_channel_of_a_symbol_not_yet_seen_begins_with_its_first_record(exchange: Exchange) -> None:
    client = exchange.connect("events.NEW/EUR")
    assert client.texts() == []
    exchange.say((2, 5, snapshot("NEW/EUR")), (2, 6, fill("NEW/EUR")))
    first, second = client.texts()
    assert first == (
        b'{"epoch":"topic\\"7.4","channel_name":"events.NEW/EUR","seq":5,"notification":{"event":'
        + snapshot("NEW/EUR")
        + b"}}"
    )
    assert json.loads(second)["seq"] == 6


def test_channel_repeats_nothing_to_one_and_misses_nothing_for_the_other_when_one_joins_late(
    exchange: Exchange,
) -> None:
    early = exchange.connect("events.KCN/EUR")
    exchange.say((0, 1, fill()))
    late = exchange.connect("events.KCN/EUR")
    exchange.say((0, 2, fill()), (0, 3, fill()))
    assert [m["seq"] for m in early.messages()] == [1, 2, 3]
    assert [(m["seq"], "epoch" in m) for m in late.messages()] == [(2, True), (3, False)]


def test_channel_is_left_by_unsubscribing_and_others_stay(exchange: Exchange) -> None:
    client = exchange.connect("events", "events.A/A", "events.B/B")
    other = exchange.connect("events.A/A")
    names = ["events.B/B", "events.X/X", "events.A/A"]
    assert exchange.hub.unsubscribe(client.subscriber, names) == ["events.B/B", "events.A/A"]
    exchange.say((0, 1, fill("A/A")), (0, 2, fill("B/B")))
    assert [m["channel_name"] for m in client.messages()] == ["events", "events"]
    assert [m["channel_name"] for m in other.messages()] == ["events.A/A"]
    assert client.subscriber.channels == {"events"}


# Partitions that come and go.


def test_hub_shows_no_book_of_a_partition_that_is_not_served() -> None:
    exchange = Exchange(served=(1,))
    exchange.say((0, 1, snapshot("A/A")), (1, 1, snapshot("B/B")), live=False)
    assert exchange.connect(stream=True).texts() == [book_of(exchange, "B/B")]
    symbols = [m["notification"]["event"]["symbol"] for m in exchange.connect("events", "events.A/A").messages()]
    assert symbols == ["B/B"]


def test_hub_shows_the_books_of_a_partition_to_everyone_who_waits_once_it_is_served() -> None:
    exchange = Exchange(served=(1,))
    exchange.say((0, 5, snapshot("A/A")), (1, 1, snapshot("B/B")), live=False)
    stream, settled, new = exchange.connect(stream=True), exchange.connect("events"), exchange.connect("events.A/A")
    elsewhere, silent = exchange.connect("events.B/B"), exchange.connect()
    for client in (stream, settled, elsewhere):
        client.texts()
    exchange.hub.serve([0])
    assert stream.texts() == [book_of(exchange, "A/A")]
    [to_settled], [to_new] = settled.messages(), new.messages()
    assert (to_settled["seq"], to_settled["partition"], to_settled.get("epoch")) == (5, 0, None)
    assert (to_new["seq"], to_new["epoch"]) == (5, EPOCH)
    assert to_settled["notification"]["snapshot"] is to_new["notification"]["snapshot"] is True
    assert elsewhere.texts() == silent.texts() == []
    exchange.say((0, 6, fill("A/A")))
    assert [m.get("epoch") for m in settled.messages() + new.messages()] == [None, None]


def test_hub_says_nothing_when_a_served_partition_has_no_books(exchange: Exchange) -> None:
    clients = [exchange.connect(stream=True), exchange.connect("events")]
    exchange.hub.serve([0, 9])
    assert [client.texts() for client in clients] == [[], []]
    exchange.say((9, 1, snapshot()), live=False)
    assert exchange.connect(stream=True).texts() == [book_of(exchange, "KCN/EUR")]


def test_hub_shows_no_book_of_a_forgotten_partition_until_it_is_served_again(exchange: Exchange) -> None:
    exchange.say((0, 1, snapshot()))
    exchange.hub.forget(0)
    exchange.hub.forget(0)
    late = exchange.connect(stream=True)
    assert late.texts() == []
    exchange.hub.serve([0])
    assert late.texts() == [book_of(exchange, "KCN/EUR")]


# Answers, and who is told how much.


def test_hub_puts_an_answer_in_its_place_among_the_events(exchange: Exchange) -> None:
    client = exchange.connect("events.KCN/EUR")
    other = exchange.connect("events.KCN/EUR")
    exchange.say((0, 1, fill()))
    exchange.hub.tell(client.subscriber, text_frame(b'{"id":1}'))
    exchange.say((0, 2, fill()))
    assert [m.get("seq", m.get("id")) for m in client.messages()] == [1, 1, 2]
    assert [m["seq"] for m in other.messages()] == [1, 2]


def test_hub_gives_everyone_the_very_same_bytes_in_one_send_a_tick(exchange: Exchange) -> None:
    clients = [exchange.connect(stream=True) for _ in range(3)]
    exchange.say((0, 1, fill("A/A")), (1, 1, fill("B/B")), (0, 2, fill("C/C")))
    assert [len(client.transport.sends) for client in clients] == [1, 1, 1]
    assert clients[0].transport.sends[0] is clients[1].transport.sends[0] is clients[2].transport.sends[0]


def test_hub_counts_deliveries_and_their_bytes(exchange: Exchange) -> None:
    clients = [exchange.connect(stream=True) for _ in range(3)]
    exchange.deliveries.clear()
    exchange.say((0, 1, fill()))
    size = len(text_frame(fill()))
    assert exchange.deliveries == [(3, 3 * size)]
    clients[1].transport.broken = True
    exchange.say((0, 2, fill()))
    assert exchange.deliveries[1] == (2, 2 * size)


def test_hub_counts_nothing_while_nobody_listens(exchange: Exchange) -> None:
    exchange.connect("events.B/B")
    exchange.say((0, 1, snapshot("A/A")))
    exchange.hub.serve([0])
    assert exchange.deliveries == []
    exchange.say((0, 2, snapshot("B/B")))
    assert [count for count, _ in exchange.deliveries] == [1]


# Those who cannot keep up, and those who are gone.


def test_hub_ends_a_slow_subscriber_and_disturbs_no_other(exchange: Exchange) -> None:
    record = fill()
    frame = len(text_frame(record))
    clients = [exchange.connect(stream=True, max_bytes=2 * frame, room=room) for room in (float("inf"), 10, 10**9)]
    slow = clients[1]
    for offset in range(3):
        exchange.say((0, offset, record))
    assert slow.ends == []
    exchange.say((0, 3, record))
    assert slow.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]
    assert int(slow.ends[0][0]) == 4008
    assert slow.subscriber not in exchange.hub.subscribers
    exchange.say((0, 4, record))
    assert len(slow.ends) == 1
    assert [len(client.texts()) for client in (clients[0], clients[2])] == [5, 5]
    slow.transport.settle()
    assert slow.texts() == [record] * 3


def test_hub_ends_a_slow_subscriber_of_a_channel_and_takes_it_out_of_all_of_them(exchange: Exchange) -> None:
    slow = exchange.connect("events", "events.A/A", max_bytes=300, room=0)
    quick = exchange.connect("events", "events.A/A")
    for offset in range(5):
        exchange.say((0, offset, fill("A/A")))
    assert len(slow.ends) == 1
    assert slow.subscriber.channels == set()
    assert [m["seq"] for m in quick.messages() if m["channel_name"] == "events"] == [0, 1, 2, 3, 4]


def test_hub_ends_a_subscriber_whose_first_notification_already_overflows(exchange: Exchange) -> None:
    slow = exchange.connect(max_bytes=10, room=0)
    exchange.hub.tell(slow.subscriber, b"goes to the transport")
    exchange.subscribe(slow, "events.A/A")
    quick = exchange.connect("events.A/A")
    exchange.say((0, 1, fill("A/A")))
    assert slow.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]
    exchange.say((0, 2, fill("A/A")))
    assert [m["seq"] for m in quick.messages()] == [1, 2]


def test_hub_lets_an_answer_overflow_too(exchange: Exchange) -> None:
    client = exchange.connect(max_bytes=10, room=0)
    exchange.hub.tell(client.subscriber, b"goes to the transport")
    exchange.hub.tell(client.subscriber, b"12345678901")
    assert client.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]


def test_hub_counts_no_snapshot_towards_the_bound(exchange: Exchange) -> None:
    exchange.say((0, 1, snapshot("A/A")), (1, 1, snapshot("B/B")))
    client = exchange.connect(max_bytes=10, room=0)
    exchange.hub.tell(client.subscriber, b"goes to the transport")
    exchange.subscribe(client, "events")
    exchange.subscribe(client, "events")
    exchange.hub.serve([0, 1])
    stream = exchange.connect(stream=True, max_bytes=10, room=0)
    exchange.hub.serve([0, 1])
    late = Client(max_bytes=10, room=0)
    late.transport.ping()  # or what is left of the upgrade
    exchange.hub.add(late.subscriber, stream=True)
    assert client.ends == stream.ends == late.ends == []
    assert client.outbox.waiting_bytes > 1000
    assert stream.outbox.waiting_bytes == late.outbox.waiting_bytes > 200


def test_hub_ends_nobody_who_is_gone_already(exchange: Exchange) -> None:
    gone, quick = exchange.connect(stream=True), exchange.connect(stream=True)
    gone.transport.broken = True
    exchange.say((0, 1, fill()))
    assert gone.ends == []
    assert exchange.hub.subscribers == {quick.subscriber}
    assert quick.texts() == [fill()]


def test_hub_takes_a_subscriber_out_that_is_removed_while_it_is_ended(exchange: Exchange) -> None:
    slow = exchange.connect("events", "events.A/A", max_bytes=10, room=0)
    slow.subscriber.end = lambda code, reason: (slow.end(code, reason), exchange.hub.remove(slow.subscriber))  # type: ignore[assignment,func-returns-value]
    quick = exchange.connect("events")
    exchange.say((0, 1, fill("A/A")))
    exchange.say((0, 2, fill("A/A")))
    assert len(slow.ends) == 1
    assert [m["seq"] for m in quick.messages()] == [1, 2]
    assert exchange.hub.subscribers == {quick.subscriber}


@pytest.mark.parametrize("stream", [True, False])
def test_hub_keeps_nothing_of_a_removed_subscriber(exchange: Exchange, stream: bool) -> None:
    exchange.say((0, 1, snapshot()))
    client = exchange.connect("events", "events.KCN/EUR", "events.NEW/EUR")
    if stream:
        exchange.hub.remove(client.subscriber)
        client = exchange.connect(stream=True)
    exchange.hub.remove(client.subscriber)
    assert not exchange.hub._channels, "channels come with names of the clients' choosing"
    exchange.hub.remove(client.subscriber)
    remains = weakref.ref(client.transport)
    del client
    gc.collect()
    assert remains() is None


# The property: whoever joins, leaves, joins again, and whatever partitions come and go.

SYMBOLS_OF = {0: ("A/A", "B/B"), 1: ("C/C",), 2: ("D/D", "E/E")}
PARTITION_OF = {symbol: partition for partition, symbols in SYMBOLS_OF.items() for symbol in symbols}
CHANNELS = ("events", *(f"events.{symbol}" for symbol in PARTITION_OF))
KINDS = ("fill", "snapshot", "delta", "crossing", "private", "poison")
CLIENTS = range(3)

STEPS = st.one_of(
    st.tuples(
        st.just("say"),
        st.lists(st.tuples(st.sampled_from(list(PARTITION_OF)), st.sampled_from(KINDS), st.integers(1, 3)), max_size=6),
    ),
    st.tuples(
        st.just("subscribe"),
        st.sampled_from(CLIENTS),
        st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3, unique=True),
    ),
    st.tuples(st.just("unsubscribe"), st.sampled_from(CLIENTS), st.sampled_from(CHANNELS)),
    st.tuples(st.just("serve"), st.sampled_from(list(SYMBOLS_OF))),
    st.tuples(st.just("forget"), st.sampled_from(list(SYMBOLS_OF))),
)


def make(kind: str, symbol: str, offset: int) -> bytes:
    match kind:
        case "fill":
            return fill(symbol, mark=offset)
        case "snapshot":
            return snapshot(symbol, offset, mark=offset)
        case "delta":
            return delta(symbol, offset, mark=offset)
        case "crossing":
            return delta(symbol, offset, price="9", mark=offset)
    return filled() if kind == "private" else b"{"


@settings(deadline=None)  # a busy machine is no defect
@given(st.lists(STEPS, max_size=40))
def test_hub_never_goes_back_in_a_channel_and_tells_each_event_once(steps: list[tuple[Any, ...]]) -> None:
    exchange = Exchange(served=(0, 1))
    clients = [exchange.connect() for _ in CLIENTS]
    offsets = dict.fromkeys(SYMBOLS_OF, 0)
    served = {0, 1}
    subscribed: list[dict[str, bool]] = [{} for _ in clients]  # a channel, and whether its first notification is due
    reached: list[defaultdict[tuple[str, int], int]] = [defaultdict(int) for _ in clients]
    for kind, *step in steps:
        expected: list[list[tuple[str, str, int]]] = [[] for _ in clients]  # channel, symbol, seq
        if kind == "say":
            records = []
            for symbol, what, gap in step[0]:
                partition = PARTITION_OF[symbol]
                offsets[partition] += gap
                records.append((partition, offsets[partition], make(what, symbol, offsets[partition])))
                for number, names in enumerate(subscribed):
                    if what not in ("private", "poison"):
                        concerned = [name for name in ("events", f"events.{symbol}") if name in names]
                        expected[number] += [(name, symbol, offsets[partition]) for name in concerned]
            exchange.say(*records)
        elif kind == "subscribe":
            number, names = step
            subscribed[number].update(dict.fromkeys(names, True))
            expected[number] = snapshots_due(exchange, names, served, offsets)
            exchange.subscribe(clients[number], *names)
        elif kind == "unsubscribe":
            number, name = step
            assert exchange.hub.unsubscribe(clients[number].subscriber, [name]) == [name] * (name in subscribed[number])
            subscribed[number].pop(name, None)
        elif kind == "serve":
            served.add(step[0])
            for number, names in enumerate(subscribed):
                expected[number] = snapshots_due(exchange, names, {step[0]}, offsets)
            exchange.hub.serve(step)
        else:
            served.discard(step[0])
            exchange.hub.forget(step[0])
            exchange.market.forget(step[0])
        for number, client in enumerate(clients):
            told = []
            for message in client.messages():
                name, seq, event = message["channel_name"], message["seq"], message["notification"]["event"]
                partition = PARTITION_OF[event["symbol"]]
                told.append((name, event["symbol"], seq))
                assert message["notification"].get("snapshot", False) is (kind != "say")
                assert kind != "say" or event["mark"] == seq
                assert message.get("partition") == (partition if name == "events" else None)
                assert message.get("epoch") == (EPOCH if subscribed[number][name] else None)
                subscribed[number][name] = False
                assert seq >= reached[number][name, partition]
                reached[number][name, partition] = seq
            for name in CHANNELS:  # in order within each channel
                assert [one for one in told if one[0] == name] == [one for one in expected[number] if one[0] == name]


def snapshots_due(
    exchange: Exchange, names: Iterable[str], partitions: set[int], offsets: dict[int, int]
) -> list[tuple[str, str, int]]:
    symbols = [book.symbol for book in exchange.market.known_books() if PARTITION_OF[book.symbol] in partitions]
    return [
        (name, symbol, offsets[PARTITION_OF[symbol]])
        for name in names
        for symbol in symbols
        if name in ("events", f"events.{symbol}")
    ]
