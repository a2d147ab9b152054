"""The control topic, from its records to what follows from them: timers that cancel a user's orders."""

from __future__ import annotations

import secrets
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any, Final

from core.config.settings import Settings
from core.control.cancel_timers import CancelTimers
from core.control.control_table import ControlTable
from core.kafka.compacted_topic import CompactedTopic
from core.kafka.control_topic import ControlTopic
from core.log_throttle import QuietLog
from core.messages.control_records import FIRED, TIMER
from core.orders.catch_up import CatchUp
from core.telemetry.audit import Asker
from core.telemetry.metrics import ControlCounts, Metrics
from wiring.bus import Bus
from wiring.orders import OrdersRoom

# Nobody is in a hurry to have a timer set: many users' go in one request.
LINGER_MS: Final = 20
# What it is called in the audit.
TIMER_FIRED: Final = "cancel_all_after_fired"


class ControlRoom:
    """As `ControlReport` it is asked by `/health`."""

    name: Final = "control"

    def __init__(self, settings: Settings, bus: Bus, orders: OrdersRoom, metrics: Metrics, quiet_log: QuietLog) -> None:
        self.topic = topic = settings.kafka.control_topic
        self._bus = bus
        counts = ControlCounts(metrics, quiet_log, topic)

        async def cancel_all(user_id: str) -> list[str]:
            order_ids = await orders.entry.cancel_all(user_id, None)
            orders.order_services.audit.told(TIMER_FIRED, Asker("", user_id), {"order_ids": order_ids}, {})
            return order_ids

        self.log = bus.log_of(topic, linger_ms=LINGER_MS)
        self.timers = CancelTimers(
            partial(self.log.produce, ""),
            me=secrets.token_hex(8),
            why_not=self._why_not,
            to_end=lambda: self.catch_up.to_end(),
            cancel_all=cancel_all,
            count=metrics.count_timer,
        )
        table = ControlTable(
            {TIMER: self.timers.take_timer, FIRED: self.timers.take_fired}, self.timers.forget, counts.poisoned
        )
        self.compacted = CompactedTopic(
            topic, bus.monitor, table, slice_seconds=settings.hub.slice_ms / 1000, on_failed=counts.failed
        )
        self.compacted.feed = bus.compacted_feed(topic, self.compacted)
        self.catch_up = CatchUp(self.compacted, is_reachable=lambda: bus.monitor.connected, name=f"topic {topic}")
        self._maker: ControlTopic | None = None
        if bus.is_embedded:
            self._follow()
        else:
            self._maker = ControlTopic(
                bus.brokers,
                settings.kafka.producer,
                topic,
                settings.kafka.topic,
                bus.monitor,
                bus.calls,
                on_usable=self._follow,
            )

    def _follow(self) -> None:
        look = self.compacted.look
        if look not in self._bus.monitor.on_change:
            self._bus.monitor.on_change.append(look)
        look()

    def _why_not(self) -> str | None:
        if self.problem is not None:
            return self.problem
        return None if self.compacted.is_read(None) else f"topic {self.topic} is not read up to now"

    @property
    def problem(self) -> str | None:
        """A sentence while it cannot be used."""
        return (None if self._maker is None else self._maker.problem) or self.compacted.problem

    @property
    def is_settled(self) -> bool:
        """Whether it has been read to its end once, or cannot be used."""
        return self.problem is not None or self.compacted.is_settled

    def lag(self) -> dict[int, int]:
        """Records not read yet, by partition."""
        return self.compacted.feed.lag()

    def warm_up(self) -> tuple[int, int] | None:
        """How many records have been read, of how many; None once all have."""
        return self.compacted.feed.warm_up()

    @property
    def armed(self) -> int:
        """Users whose orders are to be cancelled unless they say so again."""
        return len(self.timers)

    def beat(self) -> bool:
        """Read, write, and fire what is due; whether the next one is to follow soon."""
        self.log.poll()
        has_come = self.compacted.read()
        self.catch_up.look()
        self.timers.look()
        return has_come or self.catch_up.is_awaited

    def work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What has to go on for as long as this process serves."""
        if self._maker is not None:
            yield self._maker.run()

    async def close(self, timeout_seconds: float) -> None:
        """Fire no more, and wait so long for what is being written."""
        self.timers.stop()
        await self.log.close(timeout_seconds)


def build_control(
    settings: Settings, bus: Bus, orders: OrdersRoom, metrics: Metrics, quiet_log: QuietLog
) -> ControlRoom | None:
    """None where there is no control topic."""
    if not settings.kafka.control_topic:
        return None
    control = ControlRoom(settings, bus, orders, metrics, quiet_log)
    orders.order_services.timers = control.timers
    return control
