"""The heartbeat: drain Kafka, fold, tell, serve the producer; and how soon to do it again.

`beat` is called by a periodic callback. While records flow, or acknowledgements are awaited that nobody else looks after, it asks
for the short period; in quiet it backs off to the idle one, because a timer alone costs 12 % of a core at one millisecond, and while the bus is
away further.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from core.channels.hub import Hub
from core.market.market import Market
from core.messages.feed_record import Record, RecordFeed
from core.telemetry.metrics import Metrics

log = logging.getLogger("gateway.pump")

# Quiet beats at the short period before backing off: 50 ms of it, more than the gaps of a flow of 100 events/s.
PATIENCE_BEATS = 50
# The idle period while the bus is away: nothing can come, and it may be away for hours. Its return is noticed in less.
AWAY_MS = 100.0
_NEVER_MS = 1 << 62
NO_OTHERS: Mapping[str, Callable[[], bool]] = {}

T = TypeVar("T")


class Acknowledgements(Protocol):
    """Where orders go to."""

    @property
    def needs_beats(self) -> bool:
        """Whether `poll` has to be called soon and often."""

    def poll(self) -> None:
        """Serve acknowledgements and deadlines."""


class OrderReading(Protocol):
    """Who reads the order topic."""

    def read(self) -> bool:
        """Before the market is read; True if something had come."""

    def tell(self) -> None:
        """After it was."""

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for what comes next on it."""


class Pump:
    """One beat after the other; knows no loop."""

    def __init__(
        self,
        feed: RecordFeed,
        orders: Acknowledgements,
        market: Market,
        hub: Hub,
        metrics: Metrics,
        *,
        poll_interval_ms: float,
        idle_interval_ms: float,
        again: Callable[[], None],
        order_reader: OrderReading | None = None,
        others: Mapping[str, Callable[[], bool]] = NO_OTHERS,
        is_away: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`again` has to call `beat` once more as soon as the loop has looked after its other work.

        `others` is what else is read in a beat, by the place that its faults are counted for: each is called, and tells
        whether something had come. `is_away` tells whether the bus does not answer.
        """
        self._feed = feed
        self._orders = orders
        self._market = market
        self._hub = hub
        self._metrics = metrics
        self._poll_interval_ms = poll_interval_ms
        self._idle_interval_ms = idle_interval_ms
        self._again = again
        self._order_reader = order_reader
        self._others = others
        self._is_away = is_away
        self._clock = clock
        self._quiet_beats = 0
        self.period_ms = poll_interval_ms

    @property
    def is_idle(self) -> bool:
        """Whether the period is longer than the short one."""
        return self.period_ms > self._poll_interval_ms

    def beat(self) -> None:
        """One round; afterwards `period_ms` says when the next one is due."""
        began = self._clock()
        self._contained("orders", self._orders.poll)
        reader = self._order_reader
        has_orders = reader is not None and bool(self._contained("orders", reader.read))
        # As long as not everybody has been told what came before, and it is too late to tell more with it, the rest waits
        # in the client: it is joined then.
        is_behind = self._hub.fanout.is_busy
        waits = is_behind and not self._hub.fanout.takes_more
        records, done, more = ([], [], False) if waits else self._feed.drain()
        if records:
            self._tell(records)
        if done:
            self._feed.serve(done)
        if reader is not None:
            self._contained("orders", reader.tell)
        has_others = False
        for where, read in self._others.items():
            has_others = bool(self._contained(where, read)) or has_others
        self._hub.beat()
        if more:
            self._again()
        if records or has_orders:
            self._metrics.tick_seconds.observe(self._clock() - began)
        if records or has_others or is_behind or self._orders.needs_beats or (reader and reader.is_awaited):
            self._quiet_beats = 0
            self.period_ms = self._poll_interval_ms
        else:
            self._quiet_beats += 1
            if self._quiet_beats > PATIENCE_BEATS:
                most = max(AWAY_MS, self._idle_interval_ms) if self._is_away() else self._idle_interval_ms
                self.period_ms = min(self.period_ms * 2, most)

    def hurry(self) -> None:
        """Something is awaited from now on: take the short period again."""
        self._quiet_beats = 0
        self.period_ms = self._poll_interval_ms

    def _contained(self, where: str, step: Callable[[], T]) -> T | None:
        """A step of the beat: where it fails, the others are taken all the same."""
        try:
            return step()
        except Exception as error:
            self._metrics.fault(where, error, "in the beat")
            return None

    def _tell(self, records: list[Record]) -> None:
        fold = self._market.fold
        news = []
        size = 0
        oldest_ms = _NEVER_MS
        for partition, offset, time_ms, value, live in records:
            item = fold(partition, offset, value, time_ms)
            size += len(value or b"")
            if item is not None and live:
                news.append(item)
                if time_ms < oldest_ms:
                    oldest_ms = time_ms
        self._metrics.records.inc(len(records))
        self._metrics.record_bytes.inc(size)
        if news:
            self._metrics.publishing(oldest_ms)
            self._contained("channels", lambda: self._hub.publish(news))
            self._metrics.published(is_everyone_told=not self._hub.fanout.is_busy)
