"""Closed orders that are let go before their time, because there are too many: the oldest first, and then unknown."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from msgspec.structs import replace

from core.errors import NoSuchOrder, OrderClosed
from core.messages.commands import CancelOrder, PlaceOrder
from core.messages.events import read_event
from core.messages.model import OrderType, Side, TimeInForce
from core.messages.times import Times
from core.orders.attempt import Placed
from core.orders.catch_up import CatchUp
from core.orders.directory import OrderDirectory
from core.orders.entry import OrderEntry
from tests.core.fakes import run
from tests.core.trading import NAMESPACE, FakeLog, FakeTopic

LIMIT = PlaceOrder("KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.50"), Decimal("2.0"), TimeInForce.GTC)
LONG_SECONDS = 86_400.0


class FewClosedOrders:
    """A directory that keeps so many closed orders, and the way into it; `now` is in seconds."""

    def __init__(self, max_terminal: int | None) -> None:
        self.now = 1000.0
        self.directory = OrderDirectory(
            keep_terminal_seconds=LONG_SECONDS,
            on_change=lambda _order: None,
            on_private=lambda _user_id, _payload: None,
            max_terminal=max_terminal,
            times=Times(lambda: self.now),
        )
        self.log = FakeLog(acks=True)
        self.entry = OrderEntry(
            self.log,
            self.directory,
            NAMESPACE,
            CatchUp(FakeTopic(), is_reachable=lambda: True),
            answer_within_seconds=5,
            is_started=lambda: True,
            count=lambda _kind, _outcome: None,
            clock=lambda: self.now,
        )
        self._offset = 0

    async def place(self, name: str) -> str:
        return (await self.entry.place("alice", replace(LIMIT, client_order_id=name))).order_id

    def close(self, order_id: str) -> None:
        """The engine filled it, a second after the last one."""
        self.now += 1
        event = read_event(json.dumps({"type": "order_filled", "order_id": order_id}).encode())
        self.directory.fold_event(event, 0, self._offset, int(self.now * 1000), True)
        self._offset += 1

    def sweep(self) -> None:
        while self.directory.sweep(int(self.now * 1000), at_most=1):
            pass

    async def closed(self, count: int) -> list[str]:
        """So many orders that were closed one after the other."""
        ids = [await self.place(f"my-{number}") for number in range(count)]
        for order_id in ids:
            self.close(order_id)
        self.sweep()
        return ids

    def known(self, ids: list[str]) -> list[bool]:
        return [self.directory.get(order_id) is not None for order_id in ids]


def test_oldest_closed_orders_leave_first_by_when_they_closed() -> None:
    async def main() -> None:
        orders = FewClosedOrders(2)
        first, second, third = [await orders.place(name) for name in "abc"]
        for order_id in (third, first, second):
            orders.close(order_id)
        orders.sweep()
        assert orders.known([first, second, third]) == [True, True, False]

    run(main())


def test_open_orders_are_kept_however_many_and_old_they_are() -> None:
    async def main() -> None:
        orders = FewClosedOrders(1)
        rest = [await orders.place(f"rest-{number}") for number in range(5)]
        ids = await orders.closed(5)
        assert orders.known(rest) == [True] * 5
        assert orders.known(ids) == [False] * 4 + [True]
        assert [order.order_id for order in orders.directory.open_orders("alice")] == sorted(rest)
        assert len(orders.directory) == 6

    run(main())


def test_order_that_was_let_go_is_answered_as_an_unknown_one() -> None:
    async def main() -> None:
        orders = FewClosedOrders(1)
        gone, kept = await orders.closed(2)
        assert orders.directory.find("alice", gone) is None
        assert orders.directory.find_by_client_order_id("alice", "my-0") is None
        for cancel in (CancelOrder(gone, None), CancelOrder(None, "my-0")):
            with pytest.raises(NoSuchOrder):
                await orders.entry.cancel("alice", cancel)
        with pytest.raises(OrderClosed):
            await orders.entry.cancel("alice", CancelOrder(kept, None))
        # With its symbol the engine is asked, as for any order that is not known here.
        assert await orders.entry.cancel("alice", CancelOrder(gone, None, "KCN/EUR")) == gone

    run(main())


def test_repeat_of_an_order_that_was_let_go_is_published_again_under_its_id() -> None:
    async def main() -> None:
        orders = FewClosedOrders(1)
        gone, kept = await orders.closed(2)
        orders.log.produced.clear()
        again = replace(LIMIT, client_order_id="my-1")
        assert await orders.entry.place("alice", again) == Placed(kept, "my-1", duplicate=True)
        assert orders.log.records == []
        again = replace(LIMIT, client_order_id="my-0")
        assert await orders.entry.place("alice", again) == Placed(gone, "my-0")
        assert [record["order_id"] for record in orders.log.records] == [gone]

    run(main())


def test_without_a_bound_they_stay_for_their_time() -> None:
    async def main() -> None:
        orders = FewClosedOrders(None)
        ids = await orders.closed(20)
        assert orders.known(ids) == [True] * 20
        orders.now += LONG_SECONDS - 1
        orders.sweep()
        assert orders.known(ids) == [False] * 19 + [True]

    run(main())
