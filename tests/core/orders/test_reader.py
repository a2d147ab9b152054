from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.market.partitions import Partitions
from core.messages.events import read_event
from core.messages.feed_record import Record
from core.messages.model import OrderType, Side, TimeInForce
from core.messages.times import Times
from core.orders.catch_up import CatchUp
from core.orders.order import Order
from core.orders.reader import ASK_SECONDS, SWEEP_SECONDS, OrderReader
from tests.core.fakes import delta, fill
from tests.core.trading import KEEP_SECONDS, Trade

TIME_MS = 1_700_000_000_000


class ScriptedFeed:
    """A topic of which each drain is written down before."""

    def __init__(self) -> None:
        self.script: deque[tuple[list[Record], list[int], bool]] = deque()
        self.next_offsets: dict[int, int] = {}
        self.asked: list[Callable[[Mapping[int, int] | None], None]] = []
        self.on_serve: Callable[[list[int]], object] = lambda _partitions: None

    def drain(self) -> tuple[list[Record], list[int], bool]:
        return self.script.popleft() if self.script else ([], [], False)

    def serve(self, partitions: list[int]) -> None:
        self.on_serve(partitions)

    def positions(self) -> Mapping[int, int]:
        return self.next_offsets

    def ask_ends(self, on_answer: Callable[[Mapping[int, int] | None], None]) -> None:
        self.asked.append(on_answer)

    def say(self, *records: Record, done: tuple[int, ...] = (), more: bool = False) -> None:
        self.script.append((list(records), list(done), more))


class ScriptedReader:
    """A reader of both topics; what it passes on is in `private` and `changes`."""

    def __init__(self, *, shared: bool = False) -> None:
        self.commands = ScriptedFeed()
        self.events = ScriptedFeed() if shared else None
        self.delivered: list[bytes] = []
        self.trade = Trade(lambda bundle, _audience, _tag: self.delivered.append(bundle.plain))
        self.directory = self.trade.directory
        self.private: list[tuple[str, str]] = []
        self.changes: list[str] = []
        self.now = 50.0
        self.wall = TIME_MS / 1000
        feed = self.trade.private
        feed.on_event = lambda user_id, payload: self.private.append((user_id, json.loads(payload)["type"]))  # type: ignore[method-assign]
        feed.on_change = lambda order: self.changes.append(order.order_id)  # type: ignore[method-assign]
        self.flushes = 0
        feed.flush = self._flush  # type: ignore[method-assign]
        self.partitions = Partitions()
        self.failed: list[tuple[str, str]] = []
        self.reader = OrderReader(
            self.directory,
            self.commands,
            self.events,
            feed,
            self.partitions,
            CatchUp(self.commands, is_reachable=lambda: True),
            monotonic=lambda: self.now,
            times=Times(lambda: self.wall),
            on_failed=lambda error, place: self.failed.append((str(error), place)),
        )
        if self.events is not None:
            self.events.on_serve = self.partitions.serve

    @property
    def wall(self) -> float:
        """Everybody's clock."""
        return self.trade.now

    @wall.setter
    def wall(self, now: float) -> None:
        self.trade.now = now

    def _flush(self) -> None:
        self.flushes += 1

    def market(self, offset: int, value: bytes, partition: int = 0) -> None:
        """The market folded a record in."""
        self.reader.fold(read_event(value), partition, offset, TIME_MS)

    def order(self, order_id: str) -> Order | None:
        return self.directory.get(order_id)


@pytest.fixture
def scripted() -> ScriptedReader:
    return ScriptedReader()


@pytest.fixture
def shared() -> ScriptedReader:
    return ScriptedReader(shared=True)


def record(offset: int, value: bytes | None, partition: int = 0, live: bool = True) -> Record:
    return Record(partition, offset, TIME_MS, value, live)


def command(order_id: str, user_id: str | None = "alice", symbol: str = "KCN/EUR") -> bytes:
    body: dict[str, Any] = {
        "type": "place_order", "order_id": order_id, "symbol": symbol, "side": Side.BID, "order_type": OrderType.LIMIT,
        "price": "1.5", "quantity": "2", "user_id": user_id, "time_in_force": TimeInForce.GTC, "timestamp": TIME_MS,
    }  # fmt: skip
    return json.dumps(body).encode()


def about(order_id: str, kind: str = "order_filled", **more: object) -> bytes:
    return json.dumps({"type": kind, "order_id": order_id, **more}).encode()


# The order topic.


def test_order_topic_is_read_before_the_market(scripted: ScriptedReader) -> None:
    scripted.commands.say(record(0, command("a")), record(1, b"no command"), record(2, command("b")))
    assert scripted.reader.read()
    assert scripted.order("a") is not None
    assert scripted.order("b") is not None


def test_beat_without_records_is_quiet(scripted: ScriptedReader, shared: ScriptedReader) -> None:
    assert not scripted.reader.read()
    assert not shared.reader.read()


@pytest.mark.parametrize("topic", ["commands", "events"])
def test_beat_is_busy_when_something_came_on_either_topic(shared: ScriptedReader, topic: str) -> None:
    getattr(shared, topic).say(record(0, delta()))
    assert shared.reader.read()
    assert not shared.reader.read()


def test_reader_reads_on_soon_while_more_waits_or_commands_are_no_news_or_events_come(shared: ScriptedReader) -> None:
    shared.commands.say(more=True)
    shared.reader.read()
    assert shared.reader.is_awaited
    shared.commands.say(record(0, command("a"), live=False))
    shared.reader.read()
    assert shared.reader.is_awaited, "warming up"
    shared.events.say(record(0, delta()))
    shared.reader.read()
    assert shared.reader.is_awaited, "what becomes of orders"
    shared.commands.say(record(1, command("b")))
    shared.reader.read()
    assert not shared.reader.is_awaited, "an order of somebody's, which nobody waits for"


def test_orders_of_the_warm_up_are_known_but_no_news(scripted: ScriptedReader) -> None:
    scripted.commands.say(record(0, command("a"), live=False), record(1, command("b")))
    scripted.reader.read()
    assert scripted.changes == ["b"]


# From when on what the engine says is news.


def test_events_are_news_once_their_partition_was_read_to_its_end(scripted: ScriptedReader) -> None:
    scripted.commands.say(record(0, command("a")), record(1, command("b")), record(2, command("c")))
    scripted.reader.read()
    scripted.changes.clear()
    scripted.market(0, about("a", "order_cancelled", filled_quantity="0"))
    scripted.market(0, about("b"), partition=1)
    assert scripted.private == scripted.changes == []
    scripted.partitions.serve([1])
    scripted.market(1, about("c", "order_rejected", reason="no"))
    assert scripted.private == [], "the other partition has been"
    scripted.market(1, about("c"), partition=1)
    assert scripted.private == [("alice", "order_filled")]
    assert scripted.directory.get("a") is not None
    assert scripted.directory.get("a").is_closed  # type: ignore[union-attr]


def test_events_that_are_no_orders_are_left_to_the_market(scripted: ScriptedReader) -> None:
    scripted.market(0, delta())
    scripted.market(1, b'{"type":"halt","symbol":"KCN/EUR"}')
    assert len(scripted.directory.early_events) == 0
    scripted.market(2, fill())
    assert len(scripted.directory.early_events) == 2, "of both orders of a fill"


# In a group of consumers: a feed of its own.


def test_own_feed_tells_of_orders_fills_and_whatever_may_be_one(shared: ScriptedReader) -> None:
    shared.commands.say(*(record(number, command(name)) for number, name in enumerate("abcd")))
    shared.partitions.serve([0])
    assert shared.events is not None
    shared.events.say(
        record(0, about("a")),
        record(1, fill(buy_order_id="b", sell_order_id="c", quantity="1")),
        record(2, about("d").replace(b"order_filled", b"\\u006f\\u0072der\\u005ffilled")),
        record(3, delta()),
        record(4, None),
        record(5, b'{"type":"order_filled"'),
    )
    assert shared.reader.read()
    assert [order.status.value for order in map(shared.order, "abcd") if order is not None] == [
        "filled", "partially_filled", "partially_filled", "filled",
    ]  # fmt: skip
    assert [kind for _, kind in shared.private] == ["order_filled"] * 2


def test_own_feed_is_served_by_its_own_end(shared: ScriptedReader) -> None:
    shared.commands.say(*(record(number, command(name)) for number, name in enumerate("abc")))
    assert shared.events is not None
    shared.events.say(record(0, about("a")), done=(0,))
    shared.reader.read()
    assert shared.private == [], "it was still the warm-up"
    shared.events.say(record(1, about("b")))
    shared.reader.read()
    assert shared.private == [("alice", "order_filled")]


def test_own_feed_that_has_nothing_to_warm_up_is_served_at_once(shared: ScriptedReader) -> None:
    shared.partitions.serve([3])
    shared.commands.say(record(0, command("a")))
    assert shared.events is not None
    shared.events.say(record(0, about("a"), partition=3))
    shared.reader.read()
    assert shared.private == [("alice", "order_filled")]


# How far the order topic reaches.


def test_nothing_is_asked_while_every_order_is_known(scripted: ScriptedReader) -> None:
    scripted.commands.say(record(0, command("a")))
    scripted.reader.read()
    scripted.market(0, about("a"))
    scripted.reader.tell()
    assert scripted.commands.asked == []


def test_mark_is_asked_for_once_until_it_is_answered(scripted: ScriptedReader) -> None:
    scripted.market(0, about("late"))
    for _ in range(3):
        scripted.reader.tell()
        scripted.now += 10
        scripted.market(1, about("later"))
    assert len(scripted.commands.asked) == 1
    assert len(scripted.directory.early_events) == 2


def test_event_that_came_after_the_question_waits_for_the_next_one(scripted: ScriptedReader) -> None:
    scripted.partitions.serve([0])
    scripted.market(0, about("old", user_id="alice"))
    scripted.reader.tell()
    scripted.market(1, about("later", user_id="alice"))
    scripted.now += ASK_SECONDS
    scripted.commands.asked[0]({0: 0})
    assert len(scripted.directory.early_events) == 1
    assert scripted.private == [("alice", "order_filled")], "older than what was read: the engine says whose it is"
    scripted.reader.tell()
    assert len(scripted.commands.asked) == 2
    scripted.commands.asked[1]({0: 0})
    assert len(scripted.directory.early_events) == 0


def test_marks_are_asked_for_no_faster_than_every_twenty_milliseconds(scripted: ScriptedReader) -> None:
    asked_at = []
    for offset in range(100):
        scripted.market(offset, about(f"order {offset}"))
        before = len(scripted.commands.asked)
        scripted.reader.tell()
        if len(scripted.commands.asked) > before:
            asked_at.append(scripted.now)
            scripted.commands.asked[-1]({0: 0})
        scripted.now += 0.001
    assert len(asked_at) == 5
    assert all(later - sooner >= ASK_SECONDS - 1e-9 for sooner, later in pairwise(asked_at))


def test_mark_that_could_not_be_had_is_asked_for_again(scripted: ScriptedReader) -> None:
    scripted.market(0, about("late"))
    scripted.reader.tell()
    scripted.commands.asked[0](None)
    assert len(scripted.directory.early_events) == 1
    scripted.reader.tell()
    assert len(scripted.commands.asked) == 1, "after a while"
    scripted.now += ASK_SECONDS
    scripted.reader.tell()
    assert len(scripted.commands.asked) == 2


def test_event_waits_until_the_order_topic_was_read_as_far_as_the_mark(scripted: ScriptedReader) -> None:
    scripted.partitions.serve([0])
    scripted.market(0, about("late"))
    scripted.reader.tell()
    scripted.commands.asked[0]({0: 3, 1: 1})
    scripted.commands.say(record(0, command("other")), record(1, command("another")))
    scripted.reader.read()
    scripted.commands.next_offsets = {0: 2, 1: 0}
    scripted.reader.tell()
    assert len(scripted.directory.early_events) == 1
    scripted.commands.say(record(2, command("late")))
    scripted.reader.read()
    assert len(scripted.directory.early_events) == 0
    assert scripted.private == [("alice", "order_filled")]


def test_positions_count_where_no_record_tells_how_far_was_read(scripted: ScriptedReader) -> None:
    scripted.market(0, about("late"))
    scripted.reader.tell()
    scripted.commands.asked[0]({0: 3})
    scripted.commands.next_offsets = {0: 3}
    scripted.reader.tell()
    assert len(scripted.directory.early_events) == 0


# What else a beat does.


def test_news_is_told_at_the_end_of_each_beat(scripted: ScriptedReader) -> None:
    for _ in range(3):
        scripted.reader.read()
        scripted.reader.tell()
    assert scripted.flushes == 3


def test_closed_orders_are_forgotten_once_a_second(scripted: ScriptedReader) -> None:
    scripted.commands.say(record(0, command("a")))
    scripted.reader.read()
    scripted.market(0, about("a"))
    scripted.reader.tell()
    scripted.wall += KEEP_SECONDS
    scripted.now += SWEEP_SECONDS / 2
    scripted.reader.tell()
    assert scripted.order("a") is not None
    scripted.now += SWEEP_SECONDS / 2
    scripted.reader.tell()
    assert scripted.order("a") is None


# Clocks of others.

DAY_MS = 86_400_000


def test_order_that_ends_is_kept_from_when_that_was_heard_whatever_kafkas_time_of_it(scripted: ScriptedReader) -> None:
    scripted.partitions.serve([0])
    scripted.commands.say(record(0, command("a")), record(1, command("b")))
    scripted.reader.read()
    scripted.reader.fold(read_event(about("a")), 0, 0, TIME_MS - 25 * 3_600_000)
    scripted.reader.fold(read_event(about("b")), 0, 1, TIME_MS // 1000)
    for _ in range(2):
        scripted.now += SWEEP_SECONDS
        scripted.reader.tell()
        assert [scripted.order(one) is not None for one in "ab"] == [True, True]
        scripted.wall += KEEP_SECONDS - 1
    scripted.now += SWEEP_SECONDS
    scripted.reader.tell()
    assert [scripted.order(one) is not None for one in "ab"] == [False, False]


def test_order_that_is_read_back_as_ended_is_kept_from_when_what_came_before_that_was_written(
    scripted: ScriptedReader,
) -> None:
    old = str(TIME_MS - 2 * DAY_MS).encode()
    commands = (command(one).replace(str(TIME_MS).encode(), old) for one in "abc")
    scripted.commands.say(*(record(offset, one) for offset, one in enumerate(commands)))
    scripted.reader.read()
    honest = TIME_MS - 3_600_000
    for offset, (one, kafka_ms) in enumerate([("a", honest), ("b", TIME_MS - 2 * DAY_MS)]):
        scripted.reader.fold(read_event(about(one)), 0, offset, kafka_ms)
    scripted.reader.fold(read_event(about("c")), 1, 0, TIME_MS - 2 * DAY_MS)
    scripted.reader.tell()
    assert [scripted.order(one) is not None for one in "abc"] == [True, True, False]
    scripted.wall += KEEP_SECONDS - 3_600
    scripted.now += SWEEP_SECONDS
    scripted.reader.tell()
    assert [scripted.order(one) is not None for one in "abc"] == [False, False, False]


def test_order_that_is_read_back_as_ended_is_kept_from_when_it_was_placed_where_the_engines_clock_is_behind(
    scripted: ScriptedReader,
) -> None:
    scripted.commands.say(record(0, command("a")))
    scripted.reader.read()
    scripted.reader.fold(read_event(about("a")), 0, 0, TIME_MS - 2 * DAY_MS)
    scripted.wall += KEEP_SECONDS - 1
    scripted.reader.tell()
    assert scripted.order("a") is not None
    scripted.wall += 1
    scripted.now += SWEEP_SECONDS
    scripted.reader.tell()
    assert scripted.order("a") is None


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 60_000, DAY_MS // 3]), st.integers(-3 * DAY_MS, 60_000), st.booleans()),
        min_size=1,
        max_size=12,
    )
)
def test_closed_orders_are_known_for_their_time_whatever_kafkas_times_are(script: list[tuple[int, int, bool]]) -> None:
    scripted, warm = ScriptedReader(), len(script) // 3
    now_ms, heard_ms, ends = TIME_MS, 0, []
    scripted.commands.say(*(record(number, command(str(number))) for number in range(len(script))))
    scripted.reader.read()
    for number, (pause_ms, off_ms, is_fill) in enumerate(script):
        now_ms += pause_ms
        scripted.wall = now_ms / 1000
        if number == warm:
            scripted.partitions.serve([0])
        whole = fill(buy_order_id=str(number), sell_order_id="nobody", quantity="2")
        event = read_event(whole if is_fill else about(str(number)))
        scripted.reader.fold(event, 0, number, now_ms + off_ms)
        heard_ms = max(heard_ms, now_ms + off_ms)
        ends.append(max(heard_ms, TIME_MS) if number < warm else now_ms)
        while scripted.directory.sweep(now_ms):
            pass
        assert [scripted.order(str(one)) is not None for one in range(len(ends))] == [
            now_ms - end_ms < KEEP_SECONDS * 1000 for end_ms in ends
        ]


def test_order_has_no_time_from_the_future(shared: ScriptedReader) -> None:
    assert shared.events is not None
    ahead = TIME_MS + 86_400_000
    late = command("a").replace(str(TIME_MS).encode(), str(ahead).encode())
    shared.commands.say(record(0, late), record(1, command("b")))
    shared.reader.read()
    assert [order.order_id for order in shared.directory.open_orders("alice")] == ["a", "b"]
    assert [shared.directory.get(one).created_ms for one in "ab"] == [TIME_MS, TIME_MS]  # type: ignore[union-attr]
    shared.events.say(record(0, about("a", "order_cancelled", filled_quantity="0", timestamp=ahead * 1000)))
    shared.events.say(record(1, about("b", timestamp=TIME_MS // 1000)))
    shared.reader.read()
    shared.reader.read()
    assert [shared.directory.get(one).time_ms for one in "ab"] == [TIME_MS, TIME_MS]  # type: ignore[union-attr]


# Whatever fails costs the record that it befell.


def fail_for(scripted: ScriptedReader, order_id: str) -> None:
    def on_change(order: Order) -> None:
        if order.order_id == order_id:
            raise ValueError("a fault of ours")
        scripted.changes.append(order.order_id)

    scripted.trade.private.on_change = on_change  # type: ignore[method-assign]


def test_command_that_fails_costs_neither_the_next_nor_the_end_of_the_warm_up(scripted: ScriptedReader) -> None:
    fail_for(scripted, "b")
    served: list[list[int]] = []
    scripted.commands.on_serve = served.append
    scripted.commands.say(*(record(offset, command(order_id)) for offset, order_id in enumerate("abc")), done=(0,))
    assert scripted.reader.read()
    assert [order_id for order_id in "abc" if scripted.order(order_id)] == ["a", "b", "c"]
    assert scripted.changes == ["a", "c"]
    assert scripted.failed == [("a fault of ours", "order topic partition 0 offset 1")]
    assert served == [[0]]


def test_event_that_fails_costs_no_other(shared: ScriptedReader) -> None:
    assert shared.events is not None
    shared.partitions.serve([0])
    shared.commands.say(*(record(offset, command(order_id)) for offset, order_id in enumerate("abc")))
    shared.reader.read()
    fail_for(shared, "b")
    shared.changes.clear()
    shared.events.say(*(record(offset, about(order_id)) for offset, order_id in enumerate("abc")), done=(1,))
    shared.reader.read()
    assert shared.changes == ["a", "c"]
    assert shared.failed == [("a fault of ours", "market topic partition 0 offset 1")]
    assert shared.partitions.served == {0, 1}


def test_event_that_is_released_and_fails_costs_no_other(scripted: ScriptedReader) -> None:
    def on_private(user_id: str, payload: bytes) -> None:
        if user_id == "bob":
            raise ValueError("a fault of ours")
        scripted.private.append((user_id, json.loads(payload)["type"]))

    scripted.trade.private.on_event = on_private  # type: ignore[method-assign]
    scripted.partitions.serve([0])
    for offset, user_id in enumerate(("alice", "bob", "carol")):
        scripted.market(offset, about(f"old {offset}", user_id=user_id))
    failed: list[str] = []
    scripted.directory._observer.failed = lambda error, place: failed.append(place)  # type: ignore[method-assign]
    scripted.reader.tell()
    scripted.commands.asked[0]({0: 0})
    assert scripted.private == [("alice", "order_filled"), ("carol", "order_filled")]
    assert failed == ["order_filled of order old 1, which had waited for it"]


def test_event_that_had_waited_and_fails_costs_no_other_that_waited(scripted: ScriptedReader) -> None:
    scripted.partitions.serve([0])
    for offset, kind in enumerate(("order_accepted", "order_filled")):
        more = {"side": "bid", "order_type": "limit", "price": "1", "quantity": "1"} if offset == 0 else {}
        scripted.market(offset, about("a", kind, **more))
    calls: list[str] = []

    def on_change(order: Order) -> None:
        calls.append(order.status)
        if order.status == "open":
            raise ValueError("a fault of ours")

    scripted.trade.private.on_change = on_change  # type: ignore[method-assign]
    scripted.commands.say(record(0, command("a")))
    scripted.reader.read()
    assert calls == ["pending", "open", "filled"]
    assert scripted.private == [("alice", "order_filled")]
    assert scripted.failed == []
