"""What else an order may carry for the engine, as the operator declares it by name (docs/contract.md#attributes).

Once checked, an order's attributes are one text, a JSON object in ASCII or nothing: it goes into the command as it is, tells
`true` from `1`, and orders with the same ones share it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from core.errors import FieldError
from core.messages.model import EXACT, decimal_text, read_decimal
from core.messages.strict_json import is_encodable

Value = bool | int | str

MAX_CHARACTERS: Final = 64
# What every reader of JSON keeps exactly.
MAX_WHOLE: Final = 2**53 - 1

is_attribute_name = re.compile(r"[a-z][a-z0-9_]{0,31}").fullmatch

# What bodies, commands, order states and the envelopes of requests call something else.
RESERVED: Final = frozenset({
    "action", "amend_rejected", "client_order_id", "connection", "deadline", "deadline_ms", "duplicate", "filled_quantity", "id",
    "max_slippage_price", "method", "order_id", "order_type", "params", "price", "quantity", "quote_amount", "reason", "side", "status",
    "symbol", "terms_hash", "time", "time_in_force", "timestamp", "type", "user_id", "validate_only",
})  # fmt: skip

_write: Final = json.JSONEncoder(separators=(",", ":")).encode


class Kind(StrEnum):
    """What a value is: of `decimal` it is text, with the digits that it was given with."""

    BOOLEAN = "boolean"
    STRING = "string"
    INTEGER = "integer"
    DECIMAL = "decimal"
    ENUM = "enum"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One that is declared. `values` are those of an enum; `default` is what an order has that does not say, None for nothing."""

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    default: Value | None = None

    def read(self, value: object) -> Value:
        """A value as it came. Raises ValueError, with a message fit for a client."""
        if self.kind is Kind.BOOLEAN:
            if type(value) is bool:
                return value
            raise ValueError("expected true or false")
        if self.kind is Kind.INTEGER:
            if type(value) is int and -MAX_WHOLE <= value <= MAX_WHOLE:
                return value
            raise ValueError(f"expected an integer from -{MAX_WHOLE} to {MAX_WHOLE}")
        if self.kind is Kind.DECIMAL:
            return decimal_text(read_decimal(value))
        if self.kind is Kind.ENUM:
            if type(value) is str and value in self.values:
                return value
            raise ValueError(f"expected {' or '.join(_write(one) for one in self.values)}")
        if type(value) is str and 0 < len(value) <= MAX_CHARACTERS and is_encodable(value):
            return value
        raise ValueError(f"expected text of 1 to {MAX_CHARACTERS} characters")

    def term(self, value: Value) -> Value:
        """The value in its one spelling: `1.0` and `1.00` are the same."""
        return decimal_text(Decimal(value).normalize(EXACT)) if self.kind is Kind.DECIMAL else value

    def declaration(self) -> dict[str, Any]:
        """As it is declared, and told to clients."""
        told: dict[str, Any] = {"type": self.kind.value}
        if self.values:
            told["values"] = list(self.values)
        return told if self.default is None else {**told, "default": self.default}

    def schema(self) -> dict[str, Any]:
        """What a client may send, in JSON Schema; null counts as left out."""
        told: dict[str, Any] = dict(_SCHEMAS[self.kind])
        if self.values:
            told["enum"] = [*self.values, None]
        return told if self.default is None else {**told, "default": self.default}

    def state_schema(self) -> dict[str, Any]:
        """What the order state says of it, in JSON Schema."""
        if self.values:
            return {"enum": list(self.values)}
        return {"type": "string" if self.kind is Kind.DECIMAL else self.kind.value}


_SCHEMAS: Final[Mapping[Kind, Mapping[str, Any]]] = {
    Kind.BOOLEAN: {"type": ["boolean", "null"]},
    Kind.STRING: {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_CHARACTERS},
    Kind.INTEGER: {"type": ["integer", "null"], "minimum": -MAX_WHOLE, "maximum": MAX_WHOLE},
    Kind.DECIMAL: {"type": ["string", "number", "null"]},
    Kind.ENUM: {},
}


def read_attributes(
    members: Mapping[str, object], declared: Iterable[Attribute], errors: list[FieldError]
) -> tuple[str, str]:
    """The attributes in a body, and those of them that are not as they are by default, in one spelling, for the order's terms.

    A default is no term: an order that was placed before the attribute was declared is the same as its repeat afterwards.
    """
    values: dict[str, Value] = {}
    terms: dict[str, Value] = {}
    for attribute in declared:
        given = members.get(attribute.name)
        try:
            value = attribute.default if given is None else attribute.read(given)
        except ValueError as error:
            errors.append(FieldError(attribute.name, str(error)))
            continue
        if value is not None:
            values[attribute.name] = value
            if attribute.default is None or attribute.term(value) != attribute.term(attribute.default):
                terms[attribute.name] = attribute.term(value)
    return written(values), written(dict(sorted(terms.items())))


def attributes_of_record(record: Mapping[str, object], declared: Iterable[Attribute]) -> tuple[str, str]:
    """As `read_attributes`, of a command: what cannot be read counts as absent, and what is absent has no default."""
    given = {one.name: record[one.name] for one in declared if record.get(one.name) is not None}
    if not given:
        return "", ""
    errors: list[FieldError] = []
    read = read_attributes(given, [one for one in declared if one.name in given], errors)
    if not errors:
        return read
    wrong = {error.field for error in errors}
    return attributes_of_record({name: value for name, value in given.items() if name not in wrong}, declared)


def written(values: Mapping[str, Value]) -> str:
    """The text of these."""
    return _write(values) if values else ""


@lru_cache(maxsize=1024)
def attribute_values(attributes: str) -> Mapping[str, Value]:
    """By name what a text says; not to be changed."""
    values: dict[str, Value] = json.loads(attributes) if attributes else {}
    return values
