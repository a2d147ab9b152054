"""A live gateway and docs/asyncapi.json: what the document gives as examples of requests is sent, and what really arrives
is held to its schemas. The document as such: tests/test_asyncapi.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer

from core.errors import RpcCode
from tests.core.fakes import delta, snapshot
from tests.core.tokens import SECRET, token
from tests.integration.clients import WebSocket
from tests.support.asyncapi import DOCUMENT_FILE, REPLIES, SENT, code_of, examples, faults, kinds, read_json
from tests.support.gateway import REPOSITORY, GatewayProcess
from tests.test_asyncapi import (
    MAX_SUBSCRIPTIONS,
    PRIVATE,
    QUIET,
    REFUSED,
    REQUESTS,
    SYMBOL,
    Received,
)  # fmt: skip
from tools.kafka.running import quiet_client

DEADLINE_SECONDS = 60.0


@pytest.fixture(scope="module")
def market() -> Iterator[GatewayProcess]:
    """The demo's market, and one symbol that nobody trades."""
    settings = yaml.safe_load((REPOSITORY / "conf/demo.yaml").read_text(encoding="utf-8"))
    settings |= {"bind": "127.0.0.1:0", "drain_seconds": 0, "websocket": {"max_subscriptions": MAX_SUBSCRIPTIONS}}
    del settings["orders"]["attributes"]  # with them the document that is served has more than the file
    settings["instruments"].append({"symbol": QUIET, "tick": 0.01, "lot": 0.001, "min_quantity": 0.001})
    with GatewayProcess(settings, {"JWT_SECRET": SECRET}) as process:
        process.wait_ready(DEADLINE_SECONDS)
        with WebSocket(process.url) as client:
            client.receive_until(lambda text: b'"fill"' in text and SYMBOL.encode() in text)
        yield process


def good_token(user: str = "alice", seconds: float = 3600) -> str:
    return token(sub=user, exp=int(time.time() + seconds))


def signed_in(client: WebSocket, user: str = "alice") -> None:
    answered, _ = client.call("public/auth", {"token": good_token(user)}, request_id="auth")
    assert faults("authenticated", answered) == []


@pytest.mark.parametrize(("message", "example", "payload"), REQUESTS)
def test_gateway_answers_an_example_as_documented(
    market: GatewayProcess, message: str, example: str, payload: dict[str, Any]
) -> None:
    success, *refused = REPLIES[message]
    with WebSocket(market.url, "/ws?stream=none") as client:
        payload = json.loads(json.dumps(payload, default=float))
        if message in ("auth", "typeAuth", "login"):
            payload = json.loads(json.dumps(payload).replace(token_of(payload), good_token()))
        elif message in PRIVATE or message.startswith("typeCancel"):
            signed_in(client, f"{message} {example}")
            for order in examples(["placeOrder"])[:1] if "ancel" in message or message == "amendOrder" else ():
                client.call("private/place_order", order[2]["params"])
            if message in ("cancel", "amend"):
                [(*_, buy)] = examples(["buy"])
                bought = client.call("private/buy", json.loads(json.dumps(buy["params"], default=float)))[0]["result"]
                if "order_id" in payload["params"]:
                    payload["params"]["order_id"] = bought["order_id"]
        client.send(payload)
        if not refused:
            answered, before = client.call("public/ping", request_id="last")
            assert faults("pong", answered) == []
            told = [read_json(text) for text in before]
        else:
            wanted = payload.get("id")
            told = [read_json(client.receive())]
            while told[0].get("id") != wanted or kinds(told[0]):
                assert kinds(told.pop(0)), "what comes before the answer is told unasked"
                told = [read_json(client.receive())]
            assert faults(success, told.pop()) == []
            _, before = client.call("public/ping", request_id="last")
            told = [read_json(text) for text in before]
    for text in told:
        assert kinds(text), text


def token_of(payload: dict[str, Any]) -> str:
    found: str = payload.get("params", payload)["token"]
    return found


@pytest.mark.parametrize(("code", "text"), REFUSED)
def test_gateway_refuses_as_documented(market: GatewayProcess, code: RpcCode, text: bytes) -> None:
    with WebSocket(market.url, "/ws?stream=none") as client:
        client.send(text)
        assert code_of(read_json(client.receive())) == code


# What the gateway says unasked: every kind is received at least once.


def collect(client: WebSocket, is_enough: Callable[[Received], object], is_older: bool = False) -> Received:
    """Messages by their kind until there are enough; each has to be one that is documented, and of one kind.

    Without a trade the shapes of both dialects are the same.
    """
    deadline = time.monotonic() + DEADLINE_SECONDS
    received: Received = {}
    while not is_enough(received):
        left = deadline - time.monotonic()
        assert left > 0, f"within {DEADLINE_SECONDS:g} s only { ({k: len(v) for k, v in received.items()}) }"
        message = read_json(client.receive(left))
        found = kinds(message)
        assert found, (message, {name: faults(name, message)[:3] for name in SENT})
        if len(found) == 2:
            found = [name for name in found if name.endswith("Older") is is_older]
        assert len(found) == 1, (message, found)
        received.setdefault(found[0], []).append(message)
    return received


def with_trades(messages: list[Any] | None) -> list[Any]:
    return [message for message in messages or () if message["notification"]["trades"]]


# Name of a scenario: channels, whether in an older dialect, and the kinds that it is about.
LIVE = {
    "book": (["book.{}.none.10.raw", "book.{}.5.all.100ms"], False, {"bookSnapshot", "bookChange"}),
    "older book": (["book.{}.none.all.raw"], True, {"bookSnapshot", "bookChangeOlder"}),
    "ticker": (["ticker.{}.raw"], False, {"ticker"}),
    "lwt": (["lwt.{}.50ms"], False, {"lwt"}),
    "candles": (["candles.{}.1m", "candles.{}.1d"], False, {"candles"}),
    "tickers": (["tickers.50ms"], False, {"tickers"}),
    "trades": (["trades.{}"], False, {"trades"}),
    "older trades": (["trades.{}"], True, {"tradesOlder"}),
    "events": (["events.{}"], False, {"events"}),
    "all events": (["events"], False, {"allEvents"}),
    "stream": ([], False, {"fill", "orderbookSnapshot", "orderbookDelta"}),
}
ELSEWHERE = {"bookHeartbeat", "stale", "streamStatus", "status", "closing"}
PRIVATELY = {
    "accountBalances",
    "accountOrders",
    "accountTrades",
    "orderAccepted",
    "orderFilled",
    "orderCancelled",
    "orderRejected",
    "orderAmended",
    "orderAmendRejected",
    "authStatus",
}


def test_every_kind_is_received_in_some_test() -> None:
    assert set().union(*(expected for _, _, expected in LIVE.values())) | ELSEWHERE | PRIVATELY == set(SENT)


@pytest.mark.parametrize("scenario", LIVE)
def test_gateway_says_on_each_channel_what_is_documented(market: GatewayProcess, scenario: str) -> None:
    forms, is_older, expected = LIVE[scenario]
    channels = [form.format(SYMBOL) for form in forms]

    def is_enough(received: Received) -> bool:
        if received.keys() < expected or sum(map(len, received.values())) < 5:
            return False
        changes = [name for name in ("bookChange", "bookChangeOlder", "trades", "tradesOlder") if name in expected]
        fresh = [m for name in changes for m in with_trades(received.get(name)) if "snapshot" not in m["notification"]]
        return bool(fresh) or not changes

    with WebSocket(market.url, "/ws?stream=none" if channels else "/ws") as client:
        if is_older:
            for channel in channels:
                client.send({"type": "subscribe", "channel": channel})
        elif channels:
            client.subscribe(*channels)
        received = collect(client, is_enough, is_older)
    assert expected <= received.keys()
    assert received.keys() <= expected | ELSEWHERE
    if channels:
        firsts: dict[str, Any] = {}
        received.pop("streamStatus", None)  # of no channel
        for message in sorted((m for told in received.values() for m in told), key=lambda m: "epoch" not in m):
            firsts.setdefault(message["channel_name"], message)
        assert firsts.keys() == set(channels)
        assert all("epoch" in first and first["notification"]["snapshot"] for first in firsts.values())


@pytest.mark.parametrize(
    ("channel", "kind"), [("trades.{}", "trades"), ("events.{}", "events"), ("events", "allEvents")]
)
def test_gateway_resumes_as_documented(market: GatewayProcess, channel: str, kind: str) -> None:
    name = channel.format(SYMBOL)
    with WebSocket(market.url, "/ws?stream=none") as client:
        client.subscribe(name)
        first = collect(client, lambda received: received)[kind][0]
    seq = {str(first["partition"]): first["seq"]} if name == "events" else first["seq"]
    for epoch, recovered in ((first["epoch"], True), ("another", False)):
        since = {name: {"epoch": epoch, "seq": seq}}
        request = {"id": 1, "method": "public/subscribe", "params": {"channels": [name], "since": since}}
        assert faults("subscribe", request) == []
        with WebSocket(market.url, "/ws?stream=none") as client:
            client.send(request)
            assert faults("subscribed", read_json(client.receive())) == []
            again = collect(client, lambda received: received)[kind][0]
        assert (again["recovered"], again["epoch"]) == (recovered, first["epoch"])
        assert ("snapshot" in again["notification"]) is not recovered


def test_gateway_tells_quiet_from_stale_as_documented_with_every_digit(market: GatewayProcess) -> None:
    digits = "12345678901234567890.123456789012345678"
    found = re.search(r"embedded broker on (\S+):", market.log)
    assert found
    producer = Producer(quiet_client(found.group(1)))
    book, ticker, lwt = f"book.{QUIET}.none.10.raw", f"ticker.{QUIET}.raw", f"lwt.{QUIET}.raw"

    def publish(record: bytes) -> None:
        producer.produce("market-events", record, QUIET)
        assert producer.flush(DEADLINE_SECONDS) == 0

    with WebSocket(market.url, "/ws?stream=none") as client:
        client.subscribe(book, ticker, lwt)
        publish(snapshot(QUIET, bids=[{"price": "1.40", "quantity": digits}]))
        received = collect(client, lambda got: "bookHeartbeat" in got)
        levels = received["bookSnapshot"][0]["notification"]["bid_changes"]
        assert levels == [[Decimal("1.40"), 0, Decimal(digits)]]
        [best] = {message["notification"]["b"][1] for message in received["lwt"]}
        assert best == Decimal(digits)
        assert {"ticker", "lwt"} <= received.keys()
        publish(delta(QUIET, price="9", side="bid"))
        stale = collect(client, lambda got: len(got.get("stale", ())) == 3)["stale"]
        assert {message["channel_name"] for message in stale} == {book, ticker, lwt}


# What only a user is told.


def place(client: WebSocket, **terms: object) -> None:
    order = {"symbol": SYMBOL, "side": "bid", "order_type": "limit", "price": "1.00", "quantity": "0.100", **terms}
    client.send({"id": "place", "method": "private/place_order", "params": order})


def test_gateway_tells_a_user_of_orders_as_documented(market: GatewayProcess) -> None:
    """A limit order is placed and cancelled; a market order trades; where nobody trades one is rejected."""
    with WebSocket(market.url, "/ws?stream=none") as client:
        signed_in(client, "watched")
        client.call("private/subscribe", {"channels": ["account.orders", "account.trades", "account.balances"]})
        place(client, client_order_id="resting")
        received = collect_private(client, lambda got: "orderAccepted" in got)
        client.send(
            {"id": "amend", "method": "private/amend_order", "params": {"client_order_id": "resting", "price": "1.01"}}
        )
        received |= collect_private(client, lambda got: "orderAmended" in got)
        client.send({"id": "cancel", "method": "private/cancel_order", "params": {"client_order_id": "resting"}})
        received |= collect_private(client, lambda got: "orderCancelled" in got)
        place(client, order_type="market", price=None, quantity="0.001")
        received |= collect_private(client, lambda got: "orderFilled" in got)
        place(client, symbol=QUIET, order_type="market", price=None)
        received |= collect_private(client, lambda got: "orderRejected" in got)
    # What the simulated engine would refuse of an amend the gateway refuses before.
    assert received.keys() == PRIVATELY - {"authStatus", "orderAmendRejected"}


def collect_private(client: WebSocket, is_enough: Callable[[Received], object]) -> Received:
    """As `collect`, over the answers to orders: until there is enough, and account.orders has said something too."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    received: Received = {}
    while not (is_enough(received) and "accountOrders" in received):
        message = read_json(client.receive(deadline - time.monotonic()))
        if "id" in message:
            assert not faults("orderPlaced", message) or not faults("cancelRequested", message), message
        else:
            assert kinds(message), message
            received.setdefault(kinds(message)[0], []).append(message)
    return received


def test_gateway_tells_of_a_token_that_ends_as_documented(market: GatewayProcess) -> None:
    with WebSocket(market.url, "/ws?stream=none") as client:
        deadline = time.monotonic() + DEADLINE_SECONDS
        # Two seconds of the leeway are left, at times fewer than it takes to say so.
        while "result" not in client.call("public/auth", {"token": good_token("brief", 2 - 60)})[0]:
            assert time.monotonic() < deadline
        assert kinds(read_json(client.receive())) == ["authStatus"]
        answered, _ = client.call("private/cancel_all")
        assert code_of(answered) == RpcCode.NOT_AUTHORISED
        signed_in(client, "brief")
        assert "result" in client.call("private/cancel_all")[0]


def test_gateway_refuses_orders_as_documented(market: GatewayProcess) -> None:
    with WebSocket(market.url, "/ws?stream=none") as client:
        signed_in(client, "refused")
        order = {"symbol": SYMBOL, "side": "bid", "order_type": "limit", "price": "1.00", "quantity": "1"}
        named = {**order, "client_order_id": "once"}
        client.call("private/place_order", named)
        wanted: list[tuple[str, object, RpcCode]] = [
            ("private/place_order", {**order, "price": "1.001"}, RpcCode.BAD_PARAMS),
            ("private/place_order", {**named, "price": "1.01"}, RpcCode.ORDER_REFUSED),
            ("private/cancel_order", {"client_order_id": "never"}, RpcCode.CANCEL_FAILED),
            ("private/cancel_order", {}, RpcCode.BAD_PARAMS),
            ("private/subscribe", {"channels": ["account.all"]}, RpcCode.BAD_PARAMS),
            ("private/set_cancel_on_disconnect", {}, RpcCode.BAD_PARAMS),
            ("public/auth", {"token": good_token("another")}, RpcCode.NOT_AUTHORISED),
            ("public/auth", {"token": "x"}, RpcCode.NOT_AUTHORISED),
        ]
        for method, params, code in wanted:
            assert code_of(client.call(method, params)[0]) == code, (method, params)
        refusals: list[Any] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not refusals:
            assert time.monotonic() < deadline, "nobody was ever told that these are too many"
            for number in range(40):
                client.send({"id": number, "method": "private/place_order", "params": order})
            answered: set[int] = set()
            while len(answered) < 40:
                message = read_json(client.receive())
                if "id" in message:
                    answered.add(message["id"])
                    refusals += [message] if "error" in message else []
        assert {code_of(refusal) for refusal in refusals} == {RpcCode.TOO_MANY_REQUESTS}


# Over HTTP.


def test_document_is_served_as_it_is_and_revalidated(market: GatewayProcess) -> None:
    whole = market.get("/asyncapi.json")
    assert (whole.status, whole.body) == (200, DOCUMENT_FILE.read_bytes())
    assert whole.headers["Content-Type"] == "application/json"
    assert whole.headers["Cache-Control"] == "no-cache"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    etag = whole.headers["ETag"]
    again = market.get("/asyncapi.json", {"If-None-Match": etag})
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)
    assert market.get("/asyncapi.json", {"If-None-Match": '"other"'}).status == 200


def test_document_is_had_by_get_and_head_alone(market: GatewayProcess) -> None:
    head = market.request("HEAD", "/asyncapi.json")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["Content-Length"]) == DOCUMENT_FILE.stat().st_size
    refused = market.post("/asyncapi.json", {})
    assert refused.status == 405
    assert refused.headers["Allow"] == "GET, HEAD, OPTIONS"
