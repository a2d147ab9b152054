"""Instances with timers on one topic, all of it on a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections import Counter

from core.control.broker_clock import BrokerClock
from core.control.cancel_on_disconnect import CancelOnDisconnect, HeldConnection, beat_seconds
from core.control.cancel_timers import CancelTimers
from core.control.control_table import ControlTable
from core.control.instances import Instances
from core.control.reading import Reading
from core.errors import BusUnavailable, PoisonedRecord, RequestError, StillBehind
from core.messages.control_records import ALIVE, CONNECTION, FIRED, LEAVING, TIMER, Held
from core.messages.feed_record import KeyedRecord
from core.orders.connection_cancels import ConnectionCancels
from tests.core.fakes import turns

EPOCH = 1_700_000_000.0
GRACE = 10.0
SETTLED = 5.0
Said = tuple[float, bytes, bytes | None]


class World:
    """The topic, a moment, and what was cancelled: by whom, whose and when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.topic: list[Said] = []
        self.instances: list[Instance] = []
        self.cancelled: list[tuple[str, str, float]] = []
        self.is_away = False
        # Of the brokers' clock, where records have their time; None: they have their writer's.
        self.brokers_ahead: float | None = None
        # By connection, how many open orders it has.
        self.orders: Counter[str] = Counter()

    def instance(self, name: str, *, ahead: float = 0.0, chance: float = 0.0) -> Instance:
        instance = Instance(self, name, ahead, chance)
        self.instances.append(instance)
        return instance

    async def pass_until(self, moment: float, step: float = 0.05) -> None:
        """Time passes, and everybody who runs beats."""
        while self.now < moment - 1e-9:
            self.now = min(moment, self.now + step)
            await self.beat()

    async def beat(self) -> None:
        for instance in self.instances:
            if not instance.is_stopped:
                instance.beat()
        await turns(12)

    def moments(self) -> list[float]:
        return [round(moment, 3) for _, _, moment in self.cancelled]

    def who(self) -> list[str]:
        return [name for name, _, _ in self.cancelled]


class Instance:
    """One. `is_stopped`: it is dead, or stands still. `held`: what it writes waits for these. `unacknowledged`: it is there, and
    acknowledged when these end."""

    def __init__(self, world: World, name: str, ahead: float, chance: float) -> None:
        self.world = world
        self.name = name
        self.is_stopped = False
        self.position = 0
        self.counts: Counter[str] = Counter()
        self.reason: str | None = None
        self.refused: list[Exception] = []  # what the next cancels are refused with
        self.write_refused: list[RequestError] = []
        self.held: list[asyncio.Future[None]] | None = None
        self.unacknowledged: list[asyncio.Future[None]] | None = None
        self.poisoned: list[PoisonedRecord] = []
        self.ahead = ahead
        self.is_read = False
        self.reading = Reading(
            lambda: self.is_read, clock=lambda: EPOCH + world.now + ahead, monotonic=lambda: 1000.0 + world.now
        )
        self.living = Instances(
            self.write, me=name, beat_seconds=beat_seconds(GRACE), monotonic=lambda: 1000.0 + world.now
        )
        broker_clock = BrokerClock(lambda: 1000.0 + world.now)
        self.timers = CancelTimers(
            self.write,
            me=name,
            why_not=lambda: self.reason,
            to_end=self._to_end,
            cancel_all=self._cancel_all,
            count=lambda what: self.counts.update((what,)),
            say_alive=self.living.say,
            age=broker_clock.age,
            is_live=self.reading.is_live,
            clock=lambda: EPOCH + world.now + ahead,
            monotonic=lambda: 1000.0 + world.now,
            sleep=self._sleep,
            chance=lambda: chance,
        )
        self.is_usable = True
        self.cancels: ConnectionCancels | None = None  # of real orders
        self.ended: list[str] = []  # connections that others took for gone
        self.disconnects = CancelOnDisconnect(
            self.write,
            self.living,
            grace_seconds=GRACE,
            is_usable=lambda: self.is_usable,
            why_not=lambda: self.reason or ("away" if world.is_away else None),
            position=lambda: self.position,
            to_end=self._to_end,
            has_open=self._has_open,
            cancel=self._cancel,
            count=lambda what: self.counts.update((what,)),
            monotonic=lambda: 1000.0 + world.now,
            sleep=self._sleep,
            chance=lambda: chance,
        )
        parts = {
            TIMER: self.timers.take_timer,
            FIRED: self.timers.take_fired,
            CONNECTION: self.disconnects.take,
            ALIVE: self.living.take_alive,
            LEAVING: self.living.take_leaving,
        }
        self.table = ControlTable(
            parts,
            self._forget,
            lambda error, _partition, _offset: self.poisoned.append(error),
            self.reading.check_time,
            broker_clock.heard,
        )
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []

    def _forget(self, partition: int) -> None:
        self.timers.forget(partition)
        self.disconnects.forget()

    def restart_reading(self) -> None:
        """From the topic's beginning on."""
        self.table.forget(0)
        self.position = 0

    async def _has_open(self, name: str, held: Held) -> bool:
        if self.refused:
            raise self.refused.pop(0)
        if self.cancels is not None:
            return await self.cancels.has_open(name, held.orders)
        return self.world.orders[name] > 0

    async def _cancel(self, name: str, held: Held) -> int:
        if self.refused:
            raise self.refused.pop(0)
        self.world.cancelled.append((self.name, name, self.world.now))
        if self.cancels is not None:
            return await self.cancels.cancel(name, held.orders)
        count = self.world.orders.pop(name, 0)
        return count + len(held.orders)

    async def connect(self, user_id: str | None = "alice", orders: int = 1) -> HeldConnection:
        """A client that has cancel on disconnect set, and so many open orders."""
        connection = self.disconnects.connection(user_id, lambda: self._end(connection))
        self.world.orders[connection.name] = orders
        await self.disconnects.hold(connection)
        await self.world.beat()
        return connection

    def _end(self, connection: HeldConnection) -> None:
        self.ended.append(connection.name)
        self.leave(connection)

    def leave(self, connection: HeldConnection, silent_seconds: float = 0.0) -> None:
        has_orders = self.world.orders[connection.name] > 0
        self.disconnects.leave(connection, has_orders=has_orders, silent_seconds=silent_seconds)

    async def _sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._sleeping.append((self.world.now + seconds, future))
        await future

    def write(self, key: str, value: bytes | None) -> asyncio.Future[None]:
        if self.world.is_away:
            raise BusUnavailable("away")
        if self.write_refused:
            raise self.write_refused.pop(0)
        ahead = self.ahead if self.world.brokers_ahead is None else self.world.brokers_ahead
        record = EPOCH + self.world.now + ahead, key.encode(), value
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.held is None:
            self.world.topic.append(record)
            if self.unacknowledged is None:
                future.set_result(None)
            else:
                self.unacknowledged.append(future)
            return future

        def done(_: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is None:
                self.world.topic.append(record)

        future.add_done_callback(done)
        self.held.append(future)
        return future

    async def _to_end(self) -> None:
        if self.world.is_away:
            raise StillBehind("away")
        self.read()

    async def _cancel_all(self, user_id: str) -> list[str]:
        if self.refused:
            raise self.refused.pop(0)
        self.world.cancelled.append((self.name, user_id, self.world.now))
        return ["order"]

    def read(self) -> None:
        while self.position < len(self.world.topic):
            time, key, value = self.world.topic[self.position]
            time_ms = int(time * 1000)
            appended_ms = None if self.world.brokers_ahead is None else time_ms
            self.table.take(KeyedRecord(0, self.position, time_ms, value, True).with_key(key, appended_ms))
            self.position += 1

    def beat(self) -> None:
        woken = [future for at, future in self._sleeping if at <= self.world.now]
        self._sleeping = [(at, future) for at, future in self._sleeping if at > self.world.now]
        for future in woken:
            if not future.done():
                future.set_result(None)
        if not self.world.is_away:
            self.read()
            self.is_read = True
        self.reading.beat()
        self.timers.look()
        self.disconnects.look()


async def set_twice(world: World, instance: Instance, user_id: str, seconds: int) -> None:
    """As by who does so again and again: from now, which is 0.1, on its record has a slack."""
    await instance.timers.set(user_id, seconds)
    world.now += 0.1
    await instance.timers.set(user_id, seconds)
    await world.beat()
    assert instance.counts["joined"] == 0


def world_of(*names: str) -> tuple[World, list[Instance]]:
    world = World()
    return world, [world.instance(name) for name in names]


async def settled(world: World) -> None:
    """Long enough that each has heard of the others."""
    await world.pass_until(world.now + SETTLED)


def last_said(world: World, name: str) -> bytes | None:
    return next(value for _, key, value in reversed(world.topic) if key == f"connection/{name}".encode())
