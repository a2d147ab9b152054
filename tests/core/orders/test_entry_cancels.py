"""Orders in: cancels, by the gateway's id or the client's."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from core.errors import (
    BusUnavailable,
    FieldError,
    FundsRefused,
    GatewayError,
    InvalidFields,
    NoSuchOrder,
    OrderClosed,
    OutcomeUnknown,
)
from core.messages.commands import AmendOrder, CancelOrder
from tests.core.attempts import (
    ALICES,
    ANY_NAME,
    LIMIT,
    RESERVED_ID,
    Funds,
    hear,
    known,
    placed,
    placing,
    start,
    unknown,
)
from tests.core.fakes import run, turns
from tests.core.trading import CERTAINLY_NOT, Trade


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


@pytest.mark.parametrize("is_amend", [False, True])
def test_client_is_not_told_later_because_the_topic_could_not_be_read_before(is_amend: bool) -> None:
    async def main() -> None:
        trade = Trade(patience_seconds=60)
        trade.entry._answer_within_seconds = 100
        trade.topic.answers = False
        loop = asyncio.get_running_loop()
        began = loop.time()
        named = by_id("unknown", "KCN/EUR")
        amend = trade.amends.amend, AmendOrder(named, None, Decimal(3))
        ask, command = amend if is_amend else (trade.entry.cancel, named)
        with pytest.raises(OutcomeUnknown, match="no acknowledgement in time"):
            await ask("alice", command)
        assert loop.time() - began == pytest.approx(100)
        assert len(trade.log.produced) == 1
        trade.log.last.ack()

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
        trade.now += 1  # of two of one millisecond the ids would decide which is the older
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
