"""The commands that go to the engine, and their bytes (docs/contract.md#order-commands).

They carry decimals as strings with the digits that the client gave. What a body has to be to become one, `order_rules` says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Generic, TypeVar

import msgspec

from core.messages.model import EXACT, OrderType, Side, TimeInForce, decimal_text
from core.messages.order_ids import json_user_id, order_id_json

# ASCII only: a user id that holds a lone surrogate then still makes a valid record.
_encode = json.JSONEncoder(separators=(",", ":")).encode

T = TypeVar("T")


class _Once(Generic[T]):
    """What is made when it is first asked for. As `functools.cached_property`, which has a lock before Python 3.12."""

    def __init__(self, make: Callable[[PlaceOrder], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, order: PlaceOrder, _owner: type) -> T:
        made = order.__dict__[self._name] = self._make(order)
        return made


class PlaceOrder(msgspec.Struct, frozen=True, dict=True):
    """A checked order: price in quote per base (None for market), quantity in base, digits as the client gave them.

    An order by `quote_amount` (in quote) has no quantity until the account service has reserved one.
    `max_slippage_price` is for that service alone. Both are None where there is none. `deadline_ms` is until when it is wanted,
    Unix time; `validate_only`: it is only to be checked. Neither is one of its terms. `attributes` and `attribute_terms` are what
    `core.messages.attributes.read_attributes` gives. `connection`: the name of the one that it is cancelled with; no term either.
    """

    symbol: str
    side: Side
    order_type: OrderType
    price: Decimal | None
    quantity: Decimal | None
    time_in_force: TimeInForce
    client_order_id: str | None = None
    quote_amount: Decimal | None = None
    max_slippage_price: Decimal | None = None
    deadline_ms: int | None = None
    validate_only: bool = False
    attributes: str = ""
    attribute_terms: str = ""
    connection: str = ""

    @_Once
    def terms_hash(self) -> str:
        """SHA-256 (hex) of what was ordered, the same for `1.0` and `1.00`: by it a retry is told from a new order."""
        # `_value_`, here and in `encode`: `value` goes through a descriptor in Python, six times an order.
        terms = (
            f'["{self.symbol}","{self.side._value_}","{self.order_type._value_}",{_term(self.price)},'
            f'{_term(self.quantity)},"{self.time_in_force._value_}"'
        )
        # Only where they are given: the hashes on the topic were made before there were such terms.
        if self.quote_amount is not None or self.max_slippage_price is not None:
            terms += f",{_term(self.quote_amount)},{_term(self.max_slippage_price)}"
        if self.attribute_terms:
            terms += f",{self.attribute_terms}"
        return hashlib.sha256(f"{terms}]".encode("ascii")).hexdigest()

    def encode(self, order_id: str, user_id: str | None, timestamp_ms: int, quantity: Decimal | None = None) -> bytes:
        """The `place_order` command. `terms_hash` is null without a client_order_id: such an order has no retries.

        `quantity` is the one that was reserved, if any; an order by amount cannot do without (ValueError).
        """
        quantity = self.quantity if quantity is None else quantity
        if quantity is None:
            raise ValueError("an order by amount is published with the quantity that was reserved for it")
        price = "null" if self.price is None else f'"{decimal_text(self.price)}"'
        client_order_id = terms_hash = "null"
        if self.client_order_id is not None:
            client_order_id, terms_hash = f'"{self.client_order_id}"', f'"{self.terms_hash}"'
        # Only the ids of orders and users need an encoder: all else is of closed alphabets that JSON takes as they are.
        return (
            f'{{"type":"place_order","order_id":{order_id_json(order_id)},"symbol":"{self.symbol}","side":"{self.side._value_}",'
            f'"order_type":"{self.order_type._value_}","price":{price},"quantity":"{decimal_text(quantity)}",'
            f'"user_id":{json_user_id(user_id)},"client_order_id":{client_order_id},"terms_hash":{terms_hash},'
            f'"time_in_force":"{self.time_in_force._value_}","timestamp":{timestamp_ms}{_deadline(self.deadline_ms)}'
            f"{_connection(self.connection)}{',' + self.attributes[1:] if self.attributes else '}'}"
        ).encode("ascii")


class CancelOrder(msgspec.Struct, frozen=True):
    """A checked cancel: exactly one of the two ids."""

    order_id: str | None
    client_order_id: str | None
    symbol: str | None = None

    def encode(self, order_id: str, symbol: str, user_id: str | None, timestamp_ms: int) -> bytes:
        """The `cancel_order` command."""
        return (
            f'{{"type":"cancel_order","order_id":{order_id_json(order_id)},"symbol":"{symbol}",'
            f'"user_id":{json_user_id(user_id)},"timestamp":{timestamp_ms}}}'
        ).encode("ascii")


class AmendOrder(msgspec.Struct, frozen=True):
    """A checked amend: which order, as a cancel names it, and the new price or the new total, or both.

    Price in quote per base, quantity in base, what is filled included; None stays as it is. `deadline_ms` and `validate_only` as
    of `PlaceOrder`.
    """

    order: CancelOrder
    price: Decimal | None
    quantity: Decimal | None
    deadline_ms: int | None = None
    validate_only: bool = False

    def encode(self, order_id: str, symbol: str, user_id: str | None, timestamp_ms: int) -> bytes:
        """The `amend_order` command."""
        return (
            f'{{"type":"amend_order","order_id":{order_id_json(order_id)},"symbol":"{symbol}",'
            f'"user_id":{json_user_id(user_id)},"price":{_text(self.price)},"quantity":{_text(self.quantity)},'
            f'"timestamp":{timestamp_ms}{_deadline(self.deadline_ms)}}}'
        ).encode("ascii")


def _deadline(deadline_ms: int | None) -> str:
    return "" if deadline_ms is None else f',"deadline_ms":{deadline_ms}'


def _connection(name: str) -> str:
    return f',"connection":"{name}"' if name else ""


def _text(value: Decimal | None) -> str:
    return "null" if value is None else f'"{decimal_text(value)}"'


def _term(value: Decimal | None) -> str:
    return "null" if value is None else f'"{decimal_text(value.normalize(EXACT))}"'
