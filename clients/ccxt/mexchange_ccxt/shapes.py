"""What the gateway's bodies are in ccxt's words: the description, the parsers, the requests' form. No request is made here.

Numbers come from JSON as text, and go through ccxt's own `parse_number` (a float, or what `number` names) and `Precise`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ccxt.base.decimal_to_precision import TICK_SIZE
from ccxt.base.errors import ArgumentsRequired, InvalidOrder

from mexchange_ccxt.errors import of_problem

SIDES = {"buy": "bid", "sell": "ask"}
_SIDES_BACK = {"bid": "buy", "ask": "sell", "buy": "buy", "sell": "sell"}
STATUSES = {
    "pending": "open",
    "open": "open",
    "partially_filled": "open",
    "filled": "closed",
    "cancelled": "canceled",
    "rejected": "rejected",
}
MOST_LEVELS = 1000
MOST_TRADES = 1000
MOST_CANDLES = 1500

_PLAIN = {"marginMode": False, "trigger": False, "trailing": False, "symbolRequired": False}
_HISTORY = {"limit": MOST_TRADES, "daysBack": None, "untilDays": None}
_FEATURES = {
    "sandbox": True,
    "createOrder": {
        "marginMode": False,
        "triggerPrice": False,
        "triggerPriceType": None,
        "triggerDirection": False,
        "stopLossPrice": False,
        "takeProfitPrice": False,
        "attachedStopLossTakeProfit": None,
        "timeInForce": {"GTC": True, "IOC": True, "FOK": True, "PO": True, "GTD": False},
        "hedged": False,
        "trailing": False,
        "leverage": False,
        "marketBuyByCost": True,
        "marketBuyRequiresPrice": False,
        "selfTradePrevention": False,
        "iceberg": False,
    },
    "createOrders": None,
    "fetchMyTrades": {"marginMode": False, "symbolRequired": False, **_HISTORY},
    "fetchOrder": _PLAIN,
    "fetchOpenOrders": {**_PLAIN, "limit": None},
    "fetchOrders": None,
    "fetchClosedOrders": {**_PLAIN, **_HISTORY, "daysBackCanceled": None},
    "fetchOHLCV": {"limit": MOST_CANDLES},
}

# What ccxt calls something that the gateway's orders have under another name, or not at all.
_READ_HERE = {"clientOrderId", "timeInForce", "postOnly", "cost", "test"}

read_json = partial(json.loads, parse_float=str)


def milliseconds(seconds: Any) -> int | None:
    """A time of the gateway's in ccxt's; 0 is one that is not known. ccxt's own way goes through a float."""
    return None if seconds is None else int(Decimal(seconds) * 1000) or None


class Shapes:
    """A part of both classes, beside ccxt's `Exchange`: with it the rest of `self` is ccxt's."""

    # ccxt's own makes floats of them.
    on_json_response = staticmethod(read_json)
    # Asked for a token when the one in `apiKey` is refused or has ended: a function, or an async one.
    tokenProvider: Any = None

    def describe(self: Any) -> Any:
        return self.deep_extend(
            super().describe(),  # type: ignore[misc]  # of ccxt's Exchange, beside which this is mixed in
            {
                "id": "mexchange",
                "name": "mExchange",
                "countries": [],
                # Twenty a second, what one user may order by default.
                "rateLimit": 50,
                "hostname": "localhost:3000",
                "urls": {
                    "api": {"rest": "https://{hostname}"},
                    "test": {"rest": "http://{hostname}"},
                },
                "has": {
                    "CORS": None,
                    "spot": True,
                    "margin": False,
                    "swap": False,
                    "future": False,
                    "option": False,
                    "cancelAllOrders": True,
                    "cancelAllOrdersAfter": True,
                    "cancelOrder": True,
                    "createOrder": True,
                    "createPostOnlyOrder": True,
                    "editOrder": True,
                    "fetchBalance": True,
                    "fetchCanceledAndClosedOrders": True,
                    "fetchClosedOrders": True,
                    "fetchCurrencies": False,
                    "fetchMarkets": True,
                    "fetchMyTrades": True,
                    "fetchOHLCV": True,
                    "fetchOpenOrders": True,
                    "fetchOrder": True,
                    "fetchOrderBook": True,
                    "fetchOrderTrades": True,
                    "fetchStatus": True,
                    "fetchTicker": True,
                    "fetchTickers": True,
                    "fetchTime": True,
                    "fetchTrades": True,
                },
                "timeframes": {one: one for one in ("1m", "5m", "15m", "1h", "4h", "1d")},
                "requiredCredentials": {"apiKey": True, "secret": False},
                "precisionMode": TICK_SIZE,
                # The gateway tells no rates, and what was paid with each of the user's fills. A configuration can say more.
                "fees": {"trading": {"tierBased": False, "percentage": True, "maker": 0.0, "taker": 0.0}},
                "features": {"spot": _FEATURES},
                "options": {
                    # Of an order, a cancel or an amend: how often it is sent again, and after how many milliseconds at least.
                    "repeats": 2,
                    "repeatDelay": 250,
                },
            },
        )

    def sign(
        self: Any,
        path: str,
        api: Any = ("public",),
        method: str = "GET",
        params: Mapping[str, Any] = {},
        headers: Any = None,
        body: Any = None,
    ) -> dict[str, Any]:
        """The token is in `apiKey`; what is private and has none is not sent."""
        query = self.omit(params, self.extract_params(path))
        filled = {name: self.encode_uri_component(str(value)) for name, value in params.items()}
        url = self.implode_hostname(self.urls["api"]["rest"]) + "/" + self.implode_params(path, filled)
        headers = {}
        if "private" in api:
            self.check_required_credentials()
            headers["Authorization"] = f"Bearer {self.apiKey}"
        if method == "GET":
            url += f"?{self.urlencode(query)}" if query else ""
        else:
            headers["Content-Type"] = "application/json"
            body = self.json(query)
        return {"url": url, "method": method, "headers": headers, "body": body}

    def handle_errors(
        self: Any,
        code: int,
        reason: str,
        url: str,
        method: str,
        headers: Mapping[str, str],
        body: str,
        response: Any,
        request_headers: Any,
        request_body: Any,
    ) -> None:
        if code >= 400:
            path = urlsplit(url).path
            names = {name.lower(): value for name, value in headers.items()}
            begin = urlsplit(self.implode_hostname(self.urls["api"]["rest"])).path
            raise of_problem(
                f"{self.id} {method} {path}", code, path.removeprefix(begin), response, names.get("retry-after")
            )

    # Answers

    def parse_market(self: Any, market: Mapping[str, Any]) -> Any:
        symbol = market["symbol"]
        base_id, quote_id = symbol.split("/")
        base, quote = self.safe_currency_code(base_id), self.safe_currency_code(quote_id)
        number = self.safe_number
        return self.safe_market_structure(
            {
                "id": symbol,
                "symbol": f"{base}/{quote}",
                "base": base,
                "quote": quote,
                "baseId": base_id,
                "quoteId": quote_id,
                "type": "spot",
                "spot": True,
                "margin": False,
                "active": True,
                "precision": {"amount": number(market, "lot"), "price": number(market, "tick")},
                "limits": {
                    "leverage": {"min": None, "max": None},
                    "amount": {"min": number(market, "min_quantity"), "max": number(market, "max_quantity")},
                    "price": {"min": None, "max": None},
                    "cost": {"min": None, "max": number(market, "max_notional")},
                },
                "marginModes": {"cross": False, "isolated": False},
                "info": market,
            }
        )

    def parse_ticker(self: Any, ticker: Mapping[str, Any], market: Any = None) -> Any:
        """What is 0 is not known, but for volumes and changes."""
        timestamp = milliseconds(ticker.get("mark_timestamp"))
        last = self.omit_zero(self.safe_string(ticker, "last_price"))
        best = {side: self.omit_zero(self.safe_string(ticker, f"best_{side}_price")) for side in ("bid", "ask")}
        return self.safe_ticker(
            {
                "symbol": self.safe_symbol(ticker.get("symbol"), market),
                "timestamp": timestamp,
                "datetime": self.iso8601(timestamp),
                "high": self.safe_string(ticker, "high_price_24h"),
                "low": self.safe_string(ticker, "low_price_24h"),
                "bid": best["bid"],
                "bidVolume": self.safe_string(ticker, "best_bid_amount") if best["bid"] else None,
                "ask": best["ask"],
                "askVolume": self.safe_string(ticker, "best_ask_amount") if best["ask"] else None,
                "last": last,
                "change": self._change(ticker, last),
                "baseVolume": self.safe_string(ticker, "volume_24h"),
                "quoteVolume": self.safe_string(ticker, "value_24h"),
                "markPrice": self.omit_zero(self.safe_string(ticker, "mark_price")),
                "info": ticker,
            },
            market,
        )

    def _change(self: Any, ticker: Mapping[str, Any], last: str | None) -> Any:
        """Last less open; without a trade in the 24 hours there is none."""
        has_traded = last is not None and self.omit_zero(self.safe_string(ticker, "high_price_24h")) is not None
        return self.safe_string(ticker, "change_24h") if has_traded else None

    def parse_trade(self: Any, trade: Mapping[str, Any], market: Any = None) -> Any:
        """A public trade, or one of the user's own fills."""
        timestamp = milliseconds(trade["time"])
        is_own = "fill_id" in trade
        symbol = self.safe_symbol(trade.get("symbol"), market)
        told: dict[str, Any] = {
            "id": trade["fill_id" if is_own else "trade_id"],
            "order": trade.get("order_id"),
            "symbol": symbol,
            "side": _SIDES_BACK[trade["side"]],
            "type": None,
            "takerOrMaker": trade.get("liquidity") if is_own else "taker",
            "price": self.safe_string(trade, "price"),
            "amount": self.safe_string(trade, "quantity"),
            "cost": None,
            "timestamp": timestamp,
            "datetime": self.iso8601(timestamp),
            "info": trade,
        }
        if trade.get("fee") is not None:
            # An engine that names no currency is taken to charge in the quote.
            currency = self.safe_currency_code(trade.get("fee_currency")) or symbol.split("/")[1]
            told["fee"] = {"cost": self.safe_string(trade, "fee"), "currency": currency}
        return self.safe_trade(told, market)

    def parse_ohlcv(self: Any, ohlcv: Any, market: Any = None) -> list[Any]:
        return [int(ohlcv[0]), *(self.safe_number(ohlcv, at) for at in range(1, 6))]

    def parse_order(self: Any, order: Mapping[str, Any], market: Any = None, fills: Any = None) -> Any:
        """An order's state. When it was placed the gateway does not tell; `lastUpdateTimestamp` is its last change."""
        return self.safe_order(
            {
                "id": order["order_id"],
                "clientOrderId": order.get("client_order_id"),
                "symbol": self.safe_symbol(order.get("symbol"), market),
                "side": _SIDES_BACK[order["side"]],
                "type": order["order_type"],
                "timeInForce": order.get("time_in_force"),
                "postOnly": self.safe_bool(order, "post_only"),
                "price": self.safe_string(order, "price"),
                "amount": self.safe_string(order, "quantity"),
                "filled": self.safe_string(order, "filled_quantity"),
                "status": STATUSES[order["status"]],
                "timestamp": None,
                "lastUpdateTimestamp": milliseconds(order.get("time")),
                "trades": fills,
                "info": order,
            },
            market,
        )

    def parse_balance(self: Any, response: Mapping[str, Any]) -> Any:
        timestamp = milliseconds(response.get("time"))
        told: dict[str, Any] = {"info": response, "timestamp": timestamp, "datetime": self.iso8601(timestamp)}
        for currency, one in response["balances"].items():
            account = self.account()
            account["free"], account["used"] = self.safe_string(one, "available"), self.safe_string(one, "reserved")
            told[self.safe_currency_code(currency)] = account
        return self.safe_balance(told)

    # Requests

    def order_request(
        self: Any, symbol: str, type: str, side: str, amount: Any, price: Any, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The body of an order; params that ccxt does not know are its attributes, as the gateway declares them."""
        market = self.market(symbol)
        if side not in SIDES:
            raise InvalidOrder(f"{self.id} createOrder() side: expected buy or sell, not {side!r}")
        request = {
            "symbol": market["id"],
            "side": SIDES[side],
            "order_type": type,
            "client_order_id": self.safe_string(params, "clientOrderId") or self.uuid(),
            **self.omit(params, [*_READ_HERE]),
        }
        if type == "limit":
            if price is None:
                raise ArgumentsRequired(f"{self.id} createOrder() requires a price for a limit order")
            request["price"] = self._exact(self.price_to_precision, symbol, price, market["precision"]["price"])
        if (cost := self.safe_string(params, "cost")) is not None:
            request["quote_amount"] = cost
        else:
            request["quantity"] = self._exact(self.amount_to_precision, symbol, amount, market["precision"]["amount"])
        given = self.safe_string_upper(params, "timeInForce")
        if given == "PO" or self.safe_bool(params, "postOnly", False):
            request["post_only"] = True
        if given is not None and given != "PO":
            request["time_in_force"] = given
        if self.safe_bool(params, "test", False):
            request["validate_only"] = True
        return request

    def amend_request(
        self: Any, id: str | None, symbol: str | None, amount: Any, price: Any, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        request = self.cancel_request(id, symbol, params)
        precision = {} if symbol is None else self.market(symbol)["precision"]
        if amount is not None:
            request["quantity"] = self._exact(self.amount_to_precision, symbol, amount, precision.get("amount"))
        if price is not None:
            request["price"] = self._exact(self.price_to_precision, symbol, price, precision.get("price"))
        return request

    def cancel_request(self: Any, id: str | None, symbol: str | None, params: Mapping[str, Any]) -> dict[str, Any]:
        """By one of its names; with its symbol also an order that is older than what the gateway knows."""
        request = {**self.omit(params, [*_READ_HERE])}
        client_order_id = self.safe_string(params, "clientOrderId")
        request |= {"order_id": id} if client_order_id is None else {"client_order_id": client_order_id}
        return request if symbol is None else request | {"symbol": self.market(symbol)["id"]}

    def _exact(self: Any, to_precision: Any, symbol: str | None, value: Any, step: Any) -> str:
        """As text: by ccxt's rule where the gateway tells a step, else with the digits given."""
        if step is None:
            return value if isinstance(value, str) else str(self.number_to_string(value))
        return str(to_precision(symbol, value))

    def acknowledged(self: Any, answer: Mapping[str, Any], request: Mapping[str, Any], symbol: str | None) -> Any:
        """An order as far as an answer to a command tells of it: what its terms are, and nothing of what became of it."""
        market = None if symbol is None else self.market(symbol)
        side = request.get("side")
        return self.safe_order(
            {
                "id": answer.get("order_id"),
                "clientOrderId": answer.get("client_order_id") or request.get("client_order_id"),
                "symbol": self.safe_symbol(request.get("symbol"), market) if request.get("symbol") else None,
                "side": None if side is None else _SIDES_BACK[side],
                "type": request.get("order_type"),
                "timeInForce": request.get("time_in_force"),
                "postOnly": request.get("post_only"),
                "price": request.get("price"),
                "amount": request.get("quantity"),
                "status": "open",
                "info": answer,
            },
            market,
        )
