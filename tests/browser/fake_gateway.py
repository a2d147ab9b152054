"""A gateway that says exactly what a test wants: answers no real one gives on demand."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from playwright.sync_api import BrowserContext, Page, WebSocketRoute, expect

from tests.browser.serving import ORIGIN

INSTRUMENTS = [
    {"symbol": "KCN/EUR", "tick": "0.01", "lot": "0.001", "min_quantity": "0.010"},
    {"symbol": "BTC/EUR", "tick": "0.5", "lot": "0.0001", "min_quantity": "0.0001"},
]
KCN_BOOK = "book.KCN/EUR.none.50.100ms"
KCN_TRADES = "trades.KCN/EUR"
KCN_EVENTS = "events.KCN/EUR"
KCN_CANDLES = "candles.KCN/EUR.1m"
TICKERS = "tickers.1000ms"
BIDS = [("24.90", "0", "1.5"), ("24.8", "0", "2")]
ASKS = [("25.10", "0", "0.25"), ("25.2", "0", "4")]
UNTRADED = dict.fromkeys(("high_price_24h", "low_price_24h", "volume_24h", "value_24h", "change_24h"), 0)
TICKER = {**UNTRADED, "last_price": 0, "best_bid_price": 0, "best_ask_price": 0, "mark_timestamp": 1_700_000_000}
START = 1_700_000_000
DEADLINE_SECONDS = 20.0
ORDER_ID = "6f1c2d1e-0000-5000-8000-000000000001"


def numbers(changes: Iterable[tuple[str, ...]]) -> str:
    """Exact JSON numbers, as the gateway writes them."""
    return "[" + ",".join(f"[{','.join(change)}]" for change in changes) + "]"


class FakeGateway:
    """Answers subscribes, pushes what it is told to, and gives the next order the answer it was told."""

    def __init__(self, context: BrowserContext, page: Page, instruments: list[dict[str, str]], **more: object) -> None:
        """`more` is in the answer of `/api/instruments` besides."""
        self.page = page
        self.channels: list[str] = []
        self.subscribes: list[dict[str, Any]] = []
        self.dropped: list[str] = []
        self.orders: list[dict[str, Any]] = []
        self.cancels: list[dict[str, Any]] = []
        self.amends: list[dict[str, Any]] = []
        # Whose token is whose; what `account.orders` tells first, and what `GET /api/order/{id}` does.
        self.users = {"t-alice": "alice", "t-bob": "bob"}
        self.account: list[dict[str, Any]] = []
        self.known: dict[str, dict[str, Any]] = {}
        # The answers of `GET /api/candles`, the newest candles first and then older ones; the last one again and again.
        self.candles: list[dict[str, Any]] = [{"seq": -1, "candles": [], "stale": False}]
        self.candles_asked: list[str] = []
        # What is offered of a user's own: the first notification of each channel, and the answers by path and query.
        self.offered: dict[str, dict[str, Any]] = {}
        # What else is said with those, and how they were asked for.
        self.with_offered: dict[str, dict[str, Any]] = {}
        self.private_subscribes: list[dict[str, Any]] = []
        self.records: dict[str, dict[str, Any]] = {}
        self.authorizations: list[str | None] = []
        self.methods: list[str] = []
        self.before_answer: Callable[[], None] | None = None
        self.answer: tuple[int, dict[str, str], dict[str, Any]] | None = None
        self._sockets: list[WebSocketRoute] = []
        self._seq = 0
        self.list_instruments(instruments, **more)
        context.route(f"{ORIGIN}/api/instruments", self._get_instruments)
        context.route(f"{ORIGIN}/api/order", lambda route: self._post(route, self.orders))
        context.route(f"{ORIGIN}/api/order/*", self._get)
        context.route(f"{ORIGIN}/api/order/cancel", lambda route: self._post(route, self.cancels))
        context.route(f"{ORIGIN}/api/order/amend", lambda route: self._post(route, self.amends))
        context.route(f"{ORIGIN}/api/order/cancel_all", lambda route: self._post(route, self.cancels))
        context.route(re.compile(re.escape(ORIGIN) + r"/api/(fills|order/history)\?"), self._get_records)
        context.route(f"{ORIGIN}/api/candles?*", self._get_candles)
        context.route_web_socket(re.compile(r"/ws"), self._connect)

    def open(self, address: str = "/") -> None:
        self.page.goto(ORIGIN + address)
        expect(self.page.locator("#connection-text")).to_have_text("Live")
        # What comes before the page has asked for it is nothing to it.
        self.wait_until(lambda: any(channel.startswith("book.") for channel in self.channels))
        self.book(bids=BIDS, asks=ASKS, snapshot=True)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until the page has asked for something: what comes in is handled only while Playwright waits."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"only asked for {self.channels} with {self.methods}"
            self.page.wait_for_timeout(5)

    def list_instruments(self, instruments: list[dict[str, str]], **more: object) -> None:
        self._instruments = json.dumps({"instruments": instruments, **more})

    def _get_instruments(self, route: Any) -> None:
        route.fulfill(status=200, content_type="application/json", body=self._instruments)

    def _post(self, route: Any, kept: list[dict[str, Any]]) -> None:
        kept.append(route.request.post_data_json)
        self.authorizations.append(route.request.headers.get("authorization"))
        if self.before_answer:
            self.before_answer()
        if self.answer is None:
            route.abort("connectionreset")
            return
        status, headers, body = self.answer
        kind = "application/json" if status < 400 else "application/problem+json"
        route.fulfill(status=status, headers={"content-type": kind, **headers}, body=json.dumps(body))

    def _get(self, route: Any) -> None:
        state = self.known.get(route.request.url.rpartition("/")[2])
        self.authorizations.append(route.request.headers.get("authorization"))
        route.fulfill(
            status=404 if state is None else 200,
            content_type="application/json",
            body=json.dumps(state or problem(404)),
        )

    def _get_records(self, route: Any) -> None:
        self.authorizations.append(route.request.headers.get("authorization"))
        body = self.records[route.request.url.removeprefix(f"{ORIGIN}/api/")]
        route.fulfill(status=200, content_type="application/json", body=json.dumps(body))

    def _get_candles(self, route: Any) -> None:
        self.candles_asked.append(route.request.url.partition("?")[2])
        answer = self.candles.pop(0) if len(self.candles) > 1 else self.candles[0]
        route.fulfill(status=200, content_type="application/json", body=json.dumps(answer))

    def _connect(self, socket: WebSocketRoute) -> None:
        self._sockets.append(socket)

        def on_message(text: str | bytes) -> None:
            request = json.loads(text)
            method, params = request["method"], request["params"]
            self.methods.append(method)
            if method == "public/subscribe":
                self.channels.extend(params["channels"])
                self.subscribes.append(params)
            elif method == "unsubscribe":
                self.dropped.extend(params["channels"])
            told: dict[str, Any] = {"result": params.get("channels", "pong")}
            if method == "public/auth":
                user_id = self.users.get(params["token"])
                told = {"result": {"access_token": params["token"], "token_type": "bearer", "user_id": user_id}}
                if user_id is None:
                    told = {"error": {"code": 10000, "message": "the token's signature is wrong"}}
            private = params["channels"] if method == "private/subscribe" else []
            if private:
                self.private_subscribes.append(params)
            if not {*private} <= {"account.orders", *self.offered}:
                told = {"error": {"code": -32602, "message": "no such channel"}}
                private = []
            socket.send(json.dumps({"id": request["id"], **told}))
            if method == "public/subscribe" and "status" in params["channels"]:
                self.tell_status()
            for channel in private:
                if channel == "account.orders":
                    self.tell_orders(*self.account, snapshot=True)
                else:
                    more = self.with_offered.get(channel, {})
                    self.send({"channel_name": channel, "notification": self.offered[channel], **more})

        socket.on_message(on_message)

    def send(self, message: dict[str, Any]) -> None:
        self._sockets[-1].send(json.dumps(message))

    def tell(self, channel: str, notification: dict[str, Any], **more: Any) -> None:
        self._seq += 1
        self.send({"channel_name": channel, "seq": self._seq, "notification": notification, **more})

    def book(
        self, *, bids: Iterable[tuple[str, ...]] = (), asks: Iterable[tuple[str, ...]] = (), **flags: bool
    ) -> None:
        self._seq += 1
        extra = "".join(f',"{name}":{json.dumps(value)}' for name, value in flags.items())
        self._sockets[-1].send(
            f'{{"channel_name":"{KCN_BOOK}","seq":{self._seq},"notification":{{"trades":[],"bid_changes":{numbers(bids)},'
            f'"ask_changes":{numbers(asks)},"time":{START + self._seq}.250{extra}}}}}'
        )

    def trade(self, price: str, quantity: str, side: str = "buy") -> None:
        """A public trade: it does not say whose."""
        self._seq += 1
        self._sockets[-1].send(
            f'{{"channel_name":"{KCN_TRADES}","seq":{self._seq},"notification":'
            f'{{"trades":[[{price},{quantity},"{side}",{START + self._seq}.250,false]]}}}}'
        )

    def fill(self, price: str, quantity: str, side: str = "buy", **ids: str) -> None:
        """A trade, and the engine's event of it to whoever follows those."""
        self.trade(price, quantity, side)
        if KCN_EVENTS in self.channels:
            fill = {"type": "fill", "symbol": "KCN/EUR", "price": price, "quantity": quantity}
            time = {"timestamp": (START + self._seq) * 1000 + 250}
            event = {**fill, **time, "buy_order_id": "b", "sell_order_id": "s", **ids}
            self.send({"channel_name": KCN_EVENTS, "seq": self._seq, "notification": {"event": event}})

    def tell_orders(self, *states: dict[str, Any], **flags: bool) -> None:
        """A notification of `account.orders`."""
        self.send({"channel_name": "account.orders", "notification": {"orders": states, **flags}})

    def tell_tickers(self, tickers: dict[str, dict[str, Any]], **flags: bool) -> None:
        self.tell(TICKERS, {"tickers": tickers, **flags})

    def tell_status(self, **told: object) -> None:
        """A notification of `status`; of an exchange that is online unless told otherwise."""
        self.send({"channel_name": "status", "notification": {"state": "online", "symbols": {}, **told}})

    def drop(self, code: int, reason: str = "") -> None:
        self._sockets[-1].close(code=code, reason=reason)


def place(page: Page, price: str, quantity: str) -> None:
    # A ticket that shows its first market, or another one, is emptied.
    expect(page.locator("#ticket-symbol")).not_to_be_empty()
    page.fill("#price", price)
    page.fill("#quantity", quantity)
    page.click("#place")


ACCEPTED: tuple[int, dict[str, str], dict[str, Any]] = (
    202,
    {},
    {"order_id": ORDER_ID, "client_order_id": "c", "status": "accepted"},
)


def problem(status: int, **more: Any) -> dict[str, Any]:
    kind = {"type": "urn:mexchange:problem:of-a-test", "title": "A title"}
    return {**kind, "status": status, "detail": "a detail", "error": "an error", "request_id": "r1", **more}


def order_state(order_id: str = ORDER_ID, status: str = "open", filled: str = "0", **more: Any) -> dict[str, Any]:
    """A state as the gateway tells it."""
    return {
        "order_id": order_id,
        "client_order_id": None,
        "symbol": "KCN/EUR",
        "side": "bid",
        "order_type": "limit",
        "time_in_force": "GTC",
        "price": "24.95",
        "quantity": "1",
        "filled_quantity": filled,
        "status": status,
        "time": START + 0.5,
        **more,
    }
