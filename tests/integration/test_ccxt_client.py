"""The exchange class for ccxt on a gateway, a real Kafka and the simulated exchange: ccxt's own unified tests on live answers,
in both classes and over the WebSocket; what orders are told; and that ccxt's programs find the class where they look for it.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
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
# What ccxt's own tests pass over: that takes trades of one millisecond for those of one order.
SKIPPED: dict[str, Any] = {"sideSequence": True}

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
    control = f"control-{uuid.uuid4().hex[:12]}"
    kafka = {"consume": "broadcast", "account_topic": accounts, "control_topic": control}
    given = settings(kafka=kafka, instruments=[INSTRUMENT])
    given["orders"] |= {"amend": True, "attributes": demo["orders"]["attributes"]}
    with (
        exchange_on(market, "--symbols", SYMBOL, "--account-topic", accounts, traders=True),
        Gateway.on(market, given) as gateway,
    ):
        gateway.wait_until(lambda: gateway.get(f"/api/trades?symbol={SYMBOL}").status == 200, "a market")
        gateway.wait_until(lambda: gateway.get(f"/api/trades?symbol={SYMBOL}").json()["trades"], "trades")
        yield gateway
    for name in (accounts, control):
        real_kafka.delete_topic(name)


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


# Orders


async def seen(exchange: Any, order_id: str, status: str) -> Any:
    """The order's state of this status, as it is watched."""
    while True:
        for order in await exchange.watch_orders(SYMBOL):
            if (order["id"], order["info"]["status"]) == (order_id, status):
                return order


@pytest.mark.parametrize("suffix", ["", "_ws"])
async def test_order_is_placed_changed_and_cancelled(gateway: Gateway, suffix: str) -> None:
    async with exchange_at(gateway, pass_of(fresh_user())) as exchange:
        create, edit, cancel, cancel_all = (
            getattr(exchange, name + suffix)
            for name in ("create_order", "edit_order", "cancel_order", "cancel_all_orders")
        )
        order = await create(SYMBOL, "limit", "buy", 1.5, LOW, {"clientOrderId": "mine", "postOnly": True})
        assert (order["status"], order["clientOrderId"], order["amount"]) == ("open", "mine", 1.5)
        again = await create(SYMBOL, "limit", "buy", 1.5, LOW, {"clientOrderId": "mine", "postOnly": True})
        assert (again["id"], again["info"]["duplicate"]) == (order["id"], True)
        state = await seen(exchange, order["id"], "open")
        check_order(exchange, SKIPPED, "watchOrders", state, SYMBOL, exchange.milliseconds())
        assert (state["postOnly"], state["timeInForce"], state["remaining"]) == (True, "GTC", 1.5)
        await edit(order["id"], SYMBOL, "limit", "buy", 2, LOW + 1)
        while (await seen(exchange, order["id"], "open"))["price"] != LOW + 1:
            pass
        [listed] = await exchange.fetch_open_orders(SYMBOL)
        found = await exchange.fetch_order("", SYMBOL, {"clientOrderId": "mine"})
        assert (listed["id"], listed["amount"], found["id"]) == (order["id"], 2.0, order["id"])
        await cancel(order["id"], SYMBOL)
        assert (await seen(exchange, order["id"], "cancelled"))["status"] == "canceled"
        with pytest.raises(ccxt.OrderNotFound) as refused:
            await cancel(order["id"], SYMBOL)
        assert refused.value.order_status == "cancelled"
        other = await create(SYMBOL, "limit", "buy", 1, LOW)
        assert [one["id"] for one in await cancel_all(SYMBOL)] == [other["id"]]


async def test_order_that_was_filled_has_its_fills(gateway: Gateway) -> None:
    async with exchange_at(gateway, pass_of(fresh_user())) as exchange:
        placed = await exchange.create_order(SYMBOL, "market", "buy", 0.25)
        trades: list[Any] = []
        while sum(Decimal(one["info"]["quantity"]) for one in trades) < Decimal("0.25"):
            trades += await exchange.watch_my_trades(SYMBOL)
        for one in trades:
            check_trade(exchange, SKIPPED, "watchMyTrades", one, SYMBOL, exchange.milliseconds(), False)
        order = await exchange.fetch_order(placed["id"], SYMBOL)
        check_order(exchange, SKIPPED, "fetchOrder", order, SYMBOL, exchange.milliseconds())
        cost = sum(Decimal(one["info"]["price"]) * Decimal(one["info"]["quantity"]) for one in trades)
        assert (order["filled"], order["cost"]) == (0.25, float(cost))
        assert order["average"] == pytest.approx(float(cost / Decimal("0.25")))
        assert [one["id"] for one in order["trades"]] == [one["id"] for one in trades]
        assert await exchange.fetch_order_trades(placed["id"], SYMBOL) == await exchange.fetch_my_trades(SYMBOL)


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (ccxt.InvalidOrder, lambda exchange: exchange.create_order(SYMBOL, "limit", "buy", 5000, LOW)),
        (ccxt.OrderNotFound, lambda exchange: exchange.cancel_order("no-such-order")),
        (ccxt.OrderNotFound, lambda exchange: exchange.fetch_order("no-such-order")),
        (ccxt.OrderNotFound, lambda exchange: exchange.fetch_order("", None, {"clientOrderId": "none"})),
        (ccxt.DuplicateOrderId, lambda exchange: exchange.create_order(SYMBOL, "limit", "buy", 2, LOW, NAMED)),
        (ccxt.BadSymbol, lambda exchange: exchange.fetch_ticker("NO/SUCH")),
        (ccxt.BadRequest, lambda exchange: exchange.fetch_trades(SYMBOL, params={"after": "x"})),
        (ccxt.ArgumentsRequired, lambda exchange: exchange.create_order(SYMBOL, "limit", "buy", 2)),
        (ccxt.InvalidOrder, lambda exchange: exchange.create_order_ws(SYMBOL, "limit", "buy", 5000, LOW)),
        (ccxt.OrderNotFound, lambda exchange: exchange.cancel_order_ws("no-such-order")),
        (ccxt.BadRequest, lambda exchange: exchange.watch_ticker(SYMBOL, {"interval": "7ms"})),
    ],
)
async def test_refusal_is_of_the_class_that_ccxt_has_for_it(gateway: Gateway, error: Any, call: Any) -> None:
    async with exchange_at(gateway, pass_of(fresh_user())) as exchange:
        await exchange.create_order(SYMBOL, "limit", "buy", 1, LOW, NAMED)
        with pytest.raises(error) as raised:
            await call(exchange)
        assert type(raised.value) is error


NAMED = {"clientOrderId": "named"}


async def test_token_that_is_missing_bad_or_not_enough_is_told_as_that(gateway: Gateway) -> None:
    for token, error in (
        ("", ccxt.AuthenticationError),
        ("no token", ccxt.AuthenticationError),
        (pass_of(fresh_user(), scope="read"), ccxt.PermissionDenied),
    ):
        async with exchange_at(gateway, token) as exchange:
            for create in (exchange.create_order, exchange.create_order_ws):
                with pytest.raises(error) as raised:
                    await create(SYMBOL, "limit", "buy", 1, LOW)
                assert type(raised.value) is error


async def test_another_token_is_asked_for_when_one_is_refused(gateway: Gateway) -> None:
    given: list[str] = []

    async def token() -> str:
        given.append(pass_of(fresh_user()))
        return given[-1]

    async with exchange_at(gateway, "no token", tokenProvider=token) as exchange:
        assert await exchange.fetch_open_orders() == []
        assert exchange.apiKey == given[0]


async def test_gateway_that_is_not_there_is_told_as_that() -> None:
    config = {"hostname": "127.0.0.1:1", "sandbox": True, "apiKey": "x", "options": {"repeats": 0}}
    exchange = mexchange(config)
    exchange.timeout_on_exit = 0
    exchange.set_markets([exchange.parse_market(INSTRUMENT)])
    for call in (exchange.fetch_ticker(SYMBOL), exchange.create_order(SYMBOL, "limit", "buy", 1, LOW)):
        with pytest.raises(ccxt.ExchangeNotAvailable):
            await call
    with pytest.raises(ccxt.NetworkError):
        await exchange.watch_ticker(SYMBOL)
    await exchange.close()
    blocking = sync.mexchange(config)
    blocking.set_markets([blocking.parse_market(INSTRUMENT)])
    with pytest.raises(ccxt.NetworkError) as raised:
        blocking.create_order(SYMBOL, "limit", "buy", 1, LOW)
    assert not isinstance(raised.value, ccxt.RequestTimeout)


async def test_timer_cancels_all_in_whole_seconds(gateway: Gateway) -> None:
    async with exchange_at(gateway, pass_of(fresh_user())) as exchange:
        before = await exchange.fetch_time()
        told = await exchange.cancel_all_orders_after(60_000)
        assert before + 60_000 <= told["trigger_time_ms"] < before + 120_000
        assert (await exchange.cancel_all_orders_after(0))["trigger_time_ms"] is None


# The market


async def test_book_that_is_watched_is_the_book_that_is_asked_for(gateway: Gateway) -> None:
    async with exchange_at(gateway) as exchange:
        while True:
            watched = await exchange.watch_order_book(SYMBOL, 10, {"interval": "raw"})
            asked = await exchange.fetch_order_book(SYMBOL, 10)
            while watched["nonce"] < asked["nonce"]:
                await exchange.watch_order_book(SYMBOL, 10, {"interval": "raw"})
            if watched["nonce"] == asked["nonce"]:
                break
        assert [*watched["bids"]] == asked["bids"]
        assert [*watched["asks"]] == asked["asks"]


async def test_trades_that_are_watched_go_on_where_they_were_after_a_cut(gateway: Gateway) -> None:
    async with exchange_at(gateway) as exchange:
        told = [*await exchange.watch_trades(SYMBOL)]
        await exchange.clients[exchange.ws_url()].connection.close()
        before = len(told)
        while len(told) < before + 5:
            try:
                told += await exchange.watch_trades(SYMBOL)
            except ccxt.NetworkError:
                pass
        names = [one["id"] for one in told]
        kept = [one["id"] for one in await exchange.fetch_trades(SYMBOL, limit=1000)]
        begin = kept.index(names[0])
        assert kept[begin : begin + len(names)] == names


async def test_trades_and_candles_are_told_from_a_time_on(gateway: Gateway) -> None:
    async with exchange_at(gateway) as exchange:
        told = await exchange.fetch_trades(SYMBOL, limit=1000)
        since = told[len(told) // 2]["timestamp"]
        some = await exchange.fetch_trades(SYMBOL, since, 3)
        assert [one["id"] for one in some] == [one["id"] for one in told if one["timestamp"] >= since][:3]
        [candle] = await exchange.fetch_ohlcv(SYMBOL, "5m", limit=1)
        assert (await exchange.fetch_ohlcv(SYMBOL, "5m", candle[0], 1))[0][:2] == candle[:2]


# Where programs look


def test_class_is_found_where_ccxt_has_its_exchanges() -> None:
    register()
    register()
    assert ccxt.exchanges.count("mexchange") == ccxt.pro.exchanges.count("mexchange") == 1
    assert ccxt.pro.mexchange is ccxt.async_support.mexchange is mexchange
    exchange = ccxt.mexchange({"hostname": "exchange.example"})
    assert exchange.has["createOrder"] and not exchange.has["watchTrades"]
    assert exchange.sign("api/time")["url"] == "https://exchange.example/api/time"


def ran(*arguments: str, lines: int = 0) -> str:
    """What a program prints that has the class, as somebody has who installed it; its first `lines`, or all."""
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if lines:
            told = "".join(process.stdout.readline() for _ in range(lines))
            process.kill()
            return told
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def test_program_that_the_page_shows_streams(gateway: Gateway) -> None:
    [program] = re.findall(
        r"^```python\n(.*?)^```$", (PACKAGE / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    line = ran("-c", program.replace("localhost:3000", gateway.address.removeprefix("http://")), lines=1)
    assert re.fullmatch(r"\[\d+\.\d+, [\d.]+\] \[\d+\.\d+, [\d.]+\]\n", line), line


def test_bot_of_another_sandbox_leaves_nothing_behind(gateway: Gateway) -> None:
    token = pass_of(fresh_user())
    name = "mexchange@" + gateway.address.removeprefix("http://")
    out = ran(str(REPOSITORY / "examples" / "bot_of_ccxt.py"), name, token, "", SYMBOL, "3")
    assert re.match(r"bid 0\.5 @ \d+\.\d+\n", out), out
    exchange = configured(sync.mexchange, gateway, token)
    gateway.wait_until(lambda: not exchange.fetch_open_orders(), "the engine's word")
    assert [one["status"] for one in exchange.fetch_canceled_and_closed_orders()] == ["canceled"]


def test_package_has_its_types_and_every_module(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", str(tmp_path), str(source)], check=True
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = {*files.namelist()}
        metadata = next(files.read(name).decode() for name in names if name.endswith("/METADATA"))
    assert {f"mexchange_ccxt/{path.name}" for path in (PACKAGE / "mexchange_ccxt").iterdir() if path.is_file()} <= names
    pinned = re.search(r"^Requires-Dist: (ccxt==.*)$", metadata, re.MULTILINE)
    assert pinned is not None and pinned[1] == f"ccxt=={ccxt.__version__}"
