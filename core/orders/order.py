"""One order: what was ordered, what became of it, and how sure of it this instance is.

An order's state is folded from the engine's events and never goes back: what is filled, cancelled or rejected stays so
(docs/contract.md#order-state). Decimals are kept as text, which is what goes into bodies and takes less room than
`Decimal`; they are exact all the way.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from core.messages.attributes import attribute_values
from core.messages.events import Fill, OrderEvent
from core.messages.model import EXACT, ZERO, OrderType, Side, TimeInForce, decimal_text

NOTHING: Final = "0"

# Of SHA-256: 128 bits tell a client's orders apart as well as 256 would.
TERMS_DIGEST_BYTES: Final = 16


class Status(StrEnum):
    """What became of an order (docs/contract.md#order-state). The last three are final: the order is closed."""

    PENDING = "pending"
    OPEN = "open"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class Outcome(StrEnum):
    """Whether the order is on the order topic, as far as is known here."""

    AWAITED = "awaited"  # its first attempt is under way: it may still be found to be certainly not written
    UNKNOWN = "unknown"  # it may or may not be there
    ACCEPTED = "accepted"  # acknowledged, read from the topic, or spoken of by the engine


_FILLED, _CANCELLED, _REJECTED = Status.FILLED, Status.CANCELLED, Status.REJECTED
_PENDING, _OPEN, _PARTIALLY_FILLED = Status.PENDING, Status.OPEN, Status.PARTIALLY_FILLED


class Order(msgspec.Struct, eq=False, gc=False):
    """An order; only the order directory changes it. A million of them have to fit: no field without need.

    The garbage collector does not know of it (`gc=False`: it refers to nothing that refers back), because a full
    collection with a million orders would else hold the loop up for 1.5 seconds instead of 0.14.

    `price` (quote per base; None for market), `quantity` and `filled` (base) are decimals in plain notation with the
    digits given. `time_ms` is its last change, `created_ms` its command's own time; milliseconds since the Unix epoch.
    `time_in_force` and `client_order_id` are None too where only the engine's events tell of the order. `reason` is why it
    was rejected, or, while that is told, why an amend of it was. `attributes`: see `core.messages.attributes`. `connection`: the
    name of the one that it is cancelled with.
    """

    order_id: str
    user_id: str | None
    client_order_id: str | None
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce | None
    price: str | None
    quantity: str
    terms_digest: bytes | None
    created_ms: int
    time_ms: int
    outcome: Outcome
    in_flight: bool = False  # produced by this instance, and not answered yet
    is_on_topic: bool = False  # read from the order topic
    status: Status = Status.PENDING
    filled: str = NOTHING
    reason: str | None = None
    is_amended: bool = False  # `price` and `quantity` are not those of its record
    ended_ms: int | None = None  # when it was heard that it had come to its end: from then on it is kept
    attributes: str = ""
    connection: str = ""

    @property
    def is_closed(self) -> bool:
        """Whether it has come to its end: filled, cancelled or rejected."""
        status = self.status
        return status is _FILLED or status is _CANCELLED or status is _REJECTED

    @property
    def is_certain(self) -> bool:
        """Whether it is certainly on the order topic, so that a repeat has nothing to produce."""
        return self.outcome is Outcome.ACCEPTED

    def has_terms(self, terms_hash: str) -> bool:
        """Whether it was ordered with these terms (`PlaceOrder.terms_hash`); False where its own are not known."""
        return self.terms_digest is not None and self.terms_digest == terms_digest(terms_hash)


def terms_digest(terms_hash: str) -> bytes:
    """A hexadecimal `terms_hash` as it is kept."""
    return bytes.fromhex(terms_hash)[:TERMS_DIGEST_BYTES]


def state(order: Order) -> dict[str, str | float | None]:
    """The order state (docs/contract.md#order-state): decimals as text, `time` in seconds, `reason` if rejected,
    `amend_rejected` while that is told, and its attributes under their names.
    """
    time_in_force = order.time_in_force
    shown: dict[str, str | float | None] = {
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side.value,
        "order_type": order.order_type.value,
        "time_in_force": None if time_in_force is None else time_in_force.value,
        "price": order.price,
        "quantity": order.quantity,
        "filled_quantity": order.filled,
        "status": order.status.value,
    }
    if order.reason is not None:
        shown["reason" if order.status is _REJECTED else "amend_rejected"] = order.reason
    if order.attributes:
        shown.update(attribute_values(order.attributes))
    shown["time"] = order.time_ms / 1000
    return shown


def fold(order: Order, event: OrderEvent | Fill, time_ms: int) -> bool:
    """Take in what an event says of this order; whether its state changed.

    `time_ms` is the record's Kafka time, for an event without a timestamp. A closed order never changes again.
    """
    if order.is_closed:
        return False
    kind = event.type
    if isinstance(event, Fill):
        if not event.quantity:
            return False
        filled = EXACT.add(Decimal(order.filled), event.quantity)
        if filled < Decimal(order.quantity):
            order.filled = decimal_text(filled)
            order.status = _PARTIALLY_FILLED
        else:
            order.filled = order.quantity
            order.status = _FILLED
    elif kind == "order_accepted":
        if order.status is not _PENDING:  # a fill may be read first
            return False
        order.status = _OPEN
    elif kind == "order_filled":
        order.filled = order.quantity
        order.status = _FILLED
    elif kind == "order_cancelled":
        filled = ZERO if event.filled_quantity is None else event.filled_quantity
        order.filled = decimal_text(filled) if filled < Decimal(order.quantity) else order.quantity
        order.status = _CANCELLED
    elif kind == "order_amended":
        _amend(order, event)
    elif kind == "order_amend_rejected":
        return False
    else:
        order.reason = event.reason
        order.status = _REJECTED
    order.time_ms = time_ms if event.timestamp_ms is None else event.timestamp_ms
    return True


def _amend(order: Order, event: OrderEvent) -> None:
    assert event.price is not None and event.quantity is not None
    if event.quantity <= Decimal(order.filled):
        order.status = _CANCELLED
        return
    order.price, order.quantity = decimal_text(event.price), decimal_text(event.quantity)
    order.is_amended = True
    if order.status is _PENDING:
        order.status = _OPEN
