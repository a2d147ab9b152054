"""Orders on their way in: how they are found, and what those are told who wait for them."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from core.errors import BusUnavailable, OutcomeUnknown
from core.orders.attempt import Attempt, Attempts, Placed
from tests.core.attempts import ANY_NAME, LIMIT, OTHER_TERMS
from tests.core.fakes import run, turns


def test_attempt_is_found_by_its_owner_and_name_until_it_is_over() -> None:
    attempts = Attempts()
    attempt = Attempt("alice", LIMIT, "a")
    attempts.add(attempt)
    attempts.add(Attempt(None, LIMIT, "b"))
    assert attempts.find("alice", "my-1") is attempt
    assert attempts.find("bob", "my-1") is attempts.find("alice", "my-2") is None
    attempts.remove(attempt)
    assert attempts.find("alice", "my-1") is None
    nobodys = attempts.find(None, "my-1")
    assert nobodys is not None and nobodys.order_id == "b"


def test_attempts_of_a_user_are_listed_in_their_order_with_and_without_a_name() -> None:
    attempts = Attempts()
    first, second = Attempt("alice", ANY_NAME, "a"), Attempt("alice", LIMIT, "b")
    other_symbol = Attempt("alice", replace(ANY_NAME, symbol="B/EUR"), "c")
    for attempt in (first, Attempt("bob", OTHER_TERMS, "d"), second, other_symbol):
        attempts.add(attempt)
    assert attempts.of("alice", None) == [first, second, other_symbol]
    assert attempts.of("alice", "KCN/EUR") == [first, second]
    first.order_id = "another one, from the accounts service"
    attempts.remove(first)
    assert attempts.of("alice", "KCN/EUR") == [second]


def test_attempts_that_begin_meanwhile_are_told_to_each_who_listens_until_it_has_gone() -> None:
    attempts = Attempts()
    first, second, third = (Attempt("alice", replace(LIMIT, client_order_id=name), name) for name in "abc")
    with attempts.beginning() as outer:
        with attempts.beginning() as inner:
            attempts.add(first)
        attempts.add(second)
        with attempts.beginning() as latest:
            attempts.add(third)
    assert (outer, inner, latest) == ([first, second, third], [first], [third])


def test_who_stops_listening_for_attempts_does_not_stop_another_who_has_heard_of_the_same() -> None:
    attempts = Attempts()
    with attempts.beginning() as first:
        with attempts.beginning():
            pass
        attempt = Attempt("alice", LIMIT, "a")
        attempts.add(attempt)
    assert first == [attempt]


def test_outcome_is_told_to_all_that_wait_for_it() -> None:
    async def main() -> None:
        attempt = Attempt("alice", LIMIT, "a")
        waiting = [asyncio.ensure_future(asyncio.shield(attempt.outcome())) for _ in range(2)]
        placed = Placed("a", "my-1")
        attempt.succeed(placed)
        assert await asyncio.gather(*waiting) == [placed, placed]

    run(main())


@pytest.mark.parametrize("error", [BusUnavailable("x"), asyncio.CancelledError()])
def test_failure_is_told_to_all_that_wait_for_it_and_an_interruption_as_an_unknown_outcome(
    error: BaseException,
) -> None:
    async def main() -> None:
        attempt = Attempt("alice", LIMIT, "a")
        attempt.outcome()
        attempt.fail(error)
        with pytest.raises(type(error) if isinstance(error, Exception) else OutcomeUnknown) as told:
            await attempt.outcome()
        assert isinstance(told.value, BusUnavailable) or told.value.order_id == "a"

    run(main())


def test_who_waits_for_the_funds_runs_in_another_turn_than_what_has_them_reserved() -> None:
    async def main() -> None:
        attempt = Attempt("alice", LIMIT, "a")
        order = []

        async def wait() -> None:
            await asyncio.wait((attempt.reserved(),))
            order.append("whoever waits")

        waiting = asyncio.ensure_future(wait())
        await turns()
        attempt.end_reserving()
        order.append("the order's record")
        await waiting
        assert order == ["the order's record", "whoever waits"]

    run(main())


def test_attempt_that_nobody_waits_for_is_over_without_a_word() -> None:
    attempt = Attempt("alice", LIMIT, "a")
    attempt.end_reserving()
    attempt.succeed(Placed("a", "my-1"))
    Attempt("alice", LIMIT, "a").fail(BusUnavailable("x"))  # outside any loop: there is no future
