"""Where the partitions of a topic begin and end, and which offset a time has, as the cluster tells it.

It is asked by a client that reads nothing: confluent-kafka (2.16) lets nobody else use a client that waits for an answer, so that
the one that reads would be kept from it, on the loop, as long as a fetch before the question in the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from threading import Lock
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

from core.kafka.clients import Calls

LOOKUP_SECONDS = 5.0
ENDS_SECONDS = 1.0
REPORTS_SECONDS = 1.0
REPORTS = 500


class TopicOffsets:
    """Of one topic. What blocks is for the threads of `Calls`; the client is made when something is asked first."""

    def __init__(self, topic: str, properties: Mapping[str, Any], calls: Calls, monotonic: Callable[[], float]) -> None:
        self._topic = topic
        self._properties = dict(properties)
        self._calls = calls
        self._monotonic = monotonic
        self._client: Consumer | None = None
        self._lock = Lock()
        self._emptying: asyncio.Task[None] | None = None
        self._empty_at = 0.0
        self._closed = False

    def bounds(self, count: int) -> dict[int, tuple[int, int]]:
        """Blocking: of so many partitions, the first offset that is there and the end. Raises `KafkaException`."""
        first, end = (self._look_up(range(count), special, ENDS_SECONDS) for special in (OFFSET_BEGINNING, OFFSET_END))
        return {number: (first[number], end[number]) for number in first}

    def ends(self, numbers: Iterable[int]) -> dict[int, int]:
        """Blocking: where a reader of committed records would end now: before a transaction that is still open.

        Raises `KafkaException`.
        """
        return self._look_up(numbers, OFFSET_END, ENDS_SECONDS)

    def watermarks(self, number: int) -> tuple[int, int]:
        """Blocking: the first offset of a partition that is there and its end. Raises `KafkaException`."""
        partition = TopicPartition(self._topic, number)
        return self._asked().get_watermark_offsets(partition, timeout=LOOKUP_SECONDS, cached=False)

    def at(self, numbers: Iterable[int], moment_ms: int) -> dict[int, int]:
        """Blocking: the first record that is not older (Unix epoch); -1 where there is none. Raises `KafkaException`."""
        found = self._look_up(numbers, moment_ms, LOOKUP_SECONDS)
        return {number: -1 if offset == OFFSET_END else offset for number, offset in found.items()}

    def _look_up(self, numbers: Iterable[int], moment: int, timeout_seconds: float) -> dict[int, int]:
        # One request a broker for all partitions: 0.2 ms and 130 us of CPU, where watermarks are two a partition (1 ms, 400
        # us).
        asked = [TopicPartition(self._topic, number, moment) for number in numbers]
        found = self._asked().offsets_for_times(asked, timeout=timeout_seconds)
        for partition in found:
            if partition.error is not None:
                raise KafkaException(partition.error)
        return {partition.partition: partition.offset for partition in found}

    def _asked(self) -> Consumer:
        with self._lock:
            if self._client is None:
                self._client = Consumer(self._properties)
            return self._client

    def throw_reports_away(self) -> None:
        """On the loop, when the client that reads tells of an error: take from this one what it has to tell, which is the same.

        Else all of it is kept for ever. Measured: with the brokers gone some megabytes a minute.
        """
        now = self._monotonic()
        is_done = self._emptying is None or self._emptying.done()
        if self._client is not None and is_done and now >= self._empty_at and not self._closed:
            self._empty_at = now + REPORTS_SECONDS
            self._emptying = asyncio.get_running_loop().create_task(self._throw_away(self._client))

    async def _throw_away(self, client: Consumer) -> None:
        try:
            await self._calls.run(partial(client.consume, REPORTS, timeout=0), REPORTS_SECONDS)
        except (KafkaException, TimeoutError):
            pass  # a question is under way: next time

    def stop(self) -> None:
        """On the loop, before `close`: begin nothing more."""
        self._closed = True
        if self._emptying is not None:
            self._emptying.cancel()

    def close(self) -> None:
        """Blocking: let the client go."""
        if self._client is not None:
            self._client.close()
