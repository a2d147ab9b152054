"""Stand-ins for confluent-kafka's clients: each does what a test says, when it says so, on the thread that asks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_CREATE_TIME,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from core.messages.feed_record import Headers

T = TypeVar("T")

CODES = {name: code for name in dir(KafkaError) if isinstance(code := getattr(KafkaError, name), int)}


class InlineCalls:
    """`Calls` without threads. While `gate` is closed, calls wait; each is made when its turn comes."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.timeouts: list[float] = []
        self.raises: deque[Exception] = deque()

    async def run(self, call: Callable[[], T], timeout_seconds: float) -> T:
        self.timeouts.append(timeout_seconds)
        await self.gate.wait()
        if self.raises:
            raise self.raises.popleft()
        return call()


class FakeProducer:
    """Takes records, and reports on them in `poll` as a test has told it to."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self.properties = properties
        self.produced: list[tuple[str, bytes, bytes]] = []
        self.headers: list[Headers | None] = []
        self.reports: list[Callable[[KafkaError | None, object], None] | None] = []
        self.refuses: Exception | None = None
        self.purges = 0
        self.flushes: list[float] = []
        self.flush_raises: Exception | None = None
        self._due: deque[Callable[[], object]] = deque()

    def produce(
        self,
        topic: str,
        value: bytes,
        key: bytes,
        *,
        on_delivery: Callable[[KafkaError | None, object], None],
        headers: Headers | None = None,
        partition: int | None = None,
    ) -> None:
        self.partition = partition
        if self.refuses is not None:
            raise self.refuses
        self.produced.append((topic, value, key))
        self.headers.append(headers)
        self.reports.append(on_delivery)

    def report(self, number: int, error: KafkaError | None = None, offset: int = 0, partition: int = 0) -> None:
        """At the next poll, tell the fate of the record of this number."""
        on_delivery, self.reports[number] = self.reports[number], None
        assert on_delivery is not None
        self._due.append(lambda: on_delivery(error, FakeMessage(offset, partition)))

    def tell_error(self, error: KafkaError) -> None:
        self._due.append(lambda: self.properties["error_cb"](error))

    def tell_statistics(self, text: str) -> None:
        self._due.append(lambda: self.properties["stats_cb"](text))

    def fail_for_good(self) -> None:
        """At the next poll raise, once, as after a fatal error."""

        def fail() -> None:
            raise KafkaException(KafkaError(KafkaError._FENCED, "fenced by another", fatal=True))

        self._due.append(fail)

    def poll(self, timeout: float) -> int:
        assert timeout == 0, "the loop is never blocked"
        done = 0
        while self._due:
            action = self._due.popleft()
            try:
                action()
            except KafkaException:
                raise
            except Exception as error:
                raise SystemError("a callback raised") from error
            done += 1
        return done

    def purge(self) -> None:
        self.purges += 1
        for number, waits in enumerate(self.reports):
            if waits is not None:
                self.report(number, KafkaError(KafkaError._PURGE_QUEUE))

    def flush(self, timeout: float) -> int:
        self.flushes.append(timeout)
        if self.flush_raises is not None:
            raise self.flush_raises
        self.poll(0)
        return len(self)

    def __len__(self) -> int:
        return sum(waits is not None for waits in self.reports)


@dataclass
class FakeMessage:
    """One record, or with `failed` an error of its partition."""

    at: int | None
    of: int | None = 0
    data: bytes | None = b"value"
    failed: KafkaError | None = None
    time_ms: int = 1_600_000_000_000
    name: bytes | None = None
    whose_time: int = TIMESTAMP_CREATE_TIME

    def key(self) -> bytes | None:
        return self.name

    def partition(self) -> int | None:
        return self.of

    def offset(self) -> int | None:
        return self.at

    def value(self) -> bytes | None:
        return self.data

    def error(self) -> KafkaError | None:
        return self.failed

    def timestamp(self) -> tuple[int, int]:
        return self.whose_time, self.time_ms


def end_of(partition: int, offset: int | None) -> FakeMessage:
    return FakeMessage(offset, partition, None, KafkaError(KafkaError._PARTITION_EOF))


class FakeConsumer:
    """A topic's offsets as a test has set them, and the messages that it hands over."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self.properties = properties
        self.lows: dict[int, int] = {}
        self.highs: dict[int, int] = {}
        self.cached_highs: dict[int, int] = {}
        self.by_time: Callable[[int, int], int] = lambda _partition, _moment_ms: -1
        self.time_errors: deque[KafkaError] = deque()
        self.asked_moments: list[dict[int, int]] = []
        self.assigned: list[dict[int, int]] = []
        self.unassigned = 0
        self.subscribed: list[list[str]] = []
        self.rebalance: dict[str, Callable[[Any, list[TopicPartition]], None]] = {}
        self.waiting: deque[FakeMessage | Callable[[], None]] = deque()
        self.closed = 0

    def subscribe(self, topics: list[str], **callbacks: Callable[[Any, list[TopicPartition]], None]) -> None:
        self.subscribed.append(topics)
        self.rebalance = callbacks

    def tell(self, callback: str, *partitions: int) -> None:
        """A rebalance, as the client tells of it out of `consume`."""
        self.rebalance[callback](self, [TopicPartition("market-events", number) for number in partitions])

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned.append({partition.partition: partition.offset for partition in partitions})

    def unassign(self) -> None:
        self.unassigned += 1

    def consume(self, count: int, timeout: float) -> list[FakeMessage]:
        assert timeout == 0, "the loop is never blocked"
        messages: list[FakeMessage] = []
        while self.waiting and len(messages) < count:
            next_one = self.waiting.popleft()
            if isinstance(next_one, FakeMessage):
                messages.append(next_one)
            else:
                next_one()
        return messages

    def poll(self, timeout: float) -> FakeMessage | None:
        """As whoever reads nothing asks: what waits is done, one of them after the other, until one is a message."""
        return next(iter(self.consume(1, timeout)), None)

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float | None = None, cached: bool = False
    ) -> tuple[int, int]:
        assert partition.topic == "market-events"
        if cached:
            if partition.partition not in self.cached_highs:
                raise KafkaException(KafkaError(KafkaError._STATE))
            return 0, self.cached_highs[partition.partition]
        assert timeout is not None
        return self.lows.get(partition.partition, 0), self.highs[partition.partition]

    def offsets_for_times(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        asks_ends = all(partition.offset == OFFSET_END for partition in partitions)
        if not asks_ends:
            self.asked_moments.append({partition.partition: partition.offset for partition in partitions})
        found = []
        for partition in partitions:
            number = partition.partition
            answer = _Found(number, self.highs[number] if asks_ends else self.by_time(number, partition.offset))
            if self.time_errors:
                answer.error, answer.offset = self.time_errors.popleft(), OFFSET_INVALID
            found.append(answer)
        return found  # type: ignore[return-value]

    def close(self) -> None:
        self.closed += 1


class _Found:
    """A `TopicPartition` of an answer; the real one's `error` cannot be set from Python."""

    def __init__(self, partition: int, offset: int) -> None:
        self.partition = partition
        self.offset = offset
        self.error: KafkaError | None = None
