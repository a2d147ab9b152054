"""What becomes of the orders of connections whose instance was killed, or stood still."""

from __future__ import annotations

import pytest

from tests.core.control.timer_world import GRACE, SETTLED, World, settled, world_of
from tests.core.fakes import run, turns


@pytest.mark.parametrize("ahead", [-120.0, -1.0, 0.0, 1.0, 120.0])
@pytest.mark.parametrize("chance", [0.0, 0.999])
def test_orders_of_a_killed_instance_are_cancelled_by_another_within_the_grace(ahead: float, chance: float) -> None:
    async def scene() -> None:
        world = World()
        a, b = world.instance("a"), world.instance("b", ahead=ahead, chance=chance)
        connection = await a.connect()
        await settled(world)
        a.is_stopped = True
        await world.pass_until(SETTLED + GRACE - 2)
        assert world.cancelled == []
        await world.pass_until(SETTLED + GRACE)
        assert [(who, name) for who, name, _ in world.cancelled] == [("b", connection.name)]
        await world.pass_until(40)
        assert (len(world.cancelled), len(b.disconnects)) == (1, 0)

    run(scene())


@pytest.mark.parametrize("seconds", [0.1, 7.5])
def test_client_of_a_killed_instance_that_comes_back_within_the_grace_keeps_its_orders(seconds: float) -> None:
    async def scene() -> None:
        world, (a, b, c) = world_of("a", "b", "c")
        first = await a.connect()
        await settled(world)
        a.is_stopped = True
        await world.pass_until(SETTLED + seconds)
        second = await c.connect()
        await world.pass_until(60)
        assert (world.cancelled, list(second.taken_over), b.counts["taken_over"]) == ([], [first.name], 0)
        c.is_stopped = True  # and now that one's end counts
        await world.pass_until(80)
        assert {(who, name) for who, name, _ in world.cancelled} == {("b", first.name), ("b", second.name)}

    run(scene())


def test_connection_that_was_there_before_a_kill_takes_nothing_over() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        await b.connect()
        await settled(world)
        a.is_stopped = True
        await world.pass_until(30)
        assert [(who, name) for who, name, _ in world.cancelled] == [("b", first.name)]

    run(scene())


def test_who_ended_just_before_its_instance_was_killed_is_cancelled_by_another() -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        connection = await a.connect()
        await settled(world)
        a.leave(connection)
        await turns(12)
        a.is_stopped = True
        await world.pass_until(30)
        [(who, name, at)] = world.cancelled
        assert (who, name) == ("b", connection.name)
        assert SETTLED + GRACE <= at <= SETTLED + GRACE + 0.65

    run(scene())


def test_whole_fleet_that_was_killed_leaves_its_clients_a_grace_to_come_back_to_the_next() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        stays, back = await a.connect("alice"), await b.connect("bob")
        await settled(world)
        a.is_stopped = b.is_stopped = True
        await world.pass_until(1000)
        c = world.instance("c")
        await world.pass_until(1005)
        await c.connect("bob")
        await world.pass_until(1008)
        assert world.cancelled == []
        await world.pass_until(1011)
        assert [(who, name) for who, name, _ in world.cancelled] == [("c", stays.name)]
        await world.pass_until(1100)
        assert (len(world.cancelled), world.orders[back.name]) == (1, 1)

    run(scene())


def test_topic_that_nobody_can_write_makes_nobody_dead() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await a.connect()
        await b.connect("bob")
        await settled(world)
        world.is_away = True
        await world.pass_until(100)
        world.is_away = False
        await world.pass_until(200)
        assert (world.cancelled, a.ended, b.ended) == ([], [], [])

    run(scene())


def test_instance_that_stood_still_alone_takes_nobody_for_dead() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await a.connect()
        await settled(world)
        b.is_stopped = True
        await world.pass_until(100)
        b.is_stopped = False
        await world.pass_until(200)
        assert world.cancelled == []

    run(scene())


@pytest.mark.parametrize("returns", [False, True])
def test_instance_that_stood_still_over_the_grace_ends_its_connections_and_cancels_nothing_of_who_came_back(
    returns: bool,
) -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        await settled(world)
        a.is_stopped = True
        await world.pass_until(7)
        second = await b.connect() if returns else None
        await world.pass_until(25)
        assert [who for who, _, _ in world.cancelled] == ([] if returns else ["b"])
        a.is_stopped = False
        before = list(world.cancelled)
        world.orders[first.name] += 1  # what it had still in hand
        await world.pass_until(60)
        assert a.ended == [first.name]
        if second is None:
            assert world.cancelled == [*before, ("a", first.name, pytest.approx(35, abs=0.2))]
        else:
            assert (world.cancelled, list(second.taken_over)) == ([], [first.name])

    run(scene())


def test_end_that_is_told_by_who_stood_still_takes_nothing_from_who_has_come_back() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        await settled(world)
        a.is_stopped = True
        await world.pass_until(7)
        second = await b.connect()
        await world.pass_until(25)
        a.leave(first)  # before it has read anything
        a.is_stopped = False
        await world.pass_until(60)
        assert (world.cancelled, list(second.taken_over), b.ended) == ([], [first.name], [])

    run(scene())


def test_end_that_was_cancelled_meanwhile_takes_nothing_from_who_stood_still() -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        connection = await a.connect()
        await settled(world)
        a.leave(connection)
        await turns(12)
        a.is_stopped = True
        await world.pass_until(30)
        a.is_stopped = False
        await world.pass_until(60)
        assert [who for who, _, _ in world.cancelled] == ["b"]

    run(scene())


def test_two_may_cancel_the_same_and_one_that_comes_back_at_that_moment_stays_connected() -> None:
    async def scene() -> None:
        world, (a, b, c) = world_of("a", "b", "c")
        connection = await a.connect()
        await settled(world)
        a.is_stopped = True
        await world.pass_until(30)
        assert {who for who, _, _ in world.cancelled} == {"b", "c"}
        assert (len(b.disconnects), len(c.disconnects)) == (0, 0)
        back = await b.connect()
        await world.pass_until(40)
        assert (b.ended, back.taken_over, world.orders[connection.name]) == ([], {}, 0)

    run(scene())
