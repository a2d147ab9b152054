"""One symbol's order book, kept from the notifications of a `book` channel.

The invariant: a book that is not `stale` is what the gateway holds: every change named what it replaces, and that was
there. Such a book is never crossed, and each side is sorted. Whatever does not fit makes it stale until the next snapshot.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from mexchange.models import Level, Side, decimal
from mexchange.subscriptions import Owner, Subscription

# A book without news says so every five seconds (docs/contract.md#quiet-or-dead): after two of them it is distrusted.
QUIET_SECONDS = 10.0
# A book that does not fit is asked for anew no more often than this.
MEND_SECONDS = 5.0


class _Levels:
    """One side. Prices ascend; `sign` is -1 where the highest is the best."""

    __slots__ = ("prices", "quantities")

    def __init__(self) -> None:
        self.prices: list[Decimal] = []
        self.quantities: list[Decimal] = []

    def replace(self, changes: list[list[Any]]) -> None:
        """A snapshot; what it names as gone was forgotten."""
        levels = sorted((decimal(price), decimal(new)) for price, _, new in changes if new)
        self.prices = [price for price, _ in levels]
        self.quantities = [quantity for _, quantity in levels]

    def change(self, changes: list[list[Any]]) -> bool:
        """Whether each fits what is held."""
        prices, quantities = self.prices, self.quantities
        for price, old, new in changes:
            at = bisect_left(prices, price)
            if at < len(prices) and prices[at] == price:
                if quantities[at] != old:
                    return False
                if new:
                    quantities[at] = decimal(new)
                else:
                    del prices[at], quantities[at]
            elif old or not new:
                return False
            else:
                prices.insert(at, decimal(price))
                quantities.insert(at, decimal(new))
        return True


class Book(Subscription):
    """A live book. Iterated over, it gives itself after each change, also when it becomes stale: what comes while the
    program is busy is one change, so a slow program sees the newest book and never an old one.

    Attributes:
        symbol: whose book it is.
        seq: offset of the last record in it, and `epoch` the topic's life; -1 before the first snapshot.
        time: of the last change, seconds.
        total_bid_amount: of the whole side, beyond the depth too; so is `total_ask_amount`.
        mended: how often it did not fit what came, and was asked for anew.
    """

    def __init__(self, owner: Owner, channel: str, symbol: str, clock: Callable[[], float]) -> None:
        super().__init__(owner, channel)
        self.symbol = symbol
        self.epoch: str | None = None
        self.seq = -1
        self.time = self.total_bid_amount = self.total_ask_amount = Decimal(0)
        self.mended = 0
        self._bids, self._asks = _Levels(), _Levels()
        self._clock = clock
        self._heard_at = clock()
        self._mended_at = float("-inf")
        self._is_right = False
        self._news = asyncio.Event()

    @property
    def stale(self) -> bool:
        """Not to be traded on: not there yet, cut off, not fitting, said to be so, or silent for ten seconds."""
        return not self._is_right or not self.is_wanted or self.is_quiet()

    @property
    def bids(self) -> list[Level]:
        """Best first. Those of a stale book are the last that were known."""
        return [*map(Level, reversed(self._bids.prices), reversed(self._bids.quantities))]

    @property
    def asks(self) -> list[Level]:
        """Best first."""
        return [*map(Level, self._asks.prices, self._asks.quantities)]

    @property
    def best_bid(self) -> Level | None:
        return Level(self._bids.prices[-1], self._bids.quantities[-1]) if self._bids.prices else None

    @property
    def best_ask(self) -> Level | None:
        return Level(self._asks.prices[0], self._asks.quantities[0]) if self._asks.prices else None

    def quantity_at(self, side: Side, price: Decimal) -> Decimal:
        """What rests there; 0 where nothing does."""
        levels = self._bids if side == "bid" else self._asks
        at = bisect_left(levels.prices, price)
        return levels.quantities[at] if at < len(levels.prices) and levels.prices[at] == price else Decimal(0)

    def is_quiet(self) -> bool:
        """Nothing, not even a heartbeat, came of it for too long."""
        return self._is_right and self._clock() - self._heard_at > QUIET_SECONDS

    async def changed(self) -> Book:
        """Waits for the next change. Raises what ended the subscription, if something did."""
        while not self._news.is_set():
            self._raise_if_over()
            await self._news.wait()
        self._news.clear()
        self._raise_if_over()
        return self

    async def live(self) -> Book:
        """Waits until it is not stale."""
        while self.stale:
            await self.changed()
        return self

    async def _next(self) -> Book:
        return await self.changed()

    # What the connection calls

    def take(self, message: dict[str, Any]) -> None:
        self._heard_at = self._clock()
        told = message["notification"]
        if "stale" in told:
            self._distrust()
            return
        bids, asks = told["bid_changes"], told["ask_changes"]
        if "snapshot" in told:
            self._bids.replace(bids)
            self._asks.replace(asks)
            self.epoch = message.get("epoch", self.epoch)
            self._is_right = True
        elif not self._is_right:
            return
        elif not (self._bids.change(bids) and self._asks.change(asks)):
            self._mend()
            return
        if self._bids.prices and self._asks.prices and self._bids.prices[-1] >= self._asks.prices[0]:
            self._mend()
            return
        self.seq = message["seq"]
        if bids or asks or "snapshot" in told:
            self.time = decimal(told["time"])
            self.total_bid_amount = decimal(told["total_bid_amount"])
            self.total_ask_amount = decimal(told["total_ask_amount"])
            self._news.set()

    def on_lost(self) -> None:
        self._distrust()

    def _wake(self) -> None:
        self._news.set()

    def _distrust(self) -> None:
        if self._is_right:
            self._is_right = False
            self._news.set()

    def _mend(self) -> None:
        self._distrust()
        self.mended += 1
        wait = max(0.0, self._mended_at + MEND_SECONDS - self._clock())
        self._mended_at = self._clock() + wait
        self._rejoin(wait)
