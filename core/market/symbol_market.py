"""Everything known of one symbol: its book, its trades and statistics, its recent past."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

import msgspec

from core.market.book import OrderBook
from core.market.book_views import BookView, BookViews, step_of
from core.market.candles import Candles
from core.market.history import Entry, History
from core.market.ladder import number_text
from core.market.statistics import Aggressor, AggressorRule, Statistics
from core.market.trade import Trade, TradeTape, seconds_text
from core.messages.events import BookDelta, BookSnapshot, Fill
from core.messages.model import EXACT, Side
from core.messages.times import Times

PublicEvent = Fill | BookSnapshot | BookDelta
# To ask whether something is one takes twice as long with the union.
PUBLIC_EVENTS = (Fill, BookSnapshot, BookDelta)

SNAPSHOT_TRADES = 100
HALF = Decimal("0.5")


def known_or_zero(value: Decimal | None) -> str:
    """A JSON number with every digit; what is unknown is 0."""
    return "0" if value is None else number_text(value)


class News(msgspec.Struct, eq=False, gc=False):
    """One public event, where on the topic it stands, and the trade if it was one.

    And where that stands which came before it, -1 if nothing is known to have: of its symbol, of its symbol's trades if it is
    one, of all symbols of its partition.
    """

    event: PublicEvent
    partition: int
    offset: int
    trade: Trade | None
    previous: int = -1
    previous_trade: int = -1
    previous_of_partition: int = -1


@dataclass(slots=True)
class Described:
    """What was said of a symbol to be kept, as far as the next time need not say it again.

    `changes` is how many levels were told as changes of the book since that was told, the same one each time anew.
    """

    book_at: int
    changes: int
    trade_count: int
    candles: int


class SymbolMarket:
    """One symbol. `partition` is None while nothing but a subscription has asked for it."""

    __slots__ = (
        "_aggressors",
        "_day_text",
        "_state_text",
        "_times",
        "book",
        "candles",
        "described",
        "has_aged",
        "history",
        "listeners",
        "offset",
        "partition",
        "quoted",
        "statistics",
        "symbol",
        "tape",
        "tick",
        "time_ms",
        "trade_at",
        "trade_count",
        "trades",
        "views",
    )

    def __init__(self, symbol: str, tick: Decimal | None, history: History, times: Times) -> None:
        self.symbol = symbol
        self._times = times
        # Trades have left the 24 hours since somebody who tells it last asked.
        self.has_aged = False
        self.tick = tick
        self.history = history
        self.listeners = 0
        self.partition: int | None = None
        self.offset = -1
        self.time_ms = 0
        self.book = OrderBook(symbol)
        self.views = BookViews(self.book.bids, self.book.asks)
        self.statistics = Statistics()
        self.candles = Candles(times.now_ms)
        self._aggressors = AggressorRule()
        self.trades: deque[Trade] = deque(maxlen=SNAPSHOT_TRADES)
        # All there were: `trades` are the last of them. And where the last one is that has come, told or lost.
        self.trade_count = 0
        self.trade_at = -1
        self.tape = TradeTape()
        # None until it is described to be kept, and again when it is another's past that it goes on from.
        self.described: Described | None = None
        self._day_text: str | None = None
        self._state_text: str | None = None
        # The ticker as core.market.quotes has written it of this state.
        self.quoted: str | None = None

    def fold(self, event: PublicEvent, partition: int, offset: int, time_ms: int) -> News:
        """Fold in one event of the symbol. `time_ms` is Kafka's time for it, used where the event has none."""
        trade = None
        previous, previous_trade = self.offset, self.trade_at
        at_ms = event.timestamp_ms or time_ms
        if at_ms > self.time_ms:
            self.time_ms = at_ms
        self.move_on()
        self._state_text = self.quoted = None
        if isinstance(event, Fill):
            trade = self._trade(event, partition, offset)
        elif isinstance(event, BookDelta):
            self.book.apply_delta(event)
        else:
            self.book.apply_snapshot(event)
        self.offset = offset
        self.history.add(Entry(partition, offset, time_ms, self.symbol, event.payload, trade))
        return News(event, partition, offset, trade, previous, previous_trade)

    @property
    def complete_after(self) -> int:
        """Every event of it with a greater offset is in the history. Of what was restored nothing came between its last event and
        where the history begins.
        """
        after = self.history.complete_after
        return self.offset if 0 <= self.offset < after else after

    def has_folded(self, partition: int, offset: int) -> bool:
        """Whether what stands there is a part of what is known."""
        return partition == self.partition and offset <= self.offset

    def move_on(self) -> None:
        """Let the 24 hours end now, by our clock: those of a quiet symbol too are not over when its next event comes."""
        if self.statistics.expire(self._times.now_ms()):
            self.has_aged = True
            self._day_text = self._state_text = self.quoted = None

    def _trade(self, fill: Fill, partition: int, offset: int) -> Trade:
        price, quantity, time_ms = fill.price, fill.quantity, fill.timestamp_ms
        bid, ask = self.book.quote()
        side = self._aggressors.side(fill, bid, ask)
        trade = Trade(price, quantity, side, time_ms, fill.buy_order_id, fill.sell_order_id, partition, offset)
        self.trades.append(trade)
        self.trade_count += 1
        self.trade_at = offset
        value = EXACT.multiply(price, quantity)
        self.statistics.add(price, quantity, value, time_ms)
        self.candles.add(price, quantity, value, time_ms, offset)
        self._day_text = None
        return trade

    def state_text(self) -> str:
        """What every view of the book ends with: totals, time, statistics. Written once an event, however many ask."""
        if self._state_text is None:
            bids, asks = self.book.bids, self.book.asks
            self._state_text = (
                f'"total_bid_amount":{number_text(bids.total)},"total_ask_amount":{number_text(asks.total)},'
                f'"time":{seconds_text(self.time_ms)}{self.day_text()}'
            )
        return self._state_text

    def day_text(self) -> str:
        """The statistics of `state_text`; one and the same object until they change."""
        if self._day_text is None:
            stats = self.statistics
            if stats.last_price is None:
                self._day_text = ""
            else:
                high, low, opened, last = map(known_or_zero, (stats.high, stats.low, stats.open, stats.last_price))
                self._day_text = (
                    f',"stats_24h":{{"high_24h":{high},"low_24h":{low},"volume_24h":{number_text(stats.value)},'
                    f'"open_24h":{opened},"last_price":{last}}}'
                )
        return self._day_text

    def mark(self) -> Decimal | None:
        """The mid of the best bid and ask; of a one-sided or empty book the last price."""
        bid, ask = self.book.best(Side.BID), self.book.best(Side.ASK)
        if bid is not None and ask is not None:
            return EXACT.multiply(EXACT.add(bid[0], ask[0]), HALF)
        return self.statistics.last_price

    def open_view(self, grouping: int | None, depth: int | None) -> BookView:
        """A view of the book. Raises ValueError where a grouping has no tick to be a multiple of."""
        if grouping is None:
            return self.views.open(None, depth)
        if self.tick is None:
            raise ValueError(f"{self.symbol}: grouping needs a configured tick")
        return self.views.open(step_of(self.tick, grouping), depth)

    @property
    def previous_tick(self) -> Aggressor | None:
        """Where the last price that differed from the one before it moved to; the other half of it is `last_price`."""
        return self._aggressors.tick

    def restore(
        self,
        offset: int,
        time_ms: int,
        trades: Iterable[Trade],
        trade_count: int,
        statistics: Statistics,
        previous_tick: Aggressor | None,
        candles: Candles | None = None,
    ) -> None:
        """Be as it was after the event at `offset`, after its book was restored; the 24 hours end now. Without `candles` nothing
        is known of those.
        """
        self.offset = offset
        self.time_ms = time_ms
        self.statistics = statistics
        self.candles = Candles(self._times.now_ms) if candles is None else candles
        self._aggressors = AggressorRule(statistics.last_price, previous_tick)
        self.trades.clear()
        self.trades.extend(trades)
        self.trade_count = trade_count
        self.trade_at = self.trades[-1].offset if self.trades else -1
        self.described = None
        self._day_text = self._state_text = self.quoted = None
        self.move_on()

    def forget(self, history: History) -> None:
        """Its partition is no longer read: be as one that nothing is known of."""
        self.partition = None
        self.history = history
        self.book.forget()
        self.restore(-1, self.time_ms, (), 0, Statistics(), None)
