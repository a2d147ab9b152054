"""The way of an order without Kafka: a log whose acknowledgements a test gives, and what reads back what was written."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.errors import BusUnavailable, OutcomeUnknown
from core.messages.times import Times
from core.orders.directory import OrderDirectory
from core.orders.entry import OrderEntry
from core.orders.order import state
from core.orders.private_feed import Deliver, PrivateFeed

NAMESPACE = UUID("0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11")
KEEP_SECONDS = 86_400.0

CERTAINLY_NOT = BusUnavailable("Kafka cannot be reached")


@dataclass(eq=False)
class Produced:
    """One command on its way, as the log was given it."""

    order_id: str
    symbol: str
    command: bytes
    future: asyncio.Future[None]

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.command)
        return record

    def ack(self) -> None:
        self.future.set_result(None)

    def fail(self, error: Exception) -> None:
        self.future.set_exception(error)

    def lose(self) -> None:
        """Nobody will know whether it was written."""
        self.fail(OutcomeUnknown(self.order_id, "no acknowledgement in time"))


class FakeLog:
    """Where commands go. `refuses` is raised at once; with `acks` each is acknowledged at once."""

    def __init__(self, acks: bool = False) -> None:
        self.produced: list[Produced] = []
        self.acks = acks
        self.refuses: Exception | None = None

    def produce(self, order_id: str, symbol: str, command: bytes) -> asyncio.Future[None]:
        if self.refuses is not None:
            raise self.refuses
        one = Produced(order_id, symbol, command, asyncio.get_running_loop().create_future())
        self.produced.append(one)
        if self.acks:
            one.ack()
        return one.future

    @property
    def records(self) -> list[dict[str, Any]]:
        return [one.record for one in self.produced]

    @property
    def last(self) -> Produced:
        return self.produced[-1]


class Trade:
    """Order path, directory and private feed as `gateway.py` puts them together; partition 0 is the order topic."""

    def __init__(self, deliver: Deliver = lambda *_: None, *, acks: bool = False, reservations: Any = None) -> None:
        self.now = 1_700_000_000.5
        self.is_started = True
        self.counts: list[tuple[str, str]] = []
        self.log = FakeLog(acks)
        self.directory = OrderDirectory(
            keep_terminal_seconds=KEEP_SECONDS,
            on_change=lambda order: self.private.on_change(order),
            on_private=lambda user_id, payload: self.private.on_event(user_id, payload),
            times=Times(lambda: self.now),
        )
        self.private = PrivateFeed(deliver, self.directory.open_orders, state)
        self.entry = OrderEntry(
            self.log,
            self.directory,
            NAMESPACE,
            is_started=lambda: self.is_started,
            count=lambda kind, outcome: self.counts.append((kind, outcome)),
            clock=lambda: self.now,
            reservations=reservations,
        )
        self._offset = 0

    def see(self, command: bytes) -> None:
        """It is read on the order topic."""
        self.directory.fold_command(0, self._offset, int(self.now * 1000), command, True)
        self._offset += 1
