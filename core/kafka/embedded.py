"""A Kafka cluster inside the process (librdkafka's mock cluster), for the demo and for tests.

It keeps nothing: its records live in memory, at most 5 MiB a partition, and go with the process. Topics appear with
four partitions when they are first asked for; offsets cannot be looked up by time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from confluent_kafka import Producer

log = logging.getLogger("gateway.kafka")

# It takes milliseconds; on a machine that stands still for a while, as long as that.
START_SECONDS: Final = 30.0


class EmbeddedCluster:
    """A running mock cluster; it listens on a loopback port of its own for as long as this object is kept."""

    def __init__(self, topics: Sequence[str]) -> None:
        """Start it and make `topics`. Blocks for some milliseconds. Raises `KafkaException`."""
        self._owner = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": 2})
        metadata = self._owner.list_topics(timeout=START_SECONDS)
        for topic in topics:
            self._owner.list_topics(topic, timeout=START_SECONDS)
        self.bootstrap = ",".join(f"{node.host}:{node.port}" for node in metadata.brokers.values())
