"""Late is no: what is past its deadline is not produced, and its repeat is told what became of the first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from core.errors import InvalidFields, NoSuchOrder, OrderConflict, OutcomeUnknown
from core.messages.batch_rules import Batch, check_batch
from core.messages.commands import AmendOrder, CancelOrder
from core.messages.order_rules import OrderRules, check_amend, check_place
from core.orders.attempt import Placed
from core.orders.batch import Batches
from core.orders.deadlines import VALID
from core.orders.origin import Origin
from tests.core.attempts import ALICES, LIMIT, OTHER_TERMS, Funds, placed, placing, start, unknown
from tests.core.fakes import run, turns
from tests.core.messages.order_bodies import LIMIT as BODY
from tests.core.trading import RULES, SETTLED_SECONDS, Trade

NOW_MS = 1_700_000_000_500
IN_TIME = replace(LIMIT, deadline_ms=NOW_MS + 500)
AMEND = AmendOrder(CancelOrder(ALICES, None), Decimal("1.75"), None, NOW_MS + 500)


async def broken(attempt: Any) -> tuple[str, str]:
    """The one rule that an attempt is refused by."""
    with pytest.raises(InvalidFields) as refused:
        await attempt
    [(field, message)] = refused.value.errors
    return field, message


def test_deadline_is_in_the_command() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade, IN_TIME)
        assert trade.log.last.record["deadline_ms"] == NOW_MS + 500
        start(trade.amends.amend("alice", AMEND))
        await turns()
        assert trade.log.last.record["deadline_ms"] == NOW_MS + 500
        trade.log.last.ack()
        await turns()

    run(main())


@pytest.mark.parametrize(
    ("ahead_ms", "field"), [(0, "deadline"), (-1, "deadline"), (1, "deadline_ms"), (499, "deadline_ms"), (60_001, "deadline_ms")]
)  # fmt: skip
def test_deadline_that_is_past_or_not_in_reach_produces_nothing(ahead_ms: int, field: str) -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        late = replace(LIMIT, deadline_ms=NOW_MS + ahead_ms)
        told = await broken(trade.entry.place("alice", late))
        assert told[0] == field and (field == "deadline_ms" or told[1] == "passed")
        assert trade.counts == [("place", "refused")]
        await trade.entry.place("alice", LIMIT)
        assert (await broken(trade.amends.amend("alice", replace(AMEND, deadline_ms=NOW_MS + ahead_ms))))[0] == field
        assert len(trade.log.produced) == 1

    run(main())


@pytest.mark.parametrize("ahead_ms", [500, 60_000])
def test_deadline_within_reach_is_taken(ahead_ms: int) -> None:
    async def main() -> None:
        await Trade(acks=True).entry.place("alice", replace(LIMIT, deadline_ms=NOW_MS + ahead_ms))

    run(main())


def test_repeat_after_the_deadline_is_told_what_became_of_the_first() -> None:
    async def main() -> None:
        trade = Trade()
        await placed(trade, IN_TIME)
        task = start(trade.amends.amend("alice", AMEND))
        await turns()
        trade.log.last.ack()
        await task
        trade.now += 10
        assert (await trade.entry.place("alice", IN_TIME)).duplicate
        assert (await trade.amends.amend("alice", AMEND)).duplicate
        assert len(trade.log.produced) == 2

    run(main())


def test_repeat_after_the_deadline_of_an_unknown_outcome_is_that_and_produces_nothing() -> None:
    async def main() -> None:
        trade = Trade()
        await unknown(trade, IN_TIME)
        trade.now += 10
        with pytest.raises(OutcomeUnknown):
            await trade.entry.place("alice", IN_TIME)
        task = start(trade.amends.amend("alice", replace(AMEND, deadline_ms=None)))
        await turns()
        trade.log.last.lose()
        with pytest.raises(OutcomeUnknown):
            await task
        with pytest.raises(OutcomeUnknown):
            await trade.amends.amend("alice", AMEND)
        assert len(trade.log.produced) == 2

    run(main())


def test_deadline_is_no_term_of_the_order() -> None:
    assert IN_TIME.terms_hash == LIMIT.terms_hash


def test_deadline_that_passes_while_funds_are_reserved_releases_them() -> None:
    async def main() -> None:
        funds = Funds()
        funds.may_answer.clear()
        trade = Trade(reservations=funds)
        task = await placing(trade, IN_TIME)
        trade.now += 0.5
        funds.may_answer.set()
        assert await broken(task) == ("deadline", "passed")
        assert trade.log.produced == []
        await asyncio.sleep(SETTLED_SECONDS)
        assert [user_id for _, user_id in funds.released] == ["alice"]

    run(main())


# Validated only.


def test_order_that_is_only_validated_leaves_nothing() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        only = replace(LIMIT, validate_only=True)
        await trade.entry.place("alice", only)
        assert trade.log.produced == [] and trade.directory.get(ALICES) is None
        await trade.entry.place("alice", LIMIT)
        assert not (await trade.amends.amend("alice", replace(AMEND, validate_only=True))).duplicate
        assert len(trade.log.produced) == 1
        with pytest.raises(OrderConflict):
            await trade.entry.place("alice", replace(OTHER_TERMS, validate_only=True))

    run(main())


# Batches.


def in_batch(trade: Trade, batch: Batch) -> Callable[[], Any]:
    async def admit(_command: object) -> None:
        """Nobody is over a limit."""

    async def go() -> Any:
        batches = Batches(trade.entry, trade.amends)
        return await batches.outcomes(await batches.begin("alice", batch, admit, Origin("")))

    return go


def test_deadline_of_a_batch_is_that_of_each_that_has_none() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        await trade.entry.place("alice", LIMIT)
        body = {
            "requests": [
                {"method": "place", "params": BODY},
                {"method": "place", "params": {**BODY, "deadline_ms": NOW_MS + 900}},
                {"method": "amend", "params": {"order_id": ALICES, "quantity": 3}},
                {"method": "cancel", "params": {"order_id": ALICES}},
            ],
            "deadline_ms": NOW_MS + 600,
        }
        await in_batch(trade, check_batch(body, RULES))()
        told = [json.loads(one.command).get("deadline_ms") for one in trade.log.produced[1:]]
        assert told == [NOW_MS + 600, NOW_MS + 900, NOW_MS + 600, None]
        trade.now += 0.6
        late = await in_batch(trade, check_batch({**body, "requests": body["requests"][3:]}, RULES))()
        assert isinstance(late[0], InvalidFields) and late[0].errors[0] == ("deadline", "passed")

    run(main())


def test_batch_that_is_only_validated_produces_nothing() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        await trade.entry.place("alice", LIMIT)
        body = {
            "requests": [
                {"method": "place", "params": BODY},
                {"method": "amend", "params": {"order_id": ALICES, "quantity": 3}},
                {"method": "cancel", "params": {"order_id": ALICES}},
                {"method": "cancel", "params": {"order_id": "none"}},
            ],
            "validate_only": True,
        }
        *fine, missing = await in_batch(trade, check_batch(body, RULES))()
        assert fine == [VALID] * 3
        assert isinstance(missing, NoSuchOrder)
        assert len(trade.log.produced) == 1
        assert not isinstance(fine[0], Placed)

    run(main())


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"deadline_ms": "soon"}, "deadline_ms"), ({"deadline_ms": 1.5}, "deadline_ms"), ({"deadline_ms": True}, "deadline_ms"),
        ({"deadline_ms": -1}, "deadline_ms"), ({"validate_only": 1}, "validate_only"),
    ],
)  # fmt: skip
def test_manner_that_cannot_be_read_is_refused_by_its_name(more: dict[str, object], field: str) -> None:
    amend = {"order_id": "a", "price": 1}
    for check, body in ((check_place, BODY), (check_amend, amend), (check_batch, {"requests": [1]})):
        with pytest.raises(InvalidFields) as refused:
            check({**body, **more}, RULES)  # type: ignore[operator]
        assert [error.field for error in refused.value.errors] == [field]


def test_null_is_no_manner() -> None:
    assert check_place({**BODY, "deadline_ms": None, "validate_only": None}, OrderRules()) == check_place(BODY, RULES)
