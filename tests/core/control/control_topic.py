"""A control topic that instances write to and read from, whenever a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from core.control.announcements import Announcements
from core.control.control_table import ControlTable
from core.control.control_writer import ControlWriter
from core.control.restrictions import Restrictions
from core.errors import PoisonedRecord, StillBehind
from core.messages.control_records import ANNOUNCEMENT, BLOCK, HALT
from core.messages.feed_record import KeyedRecord

NOW = 1_700_000_000.0


class Topic:
    """Its records. `refuses`: what the next record is refused with, at once or by its acknowledgement."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.refuses: Exception | None = None
        self.refuses_late: Exception | None = None

    def write(self, key: str, value: bytes | None) -> asyncio.Future[None]:
        if self.refuses is not None:
            raise self.refuses
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.refuses_late is not None:
            future.set_exception(self.refuses_late)
            return future
        self.records.append((key.encode(), value))
        future.set_result(None)
        return future


class Instance:
    """What one knows of the topic. `is_behind`: it does not come to read its end."""

    def __init__(self, topic: Topic, on_change: Callable[[], None] = lambda: None) -> None:
        self.topic = topic
        self.reason: str | None = None
        self.is_behind = False
        self.poisoned: list[str] = []
        self._position = 0
        writer = ControlWriter(topic.write, why_not=lambda: self.reason, to_end=self._to_end)
        self.restrictions = Restrictions(writer, on_change=on_change, clock=lambda: NOW)
        self.announcements = Announcements(writer, on_change=on_change, clock=lambda: 1_800_000_000.0)
        self.table = ControlTable(
            {
                BLOCK: self.restrictions.take_block,
                HALT: self.restrictions.take_halt,
                ANNOUNCEMENT: self.announcements.take,
            },
            self.forget,
            self._on_poisoned,
        )

    def forget(self, partition: int) -> None:
        self.restrictions.forget(partition)
        self.announcements.forget(partition)

    def _on_poisoned(self, error: PoisonedRecord, _partition: int, _offset: int) -> None:
        self.poisoned.append(error.reason)

    async def _to_end(self) -> None:
        if self.is_behind:
            raise StillBehind("behind")
        self.read()

    def read(self) -> None:
        while self._position < len(self.topic.records):
            key, value = self.topic.records[self._position]
            self.table.take(KeyedRecord(0, self._position, 0, value, True).with_key(key))
            self._position += 1
