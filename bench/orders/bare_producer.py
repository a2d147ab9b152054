"""Part, the peer of one order at a time: a bare producer that waits for each acknowledgement. `BOOTSTRAP TOPIC SECONDS PAUSE`

PAUSE seconds lie between an acknowledgement and the next record, as they do where a client takes its answer in between: a broker
that was left alone for a moment has to wake up first.
"""

from __future__ import annotations

import sys
import time

from confluent_kafka import KafkaError, Message

from bench.support import bus
from bench.support.processes import await_go, tell

COMMAND = b'{"type":"place_order","order_id":"%036d","symbol":"KCN/EUR","price":"99.50","quantity":"0.125"}'


def main() -> None:
    """One record after the other for SECONDS, with acks=all and idempotence."""
    bootstrap, topic, seconds, pause = sys.argv[1:]
    producer = bus.producer(bootstrap)
    # The first one waits for a producer id.
    producer.produce(topic, COMMAND % 0, "KCN/EUR")
    if producer.flush(30):
        sys.exit("bare producer: Kafka acknowledged nothing")
    await_go()
    deadline = time.monotonic() + float(seconds)
    latencies_ms: list[float] = []
    unwritten: list[str] = []

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            unwritten.append(error.str())

    while time.monotonic() < deadline:
        started = time.monotonic_ns()
        producer.produce(topic, COMMAND % len(latencies_ms), "KCN/EUR", on_delivery=on_delivery)
        while len(producer):
            producer.poll(5)
        latencies_ms.append((time.monotonic_ns() - started) / 1e6)
        if float(pause):
            time.sleep(float(pause))  # pacing: as long as a client takes between two orders
    if unwritten:
        sys.exit(f"bare producer: {len(unwritten)} records not acknowledged: {unwritten[0]}")
    tell({"latencies_ms": latencies_ms})


if __name__ == "__main__":
    main()
