"""cancel_all, and the orders whose funds the accounts service is reserving when it is asked."""

from __future__ import annotations

import asyncio
import itertools
from decimal import Decimal
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from core.errors import AccountsUnavailable, BusUnavailable, FundsRefused, GatewayError, OutcomeUnknown
from core.messages.commands import PlaceOrder
from core.messages.model import OrderType, Side, TimeInForce
from core.orders.attempt import Placed
from tests.core.fakes import run, turns
from tests.core.trading import CERTAINLY_NOT, Trade

LIMIT = PlaceOrder("KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.50"), Decimal("2.0"), TimeInForce.GTC)


class Reserved(NamedTuple):
    order_id: str
    quantity: Decimal


class Accounts:
    """An accounts service that answers each reservation when the test says, in whatever order."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.asked: list[tuple[PlaceOrder, asyncio.Future[Reserved]]] = []
        self.released: list[str] = []

    async def reserve(self, _user_id: str, order: PlaceOrder, _idempotency_key: str) -> Reserved:
        self.asked.append((order, asyncio.get_running_loop().create_future()))
        return await self.asked[-1][1]

    def release(self, order_id: str, _user_id: str, *, unless: object) -> None:
        assert unless is None, "what has no name is nobody else's"
        self.released.append(order_id)

    def grant(self, number: int, order_id: str) -> str:
        """Say yes to the reservation of this number, under this id."""
        order, answer = self.asked[number]
        assert order.quantity is not None
        answer.set_result(Reserved(order_id, order.quantity))
        return order_id

    def refuse(self, number: int, error: GatewayError) -> None:
        self.asked[number][1].set_exception(error)


class ReservingTrade:
    """A trade with accounts; its bus acknowledges at once."""

    def __init__(self) -> None:
        self.accounts = Accounts()
        self.trade = Trade(acks=True, reservations=self.accounts)

    async def placing(self, user_id: str = "alice", symbol: str = "KCN/EUR") -> asyncio.Task[Placed]:
        """An order whose funds are being reserved."""
        count = len(self.accounts.asked)
        task = asyncio.get_running_loop().create_task(self.trade.entry.place(user_id, replace(LIMIT, symbol=symbol)))
        await turns()
        assert len(self.accounts.asked) == count + 1
        return task

    async def placed(self, order_id: str, user_id: str = "alice") -> str:
        """One that is on the topic."""
        task = await self.placing(user_id)
        self.accounts.grant(-1, order_id)
        return (await task).order_id

    async def cancelling(self, symbol: str | None = None) -> asyncio.Task[list[str]]:
        task = asyncio.get_running_loop().create_task(self.trade.entry.cancel_all("alice", symbol))
        await turns()
        return task

    @property
    def commands(self) -> list[tuple[str, str]]:
        """What went to the topic, in its order."""
        return [(record["type"], record["order_id"]) for record in self.trade.log.records]


def test_cancel_all_cancels_an_order_whose_funds_are_being_reserved_behind_its_record() -> None:
    async def main() -> None:
        trader = ReservingTrade()
        order = await trader.placing()
        task = await trader.cancelling()
        assert not task.done()
        trader.accounts.grant(0, "a")
        assert await task == ["a"]
        assert (await order).order_id == "a"
        assert trader.commands == [("place_order", "a"), ("cancel_order", "a")]

    run(main())


def test_cancel_all_does_not_wait_for_the_acknowledgement_of_an_order_that_was_being_reserved() -> None:
    async def main() -> None:
        trader = ReservingTrade()
        trader.trade.log.acks = False
        order = await trader.placing()
        task = await trader.cancelling()
        trader.accounts.grant(0, "a")
        await turns()
        assert trader.commands == [("place_order", "a"), ("cancel_order", "a")]
        for one in trader.trade.log.produced:
            one.ack()
        assert (await task, (await order).order_id) == (["a"], "a")

    run(main())


def test_cancel_all_holds_up_no_cancel_of_an_open_order_for_one_that_is_being_reserved() -> None:
    async def main() -> None:
        trader = ReservingTrade()
        await trader.placed("a")
        await trader.placing()
        await trader.placing()
        task = await trader.cancelling()
        assert trader.commands[1:] == [("cancel_order", "a")]
        trader.trade.now += 1
        trader.accounts.grant(2, "c")
        await turns()
        assert trader.commands[2:] == [("place_order", "c"), ("cancel_order", "c")], "each as soon as it is decided"
        assert not task.done()
        trader.trade.now += 1
        trader.accounts.grant(1, "b")
        assert await task == ["a", "c", "b"], "oldest first"
        assert trader.commands[4:] == [("place_order", "b"), ("cancel_order", "b")]

    run(main())


@pytest.mark.parametrize(
    "error",
    [FundsRefused("too little"), AccountsUnavailable("away"), OutcomeUnknown("a", "no answer")],
    ids=lambda error: type(error).__name__,
)
def test_cancel_all_has_nothing_to_cancel_where_the_reservation_came_to_nothing(error: GatewayError) -> None:
    async def main() -> None:
        trader = ReservingTrade()
        order = await trader.placing()
        task = await trader.cancelling()
        trader.accounts.refuse(0, error)
        assert await task == []
        with pytest.raises(type(error)):
            await order
        assert trader.commands == []

    run(main())


def test_cancel_all_ends_when_the_request_of_an_order_that_is_being_reserved_does() -> None:
    async def main() -> None:
        trader = ReservingTrade()
        order = await trader.placing()
        task = await trader.cancelling()
        order.cancel()
        assert await task == []
        assert await trader.trade.entry.cancel_all("alice", None) == []

    run(main())


def test_cancel_all_has_nothing_to_cancel_where_the_reserved_order_was_certainly_not_written() -> None:
    async def main() -> None:
        trader = ReservingTrade()
        order = await trader.placing()
        task = await trader.cancelling()
        trader.trade.log.refuses = CERTAINLY_NOT
        trader.accounts.grant(0, "a")
        assert await task == []
        with pytest.raises(BusUnavailable):
            await order
        assert trader.accounts.released == ["a"]

    run(main())


def test_cancel_all_cancels_a_reserved_order_of_unknown_outcome() -> None:
    async def main() -> None:
        trader = ReservingTrade()
        trader.trade.log.acks = False
        order = await trader.placing()
        task = await trader.cancelling()
        trader.accounts.grant(0, "a")
        await turns()
        written, cancel = trader.trade.log.produced
        written.lose()
        cancel.ack()
        assert await task == ["a"]
        with pytest.raises(OutcomeUnknown):
            await order

    run(main())


@pytest.mark.parametrize(("user_id", "symbol"), [("bob", "KCN/EUR"), ("alice", "OTH/EUR")])
def test_cancel_all_waits_for_no_reservation_that_does_not_concern_it(user_id: str, symbol: str) -> None:
    async def main() -> None:
        trader = ReservingTrade()
        await trader.placed("a")
        order = await trader.placing(user_id, symbol)
        assert await trader.trade.entry.cancel_all("alice", "KCN/EUR") == ["a"]
        trader.accounts.grant(1, "b")
        await order
        assert trader.commands == [("place_order", "a"), ("cancel_order", "a"), ("place_order", "b")]

    run(main())


def test_cancel_all_leaves_alone_what_was_ordered_after_it() -> None:
    async def main() -> None:
        trader = ReservingTrade()
        first = await trader.placing()
        task = await trader.cancelling()
        second = await trader.placing()
        trader.accounts.grant(1, "b")
        assert (await second).order_id == "b"
        assert not task.done()
        trader.accounts.grant(0, "a")
        assert await task == ["a"]
        await first
        assert ("cancel_order", "b") not in trader.commands

    run(main())


def test_cancel_all_cancels_once_what_another_instance_published_under_the_reserved_id() -> None:
    async def main() -> None:
        trader, other = ReservingTrade(), Trade(acks=True)
        named = replace(LIMIT, client_order_id="my-1")
        order_id = (await other.entry.place("alice", named)).order_id
        repeat = asyncio.get_running_loop().create_task(trader.trade.entry.place("alice", named))
        await turns()
        trader.trade.see(other.log.last.command)
        task = await trader.cancelling()
        trader.accounts.grant(0, order_id)
        assert await task == [order_id]
        assert (await repeat).duplicate
        assert trader.commands == [("cancel_order", order_id)]

    run(main())


def test_cancel_all_is_of_unknown_outcome_when_only_the_cancel_of_a_reserved_order_failed() -> None:
    async def main() -> None:
        trader = ReservingTrade()
        await trader.placed("a")
        order = await trader.placing()
        task = await trader.cancelling()
        trader.trade.log.acks = False
        trader.accounts.grant(1, "b")
        await turns()
        written, cancel = trader.trade.log.produced[-2:]
        written.ack()
        cancel.fail(CERTAINLY_NOT)
        with pytest.raises(OutcomeUnknown, match="1 of 2 cancels may be missing") as refused:
            await task
        assert refused.value.order_id == "b"
        await order

    run(main())
