"""`/ws` with tokens, orders and a bus in the test's hands."""

from __future__ import annotations

import itertools
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import handlers.websocket
from core.access.identity import Principal
from core.channels.hub import Hub
from core.config.settings import Settings
from core.control.exchange_status import ExchangeStatus
from core.control.status_channel import StatusChannel
from core.messages.control_records import Restriction
from core.messages.events import OrderEvent, read_event
from core.messages.model import Instrument
from core.messages.order_rules import OrderRules
from core.protocol.client_state import SessionRules
from core.protocol.connection_identity import AUTH_EXPIRED
from core.protocol.connection_orders import OrderServices
from core.telemetry.audit import Audit
from core.telemetry.metrics import Metrics
from handlers.problems import Context, Status
from tests.core.admission import Tokens, admission
from tests.core.driven_hub import DrivenHub
from tests.core.trading import Trade
from tests.handlers.wire import Connection, connected, serving, until

RULES = OrderRules((Instrument("KCN/EUR", Decimal("0.01"), Decimal("0.1"), Decimal("0.1")),))
LIMIT = {"side": "bid", "order_type": "limit", "price": "1.50", "quantity": "2.0"}
EXPIRED = json.loads(AUTH_EXPIRED.text)


class StreamServer:
    """What is behind the route, and its wall clock."""

    def __init__(self, tokens: Tokens, **more: Any) -> None:
        self.now = 1_700_000_000.0
        self.tokens = tokens
        self.driven = DrivenHub()
        self.trade = Trade(self.driven.hub.fanout.send, acks=True)
        settings = Settings()
        limits = {name: more.pop(name) for name in [*more] if hasattr(settings.limits, name)}
        websocket = {name: more.pop(name) for name in [*more] if hasattr(settings.websocket, name)}
        self.settings = replace(
            settings, limits=replace(settings.limits, **limits), websocket=replace(settings.websocket, **websocket)
        )
        allows_anonymous = more.setdefault("allows_anonymous", False)
        audit = more.pop("audit", Audit())
        self.context = Context(
            self.settings, Metrics(), Status(), admission(tokens, **more), lambda: self.now, audit=audit
        )
        self.order_services = order_services_of(self.trade, self.context)
        self.halted: dict[str | None, Restriction] = {}
        self.status = status_of(self.driven.hub, self.halted)
        sessions = itertools.count(1)
        self.rules = SessionRules(
            max_subscriptions=100,
            max_views=1000,
            instruments=lambda: {"instruments": []},
            is_listed=lambda _symbol: True,
            has_tick=lambda _symbol: True,
            open_views=self.driven.hub.open_views,
            orders=RULES,
            allows_anonymous=allows_anonymous,
            has_balances=True,
            find_order=self.trade.directory.get,
            new_session_id=lambda: f"{next(sessions):012x}",
        )
        self.port = 0
        self._event_offset = 0

    @asynccontextmanager
    async def client(self, token: str | None = None, path: str = "/ws?stream=none") -> AsyncIterator[Connection]:
        """A connection; with a token it is signed in on the upgrade."""
        async with connected(self.port) as connection:
            await connection.upgrade(path, **({} if token is None else {"Authorization": f"Bearer {token}"}))
            yield connection

    def expires_in(self, token: str, seconds: float, user_id: str = "alice") -> str:
        """A token that does."""
        self.tokens.good[token] = Principal(user_id, self.now + seconds)
        return token

    def hear(self, kind: str, order_id: str, **more: object) -> bytes:
        """The engine speaks of an order."""
        payload = json.dumps({"type": kind, "order_id": order_id, **more}).encode()
        event = read_event(payload)
        assert isinstance(event, OrderEvent)
        self.trade.directory.fold_event(event, 0, self._event_offset, 1, True)
        self._event_offset += 1
        self.trade.private.flush()
        return payload

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.trade.log.records if record["type"] == kind]

    @property
    def cancels(self) -> list[tuple[str, str | None]]:
        """Whose cancels were produced, of which orders."""
        return [(record["order_id"], record["user_id"]) for record in self.records("cancel_order")]

    async def alone(self) -> None:
        """Nobody is connected any more, and what was to be done about it is done."""
        await until(lambda: not self.driven.hub.subscribers)
        await self.order_services.finish(10)


def status_of(hub: Hub, halted: Mapping[str | None, Restriction]) -> StatusChannel:
    """The channel of what is halted."""
    return StatusChannel(hub.fanout.send, ExchangeStatus({}, halted, lambda: None))


def order_services_of(trade: Trade, context: Context) -> OrderServices:
    """What connections order by; what is over a limit is counted."""
    count = context.metrics.rate_limited.labels
    return OrderServices(
        trade.entry,
        trade.directory,
        trade.private,
        trade.lookup,
        context.admission,
        lambda what: count(what).inc(),
        trade.changes,
        trade.amends,
        engine_seconds=0,
        audit=context.audit,
    )


@asynccontextmanager
async def serve(*, tls: ssl.SSLContext | None = None, **more: Any) -> AsyncIterator[StreamServer]:
    """Tokens `alice-token` and `bob-token` are good for ever; `more` are settings, and attributes of the admission."""
    server = StreamServer(Tokens(**{"alice-token": "alice", "bob-token": "bob"}), **more)
    routes = handlers.websocket.routes(
        server.context, server.driven.hub, server.rules, server.order_services, server.status
    )
    async with serving(server.context, routes, tls=tls) as server.port:
        yield server


def call(method: str, request_id: object = 1, **params: object) -> dict[str, object]:
    return {"id": request_id, "method": method, "params": params}


async def asked(connection: Connection, method: str, **params: object) -> dict[str, Any]:
    """The answer to one request, which has to come next."""
    await connection.say(call(method, **params))
    return await connection.message()


async def placed(connection: Connection, **fields: object) -> str:
    answer = await asked(connection, "private/place_order", **{**LIMIT, **fields})
    order_id: str = answer["result"]["order_id"]
    return order_id
