"""ccxt's unified methods over REST, once for both classes: the blocking one runs each of these to its end (`blocking`), for
none of them waits for anything but `_ask` and `_pause`, which do not wait there.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ccxt.base.errors import (
    AuthenticationError,
    BaseError,
    ExchangeNotAvailable,
    NetworkError,
    NotSupported,
    OrderNotFound,
    PermissionDenied,
    RequestTimeout,
)

from mexchange_ccxt.errors import is_certain, is_fault
from mexchange_ccxt.shapes import MOST_CANDLES, MOST_LEVELS, MOST_TRADES, Shapes, milliseconds

_NONE: Mapping[str, Any] = {}
# What a market that is announced to be so is for ccxt.
_STATES = {"online": "ok", "cancel_only": "maintenance", "halted": "shutdown", "maintenance": "maintenance"}


class Requests(Shapes):
    """What is asked, and what is ordered. Raises ccxt's classes (`errors.ERRORS`)."""

    # What the two classes do each in their way

    async def _ask(self: Any, path: str, method: str, request: Mapping[str, Any], *, private: bool = False) -> Any:
        try:
            return await self._asked(path, method, request, private)
        except AuthenticationError as error:
            if isinstance(error, PermissionDenied) or not private or self.tokenProvider is None:
                raise
            await self._renew()
            return await self._asked(path, method, request, private)

    async def _asked(self: Any, path: str, method: str, request: Mapping[str, Any], private: bool) -> Any:
        answer = self.request(path, ["private" if private else "public"], method, {**request})
        return await answer if inspect.isawaitable(answer) else answer

    async def _pause(self: Any, duration: int) -> None:
        slept = self.sleep(duration)
        if inspect.isawaitable(slept):
            await slept

    async def _ready(self: Any) -> None:
        loaded = self.load_markets()
        if inspect.isawaitable(loaded):
            await loaded

    async def _renew(self: Any) -> None:
        """Ask the program for another token. What it raises is told as an AuthenticationError."""
        try:
            token = self.tokenProvider()
            self.apiKey = await token if inspect.isawaitable(token) else token
        except Exception as error:  # the program's own code
            raise AuthenticationError(f"{self.id} tokenProvider gave no token: {error!r}") from error

    # What can be traded

    async def fetch_markets(self: Any, params: Mapping[str, Any] = _NONE) -> Any:
        told = await self._ask("api/instruments", "GET", params)
        self.options["amend"] = told.get("amend", False)
        return [self.parse_market(one) for one in told["instruments"]]

    async def fetch_status(self: Any, params: Mapping[str, Any] = _NONE) -> Any:
        told = await self._ask("api/status", "GET", params)
        return {
            "status": _STATES.get(told["state"], "error"),
            "updated": None,
            "eta": told.get("until_ms"),
            "url": None,
            "info": told,
        }

    async def fetch_time(self: Any, params: Mapping[str, Any] = _NONE) -> Any:
        return (await self._ask("api/time", "GET", params))["time_ms"]

    # The market

    async def fetch_order_book(
        self: Any, symbol: str, limit: int | None = None, params: Mapping[str, Any] = _NONE
    ) -> Any:
        """`nonce` is the offset that all instances agree on. A book that cannot be trusted is ExchangeNotAvailable."""
        await self._ready()
        market = self.market(symbol)
        request = {"symbol": market["id"]} | ({} if limit is None else {"depth": min(limit, MOST_LEVELS)})
        told = await self._ask("api/book", "GET", {**request, **params})
        self._check_fresh(told, symbol)
        book = self.parse_order_book(told, market["symbol"], milliseconds(told.get("time")))
        return {**book, "nonce": told["seq"]}

    async def fetch_ticker(self: Any, symbol: str, params: Mapping[str, Any] = _NONE) -> Any:
        await self._ready()
        market = self.market(symbol)
        told = await self._ask("api/ticker", "GET", {"symbol": market["id"], **params})
        self._check_fresh(told, symbol)
        return self.parse_ticker(told, market)

    async def fetch_tickers(self: Any, symbols: Any = None, params: Mapping[str, Any] = _NONE) -> Any:
        """Without those of which nothing is known at the moment."""
        await self._ready()
        told = await self._ask("api/ticker", "GET", params)
        tickers = [
            self.parse_ticker(one, self.safe_market(symbol))
            for symbol, one in told["tickers"].items()
            if not one.get("stale")
        ]
        return self.filter_by_array(tickers, "symbol", self.market_symbols(symbols))

    async def fetch_ohlcv(
        self: Any,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """With `since` the first ones from there on, else the last; `until` (milliseconds) in params."""
        await self._ready()
        market = self.market(symbol)
        request: dict[str, Any] = {"symbol": market["id"], "interval": self.timeframes[timeframe]}
        if since is not None:
            request["from"] = since
        if "until" in params:
            request["to"] = params["until"]
        if limit is not None:
            request["limit"] = min(limit, MOST_CANDLES)
        told = await self._ask("api/candles", "GET", {**request, **self.omit(params, "until")})
        return self.parse_ohlcvs(told["candles"], market, timeframe, since, limit)

    async def fetch_trades(
        self: Any,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """As far back as they are kept; `before` and `after` in params take the `id` of a trade."""
        await self._ready()
        market = self.market(symbol)
        told = await self._pages("api/trades", "trades", "trade_id", {"symbol": market["id"], **params}, since, limit)
        return self._in_order(told, market, since, limit)

    # The user's own

    async def fetch_balance(self: Any, params: Mapping[str, Any] = _NONE) -> Any:
        """NotSupported where the gateway is not told of balances."""
        await self._ready()
        return self.parse_balance(await self._ask("api/balance", "GET", params, private=True))

    async def fetch_order(self: Any, id: str, symbol: str | None = None, params: Mapping[str, Any] = _NONE) -> Any:
        """With its fills, and so with what was paid on average and in fees; `clientOrderId` in params in place of `id`."""
        await self._ready()
        client_order_id = self.safe_string(params, "clientOrderId")
        if client_order_id is None:
            told = await self._ask("api/order/{order_id}", "GET", {"order_id": id, **params}, private=True)
        else:
            found = await self._ask("api/order", "GET", {"client_order_id": client_order_id}, private=True)
            if not found["orders"]:
                raise OrderNotFound(f"{self.id} fetchOrder() knows no order with the clientOrderId {client_order_id}")
            told = found["orders"][0]
        fills: list[Any] = []
        if self.omit_zero(told["filled_quantity"]) is not None:
            request = {"order_id": told["order_id"]}
            fills = await self._pages("api/fills", "fills", "fill_id", request, 0, None, private=True)
        market = self.safe_market(told.get("symbol"))
        # Of a user who trades with himself each fill has two sides.
        own = [one for one in fills if one["side"] == told["side"]]
        return self.parse_order(told, market, self._in_order(own, market, None, None) if own else None)

    async def fetch_open_orders(
        self: Any,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """`since` is compared with their last change: when they were placed is not told."""
        await self._ready()
        told = await self._ask("api/order", "GET", params, private=True)
        return self._listed(told["orders"], symbol, since, limit)

    async def fetch_canceled_and_closed_orders(
        self: Any,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """By when they closed, as far as closed orders are kept."""
        await self._ready()
        request = {**self.omit(params, "until")} | ({} if symbol is None else {"symbol": self.market(symbol)["id"]})
        if since is not None:
            request["from"] = since
        if "until" in params:
            request["to"] = params["until"]
        told = await self._pages("api/order/history", "orders", "order_id", request, since, limit, private=True)
        return self._listed(told, symbol, since, limit)

    async def fetch_closed_orders(
        self: Any,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """Those that were filled, of the closed ones that are kept."""
        told = self.fetch_canceled_and_closed_orders(symbol, since, None, params)
        orders = await told if inspect.isawaitable(told) else told
        filled = [one for one in orders if one["status"] == "closed"]
        return self.filter_by_since_limit(filled, since, limit, "lastUpdateTimestamp")

    async def fetch_my_trades(
        self: Any,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """As far back as they are kept. Who trades with himself has two of one `id`, told apart by `side`."""
        await self._ready()
        market = None if symbol is None else self.market(symbol)
        request = {**params} | ({} if market is None else {"symbol": market["id"]})
        told = await self._pages("api/fills", "fills", "fill_id", request, since, limit, private=True)
        return self._in_order(told, market, since, limit)

    async def fetch_order_trades(
        self: Any,
        id: str,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        told = self.fetch_my_trades(symbol, since, limit, {"order_id": id, **params})
        return await told if inspect.isawaitable(told) else told

    # Orders

    async def create_order(
        self: Any,
        symbol: str,
        type: str,
        side: str,
        amount: Any,
        price: Any = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """Open as soon as the bus has it. `clientOrderId`, `timeInForce`, `postOnly`, `cost`, `test` and the order's attributes
        in params. RequestTimeout: it may be there; the same `clientOrderId` can be ordered again at any time.
        """
        await self._ready()
        request = self.order_request(symbol, type, side, amount, price, params)
        return self.acknowledged(await self._command("api/order", request), request, symbol)

    async def edit_order(
        self: Any,
        id: str,
        symbol: str,
        type: str,
        side: str,
        amount: Any = None,
        price: Any = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """It keeps its id; `amount` is the new total, what is filled included. NotSupported where the engine cannot."""
        await self._ready()
        self._check_amends()
        request = self.amend_request(id, symbol, amount, price, params)
        return self.acknowledged(await self._command("api/order/amend", request), request, symbol)

    async def cancel_order(self: Any, id: str, symbol: str | None = None, params: Mapping[str, Any] = _NONE) -> Any:
        """OrderNotFound where it is closed already, by an earlier attempt perhaps: its `order_status` says how."""
        await self._ready()
        request = self.cancel_request(id, symbol, params)
        return self.acknowledged(await self._command("api/order/cancel", request), request, symbol)

    async def cancel_all_orders(self: Any, symbol: str | None = None, params: Mapping[str, Any] = _NONE) -> Any:
        """Those that cancels went out for."""
        await self._ready()
        request = {**params} | ({} if symbol is None else {"symbol": self.market(symbol)["id"]})
        told = await self._command("api/order/cancel_all", request)
        return [self.acknowledged({"order_id": one}, {}, None) for one in told["order_ids"]]

    async def cancel_all_orders_after(self: Any, timeout: int, params: Mapping[str, Any] = _NONE) -> Any:  # noqa: ASYNC109 (ccxt's name)
        """All of the user's, in so many milliseconds (whole seconds are what counts), unless this comes again; 0: not."""
        return await self._command("api/order/cancel_all_after", {"timeout_seconds": -(-timeout // 1000), **params})

    async def _command(self: Any, path: str, request: Mapping[str, Any]) -> Any:
        async def send() -> Any:
            return await self._ask(path, "POST", request, private=True)

        return await self._settled(send, request)

    async def _settled(self: Any, send: Callable[[], Awaitable[Any]], request: Mapping[str, Any]) -> Any:
        """The answer, or the truth. What is certainly not done, and what is not known, is sent again as it was: an order
        under its client_order_id is one order, and a cancel or an amend that comes twice changes nothing more
        (docs/contract.md#retries). Whatever is refused behind an attempt of unknown outcome is of unknown outcome, for
        that one may be there; but for what became of a closed order.
        """
        unknown: BaseException | None = None
        for left in reversed(range(self.options["repeats"] + 1)):
            try:
                return await send()
            except BaseError as error:
                last = error
            may_pass = isinstance(last, NetworkError) or is_fault(last)
            if may_pass and not is_certain(last) and not self._was_never_sent(last):
                unknown = last
            if getattr(last, "order_status", None) is not None or not may_pass:
                break
            if left:
                wait = (getattr(last, "retry_after", None) or 0) * 1000
                await self._pause(max(wait, self.options["repeatDelay"]))
        if unknown is None or getattr(last, "order_status", None) is not None:
            raise last
        name = request.get("client_order_id") or request.get("order_id") or "all of them"
        raise RequestTimeout(f"{self.id} it is not known what became of {name}: {unknown}") from last

    # Helpers

    def _was_never_sent(self, error: BaseException) -> bool:
        """No connection was there to send it on, as far as the library below can tell."""
        return False

    async def _pages(
        self: Any,
        path: str,
        name: str,
        key: str,
        request: Mapping[str, Any],
        since: int | None,
        limit: int | None,
        *,
        private: bool = False,
    ) -> list[Any]:
        """The newest ones, oldest first; with `since` page by page as far back as that."""
        size = MOST_TRADES if since is not None else min(limit or 100, MOST_TRADES)
        told = [*(await self._ask(path, "GET", {"limit": size, **request}, private=private))[name]]
        page = told
        while (
            since is not None
            and "after" not in request
            and len(page) >= size
            and (milliseconds(page[-1]["time"]) or 0) >= since
            and page[-1][key] is not None
        ):
            asked = {"limit": size, **request, "before": page[-1][key]}
            page = (await self._ask(path, "GET", asked, private=private))[name]
            told += page
        return told if "after" in request else told[::-1]

    def _in_order(self: Any, trades: list[Any], market: Any, since: int | None, limit: int | None) -> Any:
        """As they traded: ccxt's own sorts those of one millisecond by the text of their ids."""
        told = [self.parse_trade(one, market) for one in trades]
        return self.filter_by_since_limit(self.sort_by(told, "timestamp"), since, limit)

    def _listed(self: Any, orders: Any, symbol: str | None, since: int | None, limit: int | None) -> Any:
        told = [self.parse_order(one, self.safe_market(one.get("symbol"))) for one in orders]
        told = self.sort_by(told, "lastUpdateTimestamp")
        if symbol is not None:
            told = [one for one in told if one["symbol"] == self.market(symbol)["symbol"]]
        return self.filter_by_since_limit(told, since, limit, "lastUpdateTimestamp")

    def _check_fresh(self: Any, told: Mapping[str, Any], symbol: str) -> None:
        if told["stale"]:
            raise ExchangeNotAvailable(f"{self.id} the book of {symbol} cannot be trusted at the moment")

    def _check_amends(self: Any) -> None:
        if not self.options.get("amend", True):
            raise NotSupported(f"{self.id} editOrder() is not offered by this gateway")


def blocking(method: Callable[..., Any]) -> Callable[..., Any]:
    """A coroutine function that never has to wait, as a function."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        coroutine = method(*args, **kwargs)
        try:
            coroutine.send(None)
        except StopIteration as ended:
            return ended.value
        raise RuntimeError(f"{method.__name__} waits for something")

    return call
