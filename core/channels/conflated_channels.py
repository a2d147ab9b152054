"""Channels that tell states, of which in-between ones may be left out: `book`, `ticker` and `lwt`."""

from __future__ import annotations

from abc import abstractmethod

from core.channels.channel import Channel
from core.channels.names import ChannelName
from core.delivery.outbox import Conflatable, Tag
from core.market.book_views import NOTHING_HELD, Held
from core.market.ladder import number_text
from core.market.market import Market
from core.market.quotes import ticker_members, unknown_ticker_members
from core.market.symbol_market import known_or_zero
from core.market.trade import NO_TRADES, seconds_text, trades_text


class ConflatedChannel(Channel):
    """A conflatable channel of one symbol: it tells states, and in-between ones may be left out."""

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name)
        assert name.symbol is not None
        self._markets = markets
        self.market = markets.of(name.symbol)
        self.market.listeners += 1
        self.market.move_on()
        self.seq = self.market.offset

    def partitions(self) -> frozenset[int]:
        return frozenset() if self.market.partition is None else frozenset((self.market.partition,))

    def is_known(self) -> bool:
        return self.market.partition is not None

    def is_fresh(self) -> bool:
        return not self.market.book.stale

    def stale_text(self) -> bytes:
        # With every member, for clients that do not know the word: what is not known is 0, as everywhere.
        return self.text(max(self.seq, 0), f'{{{self.unknown()},"stale":true}}')

    @abstractmethod
    def unknown(self) -> str:
        """The members of a notification that knows nothing but the time."""

    def tag(self) -> Tag:
        return Conflatable(self)

    def close(self) -> None:
        self._markets.release(self.market)


class BookChannel(ConflatedChannel):
    """`book.{symbol}.{grouping}.{depth}.{interval}`: changes that chain, and the trades between them."""

    heartbeats = True

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name, markets)
        market = self.market
        self._view = market.open_view(name.grouping, name.depth)
        # From here on the trades of the next notification; and those of the last one.
        self._trades_from = market.tape.end
        self._told_trades = NO_TRADES
        self._state = self._day = ""
        self._is_aged = False
        # For who begins, until something else is told: many may join at once.
        self._first: bytes | None = None
        self._trades_before: str | None = None
        # How many of the symbol's trades are not on its tape, and how many are told.
        self._trades_untaped = market.trade_count - market.tape.noted
        self._trades_told = market.trade_count
        if market.book.live:
            self._view.take()
            self._tell_state()
        # What those settled hold.
        self._settled_hold = self._view.holds

    def is_known(self) -> bool:
        return self.market.book.known

    def take(self, anew: bool = False) -> bool:
        is_news = self._view.take()
        tape = self.market.tape
        self._told_trades, self._trades_from = tape.since(self._trades_from), tape.end
        if not anew:
            self._trades_untaped = self.market.trade_count - tape.noted
        # A batch that shows that its partition is read again is noted behind the snapshot that this causes.
        self._trades_told = self._trades_untaped + tape.noted
        self._first = None
        trades = self._told_trades.trades
        if trades or anew:
            self._trades_before = None
        is_news = is_news or bool(trades) or self._is_aged
        if is_news or anew or not self._state:
            # What changed below the depth alone is not told; the next notification's totals have it.
            self._tell_state()
        return is_news

    def _tell_state(self) -> None:
        """Totals, time and statistics as of now; the rest of a notification comes before them."""
        self.seq = self.market.offset
        self._state = self.market.state_text()
        self._day = self.market.day_text()
        self._is_aged = False

    def age(self) -> None:
        # Not with every event of a busy symbol, of which a trade of yesterday leaves with each.
        self._is_aged = self._day is not self.market.day_text()
        self.dirty = self.dirty or self._is_aged

    def news_texts(self) -> list[bytes]:
        trades = self._told_trades.text(self.name.trades_as_objects)
        bids, asks = self._view.taken_texts()
        body = f'{{"trades":{trades},"bid_changes":{bids},"ask_changes":{asks},{self._state}}}'
        return [self.text(self.seq, body)]

    def snapshot_texts(self, held: Held = NOTHING_HELD, begins: bool = True, conflated: bool = False) -> list[bytes]:
        if not self._state:
            return []
        if not begins or conflated or held != NOTHING_HELD:
            return [self._snapshot_text(held, self._trades_before_text() if begins else "[]", conflated)]
        if self._first is None:
            self._first = self._snapshot_text(held, self._trades_before_text(), conflated)
        return [self._first]

    def _snapshot_text(self, held: Held, trades: str, conflated: bool) -> bytes:
        bids, asks = self._view.snapshot_texts(held)
        extra = ',"conflated":true' if conflated else ""
        body = f'{{"trades":{trades},"bid_changes":{bids},"ask_changes":{asks},{self._state},"snapshot":true{extra}}}'
        return self.text(self.seq, body)

    def _trades_before_text(self) -> str:
        """The last ones, but for those that the next notification tells."""
        if self._trades_before is None:
            trades = list(self.market.trades)
            untold = max(0, self.market.trade_count - self._trades_told)
            told = trades[: max(0, len(trades) - untold)]
            self._trades_before = trades_text(told, self.name.trades_as_objects)
        return self._trades_before

    def tag(self) -> Tag:
        return Conflatable(self, self._settled_hold)

    def has_told(self) -> None:
        self._settled_hold = self._view.holds

    def held(self, since: Conflatable | None = None) -> Held:
        held = self._settled_hold if since is None else since.before
        assert isinstance(held, tuple)
        return held

    def empty_text(self) -> bytes:
        return self.text(self.seq, f'{{"trades":[],"bid_changes":[],"ask_changes":[],{self._state}}}')

    def unknown(self) -> str:
        time = seconds_text(self.market.time_ms)
        return f'"trades":[],"bid_changes":[],"ask_changes":[],"total_bid_amount":0,"total_ask_amount":0,"time":{time}'

    def restart(self) -> None:
        self._trades_from = self.market.tape.end
        self._trades_untaped = self.market.trade_count - self.market.tape.noted
        self._trades_told = self.market.trade_count
        self._first = self._trades_before = None

    def close(self) -> None:
        super().close()
        self.market.views.close(self._view)


class StateChannel(ConflatedChannel):
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

    def snapshot_texts(self, held: Held = NOTHING_HELD, begins: bool = True, conflated: bool = False) -> list[bytes]:
        if not self._told:
            return []
        extra = ',"conflated":true' if conflated else ""
        return [self.text(self.seq, f'{{{self.timed(self._told, self._time)},"snapshot":true{extra}}}')]

    def empty_text(self) -> bytes:
        return self.text(self.seq, "{}")

    def unknown(self) -> str:
        return self.timed(self.unknown_state(), seconds_text(self.market.time_ms))

    @abstractmethod
    def unknown_state(self) -> str:
        """As `state`, where nothing is known."""


class TickerChannel(StateChannel):
    """`ticker.{symbol}.{interval}`."""

    def state(self) -> str:
        return ticker_members(self.market)

    def unknown_state(self) -> str:
        return unknown_ticker_members()

    def timed(self, state: str, time: str) -> str:
        return f'{state},"mark_timestamp":{time}'

    def age(self) -> None:
        self.dirty = True


class LwtChannel(StateChannel):
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

    def unknown_state(self) -> str:
        return '"b":[0,0,0],"a":[0,0,0],"l":0,"m":0'

    def timed(self, state: str, time: str) -> str:
        return state
