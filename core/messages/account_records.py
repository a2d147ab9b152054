"""The account topic: the bytes of one record in, what a user has by currency out (docs/contract.md#balances).

The reading is that of `core.messages.strict_json`. A compacted topic keeps the last record of each key, so whose a record is,
its key says: one whose value says something else is refused, for neither would ever be forgotten with the other.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from core.errors import PoisonedRecord
from core.messages.events import BAD_FIELD, NOT_AN_OBJECT
from core.messages.model import ENGINE_DIGITS, decimal_text, read_decimal
from core.messages.strict_json import MAX_INTEGER, is_encodable, read_json, shown
from core.messages.strict_json import REASONS as JSON_REASONS

BAD_KEY: Final = "bad_key"
TOO_LARGE: Final = "too_large"
REASONS: Final = (*JSON_REASONS, NOT_AN_OBJECT, BAD_FIELD, BAD_KEY, TOO_LARGE)

# Some 800 currencies. What is larger would hold up the loop for milliseconds, and be told to a client as a whole.
MAX_RECORD_BYTES: Final = 65_536
# Of a token's user nobody has a longer one.
MAX_USER_CHARACTERS: Final = 256

_is_currency = re.compile(r"[A-Za-z0-9_-]{1,32}").fullmatch


class Balance(NamedTuple):
    """What of one currency is free, and what is reserved for orders: decimals as text, with the digits that they came with."""

    available: str
    reserved: str


Balances = dict[str, Balance]


class AccountRecord(NamedTuple):
    """All that a user has, by currency. `timestamp_ms` is the writer's time, None where it told none that can be read."""

    balances: Balances
    timestamp_ms: int | None


def read_account_key(key: bytes | None) -> str:
    """Whose record it is. Raises PoisonedRecord (`BAD_KEY`)."""
    if not key or len(key) > 4 * MAX_USER_CHARACTERS:
        raise PoisonedRecord(BAD_KEY, "expected a user's id as the key")
    try:
        user_id = key.decode()
    except UnicodeDecodeError as error:
        raise PoisonedRecord(BAD_KEY, str(error)) from error
    if len(user_id) > MAX_USER_CHARACTERS:
        raise PoisonedRecord(BAD_KEY, f"the key has more than {MAX_USER_CHARACTERS} characters")
    return user_id


def read_account_record(user_id: str, value: bytes) -> AccountRecord:
    """What the value of the user's record says. Raises PoisonedRecord with one of `REASONS`."""
    if len(value) > MAX_RECORD_BYTES:
        raise PoisonedRecord(TOO_LARGE, f"{len(value)} bytes, and {MAX_RECORD_BYTES} are read")
    record = read_json(value)
    if type(record) is not dict:
        raise PoisonedRecord(NOT_AN_OBJECT, f"expected an object, got {shown(record)}")
    named = record.get("user_id")
    if type(named) is not str or not is_encodable(named):
        raise PoisonedRecord(BAD_FIELD, f"user_id: expected a string, got {shown(named)}")
    if named != user_id:
        raise PoisonedRecord(BAD_KEY, "user_id: another one than the key")
    given = record.get("balances")
    if type(given) is not dict:
        raise PoisonedRecord(BAD_FIELD, f"balances: expected an object, got {shown(given)}")
    timestamp = record.get("timestamp")
    if type(timestamp) is not int or not 0 <= timestamp <= MAX_INTEGER:
        timestamp = None
    return AccountRecord({currency: _balance(currency, one) for currency, one in given.items()}, timestamp)


def _balance(currency: str, given: object) -> Balance:
    if not _is_currency(currency):
        raise PoisonedRecord(BAD_FIELD, f"balances: expected a currency, got {shown(currency)}")
    if type(given) is not dict:
        raise PoisonedRecord(BAD_FIELD, f"balances.{currency}: expected an object, got {shown(given)}")
    return Balance(_amount(currency, "available", given), _amount(currency, "reserved", given))


def _amount(currency: str, name: str, given: dict[str, object]) -> str:
    value = given.get(name)
    try:
        return decimal_text(read_decimal(value, ENGINE_DIGITS))
    except ValueError as error:
        raise PoisonedRecord(BAD_FIELD, f"balances.{currency}.{name}: {error}, got {shown(value)}") from error
