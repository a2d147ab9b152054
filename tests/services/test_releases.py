"""What ended orders left reserved, at a service that answers, fails, refuses, or says nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from core.errors import AccountsUnavailable, FundsRefused
from core.messages.kept_state import Cursor
from core.orders.releases import LONG_MS
from services.accounts import CIRCUIT_FAILURES, CIRCUIT_PAUSE_SECONDS, may_be_reserved
from services.releases import AT_ONCE, FROZEN_SECONDS, LOOK_SECONDS, THAW_SECONDS, ReleaseWorker
from tests.core.fake_orders import event, placed
from tests.core.orders.ending import Ending, cursor
from tests.services.reserving import ID, KEY, LONG_SECONDS, TimedReservations, closed_port, reservations_at
from tests.support.accounts import AccountService, account_service


class Working:
    """A worker whose steps and time a test has the say of; it leads the one partition there is."""

    def __init__(self, timed: TimedReservations, ending: Ending, max_connections: int) -> None:
        self.timed, self.ending = timed, ending
        self.counts: dict[str, int] = {}
        self.cursors: dict[int, Cursor | None] = {}
        self.looked_at: list[int] = []
        self.is_alone = False
        self.worker = ReleaseWorker(
            ending.releases,
            ending.directory.get,
            timed.reservations,
            max_connections=max_connections,
            count=self._count,
            now_ms=lambda: int(ending.now * 1000),
            clock=lambda: self.timed.now,
        )
        self.worker.is_alone = lambda: self.is_alone
        self.worker.last_cursor = self._last_cursor
        ending.lead()

    def _count(self, outcome: str, orders: int) -> None:
        self.counts[outcome] = self.counts.get(outcome, 0) + orders

    async def _last_cursor(self, partition: int) -> Cursor | None:
        self.looked_at.append(partition)
        return self.cursors.get(partition)

    def begin(self, seconds: float = 0.0) -> None:
        """One step, so many seconds later."""
        # Whoever steps as often as it should was not frozen.
        for _ in range(int(seconds // FROZEN_SECONDS)):
            self.timed.now += FROZEN_SECONDS
            self.worker.step()
        self.timed.now += seconds % FROZEN_SECONDS
        self.worker.step()

    async def pass_on(self, seconds: float = 0.0) -> None:
        """The same, and all that began has come to its end."""
        self.begin(seconds)
        await self.settle()

    async def settle(self) -> None:
        while self.worker._tasks or self.worker._looking:
            await asyncio.wait([*self.worker._tasks, *filter(None, [self.worker._looking])])
            await asyncio.sleep(0)

    @property
    def left(self) -> int:
        return self.ending.releases.ours


@asynccontextmanager
async def working(url: str, max_connections: int = 4 * AT_ONCE) -> AsyncIterator[Working]:
    ending = Ending(may_be_reserved=may_be_reserved)
    async with reservations_at(url, releases=ending.releases, max_connections=max_connections) as timed:
        one = Working(timed, ending, max_connections)
        yield one
        await one.worker.finish(LONG_SECONDS)


@asynccontextmanager
async def serving(**changes: int) -> AsyncIterator[tuple[Working, AccountService]]:
    async with account_service({("alice", "EUR"): "10"}) as service:
        async with working(service.url, **changes) as one:
            yield one, service


def asked(service: AccountService) -> list[str]:
    return [seen.uri.removeprefix("/internal/orders/") for seen in service.seen if seen.method == "DELETE"]


@pytest.mark.gen_test
async def test_what_an_ended_order_left_reserved_is_given_back() -> None:
    async with serving() as (one, service):
        reserved = await one.timed.reserve(placed("my-1"), KEY, "alice")
        one.ending.directory.register(reserved.order_id, "alice", placed("my-1"), 1)
        await one.pass_on()
        assert (service.balances["alice", "EUR"], asked(service)) == (7, [])
        one.ending.events(event("order_cancelled", reserved.order_id))
        await one.pass_on()
        assert (service.balances["alice", "EUR"], service.held, one.left) == (10, {}, 0)
        assert service.seen[-1].headers["X-User-Id"] == "alice"
        assert one.counts == {"released": 1}
        await one.pass_on(1000)
        assert len(asked(service)) == 1


@pytest.mark.parametrize("status", [200, 204, 404, 410])
@pytest.mark.gen_test
async def test_what_the_service_does_not_know_any_more_is_released(status: int) -> None:
    async with serving() as (one, service):
        service.answer_next(status)
        one.ending.ended(a="order_cancelled")
        await one.pass_on()
        assert (one.left, one.counts, one.timed.reservations.problem) == (0, {"released": 1}, None)


@pytest.mark.parametrize("statuses", [(500, 503, 204), (408, 429, 302, 204), (429, 204)])
@pytest.mark.gen_test
async def test_release_that_fails_is_tried_again_later_until_it_is_confirmed(statuses: tuple[int, ...]) -> None:
    async with serving() as (one, service):
        one.ending.ended(a="order_cancelled")
        service.answer_next(*statuses)
        seconds = 0.0
        for number in range(1, len(statuses) + 1):
            await one.pass_on(seconds * 0.9)
            assert len(asked(service)) == number - (number > 1)
            await one.pass_on(seconds * 0.2)
            assert len(asked(service)) == number
            seconds = 2.0 ** (number - 1)
        assert (one.left, one.counts) == (0, {"released": 1})


@pytest.mark.gen_test
async def test_refusal_is_told_once_and_asked_again_each_minute(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (one, service):
        one.ending.ended(a="order_cancelled")
        with service.answering(403):
            await one.pass_on()
            await one.pass_on(59)
            assert len(asked(service)) == 1
            await one.pass_on(1)
        assert (len(asked(service)), one.left, one.counts) == (2, 1, {"release_refused": 2})
        assert one.timed.reservations.problem is None, "it answers"
        await one.pass_on(60)
        assert (one.left, one.worker._refused) == (0, set())
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "order a" in record.getMessage() and "HTTP 403" in record.getMessage()


@pytest.mark.gen_test
async def test_at_most_a_few_are_released_at_once_and_the_next_as_one_is_done() -> None:
    async with serving() as (one, service):
        with service.frozen():
            one.ending.ended(**{f"n{number}": "order_cancelled" for number in range(AT_ONCE + 3)})
            one.begin()
            await service.arrived(AT_ONCE)
            one.begin()
            assert len(one.worker._tasks) == AT_ONCE
        running = asyncio.ensure_future(one.worker.run())
        await service.arrived(AT_ONCE + 3)
        running.cancel()
        await one.settle()
        assert one.left == 0
        assert len(set(asked(service))) == len(asked(service)) == AT_ONCE + 3


@pytest.mark.parametrize(("max_connections", "at_once"), [(1, 1), (12, 3), (64, AT_ONCE)])
@pytest.mark.gen_test
async def test_most_connections_are_left_to_orders(max_connections: int, at_once: int) -> None:
    async with serving(max_connections=max_connections) as (one, service):
        with service.frozen():
            one.ending.ended(**{f"n{number}": "order_cancelled" for number in range(AT_ONCE + 1)})
            one.begin()
            assert len(one.worker._tasks) == at_once


@pytest.mark.gen_test
async def test_while_the_service_fails_one_release_in_some_seconds_sees_whether_it_still_does() -> None:
    async with working(closed_port()) as one:
        one.ending.ended(**{f"n{number}": "order_cancelled" for number in range(3 * AT_ONCE)})
        await one.pass_on()
        assert one.timed.reservations.problem is not None
        tried = [due for due in one.ending.releases._due.values() if due.tries]
        assert CIRCUIT_FAILURES <= len(tried) == AT_ONCE
        await one.pass_on(CIRCUIT_PAUSE_SECONDS - 0.1)
        assert sum(due.tries for due in one.ending.releases._due.values()) == AT_ONCE
        await one.pass_on(0.1)
        assert sum(due.tries for due in one.ending.releases._due.values()) == AT_ONCE + 1
        with pytest.raises(AccountsUnavailable):
            await one.timed.reserve()
        async with account_service() as service:
            one.timed.reservations._client = TimedReservations(service.url).reservations._client
            await one.pass_on(CIRCUIT_PAUSE_SECONDS)
            assert one.timed.reservations.problem is None
            while one.left:
                await one.pass_on(1)
            assert len(set(asked(service))) == 3 * AT_ONCE


@pytest.mark.gen_test
async def test_one_order_that_always_fails_does_not_have_others_refused() -> None:
    async with serving() as (one, service):
        one.ending.ended(a="order_cancelled")
        with service.answering(500):
            for _ in range(CIRCUIT_FAILURES + 2):
                await one.pass_on(60)
        assert len(asked(service)) == CIRCUIT_FAILURES + 2
        assert one.timed.reservations.problem is None


@pytest.mark.gen_test
async def test_fault_of_ours_costs_one_try(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (one, service):
        one.ending.kept.take_back(
            0, "release/a", '{"symbol":"A/EUR","user_id":"b\nö","since_ms":1}'.encode().replace(b"\n", b"\\n")
        )
        one.ending.lead(kept={"release/b": b'{"symbol":"A/EUR","user_id":"alice","since_ms":1}'})
        await one.pass_on()
        assert (asked(service), "a" in one.ending.releases, one.left) == (["b"], True, 1)
    assert any("order a" in record.getMessage() and record.exc_info for record in caplog.records)


@pytest.mark.gen_test
async def test_fault_of_ours_does_not_end_the_work(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (one, service):
        one.worker.is_alone = lambda: bool(1 / 0)
        running = asyncio.ensure_future(one.worker.run())
        await asyncio.sleep(0)
        one.worker.is_alone = lambda: False
        one.ending.ended(a="order_cancelled")
        await service.arrived(1)
        running.cancel()
        await one.settle()
        assert one.left == 0
    assert any("could not be looked after" in record.getMessage() and record.exc_info for record in caplog.records)


# Ids that may not be used before they are released.


@pytest.mark.gen_test
async def test_id_that_is_still_to_be_released_is_reserved_anew_only_after_that() -> None:
    async with serving() as (one, service):
        one.ending.ended(**{KEY: "order_cancelled"})
        assert await one.timed.outcome() is AccountsUnavailable
        assert service.seen == []
        await one.pass_on()
        assert await one.timed.outcome(placed("my-1")) is FundsRefused, "the service was asked"


@pytest.mark.parametrize("is_released", [True, False], ids=["meanwhile", "later"])
@pytest.mark.gen_test
async def test_answer_that_is_of_an_order_still_to_be_released_is_not_used(is_released: bool) -> None:
    async with serving() as (one, service):
        service.next_id = lambda _key: ID
        with service.frozen():
            reserving = asyncio.ensure_future(one.timed.reserve(placed("my-1"), KEY, "alice"))
            await service.arrived(1)
            one.ending.ended(**{ID: "order_cancelled"})
            if is_released:
                one.ending.releases.confirm(ID)
        with pytest.raises(AccountsUnavailable):
            await reserving


@pytest.mark.gen_test
async def test_id_whose_release_nobody_answered_is_one_to_be_wary_of() -> None:
    async with serving() as (one, service):
        service.next_id = lambda _key: ID
        service.answer_next(500)
        one.ending.ended(**{ID: "order_cancelled"})
        await one.pass_on()
        await one.pass_on(1)
        assert one.left == 0
        with pytest.raises(FundsRefused):
            await one.timed.reserve(placed("my-1"), KEY, "alice")


@pytest.mark.parametrize(
    ("order_id", "user_id", "is_so"),
    [("a", "alice", True), ("..", "alice", False), (".", "alice", False), ("a", "böse", False)],
)
def test_what_cannot_be_told_to_the_service_was_never_reserved(order_id: str, user_id: str, is_so: bool) -> None:
    assert may_be_reserved(order_id, user_id) is is_so


# Who leads.


@pytest.mark.gen_test
async def test_who_stood_still_waits_to_hear_whether_it_still_leads() -> None:
    async with serving() as (one, service):
        await one.pass_on()
        one.ending.ended(a="order_cancelled")
        one.timed.now += FROZEN_SECONDS + 0.1
        await one.pass_on()
        await one.pass_on(THAW_SECONDS - 0.1)
        assert asked(service) == []
        await one.pass_on(0.1)
        assert asked(service) == ["a"]


@pytest.mark.gen_test
async def test_what_others_lead_is_looked_at_now_and_then_where_much_or_old_things_are_due() -> None:
    async with serving() as (one, service):
        one.ending.led.clear()
        one.ending.ended(a="order_cancelled")
        await one.pass_on()
        assert one.looked_at == []
        one.ending.now += LONG_MS / 1000 + 1
        await one.pass_on(LOOK_SECONDS - 1)
        assert one.looked_at == []
        await one.pass_on(1)
        assert (one.looked_at, one.ending.releases.count(0)) == ([0], 1)
        one.cursors[0] = cursor(1)
        await one.pass_on(LOOK_SECONDS)
        assert (one.looked_at, one.ending.releases.count(0), asked(service)) == ([0, 0], 0, [])


@pytest.mark.gen_test
async def test_who_is_alone_releases_what_it_took() -> None:
    async with serving() as (one, service):
        one.ending.led.clear()
        one.ending.directory.register("a", "alice", placed(), 1)
        one.ending.ended(a="order_cancelled", b="order_cancelled")
        await one.pass_on()
        assert asked(service) == []
        one.is_alone = True
        await one.pass_on()
        assert asked(service) == ["a"]


# Health, and the end.


@pytest.mark.gen_test
async def test_problem_is_the_services_or_that_something_is_due_for_long() -> None:
    async with serving() as (one, _):
        one.ending.ended(a="order_cancelled", b="order_cancelled")
        one.ending.now += LONG_MS / 1000
        assert one.worker.problem is None
        one.ending.now += 15
        assert one.worker.problem == "the account service has not released 2 ended orders, the first for 75 s"
        one.ending.led.clear()
        assert one.worker.problem is None, "others have to"
    async with working(closed_port()) as one:
        one.ending.ended(**{f"n{number}": "order_cancelled" for number in range(CIRCUIT_FAILURES)})
        await one.pass_on()
        assert (one.worker.problem or "").startswith("the account service fails: ")


@pytest.mark.gen_test
async def test_end_waits_for_what_is_under_way_and_begins_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (one, service):
        with service.frozen():
            one.ending.ended(a="order_cancelled")
            one.begin()
            await service.arrived(1)
            finishing = asyncio.ensure_future(one.worker.finish(LONG_SECONDS))
            await asyncio.sleep(0)
            one.ending.ended(b="order_cancelled")
            one.begin()
        await finishing
        assert (asked(service), one.left) == (["a"], 1)
        assert one.ending.written().keys() == {"release/b"}, "for whoever leads next"
    assert [record for record in caplog.records if record.levelno == logging.ERROR] == []


@pytest.mark.gen_test
async def test_end_gives_up_what_is_not_answered_in_time_and_it_stays_due() -> None:
    async with serving() as (one, service):
        with service.frozen():
            one.ending.ended(a="order_cancelled")
            one.begin()
            await service.arrived(1)
            await one.worker.finish(0.0)
            assert (one.left, one.worker._tasks) == (1, set())


@pytest.mark.gen_test
async def test_end_is_an_alarm_where_nobody_else_knows_what_is_due(caplog: pytest.LogCaptureFixture) -> None:
    async with working(closed_port()) as one:
        one.is_alone = True
        names = {f"n{number}": "order_cancelled" for number in range(60)}
        for name in names:
            one.ending.directory.register(name, "alice", placed(), 1)
        one.ending.ended(**names)
        await one.pass_on()
        await one.worker.finish(LONG_SECONDS)
        assert one.counts == {"release_failed": 60}
        one.ending.releases.act_alone(False)
    [record] = [record for record in caplog.records if "their funds stay reserved" in record.getMessage()]
    assert record.getMessage().startswith("60 ended orders could not be released") and "n0, n1" in record.getMessage()
