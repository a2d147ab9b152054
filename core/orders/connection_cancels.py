"""The open orders of a connection that has ended, wherever it was, and their cancels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from core.orders.entry import OrderEntry
from core.orders.lookup import OrderLookup
from core.orders.order import Order
from core.orders.pieces import COMPARED


class ConnectionCancels:
    """By a connection's name, and its orders that do not name it.

    Everything raises StillStarting and StillBehind.
    """

    def __init__(
        self, lookup: OrderLookup, entry: OrderEntry, on_outcome: Callable[[Order, Exception | None], None]
    ) -> None:
        """`on_outcome`: of each cancel, with what it failed with."""
        self._lookup = lookup
        self._entry = entry
        self._on_outcome = on_outcome

    async def has_open(self, name: str, others: Iterable[str]) -> bool:
        """Whether there is one."""
        return bool(await self._open(name, others))

    async def cancel(self, name: str, others: Iterable[str]) -> int:
        """Publish a cancel of each; how many those were. Raises what one of them failed with, once all were tried."""
        orders = await self._open(name, others)
        outcomes = await self._entry.cancel_each(orders)
        for order, error in zip(orders, outcomes, strict=True):
            self._on_outcome(order, error)
        for error in outcomes:
            if error is not None:
                raise error
        return len(orders)

    async def _open(self, name: str, others: Iterable[str]) -> list[Order]:
        await self._lookup.catch_up()
        directory = self._lookup.directory
        found: dict[str, Order] = {}
        for orders in map(directory.get, others), directory.orders_of_connection(name):
            async for piece in self._lookup.in_pieces(orders, COMPARED):
                found |= {order.order_id: order for order in piece if order is not None and not order.is_closed}
        return list(found.values())
