"""Market events as the objects whose JSON goes on the topic: prices and quantities are strings, times milliseconds.

Order events carry `user_id` where the command had one; public events never do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from exchange.book import Book, LevelChange, Order
from exchange.commands import OrderId, PlaceOrder, Side
from exchange.decimals import decimal_text

Event = dict[str, Any]

PUBLIC_EVENTS: Final = frozenset({"fill", "orderbook_snapshot", "orderbook_delta"})


def encode(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode("ascii")


def fill(taker: Order, maker: Order, quantity: Decimal, timestamp_ms: int) -> Event:
    buyer, seller = (taker, maker) if taker.side is Side.BID else (maker, taker)
    return {
        "type": "fill",
        "symbol": taker.symbol,
        "buy_order_id": buyer.order_id,
        "sell_order_id": seller.order_id,
        "price": decimal_text(maker.price),
        "quantity": decimal_text(quantity),
        "taker_side": taker.side.value,
        "timestamp": timestamp_ms,
    }


def orderbook_snapshot(book: Book, sequence: int, timestamp_ms: int) -> Event:
    return {
        "type": "orderbook_snapshot",
        "symbol": book.symbol,
        "sequence": sequence,
        "bids": _levels(book, Side.BID),
        "asks": _levels(book, Side.ASK),
        "timestamp": timestamp_ms,
    }


def orderbook_delta(symbol: str, sequence: int, changes: Sequence[LevelChange], timestamp_ms: int) -> Event:
    return {
        "type": "orderbook_delta",
        "symbol": symbol,
        "sequence": sequence,
        "deltas": [
            {
                "action": change.action,
                "side": change.side.value,
                "price": decimal_text(change.price),
                "quantity": decimal_text(change.quantity),
            }
            for change in changes
        ],
        "timestamp": timestamp_ms,
    }


def order_accepted(command: PlaceOrder, timestamp_ms: int) -> Event:
    event = {
        "type": "order_accepted",
        "order_id": command.order_id,
        "symbol": command.symbol,
        "side": command.side.value,
        "order_type": command.order_type.value,
        "price": decimal_text(command.price) if command.price is not None else None,
        "quantity": decimal_text(command.quantity),
    }
    return _owned(event, command.user_id, timestamp_ms)


def order_filled(order: Order, timestamp_ms: int) -> Event:
    event = {"type": "order_filled", "order_id": order.order_id, "symbol": order.symbol}
    return _owned(event, order.user_id, timestamp_ms)


def order_cancelled(order: Order, timestamp_ms: int) -> Event:
    event = {
        "type": "order_cancelled",
        "order_id": order.order_id,
        "symbol": order.symbol,
        "filled_quantity": decimal_text(order.filled),
    }
    return _owned(event, order.user_id, timestamp_ms)


def order_amended(order: Order, timestamp_ms: int) -> Event:
    event = {
        "type": "order_amended",
        "order_id": order.order_id,
        "symbol": order.symbol,
        "price": decimal_text(order.price),
        "quantity": decimal_text(order.quantity),
    }
    return _owned(event, order.user_id, timestamp_ms)


def order_amend_rejected(order: Order, reason: str, timestamp_ms: int) -> Event:
    event = {"type": "order_amend_rejected", "order_id": order.order_id, "symbol": order.symbol, "reason": reason}
    return _owned(event, order.user_id, timestamp_ms)


def order_rejected(order_id: OrderId, symbol: str | None, user_id: str | None, reason: str, timestamp_ms: int) -> Event:
    """Without `symbol` where the command had none that could be one."""
    event: Event = {"type": "order_rejected", "order_id": order_id, "reason": reason}
    if symbol is not None:
        event["symbol"] = symbol
    return _owned(event, user_id, timestamp_ms)


def _levels(book: Book, side: Side) -> list[dict[str, str]]:
    return [{"price": decimal_text(level.price), "quantity": decimal_text(level.total)} for level in book.levels(side)]


def _owned(event: Event, user_id: str | None, timestamp_ms: int) -> Event:
    if user_id is not None:
        event["user_id"] = user_id
    event["timestamp"] = timestamp_ms
    return event
