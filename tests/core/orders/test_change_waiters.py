"""Whoever waits for an order to change: until it is as wanted, is forgotten, or takes too long."""

from __future__ import annotations

import asyncio

from core.orders.change_waiters import OrderChanges
from core.orders.order import Order, Status
from tests.core.attempts import LIMIT, hear
from tests.core.fakes import run, turns
from tests.core.trading import Trade


def is_closed(order: Order) -> bool:
    return order.is_closed


async def placed(trade: Trade) -> str:
    return (await trade.entry.place("alice", LIMIT)).order_id


def test_waiting_ends_with_the_change_that_is_wanted_and_no_sooner() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        order_id = await placed(trade)
        waiting = [asyncio.ensure_future(trade.changes.until(order_id, is_closed, 60)) for _ in range(2)]
        await turns()
        hear(trade, "order_accepted", order_id, side="bid", order_type="limit", price="1.50", quantity="2.0")
        await turns()
        assert not any(task.done() for task in waiting)
        hear(trade, "order_filled", order_id, offset=1)
        await turns()
        assert all(task.done() for task in waiting)
        assert trade.changes._waiting == {}

    run(main())


def test_nobody_waits_for_what_is_so_already_nor_for_an_order_that_is_not_known() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        order_id = await placed(trade)
        await trade.changes.until(order_id, lambda order: order.status is Status.PENDING, 60)
        await trade.changes.until("never-seen", is_closed, 60)

    run(main())


def test_waiting_ends_after_its_time_and_leaves_nothing() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        order_id = await placed(trade)
        await trade.changes.until(order_id, is_closed, 0)
        assert trade.changes._waiting == {}

    run(main())


def test_change_of_an_order_that_nobody_waits_for_is_no_matter() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        changes = OrderChanges(trade.directory.get)
        order = trade.directory.get(await placed(trade))
        assert order is not None
        changes.on_change(order)

    run(main())


def test_two_changes_in_one_turn_wake_who_waits_once() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        order_id = await placed(trade)
        waiting = asyncio.ensure_future(trade.changes.until(order_id, is_closed, 60))
        await turns()
        hear(trade, "order_accepted", order_id, side="bid", order_type="limit", price="1.50", quantity="2.0")
        hear(trade, "order_filled", order_id, offset=1)
        await turns()
        assert waiting.done()

    run(main())
