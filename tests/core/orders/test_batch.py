"""Several requests in one: in their order, each for itself."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from core.errors import (
    FundsRefused,
    GatewayFault,
    InvalidFields,
    NoAmends,
    NoSuchOrder,
    OutcomeUnknown,
    RequestError,
    TooManyRequests,
)
from core.messages.batch_rules import MOST_REQUESTS, Batch, BatchItem, check_batch
from core.messages.commands import AmendOrder, CancelOrder, PlaceOrder
from core.messages.order_rules import OrderRules
from core.orders.amends import Amended
from core.orders.attempt import Placed
from core.orders.batch import Batches, Command, Started
from core.orders.origin import Origin, Turn
from tests.core.attempts import ANY_NAME, LIMIT, Funds, Reserved
from tests.core.fakes import run, turns
from tests.core.messages.order_bodies import LIMIT as BODY
from tests.core.trading import RULES, Trade

SECOND = replace(LIMIT, client_order_id="my-2")


async def everybody(_command: Command) -> None:
    """Nobody is over a limit."""


async def begun(trade: Trade, *items: BatchItem, origin: Origin | None = None) -> tuple[Batches, list[Started]]:
    batches = Batches(trade.entry, trade.amends)
    return batches, await batches.begin("alice", Batch(list(items)), everybody, origin or Origin("request-1"))


async def outcomes(trade: Trade, *items: BatchItem) -> list[Any]:
    batches, started = await begun(trade, *items)
    return await batches.outcomes(started)


def kinds(trade: Trade) -> list[str]:
    return [record["type"] for record in trade.log.records]


def test_batch_is_produced_in_its_order_before_anything_is_acknowledged() -> None:
    async def main() -> None:
        trade = Trade()
        named = CancelOrder(None, "my-1")
        amend = AmendOrder(named, Decimal("1.75"), None)
        batches, started = await begun(trade, LIMIT, amend, named, SECOND)
        assert kinds(trade) == ["place_order", "amend_order", "cancel_order", "place_order"]
        assert all(one.headers == [("x-request-id", "request-1")] for one in trade.log.produced)
        for one in trade.log.produced:
            one.ack()
        first, amended, cancelled, second = await batches.outcomes(started)
        assert isinstance(first, Placed) and isinstance(second, Placed) and isinstance(amended, Amended)
        assert cancelled == amended.order_id == first.order_id

    run(main())


def test_what_is_wrong_with_one_of_a_batch_harms_no_other() -> None:
    async def main() -> None:
        trade = Trade()
        broken = InvalidFields([])
        batches, started = await begun(trade, broken, LIMIT, CancelOrder("none", None), ANY_NAME)
        lost, fine = trade.log.produced
        lost.lose()
        fine.ack()
        told = await batches.outcomes(started)
        assert told[0] is broken
        assert isinstance(told[1], OutcomeUnknown)
        assert isinstance(told[2], NoSuchOrder)
        assert isinstance(told[3], Placed)

    run(main())


def test_fault_in_one_of_a_batch_is_its_own_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        trade.log.refuses = ZeroDivisionError("a secret")
        [told] = await outcomes(trade, LIMIT)
        assert isinstance(told, GatewayFault)
        assert "secret" not in told.message

    run(main())
    assert "request-1" in caplog.text


def test_order_of_a_batch_is_over_when_it_is_acknowledged_though_one_before_it_is_not() -> None:
    async def main() -> None:
        trade = Trade()
        batches, started = await begun(trade, LIMIT, ANY_NAME, SECOND)
        answer = asyncio.create_task(batches.outcomes(started))
        await turns()
        stuck, nameless, named = trade.log.produced
        nameless.ack()
        named.ack()
        repeat = asyncio.create_task(trade.entry.place("alice", SECOND))
        await turns()
        assert (await repeat).duplicate
        assert {order.order_id for order in trade.directory.open_orders("alice")} == {nameless.order_id, named.order_id}
        assert not answer.done()
        stuck.ack()
        assert all(isinstance(one, Placed) for one in await answer)

    run(main())


def test_orders_of_a_batch_wait_for_the_topic_at_the_same_time() -> None:
    async def main() -> None:
        trade = Trade(patience_seconds=1)
        trade.topic.answers = False
        batches, started = await begun(trade, LIMIT, SECOND)
        began = asyncio.get_running_loop().time()
        for one in trade.log.produced:
            one.ack(since=-1)
        told = await batches.outcomes(started)
        assert all(isinstance(one, OutcomeUnknown) for one in told)
        assert asyncio.get_running_loop().time() - began == pytest.approx(1)

    run(main())


@pytest.mark.parametrize("is_asked_for", [False, True])
def test_order_of_a_batch_goes_on_when_who_waits_for_it_is_gone(is_asked_for: bool) -> None:
    async def main() -> None:
        trade = Trade()
        batches, started = await begun(trade, LIMIT, SECOND)
        answer = asyncio.create_task(batches.outcomes(started))
        if is_asked_for:
            await turns()
        answer.cancel()
        await turns()
        del started
        trade.log.last.ack()
        await turns()
        assert (await trade.entry.place("alice", SECOND)).duplicate

    run(main())


def test_limits_of_a_batch_are_asked_one_by_one() -> None:
    async def main() -> None:
        trade = Trade(acks=True)
        left = 2

        async def admit(command: Command) -> None:
            nonlocal left
            if isinstance(command, PlaceOrder):
                left -= 1
                if left < 0:
                    raise TooManyRequests("orders", 1)

        batches = Batches(trade.entry, trade.amends)
        items = [LIMIT, ANY_NAME, SECOND, CancelOrder(None, "my-1")]
        told = await batches.outcomes(await batches.begin("alice", Batch([*items]), admit, Origin("")))
        assert [isinstance(one, TooManyRequests) for one in told] == [False, False, True, False]

    run(main())


def test_repeat_within_a_batch_joins_the_first() -> None:
    async def main() -> None:
        first, second = await outcomes(Trade(acks=True), LIMIT, LIMIT)
        assert (first.duplicate, second.duplicate) == (False, True)

    run(main())


class SlowFunds(Funds):
    """A service that answers when it is told to, each by the order's name."""

    def __init__(self) -> None:
        super().__init__(None)
        self.answers: dict[str | None, asyncio.Future[None]] = {}

    async def reserve(self, user_id: str, order: PlaceOrder, idempotency_key: str) -> Reserved:
        self.asked.append((user_id, order, idempotency_key))
        future = self.answers[order.client_order_id] = asyncio.get_running_loop().create_future()
        await future
        assert order.quantity is not None
        return Reserved(idempotency_key, order.quantity)


def test_account_service_is_asked_for_all_at_once_and_they_go_out_in_their_order() -> None:
    async def main() -> None:
        funds = SlowFunds()
        trade = Trade(acks=True, reservations=funds)
        third = replace(LIMIT, client_order_id="my-3")
        old = await placed_at(trade, funds)
        origin = Origin("request-1")
        batches, started = await begun(trade, LIMIT, SECOND, CancelOrder(old, None), third, origin=origin)
        assert [order.client_order_id for _, order, _ in funds.asked[1:]] == ["my-1", "my-2", "my-3"]
        del trade.log.produced[:]
        funds.answers["my-3"].set_result(None)
        funds.answers["my-2"].set_exception(FundsRefused("not enough"))
        await turns()
        assert trade.log.produced == []
        funds.answers["my-1"].set_result(None)
        told = await batches.outcomes(started)
        assert [(one["type"], one.get("client_order_id")) for one in trade.log.records] == [
            ("place_order", "my-1"), ("cancel_order", None), ("place_order", "my-3"),
        ]  # fmt: skip
        assert isinstance(told[1], FundsRefused)
        assert origin.bus_seconds is not None

    async def placed_at(trade: Trade, funds: SlowFunds) -> str:
        task = asyncio.create_task(trade.entry.place("alice", replace(LIMIT, client_order_id="old")))
        await turns()
        funds.answers["old"].set_result(None)
        return (await task).order_id

    run(main())


def test_turn_comes_when_the_one_before_is_over() -> None:
    async def main() -> None:
        first = Turn(None)
        second = Turn(first)
        await first.come()
        waiting = asyncio.create_task(second.come())
        await turns()
        assert not waiting.done()
        first.end()
        first.end()
        await waiting
        await Turn(first).come()

    run(main())


# Bodies.


def request(method: object = "place", params: object = None, **more: object) -> dict[str, object]:
    return {"method": method, "params": BODY if params is None else params, **more}


def test_batch_is_of_orders_cancels_and_amends() -> None:
    place, cancel, amend = check_batch(
        {
            "requests": [
                request(), request("cancel", {"order_id": "a"}), request("amend", {"order_id": "a", "price": 1}),
            ]
        },
        RULES,
    ).items  # fmt: skip
    assert isinstance(place, PlaceOrder)
    assert cancel == CancelOrder("a", None)
    assert isinstance(amend, AmendOrder)


@pytest.mark.parametrize(
    ("one", "fields"),
    [
        (5, ["body"]),
        (request("buy"), ["method"]),
        (request(["place"], extra=1), ["method", "extra"]),
        (request("place", {"side": "bid"}), ["symbol", "order_type", "quantity"]),
        (request("cancel", "all"), ["params"]),
        ({"method": "place"}, ["params"]),
        ({"method": "what", "params": None}, ["method", "params"]),
    ],
)
def test_request_of_a_batch_that_breaks_a_rule_is_refused_in_its_place(one: object, fields: list[str]) -> None:
    fine, broken = check_batch({"requests": [request(), one]}, RULES).items
    assert isinstance(fine, PlaceOrder)
    assert isinstance(broken, InvalidFields)
    assert [error.field for error in broken.errors] == fields


def test_amend_in_a_batch_is_refused_where_orders_cannot_be_amended() -> None:
    [refused] = check_batch({"requests": [request("amend", {"order_id": "a", "price": 1})]}, OrderRules()).items
    assert isinstance(refused, NoAmends)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": [request()] * (MOST_REQUESTS + 1)}, "requests"),
        ({"requests": [request()], "surplus": 1}, "surplus"),
    ],
)
def test_body_that_is_no_batch_is_refused(body: object, field: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_batch(body, RULES)
    assert isinstance(refused.value, InvalidFields)
    assert [error.field for error in refused.value.errors] == [field]


def test_longest_batch_is_of_so_many() -> None:
    assert len(check_batch({"requests": [request()] * MOST_REQUESTS}, RULES).items) == MOST_REQUESTS
