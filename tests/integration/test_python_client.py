"""The client for Python on a gateway with its simulated exchange: what the READMEs show, the programs of examples/, the
command, and the package as others install it.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from mexchange import Ack, Amend, Cancel, CancelFailed, Exchange, Gap, InvalidFields, NotAuthorised, Place

from tests.core.tokens import SECRET
from tests.integration.processes import Gateway
from tests.integration.trading import NEARLY_OVER, fresh_user, pass_of
from tests.support.gateway import REPOSITORY

SYMBOL = "KCN/EUR"
PACKAGE = REPOSITORY / "clients" / "python"
SECONDS = 60.0
# Below all that the simulated traders pay.
LOW = Decimal("1.00")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """What `make run` starts, with the tests' secret."""
    settings: dict[str, Any] = yaml.safe_load((REPOSITORY / "conf" / "demo.yaml").read_text("utf-8"))
    settings |= {"bind": "127.0.0.1:0", "admin": {}, "demo": {"exchange": True}, "auth": {"secret": SECRET}}
    with Gateway.on(None, settings) as gateway:
        gateway.wait_until(lambda: gateway.get(f"/api/book?symbol={SYMBOL}").status == 200, "a book")
        yield gateway


def started(*arguments: str, token: str = "") -> subprocess.Popen[str]:
    """A program that has the client, as somebody has who installed it."""
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE), "TOKEN": token, "MEXCHANGE_TOKEN": token}
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments: str, token: str = "") -> str:
    """What a program prints, which has to succeed."""
    with started(*arguments, token=token) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return out


def shown(page: Path) -> list[str]:
    """The programs that a page shows, of those with the client."""
    programs = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [program for program in programs if "from mexchange import" in program]


@pytest.mark.parametrize("page", ["README.md", "clients/python/README.md"])
def test_program_that_a_page_shows_streams(gateway: Gateway, page: str) -> None:
    stream, _ = shown(REPOSITORY / page)
    assert len(stream.strip().splitlines()) <= 11
    with started("-c", stream.replace("http://localhost:3000", gateway.address)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert line.startswith("Level(price=Decimal("), line


@pytest.mark.parametrize("page", ["README.md", "clients/python/README.md"])
def test_program_that_a_page_shows_trades(gateway: Gateway, page: str) -> None:
    _, trade = shown(REPOSITORY / page)
    assert len(trade.strip().splitlines()) <= 12
    out = run("-c", trade.replace("http://localhost:3000", gateway.address), token=pass_of(fresh_user()))
    assert out.startswith("OrderState(order_id=")


# The examples


def example(name: str, gateway: Gateway, *arguments: str) -> str:
    return run(str(REPOSITORY / "examples" / name), gateway.address, *arguments)


def test_market_maker_leaves_no_quote_behind(gateway: Gateway) -> None:
    user = fresh_user()
    out = example("market_maker.py", gateway, pass_of(user), SYMBOL, "3")
    assert re.search(r"^bid 0\.5 @ \d+\.\d\d$", out, re.MULTILINE)
    assert re.search(r"^ask 0\.5 @ \d+\.\d\d$", out, re.MULTILINE)

    async def program() -> None:
        async with Exchange(gateway.address, token=pass_of(user)) as exchange:
            async with asyncio.timeout(SECONDS):
                while await exchange.open_orders():
                    pass  # the engine has the cancels, and will say so
                assert {one.status for one in await exchange.history()} == {"cancelled"}

    asyncio.run(program())


def test_recorder_goes_on_where_a_killed_one_ended(gateway: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "trades.jsonl"
    example("recorder.py", gateway, SYMBOL, str(file), "20")
    with file.open("a", encoding="utf-8") as half:
        half.write('{"symbol": "KCN')
    example("recorder.py", gateway, SYMBOL, str(file), "20")
    told = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [one for one in told if "gap" in one] == []
    names = [one["trade_id"] for one in told]
    assert len({*names}) == 40
    kept = [
        one["trade_id"] for one in reversed(gateway.get(f"/api/trades?symbol={SYMBOL}&limit=1000").json()["trades"])
    ]
    begin = kept.index(names[0])
    assert kept[begin : begin + 40] == names


def test_latency_meter_tells_both_times(gateway: Gateway) -> None:
    out = example("latency_meter.py", gateway, pass_of(fresh_user()), SYMBOL, str(LOW), "5")
    assert re.fullmatch(r"(?:(?:answered|open): p50 [\d.]+ ms, p99 [\d.]+ ms, of 5\n){2}", out)


# The command


def command(gateway: Gateway, *arguments: str, token: str = "") -> str:
    return run("-m", "mexchange.cli", "--url", gateway.address, *arguments, token=token)


def test_command_watches_a_book(gateway: Gateway) -> None:
    out = command(gateway, "watch", SYMBOL, "--depth", "3", "--changes", "2")
    assert SYMBOL in out and "ask quantity" in out
    assert len(re.findall(r"\d+\.\d\d ", out)) >= 4


def test_command_orders_lists_and_cancels(gateway: Gateway) -> None:
    token = pass_of(fresh_user())
    order_id, word = command(gateway, "order", "buy", "1.5", SYMBOL, "@", str(LOW), token=token).split()
    assert word == "accepted"
    assert command(gateway, "orders", token=token).startswith(f"{order_id} {SYMBOL} bid 1.5 @ 1.00 ")
    assert command(gateway, "cancel", "all", token=token).split() == [order_id]


def test_command_says_what_was_refused_in_one_line(gateway: Gateway) -> None:
    arguments = ("-m", "mexchange.cli", "--url", gateway.address, "order", "buy", "0", SYMBOL, "@1")
    with started(*arguments, token=pass_of(fresh_user())) as process:
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (1, "mexchange: quantity: expected a number above 0\n")


def test_command_records_the_digits_as_they_came(gateway: Gateway, tmp_path: Path) -> None:
    files = [tmp_path / "trades.csv", tmp_path / "trades.parquet"]
    for file in files:
        command(gateway, "record", SYMBOL, "--out", str(file), "--count", "20")
    with files[0].open(encoding="utf-8", newline="") as text:
        rows = [*csv.DictReader(text)]
    kept = {one["trade_id"]: one for one in gateway.get(f"/api/trades?symbol={SYMBOL}&limit=1000").json()["trades"]}
    assert [(row["price"], row["quantity"], row["gap"]) for row in rows] == [
        (kept[row["trade_id"]]["price"], kept[row["trade_id"]]["quantity"], "") for row in rows
    ]
    table = pyarrow.parquet.read_table(files[1]).to_pylist()
    assert len(rows) == len(table) == 20
    for row in table:
        assert row["price"] == Decimal(kept[row["trade_id"]]["price"])
        assert Decimal(int(row["time"].timestamp() * 1000)) / 1000 == Decimal(kept[row["trade_id"]]["time"])


# The library


def test_orders_are_told_what_the_contract_says(gateway: Gateway) -> None:
    async def program() -> None:
        async with Exchange(gateway.address, token=pass_of(fresh_user())) as exchange:
            ack = await exchange.place(SYMBOL, "bid", "1.5", LOW, client_order_id="mine")
            again = await exchange.place(SYMBOL, "bid", "1.50", LOW, client_order_id="mine")
            assert again == ack._replace(duplicate=True)
            async with exchange.orders() as orders:
                async for state in orders:
                    assert not isinstance(state, Gap)
                    if state.status == "open":
                        break
                await exchange.amend(client_order_id="mine", price=LOW + 1)
                async for state in orders:
                    assert not isinstance(state, Gap)
                    if state.price == LOW + 1:
                        break
            assert [one.order_id for one in await exchange.open_orders()] == [ack.order_id]
            place = Place(symbol=SYMBOL, side="bid", quantity=1, price=LOW)
            change = Amend(client_order_id="mine", quantity=2)
            bad = Place(symbol=SYMBOL, side="bid", quantity=1, price="0.001")
            told = await exchange.batch([place, change, bad, Cancel(order_id="no-such-order")])
            assert [type(one) for one in told] == [Ack, Ack, InvalidFields, CancelFailed]
            await exchange.validate(place)
            with pytest.raises(InvalidFields) as refused:
                await exchange.place(SYMBOL, "bid", 1, "0.001")
            assert [one["field"] for one in refused.value.errors] == ["price"]
            assert await exchange.cancel_all_after(60) is not None
            assert len(await exchange.cancel_all(SYMBOL)) == 2
            assert await exchange.cancel_all_after(0) is None
            market = await exchange.place(SYMBOL, "bid", "0.5")
            async with exchange.fills() as fills:
                fill = await anext(fills)
                assert not isinstance(fill, Gap)
                assert (fill.order_id, fill.side, fill.symbol) == (market.order_id, "bid", SYMBOL)
            assert (await exchange.fills_page(order_id=market.order_id)).items[0] == fill
            assert {one.currency for one in await exchange.balance()} >= {"EUR", "KCN"}

    asyncio.run(asyncio.wait_for(program(), SECONDS))


def test_market_is_told_alike_by_streams_and_questions(gateway: Gateway) -> None:
    async def program() -> None:
        async with Exchange(gateway.address) as exchange:
            book = await exchange.book(SYMBOL, "all", "raw").live()
            assert book.best_bid is not None and book.best_ask is not None
            assert book.best_bid.price < book.best_ask.price
            trade = await anext(exchange.trades(SYMBOL))
            assert not isinstance(trade, Gap)
            page = await exchange.trades_page(SYMBOL, limit=1000)
            assert trade in page.items
            candle = await anext(exchange.candles(SYMBOL))
            assert not isinstance(candle, Gap)
            [kept] = await exchange.candles_page(SYMBOL, from_ms=candle.open_time_ms, limit=1)
            assert (kept.open_time_ms, kept.open) == (candle.open_time_ms, candle.open)
            assert (await exchange.tickers_page()).keys() == {"KCN/EUR", "BTC/EUR", "ETH/EUR"}
            seen = {(await anext(tickers)).symbol for tickers in [exchange.tickers()] for _ in range(3)}  # type: ignore[union-attr]
            assert seen == {"KCN/EUR", "BTC/EUR", "ETH/EUR"}
            events = exchange.events(SYMBOL)
            first = await anext(events)
            assert not isinstance(first, Gap)
            assert (first.type, first.is_snapshot) == ("orderbook_snapshot", True)
            with pytest.raises(InvalidFields):
                await anext(exchange.trades("NO/SUCH"))
            with pytest.raises(NotAuthorised):
                await anext(exchange.orders())

    asyncio.run(asyncio.wait_for(program(), SECONDS))


def test_bad_token_is_told_at_the_start(gateway: Gateway) -> None:
    async def program() -> None:
        with pytest.raises(NotAuthorised):
            async with Exchange(gateway.address, token="no token"):
                pass

    asyncio.run(program())


def test_stream_of_orders_goes_on_when_the_token_has_ended(gateway: Gateway) -> None:
    user = fresh_user()
    given: list[str] = []

    async def token() -> str:
        """The first one is refused a few seconds from now, in the gateway's leeway."""
        given.append(pass_of(user, seconds=NEARLY_OVER if not given else 3600))
        return given[-1]

    async def program() -> None:
        async with Exchange(gateway.address, token=token) as exchange:
            orders = exchange.orders()
            while len(given) < 2:
                # Asked again a second before a token ends at the latest, and whenever one has ended.
                ack = await exchange.place(SYMBOL, "bid", 1, LOW)
                state = await anext(orders)
            async for state in orders:
                assert not isinstance(state, Gap)
                if state.order_id == ack.order_id and state.status == "open":
                    break

    asyncio.run(asyncio.wait_for(program(), SECONDS))


# The package


def test_package_has_its_types_its_command_and_every_module(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet")
    run("-m", "pip", "wheel", *offline, "--wheel-dir", str(tmp_path), str(source))
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = {*files.namelist()}
        metadata = next(files.read(name).decode() for name in names if name.endswith("/METADATA"))
        entries = next(files.read(name).decode() for name in names if name.endswith("/entry_points.txt"))
    modules = {f"mexchange/{path.name}" for path in (PACKAGE / "mexchange").iterdir() if path.is_file()}
    assert modules <= names and "mexchange/py.typed" in names
    assert "mexchange = mexchange.cli:main" in entries
    assert re.findall(r"^Requires-Dist: (\w+)", metadata, re.MULTILINE) == ["websockets", "httpx", "rich", "pyarrow"]
