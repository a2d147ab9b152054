"""From the market topic to the sockets: the feed, the market that its records are folded into, and the hub."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from core.channels.hub import Hub
from core.config.settings import Settings
from core.kafka.earlier_snapshots import EarlierSnapshots
from core.kafka.missed_records import MissedRecords
from core.log_throttle import QuietLog
from core.market.instrument_list import instrument_list
from core.market.market import Market
from core.messages.events import Event
from core.orders.reader import OrderReader
from core.telemetry.market_faults import MarketFaults
from core.telemetry.metrics import Metrics
from process.loop_turns import LoopTurns
from wiring.bus import Bus

# Between two slices of views and requests, or turns of those who send much.
REST_OF_A_SLICE: Final = 0.4


class MarketRoom:
    """What is known of the market, and who is told. `reader` is whoever folds orders from the market's events as well."""

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        metrics: Metrics,
        quiet_log: QuietLog,
        *,
        epoch: Callable[[], str],
        is_ack_awaited: Callable[[], bool],
    ) -> None:
        """`epoch` names the life of the market topic; while `is_ack_awaited` slices end early."""
        kafka = settings.kafka
        self.reader: OrderReader | None = None
        self.epoch = epoch
        self._metrics = metrics
        self._instruments = settings.instruments
        self._amends = settings.orders.amend and settings.accounts.url is None
        self._attributes = settings.orders.attributes
        self._max_open_orders = settings.limits.max_open_orders
        self._faults = MarketFaults(metrics, quiet_log, kafka.topic)
        ticks = {instrument.symbol: instrument.tick for instrument in settings.instruments}
        self.market = Market(
            on_poisoned=self._faults.on_poisoned,
            on_event=self._on_event,
            on_stale=self._on_stale,
            on_failed=self._faults.on_failed,
            times=bus.times,
            tick_of=ticks.get,
            history_records=settings.history.records,
            history_seconds=settings.history.seconds,
        )
        self.hub = Hub(self.market, epoch, time.monotonic, metrics)
        slice_seconds = settings.hub.slice_ms / 1000
        loop = asyncio.get_running_loop()
        turns = LoopTurns(loop, slice_seconds)
        self._turns = turns
        for sliced in (self.hub.fanout, self.hub.slices):
            sliced.slice_seconds = slice_seconds
            # That an acknowledgement has come, only a look at the producer tells.
            sliced.others_wait = lambda: is_ack_awaited() or turns.others_wait()
        self.hub.fanout.schedule_slice = turns.call_when_idle
        # A process that never sleeps is the last to be given a core on a machine that has other work, and its threads wait
        # for the interpreter: so what one client asks for leaves some of the time to nobody.
        rest_seconds = slice_seconds * REST_OF_A_SLICE
        self.hub.slices.rest_seconds = rest_seconds
        self.hub.slices.schedule_slice = lambda go_on: self.call_when_idle(go_on, rest_seconds)
        self.missed_records = MissedRecords(bus.brokers, kafka.topic, kafka.consumer, self.hub.resume.on_missed_records)
        self.hub.resume.missed_records = self.missed_records
        self.earlier_snapshots = EarlierSnapshots(
            bus.brokers,
            kafka.topic,
            kafka.consumer,
            self.market,
            warmup_records=kafka.warmup_records,
            warmup_min_records=kafka.warmup_min_records,
            times=bus.times,
        )
        self.feed = bus.feed(
            kafka.topic,
            self.hub.partition_changes,
            broadcast=kafka.consume == "broadcast",
            tells_unread=True,
            completion=self.earlier_snapshots,
        )

    def call_when_idle(self, go_on: Callable[[], object], rest_seconds: float) -> None:
        """Call it when, after so long, the loop has nothing else to do."""
        asyncio.get_running_loop().call_later(rest_seconds, self._turns.call_when_idle, go_on)

    async def give_way(self) -> None:
        """Return as soon as the loop has nothing else to do."""
        idle = asyncio.get_running_loop().create_future()
        self._turns.call_when_idle(lambda: None if idle.done() else idle.set_result(None))
        await idle

    def instruments(self) -> dict[str, object]:
        """The body of `/api/instruments`."""
        return instrument_list(
            self._instruments,
            lambda: self.market.symbols,
            amends=self._amends,
            attributes=self._attributes,
            max_open_orders=self._max_open_orders,
        )

    def _on_event(self, event: Event, partition: int, offset: int, time_ms: int) -> None:
        self._metrics.count_event(event.type)
        if self.reader is not None:
            self.reader.fold(event, partition, offset, time_ms)

    def _on_stale(self, symbol: str, cause: str) -> None:
        self._faults.on_stale(symbol, cause)
        self.hub.publishing.mark_untrusted(symbol)
