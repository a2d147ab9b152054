"""Orders without a token where an account service reserves funds: refused in each dialect's form, or passed, as it is set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.clients import WebSocket
from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import Trader, check_problem, error_of, limit, settings
from tests.support.ports import free_port


def with_accounts(**accounts: object) -> dict[str, Any]:
    """In front of an account service that nobody can reach: what asks it for funds is not sent."""
    given = settings(accounts={"url": f"http://127.0.0.1:{free_port()}", **accounts})
    return {**given, "auth": {**given["auth"], "mode": "optional"}}


@pytest.fixture(scope="module")
def passing(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, with_accounts(anonymous="pass")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def refusing(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, with_accounts()) as gateway:
        yield gateway


def oldest(body: dict[str, Any]) -> dict[str, Any]:
    return {"id": 7, "type": "orders", "orders": [body]}


def test_order_without_a_token_is_passed_without_a_reservation_in_every_dialect(
    passing: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    body = limit(symbol)
    with WebSocket(passing.address, "/ws?stream=none") as client:
        ids = [client.result("private/place_order", body)["order_id"]]
        client.send({"type": "place_order", **body})
        ids.append(json.loads(client.receive())["order_id"])
        answer = passing.post("/api/order", body)
        assert answer.status == 202
        ids.append(answer.json()["order_id"])
        client.send(oldest(body))
        passing.wait_until(lambda: len(market.commands_of(symbol)) == 4, "all are on the topic")
        assert client.result("private/cancel_order", {"order_id": ids[0]}) == {"order_id": ids[0]}
    commands = market.commands_of(symbol)
    assert [(command["type"], command["user_id"], command.get("quantity")) for command in commands] == [
        *[("place_order", None, body["quantity"])] * 4,
        ("cancel_order", None, None),
    ]
    assert trader.post(passing, "/api/order", body).status == 503, "whoever has an account needs its funds"


@pytest.mark.parametrize("field", ["quote_amount", "max_slippage_price"])
def test_order_without_a_token_that_an_account_would_price_is_refused_by_its_field(
    passing: Gateway, field: str
) -> None:
    body = {"symbol": fresh_symbol(), "side": "bid", "order_type": "market", field: "10"}
    body.setdefault("quantity" if field == "max_slippage_price" else field, "10")
    problem = check_problem(passing.post("/api/order", body), 422)
    assert [error["field"] for error in problem["errors"]] == [field]
    with WebSocket(passing.address, "/ws?stream=none") as client:
        client.send(oldest(body))
        error = error_of(json.loads(client.receive()), -32602)
        assert [one["field"] for one in error["data"]["errors"]] == [f"orders[0].{field}"]


def test_order_without_a_token_is_refused_in_the_form_of_every_dialect(refusing: Gateway, market: Market) -> None:
    symbol = fresh_symbol()
    body = limit(symbol)
    sentence = "an order needs an account here"
    answer = refusing.post("/api/order", body)
    assert check_problem(answer, 401)["error"] == sentence
    assert answer.headers["www-authenticate"] == 'Bearer realm="mexchange"'
    with WebSocket(refusing.address, "/ws?stream=none") as client:
        assert error_of(client.call("private/place_order", body)[0], 10000)["message"] == sentence
        client.send({"type": "place_order", **body})
        told = {"type": "order_result", "success": False, "order_id": None, "error": sentence}
        assert json.loads(client.receive()) == told
        client.send(oldest(body))
        assert json.loads(client.receive()) == {"id": 7, "error": {"code": 10000, "message": sentence}}
    assert market.commands_of(symbol) == []
