"""Single claims about market-data channels; what holds in every mixture of them is in test_market_data."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CloseCode
from core.market.history import Entry
from core.market.trade import Trade
from tests.core.driven_hub import EPOCH, DrivenHub
from tests.core.fakes import Client, delta, fill, snapshot

K = "KCN/EUR"
BOOK = f"book.{K}.none.10.raw"
MALFORMED = delta(deltas=[{"action": "replace"}])


@pytest.fixture
def driven() -> DrivenHub:
    return DrivenHub()


def told(client: Client) -> list[Any]:
    """Notifications, or the status of the stream, in short."""
    return [m.get("status") or m["notification"] for m in client.messages()]


def price_of(n: int) -> bytes:
    return delta(price=f"1.{n:03}", sequence=n)


# Quiet or dead.


def test_book_beats_every_five_seconds_of_quiet_from_the_first_subscription_on(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK)
    client.texts()
    heard = []
    for _ in range(160):
        driven.pass_time(0.1)
        heard += [(round(driven.now - 1000, 1), m["seq"], m["notification"]["bid_changes"]) for m in client.messages()]
    assert heard == [(5.0, 1, []), (10.0, 1, []), (15.0, 1, [])] or [round(t) for t, _, _ in heard] == [5, 10, 15]
    assert {seq for _, seq, _ in heard} == {1}


def test_heartbeats_come_as_often_whatever_the_interval_and_only_on_books(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.1.60000ms", f"ticker.{K}.raw", f"lwt.{K}.raw", f"trades.{K}", "events")
    client.texts()
    driven.pass_time(21, 0.1)
    assert [m["channel_name"] for m in client.messages()] == [f"book.{K}.none.1.60000ms"] * 4


def test_heartbeats_stop_with_the_reading(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK)
    client.texts()
    driven.hub.partition_changes.set_unread({0})
    driven.pass_time(30, 0.1)
    assert told(client) == [{"stale": True}]
    driven.hub.partition_changes.set_unread(set())
    [again] = told(client)
    assert again["snapshot"] is True


@pytest.mark.parametrize("record", [MALFORMED, delta(price="9")], ids=["malformed", "crossed"])
@pytest.mark.parametrize("name", [BOOK, f"book.{K}.none.10.60000ms", f"ticker.{K}.60000ms", f"lwt.{K}.raw"])
def test_quote_is_stale_at_once_and_until_the_engines_snapshot(driven: DrivenHub, name: str, record: bytes) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(name)
    driven.say((0, 2, delta(price="1.5", side="bid")))
    client.texts()
    driven.say((0, 3, record))
    assert told(client) == [{"stale": True}]
    driven.say((0, 4, delta()), (0, 5, fill()), (0, 6, record))
    driven.pass_time(70, 0.1)
    assert told(client) == []
    driven.say((0, 7, snapshot(bid="1.1")))
    [healed] = told(client)
    assert healed["snapshot"] is True
    assert "conflated" not in healed


def test_quote_that_is_healed_in_the_same_drain_was_never_stale(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK)
    client.texts()
    driven.say((0, 2, MALFORMED), (0, 3, snapshot(bid="1.2")))
    [news] = told(client)
    assert news["bid_changes"] == [[1.4, 1, 0], [1.2, 0, 1]] or sorted(news["bid_changes"]) == [
        [1.2, 0, 1],
        [1.4, 1, 0],
    ]
    assert "snapshot" not in news


def test_who_joins_a_stale_channel_is_told_so_first(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    driven.hub.partition_changes.set_unread({0})
    client = driven.connect(BOOK, f"ticker.{K}.raw", f"trades.{K}")
    first = client.messages()
    assert [m.get("notification") for m in first[:2]] == [{"stale": True}] * 2
    assert [m.get("epoch") for m in first[:3]] == [EPOCH] * 3
    assert first[3] == {"type": "stream_status", "status": "stale", "symbols": [K]}


def test_no_timer_heals_what_is_not_read(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.10.1000ms")
    driven.say((0, 2, price_of(1)))
    driven.say((0, 3, price_of(2)))
    client.texts()
    driven.lose(0)
    driven.say((0, 1, snapshot()), live=False)
    driven.pass_time(3, 0.1)
    assert told(client) == [{"stale": True}]
    driven.hub.partition_changes.serve([0])
    assert [n["snapshot"] for n in told(client)] == [True]


def test_lossless_listeners_are_told_of_their_symbols_once(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot("A/A")), (0, 2, snapshot("B/B")), (1, 1, snapshot("C/C")))
    clients = [driven.connect(stream=True), driven.connect("events"), driven.connect("trades.A/A", "events.A/A"),
               driven.connect("trades.C/C"), driven.connect("book.A/A.none.1.raw")]  # fmt: skip
    for client in clients:
        client.texts()
    driven.hub.partition_changes.set_unread({0})
    driven.hub.partition_changes.set_unread({0})
    statuses = [[(m["status"], m["symbols"]) for m in client.messages() if "status" in m] for client in clients]
    both, mine = [("stale", ["A/A", "B/B"])], [("stale", ["A/A"])]
    assert statuses == [both, both, mine, [], []]
    driven.hub.partition_changes.set_unread(set())
    statuses = [[(m["status"], m["symbols"]) for m in client.messages() if "status" in m] for client in clients]
    assert statuses == [[("live", both[0][1])], [("live", both[0][1])], [("live", ["A/A"])], [], []]


def test_record_shows_that_its_partition_is_read(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK)
    driven.hub.partition_changes.set_unread({0})
    client.texts()
    driven.say((0, 2, price_of(7)))
    assert told(client)[0]["snapshot"] is True


# Intervals and trades.


def test_interval_lets_the_first_change_go_at_once_and_conflates_the_next(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.10.500ms")
    driven.pass_time(3)
    client.texts()
    driven.say((0, 2, price_of(1)))
    assert len(told(client)) == 1
    for offset in range(3, 8):
        driven.say((0, offset, price_of(offset)), (0, offset + 100, fill(timestamp=offset)))
        driven.pass_time(0.05)
    assert told(client) == []
    driven.pass_time(0.3, 0.05)
    [news] = told(client)
    assert len(news["bid_changes"]) == 5
    assert [trade[3] for trade in news["trades"]] == [0.003, 0.004, 0.005, 0.006, 0.007]


def test_change_that_is_taken_back_within_the_interval_is_not_news(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.10.500ms", f"ticker.{K}.500ms")
    driven.say((0, 2, price_of(1)), (0, 3, delta(price="1.45")))
    client.texts()
    gone = delta(deltas=[{"action": "remove", "side": "bid", "price": "1.46"}])
    driven.say((0, 4, delta(price="1.46")))
    driven.say((0, 5, gone))
    driven.pass_time(2, 0.1)
    assert told(client) == []


def test_late_joiner_gets_the_told_state_and_the_same_next_change(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    early = driven.connect(f"book.{K}.none.10.1000ms")
    driven.say((0, 2, price_of(1)))
    driven.say((0, 3, price_of(2)))
    late = driven.connect(f"book.{K}.none.10.1000ms")
    [first] = late.messages()
    assert (first["seq"], len(first["notification"]["bid_changes"])) == (2, 2)
    early.texts()
    driven.pass_time(1.1)
    assert early.texts() == late.texts() != []


# Slow readers.


def test_slow_reader_of_a_book_skips_and_comes_back_with_a_snapshot(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    slow, quick = driven.connect(BOOK, max_bytes=2000), driven.connect(BOOK)
    slow.texts()
    slow.transport.room = 0
    for offset in range(2, 60):
        driven.say((0, offset, price_of(offset)))
        assert slow.outbox.waiting_bytes <= 2000
    assert driven.counts.conflations == ["book"]
    assert len(quick.texts()) == 59
    slow.transport.settle()
    *before, last = slow.messages()
    assert not any("conflated" in m["notification"] for m in before)
    assert (last["notification"]["conflated"], last["notification"]["snapshot"], last["seq"]) == (True, True, 59)
    assert "epoch" not in last
    driven.say((0, 60, price_of(100)))
    assert slow.texts() == quick.texts() != []
    assert slow.ends == []


def test_conflatable_frames_make_room_for_lossless_ones_even_of_channels_that_were_left(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    slow = driven.connect(BOOK, "events.A/A", max_bytes=900, room=0)
    for offset in (2, 3):
        driven.say((0, offset, price_of(offset)))
    driven.hub.unsubscribe(slow.subscriber, [BOOK])
    for offset in range(1, 4):
        driven.say((1, offset, fill("A/A")))
    assert slow.ends == []
    driven.say(*((1, offset, fill("A/A")) for offset in range(4, 8)))
    assert slow.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]
    assert driven.counts.closes == ["overflow"]


def test_stuck_reader_is_closed_after_half_a_minute_and_no_other(driven: DrivenHub) -> None:
    stuck, quick = driven.connect("events", room=5), driven.connect("events")
    driven.say((0, 1, fill()))
    driven.pass_time(29.9, 0.5)
    assert stuck.ends == []
    driven.pass_time(10.2, 0.5)
    assert stuck.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]
    assert quick.ends == []
    assert driven.counts.closes == ["stuck"]


def test_replay_that_the_history_leaves_behind_is_closed() -> None:
    driven = DrivenHub(history_records=5)
    for offset in range(5):
        driven.say((0, offset, fill()))
    slow = driven.connect(room=0)
    slow.transport.ping()
    driven.subscribe(slow, f"trades.{K}", since={f"trades.{K}": 0})
    for offset in range(5, 20):
        driven.say((0, offset, fill()))
    slow.transport.settle()
    assert slow.ends == [(CloseCode.SLOW_CONSUMER, "slow consumer")]
    assert driven.counts.closes == ["history"]


def test_snapshots_do_not_pile_up_before_a_full_socket(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot(bids=[{"price": f"1.{n:03}", "quantity": "1"} for n in range(1, 300)])))
    client = driven.connect(room=0)
    for _ in range(50):
        driven.subscribe(client, f"book.{K}.none.all.raw")
    assert client.outbox.waiting_bytes < 10_000
    client.transport.settle()
    *_, last = client.messages()
    assert (last["epoch"], last["notification"]["snapshot"]) == (EPOCH, True)
    assert "conflated" not in last["notification"]


# Resume.


def seqs(client: Client) -> list[tuple[int, Any]]:
    return [(m["seq"], m.get("recovered")) for m in client.messages() if "seq" in m]


@pytest.mark.parametrize("form", [3, {"seq": 3}, {"epoch": EPOCH, "seq": 3}])
def test_resume_goes_on_behind_the_seq_and_then_with_what_is_new(driven: DrivenHub, form: Any) -> None:
    for offset in range(8):
        driven.say((0, offset, fill()))
    client = driven.connect()
    driven.subscribe(client, f"events.{K}", since={f"events.{K}": form})
    driven.say((0, 8, fill()))
    assert seqs(client) == [(4, True), (5, None), (6, None), (7, None), (8, None)]


def test_resume_says_so_when_nothing_was_missed(driven: DrivenHub) -> None:
    driven.say((0, 0, snapshot()), (0, 1, fill()), (0, 2, delta()))
    client = driven.connect()
    since = {f"events.{K}": 2, f"trades.{K}": 1, BOOK: 1}
    driven.subscribe(client, *since, since=since)
    assert [(m["seq"], m.get("recovered"), m["notification"]) for m in client.messages()[:2]] == [
        (2, True, {}), (2, True, {"trades": []}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "position",
    [{"epoch": "another", "seq": 3}, 9, {"epoch": EPOCH, "seq": 200_000}],
    ids=["other life", "future", "far future"],
)
def test_resume_is_refused_with_a_snapshot_when_it_cannot_be(driven: DrivenHub, position: Any) -> None:
    for offset in range(8):
        driven.say((0, offset, fill()))
    client = driven.connect()
    driven.subscribe(client, f"trades.{K}", since={f"trades.{K}": position})
    [message] = client.messages()
    assert (message["recovered"], message["notification"]["snapshot"], message["epoch"]) == (False, True, EPOCH)
    assert len(message["notification"]["trades"]) == 8


def test_resume_of_a_client_that_is_a_little_ahead_waits_for_the_instance_but_not_for_ever(driven: DrivenHub) -> None:
    driven.say((0, 1, fill()))
    ahead, future = driven.connect(), driven.connect()
    for client, seq in ((ahead, 3), (future, 50)):
        driven.subscribe(client, f"trades.{K}", since={f"trades.{K}": {"epoch": EPOCH, "seq": seq}})
    driven.say((0, 2, fill()), (0, 3, fill()), (0, 4, fill()))
    assert seqs(ahead) == [(4, True)]
    assert seqs(future) == []
    driven.pass_time(3.1, 0.1)
    assert seqs(future) == [(4, False)]


def recovered_at(
    client: Client, driven: DrivenHub, seconds: float, step: Callable[[int], None]
) -> list[tuple[float, bool]]:
    """When the client was told, in seconds from now, and whether it had all; each second there is a step."""
    began, found = driven.now, []
    for second in range(1, int(seconds) + 1):
        for _ in range(10):
            driven.pass_time(0.1)
            found += [(round(driven.now - began, 1), m["recovered"]) for m in client.messages() if "recovered" in m]
        step(second)
        found += [(round(driven.now - began, 1), m["recovered"]) for m in client.messages() if "recovered" in m]
    return found


def test_resume_of_a_client_that_is_ahead_waits_as_long_as_the_instance_catches_up(driven: DrivenHub) -> None:
    driven.say((0, 0, fill()))
    client = driven.connect()
    driven.subscribe(client, f"trades.{K}", since={f"trades.{K}": {"epoch": EPOCH, "seq": 4}})
    # What is read is another symbol's, a record each two seconds.
    told = recovered_at(client, driven, 14, lambda s: driven.say((0, s // 2, delta("A/A"))) if s % 2 == 0 else None)
    assert told == [(8.0, True)]
    assert driven.counts.resumes == ["history"]


@pytest.mark.parametrize("partition", [0, 1])
def test_resume_of_a_client_that_is_ahead_is_given_up_three_seconds_after_the_instance_came_nearer(
    driven: DrivenHub, partition: int
) -> None:
    driven.say((0, 0, fill()), (1, 0, fill("A/A")))
    client = driven.connect()
    driven.subscribe(client, f"trades.{K}", since={f"trades.{K}": {"epoch": EPOCH, "seq": 9}})
    told = recovered_at(client, driven, 14, lambda s: driven.say((partition, s, delta("C/C"))) if s in (1, 2) else None)
    assert [recovered for _, recovered in told] == [False]
    # On another partition it does not come nearer.
    assert told[0][0] == pytest.approx(5.0 if partition == 0 else 3.0, abs=0.11)


def test_resume_of_a_client_that_is_ahead_is_given_up_after_a_quarter_of_a_minute_in_all(driven: DrivenHub) -> None:
    driven.say((0, 0, fill()))
    client = driven.connect()
    driven.subscribe(client, f"trades.{K}", since={f"trades.{K}": {"epoch": EPOCH, "seq": 500}})
    told = recovered_at(client, driven, 20, lambda s: driven.say((0, s, fill())))
    assert [recovered for _, recovered in told] == [False]
    assert told[0][0] == pytest.approx(15.0, abs=0.11)
    assert driven.counts.resumes == ["not_recovered"]


def test_resume_of_everything_waits_while_the_instance_comes_nearer_on_any_partition(driven: DrivenHub) -> None:
    driven.say((0, 0, fill("A/A")), (1, 0, fill("C/C")))
    client = driven.connect()
    driven.subscribe(client, "events", since={"events": {"epoch": EPOCH, "seq": {"0": 2, "1": 2}}})
    records = {2: (0, 1), 4: (1, 1), 6: (0, 2), 8: (1, 2)}
    told = recovered_at(
        client,
        driven,
        10,
        lambda s: driven.say((*records[s], delta("A/A" if s in (2, 6) else "C/C"))) if s in records else None,
    )
    assert told == [(8.0, True)]


def test_resume_of_a_client_that_is_ahead_waits_anew_when_its_partition_was_lost_meanwhile(driven: DrivenHub) -> None:
    driven.say((0, 1, fill()))
    client = driven.connect()
    driven.subscribe(client, f"trades.{K}", since={f"trades.{K}": {"epoch": EPOCH, "seq": 5}})
    driven.pass_time(2.0, 0.1)
    driven.lose(0)
    driven.pass_time(20.0, 0.1)
    assert seqs(client) == []
    driven.hub.partition_changes.begin(0, 0)
    driven.say((0, 1, fill()), live=False)
    driven.hub.partition_changes.serve([0])
    told = recovered_at(client, driven, 5, lambda _: None)
    assert [recovered for _, recovered in told] == [False]
    assert told[0][0] == pytest.approx(3.0, abs=0.11)


def test_resume_on_a_symbol_that_is_not_served_yet_tells_its_first_batch_once(driven: DrivenHub) -> None:
    client = driven.connect()
    driven.subscribe(client, "trades.A/A", since={"trades.A/A": 3})
    driven.say((0, 5, fill("A/A")), (0, 6, fill("A/A")))
    assert [len(n["trades"]) for n in told(client)] == [2]
    driven.say((0, 7, fill("A/A")))
    assert [len(n["trades"]) for n in told(client)] == [1]


def test_resume_of_everything_takes_a_partition_not_heard_of_from_its_beginning(driven: DrivenHub) -> None:
    driven.say((0, 0, fill("A/A")), (0, 1, fill("A/A")), (1, 0, fill("C/C")))
    client = driven.connect()
    driven.subscribe(client, "events", since={"events": {"0": 0}})
    assert [(m["partition"], m["seq"], m.get("recovered")) for m in client.messages()] == [(0, 1, True), (1, 0, None)]


def test_client_that_missed_nothing_is_told_no_seq_of_a_partition_without_records() -> None:
    driven = DrivenHub(())
    for partition in (0, 1, 2):
        driven.hub.partition_changes.begin(partition, 0)
    driven.hub.partition_changes.serve([0, 1, 2])
    client = driven.connect()
    driven.subscribe(client, "events", since={"events": {}})
    driven.say((1, 0, fill("C/C")))
    again = driven.connect()
    driven.subscribe(again, "events", since={"events": {"1": 0}})
    driven.say((0, 0, fill("A/A")))
    messages = [(m["partition"], m["seq"], m.get("recovered")) for m in client.messages()]
    assert messages == [(0, -1, True), (1, 0, None), (0, 0, None)]
    messages = [(m["partition"], m["seq"], m.get("recovered")) for m in again.messages()]
    assert messages == [(1, 0, True), (0, 0, None)]


def test_resume_claims_nothing_from_before_the_reading_began() -> None:
    driven = DrivenHub(())
    driven.hub.partition_changes.begin(0, 60)
    driven.hub.partition_changes.serve([0])
    client = driven.connect()
    driven.subscribe(client, "events", since={"events": {"0": 50}})
    assert seqs(client) == [(59, False)]


def entry(offset: int, is_trade: bool = True) -> Entry:
    trade = Trade(Decimal(offset), Decimal(1), "buy", 1, 1, 2) if is_trade else None
    return Entry(0, offset, 0, K, fill(), trade)


def test_resume_beyond_the_history_is_read_back_and_has_no_gap_and_no_repeat() -> None:
    driven = DrivenHub(history_records=3)
    driven.may_ask_for_missed_records()
    for offset in range(10):
        driven.say((0, offset, fill()))
    client = driven.connect()
    driven.subscribe(client, f"events.{K}", since={f"events.{K}": 2})
    assert driven.asked_back[0][1] == {0: (3, 7)}
    driven.say((0, 10, fill()), (0, 11, fill()))
    assert seqs(client) == []
    driven.bring_missed_records({0: [entry(offset) for offset in range(3, 7)]})
    assert driven.asked_back[0][1] == {0: (7, 9)}, "meanwhile the history has lost more"
    driven.bring_missed_records({0: [entry(offset) for offset in range(7, 9)]})
    driven.say((0, 12, fill()))
    assert seqs(client) == [(3, True), *((offset, None) for offset in range(4, 13))]
    assert driven.counts.resumes == ["bus"]


def test_resume_of_trades_shows_nothing_of_what_is_not_a_trade() -> None:
    driven = DrivenHub(history_records=2)
    driven.may_ask_for_missed_records()
    for offset in range(600):
        driven.say((0, offset, delta()))
    client = driven.connect()
    driven.subscribe(client, f"trades.{K}", since={f"trades.{K}": 10})
    driven.bring_missed_records({0: [entry(offset, is_trade=offset == 500) for offset in range(11, 598)]})
    assert seqs(client) == [(500, True)]


@pytest.mark.parametrize("refuses", [True, False])
def test_resume_is_given_up_when_the_bus_does_not_answer(refuses: bool) -> None:
    driven = DrivenHub(history_records=3)
    if not refuses:
        driven.may_ask_for_missed_records()
    for offset in range(10):
        driven.say((0, offset, fill()))
    client = driven.connect()
    driven.subscribe(client, f"trades.{K}", since={f"trades.{K}": 2})
    if not refuses:
        driven.bring_missed_records(None)
    driven.say((0, 10, fill()))
    assert seqs(client) == [(9, False), (10, None)]


def test_resume_is_given_up_when_the_history_always_loses_more_than_is_read_back() -> None:
    driven = DrivenHub(history_records=1)
    driven.may_ask_for_missed_records()
    driven.say((0, 0, fill()), (0, 1, fill()), (0, 2, fill()))
    client = driven.connect()
    driven.subscribe(client, f"events.{K}", since={f"events.{K}": 0})
    for offset in range(3, 20):
        driven.say((0, offset, fill()))
        if driven.asked_back:
            first, last = driven.asked_back[0][1][0]
            driven.bring_missed_records({0: [entry(offset) for offset in range(first, last)]})
    assert seqs(client)[0][1] is False
    assert driven.counts.resumes == ["not_recovered"]


def test_resume_that_nobody_waits_for_any_more_is_dropped() -> None:
    driven = DrivenHub(history_records=1)
    driven.may_ask_for_missed_records()
    driven.say((0, 0, fill()), (0, 1, fill()), (0, 2, fill()))
    client = driven.connect()
    driven.subscribe(client, f"events.{K}", since={f"events.{K}": 0})
    driven.hub.unsubscribe(client.subscriber, [f"events.{K}"])
    driven.bring_missed_records({0: [entry(1)]})
    assert client.texts() == []
    assert not driven.hub.open_views()


def test_resume_goes_on_across_a_partition_that_was_lost_on_the_way(driven: DrivenHub) -> None:
    for offset in range(50):
        driven.say((0, offset, fill()))
    client = driven.connect(room=10)
    driven.subscribe(client, f"events.{K}", since={f"events.{K}": 20})
    for offset in range(50, 500):
        driven.say((0, offset, fill()))
    driven.lose(0)
    client.transport.settle()
    driven.hub.partition_changes.begin(0, 0)
    driven.say(*((0, offset, fill()) for offset in range(510)), live=False)
    driven.hub.partition_changes.serve([0])
    client.transport.settle()
    assert [seq for seq, _ in seqs(client)] == list(range(21, 510))


def test_listener_gets_what_came_while_its_partition_was_lost(driven: DrivenHub) -> None:
    client = driven.connect(f"events.{K}")
    driven.say((0, 0, fill()))
    driven.lose(0)
    driven.hub.partition_changes.begin(0, 0)
    driven.say(*((0, offset, fill()) for offset in range(4)), live=False)
    driven.hub.partition_changes.serve([0])
    assert seqs(client) == [(0, None), (1, True), (2, None), (3, None)]


def test_listener_gets_what_came_while_its_partition_was_lost_twice_before_it_could_be_served(
    driven: DrivenHub,
) -> None:
    client = driven.connect(f"events.{K}")
    driven.say((0, 0, fill()), (0, 1, fill()))
    driven.lose(0)
    driven.hub.partition_changes.begin(0, 0)
    driven.say((0, 0, fill()), live=False)
    driven.lose(0)
    driven.hub.partition_changes.begin(0, 0)
    driven.say(*((0, offset, fill()) for offset in range(4)), live=False)
    driven.hub.partition_changes.serve([0])
    assert seqs(client) == [(0, None), (1, None), (2, True), (3, None)]


def test_listener_that_is_ahead_of_one_partition_that_returned_goes_on_where_the_other_was_left(
    driven: DrivenHub,
) -> None:
    client = driven.connect("events")
    driven.say((0, 5, fill("A/A")), (1, 5, fill("C/C")))
    client.texts()
    for partition in (0, 1):
        driven.lose(partition)
    driven.hub.partition_changes.begin(0, 0)
    driven.say((0, 3, fill("A/A")), live=False)
    driven.hub.partition_changes.serve([0])
    driven.hub.partition_changes.begin(1, 0)
    driven.say((1, 5, fill("C/C")), (1, 6, fill("C/C")), live=False)
    driven.hub.partition_changes.serve([1])
    assert seqs(client) == []
    driven.say(*((0, offset, fill("A/A")) for offset in (4, 5, 6)))
    messages = client.messages()
    assert {(m["partition"], m["seq"]) for m in messages} == {(0, 6), (1, 6)}
    assert [m.get("recovered") for m in messages] == [True, None]


def test_snapshot_that_is_owed_when_its_partition_is_lost_is_owed_until_it_is_served_again(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(room=0)
    for text in (b"goes to the transport", b"waits"):
        driven.hub.tell(client.subscriber, text)
    driven.subscribe(client, f"events.{K}")
    driven.lose(0)
    client.transport.settle()
    assert client.texts()[2:] == [b'{"type":"stream_status","status":"stale","symbols":["KCN/EUR"]}']
    driven.hub.partition_changes.begin(0, 1)
    driven.say((0, 1, snapshot()), live=False)
    driven.hub.partition_changes.serve([0])
    [first] = [m for m in client.messages() if "seq" in m]
    assert (first["seq"], first["epoch"], first["notification"]["snapshot"]) == (1, EPOCH, True)


def test_listener_is_told_of_what_cannot_be_had_of_a_lost_partition(driven: DrivenHub) -> None:
    client = driven.connect(f"trades.{K}")
    driven.say((0, 50, fill()))
    driven.lose(0)
    driven.hub.partition_changes.begin(0, 60)
    driven.hub.partition_changes.serve([0])
    assert seqs(client) == [(50, None), (59, False)]


# Exactness: no number goes through binary floating point.

DIGITS = st.text("0123456789", min_size=1, max_size=30).map(lambda text: text.lstrip("0") or "1")
DECIMALS = st.builds(
    lambda whole, part: f"{whole}.{part}1",
    DIGITS.map(lambda text: text[:8]),
    st.text("0123456789", min_size=20, max_size=28),
)


@given(DECIMALS, DECIMALS, DECIMALS, DECIMALS)
def test_every_number_on_every_channel_is_the_engines_to_the_last_digit(
    bid: str, size: str, price: str, amount: str
) -> None:
    driven = DrivenHub()
    asks = [{"price": "999999999", "quantity": size}]
    driven.say((0, 1, snapshot(bids=[{"price": bid, "quantity": size}], asks=asks)))
    client = driven.connect(BOOK, f"trades.{K}", f"lwt.{K}.raw", f"ticker.{K}.raw")
    driven.say((0, 2, fill(price=price, quantity=amount, timestamp=1700000000123)))
    texts = [text.decode() for text in client.texts()]
    book = f"[{bid},0,{size}]"
    trade = f'[{price},{amount},"'
    assert book in texts[0]
    assert f'"total_bid_amount":{size},"total_ask_amount":{size}' in texts[0]
    assert f'"b":[{bid},{size},{size}],"a":[999999999,{size},{size}]' in texts[2]
    assert f'"best_bid_price":{bid},"best_bid_amount":{size}' in texts[3]
    of = {name: next(t for t in texts[4:] if f'"{name}' in t) for name in ("book", "trades", "lwt", "ticker")}
    for name in ("book", "trades"):
        assert trade in of[name]
        assert ",1700000000.123,false]" in of[name]
    assert f'"l":{price}' in of["lwt"]
    assert f'"last_price":{price},"volume_24h":{amount.rstrip("0")}' in of["ticker"]
    assert f'"high_24h":{price}' in of["book"]
    assert all(
        "e+" not in t.lower() and "e-" not in t.lower().split('"channel_name"')[1].split("notification")[1]
        for t in of.values()
    )


def test_no_timer_heals_what_waited_when_its_partition_was_found_unread(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(f"book.{K}.none.10.1000ms")
    driven.say((0, 2, price_of(1)))
    driven.say((0, 3, price_of(2)))
    client.texts()
    driven.hub.partition_changes.set_unread({0})
    driven.pass_time(3, 0.1)
    assert told(client) == [{"stale": True}]
    driven.hub.partition_changes.set_unread(set())
    [again] = told(client)
    assert (again["snapshot"], len(again["bid_changes"])) == (True, 3)


def test_partition_that_stays_unread_is_stale_again_after_a_record_that_was_on_its_way(driven: DrivenHub) -> None:
    driven.say((0, 1, snapshot()))
    client = driven.connect(BOOK, f"trades.{K}")
    driven.hub.partition_changes.set_unread({0})
    client.texts()
    driven.say((0, 2, price_of(1)))
    assert [one if one == "live" else one["snapshot"] for one in told(client)] == [True, "live"]
    driven.hub.partition_changes.set_unread({0})
    assert told(client) == [{"stale": True}, "stale"]
    driven.hub.partition_changes.set_unread({0})
    assert told(client) == []
