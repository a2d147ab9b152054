"""Orders that another instance has accepted, and that this one has yet to read: cancelled, and met under one name."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from core.errors import BusUnavailable, NoSuchOrder, OrderConflict, OutcomeUnknown, StillBehind
from core.messages.commands import CancelOrder
from core.orders.order import Order
from tests.core.attempts import ALICES, LIMIT, OTHER_TERMS, SAME_TERMS, hear, known, placed, placing, start
from tests.core.fake_orders import command
from tests.core.fakes import run, turns
from tests.core.trading import CERTAINLY_NOT, Trade

THEIRS = command(ALICES, "alice", "my-1")
SECOND = replace(LIMIT, client_order_id="my-2")
BY_ID, BY_NAME = CancelOrder(ALICES, None), CancelOrder(None, "my-1")


def behind(**options: float) -> Trade:
    """An instance that has one record yet to read; where the topic ends it is told when a test says so."""
    trade = Trade(**options)
    trade.topic.end = 1
    trade.topic.answers = False
    return trade


# Cancels.


@pytest.mark.parametrize("cancel", [BY_ID, BY_NAME, replace(BY_ID, symbol="KCN/EUR")], ids=str)
def test_cancel_waits_until_what_others_had_accepted_is_read(cancel: CancelOrder) -> None:
    async def main() -> None:
        trade = behind()
        asked = start(trade.entry.cancel("alice", cancel))
        await turns()
        trade.topic.answer()
        await turns()
        assert trade.log.produced == []
        trade.see(THEIRS)
        await turns()
        trade.log.last.ack()
        assert await asked == ALICES

    run(main())


@pytest.mark.parametrize("cancel", [BY_ID, BY_NAME], ids=["id", "name"])
def test_cancel_of_an_order_that_cannot_be_read_goes_to_the_engine_with_its_symbol_alone(cancel: CancelOrder) -> None:
    async def main() -> None:
        trade = behind()
        trade.log.acks = True
        trade.is_reachable = False
        with pytest.raises(StillBehind):
            await trade.entry.cancel("alice", cancel)
        assert trade.log.produced == []
        assert await trade.entry.cancel("alice", replace(cancel, symbol="KCN/EUR")) == ALICES

    run(main())


def test_cancel_is_not_of_an_order_that_is_placed_after_it() -> None:
    async def main() -> None:
        trade = behind()
        trade.topic.end = 0
        asked = start(trade.entry.cancel("alice", BY_NAME))
        await turns()
        await placed(trade)
        trade.topic.answer()
        with pytest.raises(NoSuchOrder):
            await asked
        assert len(trade.log.produced) == 1

    run(main())


async def cancelling_all(trade: Trade) -> asyncio.Task[list[str]]:
    task = start(trade.entry.cancel_all("alice", None))
    await turns()
    return task


def test_cancel_all_cancels_what_is_known_at_once_and_what_others_had_accepted_when_it_is_read() -> None:
    async def main() -> None:
        trade = behind()
        trade.log.acks = True
        trade.now += 1  # the other one's is older
        mine = (await trade.entry.place("alice", SECOND)).order_id
        asked = await cancelling_all(trade)
        assert [record["order_id"] for record in trade.log.records[1:]] == [mine]
        trade.topic.answer()
        trade.see(THEIRS)
        assert await asked == [ALICES, mine]
        assert [record["order_id"] for record in trade.log.records[1:]] == [mine, ALICES]

    run(main())


def test_cancel_all_leaves_what_is_placed_after_it() -> None:
    async def main() -> None:
        trade = behind()
        trade.log.acks = True
        asked = await cancelling_all(trade)
        mine = (await trade.entry.place("alice", SECOND)).order_id
        trade.topic.answer()
        trade.see(THEIRS)
        assert await asked == [ALICES]
        assert not known(trade, mine).is_closed

    run(main())


@pytest.mark.parametrize(
    ("mine", "error"),
    [("none", StillBehind), ("written", OutcomeUnknown), ("refused", BusUnavailable), ("lost", OutcomeUnknown)],
)
def test_cancel_all_tells_the_truth_where_others_orders_cannot_be_read(mine: str, error: type[Exception]) -> None:
    async def main() -> None:
        trade = behind()
        if mine != "none":
            await placed(trade, SECOND)
        trade.is_reachable = False
        asked = await cancelling_all(trade)
        if mine != "none":
            cancel = trade.log.last
            {"written": cancel.ack, "refused": lambda: cancel.fail(CERTAINLY_NOT), "lost": cancel.lose}[mine]()
        with pytest.raises(error):
            await asked

    run(main())


# One name.


def shown(trade: Trade) -> list[Order]:
    return trade.directory.open_orders("alice")


@pytest.mark.parametrize("theirs", [True, False])
def test_order_is_answered_when_what_may_be_before_it_has_been_read(theirs: bool) -> None:
    async def main() -> None:
        trade = Trade()
        task = await placing(trade, OTHER_TERMS if theirs else LIMIT)
        own = trade.log.last
        own.ack(since=1)
        await turns()
        assert not task.done() and not shown(trade), "another instance's record is before it"
        trade.see(THEIRS if theirs else command("another", "bob"))
        if theirs:
            with pytest.raises(OrderConflict) as refused:
                await task
            assert refused.value.order_id == ALICES
            assert known(trade, ALICES).quantity == "2.0", "the first has the last word"
        else:
            assert not (await task).duplicate
        trade.see(own.command)
        assert [order.order_id for order in shown(trade)] == [ALICES]

    run(main())


def test_order_of_the_same_terms_that_another_instance_wrote_first_is_accepted() -> None:
    async def main() -> None:
        trade = Trade()
        task = await placing(trade, SAME_TERMS)
        trade.log.last.ack(since=1)
        trade.see(THEIRS)
        told = await task
        assert (told.order_id, told.duplicate) == (ALICES, False), "it was written all the same"

    run(main())


def test_order_without_a_name_waits_for_no_reading() -> None:
    async def main() -> None:
        trade = Trade()
        task = await placing(trade, replace(LIMIT, client_order_id=None))
        trade.log.last.ack(since=5)
        assert not (await task).duplicate

    run(main())


def test_order_whose_place_the_cluster_does_not_tell_is_read_up_to_the_end() -> None:
    async def main() -> None:
        trade = behind()
        task = await placing(trade)
        trade.log.last.ack(since=-1)
        await turns()
        trade.topic.answer()
        await turns()
        assert not task.done()
        trade.see(trade.log.last.command)
        assert not (await task).duplicate

    run(main())


def test_order_that_cannot_be_read_back_is_of_unknown_outcome_and_its_repeat_is_written_again() -> None:
    async def main() -> None:
        trade = Trade(patience_seconds=3)
        task = await placing(trade)
        trade.log.last.ack(since=1)
        with pytest.raises(OutcomeUnknown) as refused:
            await task
        assert refused.value.order_id == ALICES
        again = await placing(trade, SAME_TERMS)
        assert len(trade.log.produced) == 2
        trade.log.last.ack(since=1)
        trade.see(THEIRS)
        assert (await again).order_id == ALICES

    run(main())


def test_order_that_the_engine_spoke_of_and_nobody_acknowledged_has_the_first_records_terms() -> None:
    async def main() -> None:
        trade = behind()
        task = await placing(trade, OTHER_TERMS)
        hear(trade, "order_accepted", ALICES, side="bid", order_type="limit", price="1.50", quantity="2.0")
        trade.log.last.lose()
        await turns()
        trade.topic.answer()
        await turns()
        assert not task.done()
        trade.see(THEIRS)
        with pytest.raises(OrderConflict):
            await task

    run(main())


def test_shutdown_waits_for_an_order_whose_record_is_being_read_back() -> None:
    async def main() -> None:
        trade = Trade()
        await trade.entry.finish(1)
        task = await placing(trade)
        finishing = start(trade.entry.finish(1))
        trade.log.last.ack(since=1)
        await turns()
        assert not finishing.done()
        trade.see(THEIRS)
        await finishing
        assert (await task).order_id == ALICES
        placing_on = await placing(trade, SECOND)
        await trade.entry.finish(1)
        assert not placing_on.done(), "it does not wait for longer than it may"
        placing_on.cancel()

    run(main())
