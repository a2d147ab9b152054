"""The orders of one connection: in turn, and answered when their outcome is known."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from decimal import Decimal

import pytest
from msgspec.structs import replace

from core.access.limits import Decision, Limiter, Policy
from core.errors import (
    CloseCode,
    FieldError,
    GatewayError,
    InvalidFields,
)
from core.messages.batch_rules import Batch
from core.messages.commands import AmendOrder, CancelOrder, PlaceOrder
from core.messages.model import TimeInForce
from core.protocol.effects import OldestAnswer, RpcAnswer
from tests.core.admission import taker
from tests.core.attempts import ANY_NAME, LIMIT, hear
from tests.core.fakes import run, turns
from tests.core.protocol.connected_trader import ConnectedTrader, SharedTrader
from tests.core.trading import CERTAINLY_NOT

# Outcomes.


def test_order_is_answered_when_its_outcome_is_known() -> None:
    async def main() -> None:
        trader = ConnectedTrader(acks=False)
        trader.orders.place(RpcAnswer(1), LIMIT)
        await turns()
        assert trader.answers == {}
        trader.trade.log.last.ack()
        await turns()
        assert trader.answers == {1: {"order_id": trader.trade.log.last.order_id, "client_order_id": "my-1"}}

    run(main())


def test_what_is_only_to_be_looked_at_is_answered_and_not_written() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        order_id = await trader.placed()
        written = len(trader.trade.log.records)
        trader.orders.place(RpcAnswer(1), replace(LIMIT, validate_only=True))
        terms = AmendOrder(CancelOrder(order_id, None), Decimal("2.5"), None, validate_only=True)
        trader.orders.amend(RpcAnswer(2), terms)
        await turns()
        assert (trader.answers[1], trader.answers[2]) == ({"valid": True}, {"valid": True})
        assert len(trader.trade.log.records) == written

    run(main())


@pytest.mark.parametrize("fault", [ZeroDivisionError("a secret"), GatewayError("a secret")])
def test_fault_is_answered_as_one_and_logged_whole(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.trade.log.refuses = fault
        trader.orders.place(RpcAnswer(1), LIMIT)
        trader.orders.place_nobodys(OldestAnswer(2), (LIMIT,))
        await turns()
        assert trader.answers[1]["code"] == trader.answers[2]["code"] == -32603
        assert "secret" not in trader.answers[1]["message"]

    run(main())
    assert [record.exc_info is not None for record in caplog.records if record.levelno >= logging.ERROR] == [True] * 2


def test_orders_of_nobodys_go_out_without_a_word() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.orders.place_nobodys(OldestAnswer(1), (ANY_NAME, LIMIT))
        await turns()
        assert [user_id for _, user_id in trader.records("place_order")] == [None, None]
        assert trader.answers == {}

    run(main())


NO_QUANTITY = InvalidFields([FieldError("quantity", "required"), FieldError("side", "required")])


def test_orders_of_nobodys_that_are_refused_are_told_of_in_one_answer() -> None:
    async def main() -> None:
        trader = ConnectedTrader(acks=False)
        trader.orders.place_nobodys(OldestAnswer(1), (NO_QUANTITY, LIMIT, ANY_NAME))
        await turns()
        assert trader.answers == {}, "before all outcomes are known"
        failing, written = trader.trade.log.produced
        failing.fail(CERTAINLY_NOT)
        written.ack()
        await turns()
        errors = [
            {"field": "orders[0].quantity", "message": "required"},
            {"field": "orders[0].side", "message": "required"},
            {"field": "orders[1]", "message": "not sent: Kafka cannot be reached"},
        ]
        message = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
        assert trader.answers == {1: {"code": -32602, "message": message, "data": {"errors": errors}}}

    run(main())


def test_orders_of_nobodys_that_all_fail_alike_are_told_why_once() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.trade.log.refuses = CERTAINLY_NOT
        trader.orders.place_nobodys(OldestAnswer(1), (ANY_NAME, LIMIT))
        await turns()
        assert trader.answers == {1: {"code": 10004, "message": "not sent: Kafka cannot be reached"}}

    run(main())


def test_answer_to_orders_of_nobodys_has_the_code_and_data_of_the_first_that_was_refused() -> None:
    async def main() -> None:
        trader = ConnectedTrader(acks=False)
        trader.orders.place_nobodys(OldestAnswer(1), (LIMIT, NO_QUANTITY))
        await turns()
        trader.trade.log.last.lose()
        await turns()
        told = trader.answers[1]
        assert (told["code"], told["data"]) == (10005, {"order_id": trader.trade.log.last.order_id})
        assert "orders[0]: it is not known" in told["message"]
        assert "orders[1].side: required" in told["message"]

    run(main())


def test_answer_to_orders_of_nobodys_does_not_grow_with_them() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.orders.place_nobodys(OldestAnswer(1), [NO_QUANTITY] * 1000)
        await turns()
        errors = trader.answers[1]["data"]["errors"]
        assert len(errors) == 17
        assert errors[-1] == {"field": "orders", "message": "1984 more errors"}

    run(main())


def test_orders_of_nobodys_are_refused_by_a_gateway_that_shuts_down() -> None:
    async def main() -> None:
        trader = ConnectedTrader(acks=False)
        trader.orders.place(RpcAnswer(1), LIMIT)
        assert trader.orders.delays_end("reconnect")
        trader.orders.place_nobodys(OldestAnswer(2), (LIMIT,))
        await turns()
        assert trader.answers[2]["code"] == 10004
        assert len(trader.trade.log.produced) == 1

    run(main())


# The engine's word, for who waits for it.


ACCEPTED = {"side": "bid", "order_type": "limit", "price": "1.50", "quantity": "2.0"}
AT_ONCE = replace(LIMIT, time_in_force=TimeInForce.IOC)


@pytest.mark.parametrize(("order", "is_enough"), [(LIMIT, True), (AT_ONCE, False)])
def test_order_is_answered_when_the_engine_has_said_what_becomes_of_it(order: PlaceOrder, is_enough: bool) -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.orders.place(RpcAnswer(1), order, awaits_engine=True)
        await turns()
        assert trader.answers == {}
        order_id = trader.trade.log.last.order_id
        hear(trader.trade, "order_accepted", order_id, **ACCEPTED)
        await turns()
        assert (1 in trader.answers) is is_enough
        hear(trader.trade, "order_cancelled", order_id, 1, filled_quantity="0")
        await turns()
        assert trader.answers[1]["order_id"] == order_id

    run(main())


def test_cancel_is_answered_when_the_engine_has_closed_the_order() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        order_id = await trader.placed()
        trader.orders.cancel(RpcAnswer(2), CancelOrder(order_id, None), awaits_engine=True)
        await turns()
        assert 2 not in trader.answers
        assert [one for one, _ in trader.records("cancel_order")] == [order_id]
        hear(trader.trade, "order_cancelled", order_id, filled_quantity="0")
        await turns()
        assert trader.answers[2] == {"order_id": order_id}

    run(main())


def test_engine_that_says_nothing_holds_up_no_answer_for_longer_than_it_may() -> None:
    async def main() -> None:
        trader = ConnectedTrader(engine_seconds=0)
        trader.orders.place(RpcAnswer(1), LIMIT, awaits_engine=True)
        await turns()
        assert trader.answers[1]["order_id"] == trader.trade.log.last.order_id

    run(main())


# A timer that is set again.


class WrittenTimer:
    """One whose record covers what is asked for; `asked`: with how many seconds it was extended, and set."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def extend(self, _user_id: str, timeout_seconds: int, may: Callable[[], bool]) -> int | None:
        if not may():
            return None
        self.asked.append(("extended", timeout_seconds))
        return 17

    async def set(self, _user_id: str, timeout_seconds: int) -> int:
        self.asked.append(("set", timeout_seconds))
        return 18


def test_timer_that_is_extended_is_answered_at_once() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.order_services.timers = timers = WrittenTimer()  # type: ignore[assignment]
        trader.orders.cancel_all_after(RpcAnswer(1), 5)
        assert (trader.answers, timers.asked) == ({1: {"trigger_time_ms": 17}}, [("extended", 5)])
        assert not trader.order_services.tasks

    run(main())


def test_timer_is_not_extended_ahead_of_what_came_before_it() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.order_services.timers = timers = WrittenTimer()  # type: ignore[assignment]
        trader.orders.place(RpcAnswer(1), ANY_NAME)
        trader.orders.cancel_all_after(RpcAnswer(2), 5)
        assert timers.asked == []
        await turns()
        assert (trader.answers[2], timers.asked) == ({"trigger_time_ms": 18}, [("set", 5)])

    run(main())


@pytest.mark.parametrize("is_shared", [False, True])
def test_timer_is_extended_within_the_limit_of_cancels_alone(is_shared: bool) -> None:
    async def main() -> None:
        trader = ConnectedTrader(cancels=SlowLimit() if is_shared else taker("cancels", 0.001, 1))
        trader.order_services.timers = timers = WrittenTimer()  # type: ignore[assignment]
        for number in range(2):
            trader.orders.cancel_all_after(RpcAnswer(number), 5)
            await turns()
        if is_shared:  # which is asked, and answers nothing here
            assert (trader.answers, timers.asked) == ({}, [])
        else:
            assert timers.asked == [("extended", 5)]
            assert (trader.answers[1]["code"], trader.limited) == (10003, ["cancels"])

    run(main())


# Limits, in turn.


class SlowLimit:
    """A limit that is asked over a network: what it says may overtake what it says later."""

    problem = None

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[Decision]] = []

    def take_now(self, _key: object) -> None:
        return None

    async def take(self, _key: object) -> Decision:
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


def test_nothing_overtakes_an_order_that_waits_for_a_shared_limit() -> None:
    async def main() -> None:
        slow = SlowLimit()
        trader = ConnectedTrader(orders=slow, cancels=taker("cancels", 0, 1))
        trader.orders.place(RpcAnswer(1), LIMIT)
        trader.orders.cancel(RpcAnswer(2), CancelOrder(None, "my-1"))
        trader.orders.place(RpcAnswer(3), ANY_NAME)
        trader.orders.cancel_all(RpcAnswer(4), None)
        for _ in range(2):
            await turns()
            slow.answers[-1].set_result(Limiter(Policy("orders", 1, 5)).take("alice"))
        await turns()
        first, second = trader.answers[1]["order_id"], trader.answers[3]["order_id"]
        assert trader.answers[2] == {"order_id": first}
        assert sorted(trader.answers[4]["order_ids"]) == sorted([first, second])
        assert [(one["type"], one["order_id"]) for one in trader.trade.log.records][:3] == [
            ("place_order", first),
            ("cancel_order", first),
            ("place_order", second),
        ]

    run(main())


def test_orders_and_cancels_over_a_limit_are_refused_and_counted_and_a_cancel_of_all_is_not() -> None:
    async def main() -> None:
        trader = ConnectedTrader(orders=taker("orders", 0.5, 1), cancels=taker("cancels", 0.25, 1))
        order_id = await trader.placed()
        trader.orders.place(RpcAnswer(1), LIMIT)
        for number in (2, 3):
            trader.orders.cancel(RpcAnswer(number), CancelOrder(order_id, None))
        trader.orders.cancel_all(RpcAnswer(4), None)
        await turns()
        refused = [(trader.answers[number]["code"], trader.answers[number]["data"]) for number in (1, 3)]
        assert refused == [(10003, {"retry_after": 3}), (10003, {"retry_after": 5})]
        assert trader.answers[4] == {"order_ids": [order_id]}
        assert trader.limited == ["orders", "cancels"]

    run(main())


# A shutdown.


def test_shutdown_waits_for_the_outcomes_and_takes_nothing_new() -> None:
    async def main() -> None:
        trader = ConnectedTrader(acks=False)
        assert not trader.orders.delays_end("reconnect"), "there is nothing to wait for"
        for number in (1, 2):
            trader.orders.place(RpcAnswer(number), ANY_NAME)
        await turns()
        assert trader.orders.delays_end("reconnect")
        trader.orders.place(RpcAnswer(3), ANY_NAME)
        assert trader.answers[3]["code"] == 10004
        first, second = trader.trade.log.produced
        second.lose()
        await turns()
        assert (trader.answers[2]["code"], trader.ends) == (10005, [])
        first.ack()
        await turns()
        assert trader.answers[1]["order_id"] == first.order_id
        assert trader.ends == [(CloseCode.GOING_AWAY, "reconnect")]
        assert not trader.orders.delays_end("reconnect")
        assert len(trader.trade.log.produced) == 2

    run(main())


def test_drain_waits_for_orders_under_way_and_no_longer_than_it_may() -> None:
    async def main() -> None:
        trader = ConnectedTrader(acks=False)
        trader.orders.place(RpcAnswer(1), LIMIT)
        await turns()
        await trader.order_services.finish(0)
        finishing = asyncio.ensure_future(trader.order_services.finish(10))
        await turns()
        assert not finishing.done()
        trader.trade.log.last.ack()
        await finishing
        assert "order_id" in trader.answers[1]
        assert trader.order_services.tasks == set()

    run(main())


# Amends.


def amend_of(order_id: str) -> AmendOrder:
    return AmendOrder(CancelOrder(order_id, None), Decimal("1.75"), None)


def test_amend_is_answered_when_it_is_with_the_bus() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        order_id = await trader.placed()
        trader.orders.amend(RpcAnswer(2), amend_of(order_id))
        trader.orders.amend(RpcAnswer(3), amend_of(order_id))
        await turns()
        assert trader.answers[2] == {"order_id": order_id}
        assert trader.answers[3] == {"order_id": order_id, "duplicate": True}
        assert trader.records("amend_order") == [(order_id, "alice")]

    run(main())


def test_amend_counts_as_an_order() -> None:
    async def main() -> None:
        trader = ConnectedTrader(orders=taker("orders", 1, 1))
        order_id = await trader.placed()
        trader.orders.amend(RpcAnswer(2), amend_of(order_id))
        await turns()
        assert trader.answers[2]["code"] == 10003
        assert trader.limited == ["orders"]

    run(main())


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        ("order_amended", {"price": "1.75", "quantity": "2.0"}, {}),
        ("order_amend_rejected", {"reason": "too late"}, {"amend_rejected": "too late"}),
        ("order_filled", {}, {}),
    ],
)
def test_amend_that_awaits_the_engine_is_answered_with_its_word(
    kind: str, more: dict[str, str], told: dict[str, str]
) -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        order_id = await trader.placed()
        trader.orders.amend(RpcAnswer(2), amend_of(order_id), awaits_engine=True)
        await turns()
        assert 2 not in trader.answers
        hear(trader.trade, kind, order_id, **more)
        await turns()
        assert trader.answers[2] == {"order_id": order_id, **told}

    run(main())


def test_amend_to_what_the_order_has_awaits_nothing() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        order_id = await trader.placed()
        amend = AmendOrder(CancelOrder(order_id, None), None, Decimal(2))
        trader.orders.amend(RpcAnswer(2), amend, awaits_engine=True)
        await turns()
        assert trader.answers[2] == {"order_id": order_id, "duplicate": True}

    run(main())


# Batches.


def test_batch_is_answered_in_one_with_what_became_of_each() -> None:
    async def main() -> None:
        trader = ConnectedTrader(orders=taker("orders", 1, 2))
        broken = InvalidFields([FieldError("price", "required")])
        trader.orders.batch(RpcAnswer(1), Batch([LIMIT, broken, ANY_NAME, ANY_NAME, CancelOrder(None, "my-1")]))
        await turns()
        first, second, third, fourth, last = trader.answers[1]["results"]
        order_id = trader.records("place_order")[0][0]
        assert first == {"result": {"order_id": order_id, "client_order_id": "my-1"}}
        assert second == {"error": {"code": -32602, "message": "price: required", "data": broken.data}}
        assert third["result"]["client_order_id"] is None
        assert fourth["error"]["code"] == 10003
        assert last == {"result": {"order_id": order_id}}
        assert trader.limited == ["orders"]

    run(main())


def test_batch_is_with_the_producer_before_what_is_sent_behind_it() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.orders.batch(RpcAnswer(1), Batch([ANY_NAME, LIMIT]))
        trader.orders.place(RpcAnswer(2), replace(LIMIT, client_order_id="my-2"))
        await turns()
        names = [one["client_order_id"] for one in trader.trade.log.records]
        assert names == [None, "my-1", "my-2"]

    run(main())


def test_orders_of_a_batch_are_cancelled_with_the_connection() -> None:
    async def main() -> None:
        trader = ConnectedTrader(acks=False)
        trader.client.cancels_on_disconnect = True
        trader.orders.batch(RpcAnswer(1), Batch([ANY_NAME, LIMIT, replace(LIMIT, client_order_id="my-2")]))
        await turns()
        first, second, third = trader.trade.log.produced
        first.ack()
        second.lose()
        third.fail(CERTAINLY_NOT)
        await turns()
        trader.orders.leave()
        await turns()
        assert trader.records("cancel_order") == [(first.order_id, "alice"), (second.order_id, "alice")]

    run(main())


def test_nobody_is_told_of_anything_once_the_connection_is_over() -> None:
    async def main() -> None:
        trader = SharedTrader(acks=False)
        trader.orders.place(RpcAnswer(1), LIMIT)
        await turns()
        assert trader.orders.delays_end("reconnect")
        trader.orders.leave()
        trader.order_services.cancel_on_disconnect = None
        trader.orders.cancel_on_disconnect(RpcAnswer(2), True, {})
        trader.orders.place(RpcAnswer(3), LIMIT)
        trader.orders._taken_for_gone()
        trader.trade.log.last.ack()
        await turns()
        assert trader.answers == {}

    run(main())
