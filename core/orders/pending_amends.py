"""The last amend of each order that the engine has not answered: by it a repeat is recognised (docs/contract.md#amends)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from decimal import Decimal
from typing import Final

from core.messages.events import OrderEvent
from core.messages.order_records import AmendRecord

# The oldest are forgotten; then their repeat is produced again, which changes nothing.
MOST: Final = 20_000
# An engine that has not answered by then does not, and a repeat is another try.
REPEAT_MS: Final = 60_000


class PendingAmend:
    """One amend. `price` and `quantity` are None where they are to stay as they are; `at_ms` is when it was heard of."""

    __slots__ = (
        "_answer",
        "_event",
        "_outcome",
        "at_ms",
        "is_answered",
        "is_certain",
        "is_read",
        "is_under_way",
        "price",
        "quantity",
    )

    def __init__(self, price: Decimal | None, quantity: Decimal | None, at_ms: int) -> None:
        self.price = price
        self.quantity = quantity
        self.at_ms = at_ms
        # It is on the order topic: acknowledged, or read there.
        self.is_certain = False
        self.is_read = False
        # Produced by this instance, and not acknowledged yet.
        self.is_under_way = False
        self.is_answered = False
        self._outcome: asyncio.Future[None] | None = None
        self._event: OrderEvent | None = None
        self._answer: asyncio.Future[None] | None = None

    def asks_for(self, price: Decimal | None, quantity: Decimal | None) -> bool:
        """Whether it is one of these terms."""
        return self.price == price and self.quantity == quantity

    def outcome(self) -> asyncio.Future[None]:
        """That it is on the topic, or the error of it; only while it is under way."""
        if self._outcome is None:
            self._outcome = asyncio.get_running_loop().create_future()
        return self._outcome

    @property
    def is_ahead(self) -> bool:
        """Whether the engine's word on it was read before its own record: the two topics have no order between them."""
        return self._event is not None and not self.is_read

    def settle(self, error: Exception | None) -> None:
        """What became of it, to who joined it."""
        outcome = self._outcome
        if outcome is None or outcome.done():
            return
        if error is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(error)
            outcome.exception()  # whoever waited may have gone meanwhile

    def answered(self, event: OrderEvent | None) -> None:
        """The engine has said this of it; None: the order has closed before it said anything."""
        self.is_answered = True
        self._event = event
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    async def answer(self, within_seconds: float) -> OrderEvent | None:
        """What the engine says of it; None if it does not in time, or the order has closed."""
        if not self.is_answered:
            if self._answer is None:
                self._answer = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._answer,), timeout=within_seconds)
        return self._event


class PendingAmends:
    """By order. Who asks for an amend puts it here; what both topics say of amends the directory tells."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._pending: OrderedDict[str, PendingAmend] = OrderedDict()
        # Of this instance, answered before they are read.
        self._ahead: OrderedDict[str, PendingAmend] = OrderedDict()

    def get(self, order_id: str, now_ms: int) -> PendingAmend | None:
        """The last amend of an order, unless it is too old for a repeat."""
        pending = self._pending.get(order_id)
        return None if pending is None or now_ms - pending.at_ms > REPEAT_MS else pending

    def put(self, order_id: str, pending: PendingAmend) -> None:
        """This is the last one from now on."""
        self._keep(self._pending, order_id, pending)

    def _keep(self, amends: OrderedDict[str, PendingAmend], order_id: str, pending: PendingAmend) -> None:
        amends[order_id] = pending
        amends.move_to_end(order_id)
        if len(amends) > self._most:
            amends.popitem(last=False)

    def end(self, order_id: str, pending: PendingAmend, *, instead: PendingAmend | None) -> None:
        """One that was put here is under way no more. Unless it waits for the engine still, the last one is the one before it."""
        pending.is_under_way = False
        if instead is pending and not pending.is_answered:
            return
        if pending.is_ahead:
            self._keep(self._ahead, order_id, pending)
        if self._pending.get(order_id) is pending:
            if instead is None or instead is pending:
                del self._pending[order_id]
            else:
                self._pending[order_id] = instead

    def read(self, record: AmendRecord, now_ms: int) -> None:
        """One is read on the order topic."""
        ahead = self._ahead.get(record.order_id)
        if ahead is not None and ahead.asks_for(record.price, record.quantity):
            del self._ahead[record.order_id]
            return
        pending = self._pending.get(record.order_id)
        if pending is not None and pending.asks_for(record.price, record.quantity):
            pending.is_certain = pending.is_read = True
        elif pending is None or not pending.is_under_way:  # which would come behind this one
            pending = PendingAmend(record.price, record.quantity, now_ms)
            pending.is_certain = pending.is_read = True
            self.put(record.order_id, pending)

    def answered(self, order_id: str, event: OrderEvent) -> None:
        """The engine has amended an order, or refused to.

        An amend that it took may be another one, before the last; which of several it refused is not told: then a repeat of
        the last is another try.
        """
        pending = self._pending.get(order_id)
        if pending is None:
            return
        is_this = event.type != "order_amended" or (
            pending.price in (None, event.price) and pending.quantity in (None, event.quantity)
        )
        if is_this:
            self._answered(order_id, pending, event)

    def closed(self, order_id: str) -> None:
        """An order has come to its end."""
        pending = self._pending.get(order_id)
        if pending is not None:
            self._answered(order_id, pending, None)

    def _answered(self, order_id: str, pending: PendingAmend, event: OrderEvent | None) -> None:
        pending.answered(event)
        if not pending.is_under_way:
            del self._pending[order_id]
            if pending.is_ahead:
                self._keep(self._ahead, order_id, pending)
