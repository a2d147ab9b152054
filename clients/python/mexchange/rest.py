"""What is asked for once, over HTTP. A question changes nothing, so it is asked again as long as there is time."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from mexchange.errors import (
    ConnectionLost,
    GatewayError,
    NotAuthorised,
    NotFound,
    TooManyRequests,
    Unavailable,
    of_problem,
)
from mexchange.models import (
    Balance,
    Candle,
    Fill,
    OrderState,
    Ticker,
    Trade,
    balances,
    candle,
    decode,
    fill,
    order_state,
    ticker,
    trade_of_rest,
)
from mexchange.streams import Page


class Rest:
    """Questions.

    Args:
        url: of the gateway, without a path of its own.
        token: gives the token of the user who asks, or None; another one than what it is given, if there is one.
        seconds: how long a question may take, with all its repeats.
        transport: httpx's, for who wants another one.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[str | None], Awaitable[str | None]],
        seconds: float,
        random: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = httpx.AsyncClient(base_url=url, transport=transport, verify=_trusted())
        self._token = token
        self._seconds = seconds
        self._random = random

    async def aclose(self) -> None:
        await self._client.aclose()

    async def get(self, path: str, *, is_private: bool = False, **query: Any) -> Any:
        """The JSON of a GET. Raises GatewayError, or ConnectionLost where nothing answered in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        pause, is_renewed = 0.1, False
        while True:
            error: ConnectionLost | GatewayError
            headers: Mapping[str, str] = {}
            token = await self._token(None) if is_private else None
            if token is not None:
                headers = {"Authorization": f"Bearer {token}"}
            try:
                params = {name: value for name, value in query.items() if value is not None}
                left = max(0.001, deadline - loop.time())
                answer = await self._client.get(path, params=params, headers=headers, timeout=left)
            except httpx.TransportError as lost:
                error = ConnectionLost(f"GET {path}: {lost or type(lost).__name__}")
                error.__cause__ = lost
                wait = 0.0
            else:
                if answer.is_success:
                    return decode(answer.text)
                error = _problem(answer)
                if isinstance(error, NotAuthorised) and not is_renewed and token is not None:
                    is_renewed = True
                    if await self._token(token) != token:
                        continue
                if not isinstance(error, TooManyRequests | Unavailable):
                    raise error
                wait = error.retry_after or 0.0
            wait += pause * (1 + self._random())
            pause *= 2
            if loop.time() + wait >= deadline:
                raise error
            await asyncio.sleep(wait)

    # The market

    async def instruments(self) -> dict[str, Any]:
        """As `GET /api/instruments` tells it: `instruments`, and what else orders may carry; decimals are text."""
        told: dict[str, Any] = await self.get("/api/instruments")
        return told

    async def time_ms(self) -> int:
        """The gateway's clock, milliseconds since the Unix epoch."""
        return int((await self.get("/api/time"))["time_ms"])

    async def trades_page(
        self, symbol: str, *, limit: int | None = None, before: str | None = None, after: str | None = None
    ) -> Page[Trade]:
        """Trades around a `trade_id`, oldest first."""
        asked = 100 if limit is None else limit
        told = await self.get("/api/trades", symbol=symbol, limit=asked, before=before, after=after)
        trades = [trade_of_rest(symbol, one) for one in told["trades"]]
        if after is None:
            trades.reverse()
        return Page(trades, not told["gap"], len(trades) < asked, told["epoch"])

    async def candles_page(
        self,
        symbol: str,
        interval: str = "1m",
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        limit: int | None = None,
    ) -> list[Candle]:
        """Oldest first: from `from_ms` on, else the last ones."""
        query: dict[str, Any] = {"symbol": symbol, "interval": interval, "from": from_ms, "to": to_ms, "limit": limit}
        return [candle(one) for one in (await self.get("/api/candles", **query))["candles"]]

    async def tickers_page(self) -> dict[str, Ticker]:
        """Of all symbols that are known."""
        told = await self.get("/api/ticker")
        return {symbol: ticker(symbol, one) for symbol, one in told["tickers"].items()}

    # One's own

    async def order(self, order_id: str | None = None, *, client_order_id: str | None = None) -> OrderState:
        """One order, open or not, by one of its names. Raises NotFound."""
        if (order_id is None) == (client_order_id is None):
            raise TypeError("give order_id or client_order_id")
        if order_id is not None:
            return order_state(await self.get(f"/api/order/{quote(order_id, safe='')}", is_private=True))
        found = await self.get("/api/order", is_private=True, client_order_id=client_order_id)
        if not found["orders"]:
            raise NotFound(f"there is no order {client_order_id!r}", "not-found")
        return order_state(found["orders"][0])

    async def open_orders(self) -> list[OrderState]:
        return [order_state(one) for one in (await self.get("/api/order", is_private=True))["orders"]]

    async def history(
        self,
        symbol: str | None = None,
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        limit: int | None = None,
        before: str | None = None,
    ) -> list[OrderState]:
        """Closed orders, the last one first; `before` is the order_id of one of them."""
        query = {"symbol": symbol, "from": from_ms, "to": to_ms, "limit": limit, "before": before}
        return [order_state(one) for one in (await self.get("/api/order/history", is_private=True, **query))["orders"]]

    async def fills_page(
        self,
        symbol: str | None = None,
        *,
        order_id: str | None = None,
        limit: int | None = None,
        before: str | None = None,
        after: str | None = None,
    ) -> Page[Fill]:
        """Own fills around a `fill_id`, oldest first. InvalidFields for an id that is not kept any more."""
        asked = 100 if limit is None else limit
        query = {"symbol": symbol, "order_id": order_id, "limit": asked, "before": before, "after": after}
        told = await self.get("/api/fills", is_private=True, **query)
        fills = [fill(one) for one in told["fills"]]
        if after is None:
            fills.reverse()
        return Page(fills, True, len(fills) < asked, told["epoch"])

    async def balance(self) -> list[Balance]:
        """NotFound where this gateway tells no balances."""
        return balances((await self.get("/api/balance", is_private=True))["balances"])


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Whom all clients of a process trust: to read it takes 30 ms, in which the loop stands still."""
    return httpx.create_ssl_context()


def _problem(answer: httpx.Response) -> GatewayError:
    try:
        body = decode(answer.text)
    except ValueError:
        body = None  # of a proxy in between
    return of_problem(answer.status_code, body, answer.headers.get("Retry-After"))
