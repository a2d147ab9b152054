"""The open orders of a connection that has ended, wherever it was, and their cancels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from core.orders.entry import OrderEntry
from core.orders.lookup import OrderLookup
from core.orders.order import Order
from core.orders.pieces import COMPARED


class ConnectionCancels:
    """By a connection's name, its user (None: nobody's, which costs a look at every order), and orders that do not name it.

    Everything raises StillStarting and StillBehind.
    """

    def __init__(
        self, lookup: OrderLookup, entry: OrderEntry, on_outcome: Callable[[Order, Exception | None], None]
    ) -> None:
        """`on_outcome`: of each cancel, with what it failed with."""
        self._lookup = lookup
        self._entry = entry
        self._on_outcome = on_outcome

    async def has_open(self, name: str, user_id: str | None, others: Iterable[str]) -> bool:
        """Whether there is one."""
        return bool(await self._open(name, user_id, others))

    async def cancel(self, name: str, user_id: str | None, others: Iterable[str]) -> int:
        """Publish a cancel of each; how many those were. Raises what one of them failed with, once all were tried."""
        orders = await self._open(name, user_id, others)
        outcomes = await self._entry.cancel_each(orders)
        for order, error in zip(orders, outcomes, strict=True):
            self._on_outcome(order, error)
        for error in outcomes:
            if error is not None:
                raise error
        return len(orders)

    async def _open(self, name: str, user_id: str | None, others: Iterable[str]) -> list[Order]:
        await self._lookup.catch_up()
        directory = self._lookup.directory
        found = {order.order_id: order for order in map(directory.get, others) if order is not None}
        if user_id is not None:
            async for piece in self._lookup.in_pieces(directory.shown_orders(user_id), COMPARED):
                found |= {order.order_id: order for order in piece if order.connection == name}
        else:
            with directory.index.walk() as orders:
                async for piece in self._lookup.in_pieces(orders):
                    found |= {order.order_id: order for order in piece if order.connection == name}
        return [order for order in found.values() if not order.is_closed]
