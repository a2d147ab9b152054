"""A compacted topic of somebody else's, read whole from its beginning and then on: by key, what was said last.

Read by a `Feed`, and so with all that one has seen of brokers. A topic that is missing keeps nobody from becoming ready, for
who writes it may come later; one that is there is read to its end first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from core.kafka.feed import Feed
from core.kafka.monitor import BusMonitor
from core.market.partitions import Partitions
from core.messages.feed_record import KeyedRecord

log = logging.getLogger("gateway.kafka")


class KeyedTable(Protocol):
    """Who is told what the topic says."""

    def take(self, record: KeyedRecord, /) -> None:
        """One record, in its partition's order; None as its value: nothing is said of the key any more."""

    def forget(self, partition: int, /) -> None:
        """What the partition said is not known any more."""


class CompactedTopic:
    """As `PartitionListener` it is told by its feed, which has to be set before anything else is called.

    is_settled: whether it has been read to its end once, or was not there to be read.
    """

    feed: Feed

    def __init__(
        self,
        topic: str,
        monitor: BusMonitor,
        table: KeyedTable,
        *,
        slice_seconds: float,
        on_failed: Callable[[Exception, str], None],
        on_read: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_read` is called when other partitions are up to date than before; `on_failed` for a record that the table could
        not take, with its place.
        """
        self.topic = topic
        self.is_settled = False
        self._monitor = monitor
        self._table = table
        self._slice_seconds = slice_seconds
        self._on_failed = on_failed
        self._on_read = on_read
        self._monotonic = monotonic
        self._partitions = Partitions()
        self._records: deque[KeyedRecord] = deque()
        self._done: list[int] = []
        self._topic_id: str | None = None
        self._is_missing = False
        self._checking: asyncio.Task[None] | None = None

    def is_read(self, partition: int | None) -> bool:
        """Whether what a partition says is known up to now; of None: whether that is so of all there are."""
        return self._partitions.are_read(range(self.feed.topic_partitions) if partition is None else (partition,))

    def positions(self) -> Mapping[int, int]:
        """By partition, the offset that is taken next."""
        # What waits for its slice has not been taken.
        waiting = {record.partition: record.offset for record in reversed(self._records)}
        return {**self.feed.positions(), **waiting}

    def ask_ends(self, on_answer: Callable[[Mapping[int, int] | None], None]) -> None:
        """Ask the cluster where each partition ends now, and tell; None where it cannot be asked."""
        self.feed.ask_ends(on_answer)

    @property
    def problem(self) -> str | None:
        """For /health."""
        return f"topic {self.topic} does not exist: what it says is not known" if self._is_missing else None

    def look(self) -> None:
        """For after each answer of the bus: do what follows from what the monitor knows now. Raises KafkaException."""
        if not self._monitor.connected:
            return
        count, topic_id = self._monitor.partitions.get(self.topic), self._monitor.topic_ids.get(self.topic)
        self._is_missing = not count
        if not count:
            self.is_settled = True
            if self.feed.topic_partitions:
                self.feed.read_only(frozenset(), 0)
            return
        if topic_id not in (None, self._topic_id):
            if self._topic_id is not None and self.feed.topic_partitions:
                log.error("topic %s was deleted and made again: reading it anew", self.topic)
                self.feed.restart()
            self._topic_id = topic_id
        self.feed.set_topic_partitions(count)
        if self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(self._check_compaction())

    async def _check_compaction(self) -> None:
        for warning in await self._monitor.compaction_warnings(self.topic):
            log.warning("%s", warning)

    def read(self) -> bool:
        """Take what has come, for a slice at most; whether something had."""
        if not self._records:
            records, self._done, _ = self.feed.drain()
            self._records.extend(record for record in records if isinstance(record, KeyedRecord))
        is_news = bool(self._records or self._done)
        ends_at = self._monotonic() + self._slice_seconds
        while self._records:
            record = self._records.popleft()
            self._take(record)
            if self._monotonic() >= ends_at:
                break
        if self._done and not self._records:
            self.feed.serve(self._done)
            self._done = []
        return is_news

    def _take(self, record: KeyedRecord) -> None:
        try:
            self._table.take(record)
        except Exception as error:
            self._on_failed(error, f"topic {self.topic} partition {record.partition} offset {record.offset}")

    # As `PartitionListener`.

    def begin(self, partition: int, offset: int, /) -> None:
        """Reading begins at this offset."""
        self._partitions.begin(partition, offset)

    def serve(self, partitions: list[int], /) -> None:
        """They have been read to the end that they had."""
        self._partitions.serve(partitions)
        self.is_settled = self.is_settled or self.is_read(None)
        self._on_read()

    def lose(self, partition: int, /) -> None:
        """It is read no more; what waits of it is of another life."""
        self._records = deque(record for record in self._records if record.partition != partition)
        self._done = [number for number in self._done if number != partition]
        self._partitions.lose(partition)
        self._table.forget(partition)
        self._on_read()

    def set_unread(self, partitions: set[int], /) -> None:
        """Of those that should be read, nothing comes from these."""
        if any(self._partitions.set_unread(partitions)):
            self._on_read()
