"""`GET /api/status` and the channel `status` over real sockets."""

from __future__ import annotations

import pytest

import handlers.status
from core.config.settings import Settings
from core.control.exchange_status import ExchangeStatus
from core.errors import CloseCode
from core.messages.control_records import Restriction
from core.telemetry.metrics import Metrics
from handlers.problems import Context, Status
from tests.core.admission import Tokens, admission
from tests.handlers.websocket_server import asked, serve
from tests.handlers.wire import connected, serving, until

ONLINE = {"state": "online", "symbols": {}}
CHANNELS = ["status"]


@pytest.mark.gen_test
async def test_status_is_told_to_everybody() -> None:
    context = Context(Settings(), Metrics(), Status(), admission(Tokens()))
    halted: dict[str | None, Restriction] = {"KCN/EUR": Restriction(1, "why")}
    status = ExchangeStatus({}, halted, lambda: None)
    async with serving(context, handlers.status.routes(context, status)) as port, connected(port) as connection:
        answer = await connection.ask("GET", "/api/status", None)
        refused = await connection.ask("POST", "/api/status", b"{}")
    assert (answer.status, answer.json()) == (
        200,
        {"state": "online", "symbols": {"KCN/EUR": "halted"}, "reasons": {"KCN/EUR": "why"}},
    )
    assert refused.status == 405


def notification(told: object) -> dict[str, object]:
    return {"channel_name": "status", "notification": told}


@pytest.mark.gen_test
async def test_connection_is_told_of_the_status_until_it_unsubscribes_or_leaves() -> None:
    async with serve() as server:
        async with server.client() as client, server.client() as leaving:
            for one in (client, leaving):
                assert (await asked(one, "public/subscribe", channels=CHANNELS))["result"] == ["status"]
                assert await one.message() == notification(ONLINE)
            server.halted[None] = Restriction(1, None)
            server.status.status.on_change()
            server.status.flush()
            assert await client.message() == notification({"state": "halted", "symbols": {}})
            assert server.status.listeners == 2
            assert (await asked(client, "unsubscribe", channels=CHANNELS))["result"] == ["status"]
            assert server.status.listeners == 1
        await until(lambda: not server.status.listeners)


@pytest.mark.gen_test
async def test_connection_is_told_of_its_end_before_it_comes() -> None:
    async with serve() as server, server.client() as client:
        await asked(client, "public/subscribe", channels=CHANNELS)
        await client.message()
        [subscriber] = server.driven.hub.subscribers
        server.status.tell_closing(subscriber, 1.5)
        subscriber.end(CloseCode.GOING_AWAY, "reconnect")
        assert await client.message() == notification({"closing_in_ms": 1500})
