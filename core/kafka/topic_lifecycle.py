"""What follows from the bus's answers: when each topic begins to be read, and what a change of one means.

The order topic is read to its end before the market is begun: whose orders the events are about is known then. A topic
with another id is another topic, deleted and made again; in one with another number of partitions symbols have moved.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from core.kafka.feed import Feed
from core.kafka.monitor import BusMonitor

log = logging.getLogger("gateway")


class TopicLifecycle:
    """The life of both topics. `look` is for after each answer of the bus, and for when the order topic has been read.

    problem: for /health: what only a restart sets right; None if nothing has to be.
    feeds: all that begin anew with their topic.
    """

    def __init__(
        self,
        monitor: BusMonitor,
        feed: Feed,
        order_feed: Feed,
        event_feed: Feed | None,
        *,
        boot_id: str,
        keep_seconds: float,
        on_order_topic_gone: Callable[[], None],
        on_event_topic_gone: Callable[[], None],
    ) -> None:
        """`keep_seconds` is how long the order topic has to keep its records; `boot_id` stands in for a missing id."""
        self.problem: str | None = None
        self._monitor = monitor
        self._feed = feed
        self._order_feed = order_feed
        self._event_feed = event_feed
        self.feeds = [one for one in (order_feed, event_feed, feed) if one is not None]
        self._boot_id = boot_id
        self._keep_seconds = keep_seconds
        self._on_gone = {order_feed.topic: on_order_topic_gone, feed.topic: on_event_topic_gone}
        self._ids: dict[str, str] = {}
        self._checking: asyncio.Task[None] | None = None

    def epoch(self) -> str:
        """The life of the market topic: its id (per start where Kafka has none) and its number of partitions."""
        topic_id = self._monitor.topic_ids.get(self._feed.topic) or self._boot_id
        return f"{topic_id}.{self._feed.topic_partitions}"

    def look(self) -> None:
        """Do what follows from what the monitor knows now. Raises KafkaException."""
        if not self._monitor.connected:
            return
        for topic in self._on_gone:
            self._notice_id(topic)
        order_partitions = self._monitor.partitions.get(self._order_feed.topic, 0)
        if order_partitions:
            self._order_feed.set_topic_partitions(order_partitions)
            if not self._order_feed.has_been_live():
                return
        self._read_market()
        if order_partitions and self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(self._check_retention())

    def close(self) -> None:
        """Ask nothing any more."""
        if self._checking is not None:
            self._checking.cancel()

    def _notice_id(self, topic: str) -> None:
        topic_id = self._monitor.topic_ids.get(topic)
        before = self._ids.get(topic)
        if topic_id is None or topic_id == before:
            return
        self._ids[topic] = topic_id
        if before is None:
            return
        log.error("topic %s was deleted and made again: warming up anew", topic)
        self._on_gone[topic]()
        for feed in self.feeds:
            if feed.topic == topic:
                feed.restart()

    def _read_market(self) -> None:
        count = self._monitor.partitions.get(self._feed.topic)
        if not count:
            return
        if self._event_feed is not None:
            self._event_feed.set_topic_partitions(count)
        if self._feed.set_topic_partitions(count):
            self.problem = "the number of partitions of the market topic has changed: restart"
            log.error(
                "the number of partitions of %s changed to %d: symbols move; restart when it suits",
                self._feed.topic,
                count,
            )

    async def _check_retention(self) -> None:
        for warning in await self._monitor.retention_warnings(self._order_feed.topic, self._keep_seconds):
            log.warning("%s", warning)
