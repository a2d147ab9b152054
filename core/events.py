"""Market events: the bytes of one Kafka record in, one frozen object out (contract, section 1).

Read with the standard library's scanner and not with ujson: ujson needs 0.9 microseconds for a 223-byte fill where
`raw_decode` needs 1.2, but it takes NaN, 1e999 and `[01]` and turns a price into a double, and the check of the text
that would be needed to refuse those costs more than the 0.3 saved. The scanner is strict as it is, and
`parse_float=Decimal` keeps every digit.

What the engine sends is checked as far as its type needs, and no further: unknown fields are ignored, and an optional
field (`taker_side`, `user_id`, the `symbol` of an order event, ...) that cannot be read counts as absent. Repeated
keys are legal in RFC 8259 (section 4: names SHOULD be unique), and the last one counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NoReturn

from core.errors import PoisonedRecord
from core.model import ENGINE_DIGITS, ZERO, OrderType, Side, is_symbol, read_decimal

# Reasons of `PoisonedRecord`: a closed set, because each becomes a metric label.
EMPTY: Final = "empty"  # no value (a tombstone), or no bytes
NOT_UTF8: Final = "not_utf8"
NOT_JSON: Final = "not_json"
TOO_DEEP: Final = "too_deep"
BAD_NUMBER: Final = "bad_number"  # JSON by its grammar, but longer than any number the scanner can hold
NOT_AN_OBJECT: Final = "not_an_object"
NO_TYPE: Final = "no_type"
BAD_FIELD: Final = "bad_field"  # missing, or not what the event's type needs
REASONS: Final = (EMPTY, NOT_UTF8, NOT_JSON, TOO_DEEP, BAD_NUMBER, NOT_AN_OBJECT, NO_TYPE, BAD_FIELD)

MAX_ORDER_ID_CHARACTERS: Final = 128

Level = tuple[Decimal, Decimal]
Delta = tuple[str, Side, Decimal, Decimal]


@dataclass(frozen=True, slots=True)
class _Event:
    """`payload` is what may be shown: the record's own bytes, or, of a public event, those without `user_id`."""

    type: str
    payload: bytes
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Fill(_Event):
    """Two orders traded. Price in quote per base, quantity in base; `taker_side` is the aggressor's, where known."""

    symbol: str
    buy_order_id: str | int
    sell_order_id: str | int
    price: Decimal
    quantity: Decimal
    timestamp_ms: int
    taker_side: Side | None = None


@dataclass(frozen=True, slots=True)
class BookSnapshot(_Event):
    """Replaces the book. Levels are (price, quantity), in the engine's order, none of them empty."""

    symbol: str
    sequence: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class BookDelta(_Event):
    """Changes to levels, in order: (action, side, price, the level's new quantity); 0 removes, as `remove` does."""

    symbol: str
    sequence: int
    deltas: tuple[Delta, ...]
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class OrderEvent(_Event):
    """What became of an order: `order_accepted`, `order_filled`, `order_cancelled` or `order_rejected`.

    Private to the order's owner. Fields that the event's type does not have are None.
    """

    order_id: str | int
    symbol: str | None = None
    timestamp_ms: int | None = None
    side: Side | None = None
    order_type: OrderType | None = None
    price: Decimal | None = None
    quantity: Decimal | None = None
    filled_quantity: Decimal | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of a type that is not in the contract: to be counted. It has no payload, so nobody can be shown it."""

    type: str


Event = Fill | BookSnapshot | BookDelta | OrderEvent | UnknownEvent
_Record = dict[str, object]

_WHITESPACE = " \t\n\r"
_whitespace = re.compile(r"[ \t\n\r]*").match
_SIDES = {side.value: side for side in Side}
_ORDER_TYPES = {order_type.value: order_type for order_type in OrderType}

# Sequences, ids and times go on into encoders and floats that do not take integers of any length.
_MIN_INTEGER = -(2**63)
_MAX_INTEGER = 2**64 - 1


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


_scan = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant).raw_decode


def read_event(value: bytes | None) -> Event:
    """The event in the value of one record of the market topic.

    `payload` is the very `value` given, unless the event is public and has a top-level `user_id`: then that member,
    and nothing else, is cut out. Raises PoisonedRecord with one of `REASONS`; its `symbol` is set when the record is
    a snapshot or delta that cannot be applied, for the book is then no longer the engine's.
    """
    if not value:
        raise PoisonedRecord(EMPTY, "the record has no value")
    try:
        # Not json.loads(bytes): that guesses UTF-16 and UTF-32 and lets a BOM through.
        text = value.decode("utf-8").strip(_WHITESPACE)
        record, end = _scan(text)
    except UnicodeDecodeError as error:
        raise PoisonedRecord(NOT_UTF8, str(error)) from error
    except json.JSONDecodeError as error:
        raise PoisonedRecord(NOT_JSON, str(error)) from error
    except RecursionError as error:
        raise PoisonedRecord(TOO_DEEP, "nested deeper than the interpreter's stack") from error
    except (ValueError, ArithmeticError, MemoryError) as error:  # 4,300 digits; an exponent of 19; a giant Decimal
        raise PoisonedRecord(BAD_NUMBER, str(error)) from error
    if end != len(text):
        raise PoisonedRecord(NOT_JSON, f"something follows the value at character {end}")
    if type(record) is not dict:
        raise PoisonedRecord(NOT_AN_OBJECT, f"expected an object, got {_shown(record)}")
    kind = record.get("type")
    if type(kind) is not str:
        raise PoisonedRecord(NO_TYPE, f"type: expected a string, got {_shown(kind)}")
    read_public = _PUBLIC.get(kind)
    if read_public is not None:
        if "user_id" in record:
            return read_public(record, _without_user_id(text), _user_id(record))
        return read_public(record, value, None)
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
    )


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
    if kind == "order_rejected":
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
_ORDER_EVENTS: Final = frozenset({"order_accepted", "order_filled", "order_cancelled", "order_rejected"})


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
    if type(sequence) is int and _MIN_INTEGER <= sequence <= _MAX_INTEGER:
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
    try:
        price = read_decimal(value, ENGINE_DIGITS)
    except ValueError as error:
        raise _bad("price", str(error), value) from error
    if price <= ZERO:
        raise _bad("price", "a price above 0", value)
    return price


def _quantity(record: _Record, field: str = "quantity") -> Decimal:
    value = record.get(field)
    try:
        quantity = read_decimal(value, ENGINE_DIGITS)
    except ValueError as error:
        raise _bad(field, str(error), value) from error
    if quantity < ZERO:
        raise _bad(field, "a quantity of 0 or more", value)
    return quantity


def _order_id(record: _Record, field: str) -> str | int:
    """UUID strings, or older engines' integers; any other text that can be encoded is taken as it is."""
    value = record.get(field)
    if type(value) is int and _MIN_INTEGER <= value <= _MAX_INTEGER:
        return value
    if type(value) is str and 0 < len(value) <= MAX_ORDER_ID_CHARACTERS and _is_encodable(value):
        return value
    raise _bad(field, "an order id (a string or an integer)", value)


def _user_id(record: _Record) -> str | None:
    value = record.get("user_id")
    return value if type(value) is str and value and _is_encodable(value) else None


def _timestamp(record: _Record) -> int | None:
    value = record.get("timestamp")
    return value if type(value) is int and 0 <= value <= _MAX_INTEGER else None


def _is_encodable(text: str) -> bool:
    """False for text with a lone surrogate: legal as a JSON escape, impossible in UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _without_user_id(text: str) -> bytes:
    """The object in `text`, which has been read before, without its top-level members named `user_id`.

    Members are cut out of the text rather than written anew, so that digits, escapes and order stay as they came
    (only white space around them is lost). It cannot fail or nest deeper than the reading before it did.
    """
    kept = []
    position = 1
    while True:
        start = _whitespace(text, position).end()  # type: ignore[union-attr]  # it matches the empty string too
        name, position = _scan(text, start)
        colon = _whitespace(text, position).end()  # type: ignore[union-attr]
        _, position = _scan(text, _whitespace(text, colon + 1).end())  # type: ignore[union-attr]
        if name != "user_id":
            kept.append(text[start:position])
        position = _whitespace(text, position).end() + 1  # type: ignore[union-attr]
        if text[position - 1] != ",":
            return ("{" + ",".join(kept) + "}").encode("utf-8")


def _bad(field: str, expected: str, value: object) -> PoisonedRecord:
    wanted = expected if expected.startswith("expected ") else f"expected {expected}"
    return PoisonedRecord(BAD_FIELD, f"{field}: {wanted}, got {_shown(value)}")


def _shown(value: object) -> str:
    """A short, ASCII description of any value that JSON can hold, cheap for the largest."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return ascii(value[:40])
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    return str(value)[:40]
