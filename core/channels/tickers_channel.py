"""The overview: tickers of all symbols on one channel, told as far as they changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Final

from core.channels.channel import Channel
from core.channels.names import ChannelName
from core.delivery.outbox import Conflatable, Tag
from core.market.book_views import NOTHING_HELD, Held
from core.market.market import Market
from core.market.quotes import stale_ticker_text, ticker_text
from core.market.symbol_market import SymbolMarket

# In one notification: half a kilobyte each. What there is more of comes in the next ones, right behind it.
MOST_TICKERS: Final = 500
# Worked out before there is a look at whether others wait: some 15 us each.
PREPARED_AT_ONCE: Final = 32


_STALE: Final = '"stale":true}'


def _members(ticker: str) -> str:
    """Without its time: if that alone has changed it is not told again. A stale one has members that no other has."""
    return ticker.rpartition(',"mark_timestamp":')[0] if not ticker.endswith(_STALE) else ticker


class TickersChannel(Channel):
    """`tickers.{interval}`: `{tickers: {symbol: ticker}}` of the symbols whose tickers changed; one that cannot be trusted says so.

    `seq` is an object of partition to offset: the tickers are at least as new as that.
    """

    is_overview = True

    def __init__(self, name: ChannelName, markets: Market) -> None:
        super().__init__(name)
        self._markets = markets
        # By symbol what everybody settled was told; what is worked out to be told next; and what the last `take` changed.
        self._told: dict[str, str] = {}
        self._ready: dict[str, str] = {}
        self._news: dict[str, str] = {}
        # Symbols that were told as stale, or are about to be.
        self._stale: set[str] = set()
        # Symbols to be worked out, the next one last; and those that were touched since these were begun with.
        self._batch: list[str] = []
        self._touched: dict[str, None] = {}
        self._seq = self._ready_seq = "{}"
        self.touch(markets.known())

    def touch(self, symbols: Iterable[str]) -> None:
        self._touched.update(dict.fromkeys(symbols))
        self.dirty = self.dirty or bool(self._touched)

    def partitions(self) -> frozenset[int]:
        return frozenset()  # none of which anything hangs on as a whole

    def is_known(self) -> bool:
        return bool(self._told or self._ready)

    def prepare(self) -> bool:
        if not self._batch:
            self._batch, self._touched = [*reversed(self._touched)], {}
        if not self._ready:
            partitions = self._markets.partitions
            positions = [f'"{number}":{partitions.folded_to(number)}' for number in sorted(partitions.served)]
            self._ready_seq = f"{{{','.join(positions)}}}"
        for _ in range(PREPARED_AT_ONCE):
            if not self._batch or len(self._ready) >= MOST_TICKERS:
                return True
            symbol = self._batch.pop()
            ticker = self._ticker(symbol)
            if ticker is not None:
                self._ready[symbol] = ticker
                if ticker.endswith(_STALE):
                    self._stale.add(symbol)
                else:
                    self._stale.discard(symbol)
        return False

    def has_healed(self, symbols: Collection[str]) -> bool:
        return any(self._is_trusted(self._markets.find(symbol)) for symbol in self._stale.intersection(symbols))

    def _is_trusted(self, market: SymbolMarket | None) -> bool:
        if market is None or market.partition is None or market.book.stale:
            return False
        return self._markets.partitions.are_read((market.partition,))

    def _ticker(self, symbol: str) -> str | None:
        """None where that is what was told, or is about to be; and of who was never told of, and is gone."""
        market = self._markets.find(symbol)
        told = self._ready.get(symbol) or self._told.get(symbol)
        if market is not None and self._is_trusted(market):
            ticker = ticker_text(market)
            return None if told is not None and _members(told) == _members(ticker) else ticker
        if market is None and told is None:
            return None
        return None if told is not None and told.endswith(_STALE) else stale_ticker_text(market)

    def take(self, anew: bool = False) -> bool:
        self._news, self._ready = self._ready, {}
        self._told.update(self._news)
        self.dirty = bool(self._batch or self._touched)
        if self._news:
            self._seq = self._ready_seq
        return bool(self._news)

    def has_more(self) -> bool:
        return bool(self._batch)

    def news_texts(self) -> list[bytes]:
        return [self._notification(self._news.items())]

    def _notification(self, tickers: Iterable[tuple[str, str]], extra: str = "") -> bytes:
        members = ",".join([f'"{symbol}":{ticker}' for symbol, ticker in tickers])
        return b'%b%b,"notification":{"tickers":{%b}%b}}' % (
            self._head,
            self._seq.encode(),
            members.encode(),
            extra.encode(),
        )

    def snapshot_texts(self, held: Held = NOTHING_HELD, begins: bool = True, conflated: bool = False) -> list[bytes]:
        texts, to_come = self._opening(',"conflated":true' if conflated else "")
        while to_come:
            texts += self.next_part(to_come)
        return texts

    def opening(self, held: Held = NOTHING_HELD, begins: bool = True) -> tuple[list[bytes], Iterable[str]]:
        return self._opening()

    def _opening(self, extra: str = "") -> tuple[list[bytes], dict[str, None]]:
        to_come = dict.fromkeys(self._told)
        return self.next_part(to_come, f',"snapshot":true{extra}'), to_come

    def next_part(self, to_come: dict[str, None], extra: str = "") -> list[bytes]:
        symbols = list(islice(to_come, MOST_TICKERS))
        for symbol in symbols:
            del to_come[symbol]
        return [self._notification([(symbol, self._told[symbol]) for symbol in symbols], extra)] if symbols else []

    def empty_text(self) -> bytes:
        return self._notification(())

    def tag(self) -> Tag:
        return Conflatable(self)
