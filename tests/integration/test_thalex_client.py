"""Thalex's public Python client against a gateway and the simulated exchange: it signs in, places, sees and cancels."""

from __future__ import annotations

import asyncio
import enum
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from thalex import thalex

from tests.integration.events import fresh_symbol
from tests.integration.market import Market
from tests.integration.processes import Gateway, exchange_on
from tests.integration.trading import Trader, settings

NUMBER = 100


@pytest.fixture(scope="module")
def gateway(market: Market) -> Iterator[Gateway]:
    with exchange_on(market), Gateway.on(market, settings()) as gateway:
        yield gateway


class Client(thalex.Thalex):
    """The public client. Its own `login` signs a token with a key that is registered there; here a token is given."""

    def __init__(self, address: str) -> None:
        network = enum.Enum("Network", {"HERE": f"{address.replace('http', 'ws', 1)}/ws?stream=none"})
        super().__init__(network.HERE)  # type: ignore[attr-defined]
        self._ids = count(1)
        self.notified: list[dict[str, Any]] = []

    async def sign_in(self, token: str, id: int) -> None:
        await self._send("public/login", id, token=token)

    async def asked(self, method: Callable[..., Awaitable[None]], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The answer to one of the client's calls; what is notified meanwhile is kept."""
        request_id = next(self._ids)
        await method(*args, **kwargs, id=request_id)
        while (message := await self.message()).get("id") != request_id:
            self.notified.append(message)
        return message

    async def result(self, method: Callable[..., Awaitable[None]], *args: Any, **kwargs: Any) -> Any:
        return (await self.asked(method, *args, **kwargs))["result"]

    async def message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.receive(), parse_float=Decimal)
        return message

    async def heard(self, channel: str, wanted: Callable[[Any], bool]) -> Any:
        """The first notification of a channel that is wanted."""
        while True:
            message = self.notified.pop(0) if self.notified else await self.message()
            if message.get("channel_name") == channel and wanted(message["notification"]):
                return message["notification"]


@asynccontextmanager
async def connected(gateway: Gateway, trader: Trader) -> AsyncIterator[Client]:
    client = Client(gateway.address)
    await client.connect()
    try:
        assert await client.result(client.sign_in, trader.token) == {"account_number": trader.user_id}
        yield client
    finally:
        await client.disconnect()


def status_is(status: str) -> Callable[[Any], bool]:
    return lambda notification: any(order["status"] == status for order in notification["orders"])


def test_client_places_an_order_sees_it_and_cancels_it_by_its_own_number(gateway: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()

    async def main() -> None:
        async with connected(gateway, trader) as client:
            assert await client.result(client.private_subscribe, ["account.orders"]) == ["account.orders"]
            inserted = await client.result(
                client.insert, thalex.Direction.BUY, symbol, 0.5, client_order_id=NUMBER, price=10.05, label="mine"
            )
            assert inserted["create_time"] > 1_700_000_000
            order = {name: value for name, value in inserted.items() if name not in ("create_time", "order_id")}
            assert order == {
                "order_type": "limit",
                "time_in_force": "good_till_cancelled",
                "instrument_name": symbol,
                "direction": "buy",
                "price": Decimal("10.05"),
                "amount": Decimal("0.5"),
                "filled_amount": 0,
                "remaining_amount": Decimal("0.5"),
                "label": "mine",
                "client_order_id": NUMBER,
                "status": "open",
                "fills": [],
                "change_reason": "insert",
                "insert_reason": "client_request",
                "persistent": True,
            }
            await client.heard("account.orders", status_is("open"))
            [shown] = await client.result(client.open_orders)
            del inserted["label"]  # nothing keeps it
            assert shown == {**inserted, "change_reason": "existing"}
            cancelled = await client.result(client.cancel, client_order_id=NUMBER)
            assert cancelled["order_id"] == inserted["order_id"]
            assert (cancelled["status"], cancelled["remaining_amount"]) == ("cancelled", 0)
            assert (cancelled["change_reason"], cancelled["delete_reason"]) == ("cancel", "client_cancel")
            await client.heard("account.orders", status_is("cancelled"))
            assert await client.result(client.open_orders) == []
            refused = await client.asked(client.cancel, client_order_id=NUMBER)
            assert refused["error"]["code"] == 10002

    asyncio.run(main())


def test_client_counts_its_orders_anew_in_each_session(gateway: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()

    async def main() -> None:
        ids = []
        for price in (1.0, 2.0):
            async with connected(gateway, trader) as client:
                inserted = await client.result(client.buy, symbol, 1, client_order_id=NUMBER, price=price)
                assert inserted["client_order_id"] == NUMBER
                ids.append(inserted["order_id"])
        async with connected(gateway, trader) as client:
            assert {order["order_id"] for order in await client.result(client.open_orders)} == set(ids)
            assert "error" in await client.asked(client.cancel, client_order_id=NUMBER)
            for order_id in ids:
                assert (await client.result(client.cancel, order_id=order_id))["order_id"] == order_id

    asyncio.run(main())


def test_client_is_told_of_the_market_it_trades_on(gateway: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()

    async def main() -> None:
        async with connected(gateway, trader) as client:
            channel = f"book.{symbol}.none.5.raw"
            assert "error" in await client.asked(client.ticker, symbol)
            assert await client.result(client.public_subscribe, [channel]) == [channel]
            await client.result(client.private_subscribe, ["account.orders"])
            await client.result(client.buy, symbol, 2, price=10.05)
            await client.heard(channel, lambda news: [Decimal("10.05"), 0, 2] in news["bid_changes"])
            ticker = await client.result(client.ticker, symbol)
            assert (ticker["best_bid_price"], ticker["best_bid_amount"], ticker["best_ask_price"]) == (
                Decimal("10.05"), 2, 0,
            )  # fmt: skip
            book = await client.result(client.book, symbol)
            assert (book["bids"], book["asks"]) == ([[Decimal("10.05"), 2, 2]], [])
            sold = await client.result(client.sell, symbol, 0.5, order_type=thalex.OrderType.MARKET)
            assert (sold["status"], sold["filled_amount"], sold["delete_reason"]) == (
                "filled",
                Decimal("0.5"),
                "filled",
            )
            await client.heard("account.orders", status_is("filled"))
            [rest] = await client.result(client.open_orders)
            assert (rest["status"], rest["filled_amount"], rest["remaining_amount"]) == (
                "partially_filled", Decimal("0.5"), Decimal("1.5"),
            )  # fmt: skip
            assert (await client.result(client.book, symbol))["last"] == Decimal("10.05")
            assert await client.result(client.unsubscribe, [channel]) == [channel]

    asyncio.run(main())


def test_clients_orders_go_with_its_connection_where_it_wants_that(gateway: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()

    async def main() -> str:
        async with connected(gateway, trader) as client:
            armed = await client.result(client.set_cancel_on_disconnect, 10)
            assert armed["enabled"] is True
            assert isinstance(armed["message_rate"], int)
            inserted = await client.result(client.buy, symbol, 1, price=1.0)
            assert inserted["persistent"] is False
            return str(inserted["order_id"])

    order_id = asyncio.run(main())
    gateway.wait_until(lambda: trader.look_up(gateway, order_id).json()["status"] == "cancelled", "it is cancelled")


def test_client_is_told_what_is_not_possible(gateway: Gateway, trader: Trader) -> None:
    symbol = fresh_symbol()

    async def main() -> None:
        async with connected(gateway, trader) as client:
            order_id = (await client.result(client.buy, symbol, 1, price=1.0))["order_id"]
            amended = await client.asked(client.amend, 2, 1.5, order_id=order_id)
            assert (amended["error"]["code"], amended["error"]["message"]) == (
                10001, "orders cannot be amended here: cancel it and place another one",
            )  # fmt: skip
            refused = await client.asked(client.buy, symbol, 1, price=1.0, post_only=True)
            assert refused["error"]["data"]["errors"][0]["field"] == "post_only"
            assert (await client.asked(client.portfolio))["error"]["code"] == -32601
            await client.result(client.cancel, order_id=order_id)

    asyncio.run(main())
