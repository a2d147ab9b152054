"""`/api/order/amend`: new terms for an open order, where the engine takes them (docs/contract.md#amends)."""

from __future__ import annotations

from typing import Any

from core.messages.order_rules import OrderRules, check_amend
from core.orders.amends import Amends
from core.orders.entry import OrderEntry
from core.orders.lookup import OrderLookup
from handlers.orders import OrderHandler
from handlers.problems import Context, Refusal


class AmendHandler(OrderHandler):
    """`POST /api/order/amend`."""

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(  # type: ignore[override]
        self, context: Context, entry: OrderEntry, lookup: OrderLookup, rules: OrderRules, amends: Amends
    ) -> None:
        """`amends` is their way out."""
        super().initialize(context, entry, lookup, rules)
        self._amends = amends

    async def post(self) -> None:
        """202 once Kafka has the request; whether the order takes the new terms the engine says."""
        reason = self._rules.why_no_amends()
        if reason is not None:
            raise Refusal("not-found", reason)
        user_id = await self.caller()
        self.admit(await self.context.admission.take_order(user_id))
        amend = self.read(check_amend)
        origin = self.origin()
        amended = await self.done(self._amends.amend(user_id, amend, origin))
        self.tell_bus(origin)
        self.answer(202, {**amended.body(), "status": "amend_requested"})


def routes(
    context: Context, entry: OrderEntry, lookup: OrderLookup, rules: OrderRules, amends: Amends
) -> list[tuple[Any, ...]]:
    """The route table of this room; before that of the orders, whose ids take any name."""
    served = {"context": context, "entry": entry, "lookup": lookup, "rules": rules, "amends": amends}
    return [(r"/api/order/amend", AmendHandler, served)]
