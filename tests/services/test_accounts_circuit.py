"""Reservations: time, connections, and the circuit."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import AccountsUnavailable, OutcomeUnknown
from services.accounts import CIRCUIT_FAILURES, CIRCUIT_PAUSE_SECONDS
from tests.services.reserving import KEY, LONG_SECONDS, OTHER_KEY, closed_port, reservations_at, serve
from tests.support.deadlines import deadlines, meet


@pytest.mark.gen_test
async def test_reserve_that_times_out_is_unknown_and_its_repeat_gets_what_was_reserved() -> None:
    async with serve() as (timed, service):
        with service.frozen(after_its_work=True), deadlines() as begun:
            reserving = asyncio.ensure_future(timed.reserve())
            await service.arrived(1)
            meet(begun.pop())
            with pytest.raises(OutcomeUnknown) as caught:
                await reserving
            assert caught.value.order_id == KEY
            [order_id] = service.held
        assert (await timed.reserve()).order_id == order_id
        assert service.balances["ann", "EUR"] == 7


@pytest.mark.gen_test
async def test_reserve_is_certainly_not_made_when_the_connection_is_refused() -> None:
    async with reservations_at(closed_port()) as timed:
        with pytest.raises(AccountsUnavailable) as caught:
            await timed.reserve()
        assert caught.value.reason == "the account service cannot be reached"


@pytest.mark.gen_test
async def test_reserve_is_certainly_not_made_when_no_connection_became_free_in_time() -> None:
    async with serve(max_connections=1) as (timed, service):
        with service.frozen(), deadlines() as begun:
            first = asyncio.ensure_future(timed.outcome())
            await service.arrived(1)
            second = asyncio.ensure_future(timed.outcome(key=OTHER_KEY))
            await asyncio.sleep(0)
            meet(begun.pop())
            assert await second is AccountsUnavailable
            meet(begun.pop())
            assert await first is OutcomeUnknown


@pytest.mark.gen_test
async def test_reserve_uses_no_more_connections_than_it_may() -> None:
    async with serve(balance="100", max_connections=2) as (timed, service):
        with service.frozen():
            waiting = [asyncio.ensure_future(timed.outcome(key=f"key-{number}")) for number in range(6)]
            await service.arrived(2)
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(service.seen) == 2
        assert await asyncio.gather(*waiting) == [None] * 6
        assert len(service.held) == 6


@pytest.mark.gen_test
async def test_reserve_that_is_cancelled_frees_its_connection() -> None:
    async with serve(max_connections=1) as (timed, service):
        with service.frozen():
            leaving = asyncio.ensure_future(timed.reserve())
            await service.arrived(1)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert leaving.cancelled()
        assert await timed.outcome(key=OTHER_KEY) is None


@pytest.mark.gen_test
async def test_circuit_opens_after_failures_in_a_row_and_closes_with_the_first_success() -> None:
    async with serve() as (timed, service):
        assert timed.reservations.problem is None
        with service.answering(500):
            for number in range(CIRCUIT_FAILURES):
                assert timed.reservations.problem is None
                assert await timed.outcome() is OutcomeUnknown, number
        assert timed.reservations.problem == "the account service fails: HTTP 500"
        for _ in range(3):
            with pytest.raises(AccountsUnavailable, match="down"):
                await timed.reserve()
        assert len(service.seen) == CIRCUIT_FAILURES, "it is left alone"

        timed.now += CIRCUIT_PAUSE_SECONDS
        with service.answering(500):
            assert await timed.outcome() is OutcomeUnknown
            assert await timed.outcome() is AccountsUnavailable
        assert len(service.seen) == CIRCUIT_FAILURES + 1, "one probe"

        timed.now += CIRCUIT_PAUSE_SECONDS
        with service.frozen():
            probe = asyncio.ensure_future(timed.outcome())
            await service.arrived(CIRCUIT_FAILURES + 2)
            assert await timed.outcome(key=OTHER_KEY) is AccountsUnavailable, "one probe at a time"
        assert await probe is None
        assert timed.reservations.problem is None
        assert await timed.outcome(key=OTHER_KEY) is None


@pytest.mark.gen_test
async def test_circuit_opens_when_nobody_listens() -> None:
    async with reservations_at(closed_port()) as timed:
        for _ in range(CIRCUIT_FAILURES):
            assert await timed.outcome() is AccountsUnavailable
        assert timed.reservations.problem is not None
        assert "refused" in timed.reservations.problem


@pytest.mark.gen_test
async def test_circuit_opens_when_nobody_answers() -> None:
    async with serve() as (timed, service):
        with service.frozen(), deadlines() as begun:
            waiting = [asyncio.ensure_future(timed.outcome()) for _ in range(CIRCUIT_FAILURES)]
            await service.arrived(CIRCUIT_FAILURES)
            for deadline in begun:
                meet(deadline)
            assert set(await asyncio.gather(*waiting)) == {OutcomeUnknown}
        assert timed.reservations.problem == f"the account service fails: no answer within {LONG_SECONDS:g} s"


@pytest.mark.parametrize("status", [422, 429])
@pytest.mark.gen_test
async def test_circuit_takes_a_refusal_for_a_sign_of_life(status: int) -> None:
    async with serve() as (timed, service):
        for _ in range(3):
            with service.answering(500):
                for _ in range(CIRCUIT_FAILURES - 1):
                    await timed.outcome()
            with service.answering(status):
                await timed.outcome()
        assert timed.reservations.problem is None


@pytest.mark.gen_test
async def test_circuit_tries_again_when_its_probe_never_came_back() -> None:
    async with serve() as (timed, service):
        service.answer_next(*[500] * CIRCUIT_FAILURES)
        for _ in range(CIRCUIT_FAILURES):
            await timed.outcome()
        timed.now += CIRCUIT_PAUSE_SECONDS
        with service.frozen():
            probe = asyncio.ensure_future(timed.reserve())
            await service.arrived(CIRCUIT_FAILURES + 1)
            probe.cancel()
            await asyncio.wait([probe])
        timed.now += CIRCUIT_PAUSE_SECONDS
        assert await timed.outcome() is None
