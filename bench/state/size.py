"""How large a state topic is on the broker's disk once it was compacted, beside its live keys alone written the same way."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not among the names it exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from bench.state.rows import rows_of
from bench.support.bus import Bus
from bench.support.figures import Absent, Row
from bench.support.processes import BenchError
from core.kafka.state_topic import SETTINGS

READ_SECONDS = 120.0
# The broker looks for what is to be compacted every 15 s.
COMPACTED_SECONDS = 90.0
STEADY_SECONDS = 20.0
# What would take ten minutes: a segment is closed when it is so old and something is appended.
SOON = {"segment.ms": "1000", "min.cleanable.dirty.ratio": "0.01"}


def sizes(bus: Bus, topic: str) -> list[Row | Absent]:
    """Its size as it was written, and compacted at once, and of the live keys. Nobody must write it any more."""
    if bus.folder is None:
        return [
            Absent("state, size", "compacted to live", "of a Kafka that was not started here nobody knows the folder")
        ]
    live, read = _live(bus, topic)
    alone = bus.create_topic(f"{topic}-live-{secrets.token_hex(4)}", len(live), SETTINGS)
    _write(bus, alone, live)
    before, needed = _on_disk(bus.folder, topic), _on_disk(bus.folder, alone)
    compacted = _compacted(bus, bus.folder, topic, len(live))
    count = sum(len(records) for records in live.values())
    figures = {
        "live keys|": [float(count)],
        "records written|": [float(read)],
        "live keys, uncompressed|MB": [
            sum(len(key) + len(value) for records in live.values() for key, value in records.items()) / 1e6
        ],
        "live keys, on disk|MB": [needed / 1e6],
        "topic, as written|MB": [before / 1e6],
        "topic, compacted|MB": [compacted / 1e6],
        "compacted to live|": [compacted / needed],
    }
    return [*rows_of("state, size", figures, {"compacted to live": 1.5})]


def _live(bus: Bus, topic: str) -> tuple[dict[int, dict[bytes, bytes]], int]:
    """By partition the last value of each key that has one, and how many records were read."""
    consumer = Consumer(
        {
            "bootstrap.servers": bus.bootstrap,
            "broker.address.family": "v4",
            "group.id": "bench",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    try:
        numbers = sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        live: dict[int, dict[bytes, bytes]] = {number: {} for number in numbers}
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        unread, records, deadline = set(numbers), 0, time.monotonic() + READ_SECONDS
        while unread:
            if time.monotonic() > deadline:
                raise BenchError(f"{topic} could not be read in time")
            for message in consumer.consume(500, timeout=1):
                error, number = message.error(), message.partition()
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(number)
                    continue
                if error is not None:
                    raise KafkaException(error)
                records += 1
                key, value = message.key(), message.value()
                assert number is not None and key is not None
                live[number].pop(key, None)
                if value is not None:
                    live[number][key] = value
        return live, records
    finally:
        consumer.close()


def _write(bus: Bus, topic: str, live: dict[int, dict[bytes, bytes]]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bus.bootstrap,
            "broker.address.family": "v4",
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.max.bytes": int(SETTINGS["max.message.bytes"]),
        }
    )
    for number, records in live.items():
        for key, value in records.items():
            while True:
                try:
                    producer.produce(topic, value, key, number)
                    break
                except BufferError:
                    producer.poll(0.1)
    if producer.flush(60):
        raise BenchError("Kafka did not acknowledge what is live")


def _on_disk(folder: Path, topic: str) -> int:
    """Bytes of all its segments."""
    size = 0
    for log in folder.glob(f"**/{topic}-[0-9]*/*.log"):
        if log.parent.name.rpartition("-")[0] == topic:
            size += log.stat().st_size
    return size


def _compacted(bus: Bus, folder: Path, topic: str, partitions: int) -> int:
    """Its size when it is no longer shrinking, after its segments were closed."""
    admin = AdminClient({"bootstrap.servers": bus.bootstrap, "broker.address.family": "v4"})
    changes = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in SOON.items()]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=changes)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(15)
    time.sleep(2.0)  # until the segments are as old as that
    # Something of no meaning has to be appended, for the segment to be closed: the live key of nobody.
    _write(bus, topic, {number: {b"bench": b""} for number in range(partitions)})
    size, steady_since, deadline = _on_disk(folder, topic), time.monotonic(), time.monotonic() + COMPACTED_SECONDS
    while time.monotonic() < deadline:
        time.sleep(1.0)  # between looks
        now = _on_disk(folder, topic)
        if now != size:
            size, steady_since = now, time.monotonic()
        elif time.monotonic() - steady_since > STEADY_SECONDS and time.monotonic() > deadline - COMPACTED_SECONDS / 2:
            break
    return size
