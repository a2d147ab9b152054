"""Whose orders are cancelled with a connection, by whom and when; by the virtual clock of `timer_world`
(docs/contract.md#cancel-on-disconnect).
"""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from core.errors import BusUnavailable, ControlUnavailable, ControlUnknown, OutcomeUnknown, StillBehind
from tests.core.control.timer_world import GRACE, SETTLED, Instance, World, last_said, settled, world_of
from tests.core.fakes import run, turns

# Where all live.


def test_orders_are_cancelled_a_grace_after_the_end_by_where_it_was() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        connection = await a.connect()
        await settled(world)
        a.leave(connection)
        await world.pass_until(SETTLED + GRACE - 0.05)
        assert world.cancelled == []
        await world.pass_until(60)
        assert world.cancelled == [("a", connection.name, pytest.approx(SETTLED + GRACE, abs=0.06))]
        assert (len(a.disconnects), len(b.disconnects), last_said(world, connection.name)) == (0, 0, None)

    run(scene())


def test_connection_without_orders_is_forgotten_at_once() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        connection = await a.connect(orders=0)
        a.leave(connection)
        await world.beat()
        await world.beat()
        assert (len(a.disconnects), len(b.disconnects)) == (0, 0)
        await world.pass_until(30)
        assert world.cancelled == []

    run(scene())


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("seconds", [0.1, 9.5])
def test_client_that_comes_back_within_the_grace_keeps_its_orders_and_loses_them_with_the_next_end(
    elsewhere: bool, seconds: float
) -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        await settled(world)
        a.leave(first)
        await world.pass_until(SETTLED + seconds)
        back = b if elsewhere else a
        second = await back.connect(orders=0)
        await world.pass_until(40)
        assert (world.cancelled, back.counts["taken_over"], list(second.taken_over)) == ([], 1, [first.name])
        back.leave(second)
        await world.pass_until(49.9)
        assert world.cancelled == []
        await world.pass_until(60)
        assert world.cancelled == [(back.name, first.name, pytest.approx(50, abs=0.06))]
        assert (len(a.disconnects), len(b.disconnects)) == (0, 0)

    run(scene())


def test_another_connection_of_the_users_that_was_there_before_takes_nothing_over() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        ends, stays = await a.connect(), await b.connect()
        await settled(world)
        a.leave(ends)
        await world.pass_until(30)
        assert [name for _, name, _ in world.cancelled] == [ends.name]
        await b.disconnects.hold(stays)  # and now there is nothing to take over
        await world.pass_until(60)
        assert world.orders[stays.name] == 1

    run(scene())


def test_it_takes_over_if_it_sets_it_again() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        ends, stays = await a.connect(), await b.connect()
        await settled(world)
        a.leave(ends)
        await world.pass_until(8)
        await b.disconnects.hold(stays)
        await world.pass_until(40)
        assert (world.cancelled, list(stays.taken_over)) == ([], [ends.name])

    run(scene())


@pytest.mark.parametrize("other", ["bob", None])
def test_nobody_else_takes_over(other: str | None) -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        first = await a.connect()
        nobodys = await a.connect(None)
        a.leave(first)
        a.leave(nobodys)
        await world.pass_until(1)
        await a.connect(other)
        await world.pass_until(30)
        assert sorted(name for _, name, _ in world.cancelled) == sorted([first.name, nobodys.name])

    run(scene())


def test_client_that_was_silent_before_its_end_has_come_back_since_then() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        await world.pass_until(20)
        await b.connect()
        await world.pass_until(40)
        a.leave(first, silent_seconds=30)
        await world.pass_until(60)
        assert (world.cancelled, b.counts["taken_over"]) == ([], 1)

    run(scene())


def test_what_is_silent_for_longer_than_anybody_knows_began_at_the_beginning() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        await b.connect()
        await world.pass_until(3)
        a.leave(first, silent_seconds=1000)
        await world.pass_until(30)
        assert world.cancelled == []

    run(scene())


def test_who_switches_it_off_keeps_the_orders_also_those_taken_over() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        a.leave(first)
        await world.pass_until(1)
        second = await b.connect()
        await world.pass_until(2)
        await b.disconnects.release(second)
        b.leave(second)
        await world.pass_until(40)
        assert (world.cancelled, len(a.disconnects), len(b.disconnects)) == ([], 0, 0)

    run(scene())


def test_connection_goes_on_when_it_is_read_to_be_forgotten_before_that_is_acknowledged() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        first = await a.connect()
        a.leave(first)
        await world.pass_until(1)
        second = await a.connect()
        await world.pass_until(2)
        assert list(second.taken_over) == [first.name]
        a.unacknowledged = []
        releasing = asyncio.create_task(a.disconnects.release(second))
        await turns()
        await world.beat()
        assert (last_said(world, second.name), releasing.done()) == (None, False)
        for written in a.unacknowledged:
            written.set_result(None)
        await releasing
        await world.pass_until(40)
        assert (a.ended, world.cancelled, len(a.disconnects), a.disconnects.knows(second.name)) == ([], [], 0, False)

    run(scene())


def test_connection_that_others_forget_is_closed_also_after_it_could_not_be_switched_off() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        connection = await a.connect()
        a.held = []
        releasing = asyncio.create_task(a.disconnects.release(connection))
        await turns()
        a.held[0].set_exception(BusUnavailable("away"))
        with pytest.raises(BusUnavailable):
            await releasing
        b.write(f"connection/{connection.name}", None)
        await world.beat()
        assert a.ended == [connection.name]

    run(scene())


def test_taken_over_connection_without_an_open_order_is_forgotten() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        a.leave(first)
        await world.pass_until(1)
        world.orders[first.name] = 0  # filled meanwhile
        second = await b.connect()
        await world.pass_until(2)
        assert (second.taken_over, len(a.disconnects), last_said(world, first.name)) == ({}, 1, None)

    run(scene())


def test_take_over_that_fails_is_tried_again() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        a.leave(first)
        await world.pass_until(1)
        b.refused = [StillBehind("away")]
        await b.connect()
        assert b.counts["taken_over"] == 0
        await world.pass_until(40)
        assert (world.cancelled, b.counts["taken_over"]) == ([], 1)

    run(scene())


def test_orders_that_do_not_name_their_connection_are_its_own_too_also_later() -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        connection = await a.connect()
        a.disconnects.add(connection, "one")
        await world.pass_until(2)
        assert json.loads(last_said(world, connection.name) or b"")["orders"] == ["one"]
        a.leave(connection)
        a.disconnects.add(connection, "two")
        await world.pass_until(4)
        assert json.loads(last_said(world, connection.name) or b"")["orders"] == ["one", "two"]
        second = await a.connect()
        await world.pass_until(5)
        assert second.taken_over == {connection.name: ("one", "two")}
        assert a.disconnects.knows(connection.name)
        assert not a.disconnects.knows("another")

    run(scene())


def test_setting_it_again_writes_nothing_where_nobody_has_ended() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        connection = await a.connect()
        said = [key for _, key, _ in world.topic if key.startswith(b"connection/")]
        await a.disconnects.hold(connection)
        assert [key for _, key, _ in world.topic if key.startswith(b"connection/")] == said

    run(scene())


def test_thousand_connections_cost_one_record_a_second() -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        for number in range(1000):
            connection = a.disconnects.connection(f"user {number}", lambda: None)
            await a.disconnects.hold(connection)
        await world.beat()
        before = len(world.topic)
        await world.pass_until(world.now + 10)
        assert len(world.topic) - before <= 2 * 11  # of two instances

    run(scene())


# What goes wrong.


@pytest.mark.parametrize("error", [BusUnavailable("away"), OutcomeUnknown("", "lost")])
def test_setting_that_fails_is_refused(error: BusUnavailable | OutcomeUnknown) -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        a.held = []
        connection = a.disconnects.connection("alice", lambda: None)
        setting = asyncio.create_task(a.disconnects.hold(connection))
        await turns()
        a.held[0].set_exception(error)
        with pytest.raises(BusUnavailable if isinstance(error, BusUnavailable) else ControlUnknown):
            await setting
        a.held = None
        assert a.disconnects.knows(connection.name) is isinstance(error, OutcomeUnknown)
        await a.disconnects.hold(connection)
        a.reason = "not read"
        for ask in (a.disconnects.hold, a.disconnects.release):
            with pytest.raises(ControlUnavailable):
                await ask(connection)
        a.reason = None
        a.write_refused = [BusUnavailable("away")]
        with pytest.raises(BusUnavailable):
            await a.disconnects.release(connection)
        assert a.disconnects.knows(connection.name)
        assert world.cancelled == []

    run(scene())


def test_setting_it_again_that_fails_leaves_it_as_it_was_set() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        stays, ends = await a.connect(), await a.connect()
        await settled(world)
        a.leave(ends)
        await world.pass_until(world.now + 1)
        a.write_refused = [BusUnavailable("away")]
        with pytest.raises(BusUnavailable):
            await a.disconnects.hold(stays)
        assert a.disconnects.knows(stays.name)

    run(scene())


def test_order_of_a_connection_that_is_not_held_is_remembered_with_it_alone() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        connection = a.disconnects.connection("alice", lambda: None)
        a.disconnects.add(connection, "o-1")
        await settled(world)
        assert (list(connection.orders), a.disconnects.knows(connection.name), len(a.disconnects)) == (
            ["o-1"],
            False,
            0,
        )
        await a.disconnects.hold(connection)
        said = last_said(world, connection.name)
        assert said is not None and json.loads(said)["orders"] == ["o-1"]

    run(scene())


def test_end_that_cannot_be_written_is_written_later_and_cancelled_in_time() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        connection = await a.connect()
        await settled(world)
        world.is_away = True
        a.leave(connection)
        await world.pass_until(SETTLED + 5)
        assert b.world.cancelled == []
        world.is_away = False
        await world.pass_until(SETTLED + 8)
        assert json.loads(last_said(world, connection.name) or b"")["ended"] is not None
        await world.pass_until(40)
        assert world.cancelled == [("a", connection.name, pytest.approx(SETTLED + GRACE, abs=0.06))]

    run(scene())


@pytest.mark.parametrize("is_usable", [False, True])
def test_orders_wait_for_a_topic_that_is_away_and_not_for_one_that_is_none(is_usable: bool) -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        connection = await a.connect()
        await settled(world)
        a.leave(connection)
        await world.beat()
        world.is_away = True
        a.is_usable = is_usable
        await world.pass_until(40)
        assert bool(world.cancelled) is not is_usable
        world.is_away = False
        await world.pass_until(42)
        assert {name for _, name, _ in world.cancelled} == {connection.name}
        assert a.disconnects.is_usable is is_usable

    run(scene())


@pytest.mark.parametrize("error", [StillBehind("away"), ZeroDivisionError("a fault")])
def test_cancel_that_fails_is_tried_again_and_counted(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        connection = await a.connect()
        a.refused = [error]
        a.leave(connection)
        with caplog.at_level(logging.INFO):
            await world.pass_until(30)
        assert (a.counts["failed"], a.counts["cancelled"]) == (1, 1)
        assert [name for _, name, _ in world.cancelled] == [connection.name]
        assert "are tried again" in caplog.text

    run(scene())


def test_topic_made_anew_is_told_again_of_what_is_here() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        stays, ends = await a.connect("alice"), await b.connect("bob")
        await settled(world)
        b.leave(ends)
        await world.beat()
        world.topic.clear()
        for instance in (a, b):
            instance.restart_reading()
        await world.pass_until(8)
        assert (len(a.disconnects), len(b.disconnects)) == (2, 2)
        await world.pass_until(20)
        assert world.cancelled == [("b", ends.name, pytest.approx(SETTLED + GRACE, abs=0.06))]
        a.is_stopped = True
        await world.pass_until(40)
        assert [name for _, name, _ in world.cancelled] == [ends.name, stays.name]

    run(scene())


def test_topic_read_anew_changes_nothing() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        a.leave(first)
        await world.pass_until(1)
        second = await b.connect()
        await world.pass_until(3)
        for instance in (a, b):
            instance.reason = "being read"
            instance.restart_reading()
        await world.pass_until(4)
        for instance in (a, b):
            instance.reason = None
        await world.pass_until(40)
        assert (world.cancelled, list(second.taken_over), b.ended) == ([], [first.name], [])

    run(scene())


def test_record_of_one_that_left_before_it_was_read_is_nobodys() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        connection = a.disconnects.connection("alice", lambda: None)
        await a.disconnects.hold(connection)
        a.leave(connection)
        await turns(12)
        await world.pass_until(30)
        assert (world.cancelled, len(a.disconnects)) == ([], 0)

    run(scene())


# The end of a process.


async def drained(instance: Instance) -> None:
    await instance.disconnects.hand_over()
    instance.disconnects.stop()
    instance.is_stopped = True


@pytest.mark.parametrize("returns", [False, True])
def test_instance_that_drains_leaves_its_connections_to_the_others(returns: bool) -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        first = await a.connect()
        await settled(world)
        a.disconnects.drain()
        await world.pass_until(7)
        early = await b.connect() if returns else None  # it had heard that this one ends
        a.leave(first)
        await world.pass_until(8)
        await drained(a)
        await world.pass_until(40)
        if early is None:
            assert [(who, name) for who, name, _ in world.cancelled] == [("b", first.name)]
        else:
            assert (world.cancelled, list(early.taken_over)) == ([], [first.name])

    run(scene())


@pytest.mark.parametrize("other", ["none", "dead", "drains too"])
def test_last_instance_cancels_what_nobody_else_would(other: str) -> None:
    async def scene() -> None:
        world = World()
        a = world.instance("a")
        b = None if other == "none" else world.instance("b")
        first = await a.connect()
        second = None if b is None else await b.connect("bob")
        await settled(world)
        if b is not None and second is not None:
            if other == "dead":
                b.is_stopped = True
                await world.pass_until(9)
            else:
                b.disconnects.drain()
                b.leave(second)
        a.disconnects.drain()
        a.leave(first)
        await world.pass_until(world.now + 1)
        await drained(a)
        names = {name for _, name, _ in world.cancelled}
        assert names == ({first.name, second.name} if second is not None and other == "drains too" else {first.name})

    run(scene())


def test_end_of_a_process_is_not_held_up_by_a_topic_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        connection = await a.connect()
        await settled(world)
        world.is_away = True
        a.leave(connection)
        a.refused = [StillBehind("away")]
        await asyncio.wait_for(drained(a), 5)
        assert (world.cancelled, a.counts["failed"]) == ([], 1)

    run(scene())
    assert "whether another instance lives is not known" in caplog.text


def test_what_is_under_way_when_a_process_stops_is_the_others() -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        connection = await a.connect()
        await settled(world)
        a.leave(connection)
        await world.beat()
        a.disconnects.stop()
        await world.pass_until(40)
        assert [(who, name) for who, name, _ in world.cancelled] == [("b", connection.name)]

    run(scene())
