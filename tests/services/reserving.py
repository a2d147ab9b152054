"""Reservations at a service that a test plays, with their time and their pauses in its hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from core.config.settings import Accounts
from core.errors import AccountsUnavailable, FundsRefused, OutcomeUnknown
from core.messages.commands import PlaceOrder
from core.messages.order_rules import OrderRules, check_place
from core.orders.releases import Releases
from services.accounts import Reservation, Reservations, may_be_reserved
from tests.support.accounts import AccountService, account_service
from tests.support.ports import free_port

KEY = "5f6bd1e6-6f6e-5d0a-9c43-0d9f6e7a1b20"
OTHER_KEY = "7b6f4fd2-3c55-5a3e-8f8e-2f6f1b2c3d4e"
ID = "0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11"
LIMIT = {"symbol": "KCN/EUR", "side": "bid", "order_type": "limit", "price": "1.50", "quantity": "2.0"}
MARKET = {"symbol": "KCN/EUR", "side": "bid", "order_type": "market"}

# Nobody waits so long: deadlines are met by hand.
LONG_SECONDS = 15.0


def order(**fields: Any) -> PlaceOrder:
    return check_place({**LIMIT, **fields}, OrderRules(accounts=True))


def market(**fields: Any) -> PlaceOrder:
    return check_place({**MARKET, **fields}, OrderRules(accounts=True))


class TimedReservations:
    """Reservations whose time is a number, and whose pauses end when a test says (at once, by default)."""

    def __init__(self, url: str, max_connections: int = 8, releases: Releases | None = None) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.failed: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.releases = releases or Releases(may_be_reserved)
        self.reservations = Reservations(
            Accounts(url, LONG_SECONDS, max_connections),
            self.releases,
            on_release_failed=self.failed.append,
            pause=self._pause,
            clock=lambda: self.now,
        )

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.go_on.wait()

    async def reserve(self, one: PlaceOrder | None = None, key: str = KEY, user_id: str = "ann") -> Reservation:
        return await self.reservations.reserve(user_id, one or order(), key)

    async def outcome(self, one: PlaceOrder | None = None, key: str = KEY) -> type | None:
        try:
            await self.reserve(one, key)
        except (FundsRefused, AccountsUnavailable, OutcomeUnknown) as error:
            return type(error)
        return None

    async def released(self) -> None:
        """Wait for all releases, however many tries they take."""
        while self.reservations._releases:
            await asyncio.wait(list(self.reservations._releases.values()))
            await asyncio.sleep(0)


@asynccontextmanager
async def reservations_at(url: str, **changes: Any) -> AsyncIterator[TimedReservations]:
    timed = TimedReservations(url, **changes)
    try:
        yield timed
    finally:
        timed.go_on.set()
        await timed.reservations.close(LONG_SECONDS)


@asynccontextmanager
async def serve(balance: str = "10", **changes: Any) -> AsyncIterator[tuple[TimedReservations, AccountService]]:
    async with account_service({("ann", "EUR"): balance, ("ann", "KCN"): "5"}) as service:
        async with reservations_at(service.url, **changes) as timed:
            yield timed, service


def closed_port() -> str:
    """The url of a port that refuses connections."""
    return f"http://127.0.0.1:{free_port()}"
