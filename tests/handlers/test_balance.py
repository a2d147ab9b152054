"""`GET /api/balance` and `account.balances` over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import handlers.balance
from core.config.settings import Settings
from core.telemetry.metrics import Metrics
from handlers.problems import Context, Status
from tests.core.accounts.accounts import NOW_MS, Accounts, record
from tests.core.admission import Tokens, admission
from tests.handlers.websocket_server import StreamServer, asked
from tests.handlers.websocket_server import serve as serve_sockets
from tests.handlers.wire import Response, connected, serving


class BalanceServer:
    def __init__(self) -> None:
        self.accounts = Accounts()
        self.port = 0

    async def ask(self, who: str | None = "alice", method: str = "GET") -> Response:
        headers = {} if who is None else {"Authorization": f"Bearer {who}-token"}
        async with connected(self.port) as connection:
            return await connection.ask(method, "/api/balance", None, **headers)


@asynccontextmanager
async def serve(is_configured: bool = True) -> AsyncIterator[BalanceServer]:
    context = Context(
        Settings(), Metrics(), Status(), admission(Tokens(**{"alice-token": "alice", "bob-token": "bob"}))
    )
    server = BalanceServer()
    async with serving(
        context, handlers.balance.routes(context, server.accounts.known if is_configured else None)
    ) as server.port:
        yield server


@pytest.mark.gen_test
async def test_balance_is_the_callers_own() -> None:
    async with serve() as server:
        server.accounts.say(record(EUR=("99950.00", "50"), KCN=("1", "0")))
        answer, his = await server.ask(), await server.ask("bob")
        head, nobodys = await server.ask(method="HEAD"), await server.ask(None)
    assert json.loads(answer.body) == {
        "balances": {"EUR": {"available": "99950.00", "reserved": "50"}, "KCN": {"available": "1", "reserved": "0"}},
        "time": NOW_MS / 1000,
    }
    assert his.json() == {"balances": {}, "time": None}
    assert answer.headers["cache-control"] == "no-store"
    assert (head.status, head.body, nobodys.status) == (200, b"", 401)


@pytest.mark.gen_test
async def test_balance_is_503_while_it_cannot_be_told() -> None:
    async with serve() as server:
        server.accounts.say(record(EUR=("1", "0")), partition=1)
        server.accounts.unread = {0}
        his, hers = await server.ask("bob"), await server.ask()
    assert (his.status, his.headers["retry-after"], his.json()["type"]) == (
        503,
        "1",
        "urn:mexchange:problem:unavailable",
    )
    assert hers.status == 200


@pytest.mark.parametrize("who", ["alice", None])
@pytest.mark.gen_test
async def test_balance_is_404_where_no_account_topic_is_configured(who: str | None) -> None:
    async with serve(is_configured=False) as server:
        answer = await server.ask(who)
    assert (answer.status, "no account topic is configured" in answer.json()["detail"]) == (404, True)


# Over WebSocket.


def accounts_of(server: StreamServer) -> Accounts:
    """Balances, told on the server's connections."""
    accounts = Accounts(server.driven.hub.fanout.send)
    server.trade.private.balances = accounts.channel
    return accounts


@pytest.mark.gen_test
async def test_account_balances_are_told_until_they_are_unsubscribed() -> None:
    async with serve_sockets() as server, server.client("alice-token") as connection:
        accounts = accounts_of(server)
        accounts.say(record(EUR=("10", "0"), KCN=("1", "0")))
        names = ["account.balances", "account.trades"]
        assert (await asked(connection, "private/subscribe", channels=names))["result"] == names
        first = {(message := await connection.message())["channel_name"]: message for _ in range(2)}
        assert first["account.balances"]["notification"]["snapshot"] is True
        accounts.say(record(EUR=("9", "1"), KCN=("1", "0")))
        accounts.channel.flush()
        told = (await connection.message())["notification"]
        assert told == {"balances": {"EUR": {"available": "9", "reserved": "1"}}, "time": NOW_MS / 1000}
        for channels in (["account.trades"], ["account.balances"]):
            assert accounts.channel.listeners == 1
            assert (await asked(connection, "private/unsubscribe", channels=channels))["result"] == channels
        assert accounts.channel.listeners == 0


@pytest.mark.gen_test
async def test_account_balances_wait_for_no_order_topic() -> None:
    async with serve_sockets() as server, server.client("alice-token") as connection:
        accounts_of(server)
        server.trade.is_started = False
        both = ["account.balances", "account.orders"]
        assert (await asked(connection, "private/subscribe", channels=both))["error"]["code"] == 10004
        answer = await asked(connection, "private/subscribe", channels=["account.balances"])
        assert answer["result"] == ["account.balances"]
        assert (await connection.message())["notification"] == {"balances": {}, "time": None, "snapshot": True}


@pytest.mark.gen_test
async def test_account_balances_end_with_the_token_and_with_the_connection() -> None:
    async with serve_sockets() as server:
        accounts = accounts_of(server)
        async with server.client() as connection:
            server.expires_in("short", 0.001)
            await asked(connection, "public/auth", token="short")
            await asked(connection, "private/subscribe", channels=["account.balances"])
            assert accounts.channel.listeners == 1
            server.now += 0.002
            while "type" not in await connection.message():
                pass
            assert accounts.channel.listeners == 0
        async with server.client("alice-token") as connection:
            await asked(connection, "private/subscribe", channels=["account.balances"])
            assert accounts.channel.listeners == 1
        await server.alone()
        assert accounts.channel.listeners == 0
