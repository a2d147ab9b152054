"""cancel_all_after: all open orders of a user are cancelled unless the user says so again (docs/contract.md#cancel-all-after).

A timer is a record on the control topic, so whoever lives fires it. Who, and when (docs/decisions.md has the reasons):

- The instance that took the last request fires at the moment that it told the user.
- Any other fires some `STAGGER_SECONDS` later: counted from when it read the record, so that no clock but its own matters. Who reads
  it after a start, or after it stood still, counts from when the broker appended it, and for that writes a record, which tells what
  time it is there. Where brokers do not tell, it goes by the record's time and `SKEW_MS`.
- Who ends writes what it had not: how long those wait who start later is told by the record.
- Whoever fires first reads the topic to the end that it has then: a process that stood still may have missed another
  request, or that somebody else has fired. Afterwards it says so on the topic. Twice does no harm.

Of a user that sets its timer again and again the record has a slack: the others wait so much longer, and a request that moves
the moment by no more is not written. What was fired is told under a key of its own, with the offset of the timer's record: it
cannot undo a timer that was armed meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Final

from core.background_tasks import BackgroundTasks
from core.control.control_table import Place
from core.control.reading import SKEW_MS
from core.control.writing import Write, known
from core.errors import ControlUnavailable, RequestError
from core.log_throttle import QuietLog
from core.messages.control_records import (
    FIRED,
    TIMER,
    Fired,
    Timer,
    control_key,
    read_fired,
    read_timer,
    write_control,
)

log = logging.getLogger("gateway.control")

# The slack of a timer that was set again within so long.
SLACK_MS: Final = 1000
AGAIN_MS: Final = 2000
# Of instances that did not take the request: between one and two of these.
STAGGER_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 0.5
# Timers that are written before others have their turn.
PIECE: Final = 100
# Users whose orders are cancelled at the same time.
AT_ONCE: Final = 32


@dataclass(slots=True, eq=False)
class _Armed:
    """What the topic says of a user. `due`: when an instance that knows no more fires it, by the monotonic clock."""

    place: Place
    timer: Timer
    due: float
    is_firing: bool = False


@dataclass(slots=True, eq=False)
class _Own:
    """The last request that this instance took of a user."""

    trigger_ms: int
    due: float
    taken_ms: int


@dataclass(slots=True, eq=False)
class _Writing:
    """A record on its way. `timer`: None of one that disarms."""

    timer: Timer | None
    done: asyncio.Future[Any]


class CancelTimers:
    """Every user's timer. `look` has to be called often."""

    def __init__(
        self,
        write: Write,
        *,
        me: str,
        why_not: Callable[[], str | None],
        to_end: Callable[[], Awaitable[None]],
        cancel_all: Callable[[str], Awaitable[list[str]]],
        count: Callable[[str], None],
        say_alive: Callable[[], Awaitable[object]],
        age: Callable[[int], float],
        is_live: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`me` is this process's name and no other's. `why_not` says why no timer can be set now; None: it can.

        `to_end` waits until all is read that is on the topic; it and `cancel_all` raise RequestError. `count` counts
        `written`, `joined` (a request that needed no record), `fired` and `failed` (an attempt at firing). `say_alive`: see `Instances.say`, `age`: `BrokerClock`,
        `is_live`: `Reading`.
        """
        self._write_record = write
        self._me = me
        self._why_not = why_not
        self._to_end = to_end
        self._cancel_all = cancel_all
        self._count = count
        self._say_alive = say_alive
        self._age = age
        self._is_live = is_live
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._chance = chance
        self._armed: dict[str, _Armed] = {}
        self._fired: dict[str, tuple[int, Fired]] = {}
        self._own: dict[str, _Own] = {}
        self._writing: dict[str, _Writing] = {}
        # Whose timers were read long after they were appended, perhaps: to be looked at again once it is known how long.
        self._old: set[str] = set()
        self._dating: asyncio.Task[None] | None = None
        # When to look at a user's timer; only the entry that `_looks_at` names counts.
        self._agenda: list[tuple[float, str]] = []
        self._looks_at: dict[str, float] = {}
        self._sweep: asyncio.Task[None] | None = None
        self._tasks = BackgroundTasks()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._quiet_log = QuietLog(log)
        self._could_be_used = False
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._armed)

    async def set(self, user_id: str, timeout_seconds: int) -> int | None:
        """Cancel the user's orders in so many seconds, instead of when it was said before; 0: not at all.

        The moment, in milliseconds since the Unix epoch. Raises BusUnavailable and ControlUnavailable where what was said before
        holds, ControlUnknown where either may.
        """
        reason = self._why_not()
        if reason is not None:
            raise ControlUnavailable(reason)
        if timeout_seconds == 0:
            await self._write(user_id, None)
            self._own.pop(user_id, None)
            return None
        taken_ms = int(self._clock() * 1000)
        trigger_ms = taken_ms + timeout_seconds * 1000
        own = _Own(trigger_ms, self._monotonic() + timeout_seconds, taken_ms)
        writing = self._writing.get(user_id)
        if writing is not None and writing.timer is not None and writing.timer.covers(trigger_ms):
            await known(asyncio.shield(writing.done))
            self._count("joined")
        elif self._is_written(user_id, trigger_ms):
            self._count("joined")
        else:
            before = self._own.get(user_id)
            slack_ms = SLACK_MS if before is not None and taken_ms - before.taken_ms <= AGAIN_MS else 0
            await self._write(user_id, Timer(trigger_ms, timeout_seconds * 1000, slack_ms, self._me))
        self._own[user_id] = own
        self._look_again(user_id)
        return trigger_ms

    def extend(self, user_id: str, timeout_seconds: int, may: Callable[[], bool]) -> int | None:
        """As `set`, at once, where that needs no record; else None, and nothing is done. `may` is asked last.

        What clients say again and again has to be cheap: without a task it costs half, and whether the topic can be used is
        what was so at the last `look`.
        """
        taken_ms = int(self._clock() * 1000)
        trigger_ms = taken_ms + timeout_seconds * 1000
        if timeout_seconds == 0 or not self._is_written(user_id, trigger_ms) or not self._could_be_used or not may():
            return None
        self._count("joined")
        due = self._monotonic() + timeout_seconds
        own = self._own.get(user_id)
        if own is None:
            self._own[user_id] = _Own(trigger_ms, due, taken_ms)
        else:
            own.trigger_ms, own.due, own.taken_ms = trigger_ms, due, taken_ms
        self._look_at(user_id, due)
        return trigger_ms

    def _is_written(self, user_id: str, trigger_ms: int) -> bool:
        """Whether the user's record on the topic, which nobody is about to change, is this process's and covers this moment."""
        armed = self._armed.get(user_id)
        return (
            armed is not None
            and armed.timer.covers(trigger_ms)
            and armed.timer.by == self._me
            and user_id not in self._writing
            and not armed.is_firing
        )

    async def _write(self, user_id: str, timer: Timer | None) -> None:
        done = self._write_record(control_key(TIMER, user_id), None if timer is None else write_control(timer))
        writing = self._writing[user_id] = _Writing(timer, done)
        try:
            # Its fate does not hang on whether the client waits for it.
            await known(asyncio.shield(done))
            self._count("written")
        finally:
            if self._writing.get(user_id) is writing:
                del self._writing[user_id]

    # What the topic says.

    def take_timer(self, place: Place, user_id: str, value: bytes | None) -> None:
        """A timer was armed, or with None disarmed. Raises PoisonedRecord."""
        timer = None if value is None else read_timer(value)
        before, own = self._armed.pop(user_id, None), self._own.get(user_id)
        is_mine = timer is not None and timer.by == self._me
        if not is_mine and own is not None and before is not None and before.timer.by == self._me:
            # Not written, for what was on the topic covered it; and it was taken after what is there now.
            if own.trigger_ms != before.timer.trigger_ms and own.taken_ms > place.time_ms:
                self._tasks.start(self._write_again(user_id, own, SLACK_MS))
            else:
                del self._own[user_id]
        if timer is not None and not _is_spent(place, timer, self._fired.get(user_id)):
            is_old = not self._is_live()
            self._armed[user_id] = _Armed(place, timer, self._due_of_others(place, timer, is_old))
            if is_old and place.appended_ms is not None:
                self._old.add(user_id)
            else:
                self._old.discard(user_id)
            self._look_again(user_id)

    def take_fired(self, place: Place, user_id: str, value: bytes | None) -> None:
        """A timer was fired. Raises PoisonedRecord."""
        if value is None:
            self._fired.pop(user_id, None)
            return
        self._fired[user_id] = place.partition, read_fired(value)
        armed = self._armed.get(user_id)
        if armed is not None and _is_spent(armed.place, armed.timer, self._fired[user_id]):
            del self._armed[user_id]
            self._own.pop(user_id, None)

    def forget(self, partition: int) -> None:
        """What this partition said is not known any more."""
        self._armed = {user: armed for user, armed in self._armed.items() if armed.place.partition != partition}
        self._fired = {user: fired for user, fired in self._fired.items() if fired[0] != partition}

    async def hand_over(self) -> None:
        """This process is about to end: write when exactly those timers fire that were set again and not written."""
        under_way = []
        for user_id, own in list(self._own.items()):
            armed = self._armed.get(user_id)
            if armed is not None and armed.timer.slack_ms and self._is_written(user_id, own.trigger_ms):
                under_way.append(self._tasks.start(self._write_again(user_id, own, 0)))
                if len(under_way) % PIECE == 0:
                    await asyncio.sleep(0)
        if under_way:
            await asyncio.wait(under_way)

    async def _write_again(self, user_id: str, own: _Own, slack_ms: int) -> None:
        left_ms = max(0, int((own.due - self._monotonic()) * 1000))
        try:
            await self._write(user_id, Timer(own.trigger_ms, left_ms, slack_ms, self._me))
        except RequestError as error:
            log.warning("the timer of user %s was not written again: %s", user_id, error)

    def _due_of_others(self, place: Place, timer: Timer, is_old: bool) -> float:
        now = self._monotonic()
        seconds = timer.timeout_ms / 1000 + STAGGER_SECONDS * (1 + self._chance())
        if is_old and place.appended_ms is not None:
            seconds -= self._age(place.appended_ms)
        elif is_old:
            seconds = min(seconds, (timer.trigger_ms + SKEW_MS) / 1000 - self._clock())
        return now + timer.slack_ms / 1000 + seconds

    async def _date_old(self) -> None:
        """Learn what time it is by the brokers' clock, and from that when those are due that were read long after."""
        try:
            await known(self._say_alive())
            await self._to_end()
        except RequestError as error:
            self._quiet_log.warning("old", "how old timers of %d users are is asked again: %s", len(self._old), error)
            await self._sleep(RETRY_SECONDS)
        else:
            old, self._old = self._old, set()
            for number, user_id in enumerate(old, 1):
                armed = self._armed.get(user_id)
                if armed is not None:
                    armed.due = self._due_of_others(armed.place, armed.timer, is_old=True)
                    self._look_again(user_id)
                if number % PIECE == 0:
                    await asyncio.sleep(0)
        finally:
            self._dating = None

    def _due(self, user_id: str, armed: _Armed) -> float:
        own = self._own.get(user_id)
        if own is not None and armed.timer.by == self._me and armed.timer.covers(own.trigger_ms):
            return own.due
        return armed.due

    # Firing.

    def _look_again(self, user_id: str) -> None:
        """What is known of the user is another now."""
        armed = self._armed.get(user_id)
        if armed is not None:
            self._look_at(user_id, self._due(user_id, armed))

    def _look_at(self, user_id: str, moment: float) -> None:
        """At this moment or earlier."""
        if moment < self._looks_at.get(user_id, float("inf")):
            self._looks_at[user_id] = moment
            heappush(self._agenda, (moment, user_id))

    def look(self) -> None:
        """Fire what is due."""
        self._could_be_used = self._why_not() is None
        if self._old and self._could_be_used and self._dating is None and not self._is_stopped:
            self._dating = self._tasks.start(self._date_old())
        agenda, now = self._agenda, self._monotonic()
        if not agenda or agenda[0][0] > now or self._sweep is not None or self._is_stopped:
            return
        due = []
        while agenda and agenda[0][0] <= now:
            moment, user_id = heappop(agenda)
            if self._looks_at.get(user_id) != moment:
                continue
            del self._looks_at[user_id]
            armed = self._armed.get(user_id)
            if armed is None or armed.is_firing:
                continue
            at = self._due(user_id, armed)
            if at > now:
                self._look_at(user_id, at)
            else:
                due.append(user_id)
        if due:
            self._sweep = self._tasks.start(self._fire_due(due))

    def stop(self) -> None:
        """Fire no more. What is under way is given up, and is the others'."""
        self._is_stopped = True
        self._tasks.stop()

    async def _fire_due(self, users: list[str]) -> None:
        try:
            await self._to_end()
        except RequestError as error:
            self._quiet_log.warning("due", "timers of %d users are due, and wait: %s", len(users), error)
            again = self._monotonic() + RETRY_SECONDS
            for user_id in users:
                self._look_at(user_id, again)
            return
        finally:
            self._sweep = None
        now = self._monotonic()
        for user_id in users:
            armed = self._armed.get(user_id)
            if armed is None or armed.is_firing:
                continue
            due = self._due(user_id, armed)
            if due > now or user_id in self._writing:  # what is being written may move it
                self._look_at(user_id, max(due, now + RETRY_SECONDS / 10))
                continue
            armed.is_firing = True
            self._tasks.start(self._fire(user_id, armed, due))

    async def _fire(self, user_id: str, armed: _Armed, due: float) -> None:
        async with self._at_once:
            cancelled = await self._until_done(user_id, armed, lambda: self._cancel_all(user_id))
        if cancelled is None:
            return
        self._count("fired")
        late = self._monotonic() - due
        log.info("cancel_all_after of user %s: %d orders cancelled, %.3f s late", user_id, len(cancelled), late)
        fired = write_control(Fired(armed.place.offset, armed.timer.trigger_ms))

        async def tell() -> list[str]:
            await known(self._write_record(control_key(FIRED, user_id), fired))
            return []

        await self._until_done(user_id, armed, tell)

    async def _until_done(
        self, user_id: str, armed: _Armed, attempt: Callable[[], Awaitable[list[str]]]
    ) -> list[str] | None:
        """What came of it; None where somebody else has fired the timer meanwhile."""
        while not _is_spent(armed.place, armed.timer, self._fired.get(user_id)):
            try:
                return await attempt()
            except RequestError as error:
                self._quiet_log.warning(user_id, "cancel_all_after of user %s is tried again: %s", user_id, error)
            except Exception as error:
                self._quiet_log.fault(user_id, error, "cancel_all_after of user %s is tried again", user_id)
            self._count("failed")
            await self._sleep(RETRY_SECONDS)
        return None


def _is_spent(place: Place, timer: Timer, fired: tuple[int, Fired] | None) -> bool:
    """Whether this very record was fired. Its moment as well: offsets begin anew with the topic."""
    return fired is not None and place.offset <= fired[1].offset and timer.trigger_ms <= fired[1].trigger_ms
