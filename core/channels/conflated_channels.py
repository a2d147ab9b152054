"""Channels that tell states, of which in-between ones may be left out: `book`, `ticker` and `lwt`."""

from __future__ import annotations

from abc import abstractmethod

from core.channels.channel import Channel
from core.channels.names import ChannelName
from core.market.ladder import changes_json, number_text
from core.market.market import Market
from core.market.quotes import ticker_members
from core.market.symbol_market import News, known_or_zero
from core.market.trade import Trade, seconds_text, trades_text


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


class BookChannel(ConflatedChannel):
    """`book.{symbol}.{grouping}.{depth}.{interval}`: changes that chain, and the trades between them."""

    heartbeats = True

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name, markets)
        market = self.market
        self._view = market.open_view(name.grouping, name.depth)
        self._trades: list[Trade] = []
        self._told_trades: list[Trade] = []
        self._bids = self._asks = "[]"
        self._state = self._day = ""
        self._is_aged = False
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
        is_news = bool(bids or asks or self._told_trades or self._is_aged)
        if is_news or anew or not self._state:
            # What changed below the depth alone is not told; the next notification's totals have it.
            self._tell_state()
            self._bids, self._asks = changes_json(bids), changes_json(asks)
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

    def snapshot_texts(self, conflated: bool = False) -> list[bytes]:
        if not self._told:
            return []
        extra = ',"conflated":true' if conflated else ""
        return [self.text(self.seq, f'{{{self.timed(self._told, self._time)},"snapshot":true{extra}}}')]

    def empty_text(self) -> bytes:
        return self.text(self.seq, "{}")


class TickerChannel(StateChannel):
    """`ticker.{symbol}.{interval}`."""

    def state(self) -> str:
        return ticker_members(self.market)

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

    def timed(self, state: str, time: str) -> str:
        return state
