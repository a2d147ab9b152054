"""One order on its way in, and all that are: where repeats, cancels and a cancel of all find it.

    reserving   its funds are being asked for, where there is an accounts service; it has no `record`
    produced    registered in the directory and given to the log, in one go: it has a `record`
    over        accepted, certainly not written, refused, or of unknown outcome: it is in `Attempts` no more

So whoever finds an attempt finds it in one of the first two stages. A repeat joins it. While it has no record, a cancel by
name waits for its outcome; a cancel of all waits only for the end of reserving, and then goes behind its record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.errors import OutcomeUnknown
from core.messages.commands import PlaceOrder
from core.orders.order import Order
from core.orders.origin import Origin


@dataclass(frozen=True, slots=True)
class Placed:
    """An accepted order; `duplicate` if an earlier request had placed it."""

    order_id: str
    client_order_id: str | None
    duplicate: bool = False

    def body(self) -> dict[str, object]:
        """What a client is told, over REST with a status besides."""
        told: dict[str, object] = {"order_id": self.order_id, "client_order_id": self.client_order_id}
        if self.duplicate:
            told["duplicate"] = True
        return told


class Attempt:
    """One order on its way in. Nearly always nobody waits for it but who began it, so it has futures only when asked."""

    __slots__ = ("_outcome", "_reserved", "key", "order", "order_id", "origin", "record", "user_id")

    def __init__(self, user_id: str | None, order: PlaceOrder, order_id: str, origin: Origin | None = None) -> None:
        """`order_id` is what it is published under, unless the accounts service gives it another one."""
        self.origin = origin
        self.user_id = user_id
        self.order = order
        self.order_id = order_id
        # By its owner and the name that the owner gave it; what has none, by an id of its own.
        name = order.client_order_id
        self.key: tuple[str | None, str] | str = order_id if name is None else (user_id, name)
        # The order that it is, or that somebody else had made of it; None too if it was certainly not written.
        self.record: Order | None = None
        self._reserved: asyncio.Future[None] | None = None
        self._outcome: asyncio.Future[Placed] | None = None

    def reserved(self) -> asyncio.Future[None]:
        """Its funds have been reserved, or not. Who waits for it runs in another turn of the loop, and so behind its record."""
        if self._reserved is None:
            self._reserved = asyncio.get_running_loop().create_future()
        return self._reserved

    def outcome(self) -> asyncio.Future[Placed]:
        """What becomes of it; the error is the one that it failed with."""
        if self._outcome is None:
            self._outcome = asyncio.get_running_loop().create_future()
        return self._outcome

    def end_reserving(self) -> None:
        """The accounts service has answered, or cannot be asked. What follows must not pause before it is with the log."""
        if self._reserved is not None:
            self._reserved.set_result(None)
        if self.origin is not None and self.origin.turn is not None:
            self.origin.turn.end()

    def succeed(self, placed: Placed) -> None:
        """It is over: accepted."""
        if self._outcome is not None:
            self._outcome.set_result(placed)

    def fail(self, error: BaseException) -> None:
        """It is over, by this error; those who joined get the same."""
        if self._outcome is not None:
            told = (
                error if isinstance(error, Exception) else OutcomeUnknown(self.order_id, "the attempt was interrupted")
            )
            self._outcome.set_exception(told)
            self._outcome.exception()  # they may have gone meanwhile, and that is no reason for a line in the log


class Attempts:
    """Every attempt that is not over, in the order in which they began."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str | None, str] | str, Attempt] = {}
        self._listening: list[list[Attempt]] = []

    def find(self, user_id: str | None, client_order_id: str) -> Attempt | None:
        """The attempt at an order of the caller's, by the name that the caller gave it."""
        return self._attempts.get((user_id, client_order_id))

    def add(self, attempt: Attempt) -> None:
        """It begins; there has to be none of the same name."""
        self._attempts[attempt.key] = attempt
        for began in self._listening:
            began.append(attempt)

    @contextmanager
    def beginning(self) -> Iterator[list[Attempt]]:
        """Those that begin meanwhile: what is asked for before them is not about them."""
        began: list[Attempt] = []
        self._listening.append(began)
        try:
            yield began
        finally:
            # Not by `remove`, which takes the first of those that are equal: another's.
            self._listening = [one for one in self._listening if one is not began]

    def remove(self, attempt: Attempt) -> None:
        """It is over."""
        del self._attempts[attempt.key]

    def outcomes(self) -> list[asyncio.Future[Placed]]:
        """What becomes of all that are under way now."""
        return [attempt.outcome() for attempt in self._attempts.values()]

    def of(self, user_id: str, symbol: str | None) -> list[Attempt]:
        """A user's attempts (of one symbol, if given)."""
        return [
            attempt
            for attempt in self._attempts.values()
            if attempt.user_id == user_id and symbol in (None, attempt.order.symbol)
        ]
