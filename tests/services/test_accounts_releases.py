"""Reservations that are released, and repeats of them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from core.errors import AccountsUnavailable, FundsRefused
from services.accounts import CIRCUIT_FAILURES
from tests.services.reserving import ID, KEY, LONG_SECONDS, OTHER_KEY, benched, closed_port, serve
from tests.support.deadlines import deadlines, meet

# Releasing.


@pytest.mark.gen_test
async def test_release_gives_the_funds_back() -> None:
    async with serve() as (bench, service):
        reservation = await bench.reserve()
        bench.reservations.release(reservation.order_id, "ann")
        await bench.released()
        assert service.held == {}
        assert service.balances["ann", "EUR"] == 10
        last = service.seen[-1]
        assert (last.method, last.uri) == ("DELETE", f"/internal/orders/{reservation.order_id}")
        assert last.headers["X-User-Id"] == "ann"
        assert (bench.pauses, bench.failed) == ([], [])


@pytest.mark.gen_test
async def test_release_writes_the_id_as_one_segment_of_the_path() -> None:
    async with serve() as (bench, service):
        bench.reservations.release("../a/b?c#d%e", "ann")
        await bench.released()
        assert service.seen[-1].uri == "/internal/orders/..%2Fa%2Fb%3Fc%23d%25e"


@pytest.mark.parametrize("statuses", [(200,), (202,), (204,), (404,), (410,), (500, 204), (500, 409, 404)])
@pytest.mark.gen_test
async def test_release_tries_three_times_and_takes_gone_for_done(statuses: tuple[int, ...]) -> None:
    async with serve() as (bench, service):
        service.answer_next(*statuses)
        bench.reservations.release(ID, "ann")
        await bench.released()
        assert len(service.seen) == len(statuses)
        assert bench.pauses == [0.5, 2.0][: len(statuses) - 1]
        assert bench.failed == []


@pytest.mark.gen_test
async def test_release_that_failed_three_times_is_an_alarm_with_the_order_id(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (bench, service):
        service.answer_next(500, 403, 503)
        bench.reservations.release(ID, "ann")
        await bench.released()
        assert len(service.seen) == 3
        assert bench.failed == [ID]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == (
        f"the reservation of order {ID} could not be released (HTTP 503): its funds stay reserved"
    )


@pytest.mark.gen_test
async def test_release_goes_on_while_the_circuit_is_open() -> None:
    async with serve() as (bench, service):
        reservation = await bench.reserve()
        service.answer_next(*[500] * CIRCUIT_FAILURES)
        for _ in range(CIRCUIT_FAILURES):
            await bench.outcome(key=OTHER_KEY)
        assert bench.reservations.problem is not None
        bench.reservations.release(reservation.order_id, "ann")
        await bench.released()
        assert service.held == {}


@pytest.mark.gen_test
async def test_release_that_nobody_hears_is_an_alarm() -> None:
    async with benched(closed_port()) as bench:
        bench.reservations.release(ID, "ann")
        await bench.released()
        assert bench.failed == [ID]


@pytest.mark.gen_test
async def test_release_that_breaks_is_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (bench, _):
        bench.reservations.release(ID, "a\nb")
        await bench.released()
        assert bench.failed == [ID]
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.gen_test
async def test_close_waits_for_releases_under_way() -> None:
    async with serve() as (bench, service):
        reservation = await bench.reserve()
        with service.frozen():
            bench.reservations.release(reservation.order_id, "ann")
            await service.arrived(2)
            closing = asyncio.ensure_future(bench.reservations.close(LONG_SECONDS))
        await closing
        assert (service.held, bench.failed) == ({}, [])


@pytest.mark.gen_test
async def test_close_makes_an_alarm_of_each_release_that_is_late() -> None:
    async with serve() as (bench, service):
        bench.go_on.clear()
        service.answer_next(500, 500)
        bench.reservations.release("1", "ann")
        bench.reservations.release("2", "ann")
        await service.arrived(2)
        await bench.reservations.close(0)
        assert sorted(bench.failed) == ["1", "2"]
        bench.reservations.release("3", "ann")
        assert bench.failed[-1] == "3"


# A repeat of an order whose first reservation was released: it must not be published without its funds.


@pytest.mark.gen_test
async def test_reserve_makes_a_new_reservation_after_the_old_one_was_released() -> None:
    async with serve() as (bench, service):
        first = await bench.reserve()
        bench.reservations.release(first.order_id, "ann")
        await bench.released()
        second = await bench.reserve()
        assert second.order_id != first.order_id
        assert list(service.held) == [second.order_id]


@pytest.mark.gen_test
async def test_reserve_takes_the_same_id_again_after_a_release_that_was_confirmed() -> None:
    async with serve() as (bench, service):
        service.next_id = lambda key: key
        first = await bench.reserve()
        bench.reservations.release(first.order_id, "ann")
        await bench.released()
        assert await bench.reserve() == first
        assert list(service.held) == [KEY]


@pytest.mark.gen_test
async def test_reserve_does_not_use_a_reservation_that_is_on_its_way_to_be_released() -> None:
    async with serve() as (bench, service):
        first = await bench.reserve()
        bench.go_on.clear()
        service.answer_next(500)
        bench.reservations.release(first.order_id, "ann")
        await service.arrived(2)
        with pytest.raises(AccountsUnavailable, match="being released"):
            await bench.reserve()
        bench.go_on.set()
        await bench.released()
        assert service.held == {}
        assert (await bench.reserve()).order_id != first.order_id


@pytest.mark.gen_test
async def test_reserve_does_not_use_a_reservation_whose_release_ended_while_it_was_asked_for() -> None:
    async with serve() as (bench, service):
        first = await bench.reserve()
        bench.go_on.clear()
        service.answer_next(403)
        bench.reservations.release(first.order_id, "ann")
        await service.arrived(2)
        with service.frozen(after_its_work=True):
            asked = asyncio.ensure_future(bench.outcome())
            await service.arrived(3)
            # The repeat has got the old reservation, but not yet heard of it, when the second try releases that.
            service.let_newcomers_pass()
            bench.go_on.set()
            await bench.released()
            assert service.held == {}
        assert await asked is AccountsUnavailable


@pytest.mark.gen_test
async def test_reserve_does_not_use_a_reservation_that_a_lost_release_may_still_take_away() -> None:
    async with serve() as (bench, service):
        service.next_id = lambda key: key
        first = await bench.reserve()
        with service.frozen(), deadlines() as begun:
            bench.reservations.release(first.order_id, "ann")
            for tries in (1, 2, 3):
                await service.arrived(1 + tries)
                meet(begun.pop())
            await bench.released()
        assert bench.failed == [KEY]
        with pytest.raises(FundsRefused, match="another client_order_id"):
            await bench.reserve()


@pytest.mark.gen_test
async def test_reserve_does_not_trust_a_release_whose_first_try_may_still_be_carried_out() -> None:
    async with serve() as (bench, service):
        service.next_id = lambda key: key
        first = await bench.reserve()
        with service.frozen(), deadlines() as begun:
            bench.reservations.release(first.order_id, "ann")
            await service.arrived(2)
            service.let_newcomers_pass()
            meet(begun.pop())
            await bench.released()
            assert (service.held, bench.failed) == ({}, [])
            with pytest.raises(FundsRefused, match="another client_order_id"):
                await bench.reserve()


@pytest.mark.gen_test
async def test_release_of_one_order_is_under_way_once() -> None:
    async with serve() as (bench, service):
        for _ in range(3):
            bench.reservations.release(ID, "ann")
        await bench.released()
        assert len(service.seen) == 1


@pytest.mark.gen_test
async def test_reserve_forgets_the_oldest_of_very_many_doubtful_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.accounts._MAX_DOUBTFUL", 3)
    async with serve() as (bench, service):
        for number in range(5):
            service.answer_next(500, 500, 500)
            bench.reservations.release(str(number), "ann")
            await bench.released()
        assert list(bench.reservations._doubtful) == ["2", "3", "4"]
