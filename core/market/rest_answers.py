"""What is known of a symbol's market as it is told over REST: JSON texts, every decimal a string with all its digits."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Final

from core.market.book import OrderBook
from core.market.book_views import rounded
from core.market.ladder import shortest
from core.market.statistics import Statistics
from core.market.symbol_market import SymbolMarket, known_or_zero
from core.market.trade import seconds_text
from core.messages.events import Level
from core.messages.model import EXACT, ZERO, Side, decimal_text

_add = EXACT.add
_NO_LEVEL: Final = (None, None)
_UNWRITTEN: Final = (None, "")


def levels_text(levels: Collection[Level]) -> str:
    """`["price","quantity"],...` without brackets, in their order; none of them 0."""
    text = ",".join([f'["{price!s}","{quantity!s}"]' for price, quantity in levels])
    if "E" not in text:  # half the cost of writing each in plain notation, and the same but for very small ones
        return text
    return ",".join([f'["{decimal_text(price)}","{decimal_text(quantity)}"]' for price, quantity in levels])


class LevelTexts:
    """`levels_text` of one side again and again: a level is written anew when it has another quantity than the last time."""

    __slots__ = ("_written",)

    def __init__(self) -> None:
        self._written: dict[Decimal, tuple[Decimal | None, str]] = {}

    def text(self, levels: Collection[Level]) -> str:
        """See `levels_text`. What is kept of earlier ones is no more than a third beyond these."""
        find, write = self._written.get, self._write
        # Each change of a level has an object of its own for its quantity: to compare those costs less than numbers do.
        texts = [
            known[1] if (known := find(price, _UNWRITTEN))[0] is quantity else write(price, quantity)
            for price, quantity in levels
        ]
        if 3 * len(self._written) > 4 * len(levels):
            self._written = {price: self._written[price] for price, _ in levels}
        return ",".join(texts)

    def _write(self, price: Decimal, quantity: Decimal) -> str:
        text = levels_text([(price, quantity)])
        self._written[price] = quantity, text
        return text


def add_to_steps(sums: dict[Decimal, Decimal], side: Side, levels: Iterable[Level], step: Decimal) -> None:
    """Sum levels, best first, into steps of a price each; new ones are behind the others."""
    for price, quantity in levels:
        at = rounded(side, price, step)
        sums[at] = _add(sums.get(at, ZERO), quantity)


def step_levels(sums: dict[Decimal, Decimal]) -> list[Level]:
    """The same as levels, each sum in its shortest form."""
    return [(price, shortest(total)) for price, total in sums.items()]


def ticker_text(market: SymbolMarket, is_fresh: bool) -> str:
    """The members of a ticker as of now, without braces; where it is not what is now, all of them are "0" but the time."""
    market.move_on()
    stats, book = (market.statistics, market.book) if is_fresh else (Statistics(), OrderBook(market.symbol))
    (bid_price, bid_amount), (ask_price, ask_amount) = (book.best(side) or _NO_LEVEL for side in (Side.BID, Side.ASK))
    told = {
        "mark_price": market.mark() if is_fresh else None,
        "best_bid_price": bid_price,
        "best_bid_amount": bid_amount,
        "best_ask_price": ask_price,
        "best_ask_amount": ask_amount,
        "last_price": stats.last_price,
        "volume_24h": stats.volume,
        "value_24h": stats.value,
        "low_price_24h": stats.low,
        "high_price_24h": stats.high,
        "change_24h": stats.change,
    }
    members = ",".join([f'"{name}":"{known_or_zero(value)}"' for name, value in told.items()])
    return f'{members},"mark_timestamp":{seconds_text(market.time_ms)},"stale":{"false" if is_fresh else "true"}'
