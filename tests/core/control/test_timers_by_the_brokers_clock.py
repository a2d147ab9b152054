"""Timers that are read long after they were written, by the brokers' clock; by the virtual clock of `timer_world`."""

from __future__ import annotations

import pytest

from core.control import cancel_timers
from core.errors import BusUnavailable
from tests.core.control.timer_world import EPOCH, World, set_twice
from tests.core.fakes import run

USER = "alice"


@pytest.mark.parametrize("chance", [0.0, 0.999])
@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
@pytest.mark.parametrize("slack", [0.0, 1.0])
def test_fleet_that_was_killed_fires_by_the_brokers_clock_once_it_is_back(
    slack: float, ahead: float, chance: float
) -> None:
    async def scene() -> None:
        world = World()
        world.brokers_ahead = 77.0
        a = world.instance("a")
        if slack:
            await set_twice(world, a, USER, 5)
        else:
            await a.timers.set(USER, 5)
            await world.beat()
        moment = world.now + 5
        a.is_stopped = True
        await world.pass_until(3)
        b = world.instance("b", ahead=ahead, chance=chance)
        await world.pass_until(9)
        assert world.who() == ["b"]
        assert moment + slack <= world.moments()[0] <= moment + slack + 0.6
        assert len(b.timers) == 0

    run(scene())


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 3600.0])
def test_fleet_that_comes_back_after_the_moment_fires_at_once_by_the_brokers_clock(ahead: float) -> None:
    async def scene() -> None:
        world = World()
        world.brokers_ahead = 77.0
        a = world.instance("a")
        await set_twice(world, a, USER, 5)
        a.is_stopped = True
        await world.pass_until(7)
        world.instance("b", ahead=ahead)
        await world.pass_until(9)
        assert world.cancelled == [("b", USER, pytest.approx(7.05, abs=0.11))]

    run(scene())


def test_how_old_a_timer_is_is_asked_again_where_it_cannot_be_told_and_of_none_that_was_set_meanwhile() -> None:
    async def scene() -> None:
        world = World()
        world.brokers_ahead = 0.0
        a = world.instance("a")
        for user_id in (USER, "bob", "carol"):
            await a.timers.set(user_id, 5)
        a.is_stopped = True
        await world.pass_until(4)
        b = world.instance("b")
        b.write_refused = [BusUnavailable("away")]
        await world.pass_until(4.3)
        assert await b.timers.set("bob", 60) == int((EPOCH + 64.3) * 1000)
        assert await b.timers.set("carol", 0) is None
        await world.pass_until(9)
        assert [user_id for _, user_id, _ in world.cancelled] == [USER]
        assert 5.0 <= world.moments()[0] <= 5.6
        assert (len(b.timers), b.write_refused) == (1, [])

    run(scene())


def test_brokers_are_asked_once_for_all_timers_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel_timers, "PIECE", 3)

    async def scene() -> None:
        world = World()
        world.brokers_ahead = 0.0
        a = world.instance("a")
        for number in range(10):
            await a.timers.set(f"user {number}", 5)
        a.is_stopped = True
        await world.pass_until(4)
        world.instance("b")
        await world.pass_until(4.5)
        assert [key for _, key, _ in world.topic[10:]] == [b"alive/b"]
        await world.pass_until(6)
        assert len(world.cancelled) == 10

    run(scene())


def test_instance_that_is_about_to_end_asks_the_brokers_without_saying_that_it_stays() -> None:
    async def scene() -> None:
        world = World()
        world.brokers_ahead = 0.0
        a = world.instance("a")
        await a.timers.set(USER, 5)
        a.is_stopped = True
        await world.pass_until(4)
        b = world.instance("b")
        b.living.is_leaving = True
        await world.pass_until(4.5)
        assert [key for _, key, _ in world.topic[1:]] == [b"leaving/b"]

    run(scene())
