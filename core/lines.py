"""What each kind of channel says, and to whom. One line a channel that somebody listens to.

A line computes once for all of its subscribers: `note` takes news in, `take` makes it the state that has been told,
`news_texts` is what to tell those who had the state before, and `snapshot_texts` the whole state for those who
had nothing. Texts are notifications without their opening brace, so that the hub can put other members first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from heapq import merge
from typing import Final

from core.channels import ChannelName
from core.history import Entry
from core.ladder import changes_json, number_text
from core.market import Market
from core.model import Side
from core.subscriber import Crowd, Subscriber
from core.symbol_market import News, known_or_zero
from core.trades import Trade, seconds_text, trades_text

# Trades of a replay that go into one notification.
TRADES_PER_NOTIFICATION: Final = 500


class Line(ABC):
    """A channel with subscribers."""

    lossless = False
    heartbeats = False

    def __init__(self, name: ChannelName) -> None:
        self.name = name
        # Who listens, each in one of these: who gets what is said; whom something has to be said to first, when there is
        # something; and who fetches what it is owed. A `Subscription` keeps them.
        self.settled = Crowd()
        self.awaiting = Crowd()
        self.fetching = Crowd()
        self.interval_seconds = name.interval_ms / 1000
        self.dirty = False
        self.stale = False
        self.said_at = float("-inf")
        self.next_news_at = float("-inf")
        self.due: float | None = None
        self._head = b'"channel_name":"%b","seq":' % name.name.encode()

    def everyone(self) -> set[Subscriber]:
        """All subscribers, in whichever state."""
        return {*self.settled, *self.awaiting, *self.fetching}

    def has_subscribers(self) -> bool:
        """Whether anybody still listens."""
        return bool(self.settled or self.awaiting or self.fetching)

    def text(self, seq: int, notification: str) -> bytes:
        """A notification without its opening brace."""
        return b'%b%d,"notification":%b}' % (self._head, seq, notification.encode())

    @abstractmethod
    def partitions(self) -> frozenset[int]:
        """The partitions the channel lives on, as far as they are known."""

    @abstractmethod
    def note(self, news: News) -> None:
        """An event of the channel's symbol was folded in."""

    @abstractmethod
    def is_known(self) -> bool:
        """Whether there is a state to show."""

    @abstractmethod
    def take(self, anew: bool = False) -> bool:
        """Make the present state the told one; False if it is the same. `anew` if all of it will be told."""

    @abstractmethod
    def news_texts(self) -> list[bytes]:
        """What the last `take` changed."""

    @abstractmethod
    def snapshot_texts(self, conflated: bool = False) -> list[bytes]:
        """The told state as a whole."""

    def first_texts(self) -> list[bytes]:
        """For those who have had nothing yet, right after a `take`."""
        return self.snapshot_texts()

    def is_fresh(self) -> bool:
        """Whether the state is the engine's, as far as the gateway can tell."""
        return True

    def stale_text(self) -> bytes:
        """Told once when the state can no longer be trusted; what leaves nothing out has no state to distrust."""
        return self.empty_text()

    @abstractmethod
    def empty_text(self) -> bytes:
        """A notification in which there is nothing."""

    def heartbeat_texts(self) -> list[bytes]:
        """Nothing new, and still alive."""
        return [self.empty_text()]

    def restart(self) -> None:  # noqa: B027 (most lines keep nothing that would have to go)
        """The market was read anew: what was told may not be what is."""

    def close(self) -> None:  # noqa: B027 (most lines hold nothing that would have to be let go)
        """Nobody listens any more."""


class QuoteLine(Line):
    """A conflatable channel of one symbol: it tells states, and in-between ones may be left out."""

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name)
        assert name.symbol is not None
        self._markets = markets
        self.market = markets.of(name.symbol)
        self.market.listeners += 1
        self.seq = self.market.offset

    def partitions(self) -> frozenset[int]:
        return frozenset() if self.market.partition is None else frozenset((self.market.partition,))

    def note(self, news: News) -> None:
        self.dirty = True

    def is_known(self) -> bool:
        return self.market.partition is not None

    def is_fresh(self) -> bool:
        return not self.market.book.stale

    def stale_text(self) -> bytes:
        return self.text(max(self.seq, 0), '{"stale":true}')

    def close(self) -> None:
        self._markets.release(self.market)


class BookLine(QuoteLine):
    """`book.{symbol}.{grouping}.{depth}.{interval}`: changes that chain, and the trades between them."""

    heartbeats = True

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name, markets)
        market = self.market
        self._view = market.open_view(name.grouping, name.depth)
        self._trades: list[Trade] = []
        self._told_trades: list[Trade] = []
        self._bids = self._asks = "[]"
        self._state = ""
        if market.book.live:
            self._view.take()
            self._tell_state()

    def note(self, news: News) -> None:
        self.dirty = True
        # What comes while the book cannot be shown ends in a snapshot, which has no trades.
        if news.trade is not None and self.market.book.live:
            self._trades.append(news.trade)

    def is_known(self) -> bool:
        return self.market.book.known

    def take(self, anew: bool = False) -> bool:
        bids, asks = self._view.take()
        self._told_trades, self._trades = self._trades, []
        is_news = bool(bids or asks or self._told_trades)
        if is_news or anew or not self._state:
            # What changed below the depth alone is not told; the next notification's totals have it.
            self._tell_state()
            self._bids, self._asks = changes_json(bids), changes_json(asks)
        return is_news

    def _tell_state(self) -> None:
        """Totals, time and statistics as of now; the rest of a notification comes before them."""
        self.seq = self.market.offset
        self._state = self.market.state_text()

    def news_texts(self) -> list[bytes]:
        trades = trades_text(self._told_trades, self.name.trades_as_objects)
        body = f'{{"trades":{trades},"bid_changes":{self._bids},"ask_changes":{self._asks},{self._state}}}'
        return [self.text(self.seq, body)]

    def snapshot_texts(self, conflated: bool = False) -> list[bytes]:
        if not self._state:
            return []
        bids, asks = self._view.snapshot()
        extra = ',"conflated":true' if conflated else ""
        body = (
            f'{{"trades":[],"bid_changes":{changes_json(bids)},"ask_changes":{changes_json(asks)},'
            f'{self._state},"snapshot":true{extra}}}'
        )
        return [self.text(self.seq, body)]

    def empty_text(self) -> bytes:
        return self.text(self.seq, f'{{"trades":[],"bid_changes":[],"ask_changes":[],{self._state}}}')

    def restart(self) -> None:
        self._trades = []

    def close(self) -> None:
        super().close()
        self.market.views.close(self._view)


class StateLine(QuoteLine):
    """A conflatable channel whose notification is its whole state: `ticker` and `lwt`."""

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name, markets)
        self._told = ""
        self._time = ""
        if self.is_known() and self.is_fresh():
            self.take()

    @abstractmethod
    def state(self) -> str:
        """The members of the notification but its time, from the market as it is."""

    @abstractmethod
    def timed(self, state: str, time: str) -> str:
        """The members with the time put in."""

    def take(self, anew: bool = False) -> bool:
        state = self.state()
        if state == self._told and not anew:
            return False
        self.seq = self.market.offset
        self._told, self._time = state, seconds_text(self.market.time_ms)
        return True

    def news_texts(self) -> list[bytes]:
        return [self.text(self.seq, f"{{{self.timed(self._told, self._time)}}}")]

    def snapshot_texts(self, conflated: bool = False) -> list[bytes]:
        if not self._told:
            return []
        extra = ',"conflated":true' if conflated else ""
        return [self.text(self.seq, f'{{{self.timed(self._told, self._time)},"snapshot":true{extra}}}')]

    def empty_text(self) -> bytes:
        return self.text(self.seq, "{}")


class TickerLine(StateLine):
    """`ticker.{symbol}.{interval}`."""

    def state(self) -> str:
        market = self.market
        bid, ask = market.book.best(Side.BID), market.book.best(Side.ASK)
        stats = market.statistics
        mark = known_or_zero(market.mark())
        return (
            f'"mark_price":{mark},"best_bid_price":{known_or_zero(bid and bid[0])},"best_bid_amount":{known_or_zero(bid and bid[1])},'
            f'"best_ask_price":{known_or_zero(ask and ask[0])},"best_ask_amount":{known_or_zero(ask and ask[1])},'
            f'"last_price":{known_or_zero(stats.last_price)},"volume_24h":{known_or_zero(stats.volume)},'
            f'"value_24h":{known_or_zero(stats.value)},"low_price_24h":{known_or_zero(stats.low)},'
            f'"high_price_24h":{known_or_zero(stats.high)},"change_24h":{known_or_zero(stats.change)},'
            # What clients of the derivatives feed that this is modelled on also expect.
            f'"delta":1,"index":{mark},"forward":{mark},"collar_low":{mark},"collar_high":{mark},"funding_mark":0,'
            '"funding_rate":0,"realised_funding_24h":0,"average_funding_rate_24h":0,"open_interest":0'
        )

    def timed(self, state: str, time: str) -> str:
        return f'{state},"mark_timestamp":{time}'


class LwtLine(StateLine):
    """`lwt.{symbol}.{interval}`: the lightest view, best levels with their side's total."""

    def state(self) -> str:
        market = self.market
        sides = []
        for ladder in (market.book.bids, market.book.asks):
            best = ladder.best()
            if best is None:
                sides.append("[0,0,0]")
            else:
                sides.append(f"[{number_text(best[0])},{number_text(best[1])},{number_text(ladder.total)}]")
        last = market.statistics.last_price
        return f'"b":{sides[0]},"a":{sides[1]},"l":{known_or_zero(last)},"m":{known_or_zero(market.mark())}'

    def timed(self, state: str, time: str) -> str:
        return state


class LosslessLine(Line):
    """A channel that leaves nothing out: it is served from the history to whoever comes back."""

    lossless = True

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name)
        self.markets = markets
        self._news: list[News] = []
        self._taken: list[News] = []

    def folded(self, partition: int) -> int:
        """The last offset of a partition that was folded in; -1 before the first."""
        return self.markets.folded.get(partition, -1)

    def note(self, news: News) -> None:
        self._news.append(news)
        self.dirty = True

    def take(self, anew: bool = False) -> bool:
        self._taken, self._news = self._news, []
        return bool(self._taken)

    def first_texts(self) -> list[bytes]:
        return self.news_texts()

    @abstractmethod
    def texts_of(self, entries: list[Entry]) -> list[bytes]:
        """Notifications of a part of the past."""

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


class SymbolLine(LosslessLine):
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
            return self.markets.begun_at(partition) - 1
        return self.market.history.complete_after

    def wants(self, symbol: str) -> bool:
        return symbol == self.market.symbol

    def close(self) -> None:
        self.markets.release(self.market)

    def _last_offset(self) -> int:
        return max((self.folded(partition) for partition in self.partitions()), default=-1)


class TradesLine(SymbolLine):
    """`trades.{symbol}`: every fill."""

    def note(self, news: News) -> None:
        if news.trade is not None:
            super().note(news)
        elif self.awaiting:
            self.dirty = True  # from now on the symbol is known

    def first_texts(self) -> list[bytes]:
        return self.snapshot_texts()

    def news_texts(self) -> list[bytes]:
        trades = [news.trade for news in self._taken if news.trade is not None]
        return [self._notification(trades, self._taken[-1].offset)] if trades else []

    def _notification(self, trades: list[Trade], offset: int, extra: str = "") -> bytes:
        texts = trades_text(trades, self.name.trades_as_objects)
        return self.text(offset, f'{{"trades":{texts}{extra}}}')

    def snapshot_texts(self, conflated: bool = False) -> list[bytes]:
        if not self.is_known():
            return []
        return [self._notification(list(self.market.trades), self._last_offset(), ',"snapshot":true')]

    def texts_of(self, entries: list[Entry]) -> list[bytes]:
        trades = [entry for entry in entries if entry.trade is not None]
        if not trades:
            return [self.empty_text()]
        return [self._notification([e.trade for e in trades if e.trade is not None], trades[-1].offset)]

    def empty_text(self) -> bytes:
        return self._notification([], max(self._last_offset(), 0))

    def entries_after(self, partition: int, offset: int) -> Iterator[Entry]:
        return filter(self.shows, self.market.history.after(offset))

    def shows(self, entry: Entry) -> bool:
        return entry.trade is not None


class EventsLine(SymbolLine):
    """`events.{symbol}`: the engine's own events."""

    def news_texts(self) -> list[bytes]:
        return [self._notification(news.offset, news.event.payload) for news in self._taken]

    def _notification(self, offset: int, payload: bytes, extra: bytes = b"") -> bytes:
        return b'%b%d,"notification":{"event":%b%b}}' % (self._head, offset, payload, extra)

    def snapshot_texts(self, conflated: bool = False) -> list[bytes]:
        if not self.market.book.live:
            return []
        # The partition's last offset: what is after it is what the client has not.
        return [self._notification(self._last_offset(), self.market.book.snapshot_event(), b',"snapshot":true')]

    def texts_of(self, entries: list[Entry]) -> list[bytes]:
        return [self._notification(entry.offset, entry.payload) for entry in entries]

    def empty_text(self) -> bytes:
        return self.text(max(self._last_offset(), 0), "{}")


class AllEventsLine(LosslessLine):
    """`events`: those of every symbol, each with its partition."""

    def partitions(self) -> frozenset[int]:
        return frozenset(self.markets.served)

    def is_known(self) -> bool:
        return True

    def news_texts(self) -> list[bytes]:
        return [self._notification(news.partition, news.offset, news.event.payload) for news in self._taken]

    def _notification(self, partition: int, offset: int, payload: bytes, extra: bytes = b"") -> bytes:
        return b'%b%d,"partition":%d,"notification":{"event":%b%b}}' % (self._head, offset, partition, payload, extra)

    def snapshot_texts(self, conflated: bool = False) -> list[bytes]:
        return self.snapshot_of(self.partitions())

    def snapshot_of(self, partitions: frozenset[int]) -> list[bytes]:
        """One notification a known book of these partitions."""
        texts = []
        for book in self.markets.known_books(partitions):
            partition = self.markets.partition_of(book.symbol)
            # The partition's last offset, not the symbol's: a sequence that many symbols share may not go back.
            texts.append(
                self._notification(partition, self.folded(partition), book.snapshot_event(), b',"snapshot":true')
            )
        return texts

    def texts_of(self, entries: list[Entry]) -> list[bytes]:
        return [self._notification(entry.partition, entry.offset, entry.payload) for entry in entries]

    def empty_text(self) -> bytes:
        # Of a partition that has records: who keeps another one's 0 would never get its first record. -1: none has any.
        partition = min(self.partitions(), key=lambda number: (self.folded(number) < 0, number), default=0)
        return b'%b%d,"partition":%d,"notification":{}}' % (self._head, self.folded(partition), partition)

    def entries_after(self, partition: int, offset: int) -> Iterator[Entry]:
        past = [market.history.after(offset) for market in self.markets.on({partition})]
        return merge(*past, key=lambda entry: entry.offset)

    def complete_after(self, partition: int) -> int:
        begun = self.markets.begun_at(partition)
        return max((market.history.complete_after for market in self.markets.on({partition})), default=begun - 1)

    def wants(self, symbol: str) -> bool:
        return True


LINES: Final[dict[str, type[LosslessLine] | type[QuoteLine]]] = {
    "book": BookLine,
    "ticker": TickerLine,
    "lwt": LwtLine,
    "trades": TradesLine,
    "events": EventsLine,
}


def make_line(name: ChannelName, markets: Market) -> Line:
    """The line that a channel's name asks for. Raises ValueError for a grouping that has no tick."""
    if name.symbol is None:
        return AllEventsLine(name, markets)
    return LINES[name.kind](name, markets)
