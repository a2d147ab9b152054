"""Writes one partition of the state topic, in transactions: what changed and the cursor together, or nothing.

Kafka fences: whoever takes a partition up anew, under the transactional id that the partition has, ends the transaction of
whoever wrote it before, and that one can write no more. A writer that failed in any way begins anew from what the topic says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from core.kafka.clients import REQUESTS_UNDER_WAY, Calls, Property, common_properties, describe, patient
from core.kafka.state_reader import CURSOR_KEY, StateReader, UnknownVersion
from core.kafka.state_topic import MAX_RECORD_BYTES
from core.log_throttle import QuietLog
from core.messages.kept_state import Cursor, KeptRecord, Offsets

log = logging.getLogger("gateway.kafka")

INIT_SECONDS: Final = 10.0
COMMIT_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 2.0
# Whoever was fenced while Kafka still says that the partition is ours hears of that soon, or tries again.
FENCED_SECONDS: Final = 10.0
# A first writing of everything is many transactions: until its cursor is there, nothing of it is used.
MOST_RECORDS: Final = 20_000
# A slice of the writing: half of what an order over REST may be held up without being noticed.
SLICE_SECONDS: Final = 0.001

_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
_encode = msgspec.json.Encoder().encode


class NotOurs(Exception):
    """The partition is not to be written by this process; the text says why."""


class KnowsLess(NotOurs):
    """What is kept (`kept`: from where on) goes further back than what is known here (`known`)."""

    def __init__(self, kept: Offsets, known: Offsets) -> None:
        self.kept = kept
        self.known = known
        super().__init__("what is kept goes further back than what is known here")


class StateWriter:
    """The writer of one partition. `take_over` first, then `write`; after either failed, `take_over` again.

    written: the generation that was written last, whatever failed since.
    generation: of the journals, up to which all is written; None: nothing that can be built on.
    at: where both topics are in what was written last by this writer.
    found: the last cursor, as it was taken over; None where there is none that can be read.
    committed_at: when the moment was that the last cursor is of; seconds of `clock`, None before the first.
    """

    def __init__(
        self,
        partition: int,
        brokers: str,
        topic: str,
        extra: Mapping[str, Property],
        calls: Calls,
        reader: StateReader,
        *,
        give_way: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`give_way` ends when the loop has looked after its other work."""
        self.partition = partition
        self.is_ready = False
        self.retry_at = 0.0
        self.generation: int | None = None
        self.written: int | None = None
        self.is_whole = True
        self.committed_at: float | None = None
        self.at: Offsets | None = None
        self.found: Cursor | None = None
        self._topic = topic
        self._calls = calls
        self._reader = reader
        self._give_way = give_way
        self._clock = clock
        self._quiet_log = QuietLog(log)
        self._has_cursor = False
        self._others: set[str] = set()
        self._producer: Producer | None = None
        self._properties = {
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.max.bytes": MAX_RECORD_BYTES,
            "transaction.timeout.ms": 60_000,
            **REQUESTS_UNDER_WAY,
            **common_properties(brokers, extra),
            "statistics.interval.ms": 0,
            "acks": "all",
            "enable.idempotence": True,
            "transactional.id": f"{topic}-{partition}",
        }

    async def take_over(self, begins: Callable[[Cursor | None], int | None]) -> None:
        """End whoever wrote before, and look where that one was.

        `begins` is told the last cursor, None where there is none to build on, and returns the generation since which everything is
        to be written, None for all there is. It raises NotOurs where the partition is not to be written by us. Raises that,
        KafkaException and TimeoutError.
        """
        self._producer = producer = patient(Producer, self._properties)
        await self._calls.run(partial(producer.init_transactions, INIT_SECONDS), INIT_SECONDS)
        try:
            cursor, is_empty = await self._reader.last_cursor(self.partition)
        except UnknownVersion as error:
            raise NotOurs(f"what is kept there is of another version of the gateway: {error}") from error
        except ValueError:
            cursor, is_empty = None, False  # told when it was restored
        self.found = cursor
        generation = begins(cursor)
        # What is written of everything does not name what was there and is forgotten.
        others = set() if generation is not None or is_empty else await self._reader.keys(self.partition)
        if self._producer is not producer:
            return  # it was ended meanwhile
        self.generation, self._others, self._has_cursor = generation, others, not is_empty
        self.is_whole = self.is_ready = True

    async def write(self, pieces: Iterable[list[KeptRecord]], cursor: Cursor, generation: int) -> tuple[int, int]:
        """Write the pieces and the cursor; how many records and bytes those were.

        Raises KafkaException and TimeoutError, and LookupError where it was ended before it began.
        """
        if self._producer is None:
            raise LookupError("it is not written by this instance any more")
        producer, is_all = self._producer, self.generation is None
        produce, topic, partition, others = producer.produce, self._topic, self.partition, self._others
        moment = self._clock()
        producer.begin_transaction()
        if is_all and self._has_cursor:
            await self._produce(producer, CURSOR_KEY, None)
            self._has_cursor = False
        records = size = since = 0
        until = self._clock() + SLICE_SECONDS
        for piece in pieces:
            for key, value in piece:
                others.discard(key)
                try:
                    produce(topic, value, key, partition)
                except BufferError:
                    await self._produce(producer, key, value)
                size += len(key) if value is None else len(key) + len(value)
            records += len(piece)
            if self._clock() >= until:
                producer.poll(0)
                await self._give_way()
                until = self._clock() + SLICE_SECONDS
            if is_all and records - since >= MOST_RECORDS:
                since = records
                await self._commit(producer)
                producer.begin_transaction()
        for key in others:
            await self._produce(producer, key, None)
        records += len(others) + 1
        self._others = set()
        await self._produce(producer, CURSOR_KEY, _encode(cursor))
        await self._commit(producer)
        self.generation = self.written = generation
        self.is_whole, self._has_cursor = False, True
        self.at = Offsets(cursor.market, cursor.events, cursor.orders)
        self.committed_at = moment
        return records, size

    def confirm(self, generation: int) -> None:
        """Nothing has changed: what was written last is as things are."""
        self.generation = self.written = generation
        self.committed_at = self._clock()

    async def _produce(self, producer: Producer, key: str, value: bytes | None) -> None:
        while True:
            try:
                producer.produce(self._topic, value, key, self.partition)
                return
            except BufferError:
                producer.poll(0)
                await asyncio.sleep(0.005)

    async def _commit(self, producer: Producer) -> None:
        await self._calls.run(partial(producer.commit_transaction, COMMIT_SECONDS), COMMIT_SECONDS)

    def fail(self, error: Exception) -> None:
        """What was under way is not written: begin anew, after a while."""
        told, seconds = str(error) or type(error).__name__, RETRY_SECONDS
        if isinstance(error, KafkaException):
            told = describe(error.args[0])
            if error.args[0].code() in _FENCED:
                told, seconds = f"another writer has taken its place ({told})", FENCED_SECONDS
        self._quiet_log.warning("failed", "state of partition %d was not written: %s", self.partition, told)
        self.retry_at = self._clock() + seconds
        self.end()

    def end(self) -> None:
        """Write no more; what is under way is given up."""
        self.is_ready = False
        self.generation = self.at = None
        producer, self._producer = self._producer, None
        if producer is not None:
            self._calls.leave(partial(_retire, producer))


def _retire(producer: Producer) -> None:
    """Blocking. Its last reference goes here, for to let go of a client may take a while."""
    producer.purge()
    producer.flush(1.0)
