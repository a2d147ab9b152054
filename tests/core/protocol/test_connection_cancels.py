"""What becomes of the orders of a connection when it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

import core.protocol.connection_orders
from core.errors import (
    BusUnavailable,
    CloseCode,
    OrderConflict,
    OutcomeUnknown,
)
from core.messages.batch_rules import Batch
from core.messages.commands import CancelOrder
from core.protocol.effects import OldestAnswer, RpcAnswer
from tests.core.attempts import ANY_NAME, LIMIT, hear
from tests.core.fakes import run, turns
from tests.core.protocol.connected_trader import ConnectedTrader, SharedTrader
from tests.core.trading import CERTAINLY_NOT


@pytest.mark.parametrize("wants", [[], [True, False]], ids=["never", "no more"])
def test_orders_stay_when_their_connection_ends_unless_that_was_asked_for(wants: list[bool]) -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        await trader.placed()
        for enabled in wants:
            trader.client.cancels_on_disconnect = enabled
        trader.orders.leave()
        await turns()
        assert trader.records("cancel_order") == []

    run(main())


@pytest.mark.parametrize(
    ("settle", "is_cancelled"),
    [
        (lambda one: one.ack(), True),
        (lambda one: one.lose(), True),
        (lambda one: one.fail(CERTAINLY_NOT), False),
        (lambda one: one.fail(OrderConflict("", "x")), False),
    ],
    ids=["accepted", "unknown", "not written", "a conflict"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_order_is_cancelled_with_its_connection_if_it_may_be_there_also_when_that_is_known_later(
    settle: Callable[[Any], None], is_cancelled: bool, when: str
) -> None:
    async def main() -> None:
        trader = ConnectedTrader(acks=False)
        trader.client.cancels_on_disconnect = True
        trader.orders.place(RpcAnswer(1), LIMIT)
        await turns()
        one = trader.trade.log.last
        if when == "after":
            trader.orders.leave()
            await turns()
            assert trader.records("cancel_order") == []
        settle(one)
        await turns()
        if when == "before":
            trader.orders.leave()
            await turns()
        assert (trader.answers == {}) is (when == "after"), "nobody is told who has left"
        assert trader.records("cancel_order") == ([(one.order_id, "alice")] if is_cancelled else [])

    run(main())


def test_orders_are_cancelled_in_the_name_of_whose_they_are() -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.client.user_id = None
        nobodys = await trader.placed()
        trader.client.user_id = "alice"
        mine = await trader.placed()
        trader.client.cancels_on_disconnect = True
        trader.orders.leave()
        await turns()
        assert trader.records("cancel_order") == [(nobodys, None), (mine, "alice")]

    run(main())


def test_cancels_on_disconnect_that_fail_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        trader = ConnectedTrader()
        trader.client.cancels_on_disconnect = True
        for _ in range(2):
            await trader.placed()
        trader.trade.log.refuses = CERTAINLY_NOT
        trader.orders.leave()
        await turns()

    run(main())
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "2 of its 2 cancels on disconnect failed: Kafka cannot be reached" in record.getMessage()


def test_orders_of_a_connection_that_others_know_of_name_it_and_are_cancelled_after_the_grace() -> None:
    async def main() -> None:
        trader = SharedTrader()
        before = await trader.placed()
        assert await trader.set(True) == {"is": "set"}
        assert trader.held()["a-1"]["orders"] == [before]
        trader.orders.place(RpcAnswer(1), LIMIT)
        trader.orders.batch(RpcAnswer(2), Batch([LIMIT, CancelOrder(before, None)]))
        trader.orders.place_nobodys(OldestAnswer(3), (ANY_NAME,))
        await turns()
        assert trader.named() == [None, "a-1", "a-1"]
        nobodys = trader.trade.log.records[-1]["order_id"]
        await trader.world.beat()
        trader.orders.leave()
        assert trader.held()["a-1"]["orders"] == [before, nobodys]
        await trader.world.pass_until(9.9)
        cancelled = len(trader.records("cancel_order"))
        await trader.world.pass_until(11)
        assert len(trader.records("cancel_order")) == cancelled + 3
        assert trader.held() == {}

    run(main())


def test_connection_that_others_know_of_and_that_has_no_orders_is_forgotten_with_its_end() -> None:
    async def main() -> None:
        trader = SharedTrader()
        await trader.set(True)
        await trader.world.beat()
        trader.orders.leave()
        assert trader.held() == {}

    run(main())


@pytest.mark.parametrize("is_closed_before", [False, True])
def test_order_whose_outcome_is_known_after_the_end_is_cancelled_with_the_others_or_at_once(
    is_closed_before: bool,
) -> None:
    async def main() -> None:
        trader = SharedTrader(acks=False)
        await trader.set(True)
        await trader.world.beat()
        trader.orders.place(RpcAnswer(1), LIMIT)
        await turns()
        one = trader.trade.log.last
        trader.orders.leave()
        if is_closed_before:
            await trader.world.pass_until(12)
            assert trader.held() == {}
        one.ack()
        await turns()
        assert trader.records("cancel_order") == ([(one.order_id, "alice")] if is_closed_before else [])
        trader.trade.log.acks = True
        await trader.world.pass_until(24)
        assert trader.records("cancel_order") == [(one.order_id, "alice")]

    run(main())


def test_repeat_of_an_order_that_was_placed_elsewhere_is_cancelled_with_the_connection() -> None:
    async def main() -> None:
        trader = SharedTrader()
        placed = await trader.trade.entry.place("alice", LIMIT)
        await trader.set(True)
        trader.orders.place(RpcAnswer(1), LIMIT)
        await turns()
        assert trader.answers[1]["duplicate"] is True
        await trader.world.pass_until(2)
        assert trader.held()["a-1"]["orders"] == [placed.order_id]
        trader.orders.leave()
        await trader.world.pass_until(13)
        assert trader.records("cancel_order") == [(placed.order_id, "alice")]

    run(main())


def test_switched_off_and_on_again_it_is_another_connection() -> None:
    async def main() -> None:
        trader = SharedTrader()
        await trader.set(True)
        order_id = await trader.placed()
        await trader.set(False)
        assert (trader.held(), trader.client.cancels_on_disconnect) == ({}, False)
        await trader.placed()
        await trader.set(True)
        assert list(trader.held()) == ["a-2"]
        assert trader.held()["a-2"]["orders"][0] == order_id
        assert trader.named() == ["a-1", None]
        await trader.set(False)
        trader.orders.leave()
        await trader.world.pass_until(30)
        assert trader.records("cancel_order") == []

    run(main())


def test_order_of_who_signs_in_later_is_found_by_its_id() -> None:
    async def main() -> None:
        trader = SharedTrader()
        trader.client.user_id = None
        await trader.set(True)
        nobodys = await trader.placed()
        trader.client.user_id = "alice"
        await trader.set(True)
        assert (trader.held()["a-1"]["user_id"], trader.held()["a-1"]["orders"]) == ("alice", [nobodys])

    run(main())


def test_nobodys_orders_are_found_by_the_connection_alone() -> None:
    async def main() -> None:
        trader = SharedTrader()
        trader.client.user_id = None
        await trader.set(True)
        nobodys = await trader.placed()
        trader.orders.leave()
        await trader.world.pass_until(12)
        assert trader.records("cancel_order") == [(nobodys, None)]

    run(main())


@pytest.mark.parametrize("was_enabled", [False, True])
@pytest.mark.parametrize("error", [CERTAINLY_NOT, OutcomeUnknown("", "lost")])
def test_setting_that_is_refused_changes_nothing_unless_it_may_be_there(was_enabled: bool, error: Any) -> None:
    async def main() -> None:
        trader = SharedTrader()
        if was_enabled:
            await trader.set(True)
        trader.instance.held = []
        trader.orders.cancel_on_disconnect(RpcAnswer(1), not was_enabled, {"is": "set"})
        await turns()
        trader.instance.held[0].set_exception(error)
        trader.instance.held = None
        await turns()
        is_known = isinstance(error, BusUnavailable)
        assert trader.answers[1]["code"] == (10004 if is_known else 10005)
        assert trader.client.cancels_on_disconnect is (was_enabled if is_known else not was_enabled)
        await trader.placed()
        assert trader.named()[-1] == ("a-1" if trader.client.cancels_on_disconnect else None)

    run(main())


def test_without_a_usable_topic_each_process_cancels_its_own_at_once() -> None:
    async def main() -> None:
        trader = SharedTrader()
        trader.instance.is_usable = False
        assert await trader.set(True) == {"is": "set"}
        order_id = await trader.placed()
        trader.orders.leave()
        await turns()
        assert (trader.held(), trader.named(), trader.records("cancel_order")) == ({}, [None], [(order_id, "alice")])

    run(main())


def test_connection_that_others_took_for_gone_is_closed() -> None:
    async def main() -> None:
        trader = SharedTrader()
        await trader.set(True)
        await trader.world.beat()
        trader.instance.write("connection/a-1", None)
        await trader.world.beat()
        assert trader.ends == [(CloseCode.GOING_AWAY, "reconnect")]
        trader.orders.leave()
        await trader.world.beat()
        trader.instance.write("connection/a-1", None)
        await trader.world.beat()
        assert len(trader.ends) == 1

    run(main())


def test_cancel_that_fails_is_told_to_who_cancels() -> None:
    async def main() -> None:
        trader = SharedTrader()
        await trader.set(True)
        await trader.placed()
        trader.trade.log.refuses = CERTAINLY_NOT
        trader.orders.leave()
        await trader.world.pass_until(12)
        assert trader.instance.counts["failed"] >= 1
        trader.trade.log.refuses = None
        await trader.world.pass_until(13)
        assert trader.instance.counts["cancelled"] == 1

    run(main())


def test_connection_with_many_orders_remembers_the_open_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.protocol.connection_orders, "PRUNE_AT", 4)

    async def main() -> None:
        trader = ConnectedTrader()
        trader.client.cancels_on_disconnect = True
        left = []
        for number in range(40):
            order_id = await trader.placed()
            if number % 8:
                hear(trader.trade, "order_filled", order_id, number)
            else:
                left.append(order_id)
        assert len(trader.orders._placed) < 20
        trader.orders.leave()
        await turns()
        assert trader.records("cancel_order") == [(order_id, "alice") for order_id in left]

    run(main())
