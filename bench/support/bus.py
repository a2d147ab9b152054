"""The Kafka of a bench: a real one, started for it, or one that is already there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # not among the names it exports

from tools.kafka.cluster import AS_SHIPPED, KafkaCluster

PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Bus:
    """Where it is, and the process id and the folder of the broker that was started here."""

    bootstrap: str
    pid: int | None = None
    folder: Path | None = None

    def create_topic(self, name: str, partitions: int = PARTITIONS, settings: Mapping[str, str] | None = None) -> str:
        """A new topic; returns its name. Raises KafkaException."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "broker.address.family": "v4", "log_level": 3})
        topic = NewTopic(name, num_partitions=partitions, config=dict(settings or {}))
        try:
            admin.create_topics([topic], request_timeout=10)[name].result(15)
        except KafkaException:
            # librdkafka's mock cluster, for who works on the benches: it makes a topic when it is asked for.
            if admin.list_topics(name, timeout=10).topics[name].error is not None:
                raise
        return name

    def records(self, topic: str) -> int:
        """How many records a topic of ours has. Raises KafkaException."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "broker.address.family": "v4", "group.id": "bench"})
        try:
            return sum(
                consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1]
                for number in consumer.list_topics(topic, timeout=10).topics[topic].partitions
            )
        finally:
            consumer.close()


def producer(bootstrap: str, linger_ms: float = 0) -> Producer:
    """One that is as careful as the gateway's, and that waits for nothing."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "broker.address.family": "v4",
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "log_level": 3,
        }
    )


@contextmanager
def bus(bootstrap: str | None) -> Iterator[Bus]:
    """The given one, or a real Kafka of one broker, in a JVM as Kafka's own scripts start it. Raises KafkaUnavailable."""
    if bootstrap is not None:
        yield Bus(bootstrap)
        return
    with KafkaCluster(1, jvm=AS_SHIPPED) as cluster:
        yield Bus(cluster.bootstrap, cluster.pid(0), cluster.folder)
