from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import pytest

from core.channels.hub import Hub
from core.channels.names import parse_channel
from core.delivery.fanout import SENDS_BETWEEN_LOOKS
from core.delivery.frames import Bundle
from core.market.market import Market
from core.messages.feed_record import Record
from core.pump import PATIENCE_BEATS, Pump
from core.telemetry.metrics import Metrics
from tests.core.fakes import Client, delta, fill, filled, snapshot

TIME_MS = 1_700_000_000_000

Drained = tuple[list[Record], list[int], bool]


class DrivenPump:
    """A pump between a scripted feed, scripted acknowledgements and a client on the stream."""

    def __init__(self, idle_interval_ms: float = 10.0) -> None:
        self.script: deque[Drained | Exception] = deque()
        self.needs_beats = False
        self.is_away = False
        self.calls: list[str] = []
        self.again = 0
        # Of the wall clock; `now` is the monotonic one.
        self.wall = TIME_MS / 1000
        self.metrics = Metrics(lambda: self.wall)
        self.market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
        self.now = 1000.0
        self.drain_seconds = 0.0
        self.hub = Hub(self.market, lambda: "epoch", lambda: self.now, self.metrics)
        self.client = Client()
        self.hub.add(self.client.subscriber, stream=True)
        # What two others say when they are asked whether something has come for them.
        self.others: dict[str, deque[bool | Exception]] = {"accounts": deque(), "orders": deque()}
        self.pump = Pump(
            self, self, self.market, self.hub, self.metrics,
            poll_interval_ms=1.0, idle_interval_ms=idle_interval_ms, again=self._again,
            others={name: partial(self._read_other, name) for name in self.others},
            is_away=lambda: self.is_away, clock=lambda: self.now,
        )  # fmt: skip

    def _read_other(self, name: str) -> bool:
        said = self.others[name].popleft() if self.others[name] else False
        if isinstance(said, Exception):
            raise said
        return said

    def _again(self) -> None:
        self.again += 1

    def drain(self) -> Drained:
        self.calls.append("drain")
        self.now += self.drain_seconds
        drained = self.script.popleft() if self.script else ([], [], False)
        if isinstance(drained, Exception):
            raise drained
        return drained

    def serve(self, partitions: list[int]) -> None:
        self.hub.partition_changes.serve(partitions)

    def poll(self) -> None:
        self.calls.append("poll")

    def beat(self, *records: Record, done: tuple[int, ...] = (), more: bool = False) -> None:
        self.script.append((list(records), list(done), more))
        self.pump.beat()

    def rest(self, beats: int) -> list[float]:
        """Periods asked for after each of so many quiet beats."""
        periods = []
        for _ in range(beats):
            self.pump.beat()
            periods.append(self.pump.period_ms)
        return periods

    def counted(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(name)
        assert value is not None
        return value


def record(offset: int, value: bytes | None, live: bool = True, partition: int = 0) -> Record:
    return Record(partition, offset, TIME_MS, value, live)


@pytest.fixture
def driven() -> DrivenPump:
    return DrivenPump()


# What it says to whom.


def test_pump_publishes_one_drain_at_once_in_its_order(driven: DrivenPump) -> None:
    values = [snapshot("A/A"), fill("B/B"), delta("A/A"), fill("B/B")]
    driven.beat(*(record(offset, value) for offset, value in enumerate(values)))
    assert len(driven.client.transport.sends) == 1
    assert driven.client.texts() == values


def test_pump_folds_the_warm_up_but_shows_it_to_nobody(driven: DrivenPump) -> None:
    driven.beat(record(1, snapshot(), live=False), record(2, fill(), live=False))
    assert driven.client.texts() == []
    assert driven.market.partitions.folded == {0: 2}
    assert driven.market.of("KCN/EUR").book.known


def test_pump_serves_a_partition_after_its_warm_up_was_folded(driven: DrivenPump) -> None:
    driven.beat(record(1, snapshot(), live=False), record(2, delta(), live=False), done=(0,))
    assert driven.client.texts() == [driven.market.of("KCN/EUR").book.snapshot_event()]
    assert driven.market.of("KCN/EUR").book.sequence == 2


def test_pump_gives_the_market_kafkas_time(driven: DrivenPump) -> None:
    driven.beat(record(1, snapshot()))
    assert driven.market.of("KCN/EUR").time_ms == TIME_MS


def test_pump_says_what_has_become_due_since(driven: DrivenPump) -> None:
    driven.beat(record(1, snapshot(), live=False), done=(0,))
    client = Client()
    driven.hub.add(client.subscriber, stream=False)
    driven.hub.subscribe(client.subscriber, [parse_channel("book.KCN/EUR.none.5.1000ms")])
    driven.beat(record(2, delta(price="1.3")))
    driven.beat(record(3, delta(price="1.2")))
    assert [m["seq"] for m in client.messages()] == [1, 2]
    driven.now += 1.0
    driven.beat()
    assert [m["seq"] for m in client.messages()] == [3]
    driven.now += 5.0
    driven.beat()
    assert [m["notification"]["bid_changes"] for m in client.messages()] == [[]]


def test_pump_counts_what_is_delivered(driven: DrivenPump) -> None:
    driven.beat(record(1, fill()))
    assert driven.counted("gateway_deliveries_total") == 1
    assert driven.counted("gateway_delivered_bytes_total") == len(driven.client.transport.wire)


def test_pump_says_nothing_when_no_record_is_public(driven: DrivenPump) -> None:
    driven.beat(record(1, filled()), record(2, b"poison"), record(3, None))
    assert driven.client.transport.sends == []


def test_pump_counts_every_record_and_its_bytes(driven: DrivenPump) -> None:
    driven.beat(record(1, fill()), record(2, b"12345"), record(3, None), record(4, filled(), live=False))
    assert driven.counted("gateway_records_total") == 4
    assert driven.counted("gateway_record_bytes_total") == len(fill()) + 5 + len(filled())


def test_pump_serves_acknowledgements_before_it_reads(driven: DrivenPump) -> None:
    driven.beat(record(1, fill()))
    driven.beat()
    assert driven.calls == ["poll", "drain", "poll", "drain"]


# How long it takes.


def test_pump_times_a_beat_that_brought_something(driven: DrivenPump) -> None:
    driven.drain_seconds = 0.25
    driven.beat(record(1, b"poison"))
    assert driven.counted("gateway_tick_seconds_count") == 1
    assert driven.counted("gateway_tick_seconds_sum") == 0.25


def test_pump_times_no_beat_that_brought_nothing(driven: DrivenPump) -> None:
    driven.rest(3)
    driven.beat(done=(0,))
    assert driven.counted("gateway_tick_seconds_count") == 0


def test_pump_times_the_way_of_a_ticks_oldest_live_record_once(driven: DrivenPump) -> None:
    driven.hub.add(Client().subscriber, stream=True)
    driven.wall += 0.5
    young = Record(0, 2, TIME_MS + 400, fill(), True)
    driven.beat(Record(1, 1, TIME_MS - 9_000, fill(), False), young, record(3, fill()), young._replace(offset=4))
    assert driven.counted("gateway_record_to_socket_seconds_count") == 1
    assert driven.counted("gateway_record_to_socket_seconds_sum") == pytest.approx(0.5)


@pytest.mark.parametrize("one", [record(1, fill(), live=False), record(1, filled()), record(1, b"poison")])
def test_pump_times_no_way_of_what_nobody_is_shown(driven: DrivenPump, one: Record) -> None:
    driven.beat(one)
    driven.hub.fanout.gather(Bundle([b"something else"]), [driven.client.subscriber])
    driven.beat()
    assert driven.counted("gateway_fanout_seconds_count") == 1
    assert driven.counted("gateway_record_to_socket_seconds_count") == 0


def test_pump_times_no_way_where_nobody_listens(driven: DrivenPump) -> None:
    driven.hub.remove(driven.client.subscriber)
    driven.beat(record(1, fill()))
    late = Client()
    driven.hub.add(late.subscriber, stream=True)
    driven.hub.fanout.gather(Bundle([b"something else"]), [late.subscriber])
    driven.beat()
    assert driven.counted("gateway_record_to_socket_seconds_count") == 0


def test_pump_times_the_way_to_the_last_client_however_late_it_is_served(driven: DrivenPump) -> None:
    turns: list[Callable[[], None]] = []
    for _ in range(2 * SENDS_BETWEEN_LOOKS):
        driven.hub.add(Client().subscriber, stream=True)
    driven.hub.fanout.slice_seconds, driven.hub.fanout.schedule_slice = -1.0, turns.append
    driven.beat(record(1, fill()))
    driven.beat()
    assert driven.counted("gateway_record_to_socket_seconds_count") == 0
    driven.wall += 3.0
    while turns:
        turns.pop()()
    assert driven.counted("gateway_record_to_socket_seconds_sum") == pytest.approx(3.0)


# How soon again.


def test_pump_asks_for_another_turn_only_while_more_waits(driven: DrivenPump) -> None:
    driven.beat(record(1, fill()), more=True)
    assert driven.again == 1
    driven.beat(record(2, fill()), more=False)
    assert driven.again == 1


def test_pump_backs_off_to_the_idle_period_after_a_patient_while(driven: DrivenPump) -> None:
    assert driven.rest(PATIENCE_BEATS) == [1.0] * PATIENCE_BEATS
    assert not driven.pump.is_idle
    assert driven.rest(6) == [2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    assert driven.pump.is_idle


def test_pump_takes_the_short_period_again_with_the_first_record(driven: DrivenPump) -> None:
    driven.rest(PATIENCE_BEATS + 6)
    driven.beat(record(1, b"poison"))
    assert driven.pump.period_ms == 1.0
    assert driven.rest(PATIENCE_BEATS + 1)[-2:] == [1.0, 2.0]


def test_pump_keeps_the_short_period_while_acknowledgements_are_outstanding(driven: DrivenPump) -> None:
    driven.needs_beats = True
    assert set(driven.rest(3 * PATIENCE_BEATS)) == {1.0}
    driven.needs_beats = False
    assert driven.rest(PATIENCE_BEATS + 1) == [1.0] * PATIENCE_BEATS + [2.0]


def test_pump_takes_the_short_period_when_it_is_told_to_hurry(driven: DrivenPump) -> None:
    driven.rest(PATIENCE_BEATS + 6)
    driven.pump.hurry()
    assert not driven.pump.is_idle
    assert driven.rest(PATIENCE_BEATS + 1) == [1.0] * PATIENCE_BEATS + [2.0]


def test_pump_beats_ten_times_a_second_while_the_bus_is_away_and_as_ever_when_it_is_back(driven: DrivenPump) -> None:
    driven.rest(PATIENCE_BEATS + 10)
    driven.is_away = True
    periods = driven.rest(36_000)  # an hour
    assert periods[:5] == [20.0, 40.0, 80.0, 100.0, 100.0]
    assert set(periods[4:]) == {100.0}
    driven.needs_beats = True
    assert driven.rest(1) == [1.0], "an acknowledgement is awaited all the same"
    driven.needs_beats = False
    driven.rest(PATIENCE_BEATS + 10)
    driven.is_away = False
    assert driven.rest(1) == [10.0]
    driven.is_away = True
    driven.rest(10)
    driven.beat(record(1, fill()))
    assert driven.pump.period_ms == 1.0, "what comes is read at once, whoever says that nobody is there"


def test_pump_never_exceeds_an_idle_period_that_is_the_short_one() -> None:
    driven = DrivenPump(idle_interval_ms=1.0)
    assert set(driven.rest(PATIENCE_BEATS * 2)) == {1.0}
    assert not driven.pump.is_idle


def test_pump_goes_on_after_a_drain_that_failed(driven: DrivenPump) -> None:
    driven.script.append(RuntimeError("broker"))
    with pytest.raises(RuntimeError, match="broker"):
        driven.pump.beat()
    driven.beat(record(1, fill()))
    assert driven.client.texts() == [fill()]


def test_pump_reads_on_while_what_is_new_can_go_along_with_what_is_being_told(driven: DrivenPump) -> None:
    turns: list[Callable[[], None]] = []
    clients = [Client() for _ in range(2 * SENDS_BETWEEN_LOOKS)]
    for client in clients:
        driven.hub.add(client.subscriber, stream=True)
    driven.hub.fanout.slice_seconds, driven.hub.fanout.schedule_slice = -1.0, turns.append
    driven.beat(record(0, fill(price="1.5")))
    driven.beat(record(1, fill(price="1.6")))
    assert driven.calls == ["poll", "drain"] * 2
    while turns:
        turns.pop()()
    texts = [fill(price="1.5"), fill(price="1.6")]
    assert [client.texts() for client in clients] == [texts] * len(clients)
    assert sum(len(client.transport.sends) for client in clients) < 2 * len(clients)


def test_pump_leaves_the_rest_to_kafka_while_not_everybody_has_been_told(driven: DrivenPump) -> None:
    turns: list[Callable[[], None]] = []
    clients = [Client() for _ in range(2 * SENDS_BETWEEN_LOOKS)]
    for client in clients:
        driven.hub.add(client.subscriber, stream=True)
    driven.hub.fanout.slice_seconds, driven.hub.fanout.schedule_slice = -1.0, turns.append
    driven.beat(record(0, fill()))
    late = next(client for client in clients if not client.transport.sends)
    driven.hub.tell(late.subscriber, b"an answer, ahead of the others")
    driven.calls.clear()
    driven.pump.beat()
    assert driven.calls == ["poll"]
    assert driven.pump.period_ms == 1.0
    while turns:
        turns.pop()()
    driven.pump.beat()
    assert driven.calls == ["poll", "poll", "drain"]
    assert [len(client.texts()) for client in clients] == [1 + (client is late) for client in clients]


class AwaitedReader:
    """A reader of the order topic that somebody waits for, or not."""

    is_awaited = True

    def read(self) -> bool:
        return False

    def tell(self) -> None: ...


def test_pump_does_not_rest_while_the_order_topic_is_waited_for() -> None:
    driven = DrivenPump()
    reader = AwaitedReader()
    driven.pump._order_reader = reader
    assert set(driven.rest(2 * PATIENCE_BEATS)) == {1.0}
    reader.is_awaited = False
    assert driven.rest(2 * PATIENCE_BEATS)[-1] == 10.0


def test_pump_stays_awake_while_others_have_something(driven: DrivenPump) -> None:
    driven.rest(PATIENCE_BEATS + 2)
    assert driven.pump.is_idle
    for other in driven.others.values():
        other.append(True)
        driven.pump.beat()
        assert not driven.pump.is_idle
        driven.rest(PATIENCE_BEATS + 2)


def test_fault_of_another_is_counted_and_costs_nobody_else_a_thing(driven: DrivenPump) -> None:
    driven.rest(PATIENCE_BEATS + 2)
    driven.others["accounts"].append(RuntimeError("a fault of ours"))
    driven.others["orders"].append(True)
    driven.beat(record(1, snapshot()))
    assert driven.metrics.registry.get_sample_value("gateway_faults_total", {"where": "accounts"}) == 1
    assert driven.market.partitions.folded == {0: 1}
    assert not driven.others["orders"]
