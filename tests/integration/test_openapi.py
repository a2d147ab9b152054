"""What a live gateway answers is what docs/openapi.json says: statuses, headers and bodies. The document as such:
tests/test_openapi.py; tests/integration/test_openapi_fuzz.py asks more, without a market and where orders need no token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.core.tokens import SECRET, token
from tests.integration.clients import Refused, WebSocket
from tests.support.gateway import REPOSITORY, Answer, GatewayProcess
from tests.test_openapi import DOCUMENT, METHODS, NEED_A_TOKEN, OPERATIONS, SYMBOL, faults, resolved, responses


@pytest.fixture(scope="module")
def market() -> Iterator[GatewayProcess]:
    """With an exchange behind it, and little patience."""
    settings = {
        "kafka": {"brokers": "embedded", "consume": "broadcast", "account_topic": "accounts"},
        "instruments": [{"symbol": SYMBOL, "tick": 0.01, "lot": 0.001, "min_quantity": 0.001}],
        "limits": {"orders_per_second": 0.001, "orders_burst": 8},
        "orders": {"amend": True},
        "demo": {"exchange": True},
    }
    with GatewayProcess(settings, {"JWT_SECRET": SECRET}) as process:
        process.wait_ready()
        process.wait_log("reading order-commands")  # the exchange, which does not look at what was there before
        yield process


def signed_in(user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(sub=user, exp=int(time.time()) + 3600)}"}


def check(method: str, path: str, answer: Answer) -> Any:
    """The body of an answer, which has to be documented: its status, its headers, its type, its schema."""
    documented = responses(OPERATIONS[method, path])
    assert answer.status in documented, (method, path, answer)
    response = documented[answer.status]
    for name, header in response["headers"].items():
        if name in answer.headers:
            value: Any = answer.headers[name]
            schema = resolved(header)["schema"]
            assert faults(schema, int(value) if schema["type"] == "integer" else value) == [], name
        else:
            assert not resolved(header).get("required"), (name, answer.headers.items())
    if "content" not in response:
        assert answer.body == b""
        return None
    [(kind, content)] = response["content"].items()
    assert answer.headers.get_content_type() == kind
    if kind == "text/plain":
        return answer.body.decode()
    body = json.loads(answer.body)
    assert faults(content["schema"], body) == [], body
    return body


@pytest.mark.parametrize(("method", "path"), [key for key in NEED_A_TOKEN if key[1] != "/ws"])
@pytest.mark.parametrize("authorization", [None, "Basic eDp4", "Bearer", "Bearer x.y.z"])
def test_gateway_asks_for_a_token_where_the_document_says_so(
    market: GatewayProcess, method: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    body = b"{}" if method == "post" else None
    target = path.replace("{order_id}", "0")
    answer = market.request(method.upper(), target, body, {"Content-Type": "application/json", **headers})
    assert answer.status == 401
    check(method, path, answer)


def test_gateway_answers_about_orders_as_documented(market: GatewayProcess) -> None:
    post, cancel, everything, one = "/api/order", "/api/order/cancel", "/api/order/cancel_all", "/api/order/{order_id}"
    mine = signed_in("documented")

    def send(path: str, body: object) -> Any:
        answer = market.post(path, body, mine)
        return answer.status, check("post", path, answer)

    def get(method: str = "GET", path: str = post, target: str = post) -> Any:
        deadline = time.monotonic() + 30
        while True:
            answer = market.request(method, target, None, mine)
            told = answer.status, check(method.lower(), path, answer)
            # Who asks about orders while their topic is read slowly is asked to come again, as on a machine that is full.
            if answer.status != 503 or time.monotonic() > deadline:
                return told

    order = {"side": "bid", "order_type": "limit", "price": "1.00", "quantity": "1", "client_order_id": "first"}
    status, placed = send(post, order)
    assert (status, "duplicate" in placed) == (202, False)
    order_id = placed["order_id"]
    assert send(post, {**order, "price": "1.0"})[1]["duplicate"] is True
    assert send(post, {**order, "price": "2.00"})[1]["client_order_id"] == "first"
    assert send(post, {**order, "price": "1.001", "surplus": 1})[1]["errors"][0]["field"] == "price"
    assert send(post, b"{")[0] == 400
    assert check("post", post, market.request("POST", post, b"{}", mine))["status"] == 415
    assert send(post, b" " * 20_000)[0] == 413
    assert send(post, {**order, "client_order_id": "market", "order_type": "market", "price": None})[0] == 202
    for method in ("GET", "HEAD"):
        assert get(method)[0] == get(method, one, f"/api/order/{order_id}")[0] == 200
    assert [order["order_id"] for order in get("GET", post, f"{post}?client_order_id=first")[1]["orders"]] == [order_id]
    assert get("GET", one, "/api/order/nothing")[0] == get("HEAD", one, "/api/order/nothing")[0] == 404
    assert get("GET", one, "/api/order/%ff")[0] == 400
    assert send(cancel, {"order_id": order_id}) == (202, {"order_id": order_id, "status": "cancel_requested"})
    assert send(cancel, {"client_order_id": "unknown"})[0] == 404
    assert send(cancel, {})[0] == 422
    assert send(everything, {"symbol": SYMBOL})[0] == 202
    assert send(everything, {"symbol": "ELSE/EUR"})[0] == 422
    fills = "/api/fills"
    assert get("GET", fills, f"{fills}?limit=5&order_id={order_id}")[1]["fills"] == []
    assert get("HEAD", fills, fills)[0] == 200
    assert get("GET", fills, f"{fills}?after=0-0")[0] == get("GET", fills, f"{fills}?limit=0")[0] == 422
    balance = "/api/balance"
    assert get("GET", balance, balance)[0] == get("HEAD", balance, balance)[0] == 200
    state_of = f"/api/order/{order_id}"
    deadline = time.monotonic() + 30
    while get("GET", one, state_of)[1]["status"] != "cancelled":
        assert time.monotonic() < deadline
    assert send(cancel, {"order_id": order_id})[1]["order_status"] == "cancelled"
    history = "/api/order/history"
    assert order_id in [one["order_id"] for one in get("GET", history, f"{history}?symbol={SYMBOL}")[1]["orders"]]
    assert get("HEAD", history, history)[0] == 200
    assert get("GET", history, f"{history}?before=nothing")[0] == get("GET", history, f"{history}?from=x")[0] == 422


def test_gateway_refuses_more_orders_than_allowed_as_documented(market: GatewayProcess) -> None:
    order = {"side": "bid", "order_type": "limit", "price": "1.00", "quantity": "1"}
    eager = signed_in("eager")
    answers = [market.post("/api/order", order, eager) for _ in range(9)]
    for answer in answers:
        check("post", "/api/order", answer)
        assert "RateLimit" in answer.headers
        assert "RateLimit-Policy" in answer.headers
    assert [answer.status for answer in answers] == [202] * 8 + [429]
    bad = market.post("/api/order/cancel", {}, eager)
    assert (bad.status, bad.headers["RateLimit-Policy"]) == (422, '"cancels";q=100;w=1')


@pytest.mark.parametrize(
    ("method", "path"),
    [
        key
        for key in OPERATIONS
        if not any(word in key[1] for word in ("order", "fills", "balance", "/ws", "console")) and key[1] != "/"
    ],
)
def test_gateway_answers_everything_else_as_documented(market: GatewayProcess, method: str, path: str) -> None:
    asked = {
        one["name"]: one["example"] for one in OPERATIONS[method, path].get("parameters", ()) if one.get("required")
    }
    target = f"{path}?{urlencode(asked)}"
    deadline = time.monotonic() + 30
    # The exchange may not have said anything yet.
    while (answer := market.request(method.upper(), target)).status == 404:
        assert time.monotonic() < deadline
    assert answer.status == (204 if method == "options" else 200)
    check(method, path, answer)


@pytest.mark.parametrize(
    "path",
    [path for (method, path), one in OPERATIONS.items() if method == "get" and {304, 422} <= responses(one).keys()],
)
def test_gateway_refuses_questions_about_the_market_as_documented(market: GatewayProcess, path: str) -> None:
    for query, status in (("symbol=NO/SUCH", 404), ("symbol=KCN", 422)):
        for method in ("get", "head"):
            answer = market.request(method.upper(), f"{path}?{query}")
            assert answer.status == status
            check(method, path, answer)


@pytest.mark.parametrize(("method", "path"), [key for key in OPERATIONS if key[0] == "options"])
def test_gateway_says_which_methods_there_are_as_documented(market: GatewayProcess, method: str, path: str) -> None:
    target = path.replace("{order_id}", "0")
    wanted = {name.upper() for name in DOCUMENT["paths"][path].keys() & set(METHODS)}
    plain = market.request("OPTIONS", target)
    assert set(plain.headers["Allow"].split(", ")) == wanted
    preflight = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    refused = market.request("OPTIONS", target, None, preflight)
    assert refused.status == 403
    check(method, path, refused)
    brewed = market.request("BREW", target)
    assert brewed.status == 405
    assert set(brewed.headers["Allow"].split(", ")) == wanted
    check(method, path, brewed)


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/", {}, 200),
        ("/", {"Range": "bytes=0-3"}, 206),
        ("/", {"Range": "bytes=9999999-"}, 416),
        ("/console/console.js", {}, 200),
        ("/console/client/gateway-client.js", {}, 200),
        ("/console/nothing.js", {}, 404),
        ("/console/%2e%2e/gateway.py", {}, 403),
        ("/console/%00", {}, 404),
        ("/console/%ff", {}, 400),
    ],
)
def test_gateway_serves_the_console_as_documented(
    market: GatewayProcess, target: str, headers: dict[str, str], status: int
) -> None:
    answer = market.get(target, headers)
    documented = responses(OPERATIONS["get", "/" if target == "/" else "/console/{file}"])
    assert answer.status == status
    assert status in documented
    if status in (400, 403, 404):
        check("get", "/console/{file}", answer)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upgrade": "h2c"}, 400),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Authorization": "Bearer x"}, 401),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Sec-WebSocket-Version": "8"}, 426),
    ],
)
def test_gateway_refuses_upgrades_as_documented(market: GatewayProcess, headers: dict[str, str], status: int) -> None:
    with pytest.raises(Refused) as refused:
        WebSocket(market.url, "/ws", headers)
    assert refused.value.answer.status == status
    check("get", "/ws", refused.value.answer)


@pytest.mark.parametrize("name", ["openapi", "asyncapi"])
def test_document_is_served_as_it_is(market: GatewayProcess, name: str) -> None:
    whole = market.get(f"/{name}.json")
    assert whole.body == (REPOSITORY / "docs" / f"{name}.json").read_bytes()
    again = market.get(f"/{name}.json", {"If-None-Match": whole.headers["ETag"]})
    check("get", f"/{name}.json", again)
    assert again.status == 304
