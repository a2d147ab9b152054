"""The control topic, from its records to what follows from them: a user's orders are cancelled in time, or with a connection, and
what the operators have set holds.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import Any, Final

from core.config.settings import Settings
from core.control.announcements import Announcements
from core.control.broker_clock import BrokerClock
from core.control.cancel_on_disconnect import CancelOnDisconnect, beat_seconds
from core.control.cancel_open import CancelOpen
from core.control.cancel_timers import CancelTimers
from core.control.control_table import ControlTable
from core.control.control_writer import ControlWriter
from core.control.disconnects import Close, Disconnects
from core.control.exchange_status import ExchangeStatus
from core.control.instances import Instances
from core.control.reading import Reading
from core.control.restrictions import Restrictions
from core.control.status_channel import StatusChannel
from core.kafka.compacted_topic import CompactedTopic
from core.kafka.control_topic import ControlTopic
from core.log_throttle import QuietLog
from core.messages.control_records import (
    ALIVE,
    ANNOUNCEMENT,
    BLOCK,
    CONNECTION,
    DISCONNECT_CLIENT,
    DISCONNECT_USER,
    FIRED,
    HALT,
    LEAVING,
    TIMER,
)
from core.orders.catch_up import CatchUp
from core.orders.connection_cancels import ConnectionCancels
from core.telemetry.audit import Asker
from core.telemetry.metrics import ControlCounts, Metrics
from wiring.bus import Bus
from wiring.market import MarketRoom
from wiring.orders import OrdersRoom

log = logging.getLogger("gateway.control")

# Nobody is in a hurry to have a timer set: many users' go in one request.
LINGER_MS: Final = 20
# What it is called in the audit.
TIMER_FIRED: Final = "cancel_all_after_fired"
# Nobody waits for longer to be ready for a topic of which nothing comes.
UNREAD_SECONDS: Final = 10.0


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

        # An embedded broker makes more than one partition; what is said on this topic has one order.
        self.log = bus.log_of(topic, linger_ms=LINGER_MS, partition=0)
        write, me, grace_seconds = (
            partial(self.log.produce, ""),
            secrets.token_hex(8),
            settings.orders.disconnect_grace_seconds,
        )
        instances = Instances(write, me=me, beat_seconds=beat_seconds(grace_seconds or 10.0), monotonic=time.monotonic)
        self._reading = Reading(lambda: self.why_not() is None)
        broker_clock = BrokerClock()
        self.timers = CancelTimers(
            write,
            me=me,
            why_not=self.why_not,
            to_end=lambda: self.catch_up.to_end(),
            cancel_all=cancel_all,
            count=metrics.count_timer,
            say_alive=instances.say,
            age=broker_clock.age,
            is_live=self._reading.is_live,
        )
        writer = ControlWriter(write, why_not=self.why_not, to_end=lambda: self.catch_up.to_end())
        self.restrictions = Restrictions(writer, on_change=lambda: self.status.on_change())
        self.announcements = Announcements(writer, on_change=lambda: self.status.on_change())
        self.cancel_open = CancelOpen(
            lambda user_id: orders.entry.cancel_all(user_id, None), self.restrictions.is_blocked
        )
        self.status = ExchangeStatus(
            self.restrictions.blocked(),
            self.restrictions.halted(),
            lambda: self.announcements.current,
            unread=lambda: None if self.is_settled else f"topic {topic} has not been read yet",
        )
        self.channel: StatusChannel | None = None
        self.disconnects = Disconnects(
            writer,
            close_user=lambda user_id, before_ms: self.close_user(user_id, before_ms),
            close_client=lambda client, before_ms: self.close_client(client, before_ms),
        )
        # Set by whoever has the connections.
        self.close_user: Close = _close_nothing
        self.close_client: Close = _close_nothing
        cancels = ConnectionCancels(
            orders.lookup,
            orders.entry,
            lambda order, error: orders.order_services.audit.cancelled_on_disconnect(
                Asker("", order.user_id), order, error
            ),
        )
        self.cancel_on_disconnect = CancelOnDisconnect(
            write,
            instances,
            grace_seconds=grace_seconds,
            is_usable=lambda: grace_seconds > 0 and (self._maker is None or self._maker.problem is None),
            why_not=self.why_not,
            position=lambda: self.compacted.positions().get(0, 0),
            to_end=lambda: self.catch_up.to_end(),
            has_open=lambda name, held: cancels.has_open(name, held.orders),
            cancel=lambda name, held: cancels.cancel(name, held.orders),
            count=metrics.count_disconnect,
        )
        parts = {
            TIMER: self.timers.take_timer,
            FIRED: self.timers.take_fired,
            CONNECTION: self.cancel_on_disconnect.take,
            ALIVE: instances.take_alive,
            LEAVING: instances.take_leaving,
            BLOCK: self.restrictions.take_block,
            HALT: self.restrictions.take_halt,
            ANNOUNCEMENT: self.announcements.take,
            DISCONNECT_USER: self.disconnects.take_user,
            DISCONNECT_CLIENT: self.disconnects.take_client,
        }
        table = ControlTable(parts, self._forget, counts.poisoned, self._reading.check_time, broker_clock.heard)
        self.compacted = CompactedTopic(
            topic, bus.monitor, table, slice_seconds=settings.hub.slice_ms / 1000, on_failed=counts.failed
        )
        self.compacted.feed = bus.compacted_feed(topic, self.compacted)
        self.catch_up = CatchUp(self.compacted, is_reachable=lambda: bus.monitor.connected, name=f"topic {topic}")
        self._maker: ControlTopic | None = None
        # How far it was read when, until it has been read once.
        self._progress: tuple[object, float] = None, time.monotonic()
        self._is_given_up = False
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

    def _forget(self, partition: int) -> None:
        for part in (self.timers, self.restrictions, self.announcements):
            part.forget(partition)
        self.cancel_on_disconnect.forget()

    def why_not(self) -> str | None:
        """Why nothing can be set now, and not all may be known that is; None: it can."""
        if self.problem is not None:
            return self.problem
        return None if self.compacted.is_read(None) else f"topic {self.topic} is not read up to now"

    @property
    def problem(self) -> str | None:
        """A sentence while it cannot be used."""
        problem = (None if self._maker is None else self._maker.problem) or self.compacted.problem
        return problem or (f"topic {self.topic} cannot be read" if self._is_unread else None)

    @property
    def is_settled(self) -> bool:
        """Whether it has been read to its end once, or cannot be used."""
        return self._is_given_up or self.problem is not None or self.compacted.is_settled

    @property
    def _is_unread(self) -> bool:
        """Whether nothing comes of it, though the brokers answer."""
        if self.compacted.is_settled:
            return False
        progress, now = (self._bus.monitor.connected, self.warm_up()), time.monotonic()
        if progress != self._progress[0]:
            self._progress = progress, now
        is_unread = self._bus.monitor.connected and now - self._progress[1] > UNREAD_SECONDS
        self._is_given_up = self._is_given_up or is_unread
        return is_unread

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

    @property
    def blocks(self) -> int:
        """Users whose orders are refused."""
        return len(self.restrictions.blocked())

    @property
    def halts(self) -> int:
        """Symbols that are halted; a halt of all is one."""
        return len(self.restrictions.halted())

    @property
    def held(self) -> int:
        """Connections whose orders are cancelled with them, on all instances."""
        return len(self.cancel_on_disconnect)

    def beat(self) -> bool:
        """Read, write, fire what is due, and tell what has changed; whether the next one is to follow soon."""
        self.log.poll()
        has_come = self.compacted.read()
        self._reading.beat()
        self.catch_up.look()
        self.timers.look()
        if self.channel is not None:
            self.channel.flush()
        self.cancel_on_disconnect.look()
        return has_come or self.catch_up.is_awaited

    def work(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What has to go on for as long as this process serves."""
        if self._maker is not None:
            yield self._maker.run()

    def drain(self) -> None:
        """This process is about to end its connections."""
        self.cancel_on_disconnect.drain()

    async def close(self, timeout_seconds: float) -> None:
        """Leave to others what is still to come, and wait so long for what is being written."""
        deadline = time.monotonic() + timeout_seconds
        try:
            await asyncio.wait_for(
                asyncio.gather(self.cancel_on_disconnect.hand_over(), self.timers.hand_over()), timeout_seconds
            )
        except TimeoutError:
            log.error("not all timers, or orders of connections that ended, are handed over")
        self.timers.stop()
        self.cancel_open.stop()
        self.cancel_on_disconnect.stop()
        await self.log.close(max(0.0, deadline - time.monotonic()))


async def _close_nothing(_name: str, _before_ms: int) -> int:
    return 0


def build_control(
    settings: Settings, bus: Bus, orders: OrdersRoom, metrics: Metrics, quiet_log: QuietLog
) -> ControlRoom | None:
    """None where there is no control topic."""
    if not settings.kafka.control_topic:
        return None
    control = ControlRoom(settings, bus, orders, metrics, quiet_log)
    orders.order_services.timers = control.timers
    orders.entry.gate = control.status
    orders.order_services.cancel_on_disconnect = control.cancel_on_disconnect
    return control


def build_status(market: MarketRoom, control: ControlRoom | None) -> StatusChannel:
    """Where there is no control topic, nothing can be halted."""
    status = ExchangeStatus({}, {}, lambda: None) if control is None else control.status
    channel = StatusChannel(market.hub.fanout.send, status)
    if control is not None:
        control.channel = channel
    return channel
