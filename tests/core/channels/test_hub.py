from __future__ import annotations

import gc
import json
import weakref
from collections import defaultdict
from typing import Any

import pytest

from core.delivery.frames import text_frame
from core.errors import CloseCode
from tests.core.driven_hub import EPOCH, DrivenHub
from tests.core.fakes import Client, delta, fill, filled, snapshot


@pytest.fixture
def exchange() -> DrivenHub:
    return DrivenHub()


def book_of(exchange: DrivenHub, symbol: str) -> bytes:
    return exchange.market.of(symbol).book.snapshot_event()


# The market-data stream.


def test_stream_begins_with_a_snapshot_of_every_known_book_and_goes_on_with_the_engines_bytes(
    exchange: DrivenHub,
) -> None:
    exchange.say((0, 1, snapshot("B/B")), (1, 1, snapshot("A/A")), (2, 1, fill("C/C")))
    client = exchange.connect(stream=True)
    assert client.texts() == [book_of(exchange, "A/A"), book_of(exchange, "B/B")]
    odd = fill("A/A", note="u").replace(b'"A/A"', b' "A\\/A"').replace(b'"1.50"', b"1.500") + b" \n"
    records = [odd, delta("B/B"), snapshot("B/B", 9), fill("C/C")]
    exchange.say((1, 2, records[0]), (0, 2, records[1]))
    exchange.say((0, 3, records[2]), (2, 3, records[3]))
    assert client.texts() == records


def test_stream_shows_no_user_id_and_no_private_event(exchange: DrivenHub) -> None:
    client = exchange.connect(stream=True)
    exchange.say((0, 1, filled("o", user_id="alice")), (0, 2, fill(user_id="alice")), (0, 3, b"poison"))
    [text] = client.texts()
    assert json.loads(text) == json.loads(fill())
    assert b"alice" not in text


def test_stream_begins_with_nothing_when_no_book_is_known(exchange: DrivenHub) -> None:
    exchange.counts.deliveries.clear()
    client = exchange.connect(stream=True)
    assert client.texts() == []
    assert exchange.counts.deliveries == []


def test_stream_is_silent_for_a_connection_that_asked_for_none(exchange: DrivenHub) -> None:
    exchange.say((0, 1, snapshot()))
    client = exchange.connect(stream=False)
    exchange.say((0, 2, fill()))
    exchange.hub.partition_changes.serve([0])
    assert client.texts() == []
    assert exchange.hub.subscriptions()["stream"] == 0


def test_stream_is_narrowed_for_good_by_the_first_subscription(exchange: DrivenHub) -> None:
    client = exchange.connect(stream=True)
    exchange.subscribe(client, "events.A/A")
    exchange.say((0, 1, fill("B/B")))
    assert client.texts() == []
    assert exchange.hub.unsubscribe(client.subscriber, ["events.A/A"]) == ["events.A/A"]
    exchange.say((0, 2, fill("B/B")), (0, 3, fill("A/A")))
    assert client.texts() == []
    assert exchange.hub.subscriptions()["stream"] == 0


def test_stream_goes_on_when_only_an_unsubscription_came(exchange: DrivenHub) -> None:
    client = exchange.connect(stream=True)
    assert exchange.hub.unsubscribe(client.subscriber, ["events"]) == []
    exchange.say((0, 1, fill()))
    assert client.texts() == [fill()]
    assert exchange.hub.subscriptions()["stream"] == 1


def test_stream_shows_a_stale_book_to_nobody_until_it_is_healed(exchange: DrivenHub) -> None:
    exchange.say((0, 1, snapshot()), (0, 2, delta(price="9")))
    early = exchange.connect(stream=True)
    assert early.texts() == []
    exchange.say((0, 3, snapshot(sequence=3)))
    assert early.texts() == [snapshot(sequence=3)]
    assert exchange.connect(stream=True).texts() == [book_of(exchange, "KCN/EUR")]


# Channels.


def test_channel_sends_a_snapshot_and_then_each_event_untouched_with_its_offset(exchange: DrivenHub) -> None:
    exchange.say((0, 40, snapshot()), (0, 41, delta()))
    client = exchange.connect("events.KCN/EUR")
    odd = fill().replace(b'"1.50"', b" 1.500").replace(b'"KCN/EUR"', b'"KCN\\/EUR"')
    exchange.say((0, 42, odd), (0, 44, fill()))
    assert client.texts() == [
        b'{"epoch":"topic\\"7.4","channel_name":"events.KCN/EUR","seq":41,"notification":{"event":'
        + book_of(exchange, "KCN/EUR")
        + b',"snapshot":true}}',
        b'{"channel_name":"events.KCN/EUR","seq":42,"prev_seq":41,"notification":{"event":' + odd + b"}}",
        b'{"channel_name":"events.KCN/EUR","seq":44,"prev_seq":42,"notification":{"event":' + fill() + b"}}",
    ]


def test_channel_events_spans_partitions_and_says_which(exchange: DrivenHub) -> None:
    exchange.say((0, 7, snapshot("B/B")), (3, 9, snapshot("A/A")))
    client = exchange.connect("events")
    exchange.say((3, 10, fill("A/A")), (0, 8, fill("B/B")))
    told = [(m["partition"], m["seq"], m["notification"]["event"]["symbol"]) for m in client.messages()]
    assert told == [(3, 9, "A/A"), (0, 7, "B/B"), (3, 10, "A/A"), (0, 8, "B/B")]


def test_channel_of_a_symbol_tells_nothing_of_others_and_no_partition(exchange: DrivenHub) -> None:
    exchange.say((0, 1, snapshot("A/A")), (0, 2, snapshot("B/B")))
    client = exchange.connect("events.A/A")
    exchange.say((0, 3, fill("B/B")), (0, 4, fill("A/A")), (0, 5, delta("B/B")))
    messages = client.messages()
    assert {m["notification"]["event"]["symbol"] for m in messages} == {"A/A"}
    assert [m["seq"] for m in messages] == [2, 4]
    assert not any("partition" in m for m in messages)


def test_channel_names_the_epoch_in_its_first_notification_only(exchange: DrivenHub) -> None:
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


@pytest.mark.parametrize("is_known", [True, False], ids=["with a snapshot", "with nothing"])
def test_channel_says_that_nothing_was_recovered_once_and_only_to_who_asked(
    exchange: DrivenHub, is_known: bool
) -> None:
    exchange.say((0, 1, snapshot() if is_known else fill()))
    asked, other = exchange.connect(), exchange.connect("events.KCN/EUR", "events")
    since = {"events.KCN/EUR": {"epoch": "another", "seq": 1}, "events.A/A": 1}
    exchange.subscribe(asked, "events.KCN/EUR", "events", since=since)
    exchange.say((0, 2, fill()))
    exchange.say((0, 3, fill()))
    told = [(m["channel_name"], m.get("recovered")) for m in asked.messages() if "epoch" in m or "recovered" in m]
    assert told == [("events.KCN/EUR", False), ("events", None)]
    assert not any("recovered" in message for message in other.messages())
    assert exchange.counts.resumes == ["not_recovered"]


def test_channel_subscribed_again_sends_a_new_snapshot_and_the_epoch(exchange: DrivenHub) -> None:
    exchange.say((0, 1, snapshot()))
    client = exchange.connect("events.KCN/EUR")
    exchange.say((0, 2, fill()))
    client.texts()
    exchange.subscribe(client, "events.KCN/EUR")
    exchange.say((0, 3, fill()))
    again, event = client.messages()
    assert (again["seq"], again["epoch"], "recovered" in again) == (2, EPOCH, False)
    assert again["notification"]["snapshot"] is True
    assert (event["seq"], "epoch" in event) == (3, False)


def test_channel_subscribed_again_tells_nothing_twice_when_there_is_no_snapshot(exchange: DrivenHub) -> None:
    client = exchange.connect("events.KCN/EUR")
    exchange.say((0, 1, fill()))
    client.texts()
    exchange.subscribe(client, "events.KCN/EUR")
    exchange.say((0, 2, fill()), (0, 3, fill()))
    exchange.say((0, 4, snapshot()))
    assert [(m["seq"], "epoch" in m) for m in client.messages()] == [(2, True), (3, False), (4, False)]


def test_channel_of_a_symbol_not_yet_seen_begins_with_its_first_record(exchange: DrivenHub) -> None:
    client = exchange.connect("events.NEW/EUR")
    assert client.texts() == []
    exchange.say((2, 5, snapshot("NEW/EUR")), (2, 6, fill("NEW/EUR")))
    first, second = client.texts()
    assert first == (
        b'{"epoch":"topic\\"7.4","channel_name":"events.NEW/EUR","seq":5,"prev_seq":-1,"notification":{"event":'
        + snapshot("NEW/EUR")
        + b"}}"
    )
    assert json.loads(second)["seq"] == 6


def test_channel_repeats_nothing_to_one_and_misses_nothing_for_the_other_when_one_joins_late(
    exchange: DrivenHub,
) -> None:
    early = exchange.connect("events.KCN/EUR")
    exchange.say((0, 1, fill()))
    late = exchange.connect("events.KCN/EUR")
    exchange.say((0, 2, fill()), (0, 3, fill()))
    assert [m["seq"] for m in early.messages()] == [1, 2, 3]
    assert [(m["seq"], "epoch" in m) for m in late.messages()] == [(2, True), (3, False)]


def test_channel_is_left_by_unsubscribing_and_others_stay(exchange: DrivenHub) -> None:
    client = exchange.connect("events", "events.A/A", "events.B/B")
    other = exchange.connect("events.A/A")
    names = ["events.B/B", "events.X/X", "events.A/A"]
    assert exchange.hub.unsubscribe(client.subscriber, names) == ["events.B/B", "events.A/A"]
    exchange.say((0, 1, fill("A/A")), (0, 2, fill("B/B")))
    assert [m["channel_name"] for m in client.messages()] == ["events", "events"]
    assert [m["channel_name"] for m in other.messages()] == ["events.A/A"]
    assert list(exchange.hub.channels_of(client.subscriber)) == ["events"]


@pytest.mark.parametrize("name", ["trades.KCN/EUR", "book.KCN/EUR.none.5.raw"])
def test_channel_subscribed_in_another_dialect_goes_on_in_its_shape_of_trades_alone(
    exchange: DrivenHub, name: str
) -> None:
    exchange.say((0, 1, snapshot()))
    client, other = exchange.connect(name), exchange.connect(name)
    exchange.subscribe(client, name, objects=True)
    for connected in (client, other):
        connected.texts()
    assert list(exchange.hub.channels_of(client.subscriber)) == [name]
    assert exchange.hub.subscriptions()[name.partition(".")[0]] == 2
    exchange.say((0, 2, fill()))
    [told], [told_other] = client.messages(), other.messages()
    assert isinstance(told["notification"]["trades"][0], dict)
    assert isinstance(told_other["notification"]["trades"][0], list)
    assert exchange.hub.unsubscribe(client.subscriber, [name]) == [name]
    assert [view.text for view in exchange.hub.open_views()] == [name]
    exchange.say((0, 3, fill()))
    assert client.texts() == []


# Partitions that come and go.


def test_hub_shows_no_book_of_a_partition_that_is_not_served() -> None:
    exchange = DrivenHub(served=(1,))
    exchange.say((0, 1, snapshot("A/A")), (1, 1, snapshot("B/B")), live=False)
    assert exchange.connect(stream=True).texts() == [book_of(exchange, "B/B")]
    symbols = [m["notification"]["event"]["symbol"] for m in exchange.connect("events", "events.A/A").messages()]
    assert symbols == ["B/B"]


def test_hub_shows_the_books_of_a_partition_to_everyone_who_waits_once_it_is_served() -> None:
    exchange = DrivenHub(served=(1,))
    exchange.say((0, 5, snapshot("A/A")), (1, 1, snapshot("B/B")), live=False)
    stream, settled, new = exchange.connect(stream=True), exchange.connect("events"), exchange.connect("events.A/A")
    elsewhere, silent = exchange.connect("events.B/B"), exchange.connect()
    for client in (stream, settled, elsewhere):
        client.texts()
    exchange.hub.partition_changes.serve([0])
    assert stream.texts() == [book_of(exchange, "A/A")]
    [to_settled], [to_new] = settled.messages(), new.messages()
    assert (to_settled["seq"], to_settled["partition"], to_settled.get("epoch")) == (5, 0, None)
    assert (to_new["seq"], to_new["epoch"]) == (5, EPOCH)
    assert to_settled["notification"]["snapshot"] is to_new["notification"]["snapshot"] is True
    assert elsewhere.texts() == silent.texts() == []
    exchange.say((0, 6, fill("A/A")))
    assert [m.get("epoch") for m in settled.messages() + new.messages()] == [None, None]


def test_hub_says_nothing_when_a_served_partition_has_no_books(exchange: DrivenHub) -> None:
    clients = [exchange.connect(stream=True), exchange.connect("events")]
    exchange.hub.partition_changes.serve([0, 9])
    assert [client.texts() for client in clients] == [[], []]
    exchange.say((9, 1, snapshot()), live=False)
    assert exchange.connect(stream=True).texts() == [book_of(exchange, "KCN/EUR")]


def test_hub_shows_no_book_of_a_forgotten_partition_until_it_is_served_again(exchange: DrivenHub) -> None:
    exchange.say((0, 1, snapshot()))
    exchange.lose(0)
    exchange.lose(0)
    late = exchange.connect(stream=True)
    assert late.messages() == [{"type": "stream_status", "status": "stale", "symbols": ["KCN/EUR"]}]
    exchange.say((0, 1, snapshot()), live=False)
    assert late.texts() == []
    exchange.hub.partition_changes.serve([0])
    book, status = late.texts()
    assert book == book_of(exchange, "KCN/EUR")
    assert json.loads(status) == {"type": "stream_status", "status": "live", "symbols": ["KCN/EUR"]}


# Answers, and who is told how much.


def test_hub_puts_an_answer_in_its_place_among_the_events(exchange: DrivenHub) -> None:
    client = exchange.connect("events.KCN/EUR")
    other = exchange.connect("events.KCN/EUR")
    exchange.say((0, 1, fill()))
    exchange.hub.tell(client.subscriber, b'{"id":1}')
    exchange.say((0, 2, fill()))
    assert [m.get("seq", m.get("id")) for m in client.messages()] == [1, 1, 2]
    assert [m["seq"] for m in other.messages()] == [1, 2]


def test_hub_gives_everyone_the_very_same_bytes_in_one_send_a_tick(exchange: DrivenHub) -> None:
    clients = [exchange.connect(stream=True) for _ in range(3)]
    exchange.say((0, 1, fill("A/A")), (1, 1, fill("B/B")), (0, 2, fill("C/C")))
    assert [len(client.transport.sends) for client in clients] == [1, 1, 1]
    assert clients[0].transport.sends[0] is clients[1].transport.sends[0] is clients[2].transport.sends[0]


def test_hub_counts_deliveries_and_their_bytes(exchange: DrivenHub) -> None:
    clients = [exchange.connect(stream=True) for _ in range(3)]
    exchange.counts.deliveries.clear()
    exchange.say((0, 1, fill()))
    size = len(text_frame(fill()))
    assert exchange.counts.deliveries == [(3, 3 * size)]
    clients[1].transport.broken = True
    exchange.say((0, 2, fill()))
    assert exchange.counts.deliveries[1] == (2, 2 * size)


def test_hub_counts_nothing_while_nobody_listens(exchange: DrivenHub) -> None:
    exchange.connect("events.B/B")
    exchange.say((0, 1, snapshot("A/A")))
    exchange.hub.partition_changes.serve([0])
    assert exchange.counts.deliveries == []
    exchange.say((0, 2, snapshot("B/B")))
    assert [count for count, _ in exchange.counts.deliveries] == [1]


# Those who cannot keep up, and those who are gone.


def test_hub_ends_a_slow_subscriber_and_disturbs_no_other(exchange: DrivenHub) -> None:
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


def test_hub_ends_a_slow_subscriber_of_a_channel_and_takes_it_out_of_all_of_them(exchange: DrivenHub) -> None:
    slow = exchange.connect("events", "events.A/A", max_bytes=300, room=0)
    quick = exchange.connect("events", "events.A/A")
    for offset in range(5):
        exchange.say((0, offset, fill("A/A")))
    assert len(slow.ends) == 1
    assert not exchange.hub.channels_of(slow.subscriber)
    assert [m["seq"] for m in quick.messages() if m["channel_name"] == "events"] == [0, 1, 2, 3, 4]


def test_hub_counts_no_first_notification_but_what_comes_behind_it(exchange: DrivenHub) -> None:
    slow = exchange.connect(max_bytes=10, room=0)
    exchange.hub.tell(slow.subscriber, b"goes to the transport")
    exchange.subscribe(slow, "events.A/A")
    quick = exchange.connect("events.A/A")
    exchange.say((0, 1, fill("A/A")))
    assert slow.ends == []
    assert slow.outbox.waiting_bytes > 10, "a first notification does not count"
    exchange.say((0, 2, fill("A/A")))
    assert slow.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]
    exchange.say((0, 3, fill("A/A")))
    assert [m["seq"] for m in quick.messages()] == [1, 2, 3]


def test_hub_lets_an_answer_overflow_too(exchange: DrivenHub) -> None:
    client = exchange.connect(max_bytes=10, room=0)
    exchange.hub.tell(client.subscriber, b"goes to the transport")
    exchange.hub.tell(client.subscriber, b"12345678901")
    assert client.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]


def test_hub_counts_no_snapshot_towards_the_bound(exchange: DrivenHub) -> None:
    exchange.say((0, 1, snapshot("A/A")), (1, 1, snapshot("B/B")))
    client = exchange.connect(max_bytes=10, room=0)
    exchange.hub.tell(client.subscriber, b"goes to the transport")
    exchange.hub.tell(client.subscriber, b"1234")
    exchange.subscribe(client, "events")
    assert client.outbox.waiting_bytes == 6, "a snapshot is fetched when the socket drains"
    exchange.hub.partition_changes.serve([0, 1])
    stream = exchange.connect(stream=True, max_bytes=10, room=0)
    exchange.hub.partition_changes.serve([0, 1])
    late = Client(max_bytes=10, room=0)
    late.transport.ping()  # or what is left of the upgrade
    exchange.hub.add(late.subscriber, stream=True)
    assert client.ends == stream.ends == late.ends == []
    client.transport.settle()
    assert [json.loads(text)["seq"] for text in client.texts()[2:]] == [1, 1]
    assert stream.outbox.waiting_bytes == late.outbox.waiting_bytes > 200


def test_hub_ends_nobody_who_is_gone_already(exchange: DrivenHub) -> None:
    gone, quick = exchange.connect(stream=True), exchange.connect(stream=True)
    gone.transport.broken = True
    exchange.say((0, 1, fill()))
    assert gone.ends == []
    assert exchange.hub.subscribers == {quick.subscriber}
    assert quick.texts() == [fill()]


def test_hub_takes_a_subscriber_out_that_is_removed_while_it_is_ended(exchange: DrivenHub) -> None:
    slow = exchange.connect("events", "events.A/A", max_bytes=10, room=0)
    slow.subscriber.end = lambda code, reason: (slow.end(code, reason), exchange.hub.remove(slow.subscriber))  # type: ignore[assignment,func-returns-value]
    quick = exchange.connect("events")
    exchange.say((0, 1, fill("A/A")))
    exchange.say((0, 2, fill("A/A")))
    assert len(slow.ends) == 1
    assert [m["seq"] for m in quick.messages()] == [1, 2]
    assert exchange.hub.subscribers == {quick.subscriber}


def test_hub_subscribes_nobody_whose_connection_ended_with_the_first_of_its_channels(exchange: DrivenHub) -> None:
    exchange.say((0, 1, snapshot("A/A")), (0, 2, snapshot("B/B")))
    client = exchange.connect()
    client.transport.broken = True
    exchange.subscribe(client, "events.A/A", "events.B/B")
    assert not exchange.hub.open_views()
    assert not exchange.hub.channels_of(client.subscriber)


@pytest.mark.parametrize("stream", [True, False])
def test_hub_keeps_nothing_of_a_removed_subscriber(exchange: DrivenHub, stream: bool) -> None:
    exchange.say((0, 1, snapshot()))
    client = exchange.connect("events", "events.KCN/EUR", "events.NEW/EUR")
    if stream:
        exchange.hub.remove(client.subscriber)
        client = exchange.connect(stream=True)
    exchange.hub.remove(client.subscriber)
    assert not exchange.hub.open_views(), "channels come with names of the clients' choosing"
    exchange.hub.remove(client.subscriber)
    remains = weakref.ref(client.transport)
    del client
    gc.collect()
    assert remains() is None


def test_hub_knows_how_many_subscriptions_of_each_kind_there_are(exchange: DrivenHub) -> None:
    exchange.connect(stream=True)
    first = exchange.connect("book.A/A.none.10.raw", "book.A/A.none.5.raw", "trades.A/A", "events")
    second = exchange.connect("book.A/A.none.10.raw")
    assert exchange.hub.subscriptions() == {"stream": 1, "book": 3, "trades": 1, "events": 1}
    exchange.subscribe(first, "trades.A/A")
    exchange.hub.unsubscribe(second.subscriber, ["book.A/A.none.10.raw", "lwt.A/A.raw"])
    assert exchange.hub.subscriptions() == {"stream": 1, "book": 2, "trades": 1, "events": 1}
    exchange.hub.remove(first.subscriber)
    exchange.hub.remove(first.subscriber)
    assert exchange.hub.subscriptions() == {"stream": 1, "book": 0, "trades": 0, "events": 0}


def test_hub_knows_how_much_waits_for_all_slow_readers_together(exchange: DrivenHub) -> None:
    slow = [exchange.connect(stream=True, room=0) for _ in range(2)]
    exchange.connect(stream=True)
    for offset in (1, 2):
        exchange.say((0, offset, fill("A/A")))
    frame = len(text_frame(fill("A/A")))
    # The first is in the transport's own buffer.
    assert [client.outbox.waiting_bytes for client in slow] == [frame, frame]
    assert exchange.hub.waiting_bytes() == 2 * frame


def test_hub_counts_what_a_slow_reader_fetches_later(exchange: DrivenHub) -> None:
    exchange.say((0, 1, snapshot("A/A")))
    client = exchange.connect("book.A/A.none.10.raw", max_bytes=2000, room=0)
    for offset in range(2, 30):
        exchange.say((0, offset, delta("A/A", sequence=offset, price=f"1.{offset:02}")))
    assert exchange.counts.conflations
    before = len(exchange.counts.deliveries)
    client.transport.settle()
    last = client.messages()[-1]
    assert last["notification"]["conflated"] is True
    assert len(exchange.counts.deliveries) == before + 1
