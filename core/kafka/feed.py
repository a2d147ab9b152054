"""Market events from Kafka: which partitions, from where, and what has arrived since the last look.

Reading always starts at the warm-up offset, never at the group's committed one (none is committed). A partition is *live*
once it has been read to the end that it had when it was taken, what was read is folded in, and the listener serves it; until
then its records are shown to nobody. Every call that needs a round trip runs on `Calls`; what the loop calls (`drain`,
`assign`) does not wait.

Most of what the listener and the observer are told, they are told out of the client's own calls: an exception of theirs
there would take along the records that the call was about to hand over. So it ends here, and is told to the observer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, Message, TopicPartition

from core.kafka.arrivals import Arrivals
from core.kafka.clients import Calls, Property, common_properties, describe, patient
from core.kafka.group_membership import GroupMembership
from core.kafka.topic_offsets import ENDS_SECONDS, LOOKUP_SECONDS, TopicOffsets
from core.kafka.unread_partitions import UnreadPartitions
from core.kafka.warmup_start import GivenStart, Start, Warmup
from core.log_throttle import QuietLog
from core.market.partitions import PartitionListener
from core.messages.feed_record import KeyedRecord, Record
from core.messages.times import Times

log = logging.getLogger("gateway.kafka")

BATCH = 500
RETRY_SECONDS = 1.0

T = TypeVar("T")


@dataclass(slots=True)
class _Partition:
    next_offset: int
    target: int
    live: bool
    known_since_ms: int | None
    low: int = 0
    begun_at: int = 0
    # As far as the client told when it was asked.
    seen_end: int = 0
    # No record has come yet.
    is_empty: bool = True
    # What is missing has been looked for, or need not be.
    is_completed: bool = True
    completing: asyncio.Task[None] | None = None


class Completion(Protocol):
    """Who sees to it that what was read back can be served."""

    def lacks(self, partition: int, /) -> bool:
        """Whether something is missing that may stand further back. All that was read is folded in."""

    async def complete(self, partition: int, end: int, /) -> None:
        """Look for it; all before `end` is folded in, and nothing of the partition comes before this returns.

        Is cancelled when the partition is lost.
        """


class FeedObserver(Protocol):
    """Who is told how the reading goes."""

    def rebalanced(self) -> None:
        """The group has shared its partitions out anew."""

    def failed(self, error: str) -> None:
        """The client met an error of this name."""

    def suspect(self, trouble: str) -> None:
        """No broker answers."""

    def fault(self, where: str, error: Exception, place: str) -> None:
        """Something of ours failed while it was told of this."""


class Feed:
    """The consumer of the market topic, in one of two ways: `shared` (a group) or `broadcast` (every partition)."""

    def __init__(
        self,
        brokers: str,
        topic: str,
        group_id: str,
        extra: Mapping[str, Property],
        *,
        broadcast: bool,
        warmup: Warmup,
        calls: Calls,
        listener: PartitionListener,
        observer: FeedObserver,
        tells_unread: bool = False,
        with_keys: bool = False,
        embedded: bool = False,
        ask: Callable[[], Awaitable[bool]] | None = None,
        starts: Callable[[list[int]], Awaitable[Mapping[int, GivenStart]]] | None = None,
        completion: Completion | None = None,
        times: Times,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """The listener hears of unread partitions only if the feed `tells_unread`; `with_keys` its records are `KeyedRecord`s. Of
        all that is warmed up `completion` is asked before it is served.
        """
        # Asked where to begin with partitions that are to be read, before each look-up of them. What it does not name, or names
        # outside of what the topic has, is warmed up; what begins where it was told to is taken for complete. It may raise
        # KafkaException or TimeoutError: it is then asked again.
        self.starts = starts
        self.topic = topic
        self.broadcast = broadcast
        self.topic_partitions = 0
        self._with_keys = with_keys
        self._warmup = warmup
        self._calls = calls
        self._listener = listener
        self._observer = observer
        self._ask = ask
        self._completion = completion
        self._is_doubtful = False
        self._times = times
        self._partitions: dict[int, _Partition] = {}
        # Those that have been read to their end, and are not served yet.
        self._to_serve: dict[int, None] = {}
        self._wanted: frozenset[int] = frozenset()
        self._taking: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._has_joined = False
        self._closed = False
        self._has_been_live = False
        self._unread = UnreadPartitions(topic, monotonic)
        self._quiet_log = QuietLog(log)
        # Called when something has come that no drain has seen; without it only drains find out.
        self.wake: Callable[[], None] | None = None
        # While it is, what comes is left to the next drain: to be woken for each record takes the loop's time.
        self.is_busy: Callable[[], bool] = lambda: False
        self._arrivals: Arrivals | None = None
        self.offsets = TopicOffsets(
            topic,
            {**common_properties(brokers, extra), "group.id": group_id, "enable.auto.commit": False},
            calls,
            monotonic,
        )
        self._membership: GroupMembership | None = None
        if not broadcast:
            self._membership = GroupMembership(
                brokers,
                topic,
                group_id,
                extra,
                on_assigned=self._have_assigned,
                on_revoked=self._have_revoked,
                on_error=self._on_group_error,
            )
        self._consumer = patient(
            Consumer,
            {
                # A gap must be seen, not jumped over.
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 5 if embedded else 100,
                "fetch.error.backoff.ms": 10,
                "fetch.queue.backoff.ms": 10,
                "enable.auto.commit": False,
                **common_properties(brokers, extra),
                "group.id": group_id,
                "error_cb": partial(self._on_loop, partial(self._tell, self._on_client_error)),
                # Only for who wants to know what is unread: the statistics of a whole client cost a millisecond.
                **(
                    {
                        "statistics.interval.ms": 1000,
                        "stats_cb": partial(self._on_loop, partial(self._tell, self._on_statistics)),
                    }
                    if tells_unread
                    else {}
                ),
            },
        )

    # What others ask.

    @property
    def assigned(self) -> int:
        """Partitions this instance reads or is about to read."""
        return len(self._wanted)

    @property
    def is_live(self) -> bool:
        """At least one partition is read, and all of them are served."""
        return (
            bool(self._partitions)
            and len(self._partitions) == len(self._wanted)
            and all(state.live for state in self._partitions.values())
        )

    def has_been_live(self) -> bool:
        """Whether every partition had been read to its end at some time."""
        return self._has_been_live

    @property
    def is_partial(self) -> bool:
        """Fewer partitions than the topic has."""
        return len(self._wanted) < self.topic_partitions

    def known_since_ms(self) -> int | None:
        """From when on everything is known: the latest of the partitions' beginnings. Milliseconds since the epoch."""
        if not self._partitions:
            return None
        times = [state.known_since_ms for state in self._partitions.values()]
        return max((moment for moment in times if moment is not None), default=None)

    def lag(self) -> dict[int, int]:
        """Records that each partition has beyond what was read, as far as the client knows without asking."""
        is_lent = self._arrivals is not None and self._arrivals.is_waiting
        behind = {}
        for number, state in self._partitions.items():
            try:
                # Who waits on it would be waited for here. As long as nothing comes, the end is where it was.
                if not is_lent:
                    _low, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, number), cached=True)
                    state.seen_end = max(state.seen_end, high)
            except KafkaException:
                pass
            behind[number] = max(0, max(state.target, state.seen_end) - state.next_offset)
        return behind

    def warm_up(self) -> tuple[int, int] | None:
        """Of the records that were there when each partition was taken, how many have been read, and how many those were;
        None once all partitions are served.
        """
        if self.is_live:
            return None
        states = self._partitions.values()
        done = sum(min(state.next_offset, state.target) - state.begun_at for state in states)
        return done, sum(max(0, state.target - state.begun_at) for state in states)

    # Which partitions.

    def set_topic_partitions(self, count: int) -> bool:
        """Tell how many partitions the topic has now; True if that is another number than before."""
        changed = self.topic_partitions not in (0, count)
        if count == self.topic_partitions or self._closed:
            return False
        self.topic_partitions = count
        if self._membership is None:
            self._take(frozenset(range(count)))
        elif not self._has_joined:
            self._has_joined = True
            self._membership.join()
        return changed

    def read_only(self, partitions: frozenset[int], count: int) -> None:
        """Read these of so many, and no others, for as long as nothing else is said; only for a feed that is in no group."""
        self.topic_partitions = count
        self._take(partitions)

    def restart(self) -> None:
        """The topic is another one now (it was deleted and made again): forget all of it and warm up anew."""
        wanted = self._wanted
        self._take(frozenset())
        self._take(wanted)

    def read_anew(self, number: int) -> None:
        """Forget a partition, and begin with it as if it had been gained; harmless where it is not read."""
        if number in self._partitions:
            self._lose(number)
            self._take(self._wanted)

    def _have_assigned(self, numbers: frozenset[int]) -> None:
        log.info("rebalance: assigned partitions %s of %s", sorted(numbers), self.topic)
        self._observer.rebalanced()
        if numbers != self._wanted:
            self._take(numbers)

    def _have_revoked(self, numbers: frozenset[int]) -> None:
        # Read on: they are nobody's until the group has shared out anew, and most come back.
        log.info("rebalance: partitions %s of %s are shared out anew", sorted(numbers), self.topic)
        self._observer.rebalanced()

    def _take(self, numbers: frozenset[int]) -> None:
        """Read these partitions from now on, the ones that are read already from where they are."""
        self._wanted = numbers
        for gone in [number for number in self._partitions if number not in numbers]:
            self._lose(gone)
        if 0 < len(numbers) < self.topic_partitions:
            log.warning(
                "reading %d of %d partitions of %s: other members of the group have the rest",
                len(numbers), self.topic_partitions, self.topic,
            )  # fmt: skip
        if self._taking is not None:
            self._taking.cancel()
        self._taking = asyncio.get_running_loop().create_task(self._look_up_and_assign(numbers))

    async def _look_up_and_assign(self, numbers: frozenset[int]) -> None:
        while True:
            if self._is_doubtful and self._ask is not None:
                # Records that are gone may be those of a topic that is another one by now: first learn which it is.
                if not await self._ask():
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                self._is_doubtful = False
            fresh = sorted(number for number in numbers if number not in self._partitions)
            try:
                starts = await self._look_up_starts(fresh) if fresh else {}
                break
            except (KafkaException, TimeoutError) as error:
                self._quiet_log.warning("lookup", "where to start reading could not be asked: %s", error)
                self._is_doubtful = True
                await asyncio.sleep(RETRY_SECONDS)
        if asyncio.current_task() is not self._taking:
            return  # overtaken: a task that is cancelled may yet see the end of what it waited for
        for number, start in starts.items():
            self._partitions[number] = _Partition(
                start.offset,
                start.end,
                False,
                start.known_since_ms,
                start.low,
                start.offset,
                is_completed=start.is_given or self._completion is None,
            )
            self._unread.begin(number)
            self._listener.begin(number, start.offset)
            log.info("%s partition %d: warm-up from offset %d to %d", self.topic, number, start.offset, start.end)
        self._assign()
        done = [number for number, start in starts.items() if start.offset >= start.end]
        if done:
            self._to_serve.update(dict.fromkeys(done))
            self.serve(done)

    def _lose(self, number: int) -> None:
        completing = self._partitions.pop(number).completing
        if completing is not None:
            completing.cancel()
        self._to_serve.pop(number, None)
        self._tell(self._listener.lose, number)

    def _tell(self, call: Callable[[T], object], what: T) -> bool:
        """Whether that worked. What fails is told, and ends here."""
        try:
            call(what)
        except Exception as error:
            self._observer.fault("consumer", error, f"of {self.topic}")
            return False
        return True

    def _on_loop(self, call: Callable[..., object], *arguments: object) -> None:
        """What the client calls, on whichever thread waits for it."""
        if self._arrivals is None:
            call(*arguments)
        else:
            self._arrivals.call_on_loop(partial(call, *arguments))

    def _assign(self) -> None:
        if self._arrivals is None:
            self._assign_now()
        else:
            # What was taken before would be taken once more.
            self._arrivals.give_back(self._assign_now)

    def _assign_now(self) -> None:
        self._consumer.assign(
            [
                TopicPartition(self.topic, number, state.next_offset)
                for number, state in self._partitions.items()
                if state.completing is None
            ]
        )

    async def _look_up_starts(self, numbers: list[int]) -> dict[int, Start]:
        given = {} if self.starts is None else await self.starts(numbers)
        look_up = partial(self._warmup.look_up, self.offsets, numbers, given, self._times.now_ms)
        return await self._calls.run(look_up, LOOKUP_SECONDS * 4)

    # What has arrived.

    def drain(self) -> tuple[list[Record], list[int], bool]:
        """Take what has arrived: its records, the partitions to be served after them, and whether more waits."""
        if self._membership is not None:
            self._membership.poll()
        arrivals = self._arrivals
        if arrivals is not None and arrivals.is_waiting:
            return [], list(self._to_serve), False
        messages = [] if arrivals is None else arrivals.take()
        try:
            messages += self._consumer.consume(BATCH, timeout=0)
            if not messages:
                self._await_next()
        except KafkaException as failed:
            self._observer.failed(failed.args[0].name())
            self._quiet_log.warning("consume", "reading %s failed: %s", self.topic, describe(failed.args[0]))
        if not messages:
            return [], list(self._to_serve), False
        records: list[Record] = []
        partitions, with_keys = self._partitions, self._with_keys
        for message in messages:
            # A message that names no partition (None) is one of none that is read: no key of the dictionary.
            state = partitions.get(message.partition())  # type: ignore[arg-type]
            error = message.error()
            if error is not None:
                if self._on_message_error(error, message, state):
                    # Folded after the loss was told, they would make a book that the warm-up continues over the gap.
                    records = [record for record in records if record.partition != message.partition()]
                continue
            offset = message.offset()
            if state is None or offset is None or offset < state.next_offset or state.completing is not None:
                continue  # left over from before an assignment
            number = message.partition()
            assert number is not None
            whose_time, given_ms = message.timestamp()
            time_ms = self._times.of_record(given_ms)
            if state.is_empty:
                state.is_empty = False
                if state.known_since_ms is None:
                    state.known_since_ms = time_ms
            if with_keys:
                record = KeyedRecord(number, offset, time_ms, message.value(), state.live)
                appended_ms = given_ms if whose_time == TIMESTAMP_LOG_APPEND_TIME else None
                records.append(record.with_key(message.key(), appended_ms))
            else:
                records.append(Record(number, offset, time_ms, message.value(), state.live))
            state.next_offset = offset + 1
            if not state.live and state.next_offset >= state.target:
                self._to_serve[number] = None
        return records, list(self._to_serve), len(messages) >= BATCH

    def _await_next(self) -> None:
        """Have somebody wait for what comes next; not while partitions are on their way to being served."""
        if self.wake is None or not self.is_live or self.is_busy():
            return
        if self._arrivals is None:
            self._arrivals = Arrivals(lambda count, seconds: self._consumer.consume(count, timeout=seconds), self.wake)
        self._arrivals.await_next()

    def serve(self, partitions: list[int]) -> None:
        """What was read of them is folded in: have them served, and only then take them for live.

        What came behind the warm-up in the same batch is thus part of what is shown first. Where the listener fails they are
        named by the next `drain` again, and so is what has to be completed, when that is done.
        """
        partitions = [number for number in partitions if self._is_complete(number)]
        if partitions and self._tell(self._listener.serve, partitions):
            for number in partitions:
                self._to_serve.pop(number, None)
                state = self._partitions.get(number)
                if state is not None:
                    state.live = True
                    if state.known_since_ms is None:
                        state.known_since_ms = self._times.now_ms()  # there was nothing to tell by
            self._has_been_live = self._has_been_live or self.is_live

    def _is_complete(self, number: int) -> bool:
        """Whether nothing is missing of a partition; else that is looked for from here on."""
        state = self._partitions.get(number)
        if state is None or state.is_completed or self._completion is None:
            return True
        if state.completing is None:
            try:
                state.is_completed = not self._completion.lacks(number)
            except Exception as error:
                self._observer.fault("consumer", error, f"of {self.topic}")
                state.is_completed = True
            if not state.is_completed:
                self._to_serve.pop(number, None)
                state.completing = asyncio.get_running_loop().create_task(self._complete(number, state))
        return state.is_completed

    async def _complete(self, number: int, state: _Partition) -> None:
        assert self._completion is not None
        try:
            self._assign()  # nothing is read of it meanwhile
            await self._completion.complete(number, state.next_offset)
        except Exception as error:
            # It is served without.
            self._observer.fault("consumer", error, f"of {self.topic}")
        if self._partitions.get(number) is not state:
            return  # lost: a task that is cancelled may yet see the end of what it waited for
        state.is_completed, state.completing = True, None
        self._to_serve[number] = None
        self._unread.begin(number)
        self._assign()

    def _on_message_error(self, error: KafkaError, message: Message, state: _Partition | None) -> bool:
        """Deal with what is no record; True if the partition is lost by it."""
        code = error.code()
        number = message.partition()
        if code == KafkaError._PARTITION_EOF:
            # The end also where the last offsets hold no records (transaction markers, compaction).
            if state is not None and number is not None and state.completing is None:
                state.next_offset = max(state.next_offset, message.offset() or 0)
                if not state.live and not self._goes_further_back(number, state):
                    self._to_serve[number] = None
            return False
        self._observer.failed(error.name())
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE) and state is not None:
            log.error(
                "partition %s: the records after offset %d are gone from the topic; warming it up again",
                number, state.next_offset - 1,
            )  # fmt: skip
            assert number is not None
            self._lose(number)
            self._is_doubtful = True
            self._take(self._wanted)
            return True
        self._quiet_log.warning(error.name(), "consumer: %s", describe(error))
        return False

    def _goes_further_back(self, number: int, state: _Partition) -> bool:
        """Whether nothing was found of what was to be read back, so that it is looked for further back."""
        begin_at = self._warmup.further_back(state.low, state.begun_at, state.target) if state.is_empty else None
        if begin_at is None:
            return False
        state.begun_at = state.next_offset = begin_at
        log.info("%s partition %d: nothing there, from offset %d", self.topic, number, state.begun_at)
        self._tell(partial(self._listener.begin, number), state.begun_at)
        self._assign()
        return True

    def _on_client_error(self, error: KafkaError) -> None:
        self._observer.failed(error.name())
        self.offsets.throw_reports_away()
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._observer.suspect("all brokers are down")
        else:
            self._quiet_log.warning(error.name(), "consumer: %s", describe(error))

    def _on_group_error(self, error: KafkaError) -> None:
        # That brokers are away the reading client tells.
        if error.code() not in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE):
            self._observer.failed(error.name())
            self._quiet_log.warning(error.name(), "group: %s", describe(error))

    def _on_statistics(self, text: str) -> None:
        read = [number for number, state in self._partitions.items() if state.completing is None]
        unread = self._unread.among(read, text)
        if unread:
            self._quiet_log.warning("unread", "partitions %s are not being read", sorted(unread))
        # Each time, and not only when it is another set: a record that was still on its way may have told otherwise since.
        self._listener.set_unread(unread)

    # For who has to know how two topics lie to each other.

    def positions(self) -> dict[int, int]:
        """By partition, the offset that is read next."""
        return {number: state.next_offset for number, state in self._partitions.items()}

    def begins(self) -> dict[int, int]:
        """By partition, the offset at which its reading began."""
        return {number: state.begun_at for number, state in self._partitions.items()}

    def ask_ends(self, on_answer: Callable[[Mapping[int, int] | None], None]) -> None:
        """Ask the cluster where each partition that is read ends now, off the loop; None if it cannot be asked."""
        task = asyncio.get_running_loop().create_task(self._ask_ends(sorted(self._wanted), on_answer))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask_ends(self, numbers: list[int], on_answer: Callable[[Mapping[int, int] | None], None]) -> None:
        ends = None
        try:
            ends = await self._calls.run(partial(self.offsets.ends, numbers), ENDS_SECONDS)
        except (KafkaException, TimeoutError) as error:
            self._quiet_log.warning("ends", "the end of %s could not be asked: %s", self.topic, error)
        except RuntimeError:
            if not self._closed:  # by which the client that was being asked is gone
                raise
        on_answer(ends)

    async def close(self, timeout_seconds: float) -> None:
        """Leave the group. Raises nothing: at the end of a process there is nobody to tell."""
        self._closed = True
        self.offsets.stop()
        if self._arrivals is not None:
            self._arrivals.close()
        completing = [state.completing for state in self._partitions.values()]
        for task in (self._taking, *self._asking, *completing):
            if task is not None:
                task.cancel()
        try:
            await self._calls.run(self._close_clients, timeout_seconds)
        except (TimeoutError, KafkaException, RuntimeError) as error:
            log.warning("the consumer did not close in time: %s", error)

    def _close_clients(self) -> None:
        if self._arrivals is not None:
            self._arrivals.join(ENDS_SECONDS)
        if self._membership is not None:
            self._membership.leave()()
        self._consumer.close()
        self.offsets.close()
