"""Reservations that are released, and repeats of them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from core.errors import AccountsUnavailable, FundsRefused
from services.accounts import CIRCUIT_FAILURES
from tests.services.reserving import ID, KEY, LONG_SECONDS, OTHER_KEY, closed_port, reservations_at, serve
from tests.support.deadlines import deadlines, meet

# Releasing.


@pytest.mark.gen_test
async def test_release_gives_the_funds_back() -> None:
    async with serve() as (timed, service):
        reservation = await timed.reserve()
        timed.reservations.release(reservation.order_id, "ann")
        await timed.released()
        assert service.held == {}
        assert service.balances["ann", "EUR"] == 10
        last = service.seen[-1]
        assert (last.method, last.uri) == ("DELETE", f"/internal/orders/{reservation.order_id}")
        assert last.headers["X-User-Id"] == "ann"
        assert (timed.pauses, timed.failed) == ([], [])


@pytest.mark.gen_test
async def test_release_writes_the_id_as_one_segment_of_the_path() -> None:
    async with serve() as (timed, service):
        timed.reservations.release("../a/b?c#d%e", "ann")
        await timed.released()
        assert service.seen[-1].uri == "/internal/orders/..%2Fa%2Fb%3Fc%23d%25e"


@pytest.mark.parametrize("statuses", [(200,), (202,), (204,), (404,), (410,), (500, 204), (500, 409, 404)])
@pytest.mark.gen_test
async def test_release_tries_three_times_and_takes_gone_for_done(statuses: tuple[int, ...]) -> None:
    async with serve() as (timed, service):
        service.answer_next(*statuses)
        timed.reservations.release(ID, "ann")
        await timed.released()
        assert len(service.seen) == len(statuses)
        assert timed.pauses == [0.5, 2.0][: len(statuses) - 1]
        assert timed.failed == []


@pytest.mark.gen_test
async def test_release_that_failed_three_times_is_an_alarm_with_the_order_id(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (timed, service):
        service.answer_next(500, 403, 503)
        timed.reservations.release(ID, "ann")
        await timed.released()
        assert len(service.seen) == 3
        assert timed.failed == [ID]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == (
        f"the reservation of order {ID} could not be released (HTTP 503): its funds stay reserved"
    )


@pytest.mark.gen_test
async def test_release_goes_on_while_the_circuit_is_open() -> None:
    async with serve() as (timed, service):
        reservation = await timed.reserve()
        service.answer_next(*[500] * CIRCUIT_FAILURES)
        for _ in range(CIRCUIT_FAILURES):
            await timed.outcome(key=OTHER_KEY)
        assert timed.reservations.problem is not None
        timed.reservations.release(reservation.order_id, "ann")
        await timed.released()
        assert service.held == {}


@pytest.mark.gen_test
async def test_release_that_nobody_hears_is_an_alarm() -> None:
    async with reservations_at(closed_port()) as timed:
        timed.reservations.release(ID, "ann")
        await timed.released()
        assert timed.failed == [ID]


@pytest.mark.gen_test
async def test_release_that_breaks_is_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    async with serve() as (timed, _):
        timed.reservations.release(ID, "a\nb")
        await timed.released()
        assert timed.failed == [ID]
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.gen_test
async def test_close_waits_for_releases_under_way() -> None:
    async with serve() as (timed, service):
        reservation = await timed.reserve()
        with service.frozen():
            timed.reservations.release(reservation.order_id, "ann")
            await service.arrived(2)
            closing = asyncio.ensure_future(timed.reservations.close(LONG_SECONDS))
        await closing
        assert (service.held, timed.failed) == ({}, [])


@pytest.mark.gen_test
async def test_close_makes_an_alarm_of_each_release_that_is_late() -> None:
    async with serve() as (timed, service):
        timed.go_on.clear()
        service.answer_next(500, 500)
        timed.reservations.release("1", "ann")
        timed.reservations.release("2", "ann")
        await service.arrived(2)
        await timed.reservations.close(0)
        assert sorted(timed.failed) == ["1", "2"]
        timed.reservations.release("3", "ann")
        assert timed.failed[-1] == "3"


@pytest.mark.gen_test
@pytest.mark.parametrize("is_anothers", [False, True])
async def test_release_waits_until_it_is_known_whose_the_reservation_is(is_anothers: bool) -> None:
    async with serve() as (timed, service):
        reservation = await timed.reserve()
        known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timed.reservations.release(reservation.order_id, "ann", unless=lambda: known)
        await asyncio.sleep(0)
        assert list(service.held) == [reservation.order_id]
        known.set_result(is_anothers)
        await timed.released()
        assert list(service.held) == ([reservation.order_id] if is_anothers else [])
        again = await timed.reserve()
        assert (again == reservation) is is_anothers


@pytest.mark.gen_test
async def test_reservation_that_is_not_known_to_be_nobodys_is_used_by_a_repeat_and_not_released() -> None:
    async with serve() as (timed, service):
        reservation = await timed.reserve()
        known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timed.reservations.release(reservation.order_id, "ann", unless=lambda: known)
        await asyncio.sleep(0)
        assert await timed.reserve() == reservation
        await timed.released()
        assert known.cancelled()
        assert (list(service.held), timed.failed) == ([reservation.order_id], [])
        timed.reservations.release(reservation.order_id, "ann")  # that one was not published either
        await timed.released()
        assert service.held == {}


@pytest.mark.gen_test
async def test_repeat_is_refused_whose_reservation_was_taken_for_nobodys_while_it_asked() -> None:
    async with serve() as (timed, service):
        reservation = await timed.reserve()
        known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timed.reservations.release(reservation.order_id, "ann", unless=lambda: known)
        with service.frozen():
            repeat = asyncio.ensure_future(timed.outcome())
            await service.arrived(2)
            known.set_result(False)
            await service.arrived(3)
        assert await repeat is AccountsUnavailable
        await timed.released()
        assert service.held == {}


@pytest.mark.gen_test
async def test_close_makes_an_alarm_where_it_is_not_known_whose_the_reservation_is() -> None:
    async with serve() as (timed, service):
        reservation = await timed.reserve()
        timed.reservations.release(reservation.order_id, "ann", unless=asyncio.Event().wait)
        await timed.reservations.close(0)
        assert timed.failed == list(service.held) == [reservation.order_id]


# A repeat of an order whose first reservation was released: it must not be published without its funds.


@pytest.mark.gen_test
async def test_reserve_makes_a_new_reservation_after_the_old_one_was_released() -> None:
    async with serve() as (timed, service):
        first = await timed.reserve()
        timed.reservations.release(first.order_id, "ann")
        await timed.released()
        second = await timed.reserve()
        assert second.order_id != first.order_id
        assert list(service.held) == [second.order_id]


@pytest.mark.gen_test
async def test_reserve_takes_the_same_id_again_after_a_release_that_was_confirmed() -> None:
    async with serve() as (timed, service):
        service.next_id = lambda key: key
        first = await timed.reserve()
        timed.reservations.release(first.order_id, "ann")
        await timed.released()
        assert await timed.reserve() == first
        assert list(service.held) == [KEY]


@pytest.mark.gen_test
async def test_reserve_does_not_use_a_reservation_that_is_on_its_way_to_be_released() -> None:
    async with serve() as (timed, service):
        first = await timed.reserve()
        timed.go_on.clear()
        service.answer_next(500)
        timed.reservations.release(first.order_id, "ann")
        await service.arrived(2)
        with pytest.raises(AccountsUnavailable, match="being released"):
            await timed.reserve()
        timed.go_on.set()
        await timed.released()
        assert service.held == {}
        assert (await timed.reserve()).order_id != first.order_id


@pytest.mark.gen_test
async def test_reserve_does_not_use_a_reservation_whose_release_ended_while_it_was_asked_for() -> None:
    async with serve() as (timed, service):
        first = await timed.reserve()
        timed.go_on.clear()
        service.answer_next(403)
        timed.reservations.release(first.order_id, "ann")
        await service.arrived(2)
        with service.frozen(after_its_work=True):
            asked = asyncio.ensure_future(timed.outcome())
            await service.arrived(3)
            # The repeat has got the old reservation, but not yet heard of it, when the second try releases that.
            service.let_newcomers_pass()
            timed.go_on.set()
            await timed.released()
            assert service.held == {}
        assert await asked is AccountsUnavailable


@pytest.mark.gen_test
async def test_reserve_does_not_use_a_reservation_that_a_lost_release_may_still_take_away() -> None:
    async with serve() as (timed, service):
        service.next_id = lambda key: key
        first = await timed.reserve()
        with service.frozen(), deadlines() as begun:
            timed.reservations.release(first.order_id, "ann")
            for tries in (1, 2, 3):
                await service.arrived(1 + tries)
                meet(begun.pop())
            await timed.released()
        assert timed.failed == [KEY]
        with pytest.raises(FundsRefused, match="another client_order_id"):
            await timed.reserve()


@pytest.mark.gen_test
async def test_reserve_does_not_trust_a_release_whose_first_try_may_still_be_carried_out() -> None:
    async with serve() as (timed, service):
        service.next_id = lambda key: key
        first = await timed.reserve()
        with service.frozen(), deadlines() as begun:
            timed.reservations.release(first.order_id, "ann")
            await service.arrived(2)
            service.let_newcomers_pass()
            meet(begun.pop())
            await timed.released()
            assert (service.held, timed.failed) == ({}, [])
            with pytest.raises(FundsRefused, match="another client_order_id"):
                await timed.reserve()


@pytest.mark.gen_test
async def test_release_of_one_order_is_under_way_once() -> None:
    async with serve() as (timed, service):
        for _ in range(3):
            timed.reservations.release(ID, "ann")
        await timed.released()
        assert len(service.seen) == 1


@pytest.mark.gen_test
async def test_reserve_forgets_the_oldest_of_very_many_doubtful_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.accounts._MAX_DOUBTFUL", 3)
    async with serve() as (timed, service):
        for number in range(5):
            service.answer_next(500, 500, 500)
            timed.reservations.release(str(number), "ann")
            await timed.released()
        assert list(timed.reservations._doubtful) == ["2", "3", "4"]
