"""Several orders, cancels and amends of one request: each as if it came alone, and written in their order.

None waits for another's acknowledgement. Where an account service is asked first, it is asked for all at the same time, and
each goes behind the one before it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Generic, TypeVar

from core.errors import GatewayFault, RequestError
from core.messages.batch_rules import Batch
from core.messages.commands import AmendOrder, CancelOrder, PlaceOrder
from core.orders.amends import Amended, Amends
from core.orders.attempt import Placed
from core.orders.deadlines import VALID, Valid, check_deadline
from core.orders.entry import OrderEntry
from core.orders.origin import Origin, Turn

log = logging.getLogger("gateway.orders")

Command = PlaceOrder | CancelOrder | AmendOrder
# What became of one: of a cancel its order's id.
Done = Placed | Amended | Valid | str
T = TypeVar("T")


class Begun(Generic[T]):
    """Work that is taken at once to where it has to wait, and on from there by who awaits this, or by a task of its own where that
    one is not there yet: nothing waits for what is awaited before it.

    Only for work that waits for futures there and sets no timeout before: that would be one for the task it is begun in.
    """

    __slots__ = ("_awaited", "_is_awaited", "_rest", "_result", "_work")

    def __init__(self, work: Coroutine[asyncio.Future[Any], None, T]) -> None:
        self._work = work
        self._result: T
        self._rest: asyncio.Task[T] | None = None
        self._is_awaited = False
        self._awaited: asyncio.Future[Any] | None = None
        self._go_on()
        if self._awaited is not None:
            self._awaited.add_done_callback(self._go_on_alone)

    def _go_on(self, error: BaseException | None = None) -> None:
        try:
            self._awaited = self._work.send(None) if error is None else self._work.throw(error)
        except StopIteration as over:
            self._awaited, self._result = None, over.value

    def _go_on_alone(self, awaited: asyncio.Future[Any]) -> None:
        # Of those that are acknowledged together all are taken on by who awaits them, before this is called.
        if not self._is_awaited:
            self._rest = awaited.get_loop().create_task(self._to_end())

    async def _to_end(self) -> T:
        return await self

    def __await__(self) -> Generator[Any, None, T]:
        rest = self._rest
        if rest is not None and rest is not asyncio.current_task():
            return (yield from rest)
        self._is_awaited = True
        while self._awaited is not None:
            error = None
            if not self._awaited.done():
                try:
                    yield self._awaited
                except BaseException as thrown:
                    error = thrown
            self._go_on(error)
        return self._result


Started = RequestError | Begun[Done | RequestError] | asyncio.Task[Done | RequestError]


class Batches:
    """Begins what is asked for in one request, for whoever the caller is; None is anonymous."""

    def __init__(self, entry: OrderEntry, amends: Amends) -> None:
        self._entry = entry
        self._amends = amends

    async def begin(
        self,
        user_id: str | None,
        batch: Batch,
        admit: Callable[[Command], Awaitable[None]],
        origin: Origin,
    ) -> list[Started]:
        """Have each under way, in order, that is one and is admitted (`admit` raises RequestError), by when this returns."""
        started: list[Started] = []
        turn: Turn | None = None
        reserves, behind_task = self._entry.reserves_for(user_id), False
        for item in batch.items:
            if isinstance(item, RequestError):
                started.append(item)
                continue
            try:
                await admit(item)
            except RequestError as error:
                started.append(error)
                continue
            if isinstance(item, PlaceOrder) and not reserves:
                if behind_task:
                    await asyncio.sleep(0)
                    behind_task = False
                started.append(Begun(self._outcome(user_id, item, origin, batch)))
                continue
            own = origin
            if reserves:
                turn = Turn(turn)
                own = origin.with_turn(turn)
            started.append(asyncio.create_task(self._outcome(user_id, item, own, batch)))
            behind_task = True
        if behind_task:
            await asyncio.sleep(0)
        return started

    async def outcomes(self, started: Sequence[Started]) -> list[Done | RequestError]:
        """What became of each."""
        return [one if isinstance(one, RequestError) else await one for one in started]

    async def _outcome(
        self, user_id: str | None, command: Command, origin: Origin, batch: Batch
    ) -> Done | RequestError:
        try:
            return await self._do(user_id, command, origin, batch)
        except RequestError as error:
            return error
        except Exception:
            log.exception("request %s: a part of a batch could not be handled", origin.headers[0][1])
            return GatewayFault()
        finally:
            if origin.turn is not None:
                origin.turn.end()

    async def _do(self, user_id: str | None, command: Command, origin: Origin, batch: Batch) -> Done:
        if isinstance(command, PlaceOrder):
            placed = await self._entry.place(user_id, command, origin)
            return VALID if command.validate_only else placed
        if origin.turn is not None:
            await origin.turn.come()
            # Who waits for that goes on in another turn of the loop, and so behind this one's command.
            origin.turn.end()
        if isinstance(command, AmendOrder):
            amended = await self._amends.amend(user_id, command, origin)
            return VALID if command.validate_only else amended
        check_deadline(batch.deadline_ms, self._amends.now_ms())
        if batch.validate_only:
            await self._entry.locate(user_id, command)
            return VALID
        return await self._entry.cancel(user_id, command, origin)
