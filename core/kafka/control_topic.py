"""The control topic, as far as Kafka is concerned: had there (docs/contract.md#control-topic)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from confluent_kafka import KafkaException

from core.kafka.clients import Calls, Property
from core.kafka.monitor import BusMonitor
from core.kafka.state_topic import LOOK_SECONDS, Purpose, Unfit, ready_topic

log = logging.getLogger("gateway.kafka")

# Who starts judges by the brokers' clock how old a record is.
PURPOSE: Final = Purpose(
    "kafka.control_topic", "cancel_all_after is refused", {"message.timestamp.type": "LogAppendTime"}
)
# Between looks, while there is reason to look.
PAUSE_SECONDS: Final = 1.0


class ControlTopic:
    """Has it there, and looks again when it is another one, or gone. problem: a sentence while it cannot be used.

    is_usable: whether it could be, the last time.
    """

    def __init__(
        self,
        brokers: str,
        extra: Mapping[str, Property],
        topic: str,
        market_topic: str,
        monitor: BusMonitor,
        calls: Calls,
        *,
        on_usable: Callable[[], None],
        ready: Callable[[], bool] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`on_usable` is called once the monitor knows of it. `ready` makes it where it is missing, as `ready_topic`."""
        self.problem: str | None = None
        self.is_usable = False
        self._topic = topic
        self._market_topic = market_topic
        self._monitor = monitor
        self._calls = calls
        self._on_usable = on_usable
        self._ready = ready or partial(ready_topic, brokers, extra, topic, market_topic, 1, PURPOSE)
        self._sleep = sleep
        self._looked_at: str | None = None

    async def run(self) -> None:
        """Look for ever; ends when cancelled."""
        while True:
            await self._sleep(await self.look())

    async def look(self) -> float:
        """Look, if there is reason to. How many seconds to wait before the next time."""
        monitor = self._monitor
        if not monitor.connected or not monitor.partitions.get(self._market_topic):
            return PAUSE_SECONDS / 10
        is_there = bool(monitor.partitions.get(self._topic))
        if self.is_usable and is_there and monitor.topic_ids.get(self._topic) == self._looked_at:
            return PAUSE_SECONDS
        try:
            if await self._calls.run(self._ready, LOOK_SECONDS):
                log.info("topic %s was made", self._topic)
        except Unfit as unfit:
            if self.problem is None:
                log.warning("%s", unfit)
            self.problem, self.is_usable = str(unfit), False
            return LOOK_SECONDS
        except (KafkaException, TimeoutError) as error:
            log.warning("topic %s could not be looked at: %s", self._topic, error)
            return PAUSE_SECONDS
        # Asked for by name only now: that makes a topic where they are made on first use.
        monitor.watch(self._topic)
        if not await monitor.ask(with_ids=True) or not monitor.partitions.get(self._topic):
            return PAUSE_SECONDS
        self._looked_at = monitor.topic_ids.get(self._topic)
        self.problem, self.is_usable = None, True
        self._on_usable()
        return PAUSE_SECONDS
