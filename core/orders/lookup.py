"""Questions about orders, answered with what every instance had accepted when they came (docs/contract.md#order-directory).

What is known here is told at once. Before something is called unknown, and before orders are listed, the order topic is
read to its end; see `core.orders.catch_up`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from heapq import nlargest
from typing import TypeVar
from weakref import WeakValueDictionary

from core.errors import StillStarting
from core.orders.catch_up import CatchUp
from core.orders.directory import OrderDirectory
from core.orders.fills import KnownFill, OwnFill
from core.orders.index import age, closed_at
from core.orders.order import Order
from core.orders.pieces import COMPARED, PIECE, GiveWay, framed, in_pieces, nobody_else, sort_in_pieces

T = TypeVar("T")
U = TypeVar("U")


class OrderLookup:
    """The directory, as a client asks it. Everything raises StillStarting and StillBehind."""

    def __init__(
        self,
        directory: OrderDirectory,
        catch_up: CatchUp,
        is_started: Callable[[], bool],
        give_way: GiveWay = nobody_else,
    ) -> None:
        """`is_started`: the order topic has been read to its end once; `give_way`: see `core.orders.pieces`."""
        self.directory = self._directory = directory
        self._catch_up = catch_up
        self._is_started = is_started
        self._give_way = give_way
        # Held while somebody looks through that user's closed orders.
        self._walking = WeakValueDictionary[str, asyncio.Lock]()

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
        return await sort_in_pieces(self._directory.shown_orders(user_id), age, self._give_way)

    async def closed_orders(
        self, user_id: str, limit: int, wanted: Callable[[Order], bool], before: str | None = None
    ) -> list[Order]:
        """A user's orders that are closed, the last one first: at most `limit`, before that order if one is named.

        Raises LookupError, too, if the order that was named is none of those, or is not kept any more.
        """
        await self.catch_up()
        end = None
        if before is not None:
            named = self._directory.find(user_id, before)
            if named is None or not named.is_closed:
                raise LookupError(before)
            end = closed_at(named)
        walking = self._walking.setdefault(user_id, asyncio.Lock())
        async with walking:
            return await self._last_closed(user_id, limit, wanted, end)

    async def _last_closed(
        self, user_id: str, limit: int, wanted: Callable[[Order], bool], end: tuple[int, str] | None
    ) -> list[Order]:
        found: list[Order] = []
        with self._directory.index.walk_closed(user_id) as closed:
            async for piece in in_pieces(closed, self._give_way, COMPARED):
                found += [order for order in piece if wanted(order) and (end is None or closed_at(order) < end)]
                found = nlargest(limit, found, key=closed_at)
        return found

    async def fills(
        self,
        user_id: str,
        limit: int,
        wanted: Callable[[OwnFill], bool],
        *,
        before: tuple[int, int] | None,
        after: tuple[int, int] | None,
    ) -> list[KnownFill]:
        """See `core.orders.fills.OwnFills.page`: what is known now, which is for the caller to be sure of."""
        fills = self._directory.fills
        return await fills.page(user_id, limit, wanted, self._give_way, before=before, after=after)

    async def write_all(self, items: Iterable[U], write: Callable[[list[U]], T]) -> list[T]:
        """What `write` makes of each piece of many orders or fills."""
        return [write(piece) async for piece in in_pieces(items, self._give_way)]

    async def write_frame(
        self, orders: Iterable[Order], write: Callable[[list[Order]], bytes], before: bytes, behind: bytes
    ) -> memoryview:
        """A text frame of what `write` makes of each piece, but for nothing, with commas between."""
        texts = [text for text in await self.write_all(orders, write) if text]
        return await framed(before, texts, behind, self._give_way)

    def in_pieces(self, items: Iterable[T], size: int = PIECE) -> AsyncIterator[list[T]]:
        """See `core.orders.pieces`."""
        return in_pieces(items, self._give_way, size)

    async def catch_up(self) -> None:
        """Read what others have accepted until now."""
        self.check_started()
        await self._catch_up.to_end()
