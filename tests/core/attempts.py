"""Attempts at orders, each as far along as a test wants it, and a service that holds the funds for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from core.errors import GatewayError, OutcomeUnknown
from core.messages.commands import PlaceOrder
from core.messages.events import OrderEvent, read_event
from core.messages.model import OrderType, Side, TimeInForce
from core.messages.order_ids import order_id_for
from core.orders.attempt import Placed
from core.orders.order import Order
from tests.core.fakes import turns
from tests.core.trading import NAMESPACE, Trade

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
        self._tasks: list[asyncio.Task[None]] = []
        self.fails: GatewayError | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def reserve(self, user_id: str, order: PlaceOrder, idempotency_key: str) -> Reserved:
        self.asked.append((user_id, order, idempotency_key))
        await self.may_answer.wait()
        if self.fails is not None:
            raise self.fails
        return Reserved(self.order_id or idempotency_key, self.quantity)

    def release(self, order_id: str, user_id: str, *, unless: Callable[[], Awaitable[bool]] | None = None) -> None:
        self._tasks.append(asyncio.ensure_future(self._release(order_id, user_id, unless)))

    async def _release(self, order_id: str, user_id: str, unless: Callable[[], Awaitable[bool]] | None) -> None:
        if unless is None or not await unless():
            self.released.append((order_id, user_id))
