"""An order as whoever speaks of it first tells it: this instance, a record of the order topic, or the engine."""

from __future__ import annotations

import sys
from decimal import Decimal

from core.messages.commands import PlaceOrder
from core.messages.events import OrderEvent
from core.messages.model import decimal_text
from core.messages.order_records import PlacedRecord
from core.orders.order import Order, Outcome, terms_digest


def registered(order_id: str, user_id: str | None, placed: PlaceOrder, time_ms: int, quantity: Decimal) -> Order:
    """One that this instance is about to publish."""
    return Order(
        order_id,
        shared(user_id),
        placed.client_order_id,
        sys.intern(placed.symbol),
        placed.side,
        placed.order_type,
        placed.time_in_force,
        None if placed.price is None else decimal_text(placed.price),
        decimal_text(quantity),
        None if placed.client_order_id is None else terms_digest(placed.terms_hash),
        time_ms,
        time_ms,
        Outcome.AWAITED,
        in_flight=True,
        attributes=sys.intern(placed.attributes),
        connection=sys.intern(placed.connection),
    )


def of_record(record: PlacedRecord, time_ms: int) -> Order:
    """One that was read from the order topic; `time_ms` is Kafka's time of the record."""
    created_ms = time_ms if record.timestamp_ms is None else record.timestamp_ms
    return Order(
        record.order_id,
        shared(record.user_id),
        record.client_order_id,
        sys.intern(record.symbol),
        record.side,
        record.order_type,
        record.time_in_force,
        record.price,
        record.quantity,
        None if record.terms_hash is None else terms_digest(record.terms_hash),
        created_ms,
        created_ms,
        Outcome.ACCEPTED,
        is_on_topic=True,
        attributes=sys.intern(record.attributes),
        connection=sys.intern(record.connection),
    )


def of_event(order_id: str, event: OrderEvent, time_ms: int) -> Order:
    """One of which only the engine tells: all but its time in force and client_order_id. `event` is an `order_accepted` with a
    user and a symbol; `time_ms` is Kafka's time of its record.
    """
    assert event.symbol is not None and event.side is not None and event.order_type is not None
    assert event.quantity is not None
    created_ms = time_ms if event.timestamp_ms is None else event.timestamp_ms
    return Order(
        order_id,
        shared(event.user_id),
        None,
        sys.intern(event.symbol),
        event.side,
        event.order_type,
        None,
        None if event.price is None else decimal_text(event.price),
        decimal_text(event.quantity),
        None,
        created_ms,
        created_ms,
        Outcome.ACCEPTED,
    )


def shared(user_id: str | None) -> str | None:
    """One copy of a user id for all orders that have it."""
    return None if user_id is None else sys.intern(user_id)
