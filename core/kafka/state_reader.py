"""Reads the state topic: all of a partition when it is taken up, and the last cursor when it is to be written.

Every transaction ends with the partition's cursor, and only whole transactions are seen; so what lies before the end that the
topic has for readers of committed records is consistent, and the last cursor before it says up to where it goes. While it is
being read the topic may be compacted, and then has lost a key for a later record of it. So what came meanwhile
is read as well, until nothing of note has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from core.kafka.clients import Calls, Property, common_properties
from core.messages.kept_state import READABLE_VERSIONS, Cursor

CURSOR_KEY: Final = "cursor"
# What a record's key begins with, by the kind of room that it is of.
PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "market": ("symbol", "book", "changes", "trades", "day", "candle", "candles"),
    "orders": ("order", "early", "release", "fill", "fills"),
}
ALL_PREFIXES: Final = frozenset(chain.from_iterable(PREFIXES.values()))
BATCH: Final = 500
ASK_SECONDS: Final = 5.0
# A round of reading that took no longer ends it: what a compaction may have taken in so little time was not yet written over.
SHORT_SECONDS: Final = 5.0
# How far the end is looked back for the last cursor, at first.
LOOK_BACK: Final = 200

_read_cursor = msgspec.json.Decoder(Cursor).decode
_read_version = msgspec.json.Decoder(dict[str, object]).decode


class UnknownVersion(ValueError):
    """The cursor is of another format: everything else may be too."""


def read_cursor(value: bytes) -> Cursor:
    """Raises ValueError, or UnknownVersion."""
    try:
        version = _read_version(value).get("version")
        if version not in READABLE_VERSIONS:
            known = " and ".join(map(str, READABLE_VERSIONS))
            raise UnknownVersion(f"version {version!r} is not known, {known} are")
        return _read_cursor(value)
    except msgspec.DecodeError as error:
        raise ValueError(f"cursor: {error}") from error


@dataclass(slots=True)
class Found:
    """What was read of one partition: its last cursor, how many records, and by key what is wrong with the last record of it."""

    cursor: Cursor | None = None
    records: int = 0
    size: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    is_of_another_version: bool = False

    @property
    def problem(self) -> str | None:
        """What is wrong, with the cursor before all else; None if all that counts can be read."""
        return self.problems.get(CURSOR_KEY) or next(iter(self.problems.values()), None)

    def note(self, key: str, value: bytes | None, problem: str | None) -> None:
        """What is wrong with a record, which takes the place of what was wrong with the one before; None where nothing is."""
        if problem is None or value is None:
            self.problems.pop(key, None)
        else:
            self.problems[key] = problem


Take = Callable[[int, str, bytes | None], None]


@dataclass(slots=True, eq=False)
class Wanted:
    """What somebody wants to be told: of the partitions in `found` the records whose keys begin so (None: all, of any kind).

    `take` is told partition, key and value (None: the key is forgotten), and raises ValueError for what it cannot read: which
    is of no consequence if a later record of the key takes its place.
    """

    prefixes: Collection[str] | None
    take: Take
    found: dict[int, Found]


@dataclass(slots=True)
class Progress:
    """How far a reading is, in records (of which compaction may have taken some)."""

    done: int = 0
    of: int = 0


class Route:
    """Who is to be told of which record of a partition."""

    def __init__(self, partition: int, wanted: Iterable[Wanted]) -> None:
        self._partition = partition
        # By the first part of the key; "" of any other.
        self._takers: dict[str, list[tuple[Found, Take]]] = {"": []}
        self._found: list[Found] = []
        for one in wanted:
            found = one.found.get(partition)
            if found is not None:
                self._found.append(found)
                for prefix in ("",) if one.prefixes is None else one.prefixes:
                    self._takers.setdefault(prefix, []).append((found, one.take))
        self._others = self._takers[""]

    def hand_over(self, key: bytes | None, value: bytes | None) -> None:
        """One record, to whoever wants it. Raises nothing for what is in it."""
        try:
            name = (key or b"").decode()
        except UnicodeDecodeError:
            self._spoil((key or b"").decode(errors="backslashreplace"), value, "a key that is not UTF-8")
            return
        if name == CURSOR_KEY:
            self._note_cursor(value)
            return
        prefix = name.partition("/")[0]
        takers = self._takers.get(prefix, self._others)
        for found, take in takers:
            found.records += 1
            found.size += len(value or b"")
            try:
                take(self._partition, name, value)
            except ValueError as error:
                found.note(name, value, str(error))
            else:
                if found.problems:
                    found.note(name, value, None)
        if not takers and prefix not in ALL_PREFIXES:
            self._spoil(name, value, f"{name}: no such kind of record")

    def _spoil(self, name: str, value: bytes | None, problem: str) -> None:
        for found in self._found:
            found.records += 1
            found.note(name, value, problem)

    def _note_cursor(self, value: bytes | None) -> None:
        cursor, problem, is_of_another_version = None, None, False
        try:
            cursor = None if value is None else read_cursor(value)
        except ValueError as error:
            problem, is_of_another_version = str(error), isinstance(error, UnknownVersion)
        for found in self._found:
            found.records += 1
            found.size += len(value or b"")
            found.cursor, found.is_of_another_version = cursor, is_of_another_version
            found.note(CURSOR_KEY, value, problem)


@dataclass(slots=True)
class StateReader:
    """Reads with a client of its own for each reading; nothing is committed."""

    brokers: str
    extra: Mapping[str, Property]
    topic: str
    calls: Calls
    monotonic: Callable[[], float] = field(default=time.monotonic)

    async def read(self, wanted: Sequence[Wanted], progress: Progress) -> None:
        """Hand every record to whoever wants it, on the loop and in slices: one reading for all.

        Who is taken out of `wanted` meanwhile is told no more. Raises KafkaException and TimeoutError.
        """
        position = dict.fromkeys(chain.from_iterable(one.found for one in wanted), 0)
        consumer = Consumer(self._properties())
        try:
            began = self.monotonic()
            ends = await self._ends(consumer, position)
            progress.of += sum(ends.values())
            while True:
                await self._read_to(consumer, ends, position, wanted, progress)
                if self.monotonic() - began <= SHORT_SECONDS:
                    return
                began = self.monotonic()
                before, ends = ends, await self._ends(consumer, position)
                progress.of += sum(ends[number] - before[number] for number in ends)
        finally:
            await self.calls.run(consumer.close, ASK_SECONDS)

    async def _read_to(
        self,
        consumer: Consumer,
        ends: Mapping[int, int],
        position: dict[int, int],
        wanted: Sequence[Wanted],
        progress: Progress,
    ) -> None:
        left = [number for number, end in ends.items() if position[number] < end]
        if left:
            consumer.incremental_assign([TopicPartition(self.topic, n, position[n] or OFFSET_BEGINNING) for n in left])
        routes = {number: Route(number, wanted) for number in left}
        count = len(wanted)
        while left:
            messages = consumer.consume(BATCH, timeout=0)
            if not messages:
                await asyncio.sleep(0.002)
            if len(wanted) != count:
                routes, count = {number: Route(number, wanted) for number in left}, len(wanted)
            for message in messages:
                number, offset, error = message.partition(), message.offset(), message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                assert number is not None and offset is not None
                end = ends[number]
                if not position[number] <= offset or position[number] >= end:
                    continue
                # At the end of the partition, or behind ours, all that there is before it has come.
                reached = end if error is not None or offset >= end else offset + 1
                if error is None and offset < end:
                    routes[number].hand_over(message.key(), message.value())
                progress.done += reached - position[number]
                position[number] = reached
            done = [number for number in left if position[number] >= ends[number]]
            if done:
                consumer.incremental_unassign([TopicPartition(self.topic, number) for number in done])
                left = [number for number in left if number not in done]
            await asyncio.sleep(0)

    async def _ends(self, consumer: Consumer, partitions: Iterable[int]) -> dict[int, int]:
        # For readers of committed records it is the end before any transaction that is still open.
        asked = [TopicPartition(self.topic, number, OFFSET_END) for number in partitions]
        answer = await self.calls.run(partial(consumer.offsets_for_times, asked, timeout=ASK_SECONDS), ASK_SECONDS)
        for one in answer:
            if one.error is not None:
                raise KafkaException(one.error)
        return {one.partition: max(0, one.offset) for one in answer}

    async def last_cursor(self, partition: int) -> tuple[Cursor | None, bool]:
        """The last cursor of a partition, None if it has none, and whether the partition has any record.

        Raises ValueError, UnknownVersion, KafkaException and TimeoutError.
        """
        value, is_empty = await self.calls.run(partial(self._look_back, partition), ASK_SECONDS * 4)
        return None if value is None else read_cursor(value), is_empty

    def _look_back(self, partition: int) -> tuple[bytes | None, bool]:
        consumer = Consumer(self._properties())
        try:
            low, end = consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=ASK_SECONDS)
            back = LOOK_BACK
            while True:
                start = max(low, end - back)
                cursor, records = self._last_in(consumer, partition, start, end)
                if cursor is not None or start <= low:
                    return cursor, records == 0
                back *= 10
        finally:
            consumer.close()

    def _last_in(self, consumer: Consumer, partition: int, start: int, end: int) -> tuple[bytes | None, int]:
        cursor, records = None, 0
        if start >= end:
            return cursor, records
        consumer.assign([TopicPartition(self.topic, partition, start)])
        deadline = self.monotonic() + ASK_SECONDS
        while self.monotonic() < deadline:
            for message in consumer.consume(BATCH, timeout=0.05):
                error, offset = message.error(), message.offset()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if error is not None or (offset or 0) >= end:
                    return cursor, records
                records += 1
                if message.key() == CURSOR_KEY.encode():
                    cursor = message.value()
        raise TimeoutError(f"{self.topic} partition {partition} could not be read in time")

    async def values(self, partition: int, prefix: str) -> dict[str, bytes]:
        """What is kept under the keys of a partition that begin so. Raises KafkaException and TimeoutError."""
        found: dict[str, bytes] = {}

        def take(_partition: int, key: str, value: bytes | None) -> None:
            found.pop(key, None)
            if value is not None:
                found[key] = value

        await self.read([Wanted((prefix,), take, {partition: Found()})], Progress())
        return found

    async def keys(self, partition: int) -> set[str]:
        """Every key of a partition that has a value. Raises KafkaException and TimeoutError."""
        found: set[str] = set()

        def take(_partition: int, key: str, value: bytes | None) -> None:
            (found.discard if value is None else found.add)(key)

        await self.read([Wanted(None, take, {partition: Found()})], Progress())
        return found

    def _properties(self) -> dict[str, object]:
        return {
            "fetch.wait.max.ms": 50,
            "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 32_768,
            **common_properties(self.brokers, self.extra),
            "group.id": f"{self.topic}-readers",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
        }
