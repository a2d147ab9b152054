"""A market with what is kept of it, and all that can be seen of a symbol, to be compared."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from core.market.candle_series import MOST_CANDLES
from core.market.candles import CANDLE_INTERVALS_MS
from core.market.market import Market
from core.market.state import MarketState
from core.market.symbol_market import SymbolMarket
from core.messages.events import Event
from core.messages.kept_state import VERSION, Cursor, KeptRecord
from core.messages.model import Side, decimal_text
from core.messages.times import Times

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
DAY = ("high", "low", "open", "volume", "value", "change", "last_price", "width_ms")


def cursor(market: int) -> Cursor:
    return Cursor(
        version=VERSION,
        market_epoch="market life",
        order_epoch="order life",
        market=market,
        events={},
        orders={},
        known_since_ms=None,
        time_ms=NOW_MS,
    )


class Kept:
    """A market with its state, and the clock of both."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms
        self.heard: list[tuple[Event, int, int, int]] = []
        self.stale: list[tuple[str, str]] = []
        self.poisoned: list[int] = []
        self.market = Market(
            on_poisoned=lambda _poison, _partition, offset: self.poisoned.append(offset),
            on_event=lambda *heard: self.heard.append(heard),
            on_stale=lambda *told: self.stale.append(told),
            times=Times(lambda: (self.now_ms + 0.5) / 1000),
        )
        self.state = MarketState(self.market)

    def fold(self, *records: bytes, first: int = 0, partition: int = 0) -> None:
        for offset, record in enumerate(records, first):
            self.market.fold(partition, offset, record, self.now_ms)

    def cut(self, keys: set[str] | None = None, is_whole: bool = False, partition: int = 0) -> list[KeptRecord]:
        return [record for piece in self.state.cut(partition, keys, is_whole=is_whole) for record in piece]

    def restore(self, records: Iterable[KeptRecord], next_offset: int, partition: int = 0) -> None:
        for record in records:
            self.state.take_back(partition, *record)
        self.state.resume({partition: cursor(next_offset)})


def restored(records: Iterable[KeptRecord], next_offset: int, now_ms: int = NOW_MS) -> Kept:
    kept = Kept(now_ms)
    kept.restore(records, next_offset)
    return kept


def compacted(records: Iterable[KeptRecord]) -> list[KeptRecord]:
    return [KeptRecord(*item) for item in dict(records).items()]


def values(records: Iterable[KeptRecord]) -> dict[str, Any]:
    return {key: None if value is None else json.loads(value) for key, value in records}


def written(records: Iterable[KeptRecord]) -> list[str]:
    """The keys that have a value."""
    return [key for key, value in records if value is not None]


def levels(market: SymbolMarket) -> dict[str, list[tuple[str, str]]]:
    return {
        side: [(decimal_text(price), decimal_text(quantity)) for price, quantity in market.book.levels(side)]
        for side in Side
    }


def visible(market: SymbolMarket) -> dict[str, Any]:
    """All that can be told of a symbol now, down to the digits."""
    market.move_on()
    stats, book = market.statistics, market.book
    view = market.open_view(None, 5)
    view.take()
    window = view.snapshot()
    market.views.close(view)
    return {
        "place": (market.partition, market.offset, market.time_ms),
        "book": (levels(market), book.sequence, book.known, book.stale, str(market.mark())),
        "snapshot": book.snapshot_event() if book.known else None,
        "day": [str(getattr(stats, name)) for name in DAY],
        "buckets": (len(stats), stats.since_ms),
        "trades": [(trade.as_tuple(), trade.as_object()) for trade in market.trades],
        "trade count": market.trade_count,
        "candles": [
            [market.candles.rows(interval, limit=limit) for limit in (3, MOST_CANDLES)]
            for interval in CANDLE_INTERVALS_MS
        ],
        "candles' revision": market.candles.revision,
        "tick": market.previous_tick,
        "text": market.state_text(),
        "view": [[tuple(map(str, row)) for row in side] for side in window],
    }
