"""Records that a returning client missed and the history no longer has, read from the bus once more.

A consumer of its own, on a thread of its own, bounded in time, number and bytes: one at a time for a connection, four for
the process; who finds no place waits for one, in the order of asking, for a while. Whatever cannot be had within the bounds is not
had at all: the client is then told `recovered: false`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from core.channels.replay import Gaps, Replay
from core.errors import PoisonedRecord
from core.kafka.clients import Calls, Property, common_properties
from core.market.history import Entry
from core.market.statistics import AggressorRule
from core.market.trade import Trade
from core.messages.events import BookDelta, BookSnapshot, Fill, read_event
from core.messages.times import Times

log = logging.getLogger("gateway.kafka")

READERS = 4
SECONDS = 10.0
# Of those that wait.
MAX_WAITING = 1_000
WAIT_SECONDS = 10.0
MAX_RECORDS = 200_000
MAX_BYTES = 32 * 1024 * 1024


class MissedRecords:
    """Fetches gaps and hands them to `on_done`; called, it says whether it will, or will try."""

    def __init__(
        self,
        brokers: str,
        topic: str,
        extra: Mapping[str, Property],
        on_done: Callable[[Replay, dict[int, list[Entry]] | None], None],
    ) -> None:
        self._topic = topic
        self._on_done = on_done
        self._calls = Calls(READERS)
        self._reading: dict[object, asyncio.Task[None]] = {}
        # In their order, each until its time is over.
        self._waiting: dict[Replay, asyncio.TimerHandle] = {}
        self._properties: dict[str, Any] = {
            **common_properties(brokers, extra),
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }

    def __call__(self, replay: Replay, gaps: Gaps) -> bool:
        """Begin to fetch, or have it wait for its turn; unless too many do so already."""
        if self._has_place(replay):
            self._begin(replay, gaps)
            return True
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[replay] = asyncio.get_running_loop().call_later(WAIT_SECONDS, self._give_up, replay)
        return True

    def _has_place(self, replay: Replay) -> bool:
        return len(self._reading) < READERS and replay.subscriber not in self._reading

    def _begin(self, replay: Replay, gaps: Gaps) -> None:
        self._reading[replay.subscriber] = asyncio.get_running_loop().create_task(self._run(replay, gaps))

    def _begin_waiting(self) -> None:
        for replay in tuple(self._waiting):
            if len(self._reading) >= READERS:
                return
            if replay.cancelled or self._has_place(replay):
                self._waiting.pop(replay).cancel()
                if not replay.cancelled:
                    self._begin(replay, replay.ask())  # more may be missing by now

    def _give_up(self, replay: Replay) -> None:
        del self._waiting[replay]
        self._on_done(replay, None)

    async def _run(self, replay: Replay, gaps: Gaps) -> None:
        found = None
        try:
            found = await self._calls.run(partial(self._read, replay, gaps), SECONDS)
        except (KafkaException, TimeoutError) as error:
            log.warning("reading back for a client failed: %s", error)
        except Exception:
            # Whatever it is, the client has to hear that it cannot be had, or it waits for ever.
            log.exception("reading back for a client failed")
        finally:
            del self._reading[replay.subscriber]
        self._on_done(replay, found)
        self._begin_waiting()

    def _read(self, replay: Replay, gaps: Gaps) -> dict[int, list[Entry]] | None:
        """Blocking. None if it would be too much or takes too long. Raises `KafkaException`."""
        if sum(end - first for first, end in gaps.values()) > MAX_RECORDS:
            return None
        deadline = time.monotonic() + SECONDS
        consumer = Consumer(self._properties)
        try:
            consumer.assign([TopicPartition(self._topic, number, first) for number, (first, _) in gaps.items()])
            return self._collect(consumer, replay, gaps, deadline)
        finally:
            consumer.close()

    @staticmethod
    def _collect(consumer: Consumer, replay: Replay, gaps: Gaps, deadline: float) -> dict[int, list[Entry]] | None:
        found: dict[int, list[Entry]] = {number: [] for number in gaps}
        left = {number: end for number, (_, end) in gaps.items()}
        past = _Past(replay)
        size = 0
        while left:
            if time.monotonic() > deadline or size > MAX_BYTES or replay.cancelled:
                return None
            for message in consumer.consume(500, timeout=0.1):
                number, offset, error = message.partition(), message.offset(), message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if number is None or offset is None or number not in left:
                    continue
                if error is None and offset < left[number]:
                    value = message.value()
                    size += len(value or b"")
                    entry = past.entry(number, offset, message.timestamp()[1], value)
                    if entry is not None:
                        found[number].append(entry)
                if error is not None or offset >= left[number] - 1:
                    del left[number]
        return found

    def close(self) -> None:
        """Begin nothing more."""
        for task in self._reading.values():
            task.cancel()
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._calls.close()


class _Past:
    """Records as the history would have had them, except that there is no book to tell the aggressor by.

    What is odd about their times was counted when they were read for the first time.
    """

    def __init__(self, replay: Replay) -> None:
        self._times = Times()
        self._wants = replay.channel.wants
        self._rules: dict[str, AggressorRule] = {}

    def entry(self, partition: int, offset: int, kafka_ms: int, value: bytes | None) -> Entry | None:
        time_ms = self._times.of_record(kafka_ms)
        try:
            event = self._times.in_event(read_event(value), time_ms)
        except PoisonedRecord:
            return None  # counted when it was read for the first time
        if not isinstance(event, Fill | BookSnapshot | BookDelta) or not self._wants(event.symbol):
            return None
        trade = None
        if isinstance(event, Fill):
            rule = self._rules.setdefault(event.symbol, AggressorRule())
            trade = Trade(
                event.price,
                event.quantity,
                rule.side(event, None, None),
                event.timestamp_ms,
                event.buy_order_id,
                event.sell_order_id,
                partition,
                offset,
            )
        return Entry(partition, offset, time_ms, event.symbol, event.payload, trade)
