"""One request to cancel all of a user's orders: those known here, those under way from here, those accepted elsewhere.

Each is cancelled as soon as it can be: what is known at once, what another instance had accepted when the order topic has been
read to the end that it had, and an order whose funds are being reserved behind its record. Nothing that comes later is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from core.errors import BusUnavailable, OutcomeUnknown, StillBehind
from core.orders.attempt import Attempt, Attempts
from core.orders.catch_up import CatchUp
from core.orders.directory import OrderDirectory
from core.orders.index import age
from core.orders.order import Order
from core.orders.pieces import COMPARED, GiveWay, in_pieces, sort_in_pieces

CancelEach = Callable[[Iterable[Order]], Awaitable[list[Exception | None]]]


class CancelAll:
    """The request, once."""

    def __init__(
        self,
        directory: OrderDirectory,
        attempts: Attempts,
        catch_up: CatchUp,
        cancel_each: CancelEach,
        user_id: str,
        symbol: str | None,
        give_way: GiveWay,
    ) -> None:
        """`symbol` None: all symbols. `give_way`: see `core.orders.pieces`. `cancel_each` publishes a cancel of each, and tells what became of them."""
        self._directory = directory
        self._attempts = attempts
        self._catch_up = catch_up
        self._cancel_each = cancel_each
        self._user_id = user_id
        self._symbol = symbol
        self._give_way = give_way
        self._taken: set[str] = set()
        self._tried: list[tuple[Order, Exception | None]] = []
        self._failed: list[tuple[Order, Exception | None]] = []
        self._behind: StillBehind | None = None

    async def run(self) -> list[str]:
        """Publish the cancels; the orders' ids, oldest first.

        Raises BusUnavailable or StillBehind if certainly none was written, OutcomeUnknown if some may not have been.
        """
        attempts = self._attempts.of(self._user_id, self._symbol)
        under_way = [attempt.record for attempt in attempts if attempt.record is not None]
        reserving = [attempt for attempt in attempts if attempt.record is None]
        with self._attempts.beginning() as later:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._cancel_elsewhere(later))
                for attempt in reserving:
                    group.create_task(self._cancel_reserved(attempt))
                # Not in a task: what the client sends next is not to overtake it.
                await self._cancel([*await self._open_orders(), *under_way])
        return await self._answer(await sort_in_pieces(self._tried, lambda one: one[0].created_ms, self._give_way))

    async def _open_orders(self) -> list[Order]:
        """Oldest first."""
        orders = self._directory.shown_orders(self._user_id)
        mine = orders if self._symbol is None else (order for order in orders if order.symbol == self._symbol)
        return await sort_in_pieces(mine, age, self._give_way)

    async def _cancel(self, orders: Iterable[Order]) -> None:
        """Those of them that can be, and are not yet."""
        fresh: list[Order] = []

        def taken() -> Iterator[Order]:
            for order in orders:
                # An attempt's record may be closed by now, or be under an id that is somebody else's.
                if order.order_id not in self._taken and not order.is_closed and order.user_id == self._user_id:
                    self._taken.add(order.order_id)
                    fresh.append(order)
                    yield order

        results = await self._cancel_each(taken())
        async for tried in in_pieces(zip(fresh, results, strict=True), self._give_way, COMPARED):
            self._tried += tried
            self._failed += [one for one in tried if one[1] is not None]

    async def _cancel_elsewhere(self, later: Sequence[Attempt]) -> None:
        try:
            await self._catch_up.to_end()
        except StillBehind as error:
            self._behind = error
            return
        from_here = [attempt.record for attempt in later]
        await self._cancel(order for order in await self._open_orders() if order not in from_here)

    async def _cancel_reserved(self, attempt: Attempt) -> None:
        """Once its funds are reserved, which the reservations' own timeout bounds."""
        await asyncio.wait((attempt.reserved(),))
        if attempt.record is not None:  # else it was certainly not written
            await self._cancel((attempt.record,))

    async def _answer(self, tried: list[tuple[Order, Exception | None]]) -> list[str]:
        failures = self._failed
        if len(failures) == len(tried):
            if self._behind is not None and not tried:
                raise self._behind
            if tried and all(isinstance(error, BusUnavailable) for _, error in failures):
                assert tried[0][1] is not None
                raise tried[0][1]
        if failures:
            order, error = min(failures, key=lambda one: one[0].created_ms)
            raise OutcomeUnknown(order.order_id, f"{len(failures)} of {len(tried)} cancels may be missing: {error}")
        if self._behind is not None:
            raise OutcomeUnknown(
                tried[0][0].order_id, f"cancels of other instances' orders may be missing: {self._behind}"
            )
        ids: list[str] = []
        async for piece in in_pieces(tried, self._give_way, COMPARED):
            ids += [order.order_id for order, _ in piece]
        return ids
