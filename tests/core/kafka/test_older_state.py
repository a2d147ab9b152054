"""What is kept and goes further back is learnt: who is asked for what, in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest

from core.kafka.feed import Feed
from core.kafka.older_state import OlderState
from core.messages.feed_record import Record
from core.messages.kept_state import VERSION, Cursor, KeptState, Offsets
from tests.core.kept_rooms import FakeRoom

KEPT = Cursor(
    market=3, events={0: 3, 1: 4}, orders={0: 5}, version=VERSION, market_epoch="m", order_epoch="o",
    known_since_ms=None, time_ms=0,
)  # fmt: skip


class FakeFeed:
    """A topic with two records behind each place that it is to be read from."""

    def __init__(self, name: str, told: list[str], *, begins: Mapping[int, int] | None = None) -> None:
        self.starts: Any = None
        self.is_live = False
        self._name = name
        self._told = told
        self._begins = begins
        self._places: dict[int, int] = {}
        self._left = 2

    def read_only(self, partitions: frozenset[int], count: int) -> None:
        assert (len(partitions), self.starts is None) == (count, False)
        self._wanted = sorted(partitions)

    def drain(self) -> tuple[list[Record], list[int], bool]:
        self._left -= 1
        starts = {n: start.offset for n, start in _result(self.starts(self._wanted)).items()}
        records = [Record(n, at + 1 - self._left, 0, b"", False) for n, at in starts.items()]
        self._places = {n: at + 2 for n, at in starts.items()}
        self._begun = starts if self._begins is None else self._begins
        return records, [] if self._left else self._wanted, bool(self._left)

    def serve(self, partitions: list[int]) -> None:
        self.is_live = partitions == self._wanted

    def begins(self) -> Mapping[int, int]:
        return self._begun

    def positions(self) -> dict[int, int]:
        return self._places

    def read_anew(self, partition: int) -> None:
        self._told.append(f"{self._name} reads {partition} anew")

    async def close(self, seconds: float) -> None:
        self._told.append(f"{self._name} closed")


def _result(waiting: Any) -> Any:
    try:
        waiting.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


class Stage:
    """As `ReadTopics` and `OlderOrders`; what both topics have been read to comes nearer with each question."""

    def __init__(self, *, begins: Mapping[int, int] | None = None) -> None:
        self.told: list[str] = []
        self.room = FakeRoom("order")
        self.market_feeds = [cast(Feed, FakeFeed(name, self.told)) for name in ("market", "unserved")]
        self.cursors: dict[int, Cursor] = {1: KEPT}
        self._begins = begins
        self._asked = 0

    def events_at(self) -> Mapping[int, int]:
        return {0: 9, 1: 9}

    def commands_at(self) -> Mapping[int, int]:
        self._asked += 1
        return {0: 4 + self._asked}

    def new_feeds(self) -> tuple[Feed, Feed]:
        feeds = FakeFeed("commands", self.told), FakeFeed("events", self.told, begins=self._begins)
        return cast("tuple[Feed, Feed]", feeds)

    @contextmanager
    def listening(self) -> Iterator[None]:
        self.told.append("listening")
        yield
        self.told.append("listened")

    def fold_command(self, record: Record) -> None:
        self.told.append(f"command {record.partition} {record.offset}")

    def fold_event(self, record: Record) -> None:
        self.told.append(f"event {record.partition} {record.offset}")

    async def take_in(self, until: Mapping[int, int], give_way: Callable[[], Awaitable[None]]) -> int:
        self.told.append(f"taken in until {dict(until)} after {self._asked} questions")
        return 7

    async def restore(self, kind: str, room: KeptState, partitions: Sequence[int]) -> Mapping[int, Cursor]:
        assert (kind, room) == ("orders", self.room)
        return {number: self.cursors[number] for number in partitions if number in self.cursors}

    def learn(self, kept: Offsets, known: Offsets) -> int:
        state = OlderState(self, self.restore, lambda _partition: self, lambda: asyncio.sleep(0))
        return asyncio.run(state.learn(1, kept, known))


EARLY, LATE = Offsets(1, {0: 1, 1: 1}, {0: 1}), Offsets(2, {0: 2, 1: 2}, {0: 2})
ANEW = ["market reads 1 anew", "unserved reads 1 anew"]
ORDERS = [
    "listening", "command 0 5", "command 0 6", "event 0 3", "event 1 4", "event 0 4", "event 1 5",
    "commands closed", "events closed", "taken in until {0: 5, 1: 6} after 3 questions", "listened",
]  # fmt: skip


@pytest.mark.parametrize(
    ("known", "news", "told"),
    [
        (LATE, 7, ORDERS + ANEW),
        (Offsets(2, EARLY.events, EARLY.orders), 0, ANEW),
        (Offsets(1, LATE.events, EARLY.orders), 7, ORDERS),
        (Offsets(1, EARLY.events, LATE.orders), 7, ORDERS),
    ],
    ids=["all", "the market", "events", "the order topic"],
)
def test_what_goes_further_back_is_learnt_and_nothing_else(known: Offsets, news: int, told: list[str]) -> None:
    stage = Stage()
    assert (stage.learn(EARLY, known), stage.told) == (news, told)


def test_orders_of_no_use_are_not_learnt() -> None:
    stage = Stage()
    stage.cursors.clear()
    assert (stage.learn(EARLY, Offsets(1, LATE.events, LATE.orders)), stage.told) == (0, ["listening", "listened"])


def test_orders_are_learnt_where_the_reading_had_to_begin_further_back() -> None:
    assert Stage(begins={0: 2, 1: 4}).learn(EARLY, LATE) == 7


def test_orders_are_not_learnt_where_what_follows_them_is_gone() -> None:
    stage = Stage(begins={0: 4, 1: 4})
    with pytest.raises(TimeoutError, match="no longer have what follows it"):
        stage.learn(EARLY, LATE)
    assert stage.told[-2:] == ["commands closed", "events closed"]
