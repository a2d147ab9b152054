"""Plays the program's part of a scene (clients/conformance/README.md) with the exchange class for ccxt, as ccxt's programs
do: a NetworkError is followed by the same call again.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ccxt.base.errors import BaseError, InvalidNonce, NetworkError, RequestTimeout
from mexchange_ccxt import mexchange

from clients.conformance.server import ScriptedServer
from tests.clients.scene_player import Player

SYMBOL = "KCN/EUR"
NAMES = {
    -32601: "no_such_method",
    -32602: "bad_params",
    10000: "not_authorised",
    10001: "order_refused",
    10002: "cancel_failed",
    10003: "too_many_requests",
    10004: "bus_unavailable",
    10006: "insufficient_scope",
}


def name_of(error: BaseError) -> str:
    """The name of the contract's code."""
    return "outcome_unknown" if type(error) is RequestTimeout else NAMES[error.kind]  # type: ignore[attr-defined]


class Stream:
    """One thing that a program watches, and what it has of it."""

    def __init__(self, exchange: Any, kind: str, symbol: str = SYMBOL, depth: int = 0, interval: str = "") -> None:
        calls = {
            "book": lambda: exchange.watch_order_book(symbol, depth, {"interval": interval}),
            "trades": lambda: exchange.watch_trades(symbol),
            "ticker": lambda: exchange.watch_ticker(symbol),
            "orders": lambda: exchange.watch_orders(),
            "fills": lambda: exchange.watch_my_trades(),
        }
        self._watch = calls[kind]
        self._kind = kind
        self._items: list[Any] = []
        self._last: Any = None
        self.bids: list[Any] = []
        self.asks: list[Any] = []
        self.stale = True

    async def __anext__(self) -> Any:
        while not self._items:
            try:
                told = await self._watch()
            except InvalidNonce:
                return {"gap": True}
            except NetworkError:
                if self._kind == "ticker" and not self._last["stale"]:
                    self._last = {**self._last, "stale": True}
                    return self._last
            else:
                self._items += [_item(self._kind, one) for one in (told if isinstance(told, list) else [told])]
        self._last = self._items.pop(0)
        return self._last

    async def changed(self) -> None:
        """Of a book."""
        try:
            told = await self._watch()
        except NetworkError:
            self.stale = True
        else:
            self.bids, self.asks, self.stale = [*told["bids"]], [*told["asks"]], False


def _item(kind: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """As a scene has it."""
    match kind:
        case "trades":
            return {"trade_id": told["id"], "price": told["price"]}
        case "fills":
            side = {"buy": "bid", "sell": "ask"}[told["side"]]
            return {"fill_id": told["id"], "side": side, "price": told["price"]}
        case "ticker":
            return {"mark_price": told["markPrice"], "stale": False}
    return {"order_id": told["id"], "price": told["price"], "status": told["info"]["status"]}


class CcxtPlayer(Player):
    """A program of ccxt's."""

    errors = BaseError

    def listen(self, kind: str, **given: Any) -> Any:
        return Stream(self._exchange, kind, **given)

    def seen(self, item: Any) -> Any:
        return {"raises": name_of(item)} if isinstance(item, BaseError) else item

    async def call(self, method: str, given: Any, **_within: Any) -> Any:
        order = await self._ordered(method, **given)
        return {"order_id": order["id"], "duplicate": order["info"].get("duplicate", False), "raises": None}

    async def _ordered(
        self,
        method: str,
        symbol: str | None = None,
        side: str = "",
        quantity: str | None = None,
        price: str | None = None,
        order_id: str | None = None,
        client_order_id: str | None = None,
    ) -> Any:
        params = {} if client_order_id is None else {"clientOrderId": client_order_id}
        match method:
            case "place":
                direction = {"bid": "buy", "ask": "sell"}[side]
                return await self._exchange.create_order_ws(symbol, "limit", direction, quantity, price, params)
            case "cancel":
                return await self._exchange.cancel_order_ws(order_id, symbol, params)
            case "amend":
                return await self._exchange.edit_order_ws(order_id, symbol, None, None, quantity, price, params)
        raise ValueError(f"no call that is played: {method}")


async def play(scene: Mapping[str, Any]) -> None:
    """Raises AssertionError for whatever is not as the scene wants it, on either side."""
    tokens = [*scene.get("tokens", [])]

    def token() -> str:
        return tokens.pop(0) if len(tokens) > 1 else tokens[0]

    async with ScriptedServer(scene) as server:
        config = {"number": Decimal, "urls": {"api": {"rest": server.url}}, "options": {"repeatDelay": 0}}
        exchange = mexchange({**config, **({"tokenProvider": token} if tokens else {})})
        exchange.timeout_on_exit = 0
        exchange.set_markets([exchange.parse_market({"symbol": SYMBOL})])
        try:
            await CcxtPlayer(exchange, server.url).play(scene["program"])
        except Exception as error:
            raise AssertionError(f"{error!r}; the gateway's side: {server.verdict()}") from error
        finally:
            await exchange.close()
        assert server.verdict() == [], server.verdict()
