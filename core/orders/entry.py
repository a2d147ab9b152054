"""Orders in: one path for REST, WebSocket and the older dialects (docs/contract.md#retries, #cancels).

What is promised here: `accepted` only after Kafka acknowledged the record; a repeat of an order that was accepted, or that
has been seen on the topic, produces nothing; `BusUnavailable` only if no attempt at this order can be on the topic. So an
order is on the topic at least once, and exactly once after dropping repeated order ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final, Protocol
from uuid import UUID

from core.errors import (
    BusUnavailable,
    FieldError,
    InvalidFields,
    NoSuchOrder,
    OrderClosed,
    OrderConflict,
    OutcomeUnknown,
    RequestError,
    StillStarting,
    Unauthorised,
)
from core.messages.commands import CancelOrder, PlaceOrder
from core.orders.attempt import Attempt, Attempts, Placed
from core.orders.directory import OrderDirectory, order_id_for
from core.orders.order import Order

ACCEPTED: Final = "accepted"


class CommandLog(Protocol):
    """Where commands go."""

    def produce(self, order_id: str, symbol: str, command: bytes) -> asyncio.Future[None]:
        """Publish one command; see `core.kafka.order_log.OrderLog.produce`."""


class Reserved(Protocol):
    """What the accounts service answered: its id for the order, and the quantity that it reserved funds for."""

    @property
    def order_id(self) -> str:
        """The id to publish the order under."""

    @property
    def quantity(self) -> Decimal:
        """In base."""


class Reservations(Protocol):
    """The accounts service in front of the book."""

    async def reserve(self, user_id: str, order: PlaceOrder, idempotency_key: str) -> Reserved:
        """Reserve an order's funds. Raises `FundsRefused`, `AccountsUnavailable`, `OutcomeUnknown`."""

    def release(self, order_id: str, user_id: str) -> None:
        """Give back what was reserved for an order that was certainly not published, in the background."""


class OrderEntry:
    """Places and cancels, for whoever the caller is; None is anonymous."""

    def __init__(
        self,
        log: CommandLog,
        directory: OrderDirectory,
        namespace: UUID,
        *,
        is_started: Callable[[], bool],
        count: Callable[[str, str], None],
        clock: Callable[[], float],
        reservations: Reservations | None = None,
    ) -> None:
        """`is_started`: the order topic has been read; `clock` is the time in seconds since the Unix epoch."""
        self._log = log
        self._directory = directory
        self._namespace = namespace
        self.is_started = is_started
        self._count = count
        self._clock = clock
        self._reservations = reservations
        self._attempts = Attempts()

    async def place(self, user_id: str | None, order: PlaceOrder) -> Placed:
        """Publish an order, or recognise it.

        Raises OrderConflict, BusUnavailable, OutcomeUnknown, StillStarting; with an accounts service also Unauthorised,
        FundsRefused and AccountsUnavailable.
        """
        self._check_started()
        if self._reservations is not None and user_id is None:
            raise Unauthorised("an order needs an account here")
        known = None
        if order.client_order_id is None:
            order_id = order_id_for(self._namespace, None, None)
        else:
            first = self._attempts.find(user_id, order.client_order_id)
            if first is not None:
                return await self._join(first, order)
            known = self._directory.find_by_client_order_id(user_id, order.client_order_id)
            repeat = None if known is None else _recognise(known, order)
            if repeat is not None:
                self._count("place", "duplicate")
                return repeat
            order_id = (
                order_id_for(self._namespace, user_id, order.client_order_id) if known is None else known.order_id
            )
        attempt = Attempt(user_id, order, order_id)
        self._attempts.add(attempt)
        try:
            placed = await (self._publish_new(attempt) if known is None else self._publish_again(attempt, known))
        except BaseException as error:
            if isinstance(error, RequestError):
                self._count("place", error.counted_as)
            attempt.fail(error)
            raise
        else:
            self._count("place", ACCEPTED)
            attempt.succeed(placed)
            return placed
        finally:
            self._attempts.remove(attempt)

    async def _join(self, first: Attempt, order: PlaceOrder) -> Placed:
        """A repeat of an order that is on its way in."""
        assert order.client_order_id is not None
        if first.order.terms_hash() != order.terms_hash():
            raise OrderConflict("", order.client_order_id)
        placed = await asyncio.shield(first.outcome())
        self._count("place", "duplicate")
        return Placed(placed.order_id, order.client_order_id, duplicate=True)

    async def _publish_new(self, attempt: Attempt) -> Placed:
        order, quantity = attempt.order, attempt.order.quantity
        if self._reservations is not None:
            quantity = await self._reserve(self._reservations, attempt)
            known = self._directory.get(attempt.order_id)
            if known is not None and known.client_order_id == order.client_order_id is not None:
                # Meanwhile another instance has published it, perhaps with other terms.
                attempt.record = known
                repeat = _recognise(known, order)
                if repeat is not None:
                    return repeat
        now_ms = int(self._clock() * 1000)
        record = self._directory.register(attempt.order_id, attempt.user_id, order, now_ms, quantity)
        try:
            await self._publish(attempt, record, now_ms, quantity)
        except BusUnavailable:
            if self._reservations is not None:
                assert attempt.user_id is not None
                self._reservations.release(attempt.order_id, attempt.user_id)
            raise
        if order.client_order_id is not None and not record.has_terms(order.terms_hash()):
            # Another instance's record of the same name came first on the topic, and has the last word.
            raise OrderConflict(record.order_id, order.client_order_id)
        return Placed(record.order_id, order.client_order_id)

    async def _reserve(self, reservations: Reservations, attempt: Attempt) -> Decimal:
        """The quantity that its funds are reserved for. What comes next must not pause before it is with the log."""
        assert attempt.user_id is not None
        try:
            reserved = await reservations.reserve(attempt.user_id, attempt.order, attempt.order_id)
            attempt.order_id = reserved.order_id
            return reserved.quantity
        finally:
            attempt.end_reserving()

    async def _publish_again(self, attempt: Attempt, known: Order) -> Placed:
        """The same order under the same id: whether an earlier attempt was written is not known."""
        now_ms = int(self._clock() * 1000)
        quantity = Decimal(known.quantity)
        self._directory.register(known.order_id, known.user_id, attempt.order, now_ms, quantity)
        await self._publish(attempt, known, now_ms, quantity)
        return Placed(known.order_id, attempt.order.client_order_id)

    async def _publish(self, attempt: Attempt, record: Order, now_ms: int, quantity: Decimal | None) -> None:
        """Publish a registered order, which is certainly on the topic afterwards, by this attempt or by another.

        Raises BusUnavailable if no attempt at it can be there (then it is forgotten), OutcomeUnknown if one may be.
        """
        command = attempt.order.encode(record.order_id, record.user_id, now_ms, quantity)
        self._directory.produced(record, command)
        attempt.record = record
        try:
            await self._log.produce(record.order_id, record.symbol, command)
        except BusUnavailable as error:
            if self._directory.withdraw(record):
                attempt.record = None
                raise
            if not record.is_certain:
                raise OutcomeUnknown(
                    record.order_id, f"an earlier attempt may have been written; this one: {error}"
                ) from error
        except OutcomeUnknown:
            self._directory.doubt(record)
            if not record.is_certain:
                raise
        except BaseException:
            self._directory.doubt(record)
            raise
        self._directory.confirm(record)

    async def cancel(self, user_id: str | None, cancel: CancelOrder) -> str:
        """Publish a cancel of one of the caller's orders; its id.

        An order that is not known (it may be older than the warm-up, or never have passed a gateway) goes to the engine
        if its symbol is given; whose it is the engine checks. Raises NoSuchOrder, OrderClosed, InvalidFields (another
        symbol), BusUnavailable, OutcomeUnknown, StillStarting.
        """
        self._check_started()
        await self._reserved(user_id, cancel)
        order_id, symbol = self._to_cancel(user_id, cancel)
        await self._produce_cancel(order_id, symbol, user_id)
        return order_id

    async def _reserved(self, user_id: str | None, cancel: CancelOrder) -> None:
        """Whose funds are being reserved is no order yet, but about to be one: wait for what becomes of it."""
        client_order_id = cancel.client_order_id
        if client_order_id is None:
            return
        attempt = self._attempts.find(user_id, client_order_id)
        if attempt is not None and self._directory.find_by_client_order_id(user_id, client_order_id) is None:
            await asyncio.wait((attempt.outcome(),))

    def _to_cancel(self, user_id: str | None, cancel: CancelOrder) -> tuple[str, str]:
        directory = self._directory
        if cancel.order_id is not None:
            known = directory.get(cancel.order_id)
        else:
            assert cancel.client_order_id is not None
            known = directory.find_by_client_order_id(user_id, cancel.client_order_id)
        if known is not None:
            if known.user_id != user_id:
                raise NoSuchOrder
            if known.is_closed:
                raise OrderClosed(known.order_id, known.status.value)
            if cancel.symbol is not None and cancel.symbol != known.symbol:
                raise InvalidFields([FieldError("symbol", f"the order is one of {known.symbol}; leave it out")])
            return known.order_id, known.symbol
        if cancel.symbol is None or (cancel.order_id is None and self._reservations is not None):
            raise NoSuchOrder
        return cancel.order_id or order_id_for(self._namespace, user_id, cancel.client_order_id), cancel.symbol

    async def cancel_all(self, user_id: str, symbol: str | None) -> list[str]:
        """Publish a cancel of each of a user's open orders, and of those under way from here; their ids, oldest first.

        An order whose funds are being reserved is cancelled behind its record, as soon as that is decided; the others do
        not wait for it. Raises BusUnavailable if certainly none was written, OutcomeUnknown if some may not have been,
        StillStarting.
        """
        self._check_started()
        orders = self._directory.open_orders(user_id, symbol)
        attempts = self._attempts.of(user_id, symbol)
        orders += _produced(attempts, user_id, but=orders)
        reserving = [attempt for attempt in attempts if attempt.record is None]
        if reserving:
            results, late = await asyncio.gather(self.cancel_each(orders), self._cancel_reserving(reserving, orders))
            orders += (order for order, _ in late)
            results += (result for _, result in late)
        else:
            results = await self.cancel_each(orders)
        failures = [(order, error) for order, error in zip(orders, results, strict=True) if error is not None]
        if not failures:
            return [order.order_id for order in orders]
        if len(failures) == len(orders) and all(isinstance(error, BusUnavailable) for _, error in failures):
            raise failures[0][1]
        order, error = failures[0]
        raise OutcomeUnknown(order.order_id, f"{len(failures)} of {len(orders)} cancels may be missing: {error}")

    async def _cancel_reserving(
        self, reserving: Iterable[Attempt], but: Iterable[Order]
    ) -> list[tuple[Order, Exception | None]]:
        """Cancel what becomes of these, each once its funds are reserved, which the reservations' own timeout bounds.

        `but` those are being cancelled already. Raises nothing.
        """
        known = {order.order_id for order in but}
        tried = await asyncio.gather(*(self._cancel_reserved(attempt, known) for attempt in reserving))
        return sorted((one for one in tried if one is not None), key=lambda one: one[0].created_ms)

    async def _cancel_reserved(self, attempt: Attempt, known: set[str]) -> tuple[Order, Exception | None] | None:
        await asyncio.wait((attempt.reserved(),))
        order = attempt.record
        # Certainly not written, closed by now, another instance's that is being cancelled, or an id that is not theirs.
        if order is None or order.is_closed or order.order_id in known or order.user_id != attempt.user_id:
            return None
        [result] = await self.cancel_each((order,))
        return order, result

    async def cancel_each(self, orders: Iterable[Order]) -> list[Exception | None]:
        """Publish a cancel of each of these, all at once; what became of each of the cancels. Raises nothing."""
        cancels = (self._produce_cancel(order.order_id, order.symbol, order.user_id) for order in orders)
        results = await asyncio.gather(*cancels, return_exceptions=True)
        return [result if isinstance(result, Exception) else None for result in results]

    async def _produce_cancel(self, order_id: str, symbol: str, user_id: str | None) -> None:
        command = CancelOrder(order_id, None).encode(order_id, symbol, user_id, int(self._clock() * 1000))
        try:
            await self._log.produce(order_id, symbol, command)
        except RequestError as error:
            self._count("cancel", error.counted_as)
            raise
        self._count("cancel", ACCEPTED)

    def _check_started(self) -> None:
        # Before the order topic has been read, whose order it is and whether it was there before is not known.
        if not self.is_started():
            raise StillStarting


def _produced(attempts: Iterable[Attempt], user_id: str, but: Iterable[Order]) -> list[Order]:
    """What of these is with the log and not closed, oldest first; `but` those are shown already."""
    shown = {order.order_id for order in but}
    records = {attempt.record.order_id: attempt.record for attempt in attempts if attempt.record is not None}
    return sorted(
        (
            record
            for record in records.values()
            if record.user_id == user_id and record.order_id not in shown and not record.is_closed
        ),
        key=lambda record: record.created_ms,
    )


def _recognise(known: Order, order: PlaceOrder) -> Placed | None:
    """The answer to a repeat of an order that is certainly on the topic; None where that is not known.

    Raises OrderConflict: an order of this name was placed with other terms, or with unknown ones.
    """
    assert order.client_order_id is not None
    if not known.has_terms(order.terms_hash()):
        raise OrderConflict(known.order_id, order.client_order_id)
    return Placed(known.order_id, order.client_order_id, duplicate=True) if known.is_certain else None
