"""JSON off the bus, read strictly: the bytes of one record in, its value out, or `PoisonedRecord`
(docs/contract.md#poisoned-records).

What every reader of a topic holds its records against: RFC 8259 in UTF-8 and nothing looser, and for the values in it
the bounds of what can be written on. Read with msgspec, which keeps every digit (`float_hook`) and is strict as it is: 0.6
microseconds for a 223-byte fill. What it refuses is read again with the standard library's scanner, which needs 1.7, says
what is wrong, and takes the little that is legal and msgspec does not: lone surrogates, integers of any length. Not with ujson:
that takes NaN, 1e999 and `[01]`, and turns a price into a double.

Repeated keys are legal in RFC 8259 (section 4: names SHOULD be unique), and the last one counts. Bodies of clients, where
they are refused, are read by `core.messages.body_json`.
"""

from __future__ import annotations

import json
from decimal import Decimal
from json.scanner import make_scanner
from typing import Any, Final, NoReturn

import msgspec

from core.errors import PoisonedRecord

# Reasons of `PoisonedRecord`: a closed set, because each becomes a metric label.
EMPTY: Final = "empty"  # no value (a tombstone), or no bytes
NOT_UTF8: Final = "not_utf8"
NOT_JSON: Final = "not_json"
TOO_DEEP: Final = "too_deep"
BAD_NUMBER: Final = "bad_number"  # JSON by its grammar, but longer than any number the scanner can hold
REASONS: Final = (EMPTY, NOT_UTF8, NOT_JSON, TOO_DEEP, BAD_NUMBER)

# Sequences, ids and times go on into encoders and floats that do not take integers of any length.
MIN_INTEGER: Final = -(2**63)
MAX_INTEGER: Final = 2**64 - 1

_WHITESPACE = " \t\n\r"


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


# (text, index) -> the value that begins there, and the index behind it; StopIteration where none does. What `raw_decode`
# calls.
# (typeshed has the scanner take another scanner, where it takes the decoder.)
scan: Final = make_scanner(
    json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant)  # type: ignore[arg-type]
)


_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def read_json(value: bytes | None) -> Any:
    """The one JSON value in the value of a record. Numbers with a point or exponent are Decimals.

    Raises PoisonedRecord with one of `REASONS`.
    """
    if not value:
        raise PoisonedRecord(EMPTY, "the record has no value")
    try:
        return _decode(value)
    except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return _scanned(value)


def trimmed(value: bytes) -> str:
    """The text of a record's value, without the white space around. Raises UnicodeDecodeError."""
    return value.decode("utf-8").strip(_WHITESPACE)


def _scanned(value: bytes) -> Any:
    try:
        # Not json.loads(bytes): that guesses UTF-16 and UTF-32 and lets a BOM through.
        text = trimmed(value)
        found, end = scan(text, 0)
    except StopIteration as error:
        refusal = json.JSONDecodeError("Expecting value", text, error.value)  # as `raw_decode` has it
        raise PoisonedRecord(NOT_JSON, str(refusal)) from refusal
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
    return found


def is_encodable(text: str) -> bool:
    """False for text with a lone surrogate: legal as a JSON escape, impossible in UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """A short, ASCII description of any value that JSON can hold, for the detail of a refusal."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return ascii(value[:40])
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    return str(value)[:40]
