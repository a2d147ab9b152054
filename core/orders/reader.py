"""Feeds the order directory: drains the order topic before each look at the market, and asks how far it reaches.

The two topics have no order between them. What an event of an order whose owner is not known waits for is the point that
the order topic had reached when the event came; finding that out is a round trip, so it is asked off the loop, one
question at a time, for all events that came before it was sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from core.errors import PoisonedRecord
from core.market.partitions import Partitions
from core.messages.events import Event, Fill, OrderEvent, read_event
from core.messages.feed_record import RecordFeed
from core.messages.times import Times
from core.orders.catch_up import CatchUp, ReadTopic
from core.orders.directory import OrderDirectory
from core.orders.private_feed import PrivateFeed

log = logging.getLogger("gateway.orders")

# Between questions: what is out of order by less is rare, and waits this much longer.
ASK_SECONDS = 0.02
SWEEP_SECONDS = 1.0


class CommandFeed(RecordFeed, ReadTopic, Protocol):
    """The order topic, as it is read."""


class OrderReader:
    """One beat's work on orders. `events` is a feed of its own of all market events, None where the market has all.

    Of the market's feed `fold` is told. `partitions` are those of the market topic as whichever feed it is reads them.
    Whatever fails in folding one record costs that record, and is told to `on_failed` with its place.
    """

    def __init__(
        self,
        directory: OrderDirectory,
        commands: CommandFeed,
        events: RecordFeed | None,
        private: PrivateFeed,
        partitions: Partitions,
        catch_up: CatchUp,
        *,
        monotonic: Callable[[], float],
        times: Times,
        on_failed: Callable[[Exception, str], None],
    ) -> None:
        self._directory = directory
        self._commands = commands
        self._events = events
        self._private = private
        self._monotonic = monotonic
        self._times = times
        self._on_failed = on_failed
        self._ask_at = 0.0
        self._sweep_at = 0.0
        self._partitions = partitions
        self._catch_up = catch_up
        self._reads_on = False

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what comes next.

        Not for commands that are news: what waits for them says so, and the others are soon enough with the next ones.
        """
        return self._reads_on or self._catch_up.is_awaited

    def read(self) -> bool:
        """Read what has come on the order topic (and, where the market has only a part of it, of order events)."""
        records, done, more = self._commands.drain()
        self._reads_on = more or (bool(records) and not records[-1].live)
        for partition, offset, time_ms, value, live in records:
            try:
                self._directory.fold_command(partition, offset, time_ms, value, live)
            except Exception as error:
                self._on_failed(error, f"order topic partition {partition} offset {offset}")
        if done:
            self._commands.serve(done)
        if self._events is not None:
            events, done, _more = self._events.drain()
            for partition, offset, time_ms, value, _ in events:
                if value is not None and (b"order_" in value or b"fill" in value or b"\\u" in value):
                    self._read_event(partition, offset, time_ms, value)
            if done:
                self._events.serve(done)
            self._reads_on = self._reads_on or bool(events)
            return bool(records or events)
        return bool(records)

    def _read_event(self, partition: int, offset: int, time_ms: int, value: bytes) -> None:
        try:
            event = self._times.in_event(read_event(value), time_ms)
        except PoisonedRecord:
            return  # counted where the market is read
        except Exception as error:
            self._on_failed(error, f"market topic partition {partition} offset {offset}")
        else:
            self.fold(event, partition, offset, time_ms)

    def fold(self, event: Event, partition: int, offset: int, time_ms: int) -> None:
        """One market event, of whichever kind. Raises nothing."""
        if isinstance(event, OrderEvent | Fill):
            # What comes on a partition that has been read to its end once is news.
            is_news = self._partitions.has_been_served(partition)
            try:
                self._directory.fold_event(event, partition, offset, time_ms, is_news)
            except Exception as error:
                self._on_failed(error, f"market topic partition {partition} offset {offset}")

    def tell(self) -> None:
        """Say what is new, and look after what waits."""
        self._catch_up.look()
        early = self._directory.early_events
        if early:
            # Where no record tells: after control records, or at the end of an empty partition.
            for partition, position in self._commands.positions().items():
                early.read_to(partition, position)
            now = self._monotonic()
            if early.needs_ends and now >= self._ask_at:
                self._ask_at = now + ASK_SECONDS
                early.ends_asked()
                self._commands.ask_ends(early.on_ends)
        self._private.flush()
        now = self._monotonic()
        # At the next beat again, as long as there is more to forget than one beat should have to do.
        if now >= self._sweep_at and not self._directory.sweep(self._times.now_ms()):
            self._sweep_at = now + SWEEP_SECONDS
