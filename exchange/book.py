"""One symbol's book: price levels, each a queue of orders in the order of their arrival.

Invariants: a level exists exactly while it holds an order; its total is the exact sum of what remains of them; and
`take_changes`, called after each command, names every level that the command changed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce

from exchange.commands import OrderId, SelfTrade, Side
from exchange.decimals import EXACT, ZERO


@dataclass(slots=True)
class Order:
    """A resting order, or the one that is being matched; `remaining` is what of `quantity` is not yet filled."""

    order_id: OrderId
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    remaining: Decimal
    user_id: str | None
    post_only: bool = False
    stp: SelfTrade | None = None

    @property
    def filled(self) -> Decimal:
        return EXACT.subtract(self.quantity, self.remaining)

    def is_of(self, user_id: str | None) -> bool:
        """Whether it is this user's; nobody's orders are no one's."""
        return user_id is not None and self.user_id == user_id


class Level:
    """The orders at one price, oldest first. An OrderedDict, because the front of a plain dict gets slow to find."""

    __slots__ = ("orders", "price", "total")

    def __init__(self, price: Decimal) -> None:
        self.price = price
        self.total = ZERO
        self.orders: OrderedDict[OrderId, Order] = OrderedDict()

    @property
    def first(self) -> Order:
        return next(iter(self.orders.values()))


@dataclass(frozen=True, slots=True)
class LevelChange:
    """A level's new total; `action` is add, update or remove, and the quantity of a removed level is zero."""

    action: str
    side: Side
    price: Decimal
    quantity: Decimal


class Book:
    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self._levels: dict[Side, dict[Decimal, Level]] = {Side.BID: {}, Side.ASK: {}}
        self._prices: dict[Side, list[Decimal]] = {Side.BID: [], Side.ASK: []}
        self._before: dict[tuple[Side, Decimal], Decimal] = {}

    def best(self, side: Side) -> Level | None:
        prices = self._prices[side]
        if not prices:
            return None
        return self._levels[side][prices[-1] if side is Side.BID else prices[0]]

    def levels(self, side: Side) -> Iterator[Level]:
        """Best first: the highest bid, the lowest ask. The book must not change meanwhile."""
        prices, levels = self._prices[side], self._levels[side]
        return (levels[price] for price in (reversed(prices) if side is Side.BID else prices))

    def level_count(self, side: Side) -> int:
        return len(self._prices[side])

    def has_level(self, side: Side, price: Decimal) -> bool:
        return price in self._levels[side]

    def available(self, side: Side, limit: Decimal | None, enough: Decimal | None = None) -> Decimal:
        """What stands on `side` at `limit` or better (all of it for None); counts no further than `enough`."""
        total = ZERO
        for level in self.levels(side):
            if not is_within(side, level.price, limit) or (enough is not None and total >= enough):
                break
            total = EXACT.add(total, level.total)
        return total

    def available_to(
        self, user_id: str | None, stp: SelfTrade, side: Side, limit: Decimal | None, enough: Decimal
    ) -> Decimal:
        """As `available`, for an order of this user's that does not trade with the user's own."""
        total = ZERO
        for level in self.levels(side):
            if not is_within(side, level.price, limit):
                break
            for order in level.orders.values():
                if total >= enough or (order.is_of(user_id) and stp is not SelfTrade.CANCEL_OLDEST):
                    return total
                if not order.is_of(user_id):
                    total = EXACT.add(total, order.remaining)
        return total

    def cost(self, side: Side, quantity: Decimal, without: str | None = None) -> Decimal:
        """What so much of `side` costs, best price first; of what is there, if that is less. `without` the orders of this user."""
        total = ZERO
        for level in self.levels(side):
            there = level.total
            if without is not None:
                own = (order.remaining for order in level.orders.values() if order.is_of(without))
                there = reduce(EXACT.subtract, own, there)
            taken = min(quantity, there)
            total = EXACT.add(total, EXACT.multiply(level.price, taken))
            quantity = EXACT.subtract(quantity, taken)
            if not quantity:
                break
        return total

    def rest(self, order: Order) -> None:
        level = self._levels[order.side].get(order.price)
        if level is None:
            level = self._levels[order.side][order.price] = Level(order.price)
            insort(self._prices[order.side], order.price)
        self._touch(order.side, level)
        level.orders[order.order_id] = order
        level.total = EXACT.add(level.total, order.remaining)

    def remove(self, order: Order) -> None:
        level = self._levels[order.side][order.price]
        self._touch(order.side, level)
        del level.orders[order.order_id]
        level.total = EXACT.subtract(level.total, order.remaining)
        if not level.orders:
            self._drop(order.side, level)

    def take(self, order: Order, quantity: Decimal) -> None:
        """Fill a resting order by `quantity`, at most what remains of it; filled completely it leaves the book."""
        level = self._levels[order.side][order.price]
        self._touch(order.side, level)
        order.remaining = EXACT.subtract(order.remaining, quantity)
        level.total = EXACT.subtract(level.total, quantity)
        if not order.remaining:
            del level.orders[order.order_id]
            if not level.orders:
                self._drop(order.side, level)

    def reduce(self, order: Order, quantity: Decimal) -> None:
        """Let a resting order have this total, less than it had and more than is filled; it keeps its place in the queue."""
        level = self._levels[order.side][order.price]
        self._touch(order.side, level)
        less = EXACT.subtract(order.quantity, quantity)
        order.quantity = quantity
        order.remaining = EXACT.subtract(order.remaining, less)
        level.total = EXACT.subtract(level.total, less)

    def take_changes(self) -> list[LevelChange]:
        """The net changes since the last call, in the order in which the levels were first touched.

        One command only takes from a level or only adds to it, but for an amend, which may take an order off a level and put
        more of it back; so what was touched has changed. That order has what was consumed before what came to rest, so even
        a reader who applies one change at a time never holds a crossed book.
        """
        changes = []
        for (side, price), before in self._before.items():
            level = self._levels[side].get(price)
            if level is None:
                changes.append(LevelChange("remove", side, price, ZERO))
            else:
                changes.append(LevelChange("update" if before else "add", side, price, level.total))
        self._before.clear()
        return changes

    def _touch(self, side: Side, level: Level) -> None:
        self._before.setdefault((side, level.price), level.total)

    def _drop(self, side: Side, level: Level) -> None:
        del self._levels[side][level.price]
        prices = self._prices[side]
        del prices[bisect_left(prices, level.price)]


def is_within(side: Side, price: Decimal, limit: Decimal | None) -> bool:
    """Whether a level of `side` at `price` is acceptable to somebody who trades against it up to `limit`."""
    if limit is None:
        return True
    return price >= limit if side is Side.BID else price <= limit
