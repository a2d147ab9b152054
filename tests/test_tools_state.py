"""The check of what is kept against both topics (tools/state.py), without either."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from core.messages.attributes import Attribute, Kind
from core.messages.kept_state import VERSION, Cursor, Offsets
from tests.core.kafka.fakes import FakeMessage
from tests.integration.events import delta, fill, snapshot
from tests.integration.trading import order_command, order_event
from tools.state import Kept, Rooms, Topics, difference

SYMBOL = "A/EUR"
NOW_MS = 1_700_000_100_000
KEEP_SECONDS = 86_400.0


class FakeTopics:
    """What both topics have, each on one partition."""

    def __init__(self) -> None:
        self.topics = {
            "orders": [order_command("one", "trader", SYMBOL)],
            "market": [
                snapshot(SYMBOL, 1),
                order_event("accepted", "one", SYMBOL),
                b"{",
                delta(SYMBOL, 2, ("add", "bid", "9", "1")),
                fill(SYMBOL, buy_order_id="one", quantity="0.5"),
            ],
        }

    def records(self, topic: str, partition: int, first: int, end: int | None) -> Iterator[Any]:
        for offset, value in enumerate(self.topics[topic][:end]):
            if offset >= first:
                yield FakeMessage(offset, partition, value, time_ms=NOW_MS)


@pytest.mark.parametrize("market_from", [0, 3])
@pytest.mark.parametrize("is_whole", [True, False])
def test_what_is_kept_is_equal_where_the_market_is_known_from_later_on_than_the_orders(
    market_from: int, is_whole: bool
) -> None:
    topics = FakeTopics()
    cursor = Cursor(
        market=5, events={0: 5}, orders={0: 1}, version=VERSION, market_epoch="m", order_epoch="o", known_since_ms=None,
        time_ms=NOW_MS, market_topic="market", order_topic="orders", known_from=Offsets(market_from, {0: 0}, {0: 0}),
    )  # fmt: skip
    rooms = Rooms(cursor, KEEP_SECONDS)
    rooms.market.partitions.begin(0, 0)
    for message in topics.records("orders", 0, 0, 1):
        rooms.fold_order(message)
    for message in topics.records("market", 0, 0 if is_whole else 1, 5):
        rooms.fold(message, market_from)
    rooms.market.partitions.serve([0])
    records = {
        record.key: record.value
        for room in (rooms.order_state, rooms.market_state)
        for piece in room.cut(0, None, is_whole=True)
        for record in piece
        if record.value is not None
    }
    found = difference(cast(Topics, topics), Kept(0, cursor, records), KEEP_SECONDS)
    assert (found is None) is (is_whole or market_from > 0), found


DECLARED = (Attribute("post_only", Kind.BOOLEAN), Attribute("stp", Kind.ENUM, ("cancel_newest", "cancel_both")))


@pytest.mark.parametrize(
    ("declared", "kept_stp", "differs"),
    [(DECLARED, "cancel_both", False), (DECLARED, "cancel_newest", True), (None, "cancel_newest", False)],
)
def test_attributes_are_compared_where_it_is_known_which_are_declared(
    declared: tuple[Attribute, ...] | None, kept_stp: str, differs: bool
) -> None:
    topics = FakeTopics()
    topics.topics = {
        "orders": [order_command("one", "trader", SYMBOL, post_only=True, stp="cancel_both")],
        "market": [snapshot(SYMBOL, 1)],
    }
    cursor = Cursor(
        market=1, events={0: 1}, orders={0: 1}, version=VERSION, market_epoch="m", order_epoch="o", known_since_ms=None,
        time_ms=NOW_MS, market_topic="market", order_topic="orders", known_from=Offsets(0, {0: 0}, {0: 0}),
    )  # fmt: skip
    rooms = Rooms(cursor, KEEP_SECONDS, DECLARED)
    rooms.market.partitions.begin(0, 0)
    for message in topics.records("orders", 0, 0, 1):
        rooms.fold_order(message)
    for message in topics.records("market", 0, 0, 1):
        rooms.fold(message)
    rooms.market.partitions.serve([0])
    records = {
        record.key: record.value.replace(b"cancel_both", kept_stp.encode())
        for room in (rooms.order_state, rooms.market_state)
        for piece in room.cut(0, None, is_whole=True)
        for record in piece
        if record.value is not None
    }
    found = difference(cast(Topics, topics), Kept(0, cursor, records), KEEP_SECONDS, declared)
    assert (found is not None) is differs, found
