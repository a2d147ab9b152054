"""Taking back what is kept: which of it can be used, and which was. What rooms want at the same time is read once.

What is kept is never worth more than the topics that it is of: where it cannot be used, the warm-up reads further back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaException

from core.kafka.clients import Calls, describe
from core.kafka.state_interfaces import KeeperObserver, Place, Topics
from core.kafka.state_reader import PREFIXES, Found, Progress, StateReader, Wanted
from core.kafka.state_topic import StateTopic
from core.log_throttle import QuietLog
from core.messages.kept_state import Cursor, KeptState

log = logging.getLogger("gateway.kafka")

RETRY_SECONDS: Final = 1.0
BOUNDS_SECONDS: Final = 10.0


class StateRestore:
    """`cursors` are by kind (`PREFIXES`) and partition those of what was taken back and is used; `progress` is of what is read now.

    Nobody has use for what is there of those that are `spoilt`: it is written anew with what is known here, which may be less.
    """

    def __init__(
        self,
        topics: Topics,
        state_topic: StateTopic,
        reader: StateReader,
        observer: KeeperObserver,
        calls: Calls,
        quiet_log: QuietLog,
        monotonic: Callable[[], float],
    ) -> None:
        self.cursors: dict[str, dict[int, Cursor]] = {kind: {} for kind in PREFIXES}
        self.progress: Progress | None = None
        self.spoilt: set[int] = set()
        self._topics = topics
        self._state_topic = state_topic
        self._reader = reader
        self._observer = observer
        self._calls = calls
        self._quiet_log = quiet_log
        self._monotonic = monotonic
        # What nobody reads yet, and what is read together.
        self._unread: list[Wanted] = []
        self._readings: list[tuple[list[Wanted], asyncio.Task[None]]] = []
        self._unused: dict[str, set[int]] = {kind: set() for kind in PREFIXES}
        # Of the partitions whose state is of no use, the cursor that it has.
        self._useless: dict[int, Cursor] = {}

    @property
    def is_used(self) -> bool:
        """Whether something was taken back, and nothing had to be left."""
        return any(self.cursors.values()) and not any(self._unused.values())

    async def restore(self, kind: str, room: KeptState, partitions: Sequence[int]) -> dict[int, Cursor] | None:
        """As `StateKeeper.restore`; None if nothing could be read, and what was restored before is as it was."""
        while True:
            try:
                return await self._restore(kind, room, partitions)
            except (KafkaException, TimeoutError) as error:
                told = describe(error.args[0]) if isinstance(error, KafkaException) else "no answer in time"
                self._quiet_log.warning("restore", "the state topic could not be read: %s", told)
                for number in partitions:
                    room.discard(number)
                await asyncio.sleep(RETRY_SECONDS)

    async def _restore(self, kind: str, room: KeptState, partitions: Sequence[int]) -> dict[int, Cursor] | None:
        if self._topics.epochs() is None and self._topics.awaits_epochs:
            raise TimeoutError
        began = self._monotonic()
        found = {number: Found() for number in partitions}
        if not await self._read(Wanted(PREFIXES[kind], room.take_back, found)):
            return None
        bounds = await self._calls.run(self._topics.bounds, BOUNDS_SECONDS)
        usable: dict[int, Cursor] = {}
        unused = self._unused[kind]
        for number, one in found.items():
            why, told = self._fault(number, one, *bounds)
            if why is None:
                assert one.cursor is not None
                usable[number] = one.cursor
                unused.discard(number)
                self._useless.pop(number, None)
                continue
            room.discard(number)
            if one.cursor is not None:
                self._useless[number] = one.cursor
            if one.records:
                self._leave(kind, number, why, told)
            unused.add(number)
        self._resume(kind, room, usable)
        restored = self.cursors[kind]
        for number in partitions:
            restored.pop(number, None)
        restored.update(usable)
        records, size = (sum(one.records for one in found.values()), sum(one.size for one in found.values()))
        seconds = self._monotonic() - began
        self._observer.state_restored(records, size, seconds)
        log.info(
            "state of %s restored: %d of %d partitions, %d records, %.1f MB, %.2f s",
            kind, len(usable), len(found), records, size / 1e6, seconds,
        )  # fmt: skip
        return usable

    async def _read(self, wanted: Wanted) -> bool:
        """Have it read, together with what else is wanted by the time the topic is known to be fit: at the start both rooms
        want all of it. False if it cannot be used.
        """
        self._unread.append(wanted)
        try:
            # None of the partitions that the market topic was given since.
            if not await self._state_topic.look() or not all(
                number < self._state_topic.count for number in wanted.found
            ):
                return False
            if self._state_topic.is_new:
                return True
            if wanted in self._unread:
                together, self._unread = self._unread, []
                reading = asyncio.get_running_loop().create_task(self._read_together(together))
                self._readings.append((together, reading))
            together, reading = next(one for one in self._readings if wanted in one[0])
        finally:
            if wanted in self._unread:
                self._unread.remove(wanted)
        try:
            await asyncio.shield(reading)
        finally:
            together.remove(wanted)
            if not together:
                reading.cancel()
                self._readings.remove((together, reading))
        return True

    async def _read_together(self, wanted: list[Wanted]) -> None:
        progress = self.progress = Progress()
        try:
            await self._reader.read(wanted, progress)
        finally:
            if self.progress is progress:
                self.progress = None

    def _resume(self, kind: str, room: KeptState, usable: dict[int, Cursor]) -> None:
        try:
            room.resume(usable)
        except ValueError:
            # Whichever it is: the others are used.
            for number, cursor in list(usable.items()):
                try:
                    room.resume({number: cursor})
                except ValueError as error:
                    del usable[number]
                    room.discard(number)
                    self._leave(kind, number, "poisoned", str(error))

    def _leave(self, kind: str, number: int, why: str, told: str) -> None:
        """What is kept of a partition is not used."""
        if not any(number in unused for unused in self._unused.values()):
            self._observer.state_unused(why)
            log.warning("state of partition %d is not used, it is warmed up by time: %s", number, told)
        self._unused[kind].add(number)
        if why == "poisoned":
            self.spoilt.add(number)

    def _fault(self, partition: int, found: Found, first: Place, end: Place) -> tuple[str | None, str]:
        cursor = found.cursor
        if found.problem is not None:
            return ("version" if found.is_of_another_version else "poisoned"), found.problem
        if cursor is None:
            return "cursor", "it has no cursor"
        if (cursor.market_topic, cursor.order_topic) != self._topics.names:
            return "topics", f"it is of the topics {cursor.market_topic} and {cursor.order_topic}"
        if (cursor.market_epoch, cursor.order_epoch) != self._topics.epochs():
            return "epoch", "a topic was deleted and made again since, or has another number of partitions"
        if not first.of(partition).is_before(cursor):
            return "retention", "the topics no longer have the records that follow it"
        if not cursor.is_before(end.of(partition)):
            return "retention", "the topics end before it: records of theirs were lost"
        return None, ""

    def is_of_ours(self, cursor: Cursor) -> bool:
        """Whether it is of the topics that are read here."""
        return (cursor.market_topic, cursor.order_topic) == self._topics.names

    def is_of_use(self, partition: int, cursor: Cursor | None) -> bool:
        """Whether the places in it say anything of what is known here."""
        return (
            cursor is not None
            and self.is_of_ours(cursor)
            and (cursor.market_epoch, cursor.order_epoch) == self._topics.epochs()
            and cursor != self._useless.get(partition)
        )
