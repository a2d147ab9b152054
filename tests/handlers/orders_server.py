"""A server of `/api/order*` with a log whose acknowledgements a test gives, and who asks it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import handlers.timers
from core.config.settings import Settings
from core.messages.model import Instrument
from core.messages.order_rules import OrderRules
from core.protocol.connection_orders import OrderServices
from core.telemetry.audit import Audit
from core.telemetry.metrics import Metrics
from handlers.orders import routes
from handlers.problems import Context, Status
from tests.core.admission import Tokens, admission
from tests.core.trading import Trade
from tests.handlers.websocket_server import order_services_of
from tests.handlers.wire import Response, connected, serving

RULES = OrderRules((Instrument("KCN/EUR", Decimal("0.01"), Decimal("0.1"), Decimal("0.1")),))


LIMIT = {"side": "bid", "order_type": "limit", "price": "1.50", "quantity": "2.0", "client_order_id": "my-1"}


BODY_BYTES = 1000
ALICE, BOB, BAD, NOBODY = "alice", "bob", "bad", None


class OrdersServer:
    def __init__(self, port: int, trade: Trade, order_services: OrderServices, context: Context) -> None:
        self.context = context
        self.port = port
        self.order_services = order_services
        self.trade = trade

    async def ask(
        self, method: str, path: str, body: object = None, who: str | None = ALICE, **headers: str
    ) -> Response:
        """One request of its own, so that several may be under way."""
        if who is not None:
            headers["Authorization"] = f"Bearer {who}-token"
        payload = None
        if body is not None:
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers.setdefault("Content_Type", "application/json")
        async with connected(self.port) as connection:
            return await connection.ask(method, path, payload, **headers)

    async def place(self, who: str | None = ALICE, **fields: object) -> str:
        answer = await self.ask("POST", "/api/order", {**LIMIT, **fields}, who)
        assert answer.status == 202
        order_id: str = answer.json()["order_id"]
        return order_id


@asynccontextmanager
async def serve(**more: Any) -> AsyncIterator[OrdersServer]:
    """Every order is acknowledged at once; `more` are attributes of the admission that differ."""
    tokens = Tokens(**{f"{name}-token": name for name in (ALICE, BOB)})
    defaults = Settings()
    audit = more.pop("audit", Audit())
    context = Context(
        replace(defaults, http=replace(defaults.http, max_body_bytes=BODY_BYTES)),
        Metrics(),
        Status(),
        admission(tokens, **more),
        audit=audit,
    )
    trade = Trade(acks=True)
    order_services = order_services_of(trade, context)
    table = [
        *handlers.timers.routes(context, order_services, RULES),
        *routes(context, trade.entry, trade.lookup, RULES, lambda: {"instruments": [{"symbol": "KCN/EUR"}]}),
    ]
    async with serving(context, table) as port:
        yield OrdersServer(port, trade, order_services, context)


def check_refused(answer: Response, status: int, slug: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status, body["status"], body["type"]) == (status, status, f"urn:mexchange:problem:{slug}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["error"] == body["detail"]
    return body
