"""ccxt.pro's watch methods. The connection is ccxt's own client, with its back-off: when it ends, who waits is told by a
NetworkError, and the next call connects and subscribes again, lossless channels with `since`, so nothing is missing.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

from ccxt.base.errors import (
    AuthenticationError,
    BaseError,
    ChecksumError,
    ExchangeNotAvailable,
    InvalidNonce,
    NetworkError,
    PermissionDenied,
    RequestTimeout,
)

from mexchange_ccxt.channels import (
    BalancesChannel,
    BookChannel,
    Broken,
    CandlesChannel,
    Channel,
    FillsChannel,
    GapError,
    Missed,
    OrdersChannel,
    TickerChannel,
    TickersChannel,
    TradesChannel,
    offset_of,
)
from mexchange_ccxt.errors import is_certain, of_answer
from mexchange_ccxt.requests import Requests
from mexchange_ccxt.shapes import MOST_LEVELS, MOST_TRADES, read_json

_NONE: Mapping[str, Any] = {}
_OPEN = "open"
_SIGNED_IN = "signed in"
_METHODS: Mapping[str, str] = {
    "api/order": "private/place_order",
    "api/order/amend": "private/amend_order",
    "api/order/cancel": "private/cancel_order",
    "api/order/cancel_all": "private/cancel_all",
}
_IS_OVER_CONNECTION: ContextVar[bool] = ContextVar("is_over_connection", default=False)


def _over_connection(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The same method, whose command is sent over the WebSocket."""

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        token = _IS_OVER_CONNECTION.set(True)
        try:
            return await method(*args, **kwargs)
        finally:
            _IS_OVER_CONNECTION.reset(token)

    return call


class _Subscription:
    """A channel on one connection. Nothing that comes for it counts before the answer to `request`."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.request: str | None = None
        self.is_live = False
        # What came while what is missing is asked for over REST.
        self.waiting: list[dict[str, Any]] | None = None


class Streams(Requests):
    """What is watched, and orders over the same connection."""

    def __init__(self: Any, config: Any = {}) -> None:  # noqa: B006 (ccxt's own signature)
        self._channels: dict[str, Channel] = {}
        # Hashes of what came while no program waited for it.
        self._unseen: set[str] = set()
        self._last_request = 0
        super().__init__(config)  # type: ignore[call-arg]

    def describe(self: Any) -> Any:
        return self.deep_extend(
            super().describe(),
            {
                "pro": True,
                "has": {
                    "ws": True,
                    "cancelAllOrdersWs": True,
                    "cancelOrderWs": True,
                    "createOrderWs": True,
                    "editOrderWs": True,
                    "watchBalance": True,
                    "watchMyTrades": True,
                    "watchOHLCV": True,
                    "watchOrderBook": True,
                    "watchOrders": True,
                    "watchTicker": True,
                    "watchTickers": True,
                    "watchTrades": True,
                },
                "options": {
                    "watchOrderBook": {"depth": 100, "interval": "100ms"},
                    "watchTicker": {"interval": "1000ms"},
                    "watchTickers": {"interval": "1000ms"},
                },
            },
        )

    # The market

    async def watch_order_book(
        self: Any, symbol: str, limit: int | None = None, params: Mapping[str, Any] = _NONE
    ) -> Any:
        """The best `limit` levels a side; `interval` in params. Always the same object, which goes on changing. Raises
        ExchangeNotAvailable while it cannot be trusted, and ChecksumError where a change did not follow it: both are over
        with the next book, which comes by itself.
        """
        await self.load_markets()
        market = self.market(symbol)
        wanted = {**self.options["watchOrderBook"], **params}
        depth = min(wanted["depth"] if limit is None else limit, MOST_LEVELS)
        name = f"book.{market['id']}.none.{depth}.{wanted['interval']}"
        channel = await self._listen(name, lambda: BookChannel(self, name, market["symbol"]))
        self.orderbooks[market["symbol"]] = channel.book
        return channel.book

    async def watch_trades(
        self: Any,
        symbol: str,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """Those that came since the last call, none left out. InvalidNonce, once, where some are not kept any more."""
        await self.load_markets()
        market = self.market(symbol)
        name = f"trades.{market['id']}"
        await self._listen(name, lambda: TradesChannel(self, name, market["symbol"]))
        return self._news(self.trades[market["symbol"]], market["symbol"], since, limit)

    async def watch_ticker(self: Any, symbol: str, params: Mapping[str, Any] = _NONE) -> Any:
        await self.load_markets()
        market = self.market(symbol)
        name = f"ticker.{market['id']}.{self._interval('watchTicker', params)}"
        await self._listen(name, lambda: TickerChannel(self, name, market["symbol"]))
        return self.tickers[market["symbol"]]

    async def watch_tickers(self: Any, symbols: Any = None, params: Mapping[str, Any] = _NONE) -> Any:
        """Those that changed since the last call, or all with `newUpdates` off; without those that are not known now."""
        await self.load_markets()
        wanted = self.market_symbols(symbols)
        name = f"tickers.{self._interval('watchTickers', params)}"
        while True:
            channel = await self._listen(name, lambda: TickersChannel(self, name))
            told = {one: self.tickers[one] for one in channel.changed if wanted is None or one in wanted}
            channel.changed.difference_update(told)
            if told:
                return told if self.newUpdates else self.filter_by_array(self.tickers, "symbol", wanted)

    async def watch_ohlcv(
        self: Any,
        symbol: str,
        timeframe: str = "1m",
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """The last two, then what changed. After a reconnect it begins anew: older ones are fetchOHLCV's."""
        await self.load_markets()
        market = self.market(symbol)
        name = f"candles.{market['id']}.{self.timeframes[timeframe]}"
        channel = await self._listen(name, lambda: CandlesChannel(self, name, market["symbol"], timeframe))
        if self.newUpdates:
            limit = channel.cache.getLimit(market["symbol"], limit)
        return self.filter_by_since_limit(channel.cache, since, limit, 0, True)

    # The user's own

    async def watch_orders(
        self: Any,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """The open ones, then each that changed. InvalidNonce, once, where closings are not known any more."""
        channel, symbol = await self._listen_own("account.orders", symbol, lambda: OrdersChannel(self))
        return self._news(channel.cache, symbol, since, limit, "lastUpdateTimestamp")

    async def watch_my_trades(
        self: Any,
        symbol: str | None = None,
        since: int | None = None,
        limit: int | None = None,
        params: Mapping[str, Any] = _NONE,
    ) -> Any:
        """The last hundred, then each. InvalidNonce, once, where some are not kept any more."""
        channel, symbol = await self._listen_own("account.trades", symbol, lambda: FillsChannel(self))
        return self._news(channel.cache, symbol, since, limit)

    async def watch_balance(self: Any, params: Mapping[str, Any] = _NONE) -> Any:
        await self._listen_own("account.balances", None, lambda: BalancesChannel(self))
        return self.balance

    # Orders over the connection

    create_order_ws = _over_connection(Requests.create_order)
    edit_order_ws = _over_connection(Requests.edit_order)
    cancel_order_ws = _over_connection(Requests.cancel_order)
    cancel_all_orders_ws = _over_connection(Requests.cancel_all_orders)

    async def _command(self: Any, path: str, request: Mapping[str, Any]) -> Any:
        if not _IS_OVER_CONNECTION.get():
            return await super()._command(path, request)
        return await self._settled(lambda: self._sent(_METHODS[path], request), request)

    async def _sent(self: Any, method: str, request: Mapping[str, Any]) -> Any:
        try:
            client = await self._opened()
            await self._signed_in(client)
        except NetworkError as error:
            raise self._not_sent(error) from error
        try:
            return await self._request(client, method, request)
        except AuthenticationError as error:
            if isinstance(error, PermissionDenied) or self.tokenProvider is None:
                raise
        await self._signed_in_anew(client)
        return await self._request(client, method, request)

    def _not_sent(self: Any, error: NetworkError) -> BaseException:
        """A new one: the one that was met may be told to others, who had sent something."""
        if is_certain(error):
            return error
        unavailable = ExchangeNotAvailable(f"{self.id} {error}")
        unavailable.certain = True
        return unavailable

    # Listening

    def _interval(self: Any, method: str, params: Mapping[str, Any]) -> str:
        given: str = {**self.options[method], **params}["interval"]
        return given

    def _news(
        self: Any, cache: Any, symbol: str | None, since: int | None, limit: int | None, key: str = "timestamp"
    ) -> Any:
        if self.newUpdates:
            limit = cache.getLimit(symbol, limit)
        own = [*cache] if symbol is None else [one for one in cache if one["symbol"] == symbol]
        return self.filter_by_since_limit(own, since, limit, key, True)

    async def _listen_own(self: Any, name: str, symbol: str | None, made: Callable[[], Channel]) -> Any:
        await self.load_markets()
        symbol = None if symbol is None else self.market(symbol)["symbol"]
        return await self._listen(name, made, name if symbol is None else f"{name}:{symbol}"), symbol

    async def _listen(self: Any, name: str, made: Callable[[], Channel], message_hash: str | None = None) -> Any:
        """The channel, once it has something that the program has not seen."""
        message_hash = message_hash or name
        client = await self._opened()
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = made()
        if message_hash not in channel.hashes:
            channel.hashes = (*channel.hashes, message_hash)
        if channel.is_private:
            await self._signed_in(client)
        if message_hash in client.rejections:
            raise client.rejections.pop(message_hash)
        # Before anything is sent: if that fails, it is this that is told.
        future = client.future(message_hash)
        # Once, however often a program gives up waiting for it.
        future.remove_done_callback(_noticed)
        future.add_done_callback(_noticed)
        if name not in client.subscriptions:
            client.subscriptions[name] = _Subscription(channel)
            await self._subscribe(client, channel)
        if message_hash not in self._unseen:
            await asyncio.shield(future)
        self._unseen.discard(message_hash)
        return channel

    async def _subscribe(self: Any, client: Any, channel: Channel) -> None:
        """With `since`, where something was told. What the answer is, `handle_message` sees to."""
        subscription = client.subscriptions[channel.name]
        subscription.is_live, subscription.waiting = False, None
        channel.begin()
        if not channel.is_lossless:
            self._unseen.difference_update(channel.hashes)
        params: dict[str, Any] = {"channels": [channel.name]}
        if channel.position is not None:
            params["since"] = {channel.name: channel.position}
        kind = "private" if channel.is_private else "public"
        subscription.request = self._next_request()
        await self._send(client, subscription.request, f"{kind}/subscribe", params)

    async def _begin_anew(self: Any, client: Any, channel: Channel) -> None:
        await self._send(client, self._next_request(), "unsubscribe", {"channels": [channel.name]})
        if channel.name in client.subscriptions:
            await self._subscribe(client, channel)

    # The connection

    def ws_url(self: Any) -> str:
        """Of `urls.api.ws`, else of the REST address."""
        api = self.urls["api"]
        address = api.get("ws") or "ws" + api["rest"].removeprefix("http")
        url: str = self.implode_hostname(address) + "/ws?stream=none"
        return url

    def client(self: Any, url: str) -> Any:
        """ccxt's, but for how it reads numbers."""
        client = super().client(url)  # type: ignore[misc]

        def read(text: str) -> None:
            try:
                self.handle_message(client, read_json(text))
            except Exception as error:  # the root of what comes: programs that wait are told
                fault = NetworkError(f"{self.id} could not take in a message: {error!r}")
                fault.__cause__ = error
                client.on_error(fault)

        client.handle_text_or_binary_message = read
        return client

    def on_connected(self: Any, client: Any, message: Any = None) -> None:
        super().on_connected(client, message)  # type: ignore[misc]
        client.resolve(True, _OPEN)

    async def _opened(self: Any) -> Any:
        url = self.ws_url()
        client = self.client(url)
        if not client.isConnected:
            try:
                await asyncio.shield(self.watch(url, _OPEN, None, _OPEN))
            except NetworkError as error:
                raise self._not_sent(error) from error
        return client

    async def _signed_in(self: Any, client: Any) -> None:
        """Once a connection, and again when the token has ended."""
        task = client.subscriptions.get(_SIGNED_IN)
        if task is None:
            task = client.subscriptions[_SIGNED_IN] = asyncio.ensure_future(self._sign_in(client))
        try:
            await asyncio.shield(task)
        except BaseError:
            client.subscriptions.pop(_SIGNED_IN, None)
            raise

    async def _signed_in_anew(self: Any, client: Any) -> None:
        client.subscriptions[_SIGNED_IN] = asyncio.ensure_future(self._sign_in(client, is_renewal=True))
        await self._signed_in(client)

    async def _sign_in(self: Any, client: Any, *, is_renewal: bool = False) -> None:
        if is_renewal or (not self.apiKey and self.tokenProvider is not None):
            await self._renew()
        self.check_required_credentials()
        try:
            await self._request(client, "public/auth", {"token": self.apiKey})
        except AuthenticationError as error:
            if is_renewal or isinstance(error, PermissionDenied) or self.tokenProvider is None:
                raise
            await self._sign_in(client, is_renewal=True)

    async def _renew_private(self: Any, client: Any, channels: list[Channel]) -> None:
        """The token has ended while somebody listens: another one, and what is private goes on."""
        try:
            await self._signed_in_anew(client)
        except BaseError as error:
            self._end(client, channels, error)
            return
        for channel in channels:
            await self._subscribe(client, channel)

    def _next_request(self: Any) -> str:
        self._last_request += 1
        return str(self._last_request)

    async def _send(self: Any, client: Any, request_id: str, method: str, params: Mapping[str, Any]) -> None:
        """Whoever waits on the connection is told if it cannot be sent."""
        try:
            await client.send({"id": request_id, "method": method, "params": {**params}})
        except Exception as error:  # whatever the transport has: ccxt's own does the same
            client.on_error(NetworkError(f"{self.id} {error}"))

    async def _request(self: Any, client: Any, method: str, params: Mapping[str, Any]) -> Any:
        request_id = self._next_request()
        future = client.future(request_id)
        await self._send(client, request_id, method, params)
        try:
            return await asyncio.wait_for(future, self.timeout / 1000)
        except TimeoutError:
            client.futures.pop(request_id, None)
            raise RequestTimeout(f"{self.id} {method} was not answered") from None

    # What comes

    def handle_message(self: Any, client: Any, message: Any) -> None:
        if "channel_name" in message:
            subscription = client.subscriptions.get(message["channel_name"])
            if subscription is not None and subscription.is_live:
                self._take(client, subscription, message)
        elif "result" in message or "error" in message:
            self._answered(client, message)
        elif message.get("type") == "auth_status":
            self._token_changed(client, message)

    def _answered(self: Any, client: Any, message: Mapping[str, Any]) -> None:
        request_id = message["id"]
        asked = [one for one in _subscriptions(client) if one.request == request_id]
        if "error" not in message:
            for one in asked:
                one.is_live = True
            client.resolve(message["result"], request_id)
            return
        error = of_answer(self.id, message["error"])
        if asked:
            self._end(client, [one.channel for one in asked], error)
        elif request_id in client.futures:
            client.reject(error, request_id)

    def _take(self: Any, client: Any, subscription: _Subscription, message: dict[str, Any]) -> None:
        channel = subscription.channel
        if subscription.waiting is not None:
            subscription.waiting.append(message)
            return
        try:
            for one in channel.take(message):
                self._tell(client, one)
        except Missed:
            subscription.waiting = [message]
            self.spawn(self._look_for_missed, client, subscription)
        except Broken as error:
            subscription.is_live, subscription.request = False, None
            if error.is_told:
                self._reject(client, channel, ChecksumError(f"{self.id} {error}"))
            self.spawn(self._begin_anew, client, channel)
        except GapError as error:
            self._reject(client, channel, InvalidNonce(str(error)))
            self._unseen.update(channel.hashes)
        except NetworkError as error:  # the gateway says that it is stale
            self._reject(client, channel, error)

    def _tell(self: Any, client: Any, message_hash: str) -> None:
        self._unseen.add(message_hash)
        client.resolve(True, message_hash)

    def _reject(self: Any, client: Any, channel: Channel, error: BaseError) -> None:
        if not channel.is_lossless:
            self._unseen.difference_update(channel.hashes)
        for one in channel.hashes:
            client.reject(error, one)

    def _end(self: Any, client: Any, channels: list[Channel], error: BaseError) -> None:
        """They are not subscribed any more; the next call tries again."""
        for channel in channels:
            client.subscriptions.pop(channel.name, None)
            self._reject(client, channel, error)

    def _token_changed(self: Any, client: Any, message: Mapping[str, Any]) -> None:
        own = [one.channel for one in _subscriptions(client) if one.channel.is_private]
        if message["status"] == "narrowed":
            ended = [one for one in own if one.name in message["channels"]]
            self._end(client, ended, of_answer(self.id, {"code": 10006, "message": "the token does not allow it"}))
            return
        client.subscriptions.pop(_SIGNED_IN, None)
        if self.tokenProvider is None:
            self._end(client, own, AuthenticationError(f"{self.id} the token has ended"))
        elif own:
            self.spawn(self._renew_private, client, own)

    async def _look_for_missed(self: Any, client: Any, subscription: _Subscription) -> None:
        """What the channel does not have REST may have. What it has not is told as a gap, before what follows it."""
        channel = subscription.channel
        assert isinstance(channel, TradesChannel) and channel.position is not None
        assert subscription.waiting is not None
        first = subscription.waiting[0]
        to = first["seq"]
        is_whole, pages = True, []
        request = {"symbol": self.market(channel.symbol)["id"], "after": channel.last_id, "limit": MOST_TRADES}
        try:
            while is_whole:
                told = await self._ask("api/trades", "GET", request)
                is_whole = told["epoch"] == first["epoch"] and not told["gap"]
                pages.append(told["trades"] if told["epoch"] == first["epoch"] else [])
                if len(pages[-1]) < MOST_TRADES or offset_of(pages[-1][-1]) >= to:
                    break
                request["after"] = pages[-1][-1]["trade_id"]
        except BaseError:
            is_whole = False
        waiting = subscription.waiting
        if client.subscriptions.get(channel.name) is not subscription or waiting is None:
            return  # the connection is another one, which asks for itself
        subscription.waiting = None
        if not is_whole:
            self._reject(
                client, channel, InvalidNonce(f"{self.id} on {channel.name} some trades are not kept any more")
            )
        for page in pages:
            if channel.append(page, channel.position["seq"], to):
                self._tell(client, channel.name)
            for one in page:
                channel.position["seq"] = max(channel.position["seq"], min(offset_of(one), to))
        for message in [{**first, "recovered": True}, *waiting[1:]]:
            self._take(client, subscription, message)


def _noticed(future: asyncio.Future[Any]) -> None:
    """Nobody may be waiting for it any more: asyncio is not to complain."""
    if not future.cancelled():
        future.exception()


def _subscriptions(client: Any) -> list[_Subscription]:
    return [one for one in client.subscriptions.values() if isinstance(one, _Subscription)]
