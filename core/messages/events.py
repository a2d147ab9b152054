"""Market events: the bytes of one Kafka record in, one frozen object out (docs/contract.md#market-events).

What the engine sends is checked as far as its type needs, and no further: unknown fields are ignored, and an optional
field (`taker_side`, `user_id`, the `symbol` of an order event, ...) that cannot be read counts as absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Final, cast

import msgspec

from core.errors import PoisonedRecord
from core.messages.model import ENGINE_DIGITS, ZERO, OrderType, Side, decimal_text, is_symbol, read_decimal
from core.messages.order_ids import read_order_id
from core.messages.strict_json import MAX_INTEGER, MIN_INTEGER, is_encodable, read_json, scan, shown, trimmed
from core.messages.strict_json import REASONS as JSON_REASONS

# Reasons of `PoisonedRecord`: a closed set, because each becomes a metric label.
NOT_AN_OBJECT: Final = "not_an_object"
NO_TYPE: Final = "no_type"
BAD_FIELD: Final = "bad_field"  # missing, or not what the event's type needs
REASONS: Final = (*JSON_REASONS, NOT_AN_OBJECT, NO_TYPE, BAD_FIELD)

Level = tuple[Decimal, Decimal]
Delta = tuple[str, Side, Decimal, Decimal]


class _Event(msgspec.Struct, frozen=True, gc=False):  # made in a twentieth of what a frozen dataclass takes
    """`payload` is what may be shown: the record's own bytes, or, of a public event, those without `user_id` and fees."""

    type: str
    payload: bytes
    user_id: str | None


class Fill(_Event, frozen=True, gc=False):
    """Two orders traded. Price in quote per base, quantity in base; `taker_side` is the aggressor's, where known.

    `buy_fee` and `sell_fee`, in `fee_currency`, are what either side paid, for its order's owner alone; negative: was given.
    """

    symbol: str
    buy_order_id: str
    sell_order_id: str
    price: Decimal
    quantity: Decimal
    timestamp_ms: int
    taker_side: Side | None = None
    buy_fee: Decimal | None = None
    sell_fee: Decimal | None = None
    fee_currency: str | None = None


class BookSnapshot(_Event, frozen=True, gc=False):
    """Replaces the book. Levels are (price, quantity), in the engine's order, none of them empty."""

    symbol: str
    sequence: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    timestamp_ms: int | None = None


class BookDelta(_Event, frozen=True, gc=False):
    """Changes to levels, in order: (action, side, price, the level's new quantity); 0 removes, as `remove` does."""

    symbol: str
    sequence: int
    deltas: tuple[Delta, ...]
    timestamp_ms: int | None = None


class OrderEvent(_Event, frozen=True, gc=False):
    """What became of an order: `order_accepted`, `order_filled`, `order_cancelled` or `order_rejected`; or of an amend of it:
    `order_amended` (its new price and total) or `order_amend_rejected`.

    Private to the order's owner. Fields that the event's type does not have are None.
    """

    order_id: str
    symbol: str | None = None
    timestamp_ms: int | None = None
    side: Side | None = None
    order_type: OrderType | None = None
    price: Decimal | None = None
    quantity: Decimal | None = None
    filled_quantity: Decimal | None = None
    reason: str | None = None


class UnknownEvent(msgspec.Struct, frozen=True, gc=False):
    """An event of a type that is not in the contract: to be counted. It has no payload, so nobody can be shown it."""

    type: str


Event = Fill | BookSnapshot | BookDelta | OrderEvent | UnknownEvent
_Record = dict[str, object]

# Never None: it matches the empty string too.
_whitespace = cast("Callable[[str, int], re.Match[str]]", re.compile(r"[ \t\n\r]*").match)
_SIDES = {side.value: side for side in Side}
_ORDER_TYPES = {order_type.value: order_type for order_type in OrderType}


def read_event(value: bytes | None) -> Event:
    """The event in the value of one record of the market topic.

    `payload` is the very `value` given, unless the event is public and has a top-level `user_id`, or is a fill and has fees: then
    these members, and nothing else, are cut out. Raises PoisonedRecord with one of `REASONS`; its `symbol` is set when the record is
    a snapshot or delta that cannot be applied, for the book is then no longer the engine's.
    """
    record = read_json(value)
    assert value is not None  # that would have been refused as empty
    if type(record) is not dict:
        raise PoisonedRecord(NOT_AN_OBJECT, f"expected an object, got {shown(record)}")
    kind = record.get("type")
    if type(kind) is not str:
        raise PoisonedRecord(NO_TYPE, f"type: expected a string, got {shown(kind)}")
    read_public = _PUBLIC.get(kind)
    if read_public is not None:
        private = _PRIVATE_OF_FILLS if kind == "fill" else _PRIVATE
        if private.isdisjoint(record):
            return read_public(record, value, None)
        return read_public(record, _without(private, trimmed(value)), _user_id(record))
    if kind in _ORDER_EVENTS:
        return _read_order_event(kind, record, value)
    return UnknownEvent(kind)


def _read_fill(record: _Record, payload: bytes, user_id: str | None) -> Fill:
    symbol = _symbol(record)
    timestamp = _timestamp(record)
    if timestamp is None:
        raise _bad("timestamp", "integer milliseconds", record.get("timestamp"))
    return Fill(
        "fill",
        payload,
        user_id,
        symbol,
        _order_id(record, "buy_order_id"),
        _order_id(record, "sell_order_id"),
        _price(record),
        _quantity(record),
        timestamp,
        _SIDES.get(side) if type(side := record.get("taker_side")) is str else None,
        *(() if _FEES.isdisjoint(record) else _fees(record)),
    )


def _fees(record: _Record) -> tuple[Decimal | None, Decimal | None, str | None]:
    return _fee(record, "buy_fee"), _fee(record, "sell_fee"), _currency(record.get("fee_currency"))


def with_fees(fill: Fill) -> bytes:
    """A fill's payload with what its owners are told besides: read again it is the same fill."""
    told = {
        "buy_fee": None if fill.buy_fee is None else decimal_text(fill.buy_fee),
        "sell_fee": None if fill.sell_fee is None else decimal_text(fill.sell_fee),
        "fee_currency": fill.fee_currency,
    }
    members = [f'"{name}":{json.dumps(value)}' for name, value in told.items() if value is not None]
    if not members:
        return fill.payload
    return b",".join([fill.payload.rstrip()[:-1], *(member.encode() for member in members)]) + b"}"


def _fee(record: _Record, field: str) -> Decimal | None:
    value = record.get(field)
    if value is None:
        return None
    try:
        return read_decimal(value, ENGINE_DIGITS)
    except ValueError:
        return None


def _currency(value: object) -> str | None:
    is_one = type(value) is str and 0 < len(value) <= _MAX_CURRENCY_CHARACTERS and is_encodable(value)
    return cast(str, value) if is_one else None


def _read_snapshot(record: _Record, payload: bytes, user_id: str | None) -> BookSnapshot:
    symbol = _symbol(record)
    try:
        sequence, bids, asks = _sequence(record), _levels(record, "bids"), _levels(record, "asks")
    except PoisonedRecord as error:
        raise PoisonedRecord(error.reason, error.detail, symbol) from error.__cause__
    return BookSnapshot("orderbook_snapshot", payload, user_id, symbol, sequence, bids, asks, _timestamp(record))


def _read_delta(record: _Record, payload: bytes, user_id: str | None) -> BookDelta:
    symbol = _symbol(record)
    try:
        sequence, deltas = _sequence(record), _deltas(record)
    except PoisonedRecord as error:
        raise PoisonedRecord(error.reason, error.detail, symbol) from error.__cause__
    return BookDelta("orderbook_delta", payload, user_id, symbol, sequence, deltas, _timestamp(record))


def _read_order_event(kind: str, record: _Record, payload: bytes) -> OrderEvent:
    order_id = _order_id(record, "order_id")
    symbol = record.get("symbol")
    known_symbol = symbol if is_symbol(symbol) else None
    common = (kind, payload, _user_id(record), order_id, known_symbol, _timestamp(record))
    if kind == "order_accepted":
        side = _side(record)
        order_type = _ORDER_TYPES.get(name) if type(name := record.get("order_type")) is str else None
        if order_type is None:
            raise _bad("order_type", '"limit" or "market"', record.get("order_type"))
        # A limit order without a price would rest nowhere; a market order's price is null or left out.
        price = _price(record) if order_type is OrderType.LIMIT or record.get("price") is not None else None
        return OrderEvent(*common, side=side, order_type=order_type, price=price, quantity=_quantity(record))
    if kind == "order_cancelled":
        return OrderEvent(*common, filled_quantity=_quantity(record, "filled_quantity"))
    if kind == "order_amended":
        return OrderEvent(*common, price=_price(record), quantity=_quantity(record))
    if kind in ("order_rejected", "order_amend_rejected"):
        reason = record.get("reason")
        if type(reason) is not str:
            raise _bad("reason", "a string", reason)
        # The reason goes on into order states; a lone surrogate could not be encoded there.
        return OrderEvent(*common, reason=reason.encode("utf-8", "replace").decode("utf-8"))
    return OrderEvent(*common)


_PUBLIC: Final[dict[str, Callable[[_Record, bytes, str | None], Event]]] = {
    "fill": _read_fill,
    "orderbook_snapshot": _read_snapshot,
    "orderbook_delta": _read_delta,
}
# What of a public event is nobody's business but its owner's, at the top level.
_PRIVATE: Final = frozenset({"user_id"})
_FEES: Final = frozenset({"buy_fee", "sell_fee", "fee_currency"})
_PRIVATE_OF_FILLS: Final = _PRIVATE | _FEES
_MAX_CURRENCY_CHARACTERS: Final = 32
AMEND_ANSWERS: Final = frozenset({"order_amended", "order_amend_rejected"})
_ORDER_EVENTS: Final = AMEND_ANSWERS | {"order_accepted", "order_filled", "order_cancelled", "order_rejected"}


def _levels(record: _Record, side: str) -> tuple[Level, ...]:
    rows = record.get(side)
    if type(rows) is not list:
        raise _bad(side, "an array of levels", rows)
    levels = []
    for row in rows:
        if type(row) is not dict:
            raise _bad(side, "an array of {price, quantity}", row)
        price, quantity = _price(row), _quantity(row)
        if quantity:
            levels.append((price, quantity))
    return tuple(levels)


def _deltas(record: _Record) -> tuple[Delta, ...]:
    rows = record.get("deltas")
    if type(rows) is not list:
        raise _bad("deltas", "an array of changes", rows)
    deltas = []
    for row in rows:
        if type(row) is not dict:
            raise _bad("deltas", "an array of {action, side, price, quantity}", row)
        action = row.get("action")
        if action == "remove":
            deltas.append((action, _side(row), _price(row), ZERO))
        elif action == "add" or action == "update":
            deltas.append((action, _side(row), _price(row), _quantity(row)))
        else:
            raise _bad("action", '"add", "update" or "remove"', action)
    return tuple(deltas)


def _symbol(record: _Record) -> str:
    symbol = record.get("symbol")
    if is_symbol(symbol):
        return symbol
    raise _bad("symbol", "BASE/QUOTE", symbol)


def _sequence(record: _Record) -> int:
    sequence = record.get("sequence")
    if type(sequence) is int and MIN_INTEGER <= sequence <= MAX_INTEGER:
        return sequence
    raise _bad("sequence", "an integer of at most 64 bits", sequence)


def _side(record: _Record) -> Side:
    name = record.get("side")
    side = _SIDES.get(name) if type(name) is str else None
    if side is None:
        raise _bad("side", '"bid" or "ask"', name)
    return side


def _price(record: _Record) -> Decimal:
    value = record.get("price")
    return _known_price(value) if type(value) is str and len(value) <= ENGINE_DIGITS else _read_price(value)


def _read_price(value: object) -> Decimal:
    try:
        price = read_decimal(value, ENGINE_DIGITS)
    except ValueError as error:
        raise _bad("price", str(error), value) from error
    if price <= ZERO:
        raise _bad("price", "a price above 0", value)
    return price


# Prices come again and again, and to look one up takes a fifth of reading it: 0.15 microseconds.
_known_price = lru_cache(maxsize=8192)(_read_price)


def _quantity(record: _Record, field: str = "quantity") -> Decimal:
    value = record.get(field)
    try:
        quantity = read_decimal(value, ENGINE_DIGITS)
    except ValueError as error:
        raise _bad(field, str(error), value) from error
    if quantity < ZERO:
        raise _bad(field, "a quantity of 0 or more", value)
    return quantity


def _order_id(record: _Record, field: str) -> str:
    order_id = read_order_id(record.get(field))
    if order_id is None:
        raise _bad(field, "an order id (a string or an integer)", record.get(field))
    return order_id


def _user_id(record: _Record) -> str | None:
    value = record.get("user_id")
    return value if type(value) is str and value and is_encodable(value) else None


def _timestamp(record: _Record) -> int | None:
    value = record.get("timestamp")
    return value if type(value) is int and 0 <= value <= MAX_INTEGER else None


def _without(members: frozenset[str], text: str) -> bytes:
    """The object in `text`, which has been read before, without its top-level members of these names.

    Members are cut out of the text rather than written anew, so that digits, escapes and order stay as they came
    (only white space around them is lost). It cannot fail or nest deeper than the reading before it did.
    """
    kept = []
    position = 1
    while True:
        start = _whitespace(text, position).end()
        name, position = scan(text, start)
        colon = _whitespace(text, position).end()
        _, position = scan(text, _whitespace(text, colon + 1).end())
        if name not in members:
            kept.append(text[start:position])
        position = _whitespace(text, position).end() + 1
        if text[position - 1] != ",":
            return ("{" + ",".join(kept) + "}").encode("utf-8")


def _bad(field: str, expected: str, value: object) -> PoisonedRecord:
    wanted = expected if expected.startswith("expected ") else f"expected {expected}"
    return PoisonedRecord(BAD_FIELD, f"{field}: {wanted}, got {shown(value)}")
