"""`GET /api/candles` (docs/contract.md#market-data)."""

from __future__ import annotations

import json
from typing import Any, Final

from core.market.candle_series import MOST_CANDLES
from core.market.candles import CANDLE_INTERVALS_MS
from core.messages.query import MAX_WHOLE_DIGITS, one_of, read_symbol, whole_number
from handlers.market_data import MarketData, MarketDataHandler
from handlers.problems import Context

# Where nobody says which, and how many.
DEFAULT_INTERVAL: Final = "1m"
DEFAULT_LIMIT: Final = 500

_read_interval = one_of({interval: interval for interval in CANDLE_INTERVALS_MS})
_read_time = whole_number(0, 10**MAX_WHOLE_DIGITS - 1)
_read_limit = whole_number(1, MOST_CANDLES)


class CandlesHandler(MarketDataHandler):
    """Written in one go: as many as there may be take some milliseconds."""

    def get(self) -> None:
        """A symbol's candles of one interval, oldest first, as of its last fill and our clock."""
        query = self.query()
        symbol = query.need("symbol", read_symbol)
        interval = query.take("interval", _read_interval, DEFAULT_INTERVAL)
        start_ms, end_ms = query.take_range(_read_time)
        limit = query.take("limit", _read_limit, DEFAULT_LIMIT)
        self.checked(query)
        market = self.symbol_market(symbol)
        candles = market.candles
        is_stale = market.partition in self.data.market.partitions.unread
        # Without a fill only the clock changes something: it adds periods, and ends those that are told. How far back they go is
        # not the same on every instance.
        width_ms = CANDLE_INTERVALS_MS[interval]
        period = candles.now_ms() // width_ms
        if end_ms is not None:
            period = min(period, end_ms // width_ms + 1)
        known = f"{self.data.epoch()}-{candles.revision}-{candles.oldest_ms(interval)}"
        if self.is_held(f"{known}-{period}-{'stale' if is_stale else 'live'}"):
            return
        rows = candles.rows(interval, start_ms=start_ms, end_ms=end_ms, limit=limit)
        self.answer_cached(
            f'{{"symbol":"{symbol}","interval":"{interval}","epoch":{json.dumps(self.data.epoch())},'
            f'"seq":{candles.revision},"candles":[{",".join(rows)}],"stale":{"true" if is_stale else "false"}}}'
        )

    head = get


def routes(context: Context, data: MarketData) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    return [(r"/api/candles", CandlesHandler, {"context": context, "data": data})]
