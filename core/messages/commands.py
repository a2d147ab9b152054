"""Order commands: a client's body, checked field by field (docs/contract.md#order-body), and the bytes that go to the engine
(docs/contract.md#order-commands).

Bodies are read with `parse_float=Decimal`, so no price passes through a double; the commands carry decimals as
strings with the digits that the client gave.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Final, NoReturn, TypeVar

from core.errors import FieldError, InvalidFields, NotJson
from core.messages.model import (
    EXACT,
    ZERO,
    Instrument,
    OrderType,
    Side,
    TimeInForce,
    decimal_text,
    is_symbol,
    read_decimal,
)

_PLACE_FIELDS: Final = ("symbol", "side", "order_type", "price", "quantity", "client_order_id", "time_in_force")
_CANCEL_FIELDS: Final = ("order_id", "client_order_id", "symbol")

_Choice = TypeVar("_Choice", Side, OrderType, TimeInForce)
_SIDES: Final = {side.value: side for side in Side}
_ORDER_TYPES: Final = {order_type.value: order_type for order_type in OrderType}
_TIMES_IN_FORCE: Final = {time_in_force.value: time_in_force for time_in_force in TimeInForce}

# Orders by amount or with a protection price need balances and quotes that another service holds.
_ACCOUNT_FIELDS: Final = ("quote_amount", "max_slippage_price")
_PLACE_FIELDS_WITH_ACCOUNTS: Final = (*_PLACE_FIELDS, *_ACCOUNT_FIELDS)

# An answer is not to grow with what a client made up: so many unknown fields are named, with so much of each name.
_MAX_NAMED = 16
_MAX_NAME = 64

_is_client_order_id = re.compile(r"[A-Za-z0-9._:-]{1,64}").fullmatch
_is_uuid = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_is_integer_id = re.compile(r"0|[1-9][0-9]{0,19}").fullmatch
# One escape at a time, so that a pair of surrogates is taken whole and only a lone one is a group.
_escapes = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u([dD][89a-fA-F])..|.)").finditer

# ASCII only: a user id that holds a lone surrogate then still makes a valid record.
_encode = json.JSONEncoder(separators=(",", ":")).encode


@lru_cache(maxsize=4096)
def json_user_id(user_id: str | None) -> str:
    """A user id as JSON. The same users order again and again, and encoding costs ten times a look-up."""
    return _encode(user_id)


def _refuse_constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise NotJson(f"the key {twice[:_MAX_NAME]!a} is given twice")
    return members


_decode = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_unique).decode


def read_json(body: bytes) -> object:
    """The value of a client's body or message; numbers with a point or exponent become exact Decimals.

    Raises NotJson for what RFC 8259 does not allow (NaN, `01`, broken UTF-8, a byte order mark), and for what it
    allows but no two programs agree on: repeated keys, lone surrogates, numbers and nesting beyond any use.
    """
    try:
        text = body.decode("utf-8")
        value: object = _decode(text)
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise NotJson("nested too deeply") from error
    except (ValueError, ArithmeticError, MemoryError) as error:
        raise NotJson("a number is too long") from error
    if "\\u" in text and any(escape[1] for escape in _escapes(text)):
        raise NotJson("a string holds half of a surrogate pair")
    return value


@dataclass(frozen=True, slots=True)
class OrderRules:
    """What orders are checked against: the configured instruments (none: any symbol goes) and the default symbol.

    `accounts`: an account service reserves what orders need, so they may also be given by amount.
    """

    instruments: tuple[Instrument, ...] = ()
    default_symbol: str | None = None
    accounts: bool = False
    by_symbol: dict[str, Instrument] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_symbol", {instrument.symbol: instrument for instrument in self.instruments})
        if self.default_symbol is None and len(self.instruments) == 1:
            object.__setattr__(self, "default_symbol", self.instruments[0].symbol)


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """A checked order: price in quote per base (None for market), quantity in base, digits as the client gave them.

    An order by `quote_amount` (in quote) has no quantity until the account service has reserved one.
    `max_slippage_price` is for that service alone. Both are None where there is none.
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
    _terms_hash: str | None = field(default=None, init=False, repr=False, compare=False)

    def terms_hash(self) -> str:
        """SHA-256 (hex) of what was ordered, the same for `1.0` and `1.00`: by it a retry is told from a new order."""
        if self._terms_hash is None:
            object.__setattr__(self, "_terms_hash", self._hash_terms())
        assert self._terms_hash is not None
        return self._terms_hash

    def _hash_terms(self) -> str:
        # `_value_`, here and in `encode`: `value` goes through a descriptor in Python, six times an order.
        terms = (
            f'["{self.symbol}","{self.side._value_}","{self.order_type._value_}",{_term(self.price)},'
            f'{_term(self.quantity)},"{self.time_in_force._value_}"'
        )
        # Only where they are given: the hashes on the topic were made before there were such terms.
        if self.quote_amount is not None or self.max_slippage_price is not None:
            terms += f",{_term(self.quote_amount)},{_term(self.max_slippage_price)}"
        return hashlib.sha256(f"{terms}]".encode("ascii")).hexdigest()

    def encode(self, order_id: str, user_id: str | None, timestamp_ms: int, quantity: Decimal | None = None) -> bytes:
        """The `place_order` command. `terms_hash` is null without a client_order_id: such an order has no retries.

        `quantity` is the one that was reserved, if any; an order by amount cannot do without (ValueError). An integer
        id goes out as the JSON integer that older engines know, as in `CancelOrder`.
        """
        quantity = self.quantity if quantity is None else quantity
        if quantity is None:
            raise ValueError("an order by amount is published with the quantity that was reserved for it")
        quoted_id = order_id if _is_integer_id(order_id) else f'"{order_id}"'
        price = "null" if self.price is None else f'"{decimal_text(self.price)}"'
        client_order_id = terms_hash = "null"
        if self.client_order_id is not None:
            client_order_id, terms_hash = f'"{self.client_order_id}"', f'"{self.terms_hash()}"'
        # Only the user id needs an encoder: all else is of closed alphabets that JSON takes as they are.
        return (
            f'{{"type":"place_order","order_id":{quoted_id},"symbol":"{self.symbol}","side":"{self.side._value_}",'
            f'"order_type":"{self.order_type._value_}","price":{price},"quantity":"{decimal_text(quantity)}",'
            f'"user_id":{json_user_id(user_id)},"client_order_id":{client_order_id},"terms_hash":{terms_hash},'
            f'"time_in_force":"{self.time_in_force._value_}","timestamp":{timestamp_ms}}}'
        ).encode("ascii")


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """A checked cancel: exactly one of the two ids. `order_id` is a lower-case UUID, or an integer as text."""

    order_id: str | None
    client_order_id: str | None
    symbol: str | None = None

    def encode(self, order_id: str | int, symbol: str, user_id: str | None, timestamp_ms: int) -> bytes:
        """The `cancel_order` command. An integer id, as text too, goes out as the JSON integer older engines know."""
        if isinstance(order_id, str) and _is_integer_id(order_id):
            order_id = int(order_id)
        return _encode(
            {
                "type": "cancel_order",
                "order_id": order_id,
                "symbol": symbol,
                "user_id": user_id,
                "timestamp": timestamp_ms,
            }
        ).encode("ascii")


def check_place(body: object, rules: OrderRules) -> PlaceOrder:
    """The order in `body` (docs/contract.md#order-body). Raises InvalidFields with every rule that is broken.

    A null counts as left out: `symbol` then takes the default, `time_in_force` GTC or, for market, IOC. With an
    account service a market order takes either `quantity` or `quote_amount`.
    """
    members = _object(body)
    errors: list[FieldError] = []
    symbol = _check_symbol(members, rules, rules.default_symbol, errors)
    if symbol is None and members.get("symbol") is None:
        errors.append(FieldError("symbol", "required"))
    side = _check_choice(members, "side", _SIDES, errors)
    order_type = _check_choice(members, "order_type", _ORDER_TYPES, errors)
    price = _check_price(members, order_type, errors)
    quote_amount = max_slippage_price = None
    if rules.accounts:
        quote_amount = _check_for_market(members, "quote_amount", order_type, errors)
        max_slippage_price = _check_for_market(members, "max_slippage_price", order_type, errors)
    quantity = _check_quantity(members, rules, order_type, errors)
    client_order_id = _check_client_order_id(members, errors)
    time_in_force = _check_time_in_force(members, order_type, errors)
    instrument = None if symbol is None else rules.by_symbol.get(symbol)
    if instrument is not None:
        _check_instrument(instrument, price, quantity, errors)
    _check_unknown(members, _PLACE_FIELDS_WITH_ACCOUNTS if rules.accounts else _PLACE_FIELDS, errors)
    if errors or symbol is None or side is None or order_type is None or time_in_force is None:
        raise InvalidFields(errors)
    return PlaceOrder(
        symbol, side, order_type, price, quantity, time_in_force, client_order_id, quote_amount, max_slippage_price
    )


def check_cancel(body: object, rules: OrderRules) -> CancelOrder:
    """The cancel in `body`. Raises InvalidFields with every rule that is broken.

    `symbol` stays None when it is left out: which book the order is in is for the order directory to say.
    """
    members = _object(body)
    errors: list[FieldError] = []
    order_id = _check_order_id(members, errors)
    client_order_id = _check_client_order_id(members, errors)
    given = [name for name in ("order_id", "client_order_id") if members.get(name) is not None]
    if not given:
        errors.append(FieldError("order_id", "required, unless client_order_id is given"))
    elif len(given) == 2:
        errors.append(FieldError("order_id", "give either order_id or client_order_id, not both"))
    symbol = _check_symbol(members, rules, None, errors)
    _check_unknown(members, _CANCEL_FIELDS, errors)
    if errors:
        raise InvalidFields(errors)
    return CancelOrder(order_id, client_order_id, symbol)


def check_cancel_all(body: object, rules: OrderRules) -> str | None:
    """The symbol whose orders are to be cancelled, None for all. Raises InvalidFields."""
    members = _object(body)
    errors: list[FieldError] = []
    symbol = _check_symbol(members, rules, None, errors)
    _check_unknown(members, ("symbol",), errors)
    if errors:
        raise InvalidFields(errors)
    return symbol


def read_order_id(value: object) -> str | None:
    """An order id from JSON in the one spelling used inside: a lower-case UUID, or an integer as text; else None."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        return None
    return text.lower() if _is_uuid(text) else text if _is_integer_id(text) else None


def _object(body: object) -> dict[str, object]:
    if isinstance(body, dict):
        return body
    raise InvalidFields([FieldError("body", "expected a JSON object")])


def _check_symbol(
    members: dict[str, object], rules: OrderRules, default: str | None, errors: list[FieldError]
) -> str | None:
    value = members.get("symbol")
    if value is None:
        return default
    if not is_symbol(value):
        errors.append(FieldError("symbol", "expected BASE/QUOTE, such as KCN/EUR"))
        return None
    if rules.instruments and value not in rules.by_symbol:
        errors.append(FieldError("symbol", "is not traded here"))
        return None
    return value


def _check_choice(
    members: dict[str, object], name: str, choices: dict[str, _Choice], errors: list[FieldError]
) -> _Choice | None:
    value = members.get(name)
    if value is None:
        errors.append(FieldError(name, "required"))
        return None
    choice = choices.get(value) if isinstance(value, str) else None
    if choice is None:
        *others, last = (f'"{text}"' for text in choices)
        errors.append(FieldError(name, f"expected {', '.join(others)} or {last}"))
    return choice


def _check_above_zero(members: dict[str, object], name: str, errors: list[FieldError]) -> Decimal | None:
    value = members.get(name)
    if value is None:
        errors.append(FieldError(name, "required"))
        return None
    try:
        number = read_decimal(value)
    except ValueError as error:
        errors.append(FieldError(name, str(error)))
        return None
    if number <= ZERO:
        errors.append(FieldError(name, "expected a number above 0"))
        return None
    return number


def _check_price(members: dict[str, object], order_type: OrderType | None, errors: list[FieldError]) -> Decimal | None:
    if order_type is OrderType.LIMIT:
        return _check_above_zero(members, "price", errors)
    if members.get("price") is None:
        return None
    if order_type is OrderType.MARKET:
        errors.append(FieldError("price", "a market order has no price; leave it out"))
        return None
    # Of an order whose type is itself wrong, a price may be needed or not; that it is a price can be checked.
    return _check_above_zero(members, "price", errors)


def _check_for_market(
    members: dict[str, object], name: str, order_type: OrderType | None, errors: list[FieldError]
) -> Decimal | None:
    if members.get(name) is None:
        return None
    if order_type is OrderType.LIMIT:
        errors.append(FieldError(name, "is for market orders; leave it out"))
        return None
    return _check_above_zero(members, name, errors)


def _check_quantity(
    members: dict[str, object], rules: OrderRules, order_type: OrderType | None, errors: list[FieldError]
) -> Decimal | None:
    has_amount = rules.accounts and members.get("quote_amount") is not None
    # Of a limit order the amount is refused by itself, and the quantity is needed.
    if has_amount and order_type is not OrderType.LIMIT:
        if members.get("quantity") is not None:
            errors.append(FieldError("quote_amount", "give either quantity or quote_amount, not both"))
        return None
    if rules.accounts and order_type is OrderType.MARKET and members.get("quantity") is None:
        errors.append(FieldError("quantity", "required, unless quote_amount is given"))
        return None
    return _check_above_zero(members, "quantity", errors)


def _check_client_order_id(members: dict[str, object], errors: list[FieldError]) -> str | None:
    value = members.get("client_order_id")
    if value is None:
        return None
    if isinstance(value, str) and _is_client_order_id(value):
        return value
    errors.append(FieldError("client_order_id", "expected 1 to 64 of A-Z, a-z, 0-9, . _ : -"))
    return None


def _check_time_in_force(
    members: dict[str, object], order_type: OrderType | None, errors: list[FieldError]
) -> TimeInForce | None:
    if members.get("time_in_force") is None:
        return TimeInForce.IOC if order_type is OrderType.MARKET else TimeInForce.GTC
    time_in_force = _check_choice(members, "time_in_force", _TIMES_IN_FORCE, errors)
    if time_in_force is TimeInForce.GTC and order_type is OrderType.MARKET:
        errors.append(FieldError("time_in_force", "a market order cannot rest; expected IOC or FOK"))
        return None
    return time_in_force


def _check_instrument(
    instrument: Instrument, price: Decimal | None, quantity: Decimal | None, errors: list[FieldError]
) -> None:
    if price is not None and EXACT.remainder(price, instrument.tick):
        errors.append(FieldError("price", f"expected a multiple of the tick, {decimal_text(instrument.tick)}"))
    if quantity is None:
        return
    if EXACT.remainder(quantity, instrument.lot):
        errors.append(FieldError("quantity", f"expected a multiple of the lot, {decimal_text(instrument.lot)}"))
    if quantity < instrument.min_quantity:
        errors.append(FieldError("quantity", f"expected at least {decimal_text(instrument.min_quantity)}"))


def _check_order_id(members: dict[str, object], errors: list[FieldError]) -> str | None:
    value = members.get("order_id")
    if value is None:
        return None
    order_id = read_order_id(value)
    if order_id is None:
        errors.append(FieldError("order_id", "expected a UUID, or an integer"))
    return order_id


def _check_unknown(members: dict[str, object], known: tuple[str, ...], errors: list[FieldError]) -> None:
    unknown = [name for name in members if name not in known]
    for name in unknown[:_MAX_NAMED]:
        if name in _ACCOUNT_FIELDS:
            errors.append(FieldError(name, "not supported: it needs an account service"))
        else:
            errors.append(FieldError(name[:_MAX_NAME], "unknown field"))
    if len(unknown) > _MAX_NAMED:
        errors.append(FieldError("body", f"{len(unknown) - _MAX_NAMED} more unknown fields"))


def _term(value: Decimal | None) -> str:
    return "null" if value is None else f'"{decimal_text(value.normalize(EXACT))}"'
