"""Orders in: one path for REST, WebSocket and the older dialects (docs/contract.md#retries, #cancels).

What is promised here: `accepted` only after Kafka acknowledged the record; a repeat of an order that was accepted, or that
has been seen on the topic, produces nothing; `BusUnavailable` only if no attempt at this order can be on the topic. So an
order is on the topic at least once, and exactly once after dropping repeated order ids. Of two orders that two instances write
under one name the first on the topic counts: only it is called accepted, and the engine drops the other as a repeat.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from functools import partial
from typing import Final, NoReturn, Protocol
from uuid import UUID

from core.errors import (
    BusUnavailable,
    FieldError,
    InvalidFields,
    LimitExceeded,
    NoSuchOrder,
    OrderClosed,
    OrderConflict,
    OutcomeUnknown,
    RequestError,
    StillBehind,
    StillStarting,
    TokenNeeded,
)
from core.messages.commands import CancelOrder, PlaceOrder
from core.messages.feed_record import Headers, Written
from core.messages.order_ids import order_id_for
from core.orders.attempt import Attempt, Attempts, Placed
from core.orders.cancel_all import CancelAll
from core.orders.catch_up import CatchUp
from core.orders.deadlines import check_deadline, is_past, passed
from core.orders.directory import OrderDirectory
from core.orders.order import Order
from core.orders.origin import Origin
from core.orders.pieces import PIECE, GiveWay, in_pieces, nobody_else
from core.orders.pre_trade import PreTrade

ACCEPTED: Final = "accepted"
# Whether what was reserved for an order that was not published is another's, where that cannot be known now.
ASK_AGAIN_SECONDS: Final = 1.0
# What a reservation is good for, where nobody says.
USE_SECONDS: Final = 4.0
# What a question may have taken without the client's answer being late for it.
SHORT_SECONDS: Final = 0.05


class CommandLog(Protocol):
    """Where commands go."""

    def produce(
        self, order_id: str, symbol: str, command: bytes, headers: Headers | None = None
    ) -> asyncio.Future[Written]:
        """Publish one command; see `core.kafka.order_log.OrderLog.produce`."""


class Gate(Protocol):
    """What the operators let through."""

    def check(self, user_id: str | None, symbol: str) -> None:
        """Whether an order or amend may go out. Raises Blocked, Halted, ControlUnavailable."""


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

    def release(self, order_id: str, user_id: str, *, unless: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Give back what was reserved for an order that was certainly not published, in the background.

        `unless`: waited for before; where it is so, what is reserved is another order's.
        """


class OrderEntry:
    """Places and cancels, for whoever the caller is; None is anonymous."""

    def __init__(
        self,
        log: CommandLog,
        directory: OrderDirectory,
        namespace: UUID,
        catch_up: CatchUp,
        *,
        answer_within_seconds: float,
        is_started: Callable[[], bool],
        count: Callable[[str, str], None],
        clock: Callable[[], float],
        reservations: Reservations | None = None,
        use_within_seconds: float = USE_SECONDS,
        passes_anonymous: bool = False,
        give_way: GiveWay = nobody_else,
        pre_trade: PreTrade | None = None,
    ) -> None:
        """`is_started`: the order topic has been read; `clock` is the time in seconds since the Unix epoch; `give_way`: see
        `core.orders.pieces`.

        `use_within_seconds`: an order is published on what was reserved for it so long after that was asked for, and no later. Then
        others may take it that this instance never will, and release it; all instances have to have the same.
        `passes_anonymous`: where there are reservations, nobody's orders go out without one; else they are refused.
        """
        self._catch_up = catch_up
        self._answer_within_seconds = answer_within_seconds
        self._log = log
        self._directory = directory
        self._namespace = namespace
        self.is_started = is_started
        self._count = count
        self._clock = clock
        self._reservations = reservations
        self._use_within_seconds = use_within_seconds
        self._passes_anonymous = passes_anonymous
        self._give_way = give_way
        self._attempts = Attempts()
        self._pre_trade = pre_trade
        # None: everything.
        self.gate: Gate | None = None

    async def place(self, user_id: str | None, order: PlaceOrder, origin: Origin | None = None) -> Placed:
        """Publish an order, or recognise it.

        Raises OrderConflict, Blocked, Halted, BusUnavailable, OutcomeUnknown, StillStarting; with an accounts service also
        TokenNeeded, InvalidFields (nobody's order by amount), FundsRefused and AccountsUnavailable.
        """
        self._check_started()
        if self._reservations is not None and user_id is None:
            self._check_anonymous(order)
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
        if self.gate is not None:
            self._check_gate(self.gate, user_id, order, known)
        if self._pre_trade is not None and known is None:
            self._check_limits(self._pre_trade, user_id, order)
        if order.deadline_ms is not None or order.validate_only:
            self._check_manner(order, known)
            if order.validate_only:
                return Placed(order_id, order.client_order_id)
        attempt = Attempt(user_id, order, order_id, origin)
        self._attempts.add(attempt)
        if self._pre_trade is not None:
            self._pre_trade.began(attempt)
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
            if self._pre_trade is not None:
                self._pre_trade.ended(attempt)

    def _check_gate(self, gate: Gate, user_id: str | None, order: PlaceOrder, known: Order | None) -> None:
        """Whether it may go out. Raises OutcomeUnknown of one that an earlier attempt may have written."""
        try:
            gate.check(user_id, order.symbol)
        except RequestError as error:
            self._refuse(error, known)

    def _refuse(self, error: RequestError, known: Order | None) -> NoReturn:
        """Raises it, or OutcomeUnknown of an order that an earlier attempt may have written."""
        if known is None:
            self._count("place", error.counted_as)
            raise error
        raise OutcomeUnknown(known.order_id, f"an earlier attempt may have been written; this one: {error}") from error

    def _check_limits(self, pre_trade: PreTrade, user_id: str | None, order: PlaceOrder) -> None:
        try:
            pre_trade.check_order(user_id, order)
        except LimitExceeded as error:
            self._count("place", error.counted_as)
            raise

    def _check_manner(self, order: PlaceOrder, known: Order | None) -> None:
        """Whether it is in time. Raises InvalidFields, or OutcomeUnknown of one that an earlier attempt may have written."""
        try:
            check_deadline(order.deadline_ms, int(self._clock() * 1000))
        except InvalidFields as error:
            self._refuse(error, known)

    def reserves_for(self, user_id: str | None) -> bool:
        """Whether the funds of this user's orders are reserved before they go out."""
        return self._reservations_of(user_id) is not None

    def _reservations_of(self, user_id: str | None) -> Reservations | None:
        """Where the funds of this user's orders are reserved, if they are: nobody has none."""
        return None if user_id is None else self._reservations

    def _check_anonymous(self, order: PlaceOrder) -> None:
        """Whether an order without an account may go out where there are accounts."""
        if not self._passes_anonymous:
            raise TokenNeeded("an order needs an account here")
        amounts = {"quote_amount": order.quote_amount, "max_slippage_price": order.max_slippage_price}
        errors = [
            FieldError(name, "needs an account, which prices it; sign in, or leave it out")
            for name, amount in amounts.items()
            if amount is not None
        ]
        if errors:
            raise InvalidFields(errors)

    async def finish(self, timeout_seconds: float) -> None:
        """Wait for what is under way, its record read back where that is waited for."""
        if outcomes := self._attempts.outcomes():
            await asyncio.wait(outcomes, timeout=timeout_seconds)

    async def _join(self, first: Attempt, order: PlaceOrder) -> Placed:
        """A repeat of an order that is on its way in."""
        assert order.client_order_id is not None
        if first.order.terms_hash != order.terms_hash:
            raise OrderConflict("", order.client_order_id)
        placed = await asyncio.shield(first.outcome())
        self._count("place", "duplicate")
        return Placed(placed.order_id, order.client_order_id, duplicate=True)

    async def _publish_new(self, attempt: Attempt) -> Placed:
        order, quantity = attempt.order, attempt.order.quantity
        reservations = self._reservations_of(attempt.user_id)
        if reservations is not None:
            if not self._catch_up.is_reachable():
                raise BusUnavailable("Kafka cannot be reached")
            quantity = await self._reserve(reservations, attempt)
            known = self._published_meanwhile(attempt)
            if known is not None:
                attempt.record = known
                if known.order_id != attempt.order_id:
                    # That order has ended, and what it had reserved was released: else this were the same reservation.
                    self._give_back(reservations, attempt)
                repeat = _recognise(known, order)
                if repeat is not None:
                    return repeat
        now_ms = int(self._clock() * 1000)
        refusal: RequestError | None
        refusal = passed() if is_past(order.deadline_ms, now_ms) else self._excess_reserved(order, quantity)
        if reservations is not None and refusal is None:
            refusal = self._shut_meanwhile(attempt)
        if refusal is not None:
            if reservations is not None:
                self._give_back(reservations, attempt)
            raise refusal
        record = self._directory.register(attempt.order_id, attempt.user_id, order, now_ms, quantity)
        try:
            await self._publish(attempt, record, now_ms, quantity)
        except BusUnavailable:
            if reservations is not None:
                self._give_back(reservations, attempt)
            raise
        return _told(record, order)

    def _excess_reserved(self, order: PlaceOrder, quantity: Decimal | None) -> LimitExceeded | None:
        """Of an order by amount its quantity is not known before."""
        if self._pre_trade is None or order.quantity is not None or quantity is None:
            return None
        return self._pre_trade.excess_reserved(order.symbol, quantity)

    def _shut_meanwhile(self, attempt: Attempt) -> RequestError | None:
        """Why the order may not go out, though it might when its funds were asked for."""
        try:
            if self.gate is not None:
                self.gate.check(attempt.user_id, attempt.order.symbol)
        except RequestError as error:
            return error
        return None

    def _published_meanwhile(self, attempt: Attempt) -> Order | None:
        """The order as another instance has published it, perhaps with other terms, while its funds were being reserved here."""
        name = attempt.order.client_order_id
        if name is None:
            return None
        known = self._directory.get(attempt.order_id)
        if known is not None and known.client_order_id == name:
            return known
        known = self._directory.find_by_client_order_id(attempt.user_id, name)
        return known if known is not None and known.is_certain else None

    async def _reserve(self, reservations: Reservations, attempt: Attempt) -> Decimal:
        """The quantity that its funds are reserved for. What comes next must not pause before it is with the log."""
        assert attempt.user_id is not None
        key = attempt.order_id
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        try:
            reserved = await reservations.reserve(attempt.user_id, attempt.order, key)
            attempt.order_id = reserved.order_id
            if attempt.order.client_order_id is not None and reserved.order_id != key:
                # A key that was released is forgotten: another instance may have published the order under another id, which
                # has ended. The engine would take this one for a new order.
                await self._read_to_end(reservations, attempt)
            if attempt.origin is not None and attempt.origin.turn is not None:
                await attempt.origin.turn.come()
            if loop.time() - asked_at > self._use_within_seconds:
                # This process stood still, perhaps: another instance may have given back what it took for nobody's by now.
                self._give_back(reservations, attempt)
                raise BusUnavailable("its funds were reserved too long ago")
            return reserved.quantity
        finally:
            attempt.end_reserving()

    async def _read_to_end(self, reservations: Reservations, attempt: Attempt) -> None:
        try:
            await self._catch_up.to_end()
        except BaseException:
            self._give_back(reservations, attempt)
            raise

    def _give_back(self, reservations: Reservations, attempt: Attempt) -> None:
        """Of an attempt that has certainly published nothing. Its reservation may be that of another instance's attempt."""
        assert attempt.user_id is not None
        is_named = attempt.order.client_order_id is not None
        unless = partial(self._is_elsewhere, attempt.order_id) if is_named else None
        reservations.release(attempt.order_id, attempt.user_id, unless=unless)

    async def _is_elsewhere(self, order_id: str) -> bool:
        """Whether an order of this id is on the topic, or comes there by another instance's attempt that has begun by now.

        That is known once Kafka can be asked, and what such an attempt may take is over.
        """
        await self._read_when_possible()
        if self._directory.get(order_id) is None:
            await asyncio.sleep(self._use_within_seconds + self._answer_within_seconds)
            await self._read_when_possible()
        return self._directory.get(order_id) is not None

    async def _read_when_possible(self) -> None:
        while True:
            try:
                return await self._catch_up.to_end()
            except StillBehind:
                await asyncio.sleep(ASK_AGAIN_SECONDS)

    async def _publish_again(self, attempt: Attempt, known: Order) -> Placed:
        """The same order under the same id: whether an earlier attempt was written is not known."""
        now_ms = int(self._clock() * 1000)
        quantity = Decimal(known.quantity)
        self._directory.register(known.order_id, known.user_id, attempt.order, now_ms, quantity)
        await self._publish(attempt, known, now_ms, quantity)
        return _told(known, attempt.order)

    async def _publish(self, attempt: Attempt, record: Order, now_ms: int, quantity: Decimal | None) -> None:
        """Publish a registered order, which is certainly on the topic afterwards, by this attempt or by another.

        Its terms are then those of the first record of its name. Raises BusUnavailable if no attempt at it can be there
        (then it is forgotten), OutcomeUnknown if one may be.
        """
        command = attempt.order.encode(record.order_id, record.user_id, now_ms, quantity)
        self._directory.produced(record, command)
        attempt.record = record
        began = asyncio.get_running_loop().time()
        written = None
        try:
            origin = attempt.origin
            headers = None if origin is None else origin.headers
            written = await self._log.produce(record.order_id, record.symbol, command, headers)
            if origin is not None:
                origin.acknowledged(asyncio.get_running_loop().time() - began)
        except BusUnavailable as error:
            if self._directory.withdraw(record):
                attempt.record = None
                raise
            if not record.is_certain:
                raise OutcomeUnknown(
                    record.order_id, f"an earlier attempt may have been written; this one: {error}"
                ) from error
        except OutcomeUnknown:
            self._directory.mark_unknown(record)
            if not record.is_certain:
                raise
        except BaseException:
            self._directory.mark_unknown(record)
            raise
        if record.client_order_id is not None and not record.is_on_topic:
            await self._wait_for_first(record, written, began)
        self._directory.confirm(record)

    async def _wait_for_first(self, record: Order, written: Written | None, began: float) -> None:
        """Until what the topic has of this order before its own record is read: the first record of a name counts.

        Raises OutcomeUnknown where that takes too long.
        """
        try:
            if written is None or written.since < 0:
                await self._catch_up.to_end()
            else:
                passed = asyncio.get_running_loop().time() - began
                await self._catch_up.to_record(written, self._answer_within_seconds - passed)
        except StillBehind as error:
            self._directory.mark_unknown(record)
            raise OutcomeUnknown(
                record.order_id, f"another order of its name may have been written before it: {error}"
            ) from error
        except BaseException:
            self._directory.mark_unknown(record)
            raise

    async def cancel(self, user_id: str | None, cancel: CancelOrder, origin: Origin | None = None) -> str:
        """Publish a cancel of one of the caller's orders; its id.

        An order that is not known (it may be older than the warm-up, or never have passed a gateway) goes to the engine
        if its symbol is given; whose it is the engine checks. Raises NoSuchOrder, OrderClosed, InvalidFields (another
        symbol), BusUnavailable, OutcomeUnknown, StillStarting, StillBehind.
        """
        asked_at = asyncio.get_running_loop().time()
        order_id, symbol = await self.locate(user_id, cancel)
        await self._produce_cancel(order_id, symbol, user_id, origin, asked_at)
        return order_id

    async def in_time(self, written: asyncio.Future[Written], order_id: str, asked_at: float) -> None:
        """Until a command is acknowledged. Raises what that does, and OutcomeUnknown once the client has waited long enough.

        `asked_at`: since when it waits, by the loop's clock, with what had to be asked before.
        """
        spent = asyncio.get_running_loop().time() - asked_at
        if spent > SHORT_SECONDS:
            done, _ = await asyncio.wait((written,), timeout=max(0.0, self._answer_within_seconds - spent))
            if not done:
                raise OutcomeUnknown(order_id, "no acknowledgement in time")
        await written

    async def locate(self, user_id: str | None, named: CancelOrder) -> tuple[str, str]:
        """Id and symbol of the caller's order that is to be cancelled or amended; raises as `cancel` before it produces."""
        self._check_started()
        await self._wait_for_reservation(user_id, named)
        known = self._find(user_id, named) or await self._find_elsewhere(user_id, named)
        return self._to_cancel(user_id, named, known)

    async def _wait_for_reservation(self, user_id: str | None, cancel: CancelOrder) -> None:
        """Whose funds are being reserved is no order yet, but about to be one: wait for what becomes of it."""
        client_order_id = cancel.client_order_id
        if client_order_id is None:
            return
        attempt = self._attempts.find(user_id, client_order_id)
        if attempt is not None and self._directory.find_by_client_order_id(user_id, client_order_id) is None:
            await asyncio.wait((attempt.outcome(),))

    def _find(self, user_id: str | None, cancel: CancelOrder) -> Order | None:
        if cancel.order_id is not None:
            return self._directory.get(cancel.order_id)
        assert cancel.client_order_id is not None
        return self._directory.find_by_client_order_id(user_id, cancel.client_order_id)

    async def _find_elsewhere(self, user_id: str | None, cancel: CancelOrder) -> Order | None:
        """What another instance had accepted before the cancel came. Raises StillBehind."""
        with self._attempts.beginning() as later:
            try:
                await self._catch_up.to_end()
            except StillBehind:
                if not self._may_pass_on(user_id, cancel):
                    raise
        known = self._find(user_id, cancel)
        return None if any(attempt.record is known for attempt in later) else known

    def _may_pass_on(self, user_id: str | None, cancel: CancelOrder) -> bool:
        """Whether the cancel of an order that is not known can go to the engine: its id is known, or follows from its name."""
        return cancel.symbol is not None and (cancel.order_id is not None or self._reservations_of(user_id) is None)

    def _to_cancel(self, user_id: str | None, cancel: CancelOrder, known: Order | None) -> tuple[str, str]:
        if known is not None:
            if known.user_id != user_id:
                raise NoSuchOrder
            if known.is_closed:
                raise OrderClosed(known.order_id, known.status.value)
            if cancel.symbol is not None and cancel.symbol != known.symbol:
                raise InvalidFields([FieldError("symbol", f"the order is one of {known.symbol}; leave it out")])
            return known.order_id, known.symbol
        if not self._may_pass_on(user_id, cancel):
            raise NoSuchOrder
        assert cancel.symbol is not None
        return cancel.order_id or order_id_for(self._namespace, user_id, cancel.client_order_id), cancel.symbol

    async def cancel_all(self, user_id: str, symbol: str | None, origin: Origin | None = None) -> list[str]:
        """Publish a cancel of each of a user's open orders (of one symbol, if given); see `CancelAll`.

        Raises BusUnavailable or StillBehind if certainly none was written, OutcomeUnknown if some may not have been,
        StillStarting.
        """
        self._check_started()
        request = CancelAll(
            self._directory,
            self._attempts,
            self._catch_up,
            partial(self.cancel_each, origin=origin),
            user_id,
            symbol,
            self._give_way,
        )
        return await request.run()

    async def cancel_each(self, orders: Iterable[Order], origin: Origin | None = None) -> list[Exception | None]:
        """Publish a cancel of each of these, a piece after the other; what became of each of the cancels. Raises nothing."""
        cancels = deque[asyncio.Task[None]]()
        async for piece in in_pieces(orders, self._give_way):
            cancels += [
                asyncio.create_task(self._produce_cancel(order.order_id, order.symbol, order.user_id, origin))
                for order in piece
            ]
        results: list[Exception | None] = []
        while cancels:
            # Off the list at once: to let go of 100,000 of them together takes 18 ms.
            some = [cancels.popleft() for _ in range(min(PIECE, len(cancels)))]
            told = await asyncio.gather(*some, return_exceptions=True)
            results += [result if isinstance(result, Exception) else None for result in told]
            await self._give_way()
        return results

    async def _produce_cancel(
        self, order_id: str, symbol: str, user_id: str | None, origin: Origin | None, asked_at: float | None = None
    ) -> None:
        command = CancelOrder(order_id, None).encode(order_id, symbol, user_id, int(self._clock() * 1000))
        began = asyncio.get_running_loop().time()
        try:
            written = self._log.produce(order_id, symbol, command, None if origin is None else origin.headers)
            await (written if asked_at is None else self.in_time(written, order_id, asked_at))
            if origin is not None:
                origin.acknowledged(asyncio.get_running_loop().time() - began)
        except RequestError as error:
            self._count("cancel", error.counted_as)
            raise
        self._count("cancel", ACCEPTED)

    def _check_started(self) -> None:
        # Before the order topic has been read, whose order it is and whether it was there before is not known.
        if not self.is_started():
            raise StillStarting


def _told(record: Order, order: PlaceOrder) -> Placed:
    """The answer to an attempt that is on the topic. Raises OrderConflict if the first of its name has other terms."""
    if order.client_order_id is not None and not record.has_terms(order.terms_hash):
        raise OrderConflict(record.order_id, order.client_order_id)
    return Placed(record.order_id, order.client_order_id)


def _recognise(known: Order, order: PlaceOrder) -> Placed | None:
    """The answer to a repeat of an order that is certainly on the topic; None where that is not known.

    Raises OrderConflict: an order of this name was placed with other terms, or with unknown ones.
    """
    assert order.client_order_id is not None
    if not known.has_terms(order.terms_hash):
        raise OrderConflict(known.order_id, order.client_order_id)
    return Placed(known.order_id, order.client_order_id, duplicate=True) if known.is_certain else None
