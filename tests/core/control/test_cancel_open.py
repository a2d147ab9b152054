from __future__ import annotations

import asyncio

import pytest

from core.control.cancel_open import RETRY_SECONDS, SETTLED_SECONDS, WITHIN_SECONDS, CancelOpen
from core.errors import BusUnavailable, StillBehind
from tests.core.fakes import run, turns

AWAY = StillBehind("away")


class Orders:
    """The orders of alice, and a clock."""

    def __init__(self) -> None:
        self.open: list[str] = ["a", "b"]
        self.refuses: list[Exception] = []
        self.is_away = False
        self.tries = 0
        self.is_blocked = True
        self.now = 0.0
        self._sleeping: list[tuple[float, asyncio.Future[None]]] = []
        self.cancel_open = CancelOpen(
            self._cancel_all, lambda _: self.is_blocked, sleep=self._sleep, monotonic=lambda: self.now
        )

    async def _cancel_all(self, user_id: str) -> list[str]:
        assert user_id == "alice"
        self.tries += 1
        if self.is_away:
            raise AWAY
        if self.refuses:
            raise self.refuses.pop(0)
        cancelled, self.open = self.open, []
        return cancelled

    async def _sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._sleeping.append((self.now + seconds, future))
        await future

    async def pass_until(self, moment: float) -> None:
        await turns(5)
        while (woken := min(self._sleeping, key=lambda one: one[0], default=None)) and woken[0] <= moment:
            self._sleeping.remove(woken)
            self.now = woken[0]
            if not woken[1].done():
                woken[1].set_result(None)
            await turns(5)
        self.now = moment


def test_open_orders_are_cancelled_and_later_what_was_accepted_meanwhile() -> None:
    async def scene() -> None:
        orders = Orders()
        assert await orders.cancel_open.run("alice") == ["a", "b"]
        orders.open = ["late"]
        await orders.pass_until(SETTLED_SECONDS - 0.1)
        assert orders.open == ["late"]
        orders.refuses = [AWAY]
        await orders.pass_until(SETTLED_SECONDS + RETRY_SECONDS)
        assert (orders.open, orders.tries) == ([], 3)
        await orders.pass_until(100)
        assert orders.tries == 3

    run(scene())


def test_what_fails_is_tried_again() -> None:
    async def scene() -> None:
        orders = Orders()
        orders.refuses = [AWAY, BusUnavailable("away")]
        task = asyncio.create_task(orders.cancel_open.run("alice"))
        await orders.pass_until(2 * RETRY_SECONDS)
        assert await task == ["a", "b"]

    run(scene())


def test_what_fails_for_long_is_told_and_goes_on() -> None:
    async def scene() -> None:
        orders = Orders()
        orders.is_away = True
        task = asyncio.create_task(orders.cancel_open.run("alice"))
        await orders.pass_until(WITHIN_SECONDS)
        with pytest.raises(StillBehind):
            await task
        orders.is_away = False
        await orders.pass_until(WITHIN_SECONDS + RETRY_SECONDS)
        assert orders.open == []

    run(scene())


@pytest.mark.parametrize("stops", [False, True])
def test_orders_of_a_user_who_may_order_again_are_let_be(stops: bool) -> None:
    async def scene() -> None:
        orders = Orders()
        await orders.cancel_open.run("alice")
        orders.open = ["new"]
        if stops:
            await turns(1)
            orders.cancel_open.stop()
        else:
            orders.is_blocked = False
        await orders.pass_until(100)
        assert orders.open == ["new"]

    run(scene())


def test_nothing_is_said_where_nothing_was_accepted_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        orders = Orders()
        await orders.cancel_open.run("alice")
        caplog.clear()
        await orders.pass_until(SETTLED_SECONDS + 0.1)
        assert (orders.tries, caplog.messages) == (2, [])

    run(scene())
