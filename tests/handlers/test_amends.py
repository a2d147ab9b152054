"""`/api/order/amend` over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

import handlers.amends
from core.config.settings import Settings
from core.messages.order_rules import OrderRules
from core.telemetry.audit import Audit
from core.telemetry.metrics import Metrics
from handlers.problems import Context, Status
from tests.core.admission import Tokens, admission, taker
from tests.core.attempts import LIMIT, hear
from tests.core.trading import CERTAINLY_NOT, Trade
from tests.handlers.orders_server import ALICE, BOB, RULES, OrdersServer, check_refused
from tests.handlers.websocket_server import order_services_of
from tests.handlers.wire import serving

AMENDING = replace(RULES, amends=True)


@asynccontextmanager
async def serve(rules: OrderRules = AMENDING, **more: object) -> AsyncIterator[OrdersServer]:
    """Every command is acknowledged at once; `more` are attributes of the admission that differ."""
    tokens = Tokens(**{f"{name}-token": name for name in (ALICE, BOB)})
    audit = more.pop("audit", Audit())
    context = Context(Settings(), Metrics(), Status(), admission(tokens, **more), audit=audit)
    trade = Trade(acks=True, rules=rules)
    table = handlers.amends.routes(context, trade.entry, trade.lookup, rules, trade.amends)
    async with serving(context, table) as port:
        yield OrdersServer(port, trade, order_services_of(trade, context), context)


@pytest.mark.gen_test
async def test_amend_is_202_and_its_repeat_says_so() -> None:
    async with serve() as server:
        order_id = (await server.trade.entry.place(ALICE, LIMIT)).order_id
        body = {"client_order_id": "my-1", "quantity": "3.0"}
        first, second = [await server.ask("POST", "/api/order/amend", body) for _ in range(2)]
        assert (first.status, first.json()) == (202, {"order_id": order_id, "status": "amend_requested"})
        assert first.headers["server-timing"].startswith("bus;dur=")
        assert (second.status, second.json()) == (
            202, {"order_id": order_id, "duplicate": True, "status": "amend_requested"},
        )  # fmt: skip
        assert "server-timing" not in second.headers


@pytest.mark.gen_test
async def test_amend_is_refused_where_it_cannot_be() -> None:
    async with serve() as server:
        order_id = (await server.trade.entry.place(ALICE, LIMIT)).order_id
        body = {"order_id": order_id, "price": "1.75"}
        check_refused(await server.ask("POST", "/api/order/amend", body, BOB), 404, "not-found")
        check_refused(await server.ask("POST", "/api/order/amend", body, "bad"), 401, "unauthorised")
        wrong = await server.ask("POST", "/api/order/amend", {**body, "price": "1.755"})
        assert check_refused(wrong, 422, "invalid-fields")["errors"][0]["field"] == "price"
        server.trade.log.refuses = CERTAINLY_NOT
        check_refused(await server.ask("POST", "/api/order/amend", body), 503, "bus-unavailable")
        hear(server.trade, "order_cancelled", order_id, filled_quantity="0")
        assert check_refused(await server.ask("POST", "/api/order/amend", body), 409, "conflict")["order_status"] == (
            "cancelled"
        )


@pytest.mark.gen_test
async def test_amend_counts_as_an_order() -> None:
    async with serve(orders=taker("orders", 1, 2)) as server:
        await server.trade.entry.place(ALICE, LIMIT)
        first = await server.ask("POST", "/api/order/amend", {"client_order_id": "my-1", "quantity": 3})
        assert first.headers["ratelimit-policy"].startswith('"orders"')
        await server.ask("POST", "/api/order/amend", {"client_order_id": "my-1", "quantity": 4})
        second = await server.ask("POST", "/api/order/amend", {"client_order_id": "my-1", "quantity": 5})
        check_refused(second, 429, "too-many-requests")


@pytest.mark.parametrize("rules", [RULES, replace(AMENDING, accounts=True)])
@pytest.mark.gen_test
async def test_amend_is_404_and_says_why_where_orders_cannot_be_amended(rules: OrderRules) -> None:
    async with serve(rules) as server:
        answer = await server.ask("POST", "/api/order/amend", {"order_id": "x", "price": "1"})
        assert check_refused(answer, 404, "not-found")["error"] == rules.why_no_amends()


# Batches.


@pytest.mark.gen_test
async def test_batch_is_200_with_what_each_alone_would_have_been_answered() -> None:
    async with serve(orders=taker("orders", 1, 2)) as server:
        place = {"side": "bid", "order_type": "limit", "price": "1.50", "quantity": "2.0", "client_order_id": "mine"}
        requests = [
            {"method": "place", "params": place},
            {"method": "amend", "params": {"client_order_id": "mine", "price": "1.60"}},
            {"method": "cancel", "params": {"client_order_id": "mine"}},
            {"method": "cancel", "params": {"order_id": "none"}},
            {"method": "place", "params": {**place, "price": "1.555"}},
            {"method": "place", "params": {**place, "client_order_id": None}},
        ]
        answer = await server.ask("POST", "/api/order/batch", {"requests": requests})
        assert answer.status == 200
        assert answer.headers["server-timing"].startswith("bus;dur=")
        results = answer.json()["results"]
        assert [one["status"] for one in results] == [202, 202, 202, 404, 422, 429]
        order_id = results[0]["body"]["order_id"]
        assert [one["body"] for one in results[:3]] == [
            {"order_id": order_id, "client_order_id": "mine", "status": "accepted"},
            {"order_id": order_id, "status": "amend_requested"},
            {"order_id": order_id, "status": "cancel_requested"},
        ]
        for one in results[3:]:
            assert one["body"]["status"] == one["status"] and one["body"]["request_id"]
        assert results[4]["body"]["errors"][0]["field"] == "price"
        assert [one["type"] for one in server.trade.log.records] == ["place_order", "amend_order", "cancel_order"]


@pytest.mark.gen_test
async def test_batch_that_is_none_is_refused_as_a_whole() -> None:
    async with serve() as server:
        check_refused(await server.ask("POST", "/api/order/batch", {"requests": []}), 422, "invalid-fields")
        check_refused(await server.ask("POST", "/api/order/batch", {"requests": [1]}, "bad"), 401, "unauthorised")
