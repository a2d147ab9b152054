"""Orders in: what becomes of the funds that were reserved for an attempt."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from core.errors import (
    AccountsUnavailable,
    BusUnavailable,
    FundsRefused,
    GatewayError,
    InvalidFields,
    NoSuchOrder,
    OrderConflict,
    OutcomeUnknown,
    StillBehind,
    TokenNeeded,
)
from core.messages.commands import CancelOrder, PlaceOrder
from core.messages.order_ids import order_id_for
from core.orders.attempt import Placed
from core.orders.entry import USE_SECONDS
from tests.core.attempts import (
    ALICES,
    ANY_NAME,
    BY_AMOUNT,
    LIMIT,
    OTHER_TERMS,
    RESERVED_ID,
    SAME_TERMS,
    Funds,
    known,
    placed,
    placing,
    unknown,
)
from tests.core.fakes import run, turns
from tests.core.trading import CERTAINLY_NOT, NAMESPACE, SETTLED_SECONDS, Trade


@pytest.mark.parametrize("order", [LIMIT, BY_AMOUNT], ids=["by quantity", "by amount"])
def test_reserved_id_and_quantity_are_published(order: PlaceOrder) -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds)
        assert await placed(trade, order) == Placed(RESERVED_ID, "my-1")
        assert funds.asked == [("alice", order, ALICES)]
        record = trade.log.last.record
        assert (record["order_id"], record["quantity"]) == (RESERVED_ID, "1.25")
        assert record["terms_hash"] == order.terms_hash, "of what was asked for, by which a repeat is recognised"
        assert known(trade, RESERVED_ID).quantity == "1.25"
        assert funds.released == []

    run(main())


def test_repeat_of_a_reserved_order_is_recognised_by_its_name_and_reserves_nothing() -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds)
        await placed(trade)
        assert await trade.entry.place("alice", SAME_TERMS) == Placed(RESERVED_ID, "my-1", duplicate=True)
        with pytest.raises(OrderConflict):
            await trade.entry.place("alice", OTHER_TERMS)
        assert len(funds.asked) == len(trade.log.produced) == 1

    run(main())


def test_repeats_join_while_the_funds_are_being_reserved() -> None:
    async def main() -> None:
        funds = Funds()
        funds.may_answer.clear()
        trade = Trade(reservations=funds)
        first, second = await placing(trade), await placing(trade)
        with pytest.raises(OrderConflict):
            await trade.entry.place("alice", OTHER_TERMS)
        funds.may_answer.set()
        await turns()
        trade.log.last.ack()
        assert [(await task).order_id for task in (first, second)] == [RESERVED_ID] * 2
        assert len(funds.asked) == 1

    run(main())


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (FundsRefused("insufficient funds"), "refused"),
        (AccountsUnavailable("the circuit is open"), "not_written"),
        (OutcomeUnknown(ALICES, "no answer"), "unknown"),
    ],
    ids=["refused", "unavailable", "no answer"],
)
def test_order_is_not_published_when_its_funds_are_not_known_to_be_reserved(error: GatewayError, outcome: str) -> None:
    async def main() -> None:
        funds = Funds()
        funds.fails = error
        funds.may_answer.clear()
        trade = Trade(reservations=funds)
        first, second = await placing(trade), await placing(trade)
        funds.may_answer.set()
        assert await asyncio.gather(first, second, return_exceptions=True) == [error, error]
        assert trade.log.produced == []
        assert len(trade.directory) == 0
        assert funds.released == [], "nothing is known to be reserved"
        assert trade.counts == [("place", outcome)]
        funds.fails = None
        await placed(trade)
        assert [key for _, _, key in funds.asked] == [ALICES] * 2, "the same key, so the same reservation"

    run(main())


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_reservation_is_released_when_the_order_was_certainly_not_written(at_once: bool) -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds)
        if at_once:
            trade.log.refuses = CERTAINLY_NOT
        task = await placing(trade)
        if not at_once:
            trade.log.last.fail(CERTAINLY_NOT)
        with pytest.raises(BusUnavailable):
            await task
        await turns()
        assert funds.released == [], "another instance may be about to publish it"
        await asyncio.sleep(SETTLED_SECONDS)
        assert funds.released == [(RESERVED_ID, "alice")]
        assert len(trade.directory) == 0

    run(main())


def test_reservation_is_kept_when_the_outcome_is_unknown_and_used_by_the_repeat() -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds)
        assert await unknown(trade) == RESERVED_ID
        assert funds.released == []
        trade.log.refuses = CERTAINLY_NOT
        with pytest.raises(OutcomeUnknown):
            await trade.entry.place("alice", LIMIT)
        assert funds.released == [], "the first attempt may have been written"
        trade.log.refuses = None
        assert (await placed(trade)).order_id == RESERVED_ID
        assert len(funds.asked) == 1
        assert [record["quantity"] for record in trade.log.records] == ["1.25"] * 2

    run(main())


def test_reservation_is_kept_when_the_record_was_seen_though_the_bus_refused_it() -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds)
        task = await placing(trade)
        trade.see(trade.log.last.command)
        trade.log.last.fail(CERTAINLY_NOT)
        assert (await task).order_id == RESERVED_ID
        assert funds.released == []

    run(main())


@pytest.mark.parametrize("order", [LIMIT, OTHER_TERMS], ids=["same terms", "other terms"])
def test_order_that_another_instance_published_meanwhile_is_recognised_after_its_reservation(order: PlaceOrder) -> None:
    async def main() -> None:
        funds = Funds()
        funds.may_answer.clear()
        trade, other = Trade(reservations=funds), Trade(reservations=Funds())
        task = await placing(trade, order)
        await placed(other)
        trade.see(other.log.last.command)
        funds.may_answer.set()
        if order is LIMIT:
            assert await task == Placed(RESERVED_ID, "my-1", duplicate=True)
        else:
            with pytest.raises(OrderConflict):
                await task
        assert trade.log.produced == []
        assert funds.released == [], "it is the other instance's order that they are reserved for"

    run(main())


@pytest.mark.parametrize("order", [LIMIT, OTHER_TERMS], ids=["same terms", "other terms"])
def test_new_reservation_of_an_order_that_ended_elsewhere_meanwhile_is_released(order: PlaceOrder) -> None:
    """Its first one was released, which forgets the key."""

    async def main() -> None:
        funds = Funds()
        funds.may_answer.clear()
        trade, other = Trade(reservations=funds), Trade(reservations=Funds("elsewhere-1"))
        task = await placing(trade, order)
        await placed(other)
        trade.see(other.log.last.command)
        funds.may_answer.set()
        if order is LIMIT:
            assert await task == Placed("elsewhere-1", "my-1", duplicate=True)
        else:
            with pytest.raises(OrderConflict):
                await task
        assert trade.log.produced == []
        await asyncio.sleep(SETTLED_SECONDS)
        assert funds.released == [(RESERVED_ID, "alice")]

    run(main())


# What another instance has published, and this one has not read yet.


async def behind(funds: Funds) -> tuple[Trade, bytes]:
    """An instance with one record of the order topic to read: the order, as another instance published it under `elsewhere-1`."""
    trade, other = Trade(reservations=funds), Trade(reservations=Funds("elsewhere-1"))
    trade.topic.end = 1
    await placed(other)
    return trade, other.log.last.command


def test_order_under_a_new_id_waits_for_what_another_instance_published_under_its_name() -> None:
    """That one has ended, its reservation was released, and the engine would take this one for another order."""

    async def main() -> None:
        funds = Funds()
        trade, unread = await behind(funds)
        task = await placing(trade)
        assert (trade.log.produced, task.done()) == ([], False)
        trade.see(unread)
        assert await task == Placed("elsewhere-1", "my-1", duplicate=True)
        assert trade.log.produced == []
        await asyncio.sleep(SETTLED_SECONDS)
        assert funds.released == [(RESERVED_ID, "alice")]

    run(main())


@pytest.mark.parametrize(
    ("funds", "order"), [(Funds(None), LIMIT), (Funds(), ANY_NAME)], ids=["under its own id", "without a name"]
)
def test_order_that_the_engine_would_recognise_waits_for_nothing(funds: Funds, order: PlaceOrder) -> None:
    async def main() -> None:
        trade, _ = await behind(funds)
        task = await placing(trade, order)
        assert len(trade.log.produced) == 1
        task.cancel()

    run(main())


def test_order_under_a_new_id_is_refused_where_the_topic_cannot_be_read_and_released_once_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.orders.entry.ASK_AGAIN_SECONDS", 0)

    async def main() -> None:
        funds = Funds()
        funds.may_answer.clear()
        trade = Trade(reservations=funds)
        task = await placing(trade)
        trade.is_reachable = False
        funds.may_answer.set()
        with pytest.raises(StillBehind):
            await task
        await turns()
        assert (trade.log.produced, funds.released, trade.counts) == ([], [], [("place", "not_written")])
        trade.is_reachable = True
        await asyncio.sleep(SETTLED_SECONDS)
        assert funds.released == [(RESERVED_ID, "alice")]

    run(main())


def test_reservation_is_not_released_while_it_may_be_that_of_an_order_of_another_instance() -> None:
    async def main() -> None:
        funds = Funds("elsewhere-1")
        trade, unread = await behind(funds)
        trade.topic.answers = False
        task = await placing(trade)
        trade.topic.answer(0)
        trade.log.refuses = CERTAINLY_NOT
        with pytest.raises(BusUnavailable):
            await task
        trade.topic.answer(1)
        await turns()
        assert funds.released == []
        trade.see(unread)
        await asyncio.sleep(SETTLED_SECONDS)
        assert funds.released == [], "it is the other instance's order that they are reserved for"

    run(main())


def test_reservation_is_not_released_while_another_instance_may_be_about_to_publish_its_order() -> None:
    async def main() -> None:
        funds = Funds("elsewhere-1")
        trade, unread = await behind(funds)
        trade.topic.end = 0
        trade.log.refuses = CERTAINLY_NOT
        task = await placing(trade)
        with pytest.raises(BusUnavailable):
            await task
        await asyncio.sleep(SETTLED_SECONDS - 1)
        assert funds.released == []
        trade.topic.end = 1
        trade.see(unread)
        await asyncio.sleep(SETTLED_SECONDS)
        assert funds.released == [], "it is the other instance's order that they are reserved for"

    run(main())


@pytest.mark.parametrize("late_by", [-0.5, 0.5])
def test_order_is_not_published_on_a_reservation_that_another_instance_may_have_released_by_now(late_by: float) -> None:
    async def main() -> None:
        funds = Funds()
        funds.may_answer.clear()
        trade = Trade(acks=True, reservations=funds)
        task = await placing(trade)
        await asyncio.sleep(USE_SECONDS + late_by)
        funds.may_answer.set()
        if late_by < 0:
            assert await task == Placed(RESERVED_ID, "my-1")
            return
        with pytest.raises(BusUnavailable, match="too long ago"):
            await task
        assert (trade.log.produced, trade.counts) == ([], [("place", "not_written")])
        await asyncio.sleep(SETTLED_SECONDS)
        assert funds.released == [(RESERVED_ID, "alice")]

    run(main())


def test_no_funds_are_asked_for_while_nothing_can_be_published() -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds)
        trade.is_reachable = False
        with pytest.raises(BusUnavailable):
            await trade.entry.place("alice", LIMIT)
        assert (funds.asked, trade.counts) == ([], [("place", "not_written")])

    run(main())


def test_anonymous_order_is_refused_where_funds_are_reserved() -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds)
        with pytest.raises(TokenNeeded):
            await trade.entry.place(None, LIMIT)
        assert funds.asked == []
        assert trade.log.produced == []

    run(main())


def test_anonymous_order_that_is_passed_goes_out_as_it_is_without_a_reservation() -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(acks=True, reservations=funds, passes_anonymous=True)
        told = await trade.entry.place(None, LIMIT)
        assert await trade.entry.place(None, SAME_TERMS) == Placed(told.order_id, "my-1", duplicate=True)
        [record] = trade.log.records
        assert (record["order_id"], record["user_id"], record["quantity"]) == (told.order_id, None, "2.0")
        assert (await trade.entry.place("alice", LIMIT)).order_id == RESERVED_ID
        assert [user_id for user_id, _, _ in funds.asked] == ["alice"]

    run(main())


def test_anonymous_order_that_was_certainly_not_written_has_nothing_to_be_released() -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds, passes_anonymous=True)
        trade.log.refuses = CERTAINLY_NOT
        with pytest.raises(BusUnavailable):
            await trade.entry.place(None, LIMIT)
        assert funds.released == []

    run(main())


@pytest.mark.parametrize(
    ("order", "fields"),
    [
        (BY_AMOUNT, ["quote_amount"]),
        (replace(BY_AMOUNT, max_slippage_price=Decimal(2)), ["quote_amount", "max_slippage_price"]),
        (
            replace(BY_AMOUNT, quantity=Decimal(1), quote_amount=None, max_slippage_price=Decimal(2)),
            ["max_slippage_price"],
        ),
    ],
)
def test_anonymous_order_that_an_account_would_price_is_refused_by_its_fields(
    order: PlaceOrder, fields: list[str]
) -> None:
    async def main() -> None:
        trade = Trade(acks=True, reservations=Funds(), passes_anonymous=True)
        with pytest.raises(InvalidFields) as refused:
            await trade.entry.place(None, order)
        assert [error.field for error in refused.value.errors] == fields
        assert trade.log.produced == []

    run(main())


def test_anonymous_cancel_by_name_of_an_order_that_is_not_known_goes_to_the_engine() -> None:
    async def main() -> None:
        trade = Trade(acks=True, reservations=Funds(), passes_anonymous=True)
        order_id = await trade.entry.cancel(None, CancelOrder(None, "never-seen", "KCN/EUR"))
        assert order_id == order_id_for(NAMESPACE, None, "never-seen")
        assert [(record["type"], record["order_id"]) for record in trade.log.records] == [("cancel_order", order_id)]
        with pytest.raises(NoSuchOrder):
            await trade.entry.cancel("alice", CancelOrder(None, "never-seen", "KCN/EUR"))

    run(main())
