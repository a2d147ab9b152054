"""Amends: new terms for an order that is open, its id as before (docs/contract.md#amends).

Whether they are taken the engine decides, between fills and cancels, and says so; until then the order has the terms that it
had. An amend says what is to be and not what to add, so one that reaches the engine twice changes nothing more, and a repeat
has nothing to produce where the order has these terms, or the last amend of it asks for them and is certainly on the topic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from core.errors import BusUnavailable, OutcomeUnknown, RequestError
from core.messages.commands import AmendOrder
from core.messages.order_rules import OrderRules, check_amended_terms
from core.orders.deadlines import check_deadline
from core.orders.directory import OrderDirectory
from core.orders.entry import ACCEPTED, CommandLog, OrderEntry
from core.orders.order import Order
from core.orders.origin import Origin
from core.orders.pending_amends import PendingAmend
from core.orders.pre_trade import PreTrade


@dataclass(frozen=True, slots=True)
class Amended:
    """An amend that is on its way to the engine; `duplicate` if an earlier one had asked for the same, or it is so already.

    `pending` is what the engine has still to answer, None where that is nothing.
    """

    order_id: str
    pending: PendingAmend | None = None
    duplicate: bool = False

    def body(self) -> dict[str, object]:
        """What a client is told, over REST with a status besides."""
        return {"order_id": self.order_id, "duplicate": True} if self.duplicate else {"order_id": self.order_id}


class Amends:
    """Publishes amends, for whoever the caller is; None is anonymous."""

    def __init__(
        self,
        entry: OrderEntry,
        log: CommandLog,
        directory: OrderDirectory,
        rules: OrderRules,
        *,
        count: Callable[[str, str], None],
        clock: Callable[[], float],
        pre_trade: PreTrade | None = None,
    ) -> None:
        """`rules`: what orders are checked against. `clock` is the time in seconds since the Unix epoch."""
        self.rules = rules
        self._entry = entry
        self._log = log
        self._directory = directory
        self._pending = directory.amends
        self._count = count
        self._clock = clock
        self._pre_trade = pre_trade

    def now_ms(self) -> int:
        """The time, in milliseconds since the Unix epoch."""
        return int(self._clock() * 1000)

    async def amend(self, user_id: str | None, amend: AmendOrder, origin: Origin | None = None) -> Amended:
        """Publish an amend of one of the caller's orders, or recognise it.

        An order that is not known goes to the engine as a cancel of it does. Raises NoSuchOrder, OrderClosed, InvalidFields,
        Blocked, Halted, BusUnavailable, OutcomeUnknown, StillStarting, StillBehind.
        """
        asked_at = asyncio.get_running_loop().time()
        order_id, symbol = await self._entry.locate(user_id, amend.order)
        order = self._directory.get(order_id)
        check_amended_terms(amend, symbol, None if order is None else order.order_type, self.rules)
        last = self._pending.get(order_id, self._directory.times.now_ms())
        repeated = last if last is not None and last.asks_for(amend.price, amend.quantity) else None
        if repeated is not None and repeated.is_under_way:
            await asyncio.shield(repeated.outcome())
        is_so = last is None and order is not None and _is_so(order, amend)
        if is_so or (repeated is not None and repeated.is_certain):
            self._count("amend", "duplicate")
            return Amended(order_id, repeated, duplicate=True)
        now_ms = self.now_ms()
        try:
            if self._entry.gate is not None:
                self._entry.gate.check(user_id, symbol)
            check_deadline(amend.deadline_ms, now_ms)
            if self._pre_trade is not None and repeated is None:
                self._pre_trade.check_amend(symbol, order, amend)
        except RequestError as error:
            if repeated is not None:
                told = f"an earlier attempt may have been written; this one: {error}"
                raise OutcomeUnknown(order_id, told) from error
            self._count("amend", error.counted_as)
            raise
        if amend.validate_only:
            return Amended(order_id)
        pending = PendingAmend(amend.price, amend.quantity, self._directory.times.now_ms())
        pending.is_under_way = True
        self._pending.put(order_id, pending)
        try:
            await self._produce(order_id, symbol, user_id, amend, pending, repeated is not None, origin, asked_at)
        except BaseException as error:
            is_gone = isinstance(error, BusUnavailable)
            self._pending.end(order_id, pending, instead=last if is_gone else pending)
            if isinstance(error, RequestError):
                self._count("amend", error.counted_as)
            pending.settle(error if isinstance(error, Exception) else OutcomeUnknown(order_id, "it was interrupted"))
            raise
        pending.is_certain = True
        self._pending.end(order_id, pending, instead=pending)
        self._count("amend", ACCEPTED)
        pending.settle(None)
        return Amended(order_id, pending)

    async def _produce(
        self,
        order_id: str,
        symbol: str,
        user_id: str | None,
        amend: AmendOrder,
        pending: PendingAmend,
        is_repeat: bool,
        origin: Origin | None,
        asked_at: float,
    ) -> None:
        """Until it is on the topic, by this attempt or, of a repeat, by the one before.

        Raises BusUnavailable if none of them can be there, OutcomeUnknown if one may be.
        """
        command = amend.encode(order_id, symbol, user_id, self.now_ms())
        began = asyncio.get_running_loop().time()
        try:
            written = self._log.produce(order_id, symbol, command, None if origin is None else origin.headers)
            await self._entry.in_time(written, order_id, asked_at)
            if origin is not None:
                origin.acknowledged(asyncio.get_running_loop().time() - began)
        except BusUnavailable as error:
            if is_repeat and not pending.is_certain:
                raise OutcomeUnknown(
                    order_id, f"an earlier attempt may have been written; this one: {error}"
                ) from error
            if not pending.is_certain:
                raise
        except OutcomeUnknown:
            if not pending.is_certain:
                raise


def _is_so(order: Order, amend: AmendOrder) -> bool:
    """Whether the order has the terms that are asked for."""
    has_price = amend.price is None or (order.price is not None and Decimal(order.price) == amend.price)
    return has_price and (amend.quantity is None or Decimal(order.quantity) == amend.quantity)
