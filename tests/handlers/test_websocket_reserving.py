"""Orders over `/ws` whose funds are being reserved, when all is cancelled and when their connection ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from core.config.settings import Accounts
from services.accounts import Reservations
from tests.handlers.websocket_server import LIMIT, StreamServer, asked, call, serve
from tests.handlers.wire import until
from tests.support.accounts import AccountService, account_service
from tests.support.deadlines import deadlines, meet

LONG_SECONDS = 15.0


@asynccontextmanager
async def serve_with_accounts() -> AsyncIterator[tuple[StreamServer, AccountService]]:
    """`serve`, in front of an account service that has funds for all."""
    async with account_service({("alice", "EUR"): "100"}) as service, serve() as server:
        reservations = Reservations(Accounts(service.url, LONG_SECONDS, 8))
        server.trade.entry._reservations = reservations
        try:
            yield server, service
        finally:
            await reservations.close(LONG_SECONDS)


@pytest.mark.gen_test
async def test_cancel_all_behind_an_order_cancels_it_though_its_funds_are_still_being_reserved() -> None:
    async with serve_with_accounts() as (server, service), server.client("alice-token") as connection:
        with service.frozen():
            await connection.say(call("private/place_order", 1, **LIMIT), call("private/cancel_all", 2))
            assert (await asked(connection, "public/ping"))["result"] == "pong"
            await service.arrived(1)
            assert server.trade.log.records == []
        answers = {(answer := await connection.message())["id"]: answer["result"] for _ in range(2)}
        order_id = answers[1]["order_id"]
        assert answers[2] == {"order_ids": [order_id]}
        assert [(record["type"], record["order_id"]) for record in server.trade.log.records] == [
            ("place_order", order_id),
            ("cancel_order", order_id),
        ]


@pytest.mark.gen_test
async def test_cancel_all_waits_no_longer_than_the_account_service_has_to_answer() -> None:
    async with serve_with_accounts() as (server, service), server.client("alice-token") as connection:
        with service.frozen(), deadlines() as begun:
            await connection.say(call("private/place_order", 1, **LIMIT), call("private/cancel_all", 2))
            assert (await asked(connection, "public/ping"))["result"] == "pong"
            await service.arrived(1)
            meet(begun.pop())
            answers = {(answer := await connection.message())["id"]: answer for _ in range(2)}
        assert answers[1]["error"]["code"] == 10005
        assert answers[2]["result"] == {"order_ids": []}
        assert server.trade.log.records == []


@pytest.mark.gen_test
async def test_order_whose_funds_were_being_reserved_when_its_connection_ended_is_cancelled() -> None:
    async with serve_with_accounts() as (server, service):
        with service.frozen():
            async with server.client("alice-token") as connection:
                await asked(connection, "private/set_cancel_on_disconnect", enabled=True)
                await connection.say(call("private/place_order", 2, **LIMIT))
                await service.arrived(1)
            await until(lambda: not server.driven.hub.subscribers)
            assert server.trade.log.records == []
        await server.order_services.finish(LONG_SECONDS)
        [order] = server.records("place_order")
        assert server.cancels == [(order["order_id"], "alice")]
