"""Who fires a timer, and when; by the virtual clock of `timer_world` (docs/contract.md#cancel-all-after)."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from core.control import cancel_timers
from core.errors import BusUnavailable, ControlUnavailable, ControlUnknown, OutcomeUnknown
from tests.core.control.timer_world import EPOCH, World, set_twice, world_of
from tests.core.fakes import run, turns

USER = "alice"


def trigger_ms(seconds: float) -> int:
    return int((EPOCH + seconds) * 1000)


def test_timer_fires_at_its_moment_where_it_was_taken_and_nowhere_else() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        assert await a.timers.set(USER, 5) == trigger_ms(5)
        await world.pass_until(4.95)
        assert (world.cancelled, len(a.timers), len(b.timers)) == ([], 1, 1)
        await world.pass_until(10)
        assert world.cancelled == [("a", USER, pytest.approx(5.0, abs=0.051))]
        assert (len(a.timers), len(b.timers), a.counts["fired"], b.counts["fired"]) == (0, 0, 1, 0)

    run(scene())


@pytest.mark.parametrize("ahead", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("chance", [0.0, 0.999])
def test_timer_of_a_dead_instance_fires_at_most_two_seconds_late_whatever_the_clocks(
    ahead: float, chance: float
) -> None:
    async def scene() -> None:
        world = World()
        a, b = world.instance("a"), world.instance("b", ahead=ahead, chance=chance)
        await a.timers.set(USER, 5)
        await world.beat()
        a.is_stopped = True
        await world.pass_until(8)
        assert world.who() == ["b"]
        assert 5.0 <= world.moments()[0] <= 5.65
        assert b.counts["fired"] == 1

    run(scene())


@pytest.mark.parametrize("ahead", [-180.0, 180.0])
def test_clocks_that_are_minutes_apart_fire_no_timer_early_or_late_that_was_read_as_it_came(ahead: float) -> None:
    async def scene() -> None:
        world = World()
        a, _ = world.instance("a"), world.instance("b", ahead=ahead)
        await world.beat()
        await a.timers.set(USER, 5)
        await world.beat()
        a.is_stopped = True
        await world.pass_until(8)
        assert world.moments() == [pytest.approx(5.25, abs=0.051)]

    run(scene())


def test_timer_that_came_while_an_instance_stood_still_fires_by_its_own_time() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await world.beat()
        b.is_stopped = True
        await a.timers.set(USER, 30)
        a.is_stopped = True
        await world.pass_until(25)
        b.is_stopped = False
        await world.pass_until(60)
        assert world.moments() == [pytest.approx(31.0, abs=0.051)]

    run(scene())


def test_timer_of_an_instance_that_ended_is_no_later_for_having_been_set_again() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await set_twice(world, a, USER, 5)
        await set_twice(world, a, "bob", 3600)
        await a.timers.set("carol", 3600)
        await world.pass_until(0.9)
        assert await a.timers.set(USER, 5) == trigger_ms(5.9)
        assert a.counts["joined"] == 1
        await a.timers.hand_over()
        assert a.counts["written"] == 7, "bob's, who may have been asked for later too, and not carol's"
        a.is_stopped = True
        await world.pass_until(3)
        world.instance("b")
        await world.pass_until(9)
        assert world.moments() == [pytest.approx(6.9, abs=0.051)]

    run(scene())


def test_all_timers_that_were_set_again_are_handed_over_and_none_where_there_are_none() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await a.timers.hand_over()
        assert a.counts["written"] == 0
        users = [f"user-{number}" for number in range(2 * cancel_timers.PIECE)]
        for user in users:
            await set_twice(world, a, user, 3600)
        written = a.counts["written"]
        await a.timers.hand_over()
        assert a.counts["written"] - written == len(users)

    run(scene())


def test_timer_that_cannot_be_handed_over_stays_as_it_is_written(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await set_twice(world, a, USER, 5)
        world.is_away = True
        await a.timers.hand_over()
        assert "was not written again: away" in caplog.text

    run(scene())


@pytest.mark.parametrize("ahead", [-1.0, 0.0, 1.0])
def test_timer_is_never_fired_early_by_who_reads_it_after_a_start(ahead: float) -> None:
    async def scene() -> None:
        world = World()
        a = world.instance("a")
        await a.timers.set(USER, 5)
        a.is_stopped = True
        await world.pass_until(3)
        world.instance("b", ahead=ahead)
        await world.pass_until(9)
        assert world.moments() == [pytest.approx(6.0 - ahead, abs=0.051)]

    run(scene())


def test_timer_that_is_over_fires_at_once_after_a_start_and_only_once() -> None:
    async def scene() -> None:
        world = World()
        a = world.instance("a")
        await a.timers.set(USER, 5)
        a.is_stopped = True
        await world.pass_until(60)
        b = world.instance("b")
        await world.pass_until(61)
        assert world.cancelled == [("b", USER, pytest.approx(60.05, abs=0.01))]
        b.is_stopped = True
        c = world.instance("c")
        await world.pass_until(90)
        assert (len(world.cancelled), len(c.timers)) == (1, 0)

    run(scene())


def test_timer_that_is_armed_again_moves_and_a_disarmed_one_does_nothing() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await a.timers.set(USER, 5)
        await a.timers.set("bob", 5)
        await world.pass_until(4)
        assert await b.timers.set(USER, 5) == trigger_ms(9)
        assert await b.timers.set("bob", 0) is None
        await world.pass_until(20)
        assert world.cancelled == [("b", USER, pytest.approx(9.0, abs=0.051))]

    run(scene())


def test_timer_can_be_moved_to_an_earlier_moment() -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        await a.timers.set(USER, 50)
        await world.beat()
        await a.timers.set(USER, 5)
        await world.pass_until(60)
        assert world.moments() == [pytest.approx(5.0, abs=0.051)]

    run(scene())


@pytest.mark.parametrize("dies", [False, True])
def test_requests_within_the_window_are_joined_and_fire_neither_early_nor_late(dies: bool) -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        for step in range(100):  # ten a second
            await world.pass_until(step / 10)
            await a.timers.set(USER, 5)
        last = 9.9 + 5
        assert a.counts["written"] <= 11  # every eleventh of them
        assert a.counts["written"] + a.counts["joined"] == 100
        a.is_stopped = dies
        await world.pass_until(20)
        assert world.who() == ["b" if dies else "a"]
        assert last <= world.moments()[0] <= last + (1.6 if dies else 0.051)
        assert b.counts["written"] == 0

    run(scene())


def test_request_that_needs_no_record_is_taken_at_once() -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        await set_twice(world, a, USER, 5)
        await world.pass_until(0.5)
        assert a.timers.extend(USER, 5, lambda: True) == trigger_ms(5.5)
        assert (a.counts["written"], a.counts["joined"]) == (2, 1)
        await world.pass_until(9)
        assert world.cancelled == [("a", USER, pytest.approx(5.5, abs=0.051))]

    run(scene())


@pytest.mark.parametrize("why", ["unset", "elsewhere", "disarmed", "earlier", "later", "writing", "unread", "not let"])
def test_nothing_is_taken_at_once_that_needs_more(why: str) -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        if why != "unset":
            await set_twice(world, b if why == "elsewhere" else a, USER, 5)
        if why == "writing":
            a.held = []
            writing = asyncio.create_task(a.timers.set(USER, 50))
            await turns()
        a.reason = "not read" if why == "unread" else None
        a.timers.look()
        seconds = {"disarmed": 0, "earlier": 4, "later": 7}.get(why, 5)
        assert a.timers.extend(USER, seconds, lambda: why != "not let") is None
        assert a.counts["joined"] == 0
        if why == "writing":
            a.held[0].set_result(None)
            await writing
        await world.pass_until(9)
        assert world.moments() == ([] if why in ("unset", "writing") else [pytest.approx(5.1, abs=0.6)])

    run(scene())


def test_joined_request_to_an_earlier_moment_within_the_window_is_kept() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await set_twice(world, a, USER, 5)
        await world.pass_until(0.5)
        await a.timers.set(USER, 5)  # 5.5
        await world.pass_until(1.3)
        await a.timers.set(USER, 4)  # 5.3
        await world.pass_until(9)
        assert a.counts["joined"] == 2
        assert world.moments() == [pytest.approx(5.3, abs=0.051)]

    run(scene())


def test_joined_request_is_written_once_an_older_one_from_elsewhere_hides_it() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await set_twice(world, a, USER, 5)
        await b.timers.set(USER, 2)  # a has not read it when the next comes
        world.now = 0.2
        assert await a.timers.set(USER, 5) == trigger_ms(5.2)
        assert a.counts["joined"] == 1
        await world.beat()
        assert a.counts["written"] == 3
        a.is_stopped = True
        await world.pass_until(9)
        assert 5.2 <= world.moments()[0] <= 6.8
        assert len(world.cancelled) == 1

    run(scene())


def test_later_request_from_elsewhere_counts_and_not_the_joined_one() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await set_twice(world, a, USER, 5)
        await world.pass_until(0.2)
        await a.timers.set(USER, 5)
        world.now = 0.3
        await b.timers.set(USER, 0)
        await world.pass_until(9)
        assert (world.cancelled, a.counts["joined"], a.counts["written"], len(a.timers)) == ([], 1, 2, 0)

    run(scene())


def test_hidden_request_that_cannot_be_written_again_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await set_twice(world, a, USER, 5)
        await b.timers.set(USER, 0)
        world.now = 0.2
        await a.timers.set(USER, 5)
        a.write_refused = [BusUnavailable("away")]
        await world.beat()
        assert "the timer of user alice was not written again: away" in caplog.text

    with caplog.at_level(logging.WARNING):
        run(scene())


def test_request_while_one_is_on_its_way_joins_it_and_hears_what_becomes_of_it() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await a.timers.set(USER, 5)
        await world.pass_until(1.9)
        a.held = []
        first = asyncio.create_task(a.timers.set(USER, 5))
        await turns(5)
        world.now = 2.0
        second = asyncio.create_task(a.timers.set(USER, 5))
        third = asyncio.create_task(a.timers.set(USER, 50))  # which it does not cover
        await turns(5)
        assert len(a.held) == 2
        a.held[0].set_exception(OutcomeUnknown("", "who knows"))
        a.held[1].set_result(None)
        for one in (first, second):
            with pytest.raises(ControlUnknown):
                await one
        assert await third == trigger_ms(52.0)

    run(scene())


def test_request_on_its_way_holds_up_the_firing_of_the_one_before() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await a.timers.set(USER, 5)
        await world.pass_until(4.9)
        a.held = []
        again = asyncio.create_task(a.timers.set(USER, 5))
        await turns(5)
        await world.pass_until(5.5)
        assert world.cancelled == []
        a.held[0].set_result(None)
        a.held = None
        assert await again == trigger_ms(9.9)
        await world.pass_until(12)
        assert world.moments() == [pytest.approx(9.9, abs=0.051)]

    run(scene())


def test_request_that_was_not_written_leaves_the_one_before_as_it_was() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await a.timers.set(USER, 5)
        await world.pass_until(2)
        a.write_refused = [BusUnavailable("away")]
        with pytest.raises(BusUnavailable):
            await a.timers.set(USER, 50)
        await world.pass_until(9)
        assert world.moments() == [pytest.approx(5.0, abs=0.051)]

    run(scene())


def test_request_is_refused_while_the_topic_cannot_be_used() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        a.reason = "topic t does not exist"
        for seconds in (0, 5):
            with pytest.raises(ControlUnavailable, match="topic t does not exist"):
                await a.timers.set(USER, seconds)
        assert world.topic == []

    run(scene())


def test_instance_that_stood_still_reads_on_before_it_fires() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await a.timers.set(USER, 5)
        await a.timers.set("bob", 5)
        await world.beat()
        a.is_stopped = True
        await b.timers.set("bob", 60)
        await world.pass_until(30)
        a.is_stopped = False
        await world.pass_until(40)
        assert world.who() == ["b"]
        assert (a.counts["fired"], len(a.timers)) == (0, 1)

    run(scene())


def test_timer_that_was_fired_does_not_undo_one_that_was_armed_meanwhile() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await a.timers.set(USER, 5)
        await world.pass_until(4.95)
        a.held = []
        await world.pass_until(5.2)
        assert world.moments() == [pytest.approx(5.0, abs=0.051)]
        await b.timers.set(USER, 5)
        a.held[0].set_result(None)  # only now it is told that the first has been fired
        await turns(5)
        assert [key for _, key, _ in world.topic] == [b"timer/alice", b"timer/alice", b"fired/alice"]
        c = world.instance("c")  # which reads all of it anew
        await world.beat()
        assert len(c.timers) == len(b.timers) == 1
        await world.pass_until(20)
        assert world.moments()[1:] == [pytest.approx(10.2, abs=0.051)]

    run(scene())


@pytest.mark.parametrize("error", [BusUnavailable("away"), OutcomeUnknown("o", "who knows"), ZeroDivisionError()])
def test_firing_that_fails_is_tried_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await a.timers.set(USER, 5)
        await world.beat()
        a.refused = [error, error]
        await world.pass_until(8)
        assert world.moments() == [pytest.approx(6.0, abs=0.16)]
        assert (a.counts["failed"], a.counts["fired"], len(a.timers)) == (2, 1, 0)

    with caplog.at_level(logging.INFO):
        run(scene())
    assert caplog.text.count("cancel_all_after of user alice is tried again") == 1
    assert "cancel_all_after of user alice: 1 orders cancelled" in caplog.text


def test_firing_that_fails_is_given_up_once_another_has_fired() -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        await a.timers.set(USER, 5)
        await world.beat()
        a.refused = [BusUnavailable("away")] * 1000
        await world.pass_until(9)
        assert world.who() == ["b"]
        assert 5.0 <= world.moments()[0] <= 6.1
        failed = a.counts["failed"]
        await world.pass_until(15)
        assert a.counts["failed"] == failed

    run(scene())


def test_two_fire_the_same_timer_and_both_say_so() -> None:
    async def scene() -> None:
        world, (a, b) = world_of("a", "b")
        await a.timers.set(USER, 5)
        await world.pass_until(4.95)
        a.write_refused = [BusUnavailable("away")] * 4  # cannot tell that it has fired
        await world.pass_until(9)
        assert world.who() == ["a", "b"]
        assert (len(a.timers), len(b.timers)) == (0, 0)

    run(scene())


def test_due_timers_wait_while_the_bus_is_away_and_fire_once_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await a.timers.set(USER, 5)
        await world.beat()
        world.is_away = True
        await world.pass_until(30)
        assert world.cancelled == []
        world.is_away = False
        await world.pass_until(31)
        assert world.moments() == [pytest.approx(30.5, abs=0.55)]

    with caplog.at_level(logging.WARNING):
        run(scene())
    assert caplog.text.count("timers of 1 users are due, and wait") == 1


def test_request_while_its_timer_is_being_fired_is_a_new_one() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await a.timers.set(USER, 1)
        await world.beat()
        a.refused = [BusUnavailable("away")] * 2
        await world.pass_until(1.2)
        assert a.counts["failed"] == 1
        assert await a.timers.set(USER, 1) == trigger_ms(2.2)
        assert a.counts["written"] == 2
        await world.pass_until(9)
        assert world.moments() == [pytest.approx(2.0, abs=0.16), pytest.approx(2.2, abs=0.16)]

    run(scene())


def test_timers_of_a_topic_that_is_gone_are_forgotten_and_read_anew() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        for user in (USER, "bob"):
            await a.timers.set(user, 5)
        await world.pass_until(1)
        a.table.forget(1)
        assert len(a.timers) == 2
        a.table.forget(0)
        assert len(a.timers) == 0
        world.topic = world.topic[:1]
        a.position = 0
        await world.pass_until(9)
        assert world.cancelled == [("a", USER, pytest.approx(5.0, abs=0.051))]

    run(scene())


def test_fired_record_of_an_older_topic_spends_no_timer_of_this_one() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        fired = json.dumps({"offset": 500, "trigger_ms": trigger_ms(-5)}).encode()
        world.topic.append((EPOCH, b"fired/alice", fired))
        await a.timers.set(USER, 5)
        await world.beat()
        assert len(a.timers) == 1
        world.topic.append((EPOCH, b"fired/alice", None))
        await world.pass_until(9)
        assert len(world.cancelled) == 1

    run(scene())


def test_many_timers_that_are_due_together_are_all_fired() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        users = [f"user-{number}" for number in range(5 * cancel_timers.AT_ONCE)]
        for user in users:
            await a.timers.set(user, 5)
        await world.pass_until(8)
        assert sorted(user for _, user, _ in world.cancelled) == sorted(users)
        assert len(a.timers) == 0

    run(scene())


def test_instance_that_drains_fires_no_more_and_gives_up_what_is_under_way() -> None:
    async def scene() -> None:
        world, (a, _) = world_of("a", "b")
        await a.timers.set(USER, 1)
        await a.timers.set("bob", 5)
        await world.beat()
        a.refused = [BusUnavailable("away")] * 1000
        await world.pass_until(1.2)
        a.timers.stop()
        await world.pass_until(9)
        assert (world.who(), a.counts["failed"]) == (["b", "b"], 1)

    run(scene())


def test_bad_record_is_told_and_changes_nothing() -> None:
    async def scene() -> None:
        world, (a,) = world_of("a")
        await a.timers.set(USER, 5)
        await world.beat()
        for key, value in ((b"timer/alice", b"{}"), (b"fired/alice", b"[]"), (b"block/x", b"{}"), (b"nothing", b"{}")):
            world.topic.append((EPOCH, key, value))
        await world.pass_until(9)
        assert [error.reason for error in a.poisoned] == ["bad_field", "not_an_object", "unknown_kind", "bad_key"]
        assert len(world.cancelled) == 1

    run(scene())
