"""Where each feed begins because of what is kept, and where it begins when it is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from core.config.settings import Settings
from core.kafka.warmup_start import GivenStart
from core.market.market import Market
from core.messages.kept_state import VERSION, Cursor, KeptState
from core.orders.directory import OrderDirectory
from wiring.state import StateRoom


def cursor(market: int, events: dict[int, int], orders: int) -> Cursor:
    return Cursor(
        market=market,
        events=events,
        orders={0: orders},
        version=VERSION,
        market_epoch="m.2",
        order_epoch="o.1",
        known_since_ms=7,
        time_ms=0,
    )


KEPT = {0: cursor(10, {0: 10, 1: 20}, 5), 1: cursor(25, {0: 8, 1: 25}, 6)}


class FakeFeed:
    """As `Feed`, never read."""

    def __init__(self) -> None:
        self.is_read = False
        self.starts: Any = None

    def has_been_live(self) -> bool:
        return self.is_read


class Room:
    """A room of kept state on topics that a test has the say of, as far as its starts are concerned."""

    def __init__(self, kept: Mapping[int, Cursor]) -> None:
        self.monitor = SimpleNamespace(
            topic_ids={"market": "m", "orders": "o"}, partitions={"market": 2, "orders": 1}, connected=True
        )
        self.market, self.orders = FakeFeed(), FakeFeed()
        kafka = SimpleNamespace(topic="market", order_topic="orders")
        directory = OrderDirectory(
            keep_terminal_seconds=100.0, on_change=lambda _order: None, on_private=lambda _user_id, _payload: None
        )
        market = Market(lambda *_: None, lambda *_: None, lambda *_: None)
        self.room = StateRoom(
            Settings(),
            SimpleNamespace(is_embedded=False, brokers="none:1", kafka=kafka, monitor=self.monitor),  # type: ignore[arg-type]
            SimpleNamespace(feed=self.market, market=market, give_way=None),  # type: ignore[arg-type]
            SimpleNamespace(feed=self.orders, directory=directory, event_feed=None, release_worker=None),  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
        )
        assert self.room.keeper is not None
        self._kept = kept
        self.restored: list[str] = []
        self.room.keeper.restore = self._restore  # type: ignore[method-assign]

    async def _restore(self, kind: str, _room: KeptState, partitions: Sequence[int]) -> dict[int, Cursor]:
        self.restored.append(kind)
        return {number: self._kept[number] for number in partitions if number in self._kept}

    def starts(self, feed: FakeFeed, *numbers: int) -> dict[int, GivenStart]:
        found: dict[int, GivenStart] = asyncio.run(feed.starts(list(numbers)))
        return found


def test_feeds_begin_where_the_least_of_what_is_kept_leaves_off_however_often_they_ask() -> None:
    room = Room(KEPT)
    for _ in range(2):  # as where it could not be asked where the topic ends
        assert room.starts(room.orders, 0) == {0: GivenStart(5, 7)}
        assert room.starts(room.market, 0, 1) == {0: GivenStart(8, 7), 1: GivenStart(20, 7)}
    assert room.restored.count("orders") == 1


def test_partition_of_which_nothing_is_kept_has_all_warmed_up_as_well() -> None:
    room = Room({0: KEPT[0]})
    assert room.starts(room.orders, 0) == {0: GivenStart(5, 7, is_enough=False)}
    assert room.starts(room.market, 0, 1) == {
        0: GivenStart(10, 7, is_enough=False),
        1: GivenStart(20, 7, is_enough=False),
    }


def test_feed_that_was_read_once_begins_no_later_than_its_orders_may_need() -> None:
    room = Room(KEPT)
    room.starts(room.orders, 0)
    room.starts(room.market, 0, 1)
    room.orders.is_read = room.market.is_read = True
    assert room.starts(room.orders, 0) == {}
    assert room.starts(room.market, 1) == {1: GivenStart(25, 7, is_enough=False)}


@pytest.mark.parametrize(("known", "value"), [("topic_ids", "again"), ("partitions", 3)])
def test_topic_that_is_another_one_by_now_does_not_begin_where_orders_left_off(known: str, value: object) -> None:
    room = Room(KEPT)
    room.starts(room.orders, 0)
    getattr(room.monitor, known)["market"] = value
    assert room.starts(room.orders, 0) == {}
    assert room.starts(room.market, 2) == {}


def test_feed_asks_again_while_it_is_not_known_which_topics_these_are() -> None:
    room = Room(KEPT)
    room.starts(room.orders, 0)
    room.monitor.topic_ids.clear()
    with pytest.raises(TimeoutError):
        room.starts(room.orders, 0)
