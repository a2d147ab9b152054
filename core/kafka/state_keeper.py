"""Keeps the state of the rooms on the state topic: who writes which partition, what is written when, and reading it again.

Kafka chooses the writers: a consumer group whose members read nothing. Whoever is chosen takes over where the last one was,
as far as the topic says, and writes what changed since; `core.kafka.state_writer` is how, and how a frozen one is fenced.
Every instance knows what changed lately (`core.messages.kept_state.Journal`), in generations that begin at known places of both
topics: so whoever takes over finds the generation that began no later than the last cursor.

Where it cannot be written, all goes on as without.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from core.kafka.clients import Calls, Property, describe
from core.kafka.group_membership import GroupMembership
from core.kafka.state_interfaces import Duties, KeeperObserver, Place, Topics
from core.kafka.state_reader import StateReader, UnknownVersion
from core.kafka.state_restore import StateRestore
from core.kafka.state_topic import StateTopic, is_not_allowed
from core.kafka.state_writer import KnowsLess, NotOurs, StateWriter
from core.log_throttle import QuietLog
from core.messages.kept_state import VERSION, Cursor, KeptRecord, KeptState, Offsets

log = logging.getLogger("gateway.kafka")

TICK_SECONDS: Final = 0.25
LOOK_AGAIN_SECONDS: Final = 30.0
LAST_SECONDS: Final = 1.25
# To learn what is kept of a partition, orders of years included; and until it is tried again where that failed.
LEARN_SECONDS: Final = 120.0
LEARN_AGAIN_SECONDS: Final = 30.0
# How far back a writer may have been, in generations, for its successor to go on from there.
GENERATIONS_KEPT: Final = 24

Cut = Generator[list[KeptRecord], None, None]
# Have the rooms know what is kept of a partition, from where on that is and what is known; how many orders were news.
Learn = Callable[[int, Offsets, Offsets], Awaitable[int]]


class StateKeeper:
    """`restore` at the start and when partitions are gained, `run` for as long as the process serves, then `write_last`, `close`.

    `restored` is what was taken back.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        consumer: Mapping[str, Property],
        producer: Mapping[str, Property],
        topics: Topics,
        observer: KeeperObserver,
        *,
        interval_seconds: float,
        give_way: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        # The partitions that Kafka has chosen this instance to write.
        self.mine: set[int] = set()
        # Whatever keeps something, and of a partition those who do, in the order in which it is written.
        self.rooms: list[KeptState] = []
        self.rooms_of: Callable[[int], Sequence[KeptState]] = lambda _partition: self.rooms
        self.duties: Duties | None = None
        # Without it, what goes further back than what is known here is not written before a restart.
        self.learn: Learn | None = None
        self._brokers = brokers
        self._topic = topic
        self._producer_extra = producer
        self._topics = topics
        self._observer = observer
        self._interval_seconds = interval_seconds
        self._give_way = give_way
        self._clock = clock
        self._monotonic = monotonic
        self._quiet_log = QuietLog(log)
        self._calls = Calls()
        self._reader = StateReader(brokers, consumer, topic, self._calls)
        self._state_topic = StateTopic(brokers, producer, topic, topics, self._calls)
        self.restored = StateRestore(
            topics, self._state_topic, self._reader, observer, self._calls, self._quiet_log, monotonic
        )
        # Why others are left to write, if they are.
        self._resigned: str | None = None
        self._due = 0.0
        self._generations: list[tuple[int, dict[int, Offsets]]] = []
        self._election = GroupMembership(
            brokers,
            topic,
            f"{topic}-writers",
            consumer,
            on_assigned=self._have_assigned,
            on_revoked=self._have_revoked,
            on_error=self._on_election_error,
        )
        self._writers: dict[int, StateWriter] = {}
        self._given_up: set[int] = set()
        # Of those, the ones that are being learnt, and when to write them, or to try once more; and those that have been learnt.
        self._learning: dict[int, asyncio.Task[None]] = {}
        self._learn_again: dict[int, float] = {}
        self._learnt: set[int] = set()
        # Those of which the duties were taken over, since they are ours.
        self._led: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._round_lock = asyncio.Lock()

    # What others ask.

    @property
    def problem(self) -> str | None:
        """A sentence while it cannot do its work, else None."""
        return self._resigned or self._state_topic.problem

    def health(self) -> dict[str, Any]:
        """The member `state` of `/health`."""
        now = self._monotonic()
        ages = [now - writer.committed_at for writer in self._writers.values() if writer.committed_at is not None]
        return {
            "restored": self.restored.is_used,
            "age_seconds": round(max(ages), 3) if ages else None,
            "writer_of": sorted(number for number, writer in self._writers.items() if writer.is_ready),
        }

    def leads(self, partition: int) -> bool:
        """Whether this instance writes a partition, or would if it knew enough, and has taken over what is to be done there."""
        writer = self._writers.get(partition)
        return partition in self._led and (partition in self._given_up or (writer is not None and writer.is_ready))

    async def last_cursor(self, partition: int) -> Cursor | None:
        """What whoever writes a partition wrote last; None where it is of no use, or cannot be read now."""
        try:
            cursor, _ = await self._found(partition)
        except (KafkaException, TimeoutError):
            return None
        return cursor if self.restored.is_of_use(partition, cursor) else None

    # Reading.

    async def restore(self, kind: str, room: KeptState, partitions: Sequence[int]) -> dict[int, Cursor]:
        """Have a room take back what is kept of its kind (`PREFIXES`) of the partitions; the cursors of those that are used.

        Returns when it is known: what cannot be used is told, and left. Raises nothing but what ends the task: as long as
        Kafka does not answer, it is asked again.
        """
        usable = await self.restored.restore(kind, room, partitions)
        if usable is not None and kind == "market":
            self._go_on_from(partitions, usable)
        return usable or {}

    def _go_on_from(self, partitions: Sequence[int], usable: Mapping[int, Cursor]) -> None:
        for number in partitions:
            writer = None if number in usable else self._writers.pop(number, None)
            if writer is not None:
                writer.end()  # it would go on from what is known here no more
        if self._generations:
            # Gained while this process goes on: what changed in it from its cursor on is told by the generation of now.
            _, now = self._generations[-1]
            for _, places in self._generations:
                for number in partitions:
                    places.pop(number, None)
            events = next((one for one in now.values()), None)
            for number, cursor in usable.items():
                if events is not None:
                    now[number] = Offsets(cursor.market, events.events, events.orders)

    # Writing.

    async def run(self) -> None:
        """Take part in the election, and write what is ours; ends when cancelled."""
        while True:
            if self._topics.place() is not None and await self._look_quietly():
                break
            await asyncio.sleep(LOOK_AGAIN_SECONDS if self.problem else TICK_SECONDS)
        self._state_topic.is_new = False
        self._begin_generation()
        self._election.join()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._election.poll()
            if self._monotonic() >= self._due and self._topics.is_reachable and not self._round_lock.locked():
                self._due = self._monotonic() + self._interval_seconds
                self._start_round()

    async def _look_quietly(self) -> bool:
        try:
            return await self._state_topic.look()
        except (KafkaException, TimeoutError):
            return False

    def _have_assigned(self, numbers: frozenset[int]) -> None:
        self.mine = set(numbers)
        self._led.clear()
        self._due = self._monotonic()
        log.info("state: partitions %s are to be written by this instance", sorted(self.mine))

    def _have_revoked(self, _numbers: frozenset[int]) -> None:
        self._write_nothing()

    def _write_nothing(self) -> None:
        self.mine = set()
        self._led.clear()
        for writer in self._writers.values():
            writer.end()
        self._writers.clear()

    def _on_election_error(self, error: KafkaError) -> None:
        if is_not_allowed(error):
            self._resign(f"this instance may not be a member of the group {self._topic}-writers ({describe(error)})")

    def _resign(self, why: str) -> None:
        """Others may write: whoever has no right to does not stand in their way."""
        if self.problem is None:
            log.warning(
                "%s: it only reads what is kept. Grant with: kafka-acls.sh --add --allow-principal User:... "
                "--topic %s --operation Read --operation Write --group %s-writers --transactional-id %s "
                "--resource-pattern-type prefixed",
                why, self._topic, self._topic, self._topic,
            )  # fmt: skip
        self._resigned = why
        self._write_nothing()
        self._calls.leave(self._election.leave())

    def _start_round(self) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.get_running_loop().create_task(self._round()))

    async def _round(self) -> None:
        """Take over what is newly ours, then write what changed of all that is."""
        async with self._round_lock:
            place = self._topics.place()
            if place is None:
                return
            self._try_again()
            ours = sorted(self.mine & place.market.keys())
            await asyncio.gather(
                *(self._led_only(number) if number in self._given_up else self._taken_over(number) for number in ours)
            )
            await self._write()

    async def _taken_over(self, number: int) -> None:
        writer = self._writers.get(number)
        if writer is None:
            writer = self._writers[number] = StateWriter(
                number,
                self._brokers,
                self._topic,
                self._producer_extra,
                self._calls,
                self._reader,
                give_way=self._give_way,
                clock=self._monotonic,
            )
        if writer.is_ready or self._monotonic() < writer.retry_at:
            return
        self._led.discard(number)
        try:
            await writer.take_over(partial(self._begins, number))
            await self._lead(number, writer.found)
            log.info("state: partition %d is written by this instance from now on", number)
        except NotOurs as why:
            self._given_up.add(number)
            writer.end()
            if isinstance(why, KnowsLess) and self.learn is not None and number not in self._learnt:
                log.info("state of partition %d goes further back than what is known here: it is read", number)
                learning = self._learn(self.learn, number, why)
                self._learning[number] = asyncio.get_running_loop().create_task(learning)
                return
            log.warning("state of partition %d is not written by this instance: %s", number, why)
        except (KafkaException, TimeoutError, LookupError) as error:  # the last: it is read no more
            if isinstance(error, KafkaException) and is_not_allowed(error.args[0]):
                self._resign(f"this instance may not write topic {self._topic} ({describe(error.args[0])})")
            else:
                writer.fail(error)
        except Exception as error:
            # A fault of ours costs no other partition its writing.
            self._quiet_log.fault("take over", error, "partition %d could not be taken over", number)
            writer.fail(error)

    async def _learn(self, learn: Learn, number: int, less: KnowsLess) -> None:
        """Know all that is kept of a partition, and only then write it: everything, for what came in was told by no generation."""
        orders = self.restored.cursors["orders"]
        before = orders.get(number)
        is_known, again_at = False, self._monotonic()
        try:
            async with asyncio.timeout(LEARN_SECONDS):
                news = await learn(number, less.kept, less.known)
        except (KafkaException, TimeoutError) as error:
            told = describe(error.args[0]) if isinstance(error, KafkaException) else str(error) or "no answer in time"
            self._quiet_log.warning("learn", "state of partition %d could not be read: %s", number, told)
            again_at += LEARN_AGAIN_SECONDS
        except Exception as error:
            self._quiet_log.fault("learn", error, "what is kept of partition %d could not be learnt", number)
            self._learnt.add(number)
        else:
            log.info("state of partition %d is known, with %d orders that were not known here", number, news)
            is_known = True
            self._learnt.add(number)
            for _, places in self._generations:
                places.pop(number, None)
        if not is_known:
            # What was taken back of its orders on the way is not known here.
            orders.pop(number, None)
            if before is not None:
                orders[number] = before
        del self._learning[number]
        self._learn_again[number] = again_at

    def _try_again(self) -> None:
        """What was learnt can be written, and what could not be is tried once more."""
        now = self._monotonic()
        for number in [number for number, at in self._learn_again.items() if now >= at]:
            del self._learn_again[number]
            self._given_up.discard(number)
            self._led.discard(number)

    async def _led_only(self, number: int) -> None:
        """What is to be done of a partition is not left undone because it is not written."""
        if number in self._led:
            return
        try:
            await self._lead(number, *await self._found(number))
        except (KafkaException, TimeoutError) as error:
            told = describe(error.args[0]) if isinstance(error, KafkaException) else "no answer in time"
            self._quiet_log.warning("lead", "what is to be done of partition %d could not be read: %s", number, told)
        except Exception as error:
            self._quiet_log.fault(
                "take over", error, "what is to be done of partition %d could not be taken over", number
            )

    async def _found(self, number: int) -> tuple[Cursor | None, bool]:
        """The last cursor of a partition, None if it cannot be read, and whether all else can be, as far as is known."""
        try:
            cursor, _ = await self._reader.last_cursor(number)
        except ValueError as error:
            return None, not isinstance(error, UnknownVersion)
        return cursor, True

    async def _lead(self, number: int, cursor: Cursor | None, is_readable: bool = True) -> None:
        """Raises KafkaException and TimeoutError."""
        duties, mine = self.duties, self.mine
        if duties is None:
            return
        kept: Mapping[str, bytes] = {}
        if is_readable and (cursor is None or (self.restored.is_of_ours(cursor) and cursor.releases != 0)):
            kept = await self._reader.values(number, duties.prefix)
        if self.mine is not mine:
            return  # others may have written since
        for _ in duties.take_over(number, cursor if self.restored.is_of_use(number, cursor) else None, kept):
            await self._give_way()
            if self.mine is not mine:
                return
        self._led.add(number)

    def _begins(self, partition: int, cursor: Cursor | None) -> int | None:
        """From which generation on a partition is to be written, whose last cursor is this one; see `StateWriter.take_over`."""
        if cursor is None:
            return None
        if not self.restored.is_of_ours(cursor):
            raise NotOurs(f"it is of the topics {cursor.market_topic} and {cursor.order_topic}")
        if partition in self.restored.spoilt or not self.restored.is_of_use(partition, cursor):
            return None  # nobody can go on from it
        known_from = self._known_from(partition)
        if cursor.known_from is not None and not known_from.is_before(cursor.known_from):
            raise KnowsLess(cursor.known_from, known_from)
        place = self._topics.place()
        if place is None or not cursor.is_before(place.of(partition)):
            raise TimeoutError("what is kept goes on further than what has been read here so far")
        if cursor.known_from is not None and not cursor.known_from.is_before(known_from):
            return None  # of what goes further back nothing is kept
        if cursor.version < VERSION:
            return None  # what did not change since lacks what that version did not keep
        for number, places in reversed(self._generations):
            if partition in places and places[partition].is_before(cursor):
                return number
        return None

    def _known_from(self, partition: int) -> Offsets:
        begins, lives = self._topics.begins().of(partition), self._topics.epochs() or ("", "")
        at, events, commands = begins.market, begins.events, begins.orders
        market = self.restored.cursors["market"].get(partition)
        orders = self.restored.cursors["orders"].get(partition)
        # Offsets of a topic that was made again since say nothing.
        if market is not None and market.known_from is not None and market.market_epoch == lives[0]:
            at = market.known_from.market
        if orders is not None and orders.known_from is not None:
            if orders.market_epoch == lives[0]:
                events = orders.known_from.events
            if orders.order_epoch == lives[1]:
                commands = orders.known_from.orders
        return Offsets(at, events, commands)

    def _begin_generation(self) -> None:
        """The first one began where the reading did."""
        begins = self._topics.begins()
        places: dict[int, Offsets] = {}
        for number in begins.market:
            market = self.restored.cursors["market"].get(number)
            orders = self.restored.cursors["orders"].get(number)
            one = begins.of(number)
            places[number] = Offsets(
                one.market if market is None else market.market,
                one.events if orders is None else orders.events,
                one.orders if orders is None else orders.orders,
            )
        self._generations = [(0, places)]

    async def _write(self) -> None:
        # One moment for all: from here to the last of the cuts nothing is awaited.
        place, epochs = self._topics.place(), self._topics.epochs()
        # Not reachable: a topic may be another one already, and be read as before.
        if place is None or epochs is None or not self._topics.is_reachable:
            return
        generation = max(room.journal.rotate() for room in self.rooms)
        self._generations.append((generation, {number: place.of(number) for number in place.market}))
        writers = [writer for number, writer in self._writers.items() if writer.is_ready and number in place.market]
        ended_to = {} if self.duties is None else self.duties.ended_to()
        work = []
        for writer in writers:
            rooms = self.rooms_of(writer.partition)
            try:
                keys = self._changed(writer, rooms)
                if writer.at == place.of(writer.partition) and not any(keys):
                    writer.confirm(generation)
                    continue
                cuts = self._cut(writer, rooms, keys)
            except LookupError as error:  # it is not read, or was not for long
                writer.fail(error)
                continue
            work.append(
                self._written(writer, cuts, self._cursor(writer.partition, place, epochs, ended_to), generation)
            )
        await asyncio.gather(*work)
        # What a writer that fails for long would go on from has to stay known: to write everything takes it a while, in which
        # nothing that is kept can be used.
        written = (writer.written for writer in self._writers.values() if writer.written is not None)
        first = min(written, default=generation)
        self._forget_before(min(first, generation - GENERATIONS_KEPT))

    @staticmethod
    def _changed(writer: StateWriter, rooms: Sequence[KeptState]) -> list[set[str] | None]:
        """By room what has to be written; None is everything."""
        since = writer.generation
        return [None if since is None else room.journal.since(writer.partition, since) for room in rooms]

    @staticmethod
    def _cut(writer: StateWriter, rooms: Sequence[KeptState], keys: Sequence[set[str] | None]) -> list[Cut]:
        return [
            room.cut(writer.partition, changed, is_whole=writer.is_whole)
            for room, changed in zip(rooms, keys, strict=True)
        ]

    def _cursor(self, partition: int, place: Place, epochs: tuple[str, str], ended_to: dict[int, int]) -> Cursor:
        at, names = place.of(partition), self._topics.names
        known_since = [
            cursors[partition].known_since_ms if partition in cursors else self._topics.known_since_ms()
            for cursors in (self.restored.cursors["market"], self.restored.cursors["orders"])
        ]
        return Cursor(
            market=at.market,
            events=at.events,
            orders=at.orders,
            version=VERSION,
            market_epoch=epochs[0],
            order_epoch=epochs[1],
            known_since_ms=max((moment for moment in known_since if moment is not None), default=None),
            time_ms=int(self._clock() * 1000),
            market_topic=names[0],
            order_topic=names[1],
            known_from=self._known_from(partition),
            releases=None if self.duties is None else self.duties.count(partition),
            ended_to=ended_to,
        )

    async def _written(self, writer: StateWriter, cuts: list[Cut], cursor: Cursor, generation: int) -> None:
        began = self._monotonic()
        try:
            records, size = await writer.write(chain.from_iterable(cuts), cursor, generation)
        except (KafkaException, TimeoutError) as error:
            if isinstance(error, KafkaException) and is_not_allowed(error.args[0]):
                self._resign(f"this instance may not write topic {self._topic} ({describe(error.args[0])})")
            else:
                writer.fail(error)
        except LookupError as error:
            writer.fail(error)
        except Exception as error:
            # A fault of ours: what is on the topic stays as it is, and whatever else goes on.
            self._quiet_log.fault("describe", error, "state of partition %d could not be described", writer.partition)
            writer.fail(error)
        else:
            self.restored.spoilt.discard(writer.partition)
            self._observer.state_written(records, size, self._monotonic() - began)
        finally:
            for cut in cuts:
                cut.close()

    def _forget_before(self, generation: int) -> None:
        for room in self.rooms:
            room.journal.drop_before(generation)
        self._generations = [one for one in self._generations if one[0] >= generation] or self._generations[-1:]

    async def write_last(self) -> None:
        """Write what came up to now of what is ours; takes no longer than LAST_SECONDS."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                if self._topics.is_reachable and any(writer.is_ready for writer in self._writers.values()):
                    async with self._round_lock:
                        await self._write()
        except TimeoutError:
            log.warning("state: the last writing was not done in time")

    async def close(self) -> None:
        """Let others write from now on."""
        for task in (*self._tasks, *self._learning.values()):
            task.cancel()
        for writer in self._writers.values():
            writer.end()
        with suppress(TimeoutError, KafkaException, RuntimeError):  # the group finds out by itself
            await self._calls.run(self._election.leave(), 0.0)
        self._calls.close()
