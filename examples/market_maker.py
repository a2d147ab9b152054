"""Quotes both sides of a book, and never leaves quotes behind: python examples/market_maker.py URL TOKEN SYMBOL [ROUNDS]"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from decimal import ROUND_DOWN, Decimal

from mexchange import Ack, Book, Cancel, Exchange, Place, Side

QUANTITY = Decimal("0.5")
# Half of the spread, as a part of the price.
HALF = Decimal("0.02")
# The gateway cancels everything unless it hears of this program again within so many seconds, whatever dies meanwhile.
DEAD_MAN_SECONDS = 10


class MarketMaker:
    def __init__(self, exchange: Exchange, symbol: str, tick: Decimal) -> None:
        self._exchange = exchange
        self._symbol = symbol
        self._tick = tick
        self._quotes: dict[Side, tuple[Decimal, str]] = {}

    async def requote(self, book: Book) -> None:
        """One batch: what is wrong is cancelled, what is missing placed. A stale book is not quoted on."""
        if book.stale or book.best_bid is None or book.best_ask is None:
            await self._exchange.cancel_all(self._symbol)
            self._quotes.clear()
            return
        mid = (book.best_bid.price + book.best_ask.price) / 2
        wanted: dict[Side, Decimal] = {"bid": self._on_tick(mid * (1 - HALF)), "ask": self._on_tick(mid * (1 + HALF))}
        moved = [side for side, price in wanted.items() if self._quotes.get(side, (None, ""))[0] != price]
        if not moved:
            return
        cancels = [Cancel(order_id=self._quotes.pop(side)[1]) for side in moved if side in self._quotes]
        places = [Place(symbol=self._symbol, side=side, quantity=QUANTITY, price=wanted[side]) for side in moved]
        results = await self._exchange.batch([*cancels, *places])
        for order, outcome in zip(places, results[len(cancels) :], strict=True):
            if isinstance(outcome, Ack):
                self._quotes[order.side] = (wanted[order.side], outcome.order_id)
                print(f"{order.side} {QUANTITY} @ {wanted[order.side]}")
            else:
                print(f"{order.side}: {outcome}")

    def _on_tick(self, price: Decimal) -> Decimal:
        return (price / self._tick).to_integral_value(ROUND_DOWN) * self._tick


async def stay_alive(exchange: Exchange) -> None:
    while True:
        await exchange.cancel_all_after(DEAD_MAN_SECONDS)
        await asyncio.sleep(DEAD_MAN_SECONDS / 3)


async def main(url: str, token: str, symbol: str, rounds: int | None = None) -> None:
    async with Exchange(url, token=token) as exchange:
        listed = (await exchange.instruments())["instruments"]
        tick = Decimal(next(one["tick"] for one in listed if one["symbol"] == symbol) or "0.01")
        await exchange.cancel_all(symbol)  # whatever an earlier run has left
        alive = asyncio.create_task(stay_alive(exchange))
        maker = MarketMaker(exchange, symbol, tick)
        try:
            async for book in exchange.book(symbol, depth=1, interval="500ms"):
                await maker.requote(book)
                rounds = None if rounds is None else rounds - 1
                if rounds == 0:
                    break
        finally:
            alive.cancel()
            await exchange.cancel_all(symbol)
            await exchange.cancel_all_after(0)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:5])))
