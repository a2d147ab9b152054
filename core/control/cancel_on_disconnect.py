"""Cancel on disconnect: a connection's orders are cancelled some seconds after its end, unless their user has come back meanwhile
(docs/contract.md#cancel-on-disconnect).

A connection that has it set is one record on the control topic, which names the process that holds it, so whoever lives does what
is to be done; which orders are a connection's, their own records say. docs/decisions.md has the reasons.

    held     by a process that lives: nothing happens. One that is gone (`core.control.instances`) is as if it had ended all of its own
    ended    its client has gone, and has so many seconds to come back. The process where it ended cancels first, others a moment later
    none     forgotten: switched off, without an order, or cancelled

Who comes back is another held connection of the user's that was set after the end of this one, by the order of their records and no
clock: where that is held, this one is held from then on, too. Whoever cancels reads the topic to its end first. What others made of
a connection while this process stood still ends it here: its client comes back as after any other end.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from core.background_tasks import BackgroundTasks
from core.control.control_table import Place
from core.control.due_cancels import DueCancels
from core.control.instances import Instances
from core.control.known_connections import Known, KnownConnections
from core.control.writing import Write, known
from core.errors import BusUnavailable, ControlUnavailable, RequestError
from core.log_throttle import QuietLog
from core.messages.control_records import CONNECTION, Held, control_key, read_held, write_control

log = logging.getLogger("gateway.control")

# Of the grace: from one sign of life to the next, and so much before its end those of a dead process are cancelled.
BEAT_PART: Final = 0.1
BEAT_SECONDS: Final = 1.0
# Of instances at which the connection did not end: between one and two of these.
STAGGER_SECONDS: Final = 0.25
# Of where the topic was at each sign of life: as far back as a silent client is waited for, and more.
POSITIONS: Final = 900


def beat_seconds(grace_seconds: float) -> float:
    """From one sign of life of an instance to its next."""
    return min(BEAT_SECONDS, grace_seconds * BEAT_PART)


@dataclass(slots=True, eq=False)
class HeldConnection:
    """One of this process's. `end` closes it, for others took it for gone; `orders`: those that do not name it."""

    name: str
    user_id: str | None
    end: Callable[[], None]
    orders: dict[str, None] = field(default_factory=dict)
    set_at: int | None = None
    # Those that it took over, with such orders of theirs.
    taken_over: dict[str, tuple[str, ...]] = field(default_factory=dict)


class _Ending(NamedTuple):
    """One that has ended here, and when its orders are cancelled."""

    held: Held
    due: float


class CancelOnDisconnect:
    """Every connection that has it set. `look` has to be called often."""

    def __init__(
        self,
        write: Write,
        instances: Instances,
        *,
        grace_seconds: float,
        is_usable: Callable[[], bool],
        why_not: Callable[[], str | None],
        position: Callable[[], int],
        to_end: Callable[[], Awaitable[None]],
        has_open: Callable[[str, Held], Awaitable[bool]],
        cancel: Callable[[str, Held], Awaitable[int]],
        count: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`is_usable`: whether there is such a topic; `why_not` says why nothing can be said on it now; None: it can.

        `position` is the offset that is read next; `to_end` waits until all is read that is there. `has_open` and `cancel` are about
        a connection's open orders, the latter tells how many; these three raise RequestError. `count` counts `cancelled` (connections), `taken_over`
        and `failed` (an attempt at cancelling).
        """
        self._write = write
        self._instances = instances
        self._me = instances.me
        self._grace_seconds = grace_seconds
        # Who was silent for so long is gone.
        self._lease_seconds = grace_seconds - instances.beat_seconds
        self._is_usable = is_usable
        self._why_not = why_not
        self._position = position
        self._to_end = to_end
        self._has_open = has_open
        self._count = count
        self._monotonic = monotonic
        self._chance = chance
        self._numbers = 0
        # What the topic says.
        self._known = KnownConnections()
        self._is_caught_up = False
        # What this process says: of the connections that it has, also of those that they took over; of those that ended here.
        self._own: dict[str, HeldConnection] = {}
        self._ending: dict[str, _Ending] = {}
        self._dropped: set[str] = set()
        # Those that this process has forgotten, or may have, until that is read: it is nobody else's doing.
        self._released: set[str] = set()
        # What is still to be written.
        self._unwritten: set[str] = set()
        self._taking_over: dict[str, HeldConnection] = {}
        self._tasks = BackgroundTasks()
        self._due = DueCancels(
            self._tasks,
            over=self._over,
            has_heir=self._look_for_heir,
            to_end=self._read_to_end,
            cancel=cancel,
            on_cancelled=self._drop,
            count=count,
            monotonic=monotonic,
            sleep=sleep,
        )
        self._positions: deque[tuple[float, int]] = deque(maxlen=POSITIONS)
        self._drained_at: int | None = None
        self._is_stopped = False
        self._quiet_log = QuietLog(log)

    def __len__(self) -> int:
        return len(self._known)

    @property
    def is_usable(self) -> bool:
        """Whether there is a topic to say it on; else each process cancels what is its own."""
        return self._is_usable()

    def knows(self, name: str) -> bool:
        """Whether a connection's orders are cancelled yet, or kept by whoever took it over."""
        return name in self._known or name in self._ending or name in self._own

    # What connections ask for.

    def connection(self, user_id: str | None, end: Callable[[], None]) -> HeldConnection:
        """One that is about to be held, under a name that no other has or had."""
        self._numbers += 1
        return HeldConnection(f"{self._me}-{self._numbers}", user_id, end)

    async def hold(self, connection: HeldConnection) -> None:
        """Its orders are cancelled with it from now on, and so are those of the user's that ended and are not cancelled yet.

        Raises BusUnavailable and ControlUnavailable where what was said before holds, ControlUnknown where either may.
        """
        reason = self._why_not()
        if reason is not None:
            raise ControlUnavailable(reason)
        name = connection.name
        was_held = name in self._own
        others = self._known.of_user(connection.user_id) - {name, *connection.taken_over}
        if was_held and not others and name not in self._unwritten:
            said = self._known.get(name)
            if said is not None and said.held._replace(set_at=connection.set_at) == self._said(name):
                return
        self._own[name] = connection
        connection.set_at = None  # it is set anew
        try:
            await known(asyncio.shield(self._put(name)))
        except BusUnavailable:
            if not was_held:
                self._own.pop(name, None)
                self._unwritten.discard(name)
            raise

    async def release(self, connection: HeldConnection) -> None:
        """Its orders stay, and those of the connections that it took over. Raises as `hold`."""
        reason = self._why_not()
        if reason is not None:
            raise ControlUnavailable(reason)
        names = [name for name in (connection.name, *connection.taken_over) if name in self._own]
        self._released.update(names)
        results = await asyncio.gather(*map(self._forgotten, names), return_exceptions=True)
        for failed in (result for result in results if isinstance(result, BaseException)):
            raise failed
        for name in names:
            # What is read already is not here any more.
            if self._own.pop(name, None) is not None:
                self._dropped.add(name)

    async def _forgotten(self, name: str) -> None:
        try:
            await known(asyncio.shield(self._put(name, is_dropped=True)))
        except BusUnavailable:
            self._released.discard(name)
            raise

    def add(self, connection: HeldConnection, order_id: str) -> None:
        """An order that does not name it is one of its own, too; it may have ended."""
        connection.orders[order_id] = None
        ending = self._ending.get(connection.name)
        if ending is not None:
            self._ending[connection.name] = ending._replace(held=ending.held._replace(orders=tuple(connection.orders)))
        if ending is not None or connection.name in self._own:
            self._unwritten.add(connection.name)

    def leave(self, connection: HeldConnection, *, has_orders: bool, silent_seconds: float = 0.0) -> None:
        """It has ended: so long ago its client was last seen. `has_orders`: it may have open ones."""
        if self._drained_at is not None:
            ended = self._drained_at
        else:
            ended = self._position_at(self._monotonic() - silent_seconds) if silent_seconds else self._position()
        for name in (connection.name, *connection.taken_over):
            held = self._said(name) or Held(connection.user_id, self._me)
            was_held = self._own.pop(name, None) is not None
            if not was_held and (name != connection.name or name in self._known):
                continue  # another has it
            if was_held and name == connection.name and not has_orders and not connection.orders:
                self._drop(name)
            else:
                self._end(name, held._replace(ended=ended))

    def _position_at(self, moment: float) -> int:
        """Where the topic was then, or a little before."""
        for at, position in reversed(self._positions):
            if at <= moment:
                return position
        return 0

    # What is written.

    def _said(self, name: str) -> Held | None:
        """What this process has to say of one."""
        connection = self._own.get(name)
        if connection is not None:
            is_own = name == connection.name
            orders = tuple(connection.orders) if is_own else connection.taken_over.get(name, ())
            return Held(connection.user_id, self._me, orders, connection.set_at)
        ending = self._ending.get(name)
        return None if ending is None else ending.held

    def _put(self, name: str, *, is_dropped: bool = False) -> asyncio.Future[Any]:
        """Say it on the topic; what comes of that. Raises BusUnavailable."""
        said = None if is_dropped else self._said(name)
        self._unwritten.discard(name)
        return self._write(control_key(CONNECTION, name), None if said is None else write_control(said))

    def _put_soon(self, name: str) -> None:
        """Now, and again if it is not there."""
        try:
            written = self._put(name)
        except RequestError as error:
            self._put_later(name, error)
        else:
            self._tasks.start(self._put_known(name, written))

    async def _put_known(self, name: str, written: asyncio.Future[Any]) -> None:
        try:
            await known(written)
        except RequestError as error:
            self._put_later(name, error)

    def _put_later(self, name: str, error: RequestError) -> None:
        self._unwritten.add(name)
        self._quiet_log.warning("put", "what became of connection %s is said again: %s", name, error)

    def _put_unwritten(self) -> None:
        if self._unwritten and self._why_not() is None:
            unwritten, self._unwritten = self._unwritten, set()
            for name in unwritten:
                if self._said(name) is not None or name in self._dropped:
                    self._put_soon(name)

    def _drop(self, name: str) -> None:
        self._ending.pop(name, None)
        self._due.drop(name)
        self._dropped.add(name)
        self._put_soon(name)

    def _end(self, name: str, held: Held) -> None:
        due = self._monotonic() + self._grace_seconds
        self._ending[name] = _Ending(held, due)
        self._due.set(name, due)
        self._put_soon(name)

    # What is read.

    def take(self, place: Place, name: str, value: bytes | None) -> None:
        """What is said of a connection. Raises PoisonedRecord."""
        held = None if value is None else read_held(value)
        self._known.drop(name)
        if held is None or held.by != self._me:
            self._dropped.discard(name)
        if held is None:
            if self._is_caught_up:
                self._ending.pop(name, None)
            if name not in self._ending:
                self._due.drop(name)
        else:
            said = Known(held, place.offset if held.set_at is None else held.set_at, self._monotonic())
            self._known.put(name, said)
            if held.by != self._me and self._is_caught_up:
                self._ending.pop(name, None)
                self._taking_over.pop(name, None)
            if name not in self._ending:
                if held.ended is None:
                    self._due.drop(name)
                else:
                    stagger_seconds = STAGGER_SECONDS * (1 + self._chance())
                    self._due.set(name, said.read_at + self._grace_seconds + stagger_seconds)
        if self._is_caught_up:
            self._heard(name)
        if held is None:
            self._released.discard(name)

    def forget(self) -> None:
        """The topic is read anew."""
        self._is_caught_up = False
        self._known.clear()
        self._positions.clear()
        self._instances.forget()
        self._due.keep({name: ending.due for name, ending in self._ending.items()})

    def _caught_up(self) -> None:
        """All is read: what is not there any more has to be said again."""
        self._is_caught_up = True
        for name in (*self._own, *self._ending, *self._taking_over):
            if (said := self._known.get(name)) is not None:
                if said.held.by != self._me:
                    self._ending.pop(name, None)
                self._heard(name)
                continue
            self._unwritten.add(name)
            # Its offsets are those of another life of the topic.
            if (connection := self._own.get(name)) is not None:
                connection.set_at = None
            if (ending := self._ending.get(name)) is not None:
                self._ending[name] = ending._replace(held=ending.held._replace(set_at=None, ended=0))
        for name in self._known.at(self._me) - self._own.keys() - self._ending.keys() - self._dropped:
            self._end(name, self._known[name].held._replace(ended=0))
        for name in self._due:
            self._look_for_heir(name)

    def _heard(self, name: str) -> None:
        """What follows from what is said of one now."""
        said, connection = self._known.get(name), self._own.get(name)
        is_held_here = said is not None and said.held.by == self._me and said.held.ended is None
        if connection is None:
            successor = self._taking_over.pop(name, None) if is_held_here else None
            if successor is not None and said is not None:
                self._took_over(name, successor, said.held)
        elif not is_held_here:
            del self._own[name]
            connection.taken_over.pop(name, None)
            if name == connection.name and not (said is None and name in self._released):
                log.warning("connection %s was taken for gone by another instance: it is closed", name)
                asyncio.get_running_loop().call_soon(connection.end)
        elif said is not None and name == connection.name:
            connection.set_at = said.set_at
            for other in list(self._known.of_user(said.held.user_id)):
                self._look_for_heir(other)
        if said is not None and said.held.ended is not None:
            self._look_for_heir(name)

    def _took_over(self, name: str, connection: HeldConnection, held: Held) -> None:
        self._ending.pop(name, None)
        self._due.drop(name)
        self._count("taken_over")
        if connection.name in self._own:
            self._own[name] = connection
            connection.taken_over[name] = held.orders
        else:  # it has ended meanwhile itself
            self._end(name, held._replace(ended=self._position()))

    # Who comes back.

    def _over(self, name: str) -> Held | None:
        """What is known of a connection that has ended, at once or with its process; None if it has not."""
        ending, said = self._ending.get(name), self._known.get(name)
        if ending is not None:
            return ending.held
        if said is None or said.held.ended is not None:
            return None if said is None else said.held
        return said.held if self._is_gone(said) else None

    def _is_gone(self, said: Known) -> bool:
        return self._instances.is_gone(said.held.by, self._lease_seconds, said.read_at)

    def _heir(self, name: str, held: Held) -> str | None:
        """The connection that was set last of those of the same user that were set since."""
        since = self._instances.last_offset(held.by) + 1 if held.ended is None else held.ended
        heirs = [
            (said.set_at, other)
            for other in self._known.of_user(held.user_id)
            if other != name
            and other not in self._ending
            and (said := self._known[other]).held.ended is None
            and said.set_at >= since
            and not self._is_gone(said)
        ]
        return max(heirs)[1] if heirs else None

    def _look_for_heir(self, name: str) -> bool:
        """Whether there is one, who takes over if that is one of this process's."""
        held = self._over(name)
        heir = None if held is None else self._heir(name, held)
        if held is None or heir is None:
            return False
        connection = self._own.get(heir)
        if connection is not None and name not in self._taking_over and not self._due.is_under_way(name):
            self._taking_over[name] = connection
            self._tasks.start(self._take_over(name, connection, held))
        return True

    async def _take_over(self, name: str, connection: HeldConnection, held: Held) -> None:
        try:
            if await self._has_open(name, held):
                taken = Held(held.user_id, self._me, held.orders, connection.set_at)
                await known(self._write(control_key(CONNECTION, name), write_control(taken)))
                return  # once it is read, it is so
            await known(self._write(control_key(CONNECTION, name), None))
        except RequestError as error:
            self._quiet_log.warning(name, "connection %s is not taken over yet: %s", name, error)
        self._taking_over.pop(name, None)

    # Time passes.

    def look(self) -> None:
        """Say that this process lives, and cancel what is due."""
        if self._is_stopped or not (self._known or self._own or self._ending):
            return
        if not self._is_caught_up and self._why_not() is None:
            self._caught_up()
        now = self._monotonic()
        if self._instances.beat():
            self._positions.append((now, self._position()))
            self._put_unwritten()
            for process in self._known.processes():
                if self._instances.is_gone(process, self._lease_seconds, 0.0):
                    self._due.begin([name for name in self._known.at(process) if self._over(name) is not None])
        self._due.look(now)

    async def _read_to_end(self) -> None:
        if self._is_usable():
            await self._to_end()

    # The end of this process.

    def drain(self) -> None:
        """What ends from now on ends by this process's doing: whoever has come back since the beginning has come back."""
        if self._drained_at is None:
            self._drained_at = self._position()
            self._instances.is_leaving = True

    async def hand_over(self) -> None:
        """Leave what has ended to others; what nobody else would do is done now. Raises nothing."""
        self.drain()
        if self._known or self._ending:
            try:
                await known(self._instances.say())
                await self._to_end()
            except RequestError as error:
                log.warning("whether another instance lives is not known: %s", error)
            if not self._instances.has_heir:
                self._due.begin_last((*self._ending, *self._due))
        await self._tasks.finish()

    def stop(self) -> None:
        """Cancel no more: what is under way is given up, and is the others'."""
        self._is_stopped = True
        self._tasks.stop()
