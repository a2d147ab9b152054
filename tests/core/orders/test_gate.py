"""What the operators let through: orders and amends are stopped, and whatever takes back goes on."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from core.errors import Blocked, ControlUnavailable, Halted, OutcomeUnknown, RequestError
from core.messages.batch_rules import check_batch
from core.messages.commands import AmendOrder, CancelOrder
from core.orders.batch import Batches
from core.orders.origin import Origin
from core.telemetry.metrics import ORDER_OUTCOMES
from tests.core.attempts import ALICES, ANY_NAME, LIMIT, SAME_TERMS, Funds, placed, placing, start, unknown
from tests.core.fakes import run, turns
from tests.core.messages.order_bodies import LIMIT as BODY
from tests.core.trading import RULES, SETTLED_SECONDS, Trade

AMEND = AmendOrder(CancelOrder(ALICES, None), Decimal("1.75"), None)
REFUSALS = (Blocked(None), Halted("KCN/EUR", "halted", None), ControlUnavailable("not read yet"))


class Gate:
    """Shut for what a test says. `asked`: for whom, and for which symbol."""

    def __init__(self) -> None:
        self.refuses: RequestError | None = None
        self.asked: list[tuple[str | None, str]] = []

    def check(self, user_id: str | None, symbol: str) -> None:
        self.asked.append((user_id, symbol))
        if self.refuses is not None:
            raise self.refuses


def gated(**more: object) -> tuple[Trade, Gate]:
    trade, gate = Trade(**more), Gate()  # type: ignore[arg-type]
    trade.entry.gate = gate
    return trade, gate


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("only_validates", [False, True])
def test_order_is_refused_and_counted_and_nothing_is_produced(refusal: RequestError, only_validates: bool) -> None:
    async def scene() -> None:
        trade, gate = gated(acks=True)
        gate.refuses = refusal
        for user_id in ("alice", None):
            with pytest.raises(type(refusal)):
                await trade.entry.place(user_id, replace(ANY_NAME, validate_only=only_validates))
            assert gate.asked[-1] == (user_id, "KCN/EUR")
        assert trade.counts == [("place", refusal.counted_as)] * 2
        assert refusal.counted_as in ORDER_OUTCOMES
        assert trade.log.produced == [] and len(trade.directory) == 0
        gate.refuses = None
        await trade.entry.place("alice", LIMIT)

    run(scene())


def test_repeat_is_told_what_became_of_the_first() -> None:
    async def scene() -> None:
        trade, gate = gated()
        await placed(trade)
        gate.refuses = REFUSALS[0]
        assert (await trade.entry.place("alice", SAME_TERMS)).duplicate
        assert len(trade.log.produced) == 1

    run(scene())


def test_repeat_of_an_unknown_outcome_is_that_and_produces_nothing() -> None:
    async def scene() -> None:
        trade, gate = gated()
        await unknown(trade)
        gate.refuses = REFUSALS[1]
        with pytest.raises(OutcomeUnknown, match="takes no orders"):
            await trade.entry.place("alice", LIMIT)
        assert len(trade.log.produced) == 1

    run(scene())


@pytest.mark.parametrize("refusal", REFUSALS)
def test_amend_is_refused_and_counted_and_its_repeat_recognised(refusal: RequestError) -> None:
    async def scene() -> None:
        trade, gate = gated(acks=True)
        await trade.entry.place("alice", LIMIT)
        await trade.amends.amend("alice", AMEND)
        gate.refuses = refusal
        assert (await trade.amends.amend("alice", AMEND)).duplicate
        with pytest.raises(type(refusal)):
            await trade.amends.amend("alice", replace(AMEND, price=Decimal(2)))
        assert trade.counts[-1] == ("amend", refusal.counted_as)
        with pytest.raises(type(refusal)):
            await trade.amends.amend("alice", replace(AMEND, price=Decimal(2), validate_only=True))
        assert len(trade.log.produced) == 2

    run(scene())


def test_repeat_of_an_amend_of_unknown_outcome_is_that() -> None:
    async def scene() -> None:
        trade, gate = gated()
        await placed(trade)
        task = start(trade.amends.amend("alice", AMEND))
        await turns()
        trade.log.last.lose()
        with pytest.raises(OutcomeUnknown):
            await task
        gate.refuses = REFUSALS[0]
        with pytest.raises(OutcomeUnknown, match="earlier attempt"):
            await trade.amends.amend("alice", AMEND)

    run(scene())


def test_cancels_go_through() -> None:
    async def scene() -> None:
        trade, gate = gated(acks=True)
        await trade.entry.place("alice", LIMIT)
        await trade.entry.place("alice", ANY_NAME)
        gate.refuses = REFUSALS[0]
        await trade.entry.cancel("alice", CancelOrder(ALICES, None))
        assert len(await trade.entry.cancel_all("alice", None)) == 2
        assert [record["type"] for record in trade.log.records[2:]] == ["cancel_order"] * 3

    run(scene())


@pytest.mark.parametrize("opens", [False, True])
def test_order_whose_way_is_shut_while_its_funds_are_reserved_is_not_produced_and_releases_them(opens: bool) -> None:
    async def scene() -> None:
        funds = Funds()
        funds.may_answer.clear()
        trade, gate = gated(reservations=funds, acks=True)
        task = await placing(trade)
        if not opens:
            gate.refuses = REFUSALS[0]
        funds.may_answer.set()
        if opens:
            await task
            return
        with pytest.raises(Blocked):
            await task
        assert trade.log.produced == []
        await asyncio.sleep(SETTLED_SECONDS)
        assert [user_id for _, user_id in funds.released] == ["alice"]

    run(scene())


def test_each_of_a_batch_is_refused_by_itself() -> None:
    async def scene() -> None:
        trade, gate = gated(acks=True)
        await trade.entry.place("alice", LIMIT)
        gate.refuses = REFUSALS[0]
        body = {
            "requests": [
                {"method": "place", "params": BODY},
                {"method": "amend", "params": {"order_id": ALICES, "price": "2"}},
                {"method": "cancel", "params": {"order_id": ALICES}},
            ]
        }

        async def admit(_command: object) -> None:
            """Nobody is over a limit."""

        batches = Batches(trade.entry, trade.amends)
        started = await batches.begin("alice", check_batch(body, RULES), admit, Origin(""))
        outcomes = await batches.outcomes(started)
        assert [isinstance(outcome, Blocked) for outcome in outcomes] == [True, True, False]
        assert outcomes[2] == ALICES

    run(scene())
