from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import PoisonedRecord
from core.messages.account_records import (
    MAX_RECORD_BYTES,
    REASONS,
    AccountRecord,
    Balance,
    read_account_key,
    read_account_record,
)

RECORD: dict[str, Any] = {
    "user_id": "alice",
    "balances": {"EUR": {"available": "99950.00", "reserved": "50"}},
    "timestamp": 1_700_000_000_000,
}


def read(record: object, user_id: str = "alice") -> AccountRecord:
    return read_account_record(user_id, json.dumps(record).encode())


def test_account_record_tells_balances_with_the_digits_that_they_have() -> None:
    assert read(RECORD) == AccountRecord({"EUR": Balance("99950.00", "50")}, 1_700_000_000_000)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("0.10", "0.10"),
        ("1e-7", "0.0000001"),
        ("12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"),
        ("-3.5", "-3.5"),
        ("7", "7"),
    ],
)
def test_number_is_never_a_binary_float(written: str, wanted: str) -> None:
    value = b'{"user_id":"alice","balances":{"EUR":{"available":%b,"reserved":"%b"}}}' % (
        written.encode(),
        written.encode(),
    )
    assert read_account_record("alice", value).balances == {"EUR": Balance(wanted, wanted)}


@pytest.mark.parametrize("timestamp", [None, "soon", 1.5, True, -1, 2**64])
def test_time_that_cannot_be_read_counts_as_absent(timestamp: object) -> None:
    assert read({**RECORD, "timestamp": timestamp}).timestamp_ms is None


def balances(currency: str, **amounts: object) -> dict[str, Any]:
    return {**RECORD, "balances": {currency: amounts}}


@pytest.mark.parametrize(
    ("record", "reason", "told"),
    [
        ([RECORD], "not_an_object", "expected an object"),
        ({**RECORD, "user_id": None}, "bad_field", "user_id: expected a string, got null"),
        ({**RECORD, "user_id": "\ud800"}, "bad_field", "user_id: expected a string"),
        ({**RECORD, "user_id": "bob"}, "bad_key", "another one than the key"),
        ({"user_id": "alice"}, "bad_field", "balances: expected an object, got null"),
        ({**RECORD, "balances": []}, "bad_field", "balances: expected an object, got an array"),
        ({**RECORD, "balances": {"EUR": "5"}}, "bad_field", "balances.EUR: expected an object, got '5'"),
        ({**RECORD, "balances": {"E U R": {}}}, "bad_field", "balances: expected a currency, got 'E U R'"),
        ({**RECORD, "balances": {"": {}}}, "bad_field", "balances: expected a currency"),
        ({**RECORD, "balances": {"E" * 33: {}}}, "bad_field", "balances: expected a currency"),
        (balances("EUR", available="1"), "bad_field", "balances.EUR.reserved: expected a decimal number"),
        (balances("EUR", reserved="1"), "bad_field", "balances.EUR.available: expected a decimal number"),
        (balances("EUR", available="x", reserved="1"), "bad_field", "balances.EUR.available: expected a decimal"),
        (balances("EUR", available="1" * 61, reserved="1"), "bad_field", "of at most 60 digits"),
    ],
)
def test_account_record_that_is_not_one_is_refused_by_its_reason(record: object, reason: str, told: str) -> None:
    with pytest.raises(PoisonedRecord) as refused:
        read(record)
    assert (refused.value.reason, told in refused.value.detail) == (reason, True), refused.value.detail


def test_value_is_bounded() -> None:
    value = json.dumps(RECORD).encode()
    assert read_account_record("alice", value + b" " * (MAX_RECORD_BYTES - len(value)))
    with pytest.raises(PoisonedRecord) as refused:
        read_account_record("alice", value + b" " * (MAX_RECORD_BYTES - len(value) + 1))
    assert refused.value.reason == "too_large"


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"a" * 257, "ü".encode() * 600])
def test_key_that_is_no_user_is_refused(key: bytes | None) -> None:
    with pytest.raises(PoisonedRecord) as refused:
        read_account_key(key)
    assert refused.value.reason == "bad_key"


@pytest.mark.parametrize("user_id", ["alice", "a" * 256, "ü" * 256])
def test_key_is_a_user(user_id: str) -> None:
    assert read_account_key(user_id.encode()) == user_id


@given(st.binary(max_size=60))
def test_whatever_the_bytes_it_is_a_reason_of_the_table(value: bytes) -> None:
    with pytest.raises(PoisonedRecord) as refused:
        read_account_record("alice", value)
    assert refused.value.reason in REASONS


@given(st.decimals(min_value=-(10**20), max_value=10**20, places=8))
def test_amount_is_the_same_number_however_it_was_written(amount: Decimal) -> None:
    value = f'{{"user_id":"a","balances":{{"X":{{"available":{amount:f},"reserved":"{amount}"}}}}}}'
    [one] = read_account_record("a", value.encode()).balances.values()
    assert (Decimal(one.available), Decimal(one.reserved)) == (amount, amount)
