"""Amends out: by whom, of what, and how a repeat is recognised."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from core.errors import (
    BusUnavailable,
    GatewayError,
    InvalidFields,
    NoSuchOrder,
    OrderClosed,
    OutcomeUnknown,
    StillStarting,
)
from core.messages.commands import AmendOrder, CancelOrder
from core.messages.events import OrderEvent
from core.messages.model import Instrument, OrderType, TimeInForce
from core.messages.order_records import AmendRecord
from core.messages.order_rules import OrderRules
from core.orders.amends import Amended
from core.orders.origin import Origin
from core.orders.pending_amends import MOST, REPEAT_MS, PendingAmend, PendingAmends
from tests.core.attempts import ALICES, LIMIT, hear, known, placed, placing, start, unknown
from tests.core.fakes import run, turns
from tests.core.trading import CERTAINLY_NOT, Trade


def amend(
    price: str | None = "1.75", quantity: str | None = None, order_id: str | None = ALICES, symbol: str | None = None
) -> AmendOrder:
    named = CancelOrder(order_id, "my-1" if order_id is None else None, symbol)
    return AmendOrder(named, None if price is None else Decimal(price), None if quantity is None else Decimal(quantity))


async def amending(trade: Trade, one: AmendOrder) -> asyncio.Task[Amended]:
    """An amend that is under way, unless it was answered at once."""
    task = start(trade.amends.amend("alice", one))
    await turns()
    return task


async def amended(trade: Trade, one: AmendOrder) -> Amended:
    """One that is acknowledged."""
    task = await amending(trade, one)
    trade.log.last.ack()
    return await task


async def refusal(task: asyncio.Task[Any]) -> Exception:
    with pytest.raises(GatewayError) as refused:
        await task
    return refused.value


def hear_amended(trade: Trade, price: str = "1.75", quantity: str = "2.0", offset: int = 0) -> None:
    hear(trade, "order_amended", ALICES, offset, price=price, quantity=quantity)


@pytest.mark.parametrize("one", [amend(), amend(order_id=None), amend(symbol="KCN/EUR")], ids=str)
@pytest.mark.parametrize("state", ["pending", "unknown", "accepted"])
def test_amend_of_an_own_order_is_produced_behind_it(one: AmendOrder, state: str) -> None:
    async def main() -> None:
        trade = Trade()
        if state == "unknown":
            await unknown(trade)
        elif state == "accepted":
            await placed(trade)
        else:
            await placing(trade)
        first, task = trade.log.last, await amending(trade, one)
        assert not task.done()
        assert (trade.log.last.order_id, trade.log.last.symbol) == (ALICES, "KCN/EUR")
        assert trade.log.last.record == {
            "type": "amend_order", "order_id": ALICES, "symbol": "KCN/EUR", "user_id": "alice",
            "price": "1.75", "quantity": None, "timestamp": 1_700_000_000_500,
        }  # fmt: skip
        trade.log.last.ack()
        assert (await task).body() == {"order_id": ALICES}
        assert trade.counts[-1] == ("amend", "accepted")
        assert known(trade, ALICES).price == "1.50", "until the engine has said so"
        if state == "pending":
            first.ack()
            await turns()

    run(main())


def test_amend_bears_the_headers_of_its_request_and_tells_it_how_long_the_bus_took() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        await trade.entry.place("alice", LIMIT)
        origin = Origin("request-1")
        await trade.amends.amend("alice", amend(), origin)
        assert trade.log.last.headers == [("x-request-id", "request-1")]
        assert origin.bus_seconds is not None

    run(main())


def test_amend_waits_for_the_directory_and_is_of_an_own_open_order() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        await trade.entry.place("alice", LIMIT)
        for user_id in ("bob", None):
            assert isinstance(await refusal(start(trade.amends.amend(user_id, amend()))), NoSuchOrder)
        assert isinstance(await refusal(start(trade.amends.amend("alice", amend(order_id="x")))), NoSuchOrder)
        wrong = await refusal(start(trade.amends.amend("alice", amend(symbol="BTC/EUR"))))
        assert isinstance(wrong, InvalidFields) and wrong.errors[0].field == "symbol"
        trade.is_started = False
        assert isinstance(await refusal(start(trade.amends.amend("alice", amend()))), StillStarting)
        trade.is_started = True
        hear(trade, "order_filled", ALICES)
        closed = await refusal(start(trade.amends.amend("alice", amend())))
        assert isinstance(closed, OrderClosed) and closed.status == "filled"
        assert len(trade.log.produced) == 1

    run(main())


def test_amend_of_an_unknown_order_reads_to_the_end_and_goes_to_the_engine_with_its_symbol() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        trade.topic.answers = False
        task = await amending(trade, amend(order_id="old", symbol="KCN/EUR"))
        assert trade.log.produced == []
        trade.topic.answer()
        await task
        assert (trade.log.last.order_id, trade.log.last.record["user_id"]) == ("old", "alice")

    run(main())


def test_amend_finds_an_order_that_another_instance_accepted() -> None:
    async def main() -> None:
        trade, elsewhere = Trade(acks=True), Trade(acks=True)
        await elsewhere.entry.place("alice", LIMIT)
        trade.topic.answers = False
        trade.topic.end = 1
        task = await amending(trade, amend())
        assert not task.done() and trade.log.produced == []
        trade.topic.answer()
        trade.see(elsewhere.log.last.command)
        assert (await task).order_id == ALICES
        assert trade.log.last.record["type"] == "amend_order"

    run(main())


@pytest.mark.parametrize(
    ("one", "fields"),
    [
        (amend("1.755"), ["price"]), (amend(None, "0.15"), ["quantity", "quantity"]), (amend("1.7", "0.1"), ["price", "quantity"]),
        (amend("1.75", "2"), []),
    ],
)  # fmt: skip
def test_amend_has_to_keep_the_rules_of_the_orders_instrument(one: AmendOrder, fields: list[str]) -> None:
    async def main() -> None:
        instrument = Instrument("KCN/EUR", Decimal("0.25"), Decimal("0.1"), Decimal("0.2"))
        trade = Trade(acks=True, rules=OrderRules((instrument,), amends=True))
        await trade.entry.place("alice", LIMIT)
        if fields:
            error = await refusal(start(trade.amends.amend("alice", one)))
            assert isinstance(error, InvalidFields)
            assert [field for field, _ in error.errors] == fields
        else:
            await trade.amends.amend("alice", one)

    run(main())


def test_amend_of_a_market_order_cannot_give_it_a_price() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        market = replace(LIMIT, order_type=OrderType.MARKET, price=None, time_in_force=TimeInForce.IOC)
        await trade.entry.place("alice", market)
        error = await refusal(start(trade.amends.amend("alice", amend())))
        assert isinstance(error, InvalidFields) and [field for field, _ in error.errors] == ["price"]
        assert not (await trade.amends.amend("alice", amend(None, "3"))).duplicate

    run(main())


# Repeats.


@pytest.mark.parametrize("again", [amend("1.750", "3"), amend("1.75", "3.0", None)], ids=str)
@pytest.mark.parametrize("heard", ["acknowledged", "amended"])
def test_repeat_of_an_amend_produces_nothing(again: AmendOrder, heard: str) -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        await amended(trade, amend("1.75", "3"))
        if heard == "amended":
            hear_amended(trade, quantity="3")
        repeat = await trade.amends.amend("alice", again)
        assert repeat.body() == {"order_id": ALICES, "duplicate": True}
        assert trade.counts[-1] == ("amend", "duplicate")
        assert len(trade.log.produced) == 2

    run(main())


def test_amend_to_what_the_order_has_produces_nothing() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        assert (await trade.amends.amend("alice", amend("1.5", "2"))).duplicate
        assert (await trade.amends.amend("alice", amend(None, "2.00"))).duplicate

    run(main())


def test_amend_back_to_what_the_order_has_is_produced_while_another_is_under_way() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        await amended(trade, amend("1.75"))
        assert not (await amended(trade, amend("1.5"))).duplicate
        hear_amended(trade)
        assert (await trade.amends.amend("alice", amend("1.5"))).duplicate, "the last one is not answered by the first"

    run(main())


def test_repeat_of_an_amend_that_is_under_way_joins_it() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        first, second = await amending(trade, amend()), await amending(trade, amend())
        assert len(trade.log.produced) == 2 and not second.done()
        trade.log.last.ack()
        assert not (await first).duplicate
        assert (await second).duplicate

    run(main())


@pytest.mark.parametrize("error", [CERTAINLY_NOT, OutcomeUnknown(ALICES, "no acknowledgement in time")])
def test_joined_amend_fails_with_the_first(error: Exception) -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        first, second = await amending(trade, amend()), await amending(trade, amend())
        trade.log.last.fail(error)
        assert type(await refusal(first)) is type(await refusal(second)) is type(error)

    run(main())


def test_joined_amend_is_of_unknown_outcome_when_the_first_is_interrupted() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        first, second = await amending(trade, amend()), await amending(trade, amend())
        first.cancel()
        assert isinstance(await refusal(second), OutcomeUnknown)
        assert not (await amended(trade, amend())).duplicate

    run(main())


def test_repeat_is_another_try_when_the_engine_has_refused_the_amend() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        await amended(trade, amend())
        hear(trade, "order_amend_rejected", ALICES, reason="no")
        assert not (await amended(trade, amend())).duplicate

    run(main())


def test_repeat_is_another_try_when_the_engine_refused_before_the_acknowledgement() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        task = await amending(trade, amend())
        hear(trade, "order_amend_rejected", ALICES, reason="no")
        trade.log.last.ack()
        event = await pending_of(await task).answer(0)
        assert event is not None and event.reason == "no"
        assert not (await amended(trade, amend())).duplicate

    run(main())


@pytest.mark.parametrize("is_acknowledged_before", [True, False])
def test_repeat_is_another_try_when_the_amend_is_read_behind_the_engines_refusal(is_acknowledged_before: bool) -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        task = await amending(trade, amend())
        record = amend().encode(ALICES, "KCN/EUR", "alice", 1)
        if is_acknowledged_before:
            trade.log.last.ack()
            await task
        hear(trade, "order_amend_rejected", ALICES, reason="no")
        if not is_acknowledged_before:
            trade.log.last.ack()
            await task
        trade.see(record)
        assert not (await amended(trade, amend())).duplicate
        trade.see(record)
        assert (await trade.amends.amend("alice", amend())).duplicate, "which is another one, and not answered"

    run(main())


def test_amends_that_are_answered_before_they_are_read_are_bounded() -> None:
    amends = PendingAmends(most=1)
    for order_id in "ab":
        amends.put(order_id, PendingAmend(None, Decimal(1), 0))
        amends.answered(order_id, OrderEvent("order_amend_rejected", b"", "alice", order_id, reason="no"))
    for order_id in "ab":
        amends.read(AmendRecord(order_id, "alice", "KCN/EUR", None, Decimal(1)), 0)
    assert [amends.get(order_id, 0) is None for order_id in "ab"] == [False, True]


def test_repeat_is_another_try_when_the_engine_says_nothing_for_long() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        await amended(trade, amend())
        trade.now += REPEAT_MS / 1000
        assert (await trade.amends.amend("alice", amend())).duplicate
        trade.now += 0.001
        assert not (await amended(trade, amend())).duplicate

    run(main())


# The truth about the outcome.


def test_amend_that_was_certainly_not_written_leaves_the_one_before_it() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        await amended(trade, amend("1.75"))
        task = await amending(trade, amend("1.80"))
        trade.log.last.fail(CERTAINLY_NOT)
        assert isinstance(await refusal(task), BusUnavailable)
        assert trade.counts[-1] == ("amend", "not_written")
        assert (await trade.amends.amend("alice", amend("1.75"))).duplicate

    run(main())


def test_amend_that_was_certainly_not_written_is_no_repeat_next_time() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        trade.log.refuses = CERTAINLY_NOT
        assert isinstance(await refusal(await amending(trade, amend())), BusUnavailable)
        trade.log.refuses = None
        assert not (await amended(trade, amend())).duplicate

    run(main())


def test_amend_of_unknown_outcome_is_produced_again_unless_it_was_seen() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        task = await amending(trade, amend())
        trade.log.last.lose()
        error = await refusal(task)
        assert isinstance(error, OutcomeUnknown) and error.order_id == ALICES
        assert trade.counts[-1] == ("amend", "unknown")
        again = await amending(trade, amend())
        assert len(trade.log.produced) == 3
        trade.log.last.fail(CERTAINLY_NOT)
        assert isinstance(await refusal(again), OutcomeUnknown), "the first may be there"
        trade.see(trade.log.last.command)
        assert (await trade.amends.amend("alice", amend())).duplicate

    run(main())


@pytest.mark.parametrize("error", [CERTAINLY_NOT, OutcomeUnknown(ALICES, "no acknowledgement in time")])
def test_amend_that_is_read_on_the_topic_is_accepted_whatever_becomes_of_the_attempt(error: Exception) -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        task = await amending(trade, amend())
        trade.see(trade.log.last.command)
        trade.log.last.fail(error)
        assert not (await task).duplicate

    run(main())


# What is read.


def test_repeat_of_an_amend_that_another_instance_took_produces_nothing_once_it_is_read() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        await trade.entry.place("alice", LIMIT)
        trade.see(amend().encode(ALICES, "KCN/EUR", "alice", 1))
        assert (await trade.amends.amend("alice", amend())).duplicate
        trade.see(amend("1.80").encode(ALICES, "KCN/EUR", "alice", 1))
        assert not (await trade.amends.amend("alice", amend())).duplicate

    run(main())


@pytest.mark.parametrize("user_id", ["bob", None])
def test_amend_of_somebody_elses_order_on_the_topic_counts_for_nothing(user_id: str | None) -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        await trade.entry.place("alice", LIMIT)
        trade.see(amend().encode(ALICES, "KCN/EUR", user_id, 1))
        assert not (await trade.amends.amend("alice", amend())).duplicate

    run(main())


def test_amend_that_is_under_way_is_the_last_whatever_is_read_before_it() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        task = await amending(trade, amend())
        trade.see(amend("1.80").encode(ALICES, "KCN/EUR", "alice", 1))
        trade.log.last.ack()
        await task
        assert (await trade.amends.amend("alice", amend())).duplicate

    run(main())


def pending_of(one: Amended) -> PendingAmend:
    assert one.pending is not None
    return one.pending


def test_engines_word_on_an_amend_can_be_waited_for() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        pending = pending_of(await amended(trade, amend()))
        assert await pending.answer(0) is None
        waiting = start(pending.answer(60))
        await turns()
        hear_amended(trade)
        event = await waiting
        assert event is not None and event.price == Decimal("1.75")
        assert await pending.answer(60) is event

    run(main())


def test_engines_word_on_an_amend_is_none_when_the_order_closes() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade)
        pending = pending_of(await amended(trade, amend()))
        waiting = start(pending.answer(60))
        await turns()
        hear(trade, "order_filled", ALICES)
        assert await waiting is None

    run(main())


def test_oldest_amend_is_forgotten_when_there_are_too_many() -> None:
    amends = PendingAmends(most=2)
    for order_id in ("a", "b", "a", "c"):
        amends.put(order_id, PendingAmend(None, Decimal(1), 0))
    assert [amends.get(order_id, 0) is None for order_id in "abc"] == [False, True, False]
    assert MOST > 2


def test_end_of_an_amend_that_was_forgotten_leaves_a_later_one() -> None:
    amends = PendingAmends(most=1)
    first, later = PendingAmend(None, Decimal(1), 0), PendingAmend(None, Decimal(2), 0)
    amends.put("a", first)
    amends.put("a", later)
    amends.end("a", first, instead=None)
    assert amends.get("a", 0) is later
