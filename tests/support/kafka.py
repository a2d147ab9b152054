"""The bus as tests get it, in two flavours: librdkafka's cluster inside this process, and a real Apache Kafka.

A test takes the fixture `bus` (topics shared by the tests of a module), and runs on a real Kafka where it can be had; or
`each_bus` or `own_bus` (fresh topics for each test), and runs on both. What wants a real one is skipped with the reason
where there is none; with REQUIRE_KAFKA=1 it fails.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tools.kafka.cluster import KafkaCluster
from tools.kafka.jars import KafkaUnavailable
from tools.kafka.running import RunningKafka, quiet_client

FLAVOURS = ("embedded", "real")
# What the gateway checks its order topic for; the embedded cluster has no such settings.
ORDER_TOPIC_CONFIG = {"cleanup.policy": "delete", "retention.ms": str(7 * 24 * 3600 * 1000)}
EMBEDDED_PARTITIONS = 4
DEADLINE_SECONDS = 30.0
# Bytes; the clusters of a whole run have a fraction of it at a time.
MEMORY = 4 << 30


class Record(NamedTuple):
    """One record as it lies on a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, str | bytes | None]] = ()


class Bus:
    """A Kafka with a market topic and an order topic that nobody else uses.

    Attributes:
        flavour: "embedded" or "real".
        bootstrap: for `bootstrap.servers`.
        topic: of market events, empty at first.
        order_topic: of order commands, empty at first.
        cluster: the real cluster; None when embedded. It may be shared with other tests, also at the same time.
    """

    def __init__(self, flavour: str, bootstrap: str, cluster: RunningKafka | None, partitions: int) -> None:
        self.flavour = flavour
        self.bootstrap = bootstrap
        self.cluster = cluster
        self._topics: list[str] = []
        # The embedded cluster answers a fetch with one batch a partition: without lingering each record is one.
        self._producer = Producer(
            {
                **quiet_client(bootstrap),
                "linger.ms": 5 if cluster is None else 0,
                "acks": "all",
                "enable.idempotence": True,
            }
        )
        self._failed: list[str] = []
        self.topic = self.new_topic("market-events", partitions)
        self.order_topic = self.new_topic("order-commands", partitions, ORDER_TOPIC_CONFIG)

    def new_topic(self, name: str, partitions: int = EMBEDDED_PARTITIONS, config: dict[str, str] | None = None) -> str:
        """Makes one more topic, `name` with something unique behind it."""
        topic = f"{name}-{uuid.uuid4().hex[:12]}"
        if self.cluster is not None:
            self.cluster.create_topic(topic, partitions, config)
            self._topics.append(topic)
        else:
            # The embedded cluster cannot be told how many: topics appear with four when they are first asked for.
            assert partitions == EMBEDDED_PARTITIONS, "the embedded cluster's topics have four partitions"
            self._producer.list_topics(topic, timeout=DEADLINE_SECONDS)
        return topic

    def partitions(self, topic: str | None = None) -> list[int]:
        """The topic's partition numbers."""
        topic = topic or self.topic
        return sorted(self._producer.list_topics(topic, timeout=DEADLINE_SECONDS).topics[topic].partitions)

    def produce(
        self, symbol: str | None, value: bytes | None, partition: int | None = None, topic: str | None = None
    ) -> None:
        """Sends one record keyed by `symbol`, to the market topic unless told otherwise; `flush` waits for it."""
        # -1: librdkafka chooses by the key
        self._producer.produce(
            topic or self.topic, value, symbol, -1 if partition is None else partition, on_delivery=self._on_delivery
        )
        self._producer.poll(0)

    def flush(self) -> None:
        """Waits until everything produced is written; AssertionError if something was not."""
        left = self._producer.flush(DEADLINE_SECONDS)
        failed, self._failed = self._failed, []
        assert not failed, f"not written: {failed[:3]}"
        assert left == 0, f"{left} records are not written after {DEADLINE_SECONDS:g} s"

    def read_all(self, topic: str | None = None) -> list[Record]:
        """Every record that is on the topic now, partition by partition in their order."""
        topic = topic or self.topic
        properties = {
            **quiet_client(self.bootstrap),
            "group.id": "read-all",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 5,
        }
        consumer = Consumer(properties)
        try:
            starts = {}
            left = {}
            for partition in self.partitions(topic):
                low, high = self._watermarks(consumer, TopicPartition(topic, partition))
                if high > low:
                    starts[partition] = TopicPartition(topic, partition, low)
                    left[partition] = high
            records: list[Record] = []
            if starts:
                consumer.assign(list(starts.values()))
            while left:
                message = consumer.poll(DEADLINE_SECONDS)
                assert message is not None, f"nothing more of {topic} came within {DEADLINE_SECONDS:g} s"
                self._take(message, records, left)
            return sorted(records, key=lambda record: (record.partition, record.offset))
        finally:
            consumer.close()

    @staticmethod
    def _watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                return consumer.get_watermark_offsets(partition, DEADLINE_SECONDS)
            except KafkaException:
                # A leader that has just been chosen does not know it for some milliseconds.
                if time.monotonic() > deadline:
                    raise
                consumer.list_topics(partition.topic, timeout=DEADLINE_SECONDS)

    @staticmethod
    def _take(message: Message, records: list[Record], left: dict[int, int]) -> None:
        partition, offset = message.partition(), message.offset()
        assert partition is not None and offset is not None
        error = message.error()
        if error is None:
            if partition in left and offset < left[partition]:
                records.append(Record(partition, offset, message.key(), message.value()))
            if offset + 1 >= left.get(partition, 0):
                left.pop(partition, None)
        else:
            # The end of a partition: what is missing below it are transaction markers, or was deleted.
            assert error.code() == KafkaError._PARTITION_EOF, str(error)
            left.pop(partition, None)

    def close(self) -> None:
        """Lets go of the bus; the real cluster's topics are deleted."""
        self._producer.purge()
        self._producer.flush(1)
        if self.cluster is not None:
            self.cluster.drop_topics(self._topics)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}[{message.partition()}]: {error}")


@contextmanager
def embedded_bus() -> Iterator[Bus]:
    """A cluster inside this process, with nothing on it."""
    owner = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": 2})
    nodes = owner.list_topics(timeout=DEADLINE_SECONDS).brokers.values()
    bus = Bus("embedded", ",".join(f"{node.host}:{node.port}" for node in nodes), None, EMBEDDED_PARTITIONS)
    try:
        yield bus
    finally:
        bus.close()
        del owner  # the cluster lives as long as this client


@contextmanager
def real_bus(cluster: RunningKafka, partitions: int = EMBEDDED_PARTITIONS) -> Iterator[Bus]:
    """Topics of one's own on a running Apache Kafka."""
    bus = Bus("real", cluster.bootstrap, cluster, partitions)
    try:
        yield bus
    finally:
        bus.close()


def in_memory() -> Path | None:
    """Where a test's cluster keeps its data: in memory where there is plenty, for a fifth of what its nodes do is for their disk."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MEMORY
    return memory if has_room else None


@contextmanager
def kafka_or_skip(brokers: int = 1) -> Iterator[KafkaCluster]:
    """A real cluster of one's own; where there can be none the test is skipped, or fails if REQUIRE_KAFKA is 1."""
    cluster = KafkaCluster(brokers, within=in_memory())
    with skipped_without_kafka():
        cluster.start()
    try:
        yield cluster
    finally:
        cluster.close()


@contextmanager
def skipped_without_kafka() -> Iterator[None]:
    """A test that cannot have a real Kafka is skipped, or fails if REQUIRE_KAFKA is 1."""
    try:
        yield
    except KafkaUnavailable as error:
        if os.environ.get("REQUIRE_KAFKA") == "1":
            pytest.fail(f"no real Kafka: {error.reason}", pytrace=False)
        pytest.skip(f"no real Kafka: {error.reason}")
