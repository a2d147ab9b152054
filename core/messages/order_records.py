"""The order topic read back: the bytes of one record in, what it says of an order out (docs/contract.md#order-commands).

Every gateway instance reads what all instances produced. The reading is that of `core.messages.strict_json`: a record that is not
RFC 8259 JSON, or lacks what its type needs, is poisoned. `user_id` is never guessed: with one that cannot be read
the whole record is refused, for an order without an owner would be anybody's. Other optional fields (`client_order_id`,
`terms_hash`, `time_in_force`, `timestamp`, `connection`, declared attributes) that cannot be read count as absent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from core.errors import PoisonedRecord
from core.messages.attributes import Attribute, attributes_of_record
from core.messages.commands import PlaceOrder
from core.messages.events import BAD_FIELD, NO_TYPE, NOT_AN_OBJECT
from core.messages.events import REASONS as EVENT_REASONS
from core.messages.model import ZERO, OrderType, Side, TimeInForce, decimal_text, is_symbol, read_decimal
from core.messages.order_ids import read_order_id
from core.messages.strict_json import MAX_INTEGER, is_encodable, read_json, shown

UNKNOWN_TYPE: Final = "unknown_type"
REASONS: Final = (*EVENT_REASONS, UNKNOWN_TYPE)

_Record = dict[str, object]

_SIDES = {side.value: side for side in Side}
_ORDER_TYPES = {order_type.value: order_type for order_type in OrderType}
_TIMES_IN_FORCE = {time_in_force.value: time_in_force for time_in_force in TimeInForce}

# The body rule has 64 of a smaller alphabet (docs/contract.md#order-body); another producer's may be read, but not grow.
_MAX_CLIENT_ORDER_ID_CHARACTERS = 128

is_connection = re.compile(r"[0-9A-Za-z-]{1,64}").fullmatch
_is_terms_hash = re.compile(r"[0-9a-f]{64}").fullmatch


class PlacedRecord(NamedTuple):
    """A `place_order` command: decimals as text with the digits that it has."""

    order_id: str
    user_id: str | None
    client_order_id: str | None
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce | None
    price: str | None
    quantity: str
    terms_hash: str | None
    timestamp_ms: int | None
    attributes: str = ""
    connection: str = ""


class AmendRecord(NamedTuple):
    """An `amend_order` command; None stays as it is."""

    order_id: str
    user_id: str | None
    symbol: str
    price: Decimal | None
    quantity: Decimal | None


def read_order_record(value: bytes | None, attributes: Sequence[Attribute] = ()) -> PlacedRecord | AmendRecord | None:
    """What one record of the order topic places or amends; None for a cancel, which by itself changes nothing.

    `attributes` are those that are declared: what else a record has is nobody's here.

    Raises PoisonedRecord with one of `REASONS`.
    """
    record = read_json(value)
    if type(record) is not dict:
        raise PoisonedRecord(NOT_AN_OBJECT, f"expected an object, got {shown(record)}")
    kind = record.get("type")
    if kind == "place_order":
        return _placed(record, attributes)
    if kind == "cancel_order":
        return None
    if kind == "amend_order":
        return _amended(record)
    if type(kind) is not str:
        raise PoisonedRecord(NO_TYPE, f"type: expected a string, got {shown(kind)}")
    raise PoisonedRecord(UNKNOWN_TYPE, f"type: {shown(kind)}")


def _placed(record: _Record, declared: Sequence[Attribute]) -> PlacedRecord:
    get = record.get
    symbol = _symbol(record)
    side = _SIDES.get(name) if type(name := get("side")) is str else None
    if side is None:
        raise _bad("side", '"bid" or "ask"', get("side"))
    order_type = _ORDER_TYPES.get(name) if type(name := get("order_type")) is str else None
    if order_type is None:
        raise _bad("order_type", '"limit" or "market"', get("order_type"))
    user_id = _user_id(record)
    price = None
    if order_type is OrderType.LIMIT or get("price") is not None:
        price = _above_zero(record, "price")
    time_in_force = _TIMES_IN_FORCE.get(name) if type(name := get("time_in_force")) is str else None
    quantity = _above_zero(record, "quantity")
    attributes, attribute_terms = attributes_of_record(record, declared) if declared else ("", "")
    client_order_id = get("client_order_id")
    terms_hash: str | None = None
    if (
        type(client_order_id) is not str
        or not 0 < len(client_order_id) <= _MAX_CLIENT_ORDER_ID_CHARACTERS
        or not is_encodable(client_order_id)
    ):
        client_order_id = None
    else:
        given = get("terms_hash")
        if type(given) is str and _is_terms_hash(given):
            terms_hash = given
        elif time_in_force is not None:
            terms_hash = _terms_hash(symbol, side, order_type, time_in_force, price, quantity, attribute_terms)
    timestamp = get("timestamp")
    if type(timestamp) is not int or not 0 <= timestamp <= MAX_INTEGER:
        timestamp = None
    connection = get("connection", "")
    if type(connection) is not str or not is_connection(connection):
        connection = ""
    return PlacedRecord(
        _order_id(record),
        user_id,
        client_order_id,
        symbol,
        side,
        order_type,
        time_in_force,
        price,
        quantity,
        terms_hash,
        timestamp,
        attributes,
        connection,
    )


def _amended(record: _Record) -> AmendRecord:
    price, quantity = (
        None if record.get(field) is None else Decimal(_above_zero(record, field)) for field in ("price", "quantity")
    )
    return AmendRecord(_order_id(record), _user_id(record), _symbol(record), price, quantity)


def _symbol(record: _Record) -> str:
    symbol = record.get("symbol")
    if not is_symbol(symbol):
        raise _bad("symbol", "BASE/QUOTE", symbol)
    return symbol


def _user_id(record: _Record) -> str | None:
    user_id = record.get("user_id")
    if user_id is not None and (type(user_id) is not str or not user_id):
        raise _bad("user_id", "a string or null", user_id)
    return user_id


def _order_id(record: _Record) -> str:
    order_id = read_order_id(record.get("order_id"))
    if order_id is None:
        raise _bad("order_id", "an order id (a string or an integer)", record.get("order_id"))
    return order_id


def _above_zero(record: _Record, field: str) -> str:
    value = record.get(field)
    try:
        number = read_decimal(value)
    except ValueError as error:
        raise PoisonedRecord(BAD_FIELD, f"{field}: {error}, got {shown(value)}") from error
    if number <= ZERO:
        raise _bad(field, "a number above 0", value)
    # What the gateways write is plain notation already.
    if type(value) is str and "e" not in value and "E" not in value:
        return value
    return decimal_text(number)


def _terms_hash(
    symbol: str,
    side: Side,
    order_type: OrderType,
    time_in_force: TimeInForce,
    price: str | None,
    quantity: str,
    attribute_terms: str,
) -> str:
    """For the record of a producer that left it out: without, no repeat of the order could be told from a new one."""
    decimal_price = None if price is None else Decimal(price)
    return PlaceOrder(
        symbol, side, order_type, decimal_price, Decimal(quantity), time_in_force, attribute_terms=attribute_terms
    ).terms_hash


def _bad(field: str, expected: str, value: object) -> PoisonedRecord:
    return PoisonedRecord(BAD_FIELD, f"{field}: expected {expected}, got {shown(value)}")
