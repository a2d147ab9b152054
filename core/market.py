"""Everything known of the market, folded from the market topic record by record."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from core.errors import PoisonedRecord
from core.events import BookDelta, BookSnapshot, Event, Fill, UnknownEvent, read_event
from core.order_book import OrderBook

PublicEvent = Fill | BookSnapshot | BookDelta


class Market:
    """The order books of every symbol seen, the partition each lives on, and how far each partition was folded.

    A symbol lives on the partition of its last event: records are keyed by symbol, so that changes only with the number
    of partitions.
    """

    def __init__(
        self,
        on_poisoned: Callable[[PoisonedRecord, int, int], None],
        on_event: Callable[[Event], None],
        on_stale: Callable[[str, str], None],
    ) -> None:
        self._on_poisoned = on_poisoned
        self._on_event = on_event
        self._on_stale = on_stale
        self.books: dict[str, OrderBook] = {}
        self.partition_of: dict[str, int] = {}
        self.folded: dict[int, int] = {}

    def fold(self, partition: int, offset: int, value: bytes | None) -> PublicEvent | None:
        """Fold in one record; return its event if everyone may see it. A poisoned record is reported and skipped."""
        self.folded[partition] = offset
        try:
            event = read_event(value)
        except PoisonedRecord as poison:
            if poison.symbol is not None and poison.symbol in self.books:
                self._distrust(poison.symbol, "malformed")
            self._on_poisoned(poison, partition, offset)
            return None
        self._on_event(event)
        if isinstance(event, BookDelta):
            book = self._book(event.symbol, partition)
            if book.known and not book.stale and not book.apply_delta(event):
                self._on_stale(event.symbol, "crossed")
        elif isinstance(event, BookSnapshot):
            book = self._book(event.symbol, partition)
            book.apply_snapshot(event)
            if book.stale:
                self._on_stale(event.symbol, "crossed")
        elif isinstance(event, Fill):
            self._book(event.symbol, partition)
        else:
            return None
        return event

    def _book(self, symbol: str, partition: int) -> OrderBook:
        self.partition_of[symbol] = partition
        book = self.books.get(symbol)
        if book is None:
            book = self.books[symbol] = OrderBook(symbol)
        return book

    def _distrust(self, symbol: str, cause: str) -> None:
        book = self.books[symbol]
        if book.known and not book.stale:
            book.mark_stale()
            self._on_stale(symbol, cause)

    def forget(self, partition: int) -> list[str]:
        """A partition is no longer read: drop what was known from it; return its symbols."""
        symbols = [symbol for symbol, home in self.partition_of.items() if home == partition]
        for symbol in symbols:
            del self.partition_of[symbol], self.books[symbol]
        self.folded.pop(partition, None)
        return symbols

    def known_books(self, partitions: Iterable[int] | None = None) -> list[OrderBook]:
        """Books that can be shown, in the order of their symbols; of these partitions only, if given."""
        wanted = None if partitions is None else set(partitions)
        return [
            book
            for symbol, book in sorted(self.books.items())
            if book.known and not book.stale and (wanted is None or self.partition_of[symbol] in wanted)
        ]

    @property
    def symbols(self) -> list[str]:
        """Every symbol seen, sorted."""
        return sorted(self.books)


__all__ = ["Market", "PublicEvent", "UnknownEvent"]
