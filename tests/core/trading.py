"""The way of an order without Kafka: a log whose acknowledgements a test gives, and what reads back what was written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from core.errors import BusUnavailable, OutcomeUnknown
from core.messages.feed_record import Headers, Written
from core.messages.order_rules import OrderRules
from core.messages.times import Times
from core.orders.account_trades import AccountTrades
from core.orders.amends import Amends
from core.orders.catch_up import CatchUp
from core.orders.change_waiters import OrderChanges
from core.orders.directory import OrderDirectory
from core.orders.entry import USE_SECONDS, OrderEntry
from core.orders.lookup import OrderLookup
from core.orders.order import Order, state
from core.orders.pre_trade import pre_trade
from core.orders.private_feed import Deliver, PrivateFeed
from core.orders.recent_closings import RecentClosings

NAMESPACE = UUID("0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11")
KEEP_SECONDS = 86_400.0
EPOCH = "a-life.1"

RULES = OrderRules(amends=True)

CERTAINLY_NOT = BusUnavailable("Kafka cannot be reached")


@dataclass(eq=False)
class Produced:
    """One command on its way, as the log was given it."""

    order_id: str
    symbol: str
    command: bytes
    headers: Headers | None
    future: asyncio.Future[Written]

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.command)
        return record

    def ack(self, since: int = 0) -> None:
        """It is on partition 0; from offset `since` on all is of this instance."""
        self.future.set_result(Written(0, since))

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

    def produce(
        self, order_id: str, symbol: str, command: bytes, headers: Headers | None = None
    ) -> asyncio.Future[Written]:
        if self.refuses is not None:
            raise self.refuses
        one = Produced(order_id, symbol, command, headers, asyncio.get_running_loop().create_future())
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


class FakeTopic:
    """The order topic as one instance reads it: partition 0, to its end unless `end` says that there is more."""

    def __init__(self) -> None:
        self.position = 0
        self.end: int | None = None
        self.asked: list[Callable[[Mapping[int, int] | None], None]] = []
        self.answers = True

    def positions(self) -> Mapping[int, int]:
        return {0: self.position}

    def ask_ends(self, on_answer: Callable[[Mapping[int, int] | None], None]) -> None:
        self.asked.append(on_answer)
        if self.answers:
            asyncio.get_running_loop().call_soon(self.answer)

    def answer(self, end: int | None = None) -> None:
        """To the question that was asked first."""
        end = self.end if end is None else end
        self.asked.pop(0)({0: self.position if end is None else end})


PATIENCE_SECONDS = 60.0
# Then no other instance's attempt publishes an order on what was reserved, and a little.
SETTLED_SECONDS = USE_SECONDS + PATIENCE_SECONDS + 1


class Trade:
    """Order path, directory and private feed as `gateway.py` puts them together; partition 0 is the order topic."""

    def __init__(
        self,
        deliver: Deliver = lambda *_: None,
        *,
        acks: bool = False,
        reservations: Any = None,
        passes_anonymous: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
        rules: OrderRules = RULES,
        max_open_orders: int = 0,
    ) -> None:
        """`patience_seconds`: how long anybody waits for the order topic to be read; no test does."""
        self.mark: Decimal | None = None
        self.now = 1_700_000_000.5
        self.is_started = True
        self.counts: list[tuple[str, str]] = []
        self.is_reachable = True
        self.log = FakeLog(acks)
        self.topic = FakeTopic()
        self.catch_up = CatchUp(
            self.topic, is_reachable=lambda: self.is_reachable, end_seconds=patience_seconds, retry_seconds=0
        )
        self.directory = OrderDirectory(
            keep_terminal_seconds=KEEP_SECONDS,
            on_change=self._on_change,
            on_private=lambda user_id, payload: self.private.on_event(user_id, payload),
            on_fill=lambda user_id, fill: self.private.trades.on_fill(user_id, fill),
            times=Times(lambda: self.now),
        )
        self.changes = OrderChanges(self.directory.get)
        trades = AccountTrades(
            deliver,
            self.directory.fills,
            self.directory.read_to.seq,
            lambda: EPOCH,
            waiting_fills=self.directory.read_to.waiting_fills,
        )
        read_to = self.directory.read_to
        closings = RecentClosings(read_to.folded_to, read_to.read_back_to, read_to.seq)
        self.private = PrivateFeed(deliver, self.directory.shown_orders, state, trades=trades, closings=closings)
        limits = pre_trade(
            rules.instruments,
            max_open_orders,
            mark=lambda _symbol: self.mark,
            open_orders=self.directory.index.shown_count,
        )
        self.entry = OrderEntry(
            self.log,
            self.directory,
            NAMESPACE,
            self.catch_up,
            answer_within_seconds=patience_seconds,
            is_started=lambda: self.is_started,
            count=lambda kind, outcome: self.counts.append((kind, outcome)),
            clock=lambda: self.now,
            reservations=reservations,
            passes_anonymous=passes_anonymous,
            pre_trade=limits,
        )
        self.amends = Amends(
            self.entry,
            self.log,
            self.directory,
            rules,
            count=lambda kind, outcome: self.counts.append((kind, outcome)),
            clock=lambda: self.now,
            pre_trade=limits,
        )
        self.lookup = OrderLookup(self.directory, self.catch_up, lambda: self.is_started)

    def _on_change(self, order: Order) -> None:
        self.private.on_change(order)
        self.changes.on_change(order)

    def see(self, command: bytes) -> None:
        """It is read on the order topic."""
        self.directory.fold_command(0, self.topic.position, int(self.now * 1000), command, True)
        self.topic.position += 1
        self.catch_up.look()
