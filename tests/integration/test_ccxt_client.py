"""The exchange class for ccxt on a gateway, a real Kafka and the simulated exchange: ccxt's own unified tests on live answers,
in both classes and over the WebSocket; what orders are told; and that ccxt's programs find the class where they look for it.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import ccxt
import ccxt.async_support
import ccxt.pro
import pytest
import yaml
from ccxt.test.exchange.base import test_order as check_order
from ccxt.test.exchange.base import test_trade as check_trade
from mexchange_ccxt import mexchange, register, sync

from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on
from tests.integration.trading import fresh_user, pass_of, settings
from tests.support.gateway import REPOSITORY
from tests.support.kafka import Bus
from tools.kafka.running import RunningKafka

pytestmark = pytest.mark.gen_test(timeout=60)

SYMBOL = "KCN/EUR"
PACKAGE = REPOSITORY / "clients" / "ccxt"
INSTRUMENT = {"symbol": SYMBOL, "tick": 0.01, "lot": 0.001, "min_quantity": 0.001, "max_quantity": 1000}
# Below all that the simulated traders pay.
LOW = 1.00
# What ccxt's own tests may pass over: nothing.
SKIPPED: dict[str, Any] = {}

MARKET_DATA = [
    "load_markets",
    "features",
    "fetch_status",
    "fetch_order_book",
    "fetch_ticker",
    "fetch_tickers",
    "fetch_trades",
    "fetch_ohlcv",
]
OWN = ["fetch_balance", "fetch_open_orders", "fetch_closed_orders", "fetch_my_trades"]
WATCHED = [
    "watch_order_book",
    "watch_trades",
    "watch_ticker",
    "watch_tickers",
    "watch_ohlcv",
    "watch_my_trades",
    "watch_balance",
]


@pytest.fixture(scope="module")
def gateway(bus: Bus, market: Market, real_kafka: RunningKafka) -> Iterator[Gateway]:
    accounts = f"accounts-{uuid.uuid4().hex[:12]}"
    real_kafka.create_topic(accounts, 3, {"cleanup.policy": "compact"})
    demo = yaml.safe_load((REPOSITORY / "conf" / "demo.yaml").read_text("utf-8"))
    given = settings(kafka={"consume": "broadcast", "account_topic": accounts}, instruments=[INSTRUMENT])
    given["orders"] |= {"amend": True, "attributes": demo["orders"]["attributes"]}
    with (
        exchange_on(market, "--symbols", SYMBOL, "--account-topic", accounts, traders=True),
        Gateway.on(market, given) as gateway,
    ):
        gateway.wait_until(lambda: gateway.get(f"/api/trades?symbol={SYMBOL}").status == 200, "a market")
        gateway.wait_until(lambda: gateway.get(f"/api/trades?symbol={SYMBOL}").json()["trades"], "trades")
        yield gateway
    real_kafka.delete_topic(accounts)


@pytest.fixture(scope="module")
def token(gateway: Gateway) -> str:
    """Of a user who has bought, has an order in the book, and one that is closed."""
    token = pass_of(fresh_user())
    exchange = configured(sync.mexchange, gateway, token)
    exchange.create_order(SYMBOL, "market", "buy", 0.5)
    exchange.create_order(SYMBOL, "limit", "buy", 1.5, LOW)
    gateway.wait_until(lambda: exchange.fetch_my_trades(SYMBOL), "a fill")
    gateway.wait_until(lambda: exchange.fetch_closed_orders(SYMBOL), "a closed order")
    gateway.wait_until(lambda: exchange.fetch_balance()["used"].get("EUR"), "balances")
    return token


def configured(kind: Any, gateway: Gateway, token: str = "", **more: Any) -> Any:
    """As a program of ccxt's configures an exchange."""
    exchange = kind({"apiKey": token, "urls": {"api": {"rest": gateway.address}}, "enableRateLimit": False, **more})
    exchange.timeout_on_exit = 0
    return exchange


@asynccontextmanager
async def exchange_at(gateway: Gateway, token: str = "", kind: Any = mexchange, **more: Any) -> Any:
    exchange = configured(kind, gateway, token, **more)
    try:
        await exchange.load_markets()
        yield exchange
    finally:
        await exchange.close()


def unified(package: str, name: str) -> Callable[..., Any]:
    """A test that ccxt ships."""
    found: Callable[..., Any] = getattr(importlib.import_module(f"{package}.test_{name}"), f"test_{name}")
    return found


def arguments(test: Callable[..., Any], exchange: Any) -> list[Any]:
    """What ccxt's own runner would give it."""
    given = {"exchange": exchange, "skipped_properties": SKIPPED, "symbol": SYMBOL, "code": "EUR"}
    return [given[name] for name in inspect.signature(test).parameters]


class Hurried(mexchange):
    """ccxt's tests watch for fifteen seconds by its clock: here for three looks at it."""

    looks = 0

    def milliseconds(self) -> int:
        self.looks += 1
        return int(super().milliseconds()) + self.looks * 5000


# ccxt's own tests


@pytest.mark.parametrize("name", [*MARKET_DATA, *OWN])
async def test_unified_test_of_ccxt_passes(gateway: Gateway, token: str, name: str) -> None:
    test = unified("ccxt.test.exchange.async", name)
    async with exchange_at(gateway, token) as exchange:
        assert await test(*arguments(test, exchange)) is not False


@pytest.mark.parametrize("name", [*MARKET_DATA, *OWN])
async def test_unified_test_of_ccxt_passes_without_asyncio(gateway: Gateway, token: str, name: str) -> None:
    test = unified("ccxt.test.exchange.sync", name)
    exchange = configured(sync.mexchange, gateway, token)
    exchange.load_markets()
    assert test(*arguments(test, exchange)) is not False


@pytest.mark.parametrize("name", WATCHED)
async def test_unified_test_of_ccxt_passes_of_what_is_watched(gateway: Gateway, token: str, name: str) -> None:
    test = unified("ccxt.pro.test.Exchange", name)
    async with exchange_at(gateway, token, Hurried) as exchange, exchange_at(gateway, token) as other:
        running = asyncio.ensure_future(test(*arguments(test, exchange)))
        while not running.done():
            # Something to see, of the user's own too.
            await other.create_order(SYMBOL, "market", "buy", 0.01)
            await asyncio.wait({running}, timeout=0.2)
        assert await running is not False
