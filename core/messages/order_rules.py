"""What a client's order or cancel has to be, checked field by field (docs/contract.md#order-body): a body in, a command out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal, TypeVar

import msgspec

from core.errors import FieldError, InvalidFields
from core.messages.attributes import Attribute, read_attributes
from core.messages.commands import AmendOrder, CancelOrder, PlaceOrder
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
from core.messages.order_ids import MAX_ORDER_ID_CHARACTERS, read_order_id
from core.messages.strict_json import MAX_INTEGER

MOST_TIMER_SECONDS: Final = 3600

# How it is to be done, beside what.
_MANNER_FIELDS: Final = ("deadline_ms", "validate_only")
_PLACE_FIELDS: Final = frozenset({
    "symbol", "side", "order_type", "price", "quantity", "client_order_id", "time_in_force", *_MANNER_FIELDS,
})  # fmt: skip
_CANCEL_FIELDS: Final = frozenset({"order_id", "client_order_id", "symbol"})
_AMENDED_FIELDS: Final = ("price", "quantity")
_AMEND_FIELDS: Final = _CANCEL_FIELDS.union(_AMENDED_FIELDS, _MANNER_FIELDS)

_Choice = TypeVar("_Choice", Side, OrderType, TimeInForce)
_SIDES: Final = {side.value: side for side in Side}
_ORDER_TYPES: Final = {order_type.value: order_type for order_type in OrderType}
_TIMES_IN_FORCE: Final = {time_in_force.value: time_in_force for time_in_force in TimeInForce}

# Orders by amount or with a protection price need balances and quotes that another service holds.
_ACCOUNT_FIELDS: Final = ("quote_amount", "max_slippage_price")
_PLACE_FIELDS_WITH_ACCOUNTS: Final = _PLACE_FIELDS.union(_ACCOUNT_FIELDS)

# An answer is not to grow with what a client made up: so many unknown fields are named, with so much of each name.
_MAX_NAMED = 16
_MAX_NAME = 64

_is_client_order_id = re.compile(r"[A-Za-z0-9._:-]{1,64}").fullmatch


@dataclass(frozen=True, slots=True)
class OrderRules:
    """What orders are checked against: the configured instruments (none: any symbol goes) and the default symbol.

    `accounts`: an account service reserves what orders need, so they may also be given by amount. `amends`: the engine amends
    orders, where there is no such service. `attributes`: what else an order may carry.
    """

    instruments: tuple[Instrument, ...] = ()
    default_symbol: str | None = None
    accounts: bool = False
    amends: bool = False
    attributes: tuple[Attribute, ...] = ()
    by_symbol: dict[str, Instrument] = field(init=False, repr=False, compare=False)
    place_fields: Set[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_symbol", {instrument.symbol: instrument for instrument in self.instruments})
        known = _PLACE_FIELDS_WITH_ACCOUNTS if self.accounts else _PLACE_FIELDS
        object.__setattr__(self, "place_fields", known.union(attribute.name for attribute in self.attributes))
        if self.default_symbol is None and len(self.instruments) == 1:
            object.__setattr__(self, "default_symbol", self.instruments[0].symbol)

    def why_no_amends(self) -> str | None:
        """Why orders cannot be amended here; None where they can be."""
        if not self.amends:
            return "orders cannot be amended here: cancel it and place another one"
        if self.accounts:
            # It has no word for a reservation that becomes another one, and an order without funds is worse than none.
            return (
                "orders cannot be amended here, because the account service cannot reserve for an order anew: "
                "cancel it and place another one"
            )
        return None


def check_place(body: object, rules: OrderRules) -> PlaceOrder:
    """The order in `body` (docs/contract.md#order-body). Raises InvalidFields with every rule that is broken.

    A null counts as left out: `symbol` then takes the default, `time_in_force` GTC or, for market, IOC. With an
    account service a market order takes either `quantity` or `quote_amount`.
    """
    order = _plain_order(body, rules)
    if order is not None:
        return order
    members = check_object(body)
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
    deadline_ms, validate_only = check_manner(members, errors)
    attributes = terms = ""
    if rules.attributes:
        attributes, terms = read_attributes(members, rules.attributes, errors)
    check_unknown(members, rules.place_fields, errors)
    if errors or symbol is None or side is None or order_type is None or time_in_force is None:
        raise InvalidFields(errors)
    return PlaceOrder(
        symbol,
        side,
        order_type,
        price,
        quantity,
        time_in_force,
        client_order_id,
        quote_amount,
        max_slippage_price,
        deadline_ms,
        validate_only,
        attributes,
        terms,
    )


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """What nearly all orders are: limit orders with no more than their terms, as text, and a name."""

    symbol: str
    side: Side
    order_type: Literal["limit"]
    price: str
    quantity: str
    client_order_id: str | None = None
    time_in_force: TimeInForce = TimeInForce.GTC


def _plain_order(body: object, rules: OrderRules) -> PlaceOrder | None:
    """The same at a third of the cost, if it is of that form and nothing is wrong with it."""
    if rules.attributes:
        return None
    try:
        given = msgspec.convert(body, _Plain)
        price, quantity = read_decimal(given.price), read_decimal(given.quantity)
    except (msgspec.ValidationError, ValueError):
        return None
    symbol, name = given.symbol, given.client_order_id
    instrument = rules.by_symbol.get(symbol)
    if instrument is None:
        if rules.instruments or not is_symbol(symbol):
            return None
    else:
        errors: list[FieldError] = []
        _check_instrument(instrument, price, quantity, errors)
        if errors:
            return None
    if price <= ZERO or quantity <= ZERO or not (name is None or _is_client_order_id(name)):
        return None
    return PlaceOrder(symbol, given.side, OrderType.LIMIT, price, quantity, given.time_in_force, name)


def check_cancel(body: object, rules: OrderRules) -> CancelOrder:
    """The cancel in `body`. Raises InvalidFields with every rule that is broken.

    `symbol` stays None when it is left out: which book the order is in is for the order directory to say.
    """
    members = check_object(body)
    errors: list[FieldError] = []
    cancel = _check_named(members, rules, _CANCEL_FIELDS, errors)
    if errors:
        raise InvalidFields(errors)
    return cancel


def check_amend(body: object, rules: OrderRules) -> AmendOrder:
    """The amend in `body` (docs/contract.md#amends). Raises InvalidFields with every rule that is broken.

    What the order's instrument allows is for `check_amended_terms`, once the order is found.
    """
    members = check_object(body)
    errors: list[FieldError] = []
    price, quantity = (
        None if members.get(name) is None else _check_above_zero(members, name, errors) for name in _AMENDED_FIELDS
    )
    if all(members.get(name) is None for name in _AMENDED_FIELDS):
        errors.append(FieldError("price", "required, unless quantity is given"))
    deadline_ms, validate_only = check_manner(members, errors)
    order = _check_named(members, rules, _AMEND_FIELDS, errors)
    if errors:
        raise InvalidFields(errors)
    return AmendOrder(order, price, quantity, deadline_ms, validate_only)


def check_amended_terms(amend: AmendOrder, symbol: str, order_type: OrderType | None, rules: OrderRules) -> None:
    """What is asked for of an order of this symbol and type (None: not known). Raises InvalidFields."""
    errors: list[FieldError] = []
    if order_type is OrderType.MARKET and amend.price is not None:
        errors.append(FieldError("price", "a market order has no price; leave it out"))
    elif symbol in rules.by_symbol:
        _check_instrument(rules.by_symbol[symbol], amend.price, amend.quantity, errors)
    if errors:
        raise InvalidFields(errors)


def _check_named(
    members: dict[str, object], rules: OrderRules, known: Set[str], errors: list[FieldError]
) -> CancelOrder:
    """Which order a body is about, and that it has no fields but the `known` ones."""
    order_id = _check_order_id(members, errors)
    client_order_id = _check_client_order_id(members, errors)
    given = [name for name in ("order_id", "client_order_id") if members.get(name) is not None]
    if not given:
        errors.append(FieldError("order_id", "required, unless client_order_id is given"))
    elif len(given) == 2:
        errors.append(FieldError("order_id", "give either order_id or client_order_id, not both"))
    symbol = _check_symbol(members, rules, None, errors)
    check_unknown(members, known, errors)
    return CancelOrder(order_id, client_order_id, symbol)


def check_cancel_all(body: object, rules: OrderRules) -> str | None:
    """The symbol whose orders are to be cancelled, None for all. Raises InvalidFields."""
    members = check_object(body)
    errors: list[FieldError] = []
    symbol = _check_symbol(members, rules, None, errors)
    check_unknown(members, {"symbol"}, errors)
    if errors:
        raise InvalidFields(errors)
    return symbol


def check_cancel_all_after(body: object, _rules: OrderRules) -> int:
    """In how many seconds; 0: not at all. Raises InvalidFields."""
    members = check_object(body)
    errors: list[FieldError] = []
    seconds = members.get("timeout_seconds")
    if type(seconds) is not int or not 0 <= seconds <= MOST_TIMER_SECONDS:
        expected = f"expected a whole number from 1 to {MOST_TIMER_SECONDS}, or 0 to disarm"
        errors.append(FieldError("timeout_seconds", expected))
    check_unknown(members, {"timeout_seconds"}, errors)
    if errors:
        raise InvalidFields(errors)
    assert type(seconds) is int
    return seconds


def check_object(body: object) -> dict[str, object]:
    """The members of a body. Raises InvalidFields if it is no object."""
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
        errors.append(
            FieldError("order_id", f"expected text of 1 to {MAX_ORDER_ID_CHARACTERS} characters, or an integer")
        )
    return order_id


def check_manner(members: Mapping[str, object], errors: list[FieldError]) -> tuple[int | None, bool]:
    """Until when a request is wanted (Unix time in milliseconds, however near), and whether it is only to be checked."""
    deadline_ms, validate_only = members.get("deadline_ms"), members.get("validate_only")
    if deadline_ms is None and validate_only is None:
        return None, False
    if deadline_ms is not None and (type(deadline_ms) is not int or not 0 <= deadline_ms <= MAX_INTEGER):
        errors.append(FieldError("deadline_ms", "expected integer milliseconds since the Unix epoch"))
        deadline_ms = None
    if validate_only is not None and type(validate_only) is not bool:
        errors.append(FieldError("validate_only", "expected true or false"))
        validate_only = None
    return deadline_ms, bool(validate_only)


def check_unknown(members: Mapping[str, object], known: Set[str], errors: list[FieldError]) -> None:
    """Whether a body has no fields but the `known` ones: each other one is an error."""
    if members.keys() <= known:
        return
    unknown = [name for name in members if name not in known]
    for name in unknown[:_MAX_NAMED]:
        if name in _ACCOUNT_FIELDS:
            errors.append(FieldError(name, "not supported: it needs an account service"))
        else:
            errors.append(FieldError(name[:_MAX_NAME], "unknown field"))
    if len(unknown) > _MAX_NAMED:
        errors.append(FieldError("body", f"{len(unknown) - _MAX_NAMED} more unknown fields"))
