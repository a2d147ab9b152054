"""What is read of the state topic of a real Kafka without taking all of it back."""

from __future__ import annotations

import asyncio
import uuid

from confluent_kafka import Producer

from core.kafka.clients import Calls
from core.kafka.state_reader import StateReader
from tools.kafka.running import RunningKafka, quiet_client


def test_what_is_kept_under_keys_of_one_kind_is_read_as_it_was_written_last(real_kafka: RunningKafka) -> None:
    topic = f"gateway-state-{uuid.uuid4().hex[:12]}"
    real_kafka.create_topic(topic, 2)
    try:
        producer = Producer(quiet_client(real_kafka.bootstrap))
        for partition, key, value in (
            (0, "release/a", b"1"),
            (0, "order/a", b"2"),
            (0, "release/b", b"3"),
            (1, "release/c", b"4"),
            (0, "release/a", b"5"),
            (0, "release/b", None),
            (0, "cursor", b"{}"),
        ):
            producer.produce(topic, value, key, partition)
        assert producer.flush(30) == 0
        calls = Calls()
        reader = StateReader(real_kafka.bootstrap, {}, topic, calls)
        assert asyncio.run(reader.values(0, "release")) == {"release/a": b"5"}
        calls.close()
    finally:
        real_kafka.delete_topic(topic)
