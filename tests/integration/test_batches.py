"""Several requests in one, on a real bus (docs/contract.md#batches)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway
from tests.integration.test_amends import AMENDING
from tests.integration.trading import Trader, limit


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with Gateway.on(market, AMENDING) as gateway:
        yield gateway


def requests_of(symbol: str) -> list[dict[str, Any]]:
    names = [f"mine-{number}" for number in range(15)]
    return [
        *({"method": "place", "params": limit(symbol, client_order_id=name)} for name in names),
        {"method": "place", "params": limit(symbol, price="dear")},
        {"method": "amend", "params": {"client_order_id": "mine-3", "price": "1.20"}},
        {"method": "cancel", "params": {"client_order_id": "mine-3"}},
        {"method": "cancel", "params": {"client_order_id": "never"}},
        {"method": "place", "params": limit(symbol, client_order_id="mine-0")},
    ]


def commands(market: Market, symbol: str) -> list[tuple[str, str | None]]:
    return [(command["type"], command.get("client_order_id")) for command in market.commands_of(symbol)]


EXPECTED = [
    *(("place_order", f"mine-{number}") for number in range(15)), ("amend_order", None), ("cancel_order", None),
]  # fmt: skip


def test_batch_over_rest_is_written_in_its_order_and_answered_one_by_one(
    gateway: Gateway, market: Market, trader: Trader
) -> None:
    symbol = fresh_symbol()
    answer = trader.post(gateway, "/api/order/batch", {"requests": requests_of(symbol)})
    assert answer.status == 200, answer.body
    results = answer.json()["results"]
    assert [int(one["status"]) for one in results] == [202] * 15 + [422, 202, 202, 404, 202]
    assert results[-1]["body"]["duplicate"] is True
    assert results[-1]["body"]["order_id"] == results[0]["body"]["order_id"]
    assert commands(market, symbol) == EXPECTED


def test_batch_over_websocket_is_the_same(gateway: Gateway, market: Market, trader: Trader) -> None:
    symbol = fresh_symbol()
    with trader.connect(gateway) as client:
        results = client.call("private/batch", {"requests": requests_of(symbol)})[0]["result"]["results"]
    assert [one.get("error", {}).get("code") for one in results] == [None] * 15 + [-32602, None, None, 10002, None]
    assert results[-1]["result"]["duplicate"] is True
    assert commands(market, symbol) == EXPECTED
