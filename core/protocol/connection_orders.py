"""The orders of one connection: asked of the limits in turn, answered once their outcome is known, cancelled with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from core.access.admission import Admission
from core.access.limits import Decision
from core.control.cancel_on_disconnect import CancelOnDisconnect, HeldConnection
from core.control.cancel_timers import CancelTimers
from core.errors import (
    BusUnavailable,
    CloseCode,
    ControlUnavailable,
    ControlUnknown,
    FieldError,
    InvalidFields,
    OutcomeUnknown,
    RequestError,
    RpcCode,
    RpcError,
    TooManyRequests,
)
from core.messages.batch_rules import Batch
from core.messages.commands import AmendOrder, CancelOrder, PlaceOrder
from core.messages.model import TimeInForce
from core.orders.amends import Amends
from core.orders.attempt import Placed
from core.orders.batch import Batches, Command, Done
from core.orders.change_waiters import OrderChanges
from core.orders.deadlines import VALID
from core.orders.directory import OrderDirectory
from core.orders.entry import OrderEntry
from core.orders.lookup import OrderLookup
from core.orders.order import Order, Status
from core.orders.origin import Origin
from core.orders.private_feed import PrivateFeed
from core.protocol.client_state import ClientState
from core.protocol.effects import Answer, Connection, ListAnswer, error_object
from core.telemetry.audit import Asker, Audit, names_of

log = logging.getLogger("gateway.ws")

T = TypeVar("T")
Result = Mapping[str, object] | memoryview
Work = Coroutine[Any, Any, Result]
Outcome = Result | RequestError

# An answer is not to grow with what a client made up: of so many refused orders the reasons are told.
_MAX_NAMED = 16

# How long the engine has to say what becomes of a command, before a client that wants to know is told what is known.
ENGINE_SECONDS = 0.5

# Orders of one connection that are remembered before the closed ones among them are looked for.
PRUNE_AT = 256


class OrderServices:
    """What every connection orders by, and all that is under way for connections, those that have left too."""

    def __init__(
        self,
        entry: OrderEntry,
        directory: OrderDirectory,
        private: PrivateFeed,
        lookup: OrderLookup,
        admission: Admission,
        on_limited: Callable[[str], None],
        changes: OrderChanges,
        amends: Amends,
        engine_seconds: float = ENGINE_SECONDS,
        audit: Audit | None = None,
    ) -> None:
        """`on_limited` counts what was over a limit: `orders` or `cancels`. `engine_seconds`: how long the engine's word on
        an order is waited for, by who wants to.
        """
        self.audit = Audit() if audit is None else audit
        self.changes = changes
        self.amends = amends
        self.batches = Batches(entry, amends)
        self.engine_seconds = engine_seconds
        self.entry = entry
        self.directory = directory
        self.private = private
        self.lookup = lookup
        self.admission = admission
        self.on_limited = on_limited
        self.timers: CancelTimers | None = None
        # Without, each process cancels on disconnect what is its own.
        self.cancel_on_disconnect: CancelOnDisconnect | None = None
        # Orders under way and cancels on disconnect: the drain waits for them before it flushes the producer. The loop
        # itself keeps only weak references.
        self.tasks: set[asyncio.Task[Any]] = set()

    async def cancel_all_after(self, user_id: str, timeout_seconds: int) -> int | None:
        """As `CancelTimers.set`; where there is no control topic, it is refused."""
        if self.timers is None:
            raise ControlUnavailable("there is no control topic (kafka.control_topic)")
        return await self.timers.set(user_id, timeout_seconds)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something that a connection does not wait for."""
        task = asyncio.get_running_loop().create_task(self._until_over(work))
        self.tasks.add(task)
        return task

    async def _until_over(self, work: Coroutine[Any, Any, T]) -> T:
        # A callback of the task's would take a turn of the loop.
        task = cast("asyncio.Task[T]", asyncio.current_task())
        try:
            return await work
        finally:
            self.tasks.discard(task)

    async def finish(self, timeout_seconds: float) -> None:
        """Wait for what is under way, and for what follows from it."""
        deadline = time.monotonic() + timeout_seconds
        while self.tasks and (left := deadline - time.monotonic()) > 0:
            over, _ = await asyncio.wait(self.tasks, timeout=left)
            self.tasks -= over  # one that was cancelled before it began is there still


class Told(NamedTuple):
    """What the audit says of a command beside its outcome."""

    command: str
    asker: Asker
    names: Mapping[str, str]


class ConnectionOrders:
    """What was ordered on one connection, and what is to become of it when the connection ends.

    Whose an order or a cancel is, is settled when it comes in: what comes next may be of somebody who has signed in
    meanwhile.
    """

    __slots__ = (
        "_awaited",
        "_client",
        "_close_reason",
        "_connection",
        "_held",
        "_number",
        "_order_lock",
        "_order_services",
        "_origin",
        "_placed",
        "_prune_at",
    )

    def __init__(
        self,
        order_services: OrderServices,
        client: ClientState,
        connection: Connection,
        number: int,
        origin: Origin | None = None,
    ) -> None:
        """`number` is the connection's, for the log; `origin` is the handshake."""
        self._origin = origin
        self._order_services = order_services
        self._client = client
        self._number = number
        # None once it has left.
        self._connection: Connection | None = connection
        # The orders that were placed here, the youngest last.
        self._placed: dict[str, None] = {}
        self._prune_at = PRUNE_AT
        # Requests whose outcome the client is waiting for, and what to close with once it has been told of them all.
        self._awaited = 0
        self._close_reason: str | None = None
        self._order_lock = asyncio.Lock()
        # What others know of it, if its orders are to be cancelled with it.
        self._held: HeldConnection | None = None

    # What comes in. The answer follows when it is known what became of it; meanwhile other messages are read.

    def place(self, answer: Answer, order: PlaceOrder, awaits_engine: bool = False) -> None:
        """Place an order of the client's."""
        told = self._told("place", order)
        self._begin(answer, self._place(self._client.user_id, self._named(order), awaits_engine), told)

    def place_nobodys(self, answer: Answer, orders: Iterable[PlaceOrder | InvalidFields]) -> None:
        """Place orders of nobody's, as an older dialect may; one answer tells of all that was refused."""
        if self._close_reason is not None:
            self._refuse_leaving(answer)
            return
        # Each is under way before what the client sends next is.
        outcomes = [self._begin_nobodys(order) for order in orders]
        self._begin(answer, _all_or_refusal(outcomes), None)

    def _begin_nobodys(self, order: PlaceOrder | InvalidFields) -> InvalidFields | asyncio.Task[Outcome]:
        asker = self._asker(None)
        if isinstance(order, InvalidFields):
            self._order_services.audit.refused("place", asker, order)
            return order
        told = Told("place", asker, names_of(order))
        return self._order_services.start(self._outcome(self._place(None, self._named(order)), told))

    def cancel(self, answer: Answer, cancel: CancelOrder, awaits_engine: bool = False) -> None:
        """Cancel an order of the client's."""
        told = self._told("cancel", cancel)
        self._begin(answer, self._cancel(self._client.user_id, cancel, awaits_engine), told)

    def amend(self, answer: Answer, amend: AmendOrder, awaits_engine: bool = False) -> None:
        """Amend an order of the client's."""
        told = self._told("amend", amend)
        self._begin(answer, self._amend(self._client.user_id, amend, awaits_engine), told)

    def batch(self, answer: Answer, batch: Batch) -> None:
        """Do each of these of the client's."""
        if self._held is not None:
            items = [self._named(item) if isinstance(item, PlaceOrder) else item for item in batch.items]
            batch = replace(batch, items=items)
        self._begin(answer, self._batch(self._client.user_id, batch), None)

    def cancel_all(self, answer: Answer, symbol: str | None) -> None:
        """Cancel the open orders of the user's (of one symbol)."""
        assert self._client.user_id is not None
        self._begin(answer, self._cancel_all(self._client.user_id, symbol), self._told("cancel_all"))

    def cancel_all_after(self, answer: Answer, timeout_seconds: int) -> None:
        """Cancel the open orders of the user's in so many seconds, unless this comes again; 0: not at all."""
        user_id, told = self._client.user_id, self._told("cancel_all_after")
        assert user_id is not None
        # Where nothing is under way, nothing can be overtaken.
        if not self._awaited and self._close_reason is None and self._connection is not None:
            moment = self._extend_timer(user_id, timeout_seconds)
            if moment is not None:
                outcome = {"trigger_time_ms": moment}
                self._order_services.audit.told(told.command, told.asker, outcome, told.names)
                self._connection.tell(answer.success(outcome))
                return
        self._begin(answer, self._cancel_all_after(user_id, timeout_seconds), told)

    def list_open(self, answer: ListAnswer, symbol: str | None) -> None:
        """Tell the open orders of the user's (of one symbol)."""
        assert self._client.user_id is not None
        self._begin(answer, self._list_open(answer, self._client.user_id, symbol), None)

    # The connection's end.

    def cancel_on_disconnect(self, answer: Answer, enabled: bool, result: Mapping[str, object]) -> None:
        """From now on, or no more, cancel this connection's open orders when it ends; `result` is what that is answered with."""
        client, disconnects = self._client, self._order_services.cancel_on_disconnect
        was_enabled, held = client.cancels_on_disconnect, self._held
        client.cancels_on_disconnect = enabled
        if disconnects is None or not disconnects.is_usable:
            if self._connection is not None:
                self._connection.tell(answer.success(result))
            return
        if enabled and held is None:
            held = self._held = disconnects.connection(client.user_id, self._taken_for_gone)
        elif not enabled:
            self._held = None

        async def work() -> Mapping[str, object]:
            try:
                if held is not None:
                    await self._hold(disconnects, held, enabled)
            except ControlUnknown:
                raise  # it may hold
            except RequestError:
                if client.cancels_on_disconnect is enabled:
                    client.cancels_on_disconnect, self._held = was_enabled, held if was_enabled else None
                raise
            return result

        self._begin(answer, work(), None)

    async def _hold(self, disconnects: CancelOnDisconnect, held: HeldConnection, enabled: bool) -> None:
        if not enabled:
            await disconnects.release(held)
            return
        held.user_id = self._client.user_id
        for order in self._open_ones(self._placed):
            if not self._names(order, held):
                held.orders[order.order_id] = None
        await disconnects.hold(held)

    def _names(self, order: Order, held: HeldConnection) -> bool:
        """Whether whoever looks for the orders of a connection finds this one by its own record."""
        return order.connection == held.name and held.user_id in (None, order.user_id)

    def _named(self, order: PlaceOrder) -> PlaceOrder:
        return order if self._held is None else msgspec.structs.replace(order, connection=self._held.name)

    def _taken_for_gone(self) -> None:
        if self._connection is not None:
            self._connection.end(CloseCode.GOING_AWAY, "reconnect")

    def delays_end(self, reason: str) -> bool:
        """Whether the client is to be told of outcomes before a shutdown sends it away, with this reason, after the last.

        Nothing more is done for it.
        """
        if self._awaited:
            self._close_reason = reason
        return self._awaited > 0

    def leave(self, silent_seconds: float = 0.0) -> None:
        """The connection is over: nobody is told of anything any more. To be called once.

        `silent_seconds`: so long ago its client was last seen.
        """
        self._connection = None
        held, disconnects = self._held, self._order_services.cancel_on_disconnect
        if held is None or disconnects is None or not disconnects.is_usable:
            self._cancel_placed(self._placed)
            return
        left = self._open_ones(self._placed)
        for order in left:
            if not self._names(order, held):
                held.orders[order.order_id] = None
        disconnects.leave(held, has_orders=bool(left or self._awaited), silent_seconds=silent_seconds)

    def _told(self, command: str, about: Command | None = None) -> Told:
        """Of a command that comes in now, what the audit says beside its outcome."""
        return Told(command, self._asker(self._client.user_id), {} if about is None else names_of(about))

    def _asker(self, user_id: str | None) -> Asker:
        return Asker("" if self._origin is None else self._origin.request_id, user_id, self._number)

    def _begin(self, answer: Answer, work: Work, told: Told | None) -> None:
        if self._close_reason is not None:
            work.close()
            self._refuse_leaving(answer, told)
            return
        self._awaited += 1
        self._order_services.start(self._finish(answer, work, told))

    def _refuse_leaving(self, answer: Answer, told: Told | None = None) -> None:
        error = BusUnavailable("the gateway is shutting down")
        if told is not None:
            self._order_services.audit.told(told.command, told.asker, error, told.names)
        if self._connection is not None:
            self._connection.tell(answer.failure(error))

    async def _finish(self, answer: Answer, work: Work, told: Told | None) -> None:
        outcome = await self._outcome(work, told)
        if self._connection is not None:
            reply = answer.failure(outcome) if isinstance(outcome, RequestError) else answer.success(outcome)
            self._connection.tell(reply)
        self._awaited -= 1
        if self._close_reason is not None and not self._awaited and self._connection is not None:
            self._connection.end(CloseCode.GOING_AWAY, self._close_reason)

    async def _outcome(self, work: Work, told: Told | None) -> Outcome:
        """The result, or what it is refused with; `told` is said of it in the audit. Raises nothing."""
        outcome: Outcome
        try:
            outcome = await work
        except RequestError as error:
            outcome = error
        except Exception:
            log.exception("client %d: an order could not be handled", self._number)
            outcome = RpcError(RpcCode.INTERNAL, "a fault of the gateway's own; it was logged")
        if told is not None and not isinstance(outcome, memoryview):
            self._order_services.audit.told(told.command, told.asker, outcome, told.names)
        return outcome

    async def _place(self, user_id: str | None, order: PlaceOrder, awaits_engine: bool = False) -> Mapping[str, object]:
        await self._take(self._order_services.admission.take_order, user_id, "orders")
        try:
            placed = await self._order_services.entry.place(user_id, order, self._origin)
        except OutcomeUnknown as error:
            self._remember(error.order_id)
            raise
        if order.validate_only:
            return VALID.body()
        self._remember(placed.order_id)
        if awaits_engine:
            await self._hear_of(placed.order_id, _is_told if order.time_in_force is TimeInForce.GTC else _is_over)
        return placed.body()

    async def _cancel(self, user_id: str | None, cancel: CancelOrder, awaits_engine: bool) -> Mapping[str, object]:
        await self._take(self._order_services.admission.take_cancel, user_id, "cancels")
        order_id = await self._order_services.entry.cancel(user_id, cancel, self._origin)
        if awaits_engine:
            await self._hear_of(order_id, _is_over)
        return {"order_id": order_id}

    async def _amend(self, user_id: str | None, amend: AmendOrder, awaits_engine: bool) -> Mapping[str, object]:
        order_services = self._order_services
        await self._take(order_services.admission.take_order, user_id, "orders")
        amended = await order_services.amends.amend(user_id, amend, self._origin)
        if amend.validate_only:
            return VALID.body()
        if awaits_engine and amended.pending is not None:
            event = await amended.pending.answer(order_services.engine_seconds)
            if event is not None and event.type == "order_amend_rejected":
                return {**amended.body(), "amend_rejected": event.reason}
        return amended.body()

    async def _batch(self, user_id: str | None, batch: Batch) -> Mapping[str, object]:
        batches = self._order_services.batches

        async def admit(command: Command) -> None:
            admission = self._order_services.admission
            if isinstance(command, CancelOrder):
                self._check(await admission.take_cancel(user_id), "cancels")
            else:
                self._check(await admission.take_order(user_id), "orders")

        async with (
            self._order_lock
        ):  # all of them are with the producer, or on their way to be, before what comes next is
            started = await batches.begin(user_id, batch, admit, self._batch_origin())
        outcomes = await batches.outcomes(started)
        self._order_services.audit.batch(self._asker(user_id), batch, outcomes)
        for item, outcome in zip(batch.items, outcomes, strict=True):
            if isinstance(outcome, Placed) or (isinstance(outcome, OutcomeUnknown) and isinstance(item, PlaceOrder)):
                self._remember(outcome.order_id)
        return {"results": [_shown(outcome) for outcome in outcomes]}

    def _batch_origin(self) -> Origin:
        return Origin("") if self._origin is None else self._origin

    async def _hear_of(self, order_id: str, is_enough: Callable[[Order], bool]) -> None:
        """Wait until the engine has said so much of an order, or has had its time."""
        order_services = self._order_services
        await order_services.changes.until(order_id, is_enough, order_services.engine_seconds)

    async def _cancel_all(self, user_id: str, symbol: str | None) -> Mapping[str, object]:
        async with self._order_lock:  # has no limit, and is behind what was sent before it all the same
            pass
        return {"order_ids": await self._order_services.entry.cancel_all(user_id, symbol, self._origin)}

    def _extend_timer(self, user_id: str, timeout_seconds: int) -> int | None:
        """The moment, if it needs no more than to be remembered here, and is within the limit."""
        timers, cancels = self._order_services.timers, self._order_services.admission.cancels

        def is_admitted() -> bool:
            decision = cancels.take_now(user_id)
            return decision is not None and decision.allowed

        return None if timers is None else timers.extend(user_id, timeout_seconds, is_admitted)

    async def _cancel_all_after(self, user_id: str, timeout_seconds: int) -> Mapping[str, object]:
        await self._take(self._order_services.admission.take_cancel, user_id, "cancels")
        return {"trigger_time_ms": await self._order_services.cancel_all_after(user_id, timeout_seconds)}

    async def _list_open(self, answer: ListAnswer, user_id: str, symbol: str | None) -> memoryview:
        lookup = self._order_services.lookup

        def write(orders: list[Order]) -> bytes:
            return answer.write([order for order in orders if symbol in (None, order.symbol)])

        return await lookup.write_frame(await lookup.open_orders(user_id), write, *answer.around())

    async def _take(
        self, ask: Callable[[str | None], Awaitable[Decision | None]], user_id: str | None, what: str
    ) -> None:
        """Ask a limit, in turn. Raises TooManyRequests.

        A shared limit is asked over the network, and its answers may overtake each other. A cancel that overtakes its
        order finds nothing to cancel, and the order goes out. What follows runs without a pause until the command is
        with the producer, before the next one in turn does.
        """
        async with self._order_lock:
            decision = await ask(user_id)
        self._check(decision, what)

    def _check(self, decision: Decision | None, what: str) -> None:
        """Raises TooManyRequests."""
        if decision is not None and not decision.allowed:
            self._order_services.on_limited(what)
            raise TooManyRequests(what, decision.retry_after)

    def _remember(self, order_id: str) -> None:
        """An order was placed here, or may have been; it is cancelled with the connection if that is wanted."""
        held, disconnects = self._held, self._order_services.cancel_on_disconnect
        if held is not None and disconnects is not None and disconnects.is_usable:
            order = self._order_services.directory.get(order_id)
            is_held = disconnects.knows(held.name)
            if is_held and order is not None and not order.is_closed and not self._names(order, held):
                disconnects.add(held, order_id)
            if self._connection is None and is_held:
                return
        if self._connection is None:
            self._cancel_placed((order_id,))
            return
        self._placed[order_id] = None
        if len(self._placed) > self._prune_at:
            self._placed = dict.fromkeys(order.order_id for order in self._open_ones(self._placed))
            self._prune_at = max(PRUNE_AT, 2 * len(self._placed))

    def _open_ones(self, order_ids: Iterable[str]) -> list[Order]:
        orders = (self._order_services.directory.get(order_id) for order_id in order_ids)
        return [order for order in orders if order is not None and not order.is_closed]

    def _cancel_placed(self, order_ids: Iterable[str]) -> None:
        left = self._open_ones(order_ids) if self._client.cancels_on_disconnect else []
        if left:
            log.info("client %d disconnected: cancelling its %d open orders", self._number, len(left))
            self._order_services.start(self._cancel_each(left))

    async def _cancel_each(self, orders: list[Order]) -> None:
        outcomes = await self._order_services.entry.cancel_each(orders, self._origin)
        audit = self._order_services.audit
        for order, outcome in zip(orders, outcomes, strict=True):
            audit.cancelled_on_disconnect(self._asker(order.user_id), order, outcome)
        failed = [error for error in outcomes if error is not None]
        if failed:
            log.error(
                "client %d: %d of its %d cancels on disconnect failed: %s",
                self._number, len(failed), len(orders), failed[0],
            )  # fmt: skip


def _shown(outcome: Done | RequestError) -> dict[str, object]:
    if isinstance(outcome, RequestError):
        return {"error": error_object(outcome)}
    return {"result": {"order_id": outcome} if isinstance(outcome, str) else outcome.body()}


def _is_told(order: Order) -> bool:
    return order.status is not Status.PENDING


def _is_over(order: Order) -> bool:
    return order.is_closed


async def _all_or_refusal(outcomes: Iterable[InvalidFields | asyncio.Task[Outcome]]) -> Mapping[str, object]:
    """Wait for all of them. Raises the one refusal of a request some of whose orders were refused."""
    known = [one if isinstance(one, InvalidFields) else await one for one in outcomes]
    refused = {place: outcome for place, outcome in enumerate(known) if isinstance(outcome, RequestError)}
    if refused:
        raise _refusal_of(refused, len(known))
    return {}


def _refusal_of(refused: Mapping[int, RequestError], of: int) -> RequestError:
    """What tells of refused orders by their places among so many: the common reason, or the first one's code."""
    first, *others = refused.values()
    is_common = len(refused) == of and all(one.message == first.message for one in others)
    if is_common and not isinstance(first, InvalidFields):
        return first
    errors = [
        FieldError(f"orders[{place}]{field and '.'}{field}", message)
        for place, error in refused.items()
        for field, message in (error.errors if isinstance(error, InvalidFields) else [("", error.message)])
    ]
    if len(errors) > _MAX_NAMED:
        errors[_MAX_NAMED:] = [FieldError("orders", f"{len(errors) - _MAX_NAMED} more errors")]
    together = InvalidFields(errors)
    return together if first.code is together.code else RpcError(first.code, together.message, first.data)
