"""Orders, and the truth about them.

A command that was certainly not done (10003, 10004, no connection) is sent again, after the time that the gateway names.
One of which that is not known (10005, no answer, a connection that ended, a fault of the gateway's own) is sent again as it
was, on whichever connection there is: an order under its client_order_id is one order, and a cancel, an amend or a timer that comes twice
changes nothing more (docs/contract.md#retries). What is still not known when the time is over is told as `OutcomeUnknown`,
and so is whatever comes after an attempt of unknown outcome, for that one may be there; but for what became of a closed order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from mexchange.connection import Connection
from mexchange.errors import (
    CancelFailed,
    ConnectionLost,
    GatewayError,
    GatewayFault,
    MExchangeError,
    NotAuthorised,
    OutcomeUnknown,
    TooManyRequests,
    Unavailable,
    of_answer,
)
from mexchange.models import Ack, Number, Side, text

REPEATED = (OutcomeUnknown, TooManyRequests, Unavailable, ConnectionLost)
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """An order: a limit order where there is a price. `attributes` are those that this exchange's orders carry."""

    symbol: str
    side: Side
    quantity: Number
    price: Number | None = None
    time_in_force: str | None = None
    client_order_id: str = field(default_factory=lambda: str(uuid4()))
    deadline_ms: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def params(self) -> dict[str, Any]:
        return _without_none(
            symbol=self.symbol,
            side=self.side,
            order_type="market" if self.price is None else "limit",
            price=None if self.price is None else text(self.price),
            quantity=text(self.quantity),
            time_in_force=self.time_in_force,
            client_order_id=self.client_order_id,
            deadline_ms=self.deadline_ms,
            **{name: text(value) if _is_number(value) else value for name, value in self.attributes.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """By one of its names; with its symbol also an order that is older than what the gateway knows."""

    order_id: str | None = None
    client_order_id: str | None = None
    symbol: str | None = None

    def params(self) -> dict[str, Any]:
        return _without_none(order_id=self.order_id, client_order_id=self.client_order_id, symbol=self.symbol)


@dataclass(frozen=True, kw_only=True)
class Amend:
    """Another price, another total quantity (what is filled included), or both."""

    order_id: str | None = None
    client_order_id: str | None = None
    symbol: str | None = None
    price: Number | None = None
    quantity: Number | None = None
    deadline_ms: int | None = None

    def params(self) -> dict[str, Any]:
        return _without_none(
            order_id=self.order_id,
            client_order_id=self.client_order_id,
            symbol=self.symbol,
            price=None if self.price is None else text(self.price),
            quantity=None if self.quantity is None else text(self.quantity),
            deadline_ms=self.deadline_ms,
        )


Command = Place | Cancel | Amend
_METHODS: dict[type, str] = {Place: "place", Cancel: "cancel", Amend: "amend"}


class Orders:
    """Commands over a connection. Each has at most `seconds`, or its own `within`, repeats included.

    All raise GatewayError (`errors.ERRORS`), and ConnectionLost where nothing could be sent.
    """

    def __init__(
        self, connection: Connection, *, seconds: float, random: Callable[[], float], can_renew: bool = False
    ) -> None:
        self._connection = connection
        self._seconds = seconds
        self._random = random
        self._can_renew = can_renew

    async def place(self, order: Place, within: float | None = None) -> Ack:
        return _ack(await self._command("private/place_order", order.params(), within))

    async def validate(self, order: Place, within: float | None = None) -> None:
        """Raises what `place` would, as far as that can be known; nothing is produced."""
        await self._command("private/place_order", {**order.params(), "validate_only": True}, within)

    async def cancel(self, which: Cancel, within: float | None = None) -> Ack:
        """CancelFailed, with its `order_status`, where it is closed already: cancelled, perhaps, by an earlier attempt."""
        return _ack(await self._command("private/cancel_order", which.params(), within))

    async def amend(self, change: Amend, within: float | None = None) -> Ack:
        """NoSuchMethod where this gateway's engine knows no amends."""
        return _ack(await self._command("private/amend_order", change.params(), within))

    async def batch(self, commands: Iterable[Command], within: float | None = None) -> list[Ack | MExchangeError]:
        """At most twenty, in order, each as if it came alone; what became of each is returned, and not raised."""
        wanted = [*commands]

        async def send(numbers: list[int], left: float) -> list[Any]:
            requests = [{"method": _METHODS[type(wanted[at])], "params": wanted[at].params()} for at in numbers]
            told = await self._connection.request("private/batch", {"requests": requests}, left)
            return [of_answer(one["error"]) if "error" in one else one["result"] for one in told["results"]]

        outcomes = await self._settle(send, [one.params() for one in wanted], within)
        return [one if isinstance(one, MExchangeError) else _ack(one) for one in outcomes]

    async def cancel_all(self, symbol: str | None = None, within: float | None = None) -> list[str]:
        """The ids of the orders that cancels went out for, by the last attempt."""
        told = await self._command("private/cancel_all", _without_none(symbol=symbol), within)
        return list(told["order_ids"])

    async def cancel_all_after(self, seconds: int, within: float | None = None) -> int | None:
        """All open orders are cancelled then, unless this comes again; 0 disarms. The moment in milliseconds, or None."""
        told = await self._command("private/cancel_all_after", {"timeout_seconds": seconds}, within)
        moment: int | None = told["trigger_time_ms"]
        return moment

    async def _command(self, method: str, params: dict[str, Any], within: float | None) -> dict[str, Any]:
        async def send(_numbers: list[int], left: float) -> list[Any]:
            return [await self._connection.request(method, params, left)]

        [outcome] = await self._settle(send, [params], within)
        if isinstance(outcome, MExchangeError):
            raise outcome
        told: dict[str, Any] = outcome
        return told

    async def _settle(
        self,
        send: Callable[[list[int], float], Awaitable[list[Any]]],
        commands: list[dict[str, Any]],
        within: float | None,
    ) -> list[Any]:
        """Results, or the truth about what has none; what is sent again goes together, in its order."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + (self._seconds if within is None else within)
        outcomes: list[Any] = [None] * len(commands)
        unknown: dict[int, OutcomeUnknown] = {}
        todo = [*range(len(commands))]
        pause, renewals = FIRST_PAUSE_SECONDS, 2 if self._can_renew else 0
        while True:
            told = await self._attempt(send, todo, max(0.001, deadline - clock()))
            again: list[int] = []
            wait = 0.0
            for at, one in zip(todo, told, strict=True):
                if isinstance(one, GatewayFault):  # of which nobody said what was done before it
                    fault, one = one, OutcomeUnknown(str(one), one.kind, one.data)
                    one.__cause__ = fault
                if isinstance(one, OutcomeUnknown):
                    one.client_order_id = commands[at].get("client_order_id")
                    unknown[at] = one
                outcomes[at] = _truth(one, unknown.get(at))
                if isinstance(one, REPEATED) or (isinstance(one, NotAuthorised) and renewals > 0):
                    again.append(at)
                    if isinstance(one, GatewayError):
                        wait = max(wait, one.retry_after or 0.0)
            if any(isinstance(one, NotAuthorised) for one in told) and again:
                renewals -= 1
                self._connection.renew()
            wait += pause * (0.5 + self._random() / 2)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
            todo = again
            if not todo or self._connection.is_closed or clock() + wait >= deadline:
                return outcomes
            await asyncio.sleep(wait)

    async def _attempt(
        self, send: Callable[[list[int], float], Awaitable[list[Any]]], todo: list[int], left: float
    ) -> list[Any]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + left
        try:
            await self._connection.opened(left)
            return await send(todo, max(0.001, deadline - clock()))
        except OutcomeUnknown as error:
            return [OutcomeUnknown(str(error), error.kind, error.data) for _ in todo]
        except MExchangeError as error:
            return [error for _ in todo]


def _truth(outcome: Any, unknown: OutcomeUnknown | None) -> Any:
    """What is told of a command of which an earlier attempt was of unknown outcome."""
    is_failure = isinstance(outcome, MExchangeError) and not isinstance(outcome, CancelFailed)
    if unknown is None or outcome is unknown or not is_failure:
        return outcome
    unknown.__cause__ = outcome
    return unknown


def _ack(told: Mapping[str, Any]) -> Ack:
    return Ack(str(told["order_id"]), told.get("client_order_id"), bool(told.get("duplicate")))


def _without_none(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _is_number(value: object) -> bool:
    """A decimal attribute; a float is refused by name, as everywhere."""
    return not isinstance(value, bool | int | str) and value is not None
