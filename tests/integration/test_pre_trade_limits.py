"""Pre-trade limits on a live gateway, over REST, WebSocket and in batches (docs/contract.md#pre-trade-limits)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal

import pytest

from tests.integration.events import fresh_symbol, snapshot
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.trading import (
    NAMESPACE,
    UNLIMITED,
    Trader,
    check_problem,
    limit,
    order_event,
    own_commands,
    settings,
)

SYMBOL = fresh_symbol()
LIMITS = {"max_quantity": "10", "max_notional": "20.5", "price_band_percent": "5"}


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    configured = settings(
        orders={"id_secret": str(NAMESPACE), "amend": True},
        limits={**UNLIMITED, "max_open_orders": 2},
        instruments=[{"symbol": SYMBOL, "tick": "0.01", "lot": "0.1", "min_quantity": "0.1", **LIMITS}],
    )
    with Gateway.on(market, configured) as gateway:
        yield gateway


def limits_of(errors: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(error["field"], error["message"].rpartition("(")[2].rstrip(")")) for error in errors]


def test_limits_hold_for_orders_amends_and_batches(gateway: Gateway, market: Market, trader: Trader) -> None:
    too_much = limit(SYMBOL, price="2", quantity="11")
    errors = check_problem(trader.post(gateway, "/api/order", too_much), 422)["errors"]
    expected = [("quantity", "max_quantity"), ("quantity", "max_notional")]
    assert limits_of(errors) == expected
    with trader.connect(gateway) as client:
        client.send({"id": 9, "method": "private/place_order", "params": too_much})
        answer = json.loads(client.receive_until(lambda message: b'"id":9' in message)[-1])
        assert limits_of(answer["error"]["data"]["errors"]) == expected
    # No mark is known yet, so no price is too far from it.
    order_id = trader.place(gateway, limit(SYMBOL, price="4", quantity="5"))["order_id"]
    market.publish(
        SYMBOL, snapshot(SYMBOL, bids=[{"price": "1.98", "quantity": "1"}], asks=[{"price": "2.02", "quantity": "1"}])
    )
    gateway.wait_until(lambda: mark(gateway) == 2, "the mark is known")
    for price, field in (("1.89", "price"), ("2.11", "price"), ("1.9", None), ("2.1", None)):
        answer = trader.post(gateway, "/api/order", limit(SYMBOL, price=price, quantity="1", validate_only=True))
        named = [one["field"] for one in answer.json().get("errors", [])]
        assert (answer.status, named) == ((200, []) if field is None else (422, [field])), price
    amend = {"order_id": order_id, "quantity": "5.2"}
    refused = check_problem(trader.post(gateway, "/api/order/amend", amend), 422)
    assert limits_of(refused["errors"]) == [("quantity", "max_notional")]
    place = {"method": "place", "params": limit(SYMBOL, price="2", quantity="1")}
    results = trader.post(gateway, "/api/order/batch", {"requests": [place, place]}).json()["results"]
    assert [result["status"] for result in results] == [202, 422]
    assert limits_of(results[1]["body"]["errors"]) == [("body", "limits.max_open_orders")]
    market.publish(SYMBOL, order_event("cancelled", order_id, SYMBOL))
    trader.wait_for(gateway, order_id, "cancelled")
    trader.place(gateway, limit(SYMBOL, price="2", quantity="1"))
    assert [len(own_commands(market, SYMBOL, kind)) for kind in ("place_order", "amend_order")] == [3, 0]
    metrics = gateway.get("/metrics").body.decode()
    for kind, outcome, count in (
        ("place", "max_quantity", 2), ("place", "price_band_percent", 2), ("place", "max_open_orders", 1), ("amend", "max_notional", 1),
    ):  # fmt: skip
        assert f'gateway_orders_total{{kind="{kind}",outcome="{outcome}"}} {count}.0' in metrics


def mark(gateway: Gateway) -> Decimal | None:
    answer = gateway.get(f"/api/ticker?symbol={SYMBOL}")
    return Decimal(answer.json()["mark_price"]) if answer.status == 200 else None


def test_instruments_tell_the_limits(gateway: Gateway) -> None:
    told = gateway.get("/api/instruments").json()
    assert told["max_open_orders"] == 2
    assert {name: told["instruments"][0][name] for name in LIMITS} == LIMITS
