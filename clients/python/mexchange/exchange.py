"""The whole of it: `Exchange`, one gateway (or any instance behind one address) as a program sees it."""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Self

from mexchange.book import Book
from mexchange.connection import Connection, Token
from mexchange.errors import MExchangeError
from mexchange.models import (
    Ack,
    Balance,
    Candle,
    Event,
    Fill,
    Number,
    OrderState,
    Position,
    Side,
    Status,
    Ticker,
    Trade,
    balances,
    candle,
    fill,
    order_state,
    ticker,
    trade,
)
from mexchange.orders import Amend, Cancel, Command, Orders, Place
from mexchange.rest import Rest
from mexchange.streams import Latest, Lossless, Page, Refill

# Items that may wait for a program before a lossless channel is left for a while: some megabytes.
BOUND = 10_000
CANDLES_KEPT = 1500


class Exchange(Rest):
    """Streams and orders over one WebSocket that connects again by itself, and questions over HTTP.

        async with Exchange("http://localhost:3000", token=token) as exchange:
            async for book in exchange.book("KCN/EUR"):
                print(book.best_bid, book.best_ask, book.stale)

    Streams begin when they are made, are iterated over by one task each, and end with `aclose()`, `async with` or the
    exchange. Of one channel there is one at a time.

    Args:
        url: `http://host:port`, also https, ws, wss, a path in front, or the address of `/ws` itself.
        token: a JWT, or an async function that gives one whenever one is needed; None: nobody, for market data.
        timeout: seconds that a command or a question may take, with all its repeats, unless it says `within`.
        bound: items of a lossless stream that may wait for the program.
        random: uniform in [0, 1), for waits.
        websocket: more keyword arguments for `websockets.connect`.

    `async with` raises ConnectionLost if there is no connection within `timeout`, and NotAuthorised for a bad token.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        timeout: float = 10.0,
        bound: int = BOUND,
        random: Callable[[], float] = random_module.random,
        clock: Callable[[], float] = time.monotonic,
        websocket: dict[str, Any] | None = None,
    ) -> None:
        base = url.rstrip("/").removesuffix("/ws")
        scheme, _, rest = base.partition("://")
        secure = {"http": "", "ws": "", "https": "s", "wss": "s"}
        if scheme not in secure or not rest:
            raise ValueError(f"{url!r}: expected http://, https://, ws:// or wss:// and a host")
        self._given = token
        super().__init__(f"http{secure[scheme]}://{rest}", self._current_token, timeout, random)
        self._connection = Connection(
            f"ws{secure[scheme]}://{rest}/ws",
            token,
            request_seconds=timeout,
            random=random,
            clock=clock,
            options=websocket,
        )
        self._orders = Orders(self._connection, seconds=timeout, random=random, can_renew=callable(token))
        self._bound = bound
        self._clock = clock

    async def __aenter__(self) -> Self:
        try:
            await self._connection.start(self._seconds)
        except BaseException:
            await super().aclose()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends all streams and the connection. Orders stay as they are."""
        await self._connection.aclose()
        await super().aclose()

    async def _current_token(self, refused: str | None) -> str | None:
        return await self._connection.token(refused)

    @property
    def is_live(self) -> bool:
        """There is a connection, signed in where there is a token."""
        return self._connection.is_live

    @property
    def user_id(self) -> str | None:
        """Who this is, by the gateway's word."""
        return self._connection.user_id

    @property
    def stale_symbols(self) -> frozenset[str]:
        """Symbols that the gateway cannot read at the moment, as it told listeners of `trades` and `events`."""
        return frozenset(self._connection.stale_symbols)

    # Streams

    def book(
        self, symbol: str, depth: int | str = 10, interval: str = "100ms", *, grouping: int | str = "none"
    ) -> Book:
        """A live book of `depth` levels a side (1 to 1000, or "all"); see `Book`."""
        book = Book(self._connection, f"book.{symbol}.{grouping}.{depth}.{interval}", symbol, self._clock)
        self._connection.add(book)
        return book

    def trades(self, symbol: str, *, since: Position | None = None) -> Lossless[Trade]:
        """The last hundred trades, then each. Lossless."""

        def read(message: dict[str, Any]) -> list[Trade]:
            return [trade(symbol, one) for one in message["notification"]["trades"]]

        async def page(after: str) -> Page[Trade]:
            return await self.trades_page(symbol, after=after, limit=1000)

        refill = Refill(page, lambda one: one.trade_id)
        return self._lossless(f"trades.{symbol}", read, since, refill)

    def events(self, symbol: str | None = None, *, since: Position | None = None) -> Lossless[Event]:
        """Every public event of a symbol, or of all, as the engine wrote it, books first. Lossless."""
        return self._lossless("events" if symbol is None else f"events.{symbol}", _events, since)

    def orders(self, *, since: Position | None = None) -> Lossless[OrderState]:
        """One's open orders, then each state that one takes. After a reconnect the open ones are told again. Lossless."""

        def read(message: dict[str, Any]) -> list[OrderState]:
            return [order_state(one) for one in message["notification"]["orders"]]

        return self._lossless("account.orders", read, since)

    def fills(self, *, since: Position | None = None) -> Lossless[Fill]:
        """The last hundred of one's fills, then each. Lossless."""

        def read(message: dict[str, Any]) -> list[Fill]:
            return [fill(one) for one in message["notification"]["trades"]]

        return self._lossless("account.trades", read, since, key=lambda one: (one.fill_id, one.side))

    def ticker(self, symbol: str, interval: str = "1000ms") -> Latest[Ticker]:
        """The newest ticker; `stale` while nobody can tell."""

        def read(message: dict[str, Any]) -> list[tuple[str, Ticker]]:
            return [(symbol, ticker(symbol, message["notification"]))]

        return self._latest(f"ticker.{symbol}.{interval}", read, stale=_stale)

    def tickers(self, interval: str = "1000ms") -> Latest[Ticker]:
        """The newest ticker of each symbol that changed."""

        def read(message: dict[str, Any]) -> list[tuple[str, Ticker]]:
            return [(symbol, ticker(symbol, one)) for symbol, one in message["notification"]["tickers"].items()]

        return self._latest(f"tickers.{interval}", read, stale=_stale)

    def candles(self, symbol: str, interval: str = "1m") -> Latest[Candle]:
        """The last two candles, then those that changed, the newest of each. What changed over a reconnect is asked for."""

        async def refill(last: Candle) -> list[tuple[int, Candle]]:
            found = await self.candles_page(symbol, interval, from_ms=last.open_time_ms, limit=CANDLES_KEPT)
            return [(one.open_time_ms, one) for one in found]

        def read(message: dict[str, Any]) -> list[tuple[int, Candle]]:
            found = map(candle, message["notification"]["candles"])
            return [(one.open_time_ms, one) for one in found]

        return self._latest(f"candles.{symbol}.{interval}", read, refill=refill, bound=CANDLES_KEPT)

    def balances(self) -> Latest[Balance]:
        """What one has of each currency, then what changed; `stale` while nobody can tell. A gateway that tells none refuses it
        (InvalidFields).
        """

        def read(message: dict[str, Any]) -> list[tuple[str, Balance]]:
            told = message["notification"]
            if told.get("stale"):
                stream.on_lost()
            return [(one.currency, one) for one in balances(told["balances"])]

        stream = self._latest("account.balances", read, stale=_stale, gone=_gone)
        return stream

    def status(self) -> Latest[Status]:
        """What the exchange says of itself. A gateway that has no such channel refuses it (InvalidFields)."""

        def read(message: dict[str, Any]) -> list[tuple[str, Status]]:
            body = message["notification"]
            return [("closing" if "closing_in_ms" in body else "state", Status(body.get("state"), body))]

        return self._latest("status", read)

    def _lossless(
        self,
        channel: str,
        read: Callable[[dict[str, Any]], list[Any]],
        since: Position | None,
        refill: Refill[Any] | None = None,
        key: Callable[[Any], Any] | None = None,
    ) -> Lossless[Any]:
        stream = Lossless(self._connection, channel, read, bound=self._bound, since=since, refill=refill, key=key)
        self._connection.add(stream)
        return stream

    def _latest(self, channel: str, read: Callable[[dict[str, Any]], Iterable[Any]], **more: Any) -> Latest[Any]:
        stream: Latest[Any] = Latest(self._connection, channel, read, **more)
        self._connection.add(stream)
        return stream

    # Commands, as `Orders` has them

    async def place(
        self,
        symbol: str,
        side: Side,
        quantity: Number,
        price: Number | None = None,
        *,
        time_in_force: str | None = None,
        client_order_id: str | None = None,
        deadline_ms: int | None = None,
        within: float | None = None,
        **attributes: Any,
    ) -> Ack:
        """A limit order, or without a price a market order. The bus has it then; `orders` tells what became of it.

        Under a `client_order_id` of your own (else one is made) you may place the same again at any time, in another run
        too: it is one order. OutcomeUnknown carries it.
        """
        named = {} if client_order_id is None else {"client_order_id": client_order_id}
        order = Place(
            symbol=symbol,
            side=side,
            quantity=quantity,
            price=price,
            time_in_force=time_in_force,
            deadline_ms=deadline_ms,
            attributes=attributes,
            **named,
        )
        return await self._orders.place(order, within)

    async def validate(self, order: Place, within: float | None = None) -> None:
        """Raises what `place` would raise, as far as that can be known before; nothing is ordered."""
        await self._orders.validate(order, within)

    async def cancel(
        self,
        order_id: str | None = None,
        *,
        client_order_id: str | None = None,
        symbol: str | None = None,
        within: float | None = None,
    ) -> Ack:
        """CancelFailed, with its `order_status`, where it is closed already: cancelled, perhaps, by an earlier attempt."""
        return await self._orders.cancel(
            Cancel(order_id=order_id, client_order_id=client_order_id, symbol=symbol), within
        )

    async def amend(
        self,
        order_id: str | None = None,
        *,
        client_order_id: str | None = None,
        symbol: str | None = None,
        price: Number | None = None,
        quantity: Number | None = None,
        within: float | None = None,
    ) -> Ack:
        """Another price or total quantity, what is filled included. NoSuchMethod where the engine knows no amends."""
        change = Amend(
            order_id=order_id, client_order_id=client_order_id, symbol=symbol, price=price, quantity=quantity
        )
        return await self._orders.amend(change, within)

    async def batch(self, commands: Iterable[Command], within: float | None = None) -> list[Ack | MExchangeError]:
        """At most twenty `Place`, `Cancel` and `Amend` in one message; what became of each, in order, is returned."""
        return await self._orders.batch(commands, within)

    async def cancel_all(self, symbol: str | None = None, within: float | None = None) -> list[str]:
        """Cancels what is open now; the ids of those orders."""
        return await self._orders.cancel_all(symbol, within)

    async def cancel_all_after(self, seconds: int, within: float | None = None) -> int | None:
        """A dead man's switch: all is cancelled in so many seconds unless this comes again, whatever dies meanwhile."""
        return await self._orders.cancel_all_after(seconds, within)


def _events(message: dict[str, Any]) -> list[Event]:
    told = message["notification"]
    body = told.get("event")
    if body is None:
        return []
    is_snapshot = bool(told.get("snapshot"))
    return [Event(body["type"], body.get("symbol"), body, message.get("partition"), message["seq"], is_snapshot)]


def _stale(last: Any) -> Any:
    return last._replace(stale=True)


def _gone(last: Balance) -> Balance:
    return Balance(last.currency, Decimal(0), Decimal(0))
