"""Exact decimals: read strictly, computed without rounding, written digit by digit."""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from typing import Final

MAX_DIGITS: Final = 38

# Two 38-digit numbers with opposite exponents span 76 digits, and a level may hold the sum of very many of them.
# Should that ever not be enough, the trap on Inexact makes it an error instead of a wrong quantity.
EXACT: Final = Context(prec=120, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[Inexact, InvalidOperation])

ZERO: Final = Decimal(0)

# RFC 8259, section 6: the grammar of a JSON number.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_MAX_TEXT: Final = 128


def read_decimal(value: object) -> Decimal:
    """The decimal in a JSON string or number (int or Decimal; never a float, which has lost digits already).

    Raises ValueError, with a text fit for the sender, for anything else or beyond 38 digits written in full.
    """
    if isinstance(value, str):
        if len(value) > _MAX_TEXT or not _NUMBER.fullmatch(value):
            raise ValueError("must be a decimal number")
        number = Decimal(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > 4 * MAX_DIGITS:
            raise ValueError(f"must have at most {MAX_DIGITS} digits")
        number = Decimal(value)
    elif isinstance(value, Decimal) and value.is_finite():
        number = value
    else:
        raise ValueError("must be a decimal number")
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or max(len(digits) + max(exponent, 0), 1 - exponent) > MAX_DIGITS:
        raise ValueError(f"must have at most {MAX_DIGITS} digits")
    return number


def decimal_text(value: Decimal) -> str:
    """Plain notation with every digit kept: 0.10 stays "0.10", 1E-7 becomes "0.0000001"."""
    return format(value, "f")


def is_multiple(value: Decimal, step: Decimal) -> bool:
    return not EXACT.remainder(value, step)


def written_like(value: Decimal, step: Decimal) -> Decimal:
    """`value`, a multiple of `step`, with as many decimals as `step` has: 1.5 on a tick of 0.01 is 1.50."""
    return EXACT.quantize(value, step)
