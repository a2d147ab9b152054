"""`GET /api/fills` and `account.trades` over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest

import handlers.fills
from core.config.settings import Settings
from core.messages.order_rules import OrderRules
from core.orders.fills import MOST_OF_A_USER
from core.telemetry.metrics import Metrics
from handlers.problems import Context, Status
from tests.core.admission import Tokens, admission
from tests.core.fake_orders import command, fill
from tests.core.trading import EPOCH, Trade
from tests.handlers.websocket_server import asked, call
from tests.handlers.websocket_server import serve as serve_sockets
from tests.handlers.wire import Response, connected, serving

SYMBOLS = ("KCN/EUR", "A/B")


class FillsServer:
    """What alice traded: offset by offset, of two orders of two symbols."""

    def __init__(self, trade: Trade) -> None:
        self.trade = trade
        self.port = 0
        for number, symbol in enumerate(SYMBOLS):
            trade.see(command(f"order-{number}", symbol=symbol))
        trade.see(command("his", "bob"))

    def trade_on(self, *symbols: str, sell: str = "his") -> None:
        folded = self.trade.directory.read_to.seq().get(0, -1)
        for offset, symbol in enumerate(symbols, folded + 1):
            event = fill(f"order-{SYMBOLS.index(symbol)}", sell, timestamp=10 * offset, symbol=symbol)
            self.trade.directory.fold_event(event, 0, offset, 1, True)

    async def ask(self, query: str = "", who: str | None = "alice", method: str = "GET") -> Response:
        headers = {} if who is None else {"Authorization": f"Bearer {who}-token"}
        async with connected(self.port) as connection:
            return await connection.ask(method, f"/api/fills{query}", None, **headers)

    async def names(self, query: str = "") -> list[str]:
        answer = await self.ask(query)
        assert answer.status == 200
        return [one["fill_id"] for one in answer.json()["fills"]]


@asynccontextmanager
async def serve() -> AsyncIterator[FillsServer]:
    context = Context(
        Settings(), Metrics(), Status(), admission(Tokens(**{"alice-token": "alice", "bob-token": "bob"}))
    )
    server = FillsServer(Trade(acks=True))
    trade = server.trade
    routes = handlers.fills.routes(context, trade.entry, trade.lookup, OrderRules(()), lambda: EPOCH)
    async with serving(context, routes) as server.port:
        yield server


@pytest.mark.gen_test
async def test_fills_are_the_callers_own_newest_first() -> None:
    async with serve() as server:
        server.trade_on("KCN/EUR", "A/B")
        answer = await server.ask()
        head = await server.ask(method="HEAD")
        his = await server.ask(who="bob")
        nobodys = await server.ask(who=None)
    body: dict[str, Any] = answer.json()
    fills = body.pop("fills")
    assert body == {"epoch": EPOCH, "seq": {"0": 1}}
    assert [(one["fill_id"], one["symbol"], one["order_id"]) for one in fills] == [
        ("0-1", "A/B", "order-1"),
        ("0-0", "KCN/EUR", "order-0"),
    ]
    assert fills[1] == {
        "fill_id": "0-0", "order_id": "order-0", "client_order_id": None, "symbol": "KCN/EUR", "side": "bid",
        "price": "1.50", "quantity": "0.5", "liquidity": None, "fee": None, "fee_currency": None, "time": 0.0,
    }  # fmt: skip
    assert [one["side"] for one in his.json()["fills"]] == ["ask", "ask"]
    assert answer.headers["cache-control"] == "no-store"
    assert (head.status, head.body, nobodys.status) == (200, b"", 401)


@pytest.mark.gen_test
async def test_a_gap_is_filled_oldest_first_and_the_past_newest_first() -> None:
    async with serve() as server:
        server.trade_on(*["KCN/EUR"] * 5, "A/B")
        assert await server.names("?after=0-1&limit=2") == ["0-2", "0-3"]
        assert await server.names("?after=0-3") == ["0-4", "0-5"]
        assert await server.names("?after=0-5") == []
        assert await server.names("?before=0-4&limit=2") == ["0-3", "0-2"]
        assert await server.names("?before=0-0") == []
        assert await server.names(f"?symbol={quote('A/B')}") == ["0-5"]
        assert await server.names("?order_id=order-0&before=0-2") == ["0-1", "0-0"]
        assert await server.names("?order_id=unknown") == []
        assert await server.names("?limit=1") == ["0-5"]


@pytest.mark.gen_test
async def test_the_two_sides_of_one_fill_are_on_one_page() -> None:
    async with serve() as server:
        server.trade.see(command("mine-too"))
        server.trade_on("KCN/EUR")
        server.trade_on("KCN/EUR", sell="mine-too")
        server.trade_on("KCN/EUR")
        assert await server.names("?limit=2") == ["0-2", "0-1", "0-1"]
        assert await server.names("?after=0-0&limit=1") == ["0-1", "0-1"]
        assert await server.names("?after=0-1") == ["0-2"]
        assert await server.names("?before=0-1") == ["0-0"]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("symbol=KCN", "symbol"),
        ("order_id=", "order_id"),
        ("limit=0", "limit"),
        (f"limit={MOST_OF_A_USER + 1}", "limit"),
        ("after=1", "after"),
        ("before=x-1", "before"),
        ("before=0-0&after=0-0", "after"),
        ("after=0-9", "after"),
        ("before=1-0", "before"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_a_query_that_breaks_a_rule_is_refused_by_its_name(query: str, field: str) -> None:
    async with serve() as server:
        server.trade_on("KCN/EUR")
        answer = await server.ask(f"?{query}")
    assert answer.status == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.gen_test
async def test_fills_are_not_told_before_it_is_known_whose_they_are() -> None:
    async with serve() as server:
        server.trade.is_started = False
        assert (await server.ask()).status == 503


# Over WebSocket.


@pytest.mark.gen_test
async def test_account_trades_are_told_until_they_are_unsubscribed() -> None:
    async with serve_sockets() as server, server.client("alice-token") as connection:
        trade = server.trade
        trade.directory.fills.read_from = lambda: {0: 0}
        trade.see(command("a"))
        trade.see(command("x", "bob"))
        trade.directory.fold_event(fill("a", "x"), 0, 0, 1, True)
        answer = await asked(connection, "private/subscribe", channels=["account.orders", "account.trades"])
        assert answer["result"] == ["account.orders", "account.trades"]
        first = {(message := await connection.message())["channel_name"]: message for _ in range(2)}
        assert first["account.trades"]["notification"]["snapshot"] is True
        seq, epoch = first["account.trades"]["seq"], first["account.trades"]["epoch"]
        trade.directory.fold_event(fill("a", "x"), 0, 1, 1, True)
        trade.private.flush()
        told = [json.dumps(await connection.message()) for _ in range(2)]
        assert any('"fill_id": "0-1"' in text for text in told)
        assert (await asked(connection, "private/unsubscribe", channels=["account.trades"]))["result"] == [
            "account.trades"
        ]
        trade.directory.fold_event(fill("a", "x"), 0, 2, 1, True)
        trade.private.flush()
        await connection.message()  # of its order
        since = {"account.trades": {"epoch": epoch, "seq": seq}}
        await connection.say(call("private/subscribe", 5, channels=["account.trades"], since=since))
        assert (await connection.message())["id"] == 5
        again = await connection.message()
        assert again["recovered"] is True
        assert [one["fill_id"] for one in again["notification"]["trades"]] == ["0-1", "0-2"]


@pytest.mark.gen_test
async def test_account_trades_end_with_the_token() -> None:
    async with serve_sockets() as server, server.client() as connection:
        server.expires_in("short", 0.001)
        await asked(connection, "public/auth", token="short")
        await asked(connection, "private/subscribe", channels=["account.trades"])
        assert server.trade.private.trades.listeners == 1
        server.now += 0.002
        while "type" not in await connection.message():
            pass
        assert server.trade.private.trades.listeners == 0
