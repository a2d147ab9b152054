"""What `/ws` turns away before it is served, in the second older dialect's own form."""

from __future__ import annotations

from typing import Any

import pytest

from core.access.limits import Limiter, Policy
from tests.core.admission import taker
from tests.handlers.websocket_server import LIMIT, asked, placed, serve


def refused(kind: str, error: str, **about: object) -> dict[str, Any]:
    return {"type": kind, "success": False, **about, "error": error}


@pytest.mark.gen_test
async def test_requests_over_the_limit_are_refused_in_the_dialect_they_came_in() -> None:
    async with serve(messages=Policy("requests", 0.01, 2)) as server, server.client("alice-token") as connection:
        order_id = await placed(connection)
        assert (await asked(connection, "public/ping"))["result"] == "pong"
        await connection.say({"type": "cancel_order", "order_id": order_id})
        wait = "too many requests; wait"
        assert await connection.message() == refused("cancel_result", wait, order_id=order_id)
        assert (await asked(connection, "public/ping"))["error"]["code"] == 10003
        assert server.cancels == []
        counted = server.context.metrics.registry.get_sample_value
        assert counted("gateway_rate_limited_total", {"route": "messages"}) == 2


@pytest.mark.gen_test
async def test_requests_over_the_limit_of_their_address_are_refused_in_the_dialect_they_came_in() -> None:
    limiter = Limiter(Policy("requests", 0.5, 1), clock=lambda: 0.0)
    async with serve(address_requests=limiter, address_requests_per_second=0.5) as server:
        async with server.client() as connection:
            assert (await asked(connection, "public/ping"))["result"] == "pong"
            await connection.say({"type": "auth", "token": "alice-token"})
            assert await connection.message() == refused("auth_result", "too many requests; wait", user_id=None)


@pytest.mark.gen_test
async def test_orders_and_cancels_over_their_limits_are_refused_in_the_dialect_they_came_in() -> None:
    async with serve(orders=taker("orders", 0.5, 1), cancels=taker("cancels", 0.5, 1)) as server:
        async with server.client("alice-token") as connection:
            order_id = await placed(connection)
            await connection.say({"type": "place_order", **LIMIT})
            assert await connection.message() == refused("order_result", "too many orders; wait", order_id=None)
            assert "result" in await asked(connection, "private/cancel_order", order_id=order_id)
            await connection.say({"type": "cancel_order", "order_id": order_id})
            assert await connection.message() == refused("cancel_result", "too many cancels; wait", order_id=order_id)


@pytest.mark.gen_test
async def test_cancel_that_others_orders_cannot_be_read_for_is_refused_in_the_dialect_it_came_in() -> None:
    async with serve() as server, server.client("alice-token") as connection:
        server.trade.is_reachable = False
        await connection.say({"type": "cancel_order", "order_id": "unknown-1"})
        told = "not sent: Kafka cannot be reached"
        assert await connection.message() == refused("cancel_result", told, order_id="unknown-1")
