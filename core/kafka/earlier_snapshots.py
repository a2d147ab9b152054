"""Books whose snapshots stand before what the warm-up has read: found further back, and folded anew from there.

Of a symbol whose deltas were read without a snapshot before them the last snapshot is looked for, twice as far back each time. What
has one is then forgotten and folded once more, from the earliest of those snapshots on up to where its partition has been read,
which waits meanwhile and is not served yet: nobody sees a book that is not whole. Other symbols, and whoever follows orders, are
told nothing twice. A symbol that has none within the bounds is not known before the engine's next one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from core.errors import PoisonedRecord
from core.kafka.clients import Calls, Property, common_properties
from core.log_throttle import QuietLog
from core.market.market import Market
from core.messages.events import BookSnapshot, read_event
from core.messages.times import Times

log = logging.getLogger("gateway.kafka")

# Partitions at a time.
SEARCHES = 2
BATCH = 500
# Of one partition's search; what has been found by then is used.
SECONDS = 60.0
# Without a record: the bus does not answer.
STALLED_SECONDS = 10.0
RETRY_SECONDS = 1.0
NAMES = 5

T = TypeVar("T")


class EarlierSnapshots:
    """As `core.kafka.feed.Completion`, of the market topic."""

    def __init__(
        self,
        brokers: str,
        topic: str,
        extra: Mapping[str, Property],
        market: Market,
        *,
        warmup_records: int,
        warmup_min_records: int,
        times: Times,
        calls: Calls | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """No snapshot is looked for more than `warmup_records` behind the end of a partition."""
        self._topic = topic
        self._market = market
        self._warmup_records = warmup_records
        self._warmup_min_records = warmup_min_records
        self._times = times
        self._calls = calls or Calls(SEARCHES)
        self._monotonic = monotonic
        self._turn = asyncio.Semaphore(SEARCHES)
        self._quiet_log = QuietLog(log)
        self._properties: dict[str, Any] = {
            **common_properties(brokers, extra),
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }

    def lacks(self, partition: int) -> bool:
        """Whether there are symbols whose deltas were read without a snapshot."""
        return bool(self._market.without_snapshot(partition))

    async def complete(self, partition: int, end: int) -> None:
        """Search, and fold anew; while the bus fails again and again. Raises nothing of Kafka's."""
        symbols = self._market.without_snapshot(partition)
        begun_at = self._market.partitions.begun_at(partition)
        async with self._turn:
            while True:
                past = _Past(self._properties, self._topic, partition, self._monotonic)
                try:
                    found = await self._search(past, symbols, begun_at, end)
                    await self._fold_again(past, found, end)
                    break
                except (KafkaException, TimeoutError) as error:
                    self._quiet_log.warning("search", "looking for snapshots further back failed: %s", error)
                except Exception:
                    # Folded in part they would be wrong; so they are not known.
                    self._market.begin_again(partition, symbols, end)
                    raise
                finally:
                    past.is_given_up = True
                    with suppress(KafkaException, TimeoutError, RuntimeError):
                        await self._calls.run(past.close, STALLED_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)
        self._report(partition, symbols, found)

    async def _search(self, past: _Past, symbols: Collection[str], begun_at: int, end: int) -> dict[str, int]:
        # Begun further back than anything is searched for: an answer without a question.
        first = end - self._warmup_records
        if begun_at <= first:
            return {}
        search = partial(past.find, set(symbols), first, begun_at, end, self._warmup_min_records)
        return await self._call(search, SECONDS + STALLED_SECONDS)

    async def _fold_again(self, past: _Past, found: Mapping[str, int], end: int) -> None:
        if not found:
            return
        first = min(found.values())
        self._market.begin_again(past.partition, found, first)
        records = past.read(first, end)
        while True:
            batch = await self._call(partial(past.next_of, records), STALLED_SECONDS)
            if batch is None:
                return
            for message in batch:
                self._fold(past.partition, found, message)

    async def _call(self, call: Callable[[], T], seconds: float) -> T:
        task = asyncio.current_task()
        try:
            return await self._calls.run(call, seconds)
        finally:
            # A task that is cancelled may yet see the end of what it waited for; the partition is lost by then.
            if task is not None and task.cancelling():
                raise asyncio.CancelledError

    def _fold(self, partition: int, symbols: Collection[str], message: Message) -> None:
        offset = message.offset()
        assert offset is not None
        time_ms = self._times.of_record(message.timestamp()[1])
        self._market.fold_again(partition, symbols, offset, message.value(), time_ms)

    def _report(self, partition: int, symbols: Collection[str], found: Mapping[str, int]) -> None:
        if found:
            log.info(
                "%s partition %d: snapshots of %d symbols were found further back, from offset %d",
                self._topic, partition, len(found), min(found.values()),
            )  # fmt: skip
        unknown = [symbol for symbol in symbols if symbol not in found]
        if unknown:
            log.warning(
                "%s partition %d: no snapshot of %d symbols among the last %d records: %s; not known before the next one",
                self._topic, partition, len(unknown), self._warmup_records,
                ", ".join(unknown[:NAMES]) + (", ..." if len(unknown) > NAMES else ""),
            )  # fmt: skip

    def close(self) -> None:
        """Begin nothing more."""
        self._calls.close()


class _Past:
    """What stands on one partition before some offset, read by a client of its own. All of it is blocking.

    A call that is no longer waited for ends soon after `is_given_up` is set, and the next one waits for that.
    """

    def __init__(self, properties: dict[str, Any], topic: str, partition: int, monotonic: Callable[[], float]) -> None:
        self.partition = partition
        self.is_given_up = False
        self._properties = properties
        self._topic = topic
        self._monotonic = monotonic
        self._consumer: Consumer | None = None
        self._lock = Lock()

    def find(self, symbols: set[str], first: int, begun_at: int, end: int, least: int) -> dict[str, int]:
        """The offset of the last readable snapshot of each symbol in [first, begun_at), of those that have one.

        Raises `KafkaException`, and `TimeoutError` where nothing comes.
        """
        with self._lock:
            return self._find(symbols, first, begun_at, end, least)

    def next_of(self, records: Iterator[list[Message]]) -> list[Message] | None:
        """The next batch of what `read` returned; None at its end. Raises as that does."""
        with self._lock:
            return next(records, None)

    def _find(self, symbols: set[str], first: int, begun_at: int, end: int, least: int) -> dict[str, int]:
        deadline = self._monotonic() + SECONDS
        at = TopicPartition(self._topic, self.partition)
        first = max(first, self._client().get_watermark_offsets(at, timeout=STALLED_SECONDS, cached=False)[0])
        found: dict[str, int] = {}
        distance = max(end - begun_at, least, 1)
        until = begun_at
        while until > first and len(found) < len(symbols) and self._monotonic() < deadline:
            distance *= 2
            since = max(first, min(end - distance, until - 1))
            found |= self._last_snapshots(since, until, symbols - found.keys())
            until = since
        return found

    def _last_snapshots(self, since: int, until: int, symbols: set[str]) -> dict[str, int]:
        last = {}
        for batch in self.read(since, until):
            for message in batch:
                value, offset = message.value(), message.offset()
                if value is None or offset is None or not (b"orderbook_snapshot" in value or b"\\" in value):
                    continue
                try:
                    event = read_event(value)
                except PoisonedRecord:
                    continue
                if isinstance(event, BookSnapshot) and event.symbol in symbols:
                    last[event.symbol] = offset
        return last

    def read(self, since: int, until: int) -> Iterator[list[Message]]:
        """The records of [since, until), in batches. Raises `KafkaException`, and `TimeoutError` where nothing comes."""
        consumer = self._client()
        consumer.assign([TopicPartition(self._topic, self.partition, since)])
        heard_at = self._monotonic()
        position = since
        while position < until:
            if self.is_given_up:
                raise TimeoutError("given up")
            batch = []
            for message in consumer.consume(BATCH, timeout=0.1):
                heard_at = self._monotonic()
                error, offset = message.error(), message.offset()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if offset is None or offset < position:
                    continue
                if error is None and offset < until:
                    batch.append(message)
                # The end also where the last offsets hold no records (transaction markers, compaction).
                position = until if error is not None else offset + 1
            if batch:
                yield batch
            elif self._monotonic() - heard_at > STALLED_SECONDS:
                raise TimeoutError(f"nothing came of partition {self.partition} for {STALLED_SECONDS:g} s")

    def _client(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(self._properties)
        return self._consumer

    def close(self) -> None:
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
                self._consumer = None
