"""Everything known of the market, folded from the market topic record by record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from decimal import Decimal

from core.errors import PoisonedRecord
from core.market.book import OrderBook
from core.market.candles import Candles
from core.market.history import History
from core.market.partitions import Partitions
from core.market.symbol_market import PUBLIC_EVENTS, News, PublicEvent, SymbolMarket
from core.messages.events import Event, Fill, read_event
from core.messages.kept_state import Journal
from core.messages.times import Times

log = logging.getLogger("gateway.market")


def _log_failed(error: Exception, partition: int, offset: int) -> None:
    log.error("partition %d offset %d could not be folded in", partition, offset, exc_info=error)


class Market:
    """Every symbol seen, the partition each lives on, and the partitions' own lives.

    A symbol lives on the partition of its last event: records are keyed by symbol, so that changes only with the number
    of partitions.
    """

    def __init__(
        self,
        on_poisoned: Callable[[PoisonedRecord, int, int], None],
        on_event: Callable[[Event, int, int, int], None],
        on_stale: Callable[[str, str], None],
        *,
        on_failed: Callable[[Exception, int, int], None] = _log_failed,
        times: Times | None = None,
        tick_of: Callable[[str], Decimal | None] = lambda _symbol: None,
        history_records: int = 10_000,
        history_seconds: float = 3600.0,
    ) -> None:
        """`on_event` is told each event with its partition, offset and time; `on_stale` a symbol whose book cannot be
        trusted until the next snapshot, and why; `on_failed` of a record that met a fault of ours, with partition and offset.
        """
        self._on_poisoned = on_poisoned
        self._on_event = on_event
        self._on_stale = on_stale
        self._on_failed = on_failed
        self._times = times or Times()
        self._tick_of = tick_of
        self._history_records = history_records
        self._history_seconds = history_seconds
        self._markets: dict[str, SymbolMarket] = {}
        # By partition, the last offset of a public event that was folded in, or was to be.
        self._public_to: dict[int, int] = {}
        self.partitions = Partitions()
        # Symbols, by the partition they live on.
        self.journal = Journal()

    def fold(self, partition: int, offset: int, value: bytes | None, time_ms: int = 0) -> News | None:
        """Fold in one record; return what everyone may see of it. A poisoned record is reported and skipped. `time_ms` is
        what is taken for Kafka's time of it. An event that is a part already of what was restored of its symbol is told to
        `on_event`, and not folded again.

        Raises nothing: whatever fails costs this record, and no other. What is done with a symbol's market and what
        `on_event` does are apart: neither costs the other the record.
        """
        self.partitions.folded[partition] = offset
        event: Event | None = None
        try:
            event = self._read(partition, offset, value, time_ms)
            return self._fold(event, partition, offset, time_ms) if isinstance(event, PUBLIC_EVENTS) else None
        except Exception as error:
            self._on_failed(error, partition, offset)
        if isinstance(event, PUBLIC_EVENTS):
            self._give_up(event, partition, offset)
        return None

    def _give_up(self, event: PublicEvent, partition: int, offset: int) -> None:
        """An event is lost: the history has nothing of before it (the bus has), and a book that it changed is distrusted."""
        self._public_to[partition] = max(offset, self._public_to.get(partition, -1))
        market = self._markets.get(event.symbol)
        if market is not None and market.partition == partition:
            market.history = History(self._history_records, self._history_seconds, offset)
            market.offset = offset  # as far as it got, it is a part of what is known
        if isinstance(event, Fill):
            if market is not None:
                market.trade_at = offset
            return
        try:
            self._distrust(event.symbol, "failed")
        except Exception as error:
            self._on_failed(error, partition, offset)

    def _read(self, partition: int, offset: int, value: bytes | None, time_ms: int) -> Event | None:
        try:
            event = self._times.in_event(read_event(value), time_ms)
        except PoisonedRecord as poison:
            market = None if poison.symbol is None else self._markets.get(poison.symbol)
            if market is not None and not market.has_folded(partition, offset):
                self._distrust(market.symbol, "malformed")
            self._on_poisoned(poison, partition, offset)
            return None
        try:
            self._on_event(event, partition, offset, time_ms)
        except Exception as error:
            self._on_failed(error, partition, offset)
        return event

    def _fold(self, event: PublicEvent, partition: int, offset: int, time_ms: int) -> News | None:
        market = self._markets.get(event.symbol)
        if market is None or market.partition != partition:
            # A symbol that has not been seen since the beginning of the reading has no past after it either.
            market = self.settle(event.symbol, partition, self.partitions.begun_at(partition) - 1)
        elif offset <= market.offset:
            return None
        self.journal.touch(partition, event.symbol)
        was_stale = market.book.stale
        news = market.fold(event, partition, offset, time_ms)
        news.previous_of_partition = previous = self._public_to.get(partition, -1)
        if offset > previous:  # what is folded again is behind what was folded
            self._public_to[partition] = offset
        if market.book.stale and not was_stale:
            self._on_stale(event.symbol, "crossed")
        return news

    def settle(self, symbol: str, partition: int, complete_after: int) -> SymbolMarket:
        """A symbol is seen for the first time, or on another partition than before; nothing is known of it but that.

        Every event of it with an offset above `complete_after` is to come.
        """
        market = self.of(symbol)
        if market.partition is not None:
            self.journal.touch(market.partition, symbol)
        market.forget(History(self._history_records, self._history_seconds, complete_after))
        market.partition = partition
        return market

    def _distrust(self, symbol: str, cause: str) -> None:
        market = self._markets.get(symbol)
        if market is not None and market.partition is not None and market.book.live:
            self.journal.touch(market.partition, symbol)
            market.book.mark_stale()
            self._on_stale(symbol, cause)

    # What is read once more, from further back.

    def without_snapshot(self, partition: int) -> list[str]:
        """Symbols of which deltas were folded in and no snapshot before or since, in the order of their names."""
        return [market.symbol for market in self.on({partition}) if market.book.lacks_snapshot]

    def begin_again(self, partition: int, symbols: Collection[str], offset: int) -> None:
        """Forget these symbols: all of them that is known comes by `fold_again`, from this offset on."""
        for symbol in symbols:
            self.journal.touch(partition, symbol)
            market = self.of(symbol)
            market.forget(History(self._history_records, self._history_seconds, offset - 1))
            market.partition = partition

    def fold_again(
        self, partition: int, symbols: Collection[str], offset: int, value: bytes | None, time_ms: int
    ) -> None:
        """Fold in one record as `fold` does, but only for these symbols. What else is to be told of it is not told again.

        Raises nothing.
        """
        event: Event | None = None
        try:
            event = self._times.in_event(read_event(value), time_ms)
            if isinstance(event, PUBLIC_EVENTS) and event.symbol in symbols:
                self._fold(event, partition, offset, time_ms)
        except PoisonedRecord as poison:
            if poison.symbol is not None and poison.symbol in symbols:
                self._distrust(poison.symbol, "malformed")
        except Exception as error:
            self._on_failed(error, partition, offset)
            if isinstance(event, PUBLIC_EVENTS):
                self._give_up(event, partition, offset)

    def new_candles(self) -> Candles:
        """Some by the market's clock, of which nothing is known."""
        return Candles(self._times.now_ms)

    def of(self, symbol: str) -> SymbolMarket:
        """A symbol's market; an empty one, for whoever waits for its first record, if nothing is known of it."""
        market = self._markets.get(symbol)
        if market is None:
            market = SymbolMarket(symbol, self._tick_of(symbol), History(0, 0, -1), self._times)
            self._markets[symbol] = market
        return market

    def find(self, symbol: str) -> SymbolMarket | None:
        """A symbol's market; None if nothing is known of it."""
        market = self._markets.get(symbol)
        return None if market is None or market.partition is None else market

    def mark(self, symbol: str) -> Decimal | None:
        """A symbol's mark; None where it is not known as it is now."""
        market = self.find(symbol)
        if market is None or market.book.stale or market.partition in self.partitions.unread:
            return None
        return market.mark()

    def has_aged(self, symbol: str) -> bool:
        """Move a symbol's 24 hours on; whether trades have left them since this was asked last."""
        market = self._markets.get(symbol)
        if market is None:
            return False
        market.move_on()
        aged, market.has_aged = market.has_aged, False
        return aged

    def release(self, market: SymbolMarket) -> None:
        """A channel of this market is closed; forget the market if only that had made it."""
        market.listeners -= 1
        if market.listeners == 0 and market.partition is None:
            self._markets.pop(market.symbol, None)

    def forget(self, partition: int) -> None:
        """A partition is no longer read: drop what was known from it."""
        for market in self.on({partition}):
            market.forget(History(0, 0, -1))
            if market.listeners == 0:
                del self._markets[market.symbol]
        self._public_to.pop(partition, None)
        self.partitions.lose(partition)

    def on(self, partitions: Collection[int]) -> list[SymbolMarket]:
        """The symbols that live on these partitions, in the order of their names."""
        return [market for _, market in sorted(self._markets.items()) if market.partition in partitions]

    def known_books(self, partitions: Collection[int]) -> list[OrderBook]:
        """Books on these partitions that can be shown, in the order of their symbols."""
        return [market.book for market in self.on(partitions) if market.book.live]

    def partition_of(self, symbol: str) -> int:
        """Where a symbol lives. Raises `KeyError` if nothing is known of it."""
        partition = self._markets[symbol].partition
        if partition is None:
            raise KeyError(symbol)
        return partition

    def known(self) -> list[str]:
        """Every symbol seen, in no order."""
        return [symbol for symbol, market in self._markets.items() if market.partition is not None]

    @property
    def symbols(self) -> list[str]:
        """Every symbol seen, sorted."""
        return sorted(self.known())
