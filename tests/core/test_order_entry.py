"""Orders in: what becomes of each attempt, of its repeats, and of the funds that were reserved for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.commands import CancelOrder, PlaceOrder
from core.errors import (
    AccountsUnavailable,
    BusUnavailable,
    FieldError,
    FundsRefused,
    GatewayError,
    InvalidFields,
    NoSuchOrder,
    OrderClosed,
    OrderConflict,
    OutcomeUnknown,
    RpcCode,
    StillStarting,
    Unauthorised,
)
from core.events import OrderEvent, read_event
from core.model import OrderType, Side, TimeInForce
from core.order_entry import Placed, rpc_error
from core.order_state import Order, Status
from core.orders import order_id_for
from tests.core.fakes import run, turns
from tests.core.trading import CERTAINLY_NOT, KEEP_SECONDS, NAMESPACE, Produced, Trade

LIMIT = PlaceOrder("KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.50"), Decimal("2.0"), TimeInForce.GTC, "my-1")
ANY_NAME = replace(LIMIT, client_order_id=None)
OTHER_TERMS = replace(LIMIT, quantity=Decimal("2.1"))
SAME_TERMS = replace(LIMIT, price=Decimal("1.5"), quantity=Decimal("2.00"))
BY_AMOUNT = replace(
    LIMIT, order_type=OrderType.MARKET, price=None, quantity=None, quote_amount=Decimal("10"),
    time_in_force=TimeInForce.IOC,
)  # fmt: skip
ALICES = order_id_for(NAMESPACE, "alice", "my-1")
RESERVED_ID = "7b6f4fd2-3c55-5a3e-8f8e-2f6f1b2c3d4e"


def start(attempt: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(attempt)


async def placing(trade: Trade, order: PlaceOrder = LIMIT, user_id: str | None = "alice") -> asyncio.Task[Placed]:
    """An attempt that is under way."""
    task = start(trade.entry.place(user_id, order))
    await turns()
    return task


async def unknown(trade: Trade, order: PlaceOrder = LIMIT) -> str:
    """An attempt of which nobody knows whether it was written; its order id."""
    first = await placing(trade, order)
    trade.log.last.lose()
    with pytest.raises(OutcomeUnknown) as refused:
        await first
    return refused.value.order_id


async def placed(trade: Trade, order: PlaceOrder = LIMIT, user_id: str | None = "alice") -> Placed:
    """An attempt that is acknowledged."""
    task = await placing(trade, order, user_id)
    trade.log.last.ack()
    return await task


def known(trade: Trade, order_id: str) -> Order:
    order = trade.directory.get(order_id)
    assert order is not None
    return order


def hear(trade: Trade, kind: str, order_id: str, offset: int = 0, **more: object) -> None:
    """The engine speaks of an order."""
    event = read_event(json.dumps({"type": kind, "order_id": order_id, **more}).encode())
    assert isinstance(event, OrderEvent)
    trade.directory.fold_event(event, 0, offset, 1_700_000_000_600, True)


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
            "terms_hash": LIMIT.terms_hash(), "time_in_force": "GTC", "timestamp": 1_700_000_000_500,
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


# Funds.


class Reserved:
    def __init__(self, order_id: str, quantity: Decimal) -> None:
        self.order_id = order_id
        self.quantity = quantity


class Funds:
    """An accounts service: an id of its own, or the key if there is none, and half of what was asked for."""

    def __init__(self, order_id: str | None = RESERVED_ID) -> None:
        self.order_id = order_id
        self.quantity = Decimal("1.25")
        self.asked: list[tuple[str, PlaceOrder, str]] = []
        self.released: list[tuple[str, str]] = []
        self.fails: GatewayError | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def reserve(self, user_id: str, order: PlaceOrder, idempotency_key: str) -> Reserved:
        self.asked.append((user_id, order, idempotency_key))
        await self.may_answer.wait()
        if self.fails is not None:
            raise self.fails
        return Reserved(self.order_id or idempotency_key, self.quantity)

    def release(self, order_id: str, user_id: str) -> None:
        self.released.append((order_id, user_id))


@pytest.mark.parametrize("order", [LIMIT, BY_AMOUNT], ids=["by quantity", "by amount"])
def test_reserved_id_and_quantity_are_published(order: PlaceOrder) -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds)
        assert await placed(trade, order) == Placed(RESERVED_ID, "my-1")
        assert funds.asked == [("alice", order, ALICES)]
        record = trade.log.last.record
        assert (record["order_id"], record["quantity"]) == (RESERVED_ID, "1.25")
        assert record["terms_hash"] == order.terms_hash(), "of what was asked for, by which a repeat is recognised"
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


def test_anonymous_order_is_refused_where_funds_are_reserved() -> None:
    async def main() -> None:
        funds = Funds()
        trade = Trade(reservations=funds)
        with pytest.raises(Unauthorised):
            await trade.entry.place(None, LIMIT)
        assert funds.asked == []

    run(main())


# Cancels.


def by_id(order_id: str, symbol: str | None = None) -> CancelOrder:
    return CancelOrder(order_id, None, symbol)


def by_name(client_order_id: str, symbol: str | None = None) -> CancelOrder:
    return CancelOrder(None, client_order_id, symbol)


@pytest.mark.parametrize("cancel", [by_id(ALICES), by_name("my-1"), by_id(ALICES, "KCN/EUR")], ids=str)
@pytest.mark.parametrize("state", ["pending", "unknown", "accepted"])
def test_cancel_of_an_own_order_is_produced_behind_it(cancel: CancelOrder, state: str) -> None:
    async def main() -> None:
        trade = Trade()
        if state == "unknown":
            await unknown(trade)
        elif state == "accepted":
            await placed(trade)
        else:
            first = await placing(trade)
        task = start(trade.entry.cancel("alice", cancel))
        await turns()
        assert not task.done()
        assert trade.log.last.symbol == "KCN/EUR", "the same key, so behind it on the same partition"
        assert trade.log.last.record == {
            "type": "cancel_order", "order_id": ALICES, "symbol": "KCN/EUR", "user_id": "alice",
            "timestamp": 1_700_000_000_500,
        }  # fmt: skip
        trade.log.last.ack()
        assert await task == ALICES
        assert trade.counts[-1] == ("cancel", "accepted")
        if state == "pending":
            trade.log.produced[0].ack()
            await first

    run(main())


@pytest.mark.parametrize("symbol", [None, "KCN/EUR"])
@pytest.mark.parametrize(("owner", "other"), [("alice", "bob"), ("alice", None), (None, "bob")])
def test_cancel_of_somebody_elses_order_is_of_none(symbol: str | None, owner: str | None, other: str | None) -> None:
    async def main() -> None:
        trade = Trade()
        order_id = (await placed(trade, LIMIT, owner)).order_id
        with pytest.raises(NoSuchOrder):
            await trade.entry.cancel(other, by_id(order_id, symbol))
        assert len(trade.log.produced) == 1

    run(main())


@pytest.mark.parametrize("cancel", [by_id(ALICES), by_name("my-1")], ids=["id", "name"])
def test_cancel_of_an_unknown_order_without_a_symbol_is_of_none(cancel: CancelOrder) -> None:
    async def main() -> None:
        trade = Trade()
        with pytest.raises(NoSuchOrder):
            await trade.entry.cancel("alice", cancel)
        assert trade.log.produced == []

    run(main())


@pytest.mark.parametrize("cancel", [by_id(ALICES, "KCN/EUR"), by_name("my-1", "KCN/EUR")], ids=["id", "name"])
def test_cancel_of_an_unknown_order_with_its_symbol_is_for_the_engine_to_judge(cancel: CancelOrder) -> None:
    async def main() -> None:
        trade = Trade()
        trade.log.acks = True
        assert await trade.entry.cancel("alice", cancel) == ALICES
        assert (trade.log.last.record["order_id"], trade.log.last.record["user_id"]) == (ALICES, "alice")

    run(main())


def test_cancel_of_an_order_of_an_older_engine_has_its_integer() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        assert await trade.entry.cancel("alice", by_id("17", "KCN/EUR")) == "17"
        assert trade.log.last.record["order_id"] == 17

    run(main())


def test_cancel_by_an_unknown_name_is_of_none_where_the_ids_are_the_account_services() -> None:
    async def main() -> None:
        trade = Trade(acks=True, reservations=Funds())
        with pytest.raises(NoSuchOrder):
            await trade.entry.cancel("alice", by_name("my-1", "KCN/EUR"))
        assert await trade.entry.cancel("alice", by_id(RESERVED_ID, "KCN/EUR")) == RESERVED_ID

    run(main())


@pytest.mark.parametrize("fails", [False, True], ids=["reserved", "refused"])
def test_cancel_by_name_waits_for_an_order_whose_funds_are_being_reserved(fails: bool) -> None:
    async def main() -> None:
        funds = Funds()
        funds.may_answer.clear()
        funds.fails = FundsRefused("insufficient funds") if fails else None
        trade = Trade(acks=True, reservations=funds)
        task = await placing(trade)
        cancelling = start(trade.entry.cancel("alice", by_name("my-1")))
        await turns()
        assert not cancelling.done()
        funds.may_answer.set()
        if fails:
            with pytest.raises(FundsRefused):
                await task
            with pytest.raises(NoSuchOrder):
                await cancelling
        else:
            assert await cancelling == (await task).order_id == RESERVED_ID

    run(main())


@pytest.mark.parametrize(
    ("ending", "status"),
    [("order_filled", "filled"), ("order_cancelled", "cancelled"), ("order_rejected", "rejected")],
)
def test_cancel_of_a_closed_order_tells_how_it_ended(ending: str, status: str) -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        hear(trade, ending, ALICES, filled_quantity="0", reason="because")
        for cancel in (by_id(ALICES), by_name("my-1", "KCN/EUR")):
            with pytest.raises(OrderClosed) as refused:
                await trade.entry.cancel("alice", cancel)
            assert (refused.value.order_id, refused.value.status) == (ALICES, status)
        assert len(trade.log.produced) == 1

    run(main())


def test_cancel_with_another_symbol_than_the_orders_breaks_a_rule() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        with pytest.raises(InvalidFields) as refused:
            await trade.entry.cancel("alice", by_id(ALICES, "OTH/EUR"))
        assert refused.value.errors == (FieldError("symbol", "the order is one of KCN/EUR; leave it out"),)
        assert len(trade.log.produced) == 1

    run(main())


@pytest.mark.parametrize("error", [CERTAINLY_NOT, OutcomeUnknown(ALICES, "no acknowledgement in time")], ids=type)
def test_cancel_that_fails_says_how_and_may_be_repeated(error: GatewayError) -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        task = start(trade.entry.cancel("alice", by_id(ALICES)))
        await turns()
        trade.log.last.fail(error)
        with pytest.raises(type(error)):
            await task
        trade.log.acks = True
        assert await trade.entry.cancel("alice", by_id(ALICES)) == ALICES

    run(main())


async def three_orders(trade: Trade) -> list[str]:
    """Two of alice's in one book, one in another, and one of bob's."""
    trade.log.acks = True
    ids = []
    for name, symbol in (("a", "KCN/EUR"), ("b", "KCN/EUR"), ("c", "OTH/EUR")):
        trade.now += 1
        ids.append((await trade.entry.place("alice", replace(LIMIT, client_order_id=name, symbol=symbol))).order_id)
    await trade.entry.place("bob", LIMIT)
    trade.log.acks = False
    trade.log.produced.clear()
    return ids


@pytest.mark.parametrize(("symbol", "expected"), [(None, 3), ("KCN/EUR", 2), ("OTH/EUR", 1), ("NIL/EUR", 0)])
def test_cancel_all_cancels_a_users_open_orders_oldest_first(symbol: str | None, expected: int) -> None:
    async def main() -> None:
        trade = Trade()
        ids = await three_orders(trade)
        concerned = [order_id for order_id in ids if symbol in (None, known(trade, order_id).symbol)]
        assert len(concerned) == expected
        trade.log.acks = True
        assert await trade.entry.cancel_all("alice", symbol) == concerned
        assert [(record["order_id"], record["user_id"]) for record in trade.log.records] == [
            (order_id, "alice") for order_id in concerned
        ]
        assert [one.symbol for one in trade.log.produced] == [known(trade, order_id).symbol for order_id in concerned]

    run(main())


def test_cancel_all_leaves_closed_orders_alone() -> None:
    async def main() -> None:
        trade = Trade()
        ids = await three_orders(trade)
        hear(trade, "order_filled", ids[1])
        trade.log.acks = True
        assert await trade.entry.cancel_all("alice", None) == [ids[0], ids[2]]

    run(main())


@pytest.mark.parametrize("symbol", [None, "KCN/EUR", "BTC/EUR"])
def test_cancel_all_cancels_what_is_under_way_behind_it(symbol: str | None) -> None:
    async def main() -> None:
        trade = Trade()
        first = (await placed(trade)).order_id
        tasks = [await placing(trade, ANY_NAME), await placing(trade, ANY_NAME, "bob")]
        mine = trade.log.produced[1].order_id
        task = start(trade.entry.cancel_all("alice", symbol))
        await turns()
        concerned = [] if symbol == "BTC/EUR" else [first, mine]
        cancels = [one for one in trade.log.produced if one.record["type"] == "cancel_order"]
        assert [one.order_id for one in cancels] == concerned
        for one in trade.log.produced[1:]:
            one.ack()
        assert await task == concerned
        await asyncio.gather(*tasks)
        # Each is said once, however far it has come.
        task = start(trade.entry.cancel_all("alice", None))
        await turns()
        for one in trade.log.produced[-2:]:
            one.ack()
        assert await task == [first, mine]

    run(main())


def test_cancel_all_is_certainly_not_written_only_if_none_was() -> None:
    async def main() -> None:
        trade = Trade()
        await three_orders(trade)
        trade.log.refuses = CERTAINLY_NOT
        with pytest.raises(BusUnavailable):
            await trade.entry.cancel_all("alice", None)

    run(main())


@pytest.mark.parametrize("outcomes", ["ack lose ack", "ack not ack", "lose not not", "not not lose", "lose lose lose"])
def test_cancel_all_of_which_a_part_failed_is_of_unknown_outcome(outcomes: str) -> None:
    async def main() -> None:
        trade = Trade()
        ids = await three_orders(trade)
        task = start(trade.entry.cancel_all("alice", None))
        await turns()
        assert len(trade.log.produced) == 3, "all at once"
        failed = []
        for one, outcome in zip(trade.log.produced, outcomes.split(), strict=True):
            if outcome == "ack":
                one.ack()
                continue
            failed.append(one.order_id)
            if outcome == "lose":
                one.lose()
            else:
                one.fail(CERTAINLY_NOT)
        with pytest.raises(OutcomeUnknown) as refused:
            await task
        assert refused.value.order_id == failed[0]
        assert refused.value.reason.startswith(f"{len(failed)} of 3 cancels may be missing")
        assert set(failed) <= set(ids)

    run(main())


def test_cancel_each_is_in_the_name_of_each_orders_owner_and_tells_what_became_of_each() -> None:
    async def main() -> None:
        trade = Trade()
        mine, nobodys = await placed(trade), await placed(trade, LIMIT, None)
        orders = [known(trade, mine.order_id), known(trade, nobodys.order_id)]
        task = start(trade.entry.cancel_each(orders))
        await turns()
        cancels = trade.log.produced[2:]
        assert [one.record["user_id"] for one in cancels] == ["alice", None]
        cancels[0].ack()
        cancels[1].fail(CERTAINLY_NOT)
        assert await task == [None, CERTAINLY_NOT]

    run(main())


# How it is told over WebSocket.


@pytest.mark.parametrize(
    ("error", "code", "data"),
    [
        (Unauthorised("no"), RpcCode.NOT_AUTHORISED, None),
        (OrderConflict("o", "c"), RpcCode.ORDER_REFUSED, None),
        (FundsRefused("insufficient funds"), RpcCode.ORDER_REFUSED, None),
        (NoSuchOrder(), RpcCode.CANCEL_FAILED, None),
        (OrderClosed("o", "filled"), RpcCode.CANCEL_FAILED, {"status": "filled"}),
        (
            InvalidFields([FieldError("symbol", "another")]),
            RpcCode.BAD_PARAMS,
            {"errors": [{"field": "symbol", "message": "another"}]},
        ),
        (OutcomeUnknown("o", "who knows"), RpcCode.OUTCOME_UNKNOWN, {"order_id": "o"}),
        (BusUnavailable("away"), RpcCode.BUS_UNAVAILABLE, None),
        (AccountsUnavailable("away"), RpcCode.BUS_UNAVAILABLE, None),
        (StillStarting(), RpcCode.BUS_UNAVAILABLE, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_refusal_has_its_code_over_websocket(error: GatewayError, code: RpcCode, data: object) -> None:
    told = rpc_error(error)
    assert (told.code, told.data) == (code, data)
    assert told.message


def test_refusal_without_a_code_is_raised_on() -> None:
    with pytest.raises(GatewayError, match="of no use here"):
        rpc_error(GatewayError("of no use here"))


# The property: whatever becomes of the attempts, one order has one id, and who was told of one finds it on the topic.

USERS = st.sampled_from(["alice", "bob", None])
NAMES = st.sampled_from(["my-1", "my-2"])
QUANTITIES = st.sampled_from([Decimal("2.0"), Decimal("2.00"), Decimal("3")])


class Retries(RuleBasedStateMachine):
    """Two instances that read one topic. What was lost is written in the end, or never, as the test has it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.instances = [Trade(), Trade()]
        self.topic: list[bytes] = []
        self.read = [0, 0]
        self.taken = [0, 0]
        self.on_its_way: list[Produced] = []
        self.lost: list[Produced] = []
        self.done: set[asyncio.Task[Placed]] = set()
        self.tasks: list[tuple[str | None, PlaceOrder, asyncio.Task[Placed]]] = []

    def teardown(self) -> None:
        for _, _, task in self.tasks:
            task.cancel()
        self.runner.run(turns())
        self.runner.close()

    def settle(self) -> None:
        self.runner.run(turns())
        for number, instance in enumerate(self.instances):
            self.on_its_way += instance.log.produced[self.taken[number] :]
            self.taken[number] = len(instance.log.produced)
        for user_id, order, task in self.tasks:
            if task.done() and task not in self.done:
                self.done.add(task)
                self.told(user_id, order, task)

    def told(self, user_id: str | None, order: PlaceOrder, task: asyncio.Task[Placed]) -> None:
        """The attempt has just been answered."""
        error = task.exception()
        assert error is None or isinstance(error, BusUnavailable | OutcomeUnknown | OrderConflict)

    def may_be_written(self) -> set[tuple[str | None, str]]:
        """The names of what is on the topic, or may get there yet."""
        commands = [*self.topic, *(one.command for one in (*self.on_its_way, *self.lost))]
        return {(record["user_id"], record["client_order_id"]) for record in map(json.loads, commands)}

    @rule(instance=st.integers(0, 1), user_id=USERS, name=NAMES, quantity=QUANTITIES)
    def place(self, instance: int, user_id: str | None, name: str, quantity: Decimal) -> None:
        order = replace(LIMIT, client_order_id=name, quantity=quantity)
        trade = self.instances[instance]

        async def begin() -> asyncio.Task[Placed]:
            return start(trade.entry.place(user_id, order))

        self.tasks.append((user_id, order, self.runner.run(begin())))
        self.settle()

    @rule(instance=st.integers(0, 1), user_id=USERS, name=NAMES, quantity=QUANTITIES)
    def place_while_the_bus_is_away(self, instance: int, user_id: str | None, name: str, quantity: Decimal) -> None:
        self.instances[instance].log.refuses = CERTAINLY_NOT
        self.place(instance, user_id, name, quantity)
        self.instances[instance].log.refuses = None

    def take(self, which: int) -> Produced:
        return self.on_its_way.pop(which % len(self.on_its_way))

    @precondition(lambda self: self.on_its_way)
    @rule(which=st.integers(0, 9))
    def acknowledge(self, which: int) -> None:
        one = self.take(which)
        self.topic.append(one.command)
        one.ack()
        self.settle()

    @precondition(lambda self: self.on_its_way)
    @rule(which=st.integers(0, 9))
    def lose(self, which: int) -> None:
        one = self.take(which)
        self.lost.append(one)
        one.lose()
        self.settle()

    @precondition(lambda self: self.lost)
    @rule(which=st.integers(0, 9), is_written=st.booleans())
    def find(self, which: int, is_written: bool) -> None:
        one = self.lost.pop(which % len(self.lost))
        if is_written:
            self.topic.append(one.command)

    @precondition(lambda self: self.on_its_way)
    @rule(which=st.integers(0, 9))
    def refuse(self, which: int) -> None:
        self.take(which).fail(CERTAINLY_NOT)
        self.settle()

    @rule(instance=st.integers(0, 1), records=st.integers(1, 3))
    def read_the_topic(self, instance: int, records: int) -> None:
        at = self.read[instance]
        for command in self.topic[at : at + records]:
            self.instances[instance].see(command)
            self.read[instance] += 1
        self.settle()

    @invariant()
    def one_order_has_one_id(self) -> None:
        ids: dict[tuple[str | None, str], str] = {}
        for record in map(json.loads, self.topic):
            name = (record["user_id"], record["client_order_id"])
            assert ids.setdefault(name, record["order_id"]) == record["order_id"]

    @invariant()
    def who_was_told_finds_the_order_on_the_topic_once(self) -> None:
        once = list(dict.fromkeys(json.loads(command)["order_id"] for command in self.topic))
        written = {(record["user_id"], record["client_order_id"]) for record in map(json.loads, self.topic)}
        for user_id, order, task in self.tasks:
            if task.done() and task.exception() is None:
                assert once.count(task.result().order_id) == 1
                assert task.result().order_id == order_id_for(NAMESPACE, user_id, order.client_order_id)
        assert len(once) == len(written)


class OneInstance(Retries):
    """With one instance a refusal is the truth about all attempts, and no other terms ever get to the topic."""

    def told(self, user_id: str | None, order: PlaceOrder, task: asyncio.Task[Placed]) -> None:
        super().told(user_id, order, task)
        if isinstance(task.exception(), BusUnavailable):
            assert (user_id, order.client_order_id) not in self.may_be_written(), "503 is certain"

    @rule(instance=st.just(0), user_id=USERS, name=NAMES, quantity=QUANTITIES)
    def place(self, instance: int, user_id: str | None, name: str, quantity: Decimal) -> None:
        super().place(0, user_id, name, quantity)

    @rule(instance=st.just(0), user_id=USERS, name=NAMES, quantity=QUANTITIES)
    def place_while_the_bus_is_away(self, instance: int, user_id: str | None, name: str, quantity: Decimal) -> None:
        super().place_while_the_bus_is_away(0, user_id, name, quantity)

    @invariant()
    def terms_of_a_name_are_those_of_its_first_record(self) -> None:
        terms: dict[str, str] = {}
        for record in map(json.loads, self.topic):
            assert terms.setdefault(record["order_id"], record["terms_hash"]) == record["terms_hash"]


TestRetriesOverTwoInstances = Retries.TestCase
TestRetriesOverTwoInstances.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
TestRetries = OneInstance.TestCase
TestRetries.settings = settings(deadline=None, max_examples=150, stateful_step_count=40)
