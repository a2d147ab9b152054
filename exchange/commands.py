"""Order commands: a record's bytes to a checked, immutable command.

A command that cannot be carried out is one of two things. `Refused`: somebody waits for an answer under a known
order id, so the engine answers `order_rejected`. `Malformed`: there is nobody to answer; it is logged and skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Final, NoReturn, TypeGuard, TypeVar

from exchange.decimals import read_decimal

OrderId = str | int

_SYMBOL: Final = re.compile(r"[A-Za-z0-9_-]{1,32}/[A-Za-z0-9_-]{1,32}")
_MAX_ORDER_ID_CHARACTERS: Final = 128
_MAX_USER_ID_CHARACTERS: Final = 4096
_MIN_INTEGER_ID: Final = -(2**63)
_MAX_INTEGER_ID: Final = 2**64 - 1
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,19}")


class Side(Enum):
    BID = "bid"
    ASK = "ask"

    @property
    def opposite(self) -> Side:
        return Side.ASK if self is Side.BID else Side.BID


class OrderType(Enum):
    LIMIT = "limit"
    MARKET = "market"


class TimeInForce(Enum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class SelfTrade(Enum):
    """What is cancelled in place of a trade of a user's order with another of the same user's: the one that comes, the resting
    one, or both."""

    CANCEL_NEWEST = "cancel_newest"
    CANCEL_OLDEST = "cancel_oldest"
    CANCEL_BOTH = "cancel_both"


@dataclass(frozen=True, slots=True)
class Instrument:
    """What one symbol's prices and quantities must be multiples of, and the least quantity."""

    symbol: str
    tick: Decimal
    lot: Decimal
    min_quantity: Decimal


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """`price` is None for a market order and only then. Price and quantity are positive."""

    order_id: OrderId
    symbol: str
    side: Side
    order_type: OrderType
    price: Decimal | None
    quantity: Decimal
    time_in_force: TimeInForce
    user_id: str | None = None
    # Until when it is wanted, milliseconds since the Unix epoch.
    deadline_ms: int | None = None
    # It is not to trade when it comes.
    post_only: bool = False
    stp: SelfTrade | None = None


@dataclass(frozen=True, slots=True)
class CancelOrder:
    order_id: OrderId
    symbol: str
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class AmendOrder:
    """What is None stays as it is, one of the two does not; `quantity` is the new total, what is filled included."""

    order_id: OrderId
    symbol: str
    price: Decimal | None
    quantity: Decimal | None
    user_id: str | None = None
    deadline_ms: int | None = None


class Malformed(Exception):
    """A record that is no command and cannot be answered."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Refused(Exception):
    """A `place_order` with a readable order id that cannot be carried out; `symbol` only if it is a well-formed one."""

    def __init__(self, order_id: OrderId, symbol: str | None, user_id: str | None, reason: str) -> None:
        self.order_id = order_id
        self.symbol = symbol
        self.user_id = user_id
        self.reason = reason
        super().__init__(f"{order_id}: {reason}")


def is_symbol(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _SYMBOL.fullmatch(value) is not None


def read_record(value: bytes | None) -> object:
    """The JSON of a record's value, its numbers exact. Raises Malformed."""
    if not value:
        raise Malformed("empty record")
    try:
        return json.loads(value.decode("utf-8"), parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, InvalidOperation, RecursionError) as error:
        raise Malformed(f"not JSON ({type(error).__name__})") from error


def read_command(body: object) -> PlaceOrder | CancelOrder | AmendOrder:
    """Check one command's fields; which symbols and steps are traded is the engine's to know.

    Raises Refused or Malformed (see above).
    """
    if not isinstance(body, Mapping):
        raise Malformed("not an object")
    kind = body.get("type")
    if kind not in ("place_order", "cancel_order", "amend_order"):
        raise Malformed("unknown type of command")
    order_id = _order_id(body.get("order_id"))
    user_id = body.get("user_id")
    user_is_valid = user_id is None or (isinstance(user_id, str) and 0 < len(user_id) <= _MAX_USER_ID_CHARACTERS)
    symbol = body.get("symbol")
    if kind != "place_order":
        if not user_is_valid or not is_symbol(symbol):
            raise Malformed(f"{kind} without a valid symbol or user_id")
        return (
            CancelOrder(order_id, symbol, user_id)
            if kind == "cancel_order"
            else _amend(body, order_id, symbol, user_id)
        )
    if not user_is_valid:
        raise Refused(order_id, symbol if is_symbol(symbol) else None, None, "user_id: must be a string or null")
    if not is_symbol(symbol):
        raise Refused(order_id, None, user_id, "symbol: must be BASE/QUOTE")
    try:
        return _place(body, order_id, symbol, user_id)
    except ValueError as error:
        raise Refused(order_id, symbol, user_id, str(error)) from error


def _place(body: Mapping[str, object], order_id: OrderId, symbol: str, user_id: str | None) -> PlaceOrder:
    side = _field(body, "side", _one_of(Side))
    order_type = _field(body, "order_type", _one_of(OrderType))
    quantity = _field(body, "quantity", _positive)
    if order_type is OrderType.MARKET:
        if body.get("price") is not None:
            raise ValueError("price: must be null for a market order")
        price, default = None, TimeInForce.IOC
    else:
        price, default = _field(body, "price", _positive), TimeInForce.GTC
    time_in_force = default
    if body.get("time_in_force") is not None:
        time_in_force = _field(body, "time_in_force", _one_of(TimeInForce))
    deadline_ms = _field(body, "deadline_ms", _milliseconds)
    post_only = body.get("post_only") is not None and _field(body, "post_only", _flag)
    if post_only and (order_type is OrderType.MARKET or time_in_force is not TimeInForce.GTC):
        raise ValueError("post_only: is for orders that rest, so for limit orders that are GTC")
    stp = None if body.get("stp") is None else _field(body, "stp", _one_of(SelfTrade))
    return PlaceOrder(
        order_id, symbol, side, order_type, price, quantity, time_in_force, user_id, deadline_ms, post_only, stp
    )


def _amend(body: Mapping[str, object], order_id: OrderId, symbol: str, user_id: str | None) -> AmendOrder:
    # Nobody knows yet whose order it is, so there is nobody to answer.
    try:
        price, quantity = (
            None if body.get(name) is None else _field(body, name, _positive) for name in ("price", "quantity")
        )
        deadline_ms = _field(body, "deadline_ms", _milliseconds)
    except ValueError as error:
        raise Malformed(f"amend_order: {error}") from error
    if price is None and quantity is None:
        raise Malformed("amend_order without a price or a quantity")
    return AmendOrder(order_id, symbol, price, quantity, user_id, deadline_ms)


def _order_id(value: object) -> OrderId:
    """One id has one spelling: a UUID is in lower case, and an integer that came as text is an integer."""
    if isinstance(value, str) and _INTEGER.fullmatch(value) and _MIN_INTEGER_ID <= int(value) <= _MAX_INTEGER_ID:
        return int(value)
    if isinstance(value, str) and 0 < len(value) <= _MAX_ORDER_ID_CHARACTERS:
        return value.lower() if _UUID.fullmatch(value) else value
    if isinstance(value, int) and not isinstance(value, bool) and _MIN_INTEGER_ID <= value <= _MAX_INTEGER_ID:
        return value
    raise Malformed("no order_id")


_Value = TypeVar("_Value")
_Choice = TypeVar("_Choice", bound=Enum)


def _field(body: Mapping[str, object], name: str, read: Callable[[object], _Value]) -> _Value:
    try:
        return read(body.get(name))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _one_of(kind: type[_Choice]) -> Callable[[object], _Choice]:
    def read(value: object) -> _Choice:
        for member in kind:
            if member.value == value:
                return member
        raise ValueError("must be one of " + ", ".join(str(member.value) for member in kind))

    return read


def _positive(value: object) -> Decimal:
    number = read_decimal(value)
    if number <= 0:
        raise ValueError("must be greater than zero")
    return number


def _milliseconds(value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise ValueError("must be integer milliseconds")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
