"""Part, the peer of the stream: a bare confluent-kafka `poll()` loop. `BOOTSTRAP TOPIC RUN COUNT SECONDS`"""

from __future__ import annotations

import sys
import time

from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from bench.support.processes import await_go, tell
from bench.support.records import latencies_ms, marker


def main() -> None:
    """Read until COUNT events of the run have come, or for SECONDS."""
    bootstrap, topic, run, count, seconds = sys.argv[1:]
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "broker.address.family": "v4",
            "group.id": f"bench-{run}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_END) for number in partitions])
    # Each partition tells its end once it is being read: from then on nothing is missed.
    started = dict.fromkeys(partitions, False)
    while not all(started.values()):
        message = consumer.poll(10)
        if message is None:
            sys.exit("poll loop: Kafka serves no records")
        number = message.partition()
        assert number is not None
        started[number] = True
    of_run = marker(run)
    wanted = int(count)
    received: list[tuple[int, bytes]] = []
    await_go()
    deadline = time.monotonic() + float(seconds)
    while len(received) < wanted and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        now = time.monotonic_ns()
        if message is not None and message.error() is None:
            value = message.value() or b""
            if of_run in value:
                received.append((now, value))
    tell(latencies_ms(received))
    consumer.close()


if __name__ == "__main__":
    main()
