"""Channels that leave nothing out, and are served from the history to who comes back: `trades` and `events`.

News says as `prev_seq` where the record is that the channel told before: whoever holds a smaller seq has missed one. That is
the record's own, not the notification's: so it is the same on all instances and for all subscribers, wherever each joined.
A replay tells it from its second notification of a partition on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Final

from core.channels.channel import PART_BYTES, Channel
from core.channels.names import ChannelName
from core.market.book_views import NOTHING_HELD, Held
from core.market.history import Entry
from core.market.market import Market
from core.market.symbol_market import News
from core.market.trade import Trade, named_trades_text

BOOKS_AT_ONCE: Final = 64


def in_a_row(entries: list[Entry], told: dict[int, int]) -> Iterator[tuple[Entry, int | None]]:
    """Each entry with the offset of the one before it on its partition, as far as that was `told`, where it is noted."""
    for entry in entries:
        previous, told[entry.partition] = told.get(entry.partition), entry.offset
        yield entry, previous


class LosslessChannel(Channel):
    """A channel that leaves nothing out: it is served from the history to whoever comes back."""

    lossless = True

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name)
        self.markets = markets
        self._news: list[News] = []
        self._taken: list[News] = []

    def folded(self, partition: int) -> int:
        """The last offset of a partition that was folded in; -1 before the first."""
        return self.markets.partitions.folded_to(partition)

    def note(self, news: News) -> None:
        """An event of one of its symbols was folded in."""
        self._news.append(news)
        self.dirty = True

    def take(self, anew: bool = False) -> bool:
        self._taken, self._news = self._news, []
        return bool(self._taken)

    def first_texts(self) -> list[bytes]:
        return self.news_texts()

    def belated_texts(self) -> list[bytes]:
        """The first that somebody is told who was to be told before the last `take`: what that took, and where it led."""
        return [*self.news_texts(), *self.snapshot_texts()]

    @abstractmethod
    def texts_of(self, entries: list[Entry], told: dict[int, int]) -> list[bytes]:
        """Notifications of a part of the past. `told` has by partition the last offset of the parts before, and then of this."""

    @abstractmethod
    def entries_after(self, partition: int, offset: int) -> Iterator[Entry]:
        """What the history has of a partition after an offset, oldest first."""

    @abstractmethod
    def complete_after(self, partition: int) -> int:
        """Of a partition, the history has everything with a greater offset."""

    @abstractmethod
    def wants(self, symbol: str) -> bool:
        """Whether a symbol's events are the channel's."""

    def shows(self, entry: Entry) -> bool:
        """Whether one of its symbols' events is said on it."""
        return True


class SymbolChannel(LosslessChannel):
    """A lossless channel of one symbol."""

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name, markets)
        assert name.symbol is not None
        self.market = markets.of(name.symbol)
        self.market.listeners += 1
        self._home: int | None = None

    def partitions(self) -> frozenset[int]:
        # Where the symbol was seen last: it may be gone from what is known of the partition now, which is no reason to
        # forget where its listeners stand.
        if self.market.partition is not None:
            self._home = self.market.partition
        return frozenset() if self._home is None else frozenset((self._home,))

    def is_known(self) -> bool:
        return self.market.partition is not None

    def entries_after(self, partition: int, offset: int) -> Iterator[Entry]:
        return self.market.history.after(offset)

    def complete_after(self, partition: int) -> int:
        if self.market.partition is None:
            return self.markets.partitions.begun_at(partition) - 1
        return self.market.complete_after

    def wants(self, symbol: str) -> bool:
        return symbol == self.market.symbol

    def close(self) -> None:
        self.markets.release(self.market)

    def _last_offset(self) -> int:
        return max((self.folded(partition) for partition in self.partitions()), default=-1)


class TradesChannel(SymbolChannel):
    """`trades.{symbol}`: every fill."""

    def note(self, news: News) -> None:
        if news.trade is not None:
            super().note(news)
        elif self.awaiting:
            self.dirty = True  # from now on the symbol is known

    def first_texts(self) -> list[bytes]:
        # One drain may bring more trades than a symbol keeps.
        taken = [news.trade for news in self._taken if news.trade is not None]
        return [self._snapshot(max(taken, list(self.market.trades), key=len))] if self.is_known() else []

    def belated_texts(self) -> list[bytes]:
        return self.first_texts()

    def news_texts(self) -> list[bytes]:
        trades = [news.trade for news in self._taken if news.trade is not None]
        return [self._notification(trades, self._taken[-1].offset, self._taken[0].previous_trade)] if trades else []

    def _notification(self, trades: list[Trade], offset: int, previous: int | None = None, extra: str = "") -> bytes:
        texts = named_trades_text(trades, self.name.trades_as_objects)
        news = "" if previous is None else f',"prev_seq":{previous}'
        return b"%b%d%b" % (self._head, offset, f'{news},"notification":{{"trades":{texts}{extra}}}}}'.encode())

    def snapshot_texts(self, held: Held = NOTHING_HELD, begins: bool = True, conflated: bool = False) -> list[bytes]:
        return [self._snapshot(list(self.market.trades))] if self.is_known() else []

    def _snapshot(self, trades: list[Trade]) -> bytes:
        return self._notification(trades, self._last_offset(), extra=',"snapshot":true')

    def texts_of(self, entries: list[Entry], told: dict[int, int]) -> list[bytes]:
        trades = [entry for entry in entries if entry.trade is not None]
        if not trades:
            return [self.empty_text()]
        last = trades[-1]
        previous, told[last.partition] = told.get(last.partition), last.offset
        return [self._notification([e.trade for e in trades if e.trade is not None], last.offset, previous)]

    def empty_text(self) -> bytes:
        return self._notification([], max(self._last_offset(), 0))

    def entries_after(self, partition: int, offset: int) -> Iterator[Entry]:
        return filter(self.shows, self.market.history.after(offset))

    def shows(self, entry: Entry) -> bool:
        return entry.trade is not None


class EventsChannel(SymbolChannel):
    """`events.{symbol}`: the engine's own events."""

    def news_texts(self) -> list[bytes]:
        return [self._notification(news.offset, news.event.payload, news.previous) for news in self._taken]

    def _notification(self, offset: int, payload: bytes, previous: int | None = None, extra: bytes = b"") -> bytes:
        if previous is None:
            return b'%b%d,"notification":{"event":%b%b}}' % (self._head, offset, payload, extra)
        return b'%b%d,"prev_seq":%d,"notification":{"event":%b}}' % (self._head, offset, previous, payload)

    def snapshot_texts(self, held: Held = NOTHING_HELD, begins: bool = True, conflated: bool = False) -> list[bytes]:
        if not self.market.book.live:
            return []
        # The partition's last offset: what is after it is what the client has not.
        return [self._notification(self._last_offset(), self.market.book.snapshot_event(), extra=b',"snapshot":true')]

    def texts_of(self, entries: list[Entry], told: dict[int, int]) -> list[bytes]:
        return [self._notification(e.offset, e.payload, previous) for e, previous in in_a_row(entries, told)]

    def empty_text(self) -> bytes:
        return self.text(max(self._last_offset(), 0), "{}")


class AllEventsChannel(LosslessChannel):
    """`events`: those of every symbol, each with its partition."""

    def partitions(self) -> frozenset[int]:
        return frozenset(self.markets.partitions.served)

    def is_known(self) -> bool:
        return True

    def news_texts(self) -> list[bytes]:
        return [
            self._notification(news.partition, news.offset, news.event.payload, news.previous_of_partition)
            for news in self._taken
        ]

    def _notification(
        self, partition: int, offset: int, payload: bytes, previous: int | None = None, extra: bytes = b""
    ) -> bytes:
        if previous is None:
            return b'%b%d,"partition":%d,"notification":{"event":%b%b}}' % (
                self._head, offset, partition, payload, extra,
            )  # fmt: skip
        return b'%b%d,"prev_seq":%d,"partition":%d,"notification":{"event":%b}}' % (
            self._head, offset, previous, partition, payload,
        )  # fmt: skip

    def belated_texts(self) -> list[bytes]:
        return self.news_texts()

    def snapshot_texts(self, held: Held = NOTHING_HELD, begins: bool = True, conflated: bool = False) -> list[bytes]:
        return [text for symbol in self.symbols_in_parts(self.partitions()) for text in self._book_texts(symbol)]

    def opening(self, held: Held = NOTHING_HELD, begins: bool = True) -> tuple[list[bytes], Iterable[str]]:
        symbols = self.symbols_in_parts(self.partitions())
        return self._book_texts(symbols[0]) if symbols else [], symbols[1:]

    def next_part(self, to_come: dict[str, None]) -> list[bytes]:
        texts, size = list[bytes](), 0
        # Some may not be known any more: none of so many is not yet the end.
        while not texts and (symbols := list(islice(filter(self._is_served, to_come), BOOKS_AT_ONCE))):
            for symbol in symbols:
                del to_come[symbol]
                for text in self._book_texts(symbol):
                    texts.append(text)
                    size += len(text)
                if size >= PART_BYTES:
                    break
        return texts

    def symbols_in_parts(self, partitions: Collection[int]) -> list[str]:
        return [book.symbol for book in self.markets.known_books(partitions)]

    def _is_served(self, symbol: str) -> bool:
        market = self.markets.find(symbol)
        return market is not None and market.partition in self.markets.partitions.served

    def _book_texts(self, symbol: str) -> list[bytes]:
        """The notification that is the snapshot of the book of a symbol that is served; none while it is not known."""
        market = self.markets.of(symbol)
        if market.partition is None or not market.book.live:
            return []
        # The partition's last offset, not the symbol's: a sequence that many symbols share may not go back.
        at = self.folded(market.partition)
        return [self._notification(market.partition, at, market.book.snapshot_event(), extra=b',"snapshot":true')]

    def texts_of(self, entries: list[Entry], told: dict[int, int]) -> list[bytes]:
        return [
            self._notification(e.partition, e.offset, e.payload, previous) for e, previous in in_a_row(entries, told)
        ]

    def empty_text(self) -> bytes:
        # Of a partition that has records: who keeps another one's 0 would never get its first record. -1: none has any.
        partition = min(self.partitions(), key=lambda number: (self.folded(number) < 0, number), default=0)
        return b'%b%d,"partition":%d,"notification":{}}' % (self._head, self.folded(partition), partition)

    def entries_after(self, partition: int, offset: int) -> Iterator[Entry]:
        past = [market.history.after(offset) for market in self.markets.on({partition})]
        return merge(*past, key=lambda entry: entry.offset)

    def complete_after(self, partition: int) -> int:
        begun = self.markets.partitions.begun_at(partition)
        return max((market.history.complete_after for market in self.markets.on({partition})), default=begun - 1)

    def wants(self, symbol: str) -> bool:
        return True
