"""What every room that talks to Kafka is given: the brokers' address, calls that may wait, who knows whether it answers, and
what is taken for the times of its records."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from core.config.settings import Settings
from core.kafka.acknowledgements import AcknowledgementThread
from core.kafka.clients import EMBEDDED, Calls
from core.kafka.embedded import START_SECONDS, EmbeddedCluster
from core.kafka.feed import Completion, Feed
from core.kafka.monitor import BusMonitor
from core.kafka.order_log import OrderLog
from core.kafka.warmup_start import Warmup
from core.market.partitions import PartitionListener
from core.messages.times import Times
from core.telemetry.metrics import Metrics

log = logging.getLogger("gateway")

# More than any topic has.
ALL_RECORDS: Final = 1 << 62


class Bus:
    """Kafka, as this process reaches it. `start` comes first."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.kafka = settings.kafka
        self.is_embedded = settings.kafka.brokers == EMBEDDED
        self.brokers = settings.kafka.brokers
        self.calls = Calls()
        self.times = Times(on_odd=metrics.odd_time)
        self._ack_timeout_seconds = settings.orders.ack_timeout_seconds
        self._metrics = metrics

    async def start(self) -> None:
        """Start the brokers if they are ours. Kafka itself may be absent: that is told, and asked again and again."""
        kafka = self.kafka
        topics = [topic for topic in (kafka.topic, kafka.order_topic, kafka.account_topic) if topic]
        if self.is_embedded and kafka.control_topic:
            topics.append(kafka.control_topic)  # elsewhere it is asked for once it is known to be there
        if self.is_embedded:
            self._cluster = await self.calls.run(lambda: EmbeddedCluster(topics), START_SECONDS)
            self.brokers = self._cluster.bootstrap
            log.warning("embedded broker on %s: it keeps nothing; all records go with this process", self.brokers)
        self.monitor = BusMonitor(self.brokers, kafka.producer, topics, self.calls, embedded=self.is_embedded)

    def feed(
        self,
        topic: str,
        listener: PartitionListener,
        *,
        broadcast: bool = True,
        tells_unread: bool = False,
        completion: Completion | None = None,
    ) -> Feed:
        """A topic as it is read: every partition, unless it is the market of a group of instances."""
        kafka = self.kafka
        return self._feed(
            topic,
            listener,
            broadcast=broadcast,
            warmup=Warmup(kafka.warmup_seconds, kafka.warmup_records, kafka.warmup_min_records),
            completion=completion,
            tells_unread=tells_unread,
        )

    def compacted_feed(self, topic: str, listener: PartitionListener) -> Feed:
        """A topic that is read whole, with its keys."""
        return self._feed(
            topic,
            listener,
            broadcast=True,
            warmup=Warmup(0, ALL_RECORDS, ALL_RECORDS),
            tells_unread=True,
            with_keys=True,
        )

    def _feed(self, topic: str, listener: PartitionListener, **how: Any) -> Feed:
        return Feed(
            self.brokers,
            topic,
            self.kafka.group_id,
            self.kafka.consumer,
            calls=self.calls,
            ask=partial(self.monitor.ask, with_ids=True),
            listener=listener,
            observer=self,
            times=self.times,
            embedded=self.is_embedded,
            **how,
        )

    def log_of(
        self,
        topic: str,
        *,
        linger_ms: int = 0,
        partition: int | None = None,
        on_ack_seconds: Callable[[float], None] = lambda _: None,
    ) -> OrderLog:
        """The way to a topic; it has to be polled."""
        return OrderLog(
            self.brokers,
            topic,
            self.kafka.producer,
            ack_timeout_seconds=self._ack_timeout_seconds,
            calls=self.calls,
            is_reachable=lambda: self.monitor.connected,
            on_trouble=self.monitor.suspect,
            on_ack_seconds=on_ack_seconds,
            embedded=self.is_embedded,
            linger_ms=linger_ms,
            partition=partition,
        )

    def order_log(self) -> OrderLog:
        """The way of commands to the order topic."""
        log = self.log_of(self.kafka.order_topic, on_ack_seconds=self._metrics.order_ack_seconds.observe)
        self._acknowledgements = AcknowledgementThread(log)
        log.expect = self._acknowledgements.expect
        log.is_awaited = lambda: self._acknowledgements.waits
        return log

    @property
    def is_busy(self) -> bool:
        """Whether so many orders are under way that the beats come often: nobody has to wait for records beside them."""
        return self._acknowledgements.is_busy

    def close(self) -> None:
        """Wait for nothing more; what is under way is left to end by itself."""
        self._acknowledgements.close()
        self.calls.close()

    # As `FeedObserver`.

    def rebalanced(self) -> None:
        """Count it."""
        self._metrics.rebalances.inc()

    def failed(self, error: str) -> None:
        """Count it, and doubt what was known of the topics."""
        self._metrics.kafka_errors.labels(error).inc()
        self.monitor.doubt()

    def suspect(self, trouble: str) -> None:
        """Ask at once whether the brokers are there."""
        self.monitor.suspect(trouble)

    def fault(self, where: str, error: Exception, place: str) -> None:
        """Count it, and tell it."""
        self._metrics.fault(where, error, place)
