"""The market's vocabulary: symbols, sides, kinds of orders, decimals, instruments.

Decimals are exact: nothing here rounds. `decimal`'s default context has 28 digits, fewer than a legal quantity may
have, so arithmetic on prices and quantities goes through `EXACT`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from enum import StrEnum
from typing import TypeGuard

MAX_DIGITS = 38

# A remainder needs the digits of the whole quotient (38 before and 38 after the point on either side), a product of
# price and quantity twice 38. Inexact is trapped: a lost digit has to be an error, never a slightly wrong amount.
EXACT = Context(prec=400, traps=[InvalidOperation, DivisionByZero, Overflow, Inexact])

ZERO = Decimal(0)

_is_symbol = re.compile(r"[A-Za-z0-9_-]{1,32}/[A-Za-z0-9_-]{1,32}").fullmatch
_is_plain_number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?").fullmatch
_is_number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch

# What the engine sends may be a sum of what clients sent: of so many digits, whoever orders how much.
ENGINE_DIGITS = 60


class Side(StrEnum):
    """Which side of the book: `bid` buys, `ask` sells."""

    BID = "bid"
    ASK = "ask"


class OrderType(StrEnum):
    """A `limit` order has a price, a `market` order takes what is there."""

    LIMIT = "limit"
    MARKET = "market"


class TimeInForce(StrEnum):
    """How long an order rests: until cancelled, not at all (immediate or cancel), all or nothing (fill or kill)."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


@dataclass(frozen=True, slots=True)
class Instrument:
    """What can be traded: prices are multiples of `tick`, quantities multiples of `lot`, at least `min_quantity`.

    The pre-trade limits, None for none: `max_quantity` in base, `max_notional` in quote, `price_band_percent` of the mark.
    """

    symbol: str
    tick: Decimal
    lot: Decimal
    min_quantity: Decimal
    max_quantity: Decimal | None = None
    max_notional: Decimal | None = None
    price_band_percent: Decimal | None = None

    @property
    def is_limited(self) -> bool:
        """Whether any of the limits is set."""
        return (self.max_quantity, self.max_notional, self.price_band_percent) != (None, None, None)


def is_symbol(value: object) -> TypeGuard[str]:
    """Whether `value` is a symbol: `BASE/QUOTE`, each 1 to 32 ASCII letters, digits, `-` and `_` (docs/contract.md#terms)."""
    return isinstance(value, str) and _is_symbol(value) is not None


def read_decimal(value: object, max_digits: int = MAX_DIGITS) -> Decimal:
    """A price or quantity as it came: text in JSON's number grammar, an int, or a Decimal read from a JSON number.

    Every digit is kept (`"0.10"` has two decimals); only the sign of a zero is dropped. Raises ValueError, with a
    message fit for a client, for anything else (floats, booleans, NaN) and beyond `max_digits`: digits of the number
    itself, digits before the point and digits after it in plain notation each count.
    """
    if isinstance(value, str):
        if len(value) <= max_digits and _is_plain_number(value):
            number = Decimal(value)
            return number if number else number.copy_abs()
        # Sign, all digits, "0.", as many zeros and an exponent padded with zeros fit; longer is not worth scanning.
        if len(value) > 3 * max_digits + 14 or not _is_number(value):
            raise ValueError('expected a decimal number, such as "0.10"')
        try:
            number = Decimal(value)
        except InvalidOperation as error:  # an exponent of 20 digits
            raise ValueError(f"expected a decimal number of at most {max_digits} digits") from error
    elif isinstance(value, Decimal):
        number = value
    elif isinstance(value, int) and not isinstance(value, bool):
        # Decimal(int) of any size is exact, but quadratic in the digits.
        if value.bit_length() > 4 * max_digits:
            raise ValueError(f"expected a decimal number of at most {max_digits} digits")
        number = Decimal(value)
    else:
        raise ValueError('expected a decimal number, such as "0.10"')
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("expected a finite decimal number")
    if len(digits) > max_digits or exponent < -max_digits or len(digits) + exponent > max_digits:
        raise ValueError(f"expected a decimal number of at most {max_digits} digits")
    return number if number else number.copy_abs()


def decimal_text(value: Decimal) -> str:
    """`value` in plain notation with every digit it has: `0.10` stays `0.10`, `1E-7` is `0.0000001`."""
    return format(value, "f")
