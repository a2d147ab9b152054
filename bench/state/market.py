"""The market of these benches: 500 symbols, each with a book of a thousand levels a side, and orders on them."""

from __future__ import annotations

import json
from decimal import Decimal
from uuid import UUID

from core.messages.commands import PlaceOrder
from core.messages.model import OrderType, Side, TimeInForce
from core.messages.order_ids import order_id_for

LEVELS = 1_000
USERS = 1_000
NAMESPACE = UUID("0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11")


def symbols(count: int) -> list[str]:
    """So many names, of one length."""
    return [f"S{number:03d}/EUR" for number in range(count)]


def snapshot(symbol: str) -> bytes:
    """The whole book of a symbol: a thousand levels a side around 1,000."""
    bids = [
        {"price": f"{1000 - level / 100:.2f}", "quantity": f"{level % 50 + 1}.250"} for level in range(1, LEVELS + 1)
    ]
    asks = [
        {"price": f"{1000 + level / 100:.2f}", "quantity": f"{level % 50 + 1}.250"} for level in range(1, LEVELS + 1)
    ]
    event = {"type": "orderbook_snapshot", "symbol": symbol, "sequence": 0, "bids": bids, "asks": asks}
    return json.dumps(event, separators=(",", ":")).encode()


def command(number: int, symbol: str, now_ms: int) -> bytes:
    """The record of order `number` of a thousand users, with a client_order_id as programs make them."""
    user_id = f"user-{number % USERS:08d}-of-the-bench"
    name = str(UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))
    placed = PlaceOrder(
        symbol,
        Side.BID if number % 2 else Side.ASK,
        OrderType.LIMIT,
        Decimal(100_000 + number % 5_000) / 100,
        Decimal(1 + number % 997) / 1000,
        TimeInForce.GTC,
        name,
    )
    return placed.encode(order_id_for(NAMESPACE, user_id, name), user_id, now_ms)
