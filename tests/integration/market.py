"""The topics that a gateway is on, as a test writes and reads them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.integration.waiting import DEADLINE_SECONDS
from tests.support.kafka import Bus, Record
from tools.kafka.running import quiet_client


class Market:
    """A market topic and an order topic, written to and read by a test. Can be given to a gateway as its bus."""

    def __init__(self, bootstrap: str, topic: str, order_topic: str, *, embedded: bool) -> None:
        self.bootstrap = bootstrap
        self.topic = topic
        self.order_topic = order_topic
        self.embedded = embedded
        # The embedded cluster hands out one batch a fetch: without lingering each record is one.
        self._producer = Producer(
            {**quiet_client(bootstrap), "linger.ms": 5 if embedded else 0, "acks": "all", "enable.idempotence": True}
        )
        self._consumer: Consumer | None = None
        self._next: dict[int, int] = {}
        self._orders: list[Record] = []
        self.partitions = len(self._producer.list_topics(topic, timeout=DEADLINE_SECONDS).topics[topic].partitions)

    @classmethod
    def create(cls, bus: Bus) -> Market:
        """Fresh topics on a bus."""
        return cls(
            bus.bootstrap,
            bus.new_topic("market-events"),
            bus.new_topic("order-commands"),
            embedded=bus.flavour == "embedded",
        )

    def publish(self, symbol: str, *records: bytes, timestamp_ms: int = 0) -> list[tuple[int, int]]:
        """Write market events keyed by their symbol; (partition, offset) of each, once the bus has them all."""
        return self._write([(symbol, record, -1) for record in records], timestamp_ms)

    def publish_all(self, records: Iterable[tuple[str, bytes]]) -> list[tuple[int, int]]:
        """The same for records of several symbols."""
        return self._write([(symbol, record, -1) for symbol, record in records], 0)

    def publish_to(self, *records: tuple[int, bytes | None], timestamp_ms: int = 0) -> list[int]:
        """Write records without a key to the partition given with each; their offsets."""
        keyless = [(None, record, partition) for partition, record in records]
        return [offset for _, offset in self._write(keyless, timestamp_ms)]

    def publish_aborted(self, symbol: str, *records: bytes, timestamp_ms: int = 0) -> None:
        """Write market events in a transaction that is then aborted: their offsets hold nothing."""
        producer = Producer({**quiet_client(self.bootstrap), "transactional.id": f"aborted-{symbol}"})
        producer.init_transactions(DEADLINE_SECONDS)
        producer.begin_transaction()
        for record in records:
            producer.produce(self.topic, record, symbol, timestamp=timestamp_ms)
        left = producer.flush(DEADLINE_SECONDS)
        assert not left, f"{left} left"
        producer.abort_transaction(DEADLINE_SECONDS)

    def publish_orders(self, symbol: str, *records: bytes, timestamp_ms: int = 0) -> list[tuple[int, int]]:
        """Write order commands keyed by their symbol, as another gateway does."""
        return self._write([(symbol, record, -1) for record in records], timestamp_ms, self.order_topic)

    def publish_orders_in_transaction(self, symbol: str, *records: bytes) -> None:
        """Write order commands as a program that uses transactions does: a marker, which is no record, follows them."""
        producer = Producer({**quiet_client(self.bootstrap), "transactional.id": symbol})
        producer.init_transactions(DEADLINE_SECONDS)
        producer.begin_transaction()
        for record in records:
            producer.produce(self.order_topic, record, symbol)
        producer.commit_transaction(DEADLINE_SECONDS)

    def _write(
        self, records: list[tuple[str | None, bytes | None, int]], timestamp_ms: int, topic: str | None = None
    ) -> list[tuple[int, int]]:
        places: list[tuple[int, int]] = []
        errors: list[KafkaError] = []

        def on_delivery(number: int, error: KafkaError | None, message: Message) -> None:
            if error is not None:
                errors.append(error)
            partition, offset = message.partition(), message.offset()
            places[number] = (-1 if partition is None else partition, -1 if offset is None else offset)

        for number, (key, value, partition) in enumerate(records):
            places.append((-1, -1))
            self._producer.produce(
                topic or self.topic, value, key, partition, partial(on_delivery, number), timestamp=timestamp_ms
            )
            if number % 1000 == 999:
                self._producer.poll(0)
        left = self._producer.flush(DEADLINE_SECONDS)
        assert not errors and not left, f"not written: {errors[:1]}, {left} left"
        return places

    def orders(self) -> list[Record]:
        """Every record that is on the order topic now; of one partition in its order."""
        if self._consumer is None:
            self._consumer = Consumer(
                {
                    **quiet_client(self.bootstrap),
                    "group.id": "reader",
                    "enable.auto.commit": False,
                    # A real broker answers at once when there is something, and the embedded one when this is over.
                    "fetch.wait.max.ms": 5 if self.embedded else 100,
                    "auto.offset.reset": "error",
                }
            )
            metadata = self._consumer.list_topics(self.order_topic, timeout=DEADLINE_SECONDS)
            self._next = dict.fromkeys(metadata.topics[self.order_topic].partitions, 0)
            self._consumer.assign([TopicPartition(self.order_topic, number, 0) for number in self._next])
        ends = {number: self._end(self._consumer, number) for number in self._next}
        deadline = time.monotonic() + DEADLINE_SECONDS
        while any(self._next[number] < end for number, end in ends.items()):
            assert time.monotonic() < deadline, f"read up to {self._next} of {ends}"
            for message in self._consumer.consume(1000, 0.1):
                partition, offset = message.partition(), message.offset()
                if message.error() is None and partition is not None and offset is not None:
                    self._next[partition] = offset + 1
                    self._orders.append(
                        Record(partition, offset, message.key(), message.value(), message.headers() or ())
                    )
        return self._orders

    def _end(self, consumer: Consumer, number: int) -> int:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                return consumer.get_watermark_offsets(TopicPartition(self.order_topic, number), DEADLINE_SECONDS)[1]
            except KafkaException:
                # A broker that was frozen or dead a moment ago may not lead its partitions yet.
                if time.monotonic() > deadline:
                    raise
                # And the client has to ask who does: by itself it looks every few minutes.
                with contextlib.suppress(KafkaException):
                    consumer.list_topics(self.order_topic, 1.0)

    def orders_of(self, symbol: str) -> list[Record]:
        """The order commands with this key."""
        return [record for record in self.orders() if record.key == symbol.encode()]

    def commands_of(self, symbol: str) -> list[dict[str, Any]]:
        """Their values."""
        return [json.loads(record.value or b"") for record in self.orders_of(symbol)]

    def reopened(self) -> Market:
        """The same topics through new clients: a producer does not follow a topic that was made again."""
        return Market(self.bootstrap, self.topic, self.order_topic, embedded=self.embedded)

    def close(self) -> None:
        """Let go of the bus."""
        if self._consumer is not None:
            self._consumer.close()
