"""Peer: what one writes first, from Kafka: a loop that polls, and `write_message` to each client. Runs where the gateway runs.

`COUNTER TEMPLATE BOOTSTRAP TOPIC`
"""

from __future__ import annotations

import asyncio
import signal
import sys

from confluent_kafka import Consumer, TopicPartition

from bench.peers.ticks import LIFETIME_SECONDS, raise_file_limit, tell
from bench.peers.tornado_naive import listen, publish


async def main() -> None:
    signal.alarm(LIFETIME_SECONDS)
    raise_file_limit()
    bootstrap, topic = sys.argv[3:]
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "broker.address.family": "v4", "group.id": "naive", "log_level": 3}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ends = []
    for number in partitions:
        _low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
        ends.append(TopicPartition(topic, number, high))
    consumer.assign(ends)
    tell({"port": listen()})
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: sys.stdin.readline() or sys.exit())
    while True:
        message = consumer.poll(0)
        if message is None:
            await asyncio.sleep(0.001)
        elif message.error() is None:
            publish([message.value() or b""])
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main())
