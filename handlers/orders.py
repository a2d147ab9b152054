"""`/api/order*` and `/api/instruments`: orders in over REST (contract, section 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from uuid import UUID

from core.commands import CancelOrder, OrderRules, PlaceOrder, check_cancel, check_place, read_json
from core.errors import BusUnavailable, FieldError, InvalidFields, NotJson, OutcomeUnknown
from core.orders import order_id_for
from handlers.base import BaseHandler, Context, Refusal


class CommandLog(Protocol):
    """Where commands go."""

    def produce(self, order_id: str, symbol: str, command: bytes) -> asyncio.Future[None]:
        """Publish one command; see `core.kafka.order_log.OrderLog.produce`."""


class OrderHandler(BaseHandler):
    """What placing and cancelling share: who asks, what they sent, and what became of it on the bus."""

    kind: str

    def initialize(self, context: Context, log: CommandLog, rules: OrderRules, namespace: UUID) -> None:  # type: ignore[override]
        """`namespace` is the secret one that order ids are derived in."""
        super().initialize(context)
        self._commands = log
        self._rules = rules
        self._namespace = namespace

    def check_caller(self) -> None:
        """Nobody can prove who they are yet, so only anonymous callers are served, and only where they may be."""
        if self.context.settings.auth.mode == "required" or "Authorization" in self.request.headers:
            raise Refusal(
                "unauthorised", "a valid token is needed", headers={"WWW-Authenticate": 'Bearer realm="mexchange"'}
            )

    def read(self, check: Callable[[object, OrderRules], Any]) -> Any:
        """The checked body. Raises `Refusal` (400, 401, 413, 415, 422)."""
        self.check_caller()
        try:
            return check(read_json(self.json_body()), self._rules)
        except NotJson as error:
            raise Refusal("not-json", f"the body is not JSON: {error.detail}") from error
        except InvalidFields as error:
            raise Refusal("invalid-fields", str(error), errors=error.errors) from error

    async def publish(self, order_id: str, symbol: str, command: bytes) -> None:
        """Publish and wait for the acknowledgement. Raises `Refusal` (503, 504), each only where it is true."""
        count = self.context.metrics.count_order
        try:
            await self._commands.produce(order_id, symbol, command)
        except BusUnavailable as error:
            count(self.kind, "not_written")
            raise Refusal(
                "bus-unavailable",
                f"not sent: {error.reason}",
                members={"order_id": order_id},
                headers={"Retry-After": "1"},
            ) from error
        except OutcomeUnknown as error:
            count(self.kind, "unknown")
            raise Refusal(
                "outcome-unknown",
                f"it is not known whether the command was written: {error.reason}",
                members={"order_id": order_id},
            ) from error
        count(self.kind, "accepted")

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return int(self.context.clock() * 1000)


class PlaceHandler(OrderHandler):
    """`POST /api/order`."""

    kind = "place"

    async def post(self) -> None:
        """202 once Kafka has the order."""
        order: PlaceOrder = self.read(check_place)
        order_id = order_id_for(self._namespace, None, order.client_order_id)
        await self.publish(order_id, order.symbol, order.encode(order_id, None, self.now_ms()))
        self.answer(202, {"order_id": order_id, "client_order_id": order.client_order_id, "status": "accepted"})


class CancelHandler(OrderHandler):
    """`POST /api/order/cancel`."""

    kind = "cancel"

    async def post(self) -> None:
        """202 once Kafka has the request; whether there was something to cancel the engine knows."""
        cancel: CancelOrder = self.read(check_cancel)
        symbol = cancel.symbol or self._rules.default_symbol
        if symbol is None:
            message = "required: the symbol of the order"
            raise Refusal("invalid-fields", f"symbol: {message}", errors=(FieldError("symbol", message),))
        order_id = cancel.order_id
        if order_id is None:
            order_id = order_id_for(self._namespace, None, cancel.client_order_id)
        await self.publish(str(order_id), symbol, cancel.encode(order_id, symbol, None, self.now_ms()))
        self.answer(202, {"order_id": order_id, "status": "cancel_requested"})


class InstrumentsHandler(BaseHandler):
    """`GET /api/instruments`."""

    def initialize(self, context: Context, instruments: Callable[[], Mapping[str, object]]) -> None:  # type: ignore[override]
        """`instruments` makes the body."""
        super().initialize(context)
        self._instruments = instruments

    def get(self) -> None:
        """What can be traded."""
        self.answer(200, self._instruments())

    head = get


def routes(
    context: Context,
    log: CommandLog,
    rules: OrderRules,
    namespace: UUID,
    instruments: Callable[[], Mapping[str, object]],
) -> list[tuple[Any, ...]]:
    """The route table of this room."""
    order = {"context": context, "log": log, "rules": rules, "namespace": namespace}
    return [
        (r"/api/order", PlaceHandler, order),
        (r"/api/order/cancel", CancelHandler, order),
        (r"/api/instruments", InstrumentsHandler, {"context": context, "instruments": instruments}),
    ]
