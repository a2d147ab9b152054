"""What a channel's notifications are turned into, without a connection: each has the caches that ccxt's programs read.

`take` returns what programs that watch are to be told; what it cannot read moves nothing. It raises `Broken` where what came does not follow what is held, and
ccxt's errors for what the gateway says of itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ccxt.async_support.base.ws.cache import ArrayCache, ArrayCacheBySymbolById, ArrayCacheByTimestamp
from ccxt.base.errors import ExchangeNotAvailable

from mexchange_ccxt.shapes import milliseconds


class Broken(Exception):
    """What came does not follow what is held: the channel has to begin anew.

    `is_told`: the program is told, for what it was shown is not true; else all that is missing comes by beginning anew.
    """

    def __init__(self, text: str, *, is_told: bool) -> None:
        super().__init__(text)
        self.is_told = is_told


class Missed(Exception):
    """What lies behind `position` cannot be had on the channel. Nothing of what came is folded in."""


class GapError(Exception):
    """Raised once what came is folded in: what lies before it is not whole, and programs are told."""


class Channel(ABC):
    """One channel, over all connections. `hashes` are what programs wait for on it."""

    is_private = False
    # Nothing may be left out; of others the newest is what counts.
    is_lossless = False

    def __init__(self, exchange: Any, name: str, *hashes: str) -> None:
        self.exchange = exchange
        self.name = name
        self.hashes = hashes
        # Of a lossless one: {epoch, seq} of what was told last.
        self.position: dict[str, Any] | None = None

    def begin(self) -> None:  # noqa: B027 (most have nothing to do then)
        """It is subscribed (again): what is held is what programs hold."""

    @abstractmethod
    def take(self, message: Mapping[str, Any]) -> list[str]:
        """Fold a notification in; the hashes to tell."""

    def _check_stale(self, note: Mapping[str, Any], what: str) -> None:
        if note.get("stale"):
            raise ExchangeNotAvailable(f"{self.exchange.id} the {what} on {self.name} cannot be trusted at the moment")

    def _advance(self, message: Mapping[str, Any]) -> None:
        begun = "epoch" in message or self.position is None
        epoch = message["epoch"] if begun and "epoch" in message else (self.position or {}).get("epoch")
        seq = message["seq"]
        if isinstance(seq, dict) and not begun and self.position is not None:
            seq = {**self.position["seq"], **seq}
        self.position = {"epoch": epoch, "seq": seq}


class BookChannel(Channel):
    """A book whose changes chain: each says what it replaces, which has to be what is held."""

    def __init__(self, exchange: Any, name: str, symbol: str) -> None:
        super().__init__(exchange, name, name)
        self.book = exchange.order_book({"symbol": symbol})
        self._symbol = symbol
        # Exact, whatever ccxt's numbers are; None: no snapshot has come.
        self._held: dict[str, dict[Decimal, Decimal]] | None = None

    def begin(self) -> None:
        self._held = None

    def _forget(self) -> None:
        self._held = None
        self.book.reset({"symbol": self._symbol})

    def take(self, message: Mapping[str, Any]) -> list[str]:
        note = message["notification"]
        if note.get("stale"):
            self._forget()
        self._check_stale(note, "book")
        is_snapshot = note.get("snapshot", False)
        if is_snapshot:
            self._forget()
            self._held = {"bid": {}, "ask": {}}
        if self._held is None:
            return []
        for side in ("bid", "ask"):
            self._change(side, note[f"{side}_changes"], is_snapshot)
        bids, asks = self.book["bids"], self.book["asks"]
        if bids and asks and bids[0][0] >= asks[0][0]:
            self._forget()
            raise Broken(f"the book on {self.name} is crossed", is_told=True)
        timestamp = milliseconds(note["time"])
        self.book["nonce"] = message["seq"]
        self.book["timestamp"], self.book["datetime"] = timestamp, self.exchange.iso8601(timestamp)
        return [self.name]

    def _change(self, side: str, changes: list[list[Any]], is_snapshot: bool) -> None:
        assert self._held is not None
        held, shown = self._held[side], self.book[f"{side}s"]
        number = self.exchange.parse_number
        for price_text, old, new_text in changes:
            price, new = Decimal(price_text), Decimal(new_text)
            if not is_snapshot and held.get(price, 0) != Decimal(old):
                self._forget()
                raise Broken(f"a change on {self.name} does not follow the book", is_told=True)
            if new:
                held[price] = new
            elif held.pop(price, None) is None:
                continue
            shown.store(number(price_text), number(new_text))


class TradesChannel(Channel):
    """Every trade of a symbol, once; `Missed` where some can only be looked for elsewhere."""

    is_lossless = True

    def __init__(self, exchange: Any, name: str, symbol: str) -> None:
        super().__init__(exchange, name, name)
        self.symbol = symbol
        self.last_id: str | None = None
        exchange.trades.setdefault(symbol, ArrayCache(exchange.safe_integer(exchange.options, "tradesLimit", 1000)))

    def take(self, message: Mapping[str, Any]) -> list[str]:
        held, note = self.position, message["notification"]
        seq = -1 if held is None else held["seq"]
        is_first = "epoch" in message
        if not is_first and held is not None and message.get("prev_seq", -1) > seq:
            raise Broken(f"a notification on {self.name} is missing", is_told=False)
        trades = note["trades"]
        is_lost = False
        if is_first and held is not None and not message.get("recovered"):
            is_same = held["epoch"] == message["epoch"]
            reaches_back = is_same and (message["seq"] <= seq or any(0 <= _offset(one) <= seq for one in trades))
            is_lost = not reaches_back
            if is_lost and is_same and self.last_id is not None:
                raise Missed
            seq = seq if is_same else -1
        told = self.append([_named(one) for one in trades], seq)
        self._advance(message)
        if is_lost:
            raise gap_on(self)
        return [self.name] if told else []

    def append(self, trades: list[dict[str, Any]], after: int, to: float = float("inf")) -> bool:
        """Those whose offsets lie in between, to the cache; whether there were any."""
        market = self.exchange.market(self.symbol)
        new = [one for one in trades if after < offset_of(one) <= to or (one["trade_id"] is None and after < 0)]
        for one, parsed in [(one, self.exchange.parse_trade(one, market)) for one in new]:
            self.exchange.trades[self.symbol].append(parsed)
            self.last_id = one["trade_id"] or self.last_id
        return bool(new)


def gap_on(channel: Channel) -> GapError:
    return GapError(f"{channel.exchange.id} on {channel.name} something is missing that is not kept any more")


def _named(trade: list[Any]) -> dict[str, Any]:
    price, quantity, side, time, _, *name = trade
    return {"trade_id": name[0], "price": price, "quantity": quantity, "side": side, "time": time}


def _offset(trade: list[Any]) -> int:
    return offset_of(_named(trade))


def offset_of(trade: Mapping[str, Any]) -> int:
    """Of its record; -1 where its name is not known."""
    return -1 if trade["trade_id"] is None else int(trade["trade_id"].rpartition("-")[2])


class TickerChannel(Channel):
    def __init__(self, exchange: Any, name: str, symbol: str) -> None:
        super().__init__(exchange, name, name)
        self._symbol = symbol

    def take(self, message: Mapping[str, Any]) -> list[str]:
        note = message["notification"]
        self._check_stale(note, "ticker")
        self.exchange.tickers[self._symbol] = self.exchange.parse_ticker(note, self.exchange.market(self._symbol))
        return [self.name]


class TickersChannel(Channel):
    """`changed` are the symbols that programs were not told of yet."""

    def __init__(self, exchange: Any, name: str) -> None:
        super().__init__(exchange, name, name)
        self.changed: set[str] = set()

    def take(self, message: Mapping[str, Any]) -> list[str]:
        for name, told in message["notification"]["tickers"].items():
            market = self.exchange.safe_market(name)
            if told.get("stale"):
                self.exchange.tickers.pop(market["symbol"], None)
                self.changed.discard(market["symbol"])
            else:
                self.exchange.tickers[market["symbol"]] = self.exchange.parse_ticker(told, market)
                self.changed.add(market["symbol"])
        return [self.name] if self.changed else []


class CandlesChannel(Channel):
    def __init__(self, exchange: Any, name: str, symbol: str, timeframe: str) -> None:
        super().__init__(exchange, name, name)
        self._symbol = symbol
        self._timeframe = timeframe
        exchange.ohlcvs.setdefault(symbol, {})[timeframe] = self.cache = ArrayCacheByTimestamp(
            exchange.safe_integer(exchange.options, "OHLCVLimit", 1000)
        )

    def begin(self) -> None:
        # Which candles ended meanwhile is not told here: rather a beginning than a hole in the middle.
        self.cache.clear()

    def take(self, message: Mapping[str, Any]) -> list[str]:
        note = message["notification"]
        self._check_stale(note, "candles")
        for one in note["candles"]:
            self.cache.append(self.exchange.parse_ohlcv(one))
        return [self.name] if note["candles"] else []


class OrdersChannel(Channel):
    """The open orders, then every change of one."""

    is_private = True
    is_lossless = True

    def __init__(self, exchange: Any) -> None:
        super().__init__(exchange, "account.orders", "account.orders")
        self.cache = ArrayCacheBySymbolById(exchange.safe_integer(exchange.options, "ordersLimit", 1000))
        exchange.orders = self.cache

    def take(self, message: Mapping[str, Any]) -> list[str]:
        is_lost = self.position is not None and "epoch" in message and not message.get("recovered")
        orders = [self.exchange.parse_order(one) for one in message["notification"]["orders"]]
        self._advance(message)
        for one in orders:
            self.cache.append(one)
        if is_lost:
            raise gap_on(self)
        return [self.name, *{f"{self.name}:{one['symbol']}" for one in orders}] if orders else []


class FillsChannel(Channel):
    """The user's own fills, each once."""

    is_private = True
    is_lossless = True

    def __init__(self, exchange: Any) -> None:
        super().__init__(exchange, "account.trades", "account.trades")
        self.cache = ArrayCache(exchange.safe_integer(exchange.options, "tradesLimit", 1000))
        exchange.myTrades = self.cache

    def take(self, message: Mapping[str, Any]) -> list[str]:
        is_first = "epoch" in message
        is_lost = self.position is not None and is_first and not message.get("recovered")
        trades = [self.exchange.parse_trade(one) for one in message["notification"]["trades"]]
        self._advance(message)
        if is_first:
            # Only then one may be told again, and who trades with himself has two of one id.
            known = {(one["id"], one["side"]) for one in self.cache}
            trades = [one for one in trades if (one["id"], one["side"]) not in known]
        for one in trades:
            self.cache.append(one)
        if is_lost:
            raise gap_on(self)
        return [self.name, *{f"{self.name}:{one['symbol']}" for one in trades}] if trades else []


class BalancesChannel(Channel):
    is_private = True

    def __init__(self, exchange: Any) -> None:
        super().__init__(exchange, "account.balances", "account.balances")
        self._told: dict[str, Any] = {}

    def take(self, message: Mapping[str, Any]) -> list[str]:
        note = message["notification"]
        self._check_stale(note, "balances")
        self._told = {**({} if note.get("snapshot") else self._told), **note["balances"]}
        self.exchange.balance = self.exchange.parse_balance({**note, "balances": self._told})
        return [self.name]
