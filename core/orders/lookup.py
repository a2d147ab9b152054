"""Questions about orders, answered with what every instance had accepted when they came (docs/contract.md#order-directory).

What is known here is told at once. Before something is called unknown, and before orders are listed, the order topic is
read to its end; see `core.orders.catch_up`.
"""

from __future__ import annotations

from collections.abc import Callable

from core.errors import StillStarting
from core.orders.catch_up import CatchUp
from core.orders.directory import OrderDirectory
from core.orders.order import Order


class OrderLookup:
    """The directory, as a client asks it. Everything raises StillStarting and StillBehind."""

    def __init__(self, directory: OrderDirectory, catch_up: CatchUp, is_started: Callable[[], bool]) -> None:
        """`is_started`: the order topic has been read to its end once."""
        self._directory = directory
        self._catch_up = catch_up
        self._is_started = is_started

    def check_started(self) -> None:
        """Before the order topic has been read, whose order it is and whether it was there before is not known."""
        if not self._is_started():
            raise StillStarting

    async def find(self, user_id: str | None, order_id: str) -> Order | None:
        """The caller's own order; None is the anonymous caller, and finds anonymous orders only."""
        self.check_started()
        if self._directory.get(order_id) is None:
            await self._catch_up.to_end()
        return self._directory.find(user_id, order_id)

    async def find_by_client_order_id(self, user_id: str | None, client_order_id: str) -> Order | None:
        """The caller's own order by the name that the caller gave it."""
        self.check_started()
        if self._directory.find_by_client_order_id(user_id, client_order_id) is None:
            await self._catch_up.to_end()
        return self._directory.find_by_client_order_id(user_id, client_order_id)

    async def open_orders(self, user_id: str) -> list[Order]:
        """A user's orders that are shown and not closed, oldest first."""
        await self.catch_up()
        return self._directory.open_orders(user_id)

    async def catch_up(self) -> None:
        """Read what others have accepted until now."""
        self.check_started()
        await self._catch_up.to_end()
