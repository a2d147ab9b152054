"""Orders that are kept and older than what was read here, taken in while all goes on; beside a directory that read everything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.messages.events import read_event
from core.messages.feed_record import Record
from core.messages.kept_state import VERSION, Cursor, order_partition
from core.messages.times import Times
from core.orders.directory import OrderDirectory
from core.orders.older_orders import OlderOrders
from core.orders.order import Order, state
from core.orders.state import OrderState
from tests.integration.events import fill
from tests.integration.trading import order_command, order_event

NOW_MS = 1_700_000_000_000
USER = "trader"
PARTITIONS = 2
SYMBOLS = ["A/EUR", "B/EUR", "C/EUR", "D/EUR"]
PARTITION = order_partition(SYMBOLS[0], PARTITIONS)
HERE = [symbol for symbol in SYMBOLS if order_partition(symbol, PARTITIONS) == PARTITION]


def fresh(changes: list[Order] | None = None) -> OrderDirectory:
    return OrderDirectory(
        keep_terminal_seconds=86_400,
        on_change=lambda order: None if changes is None else changes.append(order),
        on_private=lambda _user_id, _payload: None,
        times=Times(clock=lambda: NOW_MS / 1000),
    )


@dataclass
class Topics:
    """Records of both topics, each on one partition; what `commands` and `events` count is how far somebody has read."""

    commands: list[bytes] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)

    def read(self, directory: OrderDirectory, commands: range, events: range, *, live: bool = False) -> None:
        for offset in commands:
            directory.fold_command(0, offset, NOW_MS + offset, self.commands[offset], live)
        for offset in events:
            directory.fold_event(read_event(self.events[offset]), 0, offset, NOW_MS + offset, live)
        # What no command tells of is asked about at once, and answered.
        directory.early_events.ends_asked()
        directory.early_events.on_ends({})


def cursor(events: int, commands: int) -> Cursor:
    return Cursor(
        market=events, events={0: events}, orders={0: commands}, version=VERSION, market_epoch="m", order_epoch="o",
        known_since_ms=None, time_ms=NOW_MS,
    )  # fmt: skip


def _closed(directory: OrderDirectory) -> list[Order]:
    with directory.index.walk_closed(USER) as orders:
        return list(orders)


def known(directory: OrderDirectory) -> dict[str, object]:
    """Of the orders of the partition all that is known, and the fills."""
    with directory.index.walk() as orders:
        mine = {one.order_id: (state(one), one.terms_digest) for one in orders if one.symbol in HERE}
    fills = {(one.key, one.fill) for one in directory.fills.of(USER) if one.fill.symbol in HERE}
    opened = sorted(one.order_id for one in directory.shown_orders(USER) if one.symbol in HERE)
    closed = sorted(one.order_id for one in _closed(directory) if one.symbol in HERE)
    return {"orders": mine, "fills": fills, "open": opened, "closed": closed}


def take_in(
    directory: OrderDirectory,
    topics: Topics,
    kept: OrderDirectory,
    at: Cursor,
    until: tuple[int, int],
    now: tuple[int, int],
) -> int:
    """What is kept in `kept` as of `at`, brought to `until` while `directory` reads on to `now`: events and commands."""
    older = OlderOrders(directory, PARTITION, PARTITIONS, keep_terminal_seconds=86_400)
    room = OrderState(kept, lambda: PARTITIONS)
    with older.listening():
        for piece in room.cut(PARTITION, None, is_whole=True):
            for record in piece:
                older.room.take_back(PARTITION, *record)
        older.room.resume({PARTITION: at})
        for offset in range(at.orders[0], until[1]):
            older.fold_command(Record(0, offset, NOW_MS + offset, topics.commands[offset], False))
        for offset in range(at.events[0], until[0]):
            older.fold_event(Record(0, offset, NOW_MS + offset, topics.events[offset], False))
        begun = directory.read_to.events_read_to().get(0, 0)
        topics.read(directory, range(0), range(begun, now[0]), live=True)
        return asyncio.run(older.take_in({0: until[0]}, lambda: asyncio.sleep(0)))


def history(kinds: list[tuple[int, int]]) -> tuple[Topics, Mapping[int, int]]:
    """Both topics, and how many commands had been written before each event."""
    topics, before = Topics(), {}
    ids: list[tuple[str, str]] = []
    for kind, which in kinds:
        if kind == 0 or not ids:
            symbol = SYMBOLS[which % len(SYMBOLS)]
            ids.append((f"order-{len(ids)}", symbol))
            topics.commands.append(order_command(*ids[-1][:1], USER, symbol, client_order_id=f"name-{len(ids)}"))
            continue
        order_id, symbol = ids[which % len(ids)]
        before[len(topics.events)] = len(topics.commands)
        topics.events.append(
            [
                order_event("accepted", order_id, symbol, user_id=USER),
                fill(symbol, buy_order_id=order_id, sell_order_id="nobody", quantity="0.1", timestamp=NOW_MS),
                order_event("filled", order_id, symbol),
                order_event("cancelled", order_id, symbol, filled_quantity="0.1"),
            ][kind - 1]
        )
    return topics, before


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), min_size=4, max_size=40),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_orders_that_are_kept_are_known_as_if_all_had_been_read(
    kinds: list[tuple[int, int]], cuts: list[float]
) -> None:
    topics, before = history(kinds)
    end = len(topics.events)
    begin, at, until, now = sorted(round(cut * end) for cut in cuts)

    def written(events: int) -> int:
        return before.get(events, len(topics.commands))

    kept, directory, whole = fresh(), fresh(), fresh()
    topics.read(kept, range(written(at)), range(at))
    # It has read all commands since it began, and begins to listen somewhere before `until`.
    topics.read(directory, range(written(begin), len(topics.commands)), range(begin, (at + until) // 2))
    take_in(directory, topics, kept, cursor(at, written(at)), (until, len(topics.commands)), (now, 0))
    topics.read(directory, range(0), range(now, end), live=True)
    topics.read(whole, range(len(topics.commands)), range(end))
    assert known(directory) == known(whole)


@pytest.mark.parametrize("value", [None, b"{", b'{"type": "fill"}'])
def test_record_that_cannot_be_read_is_passed_over(value: bytes | None) -> None:
    older = OlderOrders(fresh(), PARTITION, PARTITIONS, keep_terminal_seconds=86_400)
    older.room.resume({})
    older.fold_event(Record(0, 0, NOW_MS, value, False))
    assert asyncio.run(older.take_in({0: 1}, lambda: asyncio.sleep(0))) == 0


def test_owner_is_told_of_open_orders_that_come_to_be_known() -> None:
    topics = Topics([order_command("old", USER, HERE[0]), order_command("over", USER, HERE[0])])
    topics.events = [order_event("cancelled", "over", HERE[0], filled_quantity="0")]
    changes: list[Order] = []
    kept, directory = fresh(), fresh(changes)
    topics.read(kept, range(2), range(1))
    assert take_in(directory, topics, kept, cursor(1, 2), (1, 2), (1, 2)) == 2
    assert [order.order_id for order in changes] == ["old"]
    assert directory.heard is None
    assert directory.find_by_client_order_id(USER, "none") is None


@pytest.mark.parametrize("quantity", ["2", "3"])
def test_order_that_is_known_already_keeps_its_place_in_flight_and_gets_the_first_record_s_terms(quantity: str) -> None:
    first = order_command("same", USER, HERE[0], client_order_id="name")
    again = order_command("same", USER, HERE[0], client_order_id="name", quantity=quantity)
    topics = Topics([first, again], [order_event("filled", "same", HERE[0])])
    kept, directory = fresh(), fresh()
    topics.read(kept, range(1), range(1))
    topics.read(directory, range(1, 2), range(0))
    mine = directory.get("same")
    assert mine is not None
    mine.in_flight = True
    take_in(directory, topics, kept, cursor(1, 1), (1, 2), (1, 2))
    assert directory.get("same") is mine
    assert (mine.in_flight, mine.status, mine.quantity) == (True, "filled", "2")
    assert directory.find_by_client_order_id(USER, "name") is mine
