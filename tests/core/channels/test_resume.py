"""Coming back with `since`: single claims; what holds in every mixture of them is in test_market_data."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from core.channels.resume import FETCH_ROUNDS
from core.market.history import Entry
from core.market.statistics import Statistics
from core.market.trade import Trade
from tests.core.driven_hub import EPOCH, DrivenHub
from tests.core.fakes import Client, delta, fill, snapshot

K = "KCN/EUR"
BOOK = f"book.{K}.none.10.raw"


@pytest.fixture
def driven() -> DrivenHub:
    return DrivenHub()


def told(client: Client) -> list[Any]:
    """Notifications, or the status of the stream, in short."""
    return [m.get("status") or m["notification"] for m in client.messages()]


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


def read_back(first: int, end: int) -> dict[int, list[Entry]]:
    return {0: [entry(offset) for offset in range(first, end)]}


def coming_back(room: float = float("inf")) -> tuple[DrivenHub, Client]:
    """Of ten events the history has three, and a client comes back that has had three."""
    driven = DrivenHub(history_records=3)
    driven.may_ask_for_missed_records()
    for offset in range(10):
        driven.say((0, offset, fill()))
    client = driven.connect(room=room)
    driven.subscribe(client, f"events.{K}", since={f"events.{K}": 2})
    return driven, client


def test_resume_beyond_the_history_is_read_back_and_has_no_gap_and_no_repeat() -> None:
    driven, client = coming_back()
    assert driven.asked_back[0][1] == {0: (3, 10)}, "what the history has yet may be gone by then"
    driven.say((0, 10, fill()), (0, 11, fill()))
    assert seqs(client) == []
    driven.bring_missed_records(read_back(3, 10))
    driven.say((0, 12, fill()))
    assert seqs(client) == [(3, True), *((offset, None) for offset in range(4, 13))]
    assert driven.counts.resumes == ["bus"]


def test_resume_has_fetched_what_the_history_loses_while_the_client_reads() -> None:
    driven, client = coming_back(room=10)
    driven.bring_missed_records(read_back(3, 10))
    for offset in range(10, 30):
        driven.say((0, offset, fill()))
    client.transport.settle()
    assert [gaps for _, gaps in driven.asked_back] == [{0: (10, 30)}]
    driven.say((0, 30, fill()))
    driven.bring_missed_records(read_back(10, 30))
    client.transport.settle()
    driven.say((0, 31, fill()))
    client.transport.settle()
    assert seqs(client) == [(3, True), *((offset, None) for offset in range(4, 32))]
    assert driven.counts.resumes == ["bus"]


@pytest.mark.parametrize("refuses", [True, False])
def test_resume_that_has_begun_and_cannot_go_on_ends_as_a_slow_consumer(refuses: bool) -> None:
    driven, client = coming_back(room=10)
    driven.bring_missed_records(read_back(3, 10))
    if refuses:
        driven.hub.resume.missed_records = lambda _replay, _gaps: False
    for offset in range(10, 30):
        driven.say((0, offset, fill()))
    client.transport.settle()
    if not refuses:
        assert client.subscriber in driven.hub.subscribers
        driven.bring_missed_records(None)
    assert client.subscriber not in driven.hub.subscribers
    assert driven.counts.resumes == ["bus"]
    assert driven.counts.closes == ["history"]


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


def test_resume_is_recovered_though_the_history_always_loses_more_than_is_read_back() -> None:
    driven = DrivenHub(history_records=1)
    driven.may_ask_for_missed_records()
    driven.say((0, 0, fill()), (0, 1, fill()), (0, 2, fill()))
    client = driven.connect()
    driven.subscribe(client, f"events.{K}", since={f"events.{K}": 0})
    for offset in range(3, 20):
        driven.say((0, offset, fill()))
        if driven.asked_back:
            driven.bring_missed_records(read_back(*driven.asked_back[0][1][0]))
    assert seqs(client) == [(1, True), *((offset, None) for offset in range(2, 20))]
    assert driven.counts.resumes == ["bus"]


def test_resume_is_given_up_when_the_bus_answers_without_what_was_asked() -> None:
    driven = DrivenHub(history_records=1)
    driven.may_ask_for_missed_records()
    driven.say((0, 0, fill()), (0, 1, fill()), (0, 2, fill()))
    client = driven.connect()
    driven.subscribe(client, f"events.{K}", since={f"events.{K}": 0})
    for _ in range(FETCH_ROUNDS):
        assert seqs(client) == []
        driven.bring_missed_records({})
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


def test_client_that_has_all_of_a_restored_symbol_goes_on_without_the_bus() -> None:
    driven = DrivenHub()
    driven.market.settle("KCN/EUR", 0, 500).restore(60, 0, (), 0, Statistics(), None)
    driven.market.partitions.folded[0] = 500
    client = driven.connect()
    driven.subscribe(client, "events.KCN/EUR", since={"events.KCN/EUR": {"epoch": EPOCH, "seq": 60}})
    driven.say((0, 501, fill()), (0, 502, fill()))
    empty, first, second = client.messages()
    assert (empty["recovered"], empty["seq"], empty["notification"]) == (True, 500, {})
    assert [(told["seq"], told["prev_seq"]) for told in (first, second)] == [(501, 60), (502, 501)]
    late = driven.connect()
    driven.subscribe(late, "events.KCN/EUR", since={"events.KCN/EUR": {"epoch": EPOCH, "seq": 59}})
    assert [told["recovered"] for told in late.messages()] == [False]


def test_replay_names_what_came_before_from_its_second_notification_of_a_partition_on() -> None:
    driven = DrivenHub()
    driven.say((0, 1, fill("A/A")), (1, 1, fill("B/B")), (0, 4, fill("A/A")), (1, 7, fill("B/B")))
    client = driven.connect()
    since = {"events": {"epoch": EPOCH, "seq": {"0": 0, "1": 0}}}
    driven.subscribe(client, "events", "trades.A/A", since={**since, "trades.A/A": {"epoch": EPOCH, "seq": 0}})
    driven.say((0, 6, fill("A/A")))
    told = [(m["channel_name"], m.get("partition"), m["seq"], m.get("prev_seq")) for m in client.messages()]
    assert [one for one in told if one[0] == "events"] == [
        ("events", 0, 1, None), ("events", 0, 4, 1), ("events", 1, 1, None), ("events", 1, 7, 1), ("events", 0, 6, 4),
    ]  # fmt: skip
    assert [one for one in told if one[0] != "events"] == [("trades.A/A", None, 4, None), ("trades.A/A", None, 6, 4)]
