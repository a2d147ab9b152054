"""Orders over REST and what of them is on the order topic (docs/contract.md#http, #order-commands)."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.clients import WebSocket, without_proxy
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.support.gateway import Answer

NAMESPACE = uuid.UUID("7e6f3c52-7d0a-4c8e-9d52-0b6f2c0f4a11")


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    """Takes any symbol from anybody."""
    settings = {"auth": {"mode": "optional"}, "orders": {"id_secret": str(NAMESPACE)}}
    with Gateway.on(market, settings) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def ruled(market: Market) -> Iterator[Gateway]:
    """Another instance with the same secret, which trades two symbols, one of them by default."""
    settings = {
        "auth": {"mode": "optional"},
        "orders": {"id_secret": str(NAMESPACE), "default_symbol": "KCN/EUR"},
        "kafka": {"consume": "broadcast"},
        "instruments": [
            {"symbol": "KCN/EUR", "tick": "0.05", "lot": "0.001", "min_quantity": "0.01"},
            {"symbol": "BTC/EUR", "tick": "0.5", "lot": "0.0001", "min_quantity": "0.0001"},
        ],
    }
    with Gateway.on(market, settings) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def strict(market: Market) -> Iterator[Gateway]:
    """Takes orders from those only who can say who they are."""
    settings = {"auth": {"mode": "required", "secret": "s" * 32}, "kafka": {"consume": "broadcast"}}
    with Gateway.on(market, settings) as gateway:
        yield gateway


def limit(symbol: str, **more: object) -> dict[str, object]:
    return {"symbol": symbol, "side": "bid", "order_type": "limit", "price": "1.10", "quantity": "2", **more}


def market_order(symbol: str, **more: object) -> dict[str, object]:
    return {"symbol": symbol, "side": "ask", "order_type": "market", "quantity": "2", **more}


def place(gateway: Gateway, body: object) -> dict[str, Any]:
    answer = gateway.post("/api/order", body)
    assert answer.status == 202, answer.body
    told = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    assert (set(told), told["status"]) == ({"order_id", "client_order_id", "status"}, "accepted")
    return dict(told)


def check_problem(answer: Answer, status: int) -> dict[str, Any]:
    """The members that every error has (RFC 9457, and two more: docs/contract.md#problems)."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    for member in ("type", "title", "detail", "error", "request_id"):
        assert isinstance(told[member], str) and told[member], member
    assert told["request_id"] == answer.headers["X-Request-Id"]
    return dict(told)


def fields(answer: Answer) -> list[str]:
    """The fields of a 422's errors."""
    errors = check_problem(answer, 422)["errors"]
    assert all(set(error) == {"field", "message"} and error["message"] for error in errors)
    return [error["field"] for error in errors]


# What gets onto the topic.


def test_order_is_on_the_topic_exactly_as_it_was_given_once_it_is_accepted(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    before = int(time.time() * 1000)
    told = place(gateway, limit(symbol, price="0.10", quantity="5.500"))
    after = int(time.time() * 1000)
    [record] = market.orders_of(symbol)
    assert record.key == symbol.encode()
    command = json.loads(record.value or b"")
    assert before <= command.pop("timestamp") <= after
    assert uuid.UUID(command["order_id"]).version == 4
    assert command == {
        "type": "place_order",
        "order_id": told["order_id"],
        "symbol": symbol,
        "side": "bid",
        "order_type": "limit",
        "price": "0.10",
        "quantity": "5.500",
        "user_id": None,
        "client_order_id": None,
        "terms_hash": None,
        "time_in_force": "GTC",
    }


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_records_have_the_requests_id_and_trace_and_the_answer_how_long_kafka_took(
    gateway: Gateway, market: Market
) -> None:
    symbol = fresh_symbol()
    placed = gateway.post("/api/order", limit(symbol), {"X-Request-Id": "mine", "Traceparent": TRACE})
    cancelled = gateway.post("/api/order/cancel", {"order_id": placed.json()["order_id"]}, {"Traceparent": "nonsense"})
    first, second = market.orders_of(symbol)
    assert list(first.headers) == [("x-request-id", b"mine"), ("traceparent", TRACE.encode())]
    assert list(second.headers) == [("x-request-id", cancelled.headers["X-Request-Id"].encode())]
    for answer in (placed, cancelled):
        assert re.fullmatch(r"bus;dur=[0-9]+\.[0-9]{3}", answer.headers["Server-Timing"])


def test_market_order_is_on_the_topic_without_a_price_and_as_ioc(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    place(gateway, market_order(symbol))
    [command] = market.commands_of(symbol)
    assert (command["order_type"], command["price"], command["time_in_force"]) == ("market", None, "IOC")
    assert (command["side"], command["quantity"]) == ("ask", "2")


@pytest.mark.parametrize(
    ("body", "written"),
    [
        ("0.10", "0.10"),
        ("1", "1"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("0.0000000000000000000000000000000000001", "0.0000000000000000000000000000000000001"),
        ("1e-7", "0.0000001"),
        ("1.50E+3", "1500"),
    ],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_decimals_reach_the_topic_with_every_digit(
    gateway: Gateway, market: Market, body: str, written: str, quote: str
) -> None:
    symbol = fresh_symbol()
    given = f"{quote}{body}{quote}"
    place(
        gateway,
        b'{"symbol":"%b","side":"bid","order_type":"limit","price":%b,"quantity":%b}'
        % (symbol.encode(), given.encode(), given.encode()),
    )
    [command] = market.commands_of(symbol)
    assert (command["price"], command["quantity"]) == (written, written)


@pytest.mark.parametrize("time_in_force", ["GTC", "IOC", "FOK"])
def test_limit_order_takes_every_time_in_force(gateway: Gateway, market: Market, time_in_force: str) -> None:
    symbol = fresh_symbol()
    place(gateway, limit(symbol, time_in_force=time_in_force))
    assert [command["time_in_force"] for command in market.commands_of(symbol)] == [time_in_force]


def test_client_order_id_gives_one_order_id_on_every_instance(gateway: Gateway, ruled: Gateway, market: Market) -> None:
    name = f"mine-{uuid.uuid4().hex}"
    body = limit("KCN/EUR", client_order_id=name)
    first = place(gateway, body)
    # The other instance publishes it once more unless it has read the first record by now, and then says so.
    again = ruled.post("/api/order", body)
    second = again.json()
    assert again.status == 202 and set(second) - set(first) <= {"duplicate"}
    assert first["client_order_id"] == second["client_order_id"] == name
    derived = uuid.uuid5(NAMESPACE, json.dumps([None, name], separators=(",", ":")))
    assert first["order_id"] == second["order_id"] == str(derived)
    terms = json.dumps(["KCN/EUR", "bid", "limit", "1.1", "2", "GTC"], separators=(",", ":"))
    commands = [one for one in market.commands_of("KCN/EUR") if one["client_order_id"] == name]
    assert {command["order_id"] for command in commands} == {str(derived)}
    assert {command["terms_hash"] for command in commands} == {hashlib.sha256(terms.encode()).hexdigest()}


def test_terms_hash_is_that_of_the_normalised_terms(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    place(gateway, limit(symbol, client_order_id="a", price="1.10", quantity="2"))
    place(gateway, limit(symbol, client_order_id="b", price=1.1, quantity="2.000", time_in_force="GTC"))
    place(gateway, limit(symbol, client_order_id="c", price="1.2"))
    one, same, other = [command["terms_hash"] for command in market.commands_of(symbol)]
    assert one == same != other


def test_orders_of_a_symbol_are_on_the_topic_in_the_order_of_their_answers(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    placed = [place(gateway, limit(symbol, price=str(number)))["order_id"] for number in range(1, 21)]
    assert [command["order_id"] for command in market.commands_of(symbol)] == placed


def test_orders_at_once_are_each_on_the_topic_once(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    with ThreadPoolExecutor(32) as pool:
        told = list(pool.map(lambda n: place(gateway, limit(symbol, quantity=str(n)))["order_id"], range(1, 201)))
    commands = market.commands_of(symbol)
    assert sorted(command["order_id"] for command in commands) == sorted(told)
    assert sorted(int(command["quantity"]) for command in commands) == list(range(1, 201))


def test_cancel_is_on_the_topic_behind_the_order(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    order_id = place(gateway, limit(symbol))["order_id"]
    before = int(time.time() * 1000)
    answer = gateway.post("/api/order/cancel", {"order_id": order_id.upper(), "symbol": symbol})
    assert (answer.status, answer.json()) == (202, {"order_id": order_id, "status": "cancel_requested"})
    _, record = market.orders_of(symbol)
    assert record.key == symbol.encode()
    command = json.loads(record.value or b"")
    assert before <= command.pop("timestamp") <= int(time.time() * 1000)
    assert command == {"type": "cancel_order", "order_id": order_id, "symbol": symbol, "user_id": None}


def test_cancel_by_client_order_id_names_the_same_order(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    name = f"c-{uuid.uuid4().hex}"
    order_id = place(gateway, limit(symbol, client_order_id=name))["order_id"]
    answer = gateway.post("/api/order/cancel", {"client_order_id": name, "symbol": symbol})
    assert (answer.status, answer.json()["order_id"]) == (202, order_id)
    assert [command["order_id"] for command in market.commands_of(symbol)] == [order_id, order_id]


def test_orders_are_counted_by_outcome(gateway: Gateway) -> None:
    before = gateway.metric("gateway_orders_total", kind="place", outcome="accepted")
    place(gateway, limit(fresh_symbol()))
    assert gateway.metric("gateway_orders_total", kind="place", outcome="accepted") == before + 1


# What is refused.


BAD_ORDERS: list[tuple[dict[str, object], list[str]]] = [
    ({"symbol": None}, ["symbol"]),
    ({"symbol": "KCN"}, ["symbol"]),
    ({"symbol": "K.N/EUR"}, ["symbol"]),
    ({"symbol": 5}, ["symbol"]),
    ({"symbol": "A" * 33 + "/EUR"}, ["symbol"]),
    ({"side": "buy"}, ["side"]),
    ({"side": None}, ["side"]),
    ({"order_type": "stop"}, ["order_type"]),
    ({"price": None}, ["price"]),
    ({"price": "0"}, ["price"]),
    ({"price": "-1"}, ["price"]),
    ({"price": "abc"}, ["price"]),
    ({"price": "NaN"}, ["price"]),
    ({"price": "1e400"}, ["price"]),
    ({"price": "1" * 39}, ["price"]),
    ({"price": " 1"}, ["price"]),
    ({"price": True}, ["price"]),
    ({"price": ["1"]}, ["price"]),
    ({"quantity": "0.0"}, ["quantity"]),
    ({"quantity": -0.5}, ["quantity"]),
    ({"quantity": None}, ["quantity"]),
    ({"client_order_id": ""}, ["client_order_id"]),
    ({"client_order_id": "a" * 65}, ["client_order_id"]),
    ({"client_order_id": "a b"}, ["client_order_id"]),
    ({"client_order_id": 5}, ["client_order_id"]),
    ({"time_in_force": "DAY"}, ["time_in_force"]),
    ({"post_only": True}, ["post_only"]),
    ({"user_id": "somebody"}, ["user_id"]),
    (
        {"symbol": "x", "side": "x", "order_type": "limit", "price": "x", "quantity": "x"},
        ["symbol", "side", "price", "quantity"],
    ),
]


@pytest.mark.parametrize(("change", "broken"), BAD_ORDERS)
def test_order_that_breaks_rules_is_told_every_one_and_not_written(
    gateway: Gateway, market: Market, change: dict[str, object], broken: list[str]
) -> None:
    symbol = fresh_symbol()
    answer = gateway.post("/api/order", {**limit(symbol), **change})
    assert sorted(fields(answer)) == sorted(broken)
    assert market.commands_of(symbol) == []


@pytest.mark.parametrize(
    ("change", "broken"), [({"price": "1"}, ["price"]), ({"time_in_force": "GTC"}, ["time_in_force"])]
)
def test_market_order_has_no_price_and_cannot_rest(
    gateway: Gateway, change: dict[str, object], broken: list[str]
) -> None:
    assert fields(gateway.post("/api/order", {**market_order(fresh_symbol()), **change})) == broken


@pytest.mark.parametrize("time_in_force", ["IOC", "FOK"])
def test_market_order_may_be_ioc_or_fok(gateway: Gateway, market: Market, time_in_force: str) -> None:
    symbol = fresh_symbol()
    place(gateway, market_order(symbol, time_in_force=time_in_force))
    assert [command["time_in_force"] for command in market.commands_of(symbol)] == [time_in_force]


@pytest.mark.parametrize("body", [b"[]", b"5", b'"x"', b"null", b"{}"])
def test_json_that_is_no_order_is_invalid(gateway: Gateway, body: bytes) -> None:
    assert fields(gateway.post("/api/order", body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1,"a":2}',
        b'{"price":NaN}',
        b'{"price":Infinity}',
        b'{"price":01}',
        b'{"symbol":"\xff"}',
        b'\xef\xbb\xbf{"a":1}',
        b"\xff\xfe{\x00}\x00",
        b'{"symbol":"\\ud800"}',
        b"[" * 16_000,
        b'{"price":1' + b"0" * 5000 + b"}",
    ],
)
def test_body_that_is_not_json_is_400(gateway: Gateway, body: bytes) -> None:
    assert "errors" not in check_problem(gateway.post("/api/order", body), 400)


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        ({}, ["order_id"]),
        ({"order_id": ""}, ["order_id"]),
        ({"order_id": "x" * 129}, ["order_id"]),
        ({"order_id": "5f0c6a2e-6c1b-4b58-8f6f-3d1d3a2b9a10", "client_order_id": "a", "symbol": "A/B"}, ["order_id"]),
        ({"order_id": 5, "symbol": "A"}, ["symbol"]),
        ({"order_id": 5, "symbol": "A/B", "reason": "x"}, ["reason"]),
        ({"client_order_id": " ", "symbol": "A/B"}, ["client_order_id"]),
    ],
)
def test_cancel_that_breaks_rules_is_invalid(gateway: Gateway, body: object, broken: list[str]) -> None:
    assert fields(gateway.post("/api/order/cancel", body)) == broken


def test_cancel_of_an_integer_id_goes_out_as_an_integer(gateway: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    assert gateway.post("/api/order/cancel", {"order_id": 17, "symbol": symbol}).status == 202
    assert [command["order_id"] for command in market.commands_of(symbol)] == [17]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
def test_body_of_another_content_type_is_415(gateway: Gateway, market: Market, content_type: str) -> None:
    symbol = fresh_symbol()
    body = json.dumps(limit(symbol)).encode()
    answer = gateway.request("POST", "/api/order", body, {"Content-Type": content_type})
    check_problem(answer, 415)
    assert market.commands_of(symbol) == []


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"]
)
def test_body_of_any_json_content_type_is_read(gateway: Gateway, content_type: str) -> None:
    body = json.dumps(limit(fresh_symbol())).encode()
    assert gateway.request("POST", "/api/order", body, {"Content-Type": content_type}).status == 202


def padded(symbol: str, size: int) -> bytes:
    body = json.dumps(limit(symbol)).encode()
    return body + b" " * (size - len(body))


def test_body_of_16_kib_is_read_and_one_more_byte_is_413(gateway: Gateway, market: Market) -> None:
    small, large = fresh_symbol(), fresh_symbol()
    assert gateway.post("/api/order", padded(small, 16_384)).status == 202
    check_problem(gateway.post("/api/order", padded(large, 16_385)), 413)
    assert (len(market.commands_of(small)), market.commands_of(large)) == (1, [])


def test_large_body_in_chunks_is_413(gateway: Gateway) -> None:
    with socket.create_connection(without_proxy(gateway.address), 30) as connection:
        connection.sendall(
            b"POST /api/order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(40):
            connection.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


def test_megabytes_of_body_are_413_and_not_a_reset(gateway: Gateway) -> None:
    check_problem(gateway.post("/api/order", b" " * 5_000_000), 413)


@pytest.mark.parametrize("path", ["/nothing", "/api", "/api/order/", "/api/orders", "/api/order/cancel/x", "/wss"])
def test_unknown_path_is_404(gateway: Gateway, path: str) -> None:
    check_problem(gateway.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/order", "POST"),
        ("PUT", "/api/order/cancel", "POST"),
        ("GET", "/api/order/cancel", "POST"),
        ("POST", "/api/instruments", "GET"),
        ("POST", "/health", "GET"),
        ("DELETE", "/metrics", "GET"),
    ],
)
def test_method_that_is_not_taken_is_405(gateway: Gateway, method: str, path: str, allowed: str) -> None:
    answer = gateway.request(method, path)
    check_problem(answer, 405)
    assert allowed in [name.strip() for name in answer.headers["Allow"].split(",")]
    assert method not in answer.headers["Allow"]


def test_request_id_is_the_clients_own_where_it_is_a_plain_one(gateway: Gateway) -> None:
    given = gateway.post("/api/order", b"{", {"X-Request-Id": "trace.1_a-B"})
    assert check_problem(given, 400)["request_id"] == "trace.1_a-B"
    for odd in ("a" * 65, "a b", "<x>"):
        assert check_problem(gateway.post("/api/order", b"{", {"X-Request-Id": odd}), 400)["request_id"] != odd


def test_connection_goes_on_after_a_refusal(gateway: Gateway) -> None:
    import http.client

    connection = http.client.HTTPConnection(*without_proxy(gateway.address), timeout=30)
    statuses = []
    for body in (b"{", padded("A/B", 20_000), json.dumps(limit(fresh_symbol())).encode()):
        connection.request("POST", "/api/order", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    assert statuses == [400, 413, 202]


# Who asks.


@pytest.mark.parametrize("path", ["/api/order", "/api/order/cancel"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer a.b.c"}, {"Authorization": "Basic eDp5"}])
def test_caller_without_a_good_token_is_401_where_one_is_required(
    strict: Gateway, market: Market, path: str, headers: dict[str, str]
) -> None:
    symbol = fresh_symbol()
    answer = strict.post(path, limit(symbol), headers)
    check_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert market.commands_of(symbol) == []


def test_bad_token_is_401_also_where_none_is_needed(gateway: Gateway) -> None:
    answer = gateway.post("/api/order", limit(fresh_symbol()), {"Authorization": "Bearer a.b.c"})
    check_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


# Where instruments are configured.


def test_symbol_may_be_left_out_where_there_is_a_default(ruled: Gateway, gateway: Gateway, market: Market) -> None:
    body = limit("KCN/EUR")
    del body["symbol"]
    order_id = place(ruled, body)["order_id"]
    [command] = [one for one in market.commands_of("KCN/EUR") if one["order_id"] == order_id]
    assert command["symbol"] == "KCN/EUR"
    assert fields(gateway.post("/api/order", body)) == ["symbol"]


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"symbol": "ETH/EUR"}, ["symbol"]),
        ({"price": "1.11"}, ["price"]),
        ({"price": "0.01"}, ["price"]),
        ({"quantity": "0.0105"}, ["quantity"]),
        ({"quantity": "0.009"}, ["quantity"]),
        ({"price": "1.11", "quantity": "0.0001"}, ["price", "quantity", "quantity"]),
        ({"symbol": "BTC/EUR", "price": "1.25"}, ["price"]),
    ],
)
def test_order_off_the_rules_of_its_instrument_is_refused(
    ruled: Gateway, change: dict[str, object], broken: list[str]
) -> None:
    assert fields(ruled.post("/api/order", {**limit("KCN/EUR"), **change})) == broken


@pytest.mark.parametrize(
    "change",
    [
        {"price": "0.05"},
        {"price": 99.95},
        {"quantity": "0.01"},
        {"quantity": "123456789.001"},
        {"symbol": "BTC/EUR", "price": "100000.5", "quantity": "0.0001"},
    ],
)
def test_order_on_the_rules_of_its_instrument_is_taken(ruled: Gateway, change: dict[str, object]) -> None:
    place(ruled, {**limit("KCN/EUR"), **change})


def test_instruments_are_the_configured_ones(ruled: Gateway) -> None:
    assert ruled.get("/api/instruments").json() == {
        "instruments": [
            {"symbol": "KCN/EUR", "tick": "0.05", "lot": "0.001", "min_quantity": "0.01"},
            {"symbol": "BTC/EUR", "tick": "0.5", "lot": "0.0001", "min_quantity": "0.0001"},
        ]
    }


def test_cancel_needs_a_symbol_that_is_traded(ruled: Gateway) -> None:
    assert fields(ruled.post("/api/order/cancel", {"order_id": 5, "symbol": "ETH/EUR"})) == ["symbol"]


def test_unlisted_symbol_cannot_be_subscribed(ruled: Gateway) -> None:
    with WebSocket(ruled.address, "/ws?stream=none") as client:
        answer, _ = client.call("public/subscribe", {"channels": ["events.KCN/EUR", "events.ETH/EUR"]})
        assert answer["error"]["code"] == -32602
        client.subscribe("events.KCN/EUR")
