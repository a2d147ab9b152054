"""What is kept of the market, symbol by symbol: written as it changes, and taken back by an instance that begins.

A symbol of market partition p is kept on state partition p. All its records of one piece are of one moment:

    symbol/<S>         always: after which offset it is so, and what is small
    book/<S>           the whole book, as it was after the offset that it names
    changes/<S>        the levels that changed since then; gone when the book is written anew
    trades/<S>/<page>  the last 100 trades, ten a page, by their running number
    day/<S>/<page>     the 24 hours, a quarter of an hour a page (core/market/statistics.py)
    candle/<S>         the candles that are under way (core/market/candles.py)
    candles/<S>/<page> those that have ended, ten pages an interval, packed

Numbers with decimals are strings, in lists where there are many of them: a level is [price, quantity].
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from core.market.candle_series import CandlePage
from core.market.candles import CANDLE_PAGES, Candles, KeptCandles
from core.market.ladder import Ladder
from core.market.market import Market
from core.market.statistics import PAGES, Aggressor, DayPage, Statistics
from core.market.symbol_market import SNAPSHOT_TRADES, Described, SymbolMarket
from core.market.trade import Trade
from core.messages.events import Level
from core.messages.kept_state import Cursor, KeptRecord
from core.messages.model import ZERO, Side, is_symbol

# A level told as a change costs as much as two of a book told whole. As soon as as much was spent on changes as the book would
# have cost, it is told anew: never more than twice the least, however it changes.
CHANGE_COST: Final = 2
FEW_LEVELS: Final = 64
TRADES_A_PAGE: Final = 10
# One more than the last trades fill: they seldom begin where a page does.
TRADE_PAGES: Final = SNAPSHOT_TRADES // TRADES_A_PAGE + 1


class _Head(msgspec.Struct, frozen=True):
    """`symbol/<S>`: as it was after the event at offset `at` of its partition.

    `trades` is how many there were; `day_since_ms` where the oldest bucket of the day starts, and `day_width_ms` how wide they are.
    """

    at: int
    time_ms: int
    sequence: int | None
    book_known: bool
    book_stale: bool
    trades: int
    last_price: Decimal | None
    previous_tick: Aggressor | None
    day_since_ms: int | None
    day_width_ms: int


class _Book(msgspec.Struct, frozen=True):
    """`book/<S>`: every level, best first, as they were after the event at offset `at`."""

    at: int
    bids: list[Level]
    asks: list[Level]


class _Changes(msgspec.Struct, frozen=True):
    """`changes/<S>`: each level that has changed in the book that was written at `since`; a quantity of 0 is one that is gone."""

    since: int
    bids: list[Level]
    asks: list[Level]


class _Trade(msgspec.Struct, frozen=True):
    price: Decimal
    quantity: Decimal
    side: Aggressor
    timestamp_ms: int
    buy_order_id: str
    sell_order_id: str
    # Of its record. None where it was written by a gateway that did not tell: then nobody knows the trade's name.
    offset: int | None = None


class _TradePage(msgspec.Struct, frozen=True):
    """`trades/<S>/<page>`: trades in a row, and the running number of the first, counted from 0."""

    first: int
    trades: list[_Trade]


class _Sides(NamedTuple):
    """A book that was taken back."""

    at: int
    bids: Ladder
    asks: Ladder


class _Parts:
    """What was taken back of one symbol, under the first parts of its keys."""

    __slots__ = ("book", "candle", "candles", "changes", "day", "symbol", "trades")

    def __init__(self) -> None:
        self.symbol: _Head | None = None
        self.book: _Sides | None = None
        self.changes: _Changes | None = None
        self.trades: dict[int, _TradePage] = {}
        self.day: dict[int, DayPage] = {}
        self.candle: KeptCandles | None = None
        self.candles: dict[int, CandlePage] = {}


class _Restored(NamedTuple):
    """The same put together."""

    head: _Head
    book: _Sides
    trades: list[Trade]
    statistics: Statistics
    candles: Candles


_decode_book = msgspec.json.Decoder(_Book).decode


def _read_book(value: bytes) -> _Sides:
    # Here and not when all is there: it is most of the work, and whoever takes back does it little by little.
    book = _decode_book(value)
    return _Sides(book.at, Ladder(Side.BID, book.bids), Ladder(Side.ASK, book.asks))


_encode = msgspec.json.Encoder().encode
# By the first part of the key: what reads it, how many pages there are (None: it is one record), and where it goes.
_KINDS: Final[dict[str, tuple[Callable[[bytes], Any], int | None]]] = {
    "symbol": (msgspec.json.Decoder(_Head).decode, None),
    "book": (_read_book, None),
    "changes": (msgspec.json.Decoder(_Changes).decode, None),
    "trades": (msgspec.json.Decoder(_TradePage).decode, TRADE_PAGES),
    "day": (msgspec.json.Decoder(DayPage).decode, PAGES),
    "candle": (msgspec.json.Decoder(KeptCandles).decode, None),
    "candles": (msgspec.json.Decoder(CandlePage).decode, CANDLE_PAGES),
}


class MarketState:
    """The kept state of a `Market` (core.messages.kept_state.KeptState); its journal is the market's, and names symbols."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self.journal = market.journal
        self._taken: dict[int, dict[str, _Parts]] = {}
        # By partition, symbols that have records there, or may have.
        self._kept: dict[int, set[str]] = {}

    def cut(self, partition: int, keys: set[str] | None, *, is_whole: bool) -> Generator[list[KeptRecord], None, None]:
        """As of KeptState; a piece is a symbol. One that no longer lives on the partition is forgotten there.

        Raises LookupError, also from the iterator, if the partition is not read: then nobody knows what lives on it.
        """
        kept = self._kept.setdefault(partition, set())
        self._demand_read(partition)
        living = {market.symbol: market for market in self._market.on({partition})}
        if is_whole:
            # What is kept of the others may have been written by somebody else since they were described here.
            for market in living.values():
                market.described = None
        symbols = kept.union(living) if keys is None else keys
        kept |= symbols
        return self._pieces(partition, sorted(symbols), living, is_whole)

    def _pieces(
        self, partition: int, symbols: list[str], living: dict[str, SymbolMarket], is_whole: bool
    ) -> Generator[list[KeptRecord], None, None]:
        for symbol in symbols:
            self._demand_read(partition)
            market = living.get(symbol)
            if market is not None and market.partition is None:
                raise LookupError(f"partition {partition} was lost while it was described")
            if market is None or market.partition != partition:
                yield [KeptRecord(key, None) for key in _keys_of(symbol)]
            else:
                yield _described(market, is_whole)

    def _demand_read(self, partition: int) -> None:
        if partition not in self._market.partitions.folded:
            raise LookupError(f"partition {partition} is not read")

    def take_back(self, partition: int, key: str, value: bytes | None) -> None:
        """As of KeptState."""
        kind, symbol, page = _read_key(key)
        symbols = self._taken.setdefault(partition, {})
        parts = symbols.get(symbol)
        if parts is None:
            parts = symbols[symbol] = _Parts()
            self._kept.setdefault(partition, set()).add(symbol)
        part = None
        if value is not None:
            with _of(key):
                part = _KINDS[kind][0](value)
        if page is None:
            setattr(parts, kind, part)
        elif part is None:
            getattr(parts, kind).pop(page, None)
        else:
            getattr(parts, kind)[page] = part

    def discard(self, partition: int) -> None:
        """As of KeptState; what was resumed is no longer taken back, but known."""
        self._taken.pop(partition, None)

    def resume(self, cursors: Mapping[int, Cursor]) -> None:
        """As of KeptState. Raises ValueError, and changes nothing, if something taken back of these contradicts itself."""
        restored = [
            (
                partition,
                cursor,
                symbol,
                _put_together(symbol, partition, parts.symbol, parts, self._market.new_candles()),
            )
            for partition, cursor in cursors.items()
            for symbol, parts in self._taken.get(partition, {}).items()
            if parts.symbol is not None
        ]
        for partition in cursors:
            self._taken.pop(partition, None)
        for partition, cursor, symbol, known in restored:
            head = known.head
            market = self._market.settle(symbol, partition, max(head.at, cursor.market - 1))
            market.book.restore(*known.book[1:], head.sequence, known=head.book_known, stale=head.book_stale)
            market.restore(
                head.at,
                head.time_ms,
                known.trades,
                head.trades,
                known.statistics,
                head.previous_tick,
                known.candles,
            )


def _read_key(key: str) -> tuple[str, str, int | None]:
    kind, _, rest = key.partition("/")
    if kind not in _KINDS:
        raise ValueError(f"{key}: not a key of the market")
    pages = _KINDS[kind][1]
    symbol, page = rest, None
    if pages is not None:
        symbol, _, digits = rest.rpartition("/")
        page = int(digits) if digits.isdecimal() else pages
        if page >= pages:
            raise ValueError(f"{key}: expected a page below {pages}")
    if not is_symbol(symbol):
        raise ValueError(f"{key}: expected a symbol")
    return kind, symbol, page


def _keys_of(symbol: str) -> Iterator[str]:
    for kind, (_, pages) in _KINDS.items():
        if pages is None:
            yield f"{kind}/{symbol}"
        else:
            yield from (f"{kind}/{symbol}/{page}" for page in range(pages))


# Writing.


def _described(market: SymbolMarket, is_whole: bool) -> list[KeptRecord]:
    before = None if is_whole else market.described
    statistics, book = market.statistics, market.book
    head = _Head(
        market.offset,
        market.time_ms,
        book.sequence,
        book.known,
        book.stale,
        market.trade_count,
        statistics.last_price,
        market.previous_tick,
        statistics.since_ms,
        statistics.width_ms,
    )
    symbol = market.symbol
    records = [KeptRecord(f"symbol/{symbol}", _encode(head))]
    candles = market.candles
    described = Described(-1, 0, market.trade_count, candles.revision)
    records += _book_records(market, before, described)
    for number, trades in _trade_pages(market, before):
        records.append(KeptRecord(f"trades/{symbol}/{number}", _encode(trades) if trades else None))
    for number, page in statistics.take_pages(everything=before is None).items():
        records.append(KeptRecord(f"day/{symbol}/{number}", _encode(page) if page else None))
    if before is None or before.candles != candles.revision:
        under_way = candles.kept()
        records.append(KeptRecord(f"candle/{symbol}", _encode(under_way) if under_way else None))
    for number, ended in candles.take_pages(everything=before is None).items():
        records.append(KeptRecord(f"candles/{symbol}/{number}", _encode(ended) if ended else None))
    market.described = described
    return records


def _book_records(market: SymbolMarket, before: Described | None, described: Described) -> Iterator[KeptRecord]:
    """The book, or what changed in it since it was written; `described` is to say so."""
    symbol, bids, asks = market.symbol, market.book.bids, market.book.asks
    if before is not None and bids.changed is not None and asks.changed is not None:
        described.book_at, described.changes = before.book_at, before.changes
        if not (bids.changed or asks.changed):
            return
        described.changes += len(bids.changed) + len(asks.changed)
        if described.changes * CHANGE_COST <= len(bids) + len(asks) + FEW_LEVELS:
            changes = _Changes(before.book_at, bids.changed_levels(), asks.changed_levels())
            yield KeptRecord(f"changes/{symbol}", _encode(changes))
            return
    described.book_at, described.changes = market.offset, 0
    bids.note_changes()
    asks.note_changes()
    known = _encode(_Book(market.offset, bids.levels(), asks.levels())) if market.book.known else None
    yield KeptRecord(f"book/{symbol}", known)
    if before is None or before.changes:
        yield KeptRecord(f"changes/{symbol}", None)


def _trade_pages(market: SymbolMarket, before: Described | None) -> Iterator[tuple[int, _TradePage | None]]:
    """The pages that have new trades; of a first description all, None for one that has none."""
    trades, count = market.trades, market.trade_count
    oldest = count - len(trades)
    new = oldest if before is None else max(before.trade_count, oldest)
    pages: dict[int, _TradePage | None] = dict.fromkeys(range(TRADE_PAGES)) if before is None else {}
    for start in range(new - new % TRADES_A_PAGE if new < count else count, count, TRADES_A_PAGE):
        first = max(start, oldest)
        rows = [trades[number - oldest] for number in range(first, min(start + TRADES_A_PAGE, count))]
        pages[start // TRADES_A_PAGE % TRADE_PAGES] = _TradePage(
            first,
            [
                _Trade(
                    t.price,
                    t.quantity,
                    t.side,
                    t.timestamp_ms,
                    t.buy_order_id,
                    t.sell_order_id,
                    None if t.offset < 0 else t.offset,
                )
                for t in rows
            ],
        )
    return iter(pages.items())


# Taking back.


@contextmanager
def _of(key: str) -> Iterator[None]:
    """Whatever cannot be is a ValueError that names the key."""
    try:
        yield
    except (msgspec.DecodeError, ValueError, TypeError, ArithmeticError) as error:
        # The last two: NaN has no place in an order, and a huge number no exact sum.
        raise ValueError(f"{key}: {error}") from error


def _put_together(symbol: str, partition: int, head: _Head, parts: _Parts, candles: Candles) -> _Restored:
    with _of(f"symbol/{symbol}"):
        if head.at < 0 or head.trades < 0:
            raise ValueError("at, trades: expected 0 or more")
        if head.book_known and head.sequence is None:
            raise ValueError("sequence: expected that of the book")
        if (head.trades > 0) != (head.last_price is not None):
            raise ValueError("last_price: expected that of the last trade, if there is one")
    book = parts.book if head.book_known else _Sides(-1, Ladder(Side.BID), Ladder(Side.ASK))
    with _of(f"book/{symbol}"):
        if book is None:
            raise ValueError("there is none")
        if head.book_known and parts.changes is not None:
            _change(book, parts.changes)
        _check(book, head.book_stale)
    with _of(f"trades/{symbol}"):
        trades = _trades(head, partition, parts.trades.values())
    with _of(f"day/{symbol}"):
        statistics = Statistics()
        statistics.restore(parts.day.values(), head.day_since_ms, head.day_width_ms, head.last_price)
    with _of(f"candle/{symbol}"):
        # Of version 1 there are none: then they begin with what is read now.
        if parts.candle is not None:
            candles.restore(parts.candle, parts.candles)
        elif parts.candles:
            raise ValueError("there is none, and there are candles that have ended")
    return _Restored(head, book, trades, statistics, candles)


def _change(book: _Sides, changes: _Changes) -> None:
    if changes.since != book.at:
        raise ValueError(f"at: expected that which the changes are since, {changes.since}, got {book.at}")
    for ladder, levels in ((book.bids, changes.bids), (book.asks, changes.asks)):
        for price, quantity in levels:
            ladder.put(price, ZERO)  # 1.0 may have become 1.00
            ladder.put(price, quantity)


def _check(book: _Sides, is_stale: bool) -> None:
    for side in (book.bids, book.asks):
        if side.prices and not (
            side.prices[0] > ZERO
            and side.prices[-1].is_finite()
            and min(side.quantities.values()) > ZERO
            and side.total.is_finite()
        ):
            raise ValueError(f"{side.side}s: expected prices and quantities above 0")
    best_bid, best_ask = book.bids.best(), book.asks.best()
    if best_bid and best_ask and best_bid[0] >= best_ask[0] and not is_stale:
        raise ValueError("bids, asks: the book is crossed")


def _trades(head: _Head, partition: int, pages: Iterable[_TradePage]) -> list[Trade]:
    count = head.trades
    oldest = max(count - SNAPSHOT_TRADES, 0)
    found = {
        number: trade
        for page in pages
        for number, trade in enumerate(page.trades, page.first)
        if oldest <= number < count
    }
    if len(found) != count - oldest:
        raise ValueError(f"expected the trades from {oldest} on, before {count}")
    trades = [found[number] for number in range(oldest, count)]
    if not all(trade.price.is_finite() and trade.quantity.is_finite() for trade in trades):
        raise ValueError("price, quantity: expected numbers")
    offsets = [-1 if trade.offset is None else trade.offset for trade in trades]
    # Those of which it is not known are older than all of which it is: they came before whoever tells it.
    named = [offset for offset in offsets if offset != -1]
    if offsets[len(offsets) - len(named) :] != sorted(set(named)) or not all(
        0 <= offset <= head.at for offset in named
    ):
        raise ValueError(f"offset: expected them to ascend, from 0 to at most {head.at}")
    return [
        Trade(t.price, t.quantity, t.side, t.timestamp_ms, t.buy_order_id, t.sell_order_id, partition, offset)
        for t, offset in zip(trades, offsets, strict=True)
    ]
