"""`/api/order/cancel_all_after`: all orders cancelled unless the user says so again (docs/contract.md#cancel-all-after)."""

from __future__ import annotations

from typing import Any

from core.access.scopes import CANCEL
from core.messages.order_rules import OrderRules, check_cancel_all_after
from core.protocol.connection_orders import OrderServices
from handlers.orders import OrderHandler
from handlers.problems import Context


class CancelAllAfterHandler(OrderHandler):
    """`POST /api/order/cancel_all_after`."""

    command = "cancel_all_after"

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(self, context: Context, order_services: OrderServices, rules: OrderRules) -> None:  # type: ignore[override]
        """`rules` are what bodies are checked against."""
        super().initialize(context, order_services.entry, order_services.lookup, rules)
        self._order_services = order_services

    async def post(self) -> None:
        """202 once it is on the control topic, or what is there covers it."""
        user_id = await self.caller(CANCEL, needs_token=True)
        assert user_id is not None
        self.admit(await self.context.admission.take_cancel(user_id))
        seconds = self.read(check_cancel_all_after)
        moment_ms = await self.done(self._order_services.cancel_all_after(user_id, seconds))
        self.answer_command(202, {"trigger_time_ms": moment_ms})


def routes(context: Context, order_services: OrderServices, rules: OrderRules) -> list[tuple[Any, ...]]:
    """The route table of this room; before that of the orders, whose ids take any name."""
    served = {"context": context, "order_services": order_services, "rules": rules}
    return [(r"/api/order/cancel_all_after", CancelAllAfterHandler, served)]
