"""`/api/order/amend` and `/api/order/batch`: new terms for an open order, and several requests in one (docs/contract.md#amends,
#batches).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from core.access.limits import rate_limit_headers
from core.access.scopes import TRADE, check_command
from core.errors import NoAmends, RequestError, TooManyRequests
from core.messages.batch_rules import check_batch
from core.messages.commands import CancelOrder
from core.messages.order_rules import OrderRules, check_amend
from core.orders.amends import Amends
from core.orders.attempt import Placed
from core.orders.batch import Batches, Command, Done
from core.orders.deadlines import VALID, Valid
from core.orders.entry import OrderEntry
from core.orders.lookup import OrderLookup
from handlers.orders import OrderHandler
from handlers.problems import Context, refusal_of


class AmendHandler(OrderHandler):
    """`POST /api/order/amend`."""

    command = "amend"

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
            raise refusal_of(NoAmends(reason))
        user_id = await self.caller(TRADE)
        self.admit(await self.context.admission.take_order(user_id))
        amend = self.read(check_amend)
        origin = self.origin()
        amended = await self.done(self._amends.amend(user_id, amend, origin))
        self.tell_bus(origin)
        if amend.validate_only:
            self.answer_command(200, VALID.body())
            return
        self.answer_command(202, answer_to(amended))


class BatchHandler(OrderHandler):
    """`POST /api/order/batch`."""

    command = "batch"

    # Tornado calls it with this route's own arguments, and nobody through the base class.
    def initialize(  # type: ignore[override]
        self, context: Context, entry: OrderEntry, lookup: OrderLookup, rules: OrderRules, amends: Amends
    ) -> None:
        """`amends` is their way out."""
        super().initialize(context, entry, lookup, rules)
        self._batches = Batches(entry, amends)

    async def post(self) -> None:
        """200 with what each of them alone would have been answered, once all of that is known."""
        user_id = await self.caller(None)
        batch = self.read(partial(check_batch, permit=partial(check_command, self.allowed)))
        origin = self.origin()

        async def admit(command: Command) -> None:
            admission = self.context.admission
            is_cancel = isinstance(command, CancelOrder)
            decision = await (admission.take_cancel(user_id) if is_cancel else admission.take_order(user_id))
            if decision is not None:
                self._headers.update(rate_limit_headers(decision))
                if not decision.allowed:
                    self.context.metrics.rate_limited.labels(decision.policy.name).inc()
                    raise TooManyRequests(decision.policy.name, decision.retry_after)

        started = await self._batches.begin(user_id, batch, admit, origin)
        outcomes = await self._batches.outcomes(started)
        self.tell_bus(origin)
        self.audit.batch(self.asker(), batch, outcomes)
        self.answer(200, {"results": [self._shown(outcome) for outcome in outcomes]})

    def _shown(self, outcome: Done | RequestError) -> dict[str, object]:
        if isinstance(outcome, RequestError):
            refusal = refusal_of(outcome)
            self.context.metrics.refusals.labels(refusal.problem.slug).inc()
            return {"status": refusal.problem.status, "body": self.problem_body(refusal)}
        return {"status": 200 if outcome is VALID else 202, "body": answer_to(outcome)}


def answer_to(done: Done) -> dict[str, object]:
    """The body of the 202 of an order, a cancel (by its order's id) or an amend."""
    if isinstance(done, str):
        return {"order_id": done, "status": "cancel_requested"}
    if isinstance(done, Valid):
        return done.body()
    return {**done.body(), "status": "accepted" if isinstance(done, Placed) else "amend_requested"}


def routes(
    context: Context, entry: OrderEntry, lookup: OrderLookup, rules: OrderRules, amends: Amends
) -> list[tuple[Any, ...]]:
    """The route table of this room; before that of the orders, whose ids take any name."""
    served = {"context": context, "entry": entry, "lookup": lookup, "rules": rules, "amends": amends}
    return [(r"/api/order/amend", AmendHandler, served), (r"/api/order/batch", BatchHandler, served)]
