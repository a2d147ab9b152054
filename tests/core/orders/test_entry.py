"""Orders in: what becomes of each attempt and of its repeats."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from core.errors import (
    BusUnavailable,
    GatewayError,
    OrderConflict,
    OutcomeUnknown,
    StillStarting,
)
from core.messages.commands import CancelOrder, PlaceOrder
from core.orders.attempt import Placed
from core.orders.order import Status
from tests.core.attempts import ALICES, ANY_NAME, LIMIT, OTHER_TERMS, SAME_TERMS, hear, known, placed, placing, unknown
from tests.core.fakes import run, turns
from tests.core.trading import CERTAINLY_NOT, KEEP_SECONDS, Trade

# One attempt.


def test_place_is_accepted_only_after_the_acknowledgement() -> None:
    async def main() -> None:
        trade = Trade()
        task = await placing(trade)
        assert not task.done()
        assert known(trade, ALICES).status is Status.PENDING
        assert trade.directory.open_orders("alice") == [], "nobody is shown what may not have been written"
        trade.log.last.ack()
        assert await task == Placed(ALICES, "my-1")
        assert trade.directory.open_orders("alice") == [known(trade, ALICES)]
        assert trade.counts == [("place", "accepted")]

    run(main())


def test_place_produces_the_record_of_the_contract() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        assert trade.log.last.symbol == "KCN/EUR"
        assert trade.log.last.record == {
            "type": "place_order", "order_id": ALICES, "symbol": "KCN/EUR", "side": "bid", "order_type": "limit",
            "price": "1.50", "quantity": "2.0", "user_id": "alice", "client_order_id": "my-1",
            "terms_hash": LIMIT.terms_hash, "time_in_force": "GTC", "timestamp": 1_700_000_000_500,
        }  # fmt: skip

    run(main())


def test_place_gives_each_order_without_a_name_an_id_of_its_own() -> None:
    async def main() -> None:
        trade = Trade()
        first, second = await placed(trade, ANY_NAME), await placed(trade, ANY_NAME)
        assert first.order_id != second.order_id
        assert UUID(first.order_id).version == 4
        assert (first.client_order_id, first.duplicate) == (None, False)
        assert first.body() == {"order_id": first.order_id, "client_order_id": None}
        assert len(trade.log.produced) == 2

    run(main())


def test_place_tells_the_names_of_different_users_apart() -> None:
    async def main() -> None:
        trade = Trade()
        answers = [await placed(trade, LIMIT, user_id) for user_id in ("alice", "bob", None)]
        assert len({answer.order_id for answer in answers}) == 3
        assert not any(answer.duplicate for answer in answers)

    run(main())


@pytest.mark.parametrize("order", [LIMIT, ANY_NAME], ids=["named", "unnamed"])
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_place_that_was_certainly_not_written_leaves_nothing(order: PlaceOrder, at_once: bool) -> None:
    async def main() -> None:
        trade = Trade()
        if at_once:
            trade.log.refuses = CERTAINLY_NOT
        task = await placing(trade, order)
        if not at_once:
            trade.log.last.fail(CERTAINLY_NOT)
        with pytest.raises(BusUnavailable):
            await task
        assert len(trade.directory) == 0
        assert trade.counts == [("place", "not_written")]
        trade.log.refuses = None
        again = await placed(trade, order)
        assert not again.duplicate

    run(main())


def test_place_of_unknown_outcome_is_known_and_open() -> None:
    async def main() -> None:
        trade = Trade()
        assert await unknown(trade) == ALICES
        assert trade.directory.open_orders("alice") == [known(trade, ALICES)]
        assert not known(trade, ALICES).is_certain
        assert trade.counts == [("place", "unknown")]

    run(main())


@pytest.mark.parametrize("outcome", ["lost", "refused"])
@pytest.mark.parametrize("sign", ["read", "heard of"])
def test_place_is_accepted_when_its_record_was_seen_whatever_the_bus_says(outcome: str, sign: str) -> None:
    async def main() -> None:
        trade = Trade()
        task = await placing(trade)
        if sign == "read":
            trade.see(trade.log.last.command)
        else:
            hear(trade, "order_accepted", ALICES, side="bid", order_type="limit", price="1.50", quantity="2.0")
        if outcome == "lost":
            trade.log.last.lose()
        else:
            trade.log.last.fail(CERTAINLY_NOT)
        assert await task == Placed(ALICES, "my-1")
        assert (await trade.entry.place("alice", LIMIT)).duplicate
        assert len(trade.log.produced) == 1

    run(main())


def test_place_that_is_interrupted_is_of_unknown_outcome_for_who_joined() -> None:
    async def main() -> None:
        trade = Trade()
        first, second = await placing(trade), await placing(trade)
        first.cancel()
        with pytest.raises(OutcomeUnknown) as refused:
            await second
        assert refused.value.order_id == ALICES
        assert not known(trade, ALICES).is_certain
        with pytest.raises(asyncio.CancelledError):
            await first
        again = await placing(trade)
        assert len(trade.log.produced) == 2, "it is published again, under its id"
        trade.log.last.ack()
        assert (await again).order_id == ALICES

    run(main())


# Repeats.


def test_repeats_of_a_pending_order_join_its_wait_and_its_success() -> None:
    async def main() -> None:
        trade = Trade()
        tasks = [await placing(trade) for _ in range(3)] + [await placing(trade, SAME_TERMS)]
        assert len(trade.log.produced) == 1
        trade.log.last.ack()
        answers = await asyncio.gather(*tasks)
        assert [answer.order_id for answer in answers] == [ALICES] * 4
        assert [answer.duplicate for answer in answers] == [False, True, True, True]
        assert answers[1].body() == {"order_id": ALICES, "client_order_id": "my-1", "duplicate": True}
        assert sorted(trade.counts) == [("place", "accepted"), *[("place", "duplicate")] * 3]

    run(main())


@pytest.mark.parametrize("error", [CERTAINLY_NOT, OutcomeUnknown(ALICES, "no acknowledgement in time")], ids=type)
def test_repeats_of_a_pending_order_share_its_failure(error: GatewayError) -> None:
    async def main() -> None:
        trade = Trade()
        tasks = [await placing(trade) for _ in range(3)]
        trade.log.last.fail(error)
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in told} == {type(error)}
        assert len(trade.log.produced) == 1

    run(main())


def test_repeat_whose_sender_is_gone_disturbs_no_other() -> None:
    async def main() -> None:
        trade = Trade()
        first, second, third = [await placing(trade) for _ in range(3)]
        second.cancel()
        await turns()
        trade.log.last.ack()
        assert (await first).order_id == (await third).order_id == ALICES
        assert second.cancelled()

    run(main())


def test_repeat_of_an_accepted_order_produces_nothing() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        for order in (LIMIT, SAME_TERMS):
            assert await trade.entry.place("alice", order) == Placed(ALICES, "my-1", duplicate=True)
        assert len(trade.log.produced) == 1
        assert trade.counts == [("place", "accepted"), ("place", "duplicate"), ("place", "duplicate")]

    run(main())


@pytest.mark.parametrize("ending", ["order_filled", "order_cancelled", "order_rejected"])
def test_repeat_of_an_order_that_is_closed_is_a_duplicate_still(ending: str) -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        hear(trade, ending, ALICES, filled_quantity="0", reason="because")
        assert known(trade, ALICES).is_closed
        assert (await trade.entry.place("alice", LIMIT)).duplicate

    run(main())


def test_repeat_of_an_order_of_another_instance_is_answered_from_the_topic() -> None:
    async def main() -> None:
        trade, other = Trade(), Trade()
        await placed(other)
        trade.see(other.log.last.command)
        assert await trade.entry.place("alice", LIMIT) == Placed(ALICES, "my-1", duplicate=True)
        assert trade.log.produced == []

    run(main())


def test_order_whose_name_another_instance_gave_to_other_terms_first_is_refused() -> None:
    async def main() -> None:
        trade = Trade()
        task = await placing(trade)
        trade.see(OTHER_TERMS.encode(ALICES, "alice", 1))
        trade.see(trade.log.last.command)
        trade.log.last.ack()
        with pytest.raises(OrderConflict):
            await task

    run(main())


def test_repeat_after_an_unknown_outcome_is_answered_from_the_topic_once_it_is_seen_there() -> None:
    async def main() -> None:
        trade = Trade()
        await unknown(trade)
        trade.see(trade.log.last.command)
        assert await trade.entry.place("alice", LIMIT) == Placed(ALICES, "my-1", duplicate=True)
        assert len(trade.log.produced) == 1

    run(main())


def test_repeat_after_an_unknown_outcome_is_published_again_under_the_same_id() -> None:
    async def main() -> None:
        trade = Trade()
        await unknown(trade)
        trade.now += 10
        again = await placed(trade, SAME_TERMS)
        assert again == Placed(ALICES, "my-1"), "it is the first that is known to be accepted"
        first, second = trade.log.records
        assert second["order_id"] == first["order_id"] == ALICES
        assert second["terms_hash"] == first["terms_hash"]
        assert second["quantity"] == "2.0", "in the digits of the first attempt"
        assert second["timestamp"] == first["timestamp"] + 10_000
        assert (await trade.entry.place("alice", LIMIT)).duplicate

    run(main())


def test_repeats_of_one_that_is_published_again_join_too() -> None:
    async def main() -> None:
        trade = Trade()
        await unknown(trade)
        second, third = await placing(trade), await placing(trade)
        assert len(trade.log.produced) == 2
        trade.log.last.ack()
        assert [(await task).duplicate for task in (second, third)] == [False, True]

    run(main())


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_repeat_after_an_unknown_outcome_is_unknown_when_only_this_attempt_was_not_written(at_once: bool) -> None:
    async def main() -> None:
        trade = Trade()
        await unknown(trade)
        if at_once:
            trade.log.refuses = CERTAINLY_NOT
        task = await placing(trade)
        if not at_once:
            trade.log.last.fail(CERTAINLY_NOT)
        with pytest.raises(OutcomeUnknown) as refused:
            await task
        assert refused.value.order_id == ALICES
        assert "Kafka cannot be reached" in refused.value.reason
        assert not known(trade, ALICES).is_certain
        trade.log.refuses = None
        assert (await placed(trade)).order_id == ALICES

    run(main())


def test_repeat_that_is_seen_on_the_topic_meanwhile_is_accepted_though_it_was_refused_itself() -> None:
    async def main() -> None:
        trade = Trade()
        await unknown(trade)
        task = await placing(trade)
        trade.see(trade.log.produced[0].command)
        trade.log.last.fail(CERTAINLY_NOT)
        assert (await task).order_id == ALICES

    run(main())


def test_order_that_is_being_published_again_is_not_forgotten_meanwhile() -> None:
    async def main() -> None:
        trade = Trade()
        await unknown(trade)
        trade.now += 2 * KEEP_SECONDS
        task = await placing(trade)
        trade.directory.sweep(int(trade.now * 1000))
        assert trade.directory.get(ALICES) is not None
        trade.log.last.ack()
        await task
        assert (await trade.entry.place("alice", LIMIT)).duplicate

    run(main())


@pytest.mark.parametrize("state", ["pending", "unknown", "seen", "accepted", "published again", "closed"])
def test_repeat_with_other_terms_is_a_conflict_in_every_state(state: str) -> None:
    async def main() -> None:
        trade = Trade()
        if state == "pending":
            await placing(trade)
        elif state in ("accepted", "closed"):
            await placed(trade)
            if state == "closed":
                hear(trade, "order_filled", ALICES)
        else:
            await unknown(trade)
            if state == "seen":
                trade.see(trade.log.last.command)
            elif state == "published again":
                await placing(trade)
        produced = len(trade.log.produced)
        with pytest.raises(OrderConflict) as refused:
            await trade.entry.place("alice", OTHER_TERMS)
        assert refused.value.client_order_id == "my-1"
        assert len(trade.log.produced) == produced
        for one in trade.log.produced:
            if not one.future.done():
                one.ack()
        await turns()

    run(main())


def test_name_is_free_again_after_an_attempt_that_was_certainly_not_written() -> None:
    async def main() -> None:
        trade = Trade()
        trade.log.refuses = CERTAINLY_NOT
        with pytest.raises(BusUnavailable):
            await trade.entry.place("alice", LIMIT)
        trade.log.refuses = None
        assert not (await placed(trade, OTHER_TERMS)).duplicate

    run(main())


# Before the order topic has been read.


def test_nothing_is_done_before_the_order_topic_was_read() -> None:
    async def main() -> None:
        trade = Trade()
        trade.is_started = False
        for attempt in (
            trade.entry.place("alice", LIMIT),
            trade.entry.cancel("alice", CancelOrder(ALICES, None, "KCN/EUR")),
            trade.entry.cancel_all("alice", None),
        ):
            with pytest.raises(StillStarting):
                await attempt
        assert trade.log.produced == []

    run(main())
