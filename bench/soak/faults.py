"""What was wrong in a soak: each fault one line."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from bench.support.bus import Bus
from bench.support.processes import BenchError

REPLACED_A_SECOND = 5
READ_SECONDS = 150.0
PUBLIC = {"fill", "orderbook_snapshot", "orderbook_delta"}
MOST_PROBLEMS = 20


class Problems(list[str]):
    """The first ones that a part saw, for the bench."""

    def add(self, what: str) -> None:
        """One more, in short."""
        if len(self) < MOST_PROBLEMS:
            self.append(what[:400])


def of_clients(told: dict[str, Any], clients: int, minutes: float) -> list[str]:
    """Whether `clients` were there till the end, and all others ended as they should."""
    expected = {"stuck closed 4008"}
    # Who still does not read when the closing handshake has had its time finds the connection reset.
    allowed = expected | {"stuck Connection reset by peer"}
    faults = [
        f"{count} times: {how}"
        for how, count in told["ended"].items()
        if not how.endswith(" left") and how not in allowed
    ]
    if told["refused"]:
        faults.append(f"connections were refused: {told['refused']}")
    if told["open"] < clients - REPLACED_A_SECOND:
        faults.append(f"only {told['open']} of {clients} clients were there at the end")
    if minutes >= 5:
        faults += [f"never: {how}" for how in expected - told["ended"].keys()]
        if not told["caught_up"]:
            faults.append("the slow reader was never conflated")
    return faults


def of_offsets(kafka: Bus, topic: str, offsets: dict[str, tuple[int, int, int, str]]) -> list[str]:
    """Whether what the checked client got is what the topic has, offset by offset."""
    faults = []
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "broker.address.family": "v4",
            "group.id": "soak",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    try:
        for partition, (first, last, count, told) in offsets.items():
            consumer.assign([TopicPartition(topic, int(partition), first)])
            digest, there, at = hashlib.sha256(), 0, first - 1
            deadline = time.monotonic() + READ_SECONDS
            while at < last and time.monotonic() < deadline:
                for message in consumer.consume(1000, 0.5):
                    offset, value = message.offset(), message.value()
                    if message.error() is not None or offset is None or value is None:
                        raise BenchError(f"the topic cannot be read again: {message.error()}")
                    at = offset
                    if at <= last and json.loads(value)["type"] in PUBLIC:
                        there += 1
                        digest.update(b"%d," % at)
            if (there, digest.hexdigest()) != (count, told):
                faults.append(f"partition {partition}: of {there} events from {first} to {last} the client has {count}")
    finally:
        consumer.close()
    return faults if offsets else ["nothing came"]
