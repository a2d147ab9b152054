"""Whoever waits for the engine's word on an order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.orders.order import Order


class OrderChanges:
    """Wakes those who wait, by order; `on_change` has to be told of every change."""

    def __init__(self, find: Callable[[str], Order | None]) -> None:
        """`find` gives an order by its id."""
        self._find = find
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def on_change(self, order: Order) -> None:
        """An order's state is another one."""
        for future in self._waiting.get(order.order_id, ()):
            if not future.done():
                future.set_result(None)

    async def until(self, order_id: str, is_reached: Callable[[Order], bool], seconds: float) -> None:
        """Return when the order is as it is wanted, when it is forgotten, or after so long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (order := self._find(order_id)) is not None and not is_reached(order):
            future = loop.create_future()
            waiting = self._waiting.setdefault(order_id, set())
            waiting.add(future)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                return
            finally:
                waiting.discard(future)
                if not waiting:
                    self._waiting.pop(order_id, None)
