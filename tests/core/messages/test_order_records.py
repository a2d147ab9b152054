from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import PoisonedRecord
from core.messages.commands import CancelOrder, PlaceOrder
from core.messages.model import OrderType, Side, TimeInForce, decimal_text
from core.messages.order_records import REASONS, AmendRecord, PlacedRecord, read_order_record
from tests.core.messages.test_events import JSON_LIKE, JSON_VALUES

ORDER_ID = "0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11"
HASH = "0123456789abcdef" * 4
RECORD: dict[str, Any] = {
    "type": "place_order",
    "order_id": ORDER_ID,
    "symbol": "KCN/EUR",
    "side": "bid",
    "order_type": "limit",
    "price": "1.50",
    "quantity": "2.0",
    "user_id": "alice",
    "client_order_id": "my-1",
    "terms_hash": HASH,
    "time_in_force": "GTC",
    "timestamp": 1_790_000_000_123,
}


def encoded(**changes: Any) -> bytes:
    """The record with members changed; those set to ... are left out."""
    return json.dumps({name: value for name, value in (RECORD | changes).items() if value is not ...}).encode()


def read(**changes: Any) -> PlacedRecord:
    record = read_order_record(encoded(**changes))
    assert record is not None
    return record


def reason(value: bytes | None) -> str:
    with pytest.raises(PoisonedRecord) as caught:
        read_order_record(value)
    assert caught.value.reason in REASONS
    assert caught.value.detail.isascii()
    return caught.value.reason


def test_order_record_is_read() -> None:
    assert read() == PlacedRecord(
        ORDER_ID,
        "alice",
        "my-1",
        "KCN/EUR",
        Side.BID,
        OrderType.LIMIT,
        TimeInForce.GTC,
        "1.50",
        "2.0",
        HASH,
        1_790_000_000_123,
    )


def test_order_record_of_a_market_order_has_no_price() -> None:
    assert read(order_type="market", price=None, time_in_force="IOC").price is None
    assert read(order_type="market", price=...).price is None


@pytest.mark.parametrize(
    ("given", "text"),
    [("0.10", "0.10"), (Decimal("1E-7"), None), ("1E-7", "0.0000001"), ("25e1", "250"), (7, "7"), (0.1, "0.1")],
)
def test_order_record_keeps_the_digits_of_a_decimal(given: Any, text: str | None) -> None:
    if text is None:
        value = encoded(quantity="?").replace(b'"?"', str(given).encode())
        record = read_order_record(value)
        assert record is not None and record.quantity == "0.0000001"
    else:
        assert read(quantity=given, price=given)[7:9] == (text, text)


@pytest.mark.parametrize(
    ("given", "text"), [(17, "17"), (0, "0"), (-1, "-1"), ("17", "17"), (2**64 - 1, str(2**64 - 1))]
)
def test_order_record_has_integer_ids_as_text(given: Any, text: str) -> None:
    assert read(order_id=given).order_id == text


@pytest.mark.parametrize("user_id", [None, ...])
def test_order_record_without_a_user_is_anonymous(user_id: Any) -> None:
    assert read(user_id=user_id).user_id is None


@pytest.mark.parametrize("user_id", ["", 7, True, [], {"sub": "alice"}])
def test_order_record_with_an_unreadable_user_is_nobodys(user_id: Any) -> None:
    assert reason(encoded(user_id=user_id)) == "bad_field"


def test_order_record_takes_a_user_whose_id_could_not_be_encoded() -> None:
    assert read(user_id="\ud800").user_id == "\ud800"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("client_order_id", [None, "", 7, "x" * 129, "\ud800", ...]),
        ("time_in_force", [None, "gtc", 7, [], ...]),
        ("timestamp", [None, "1", -1, 1.5, True, 2**64, ...]),
    ],
)
def test_order_record_has_nothing_for_an_optional_field_that_cannot_be_read(field: str, values: list[Any]) -> None:
    attribute = {"timestamp": "timestamp_ms"}.get(field, field)
    assert [getattr(read(**{field: value}), attribute) for value in values] == [None] * len(values)


@pytest.mark.parametrize("given", [None, ..., 7, HASH.upper(), HASH[:-1], "x" * 64])
def test_order_record_without_a_terms_hash_gets_that_of_its_terms(given: Any) -> None:
    terms = PlaceOrder("KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.5"), Decimal(2), TimeInForce.GTC)
    assert read(terms_hash=given).terms_hash == terms.terms_hash
    assert read(terms_hash=given, time_in_force=...).terms_hash is None


def test_order_record_without_a_client_order_id_has_no_terms_hash() -> None:
    assert read(client_order_id=None).terms_hash is None


def test_order_record_of_a_cancel_is_nothing() -> None:
    cancel = CancelOrder(ORDER_ID, None).encode(ORDER_ID, "KCN/EUR", "alice", 1)
    assert read_order_record(cancel) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\xff", "not_utf8"),
        (b"   ", "not_json"),
        (b"{", "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"{} {}", "not_json"),
        (b'{"type":NaN}', "not_json"),
        (b'{"type":01}', "not_json"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' + b"9" * 5_000 + b"}", "bad_number"),
        (b'{"a":1e99999999999999999999}', "bad_number"),
        (b"[]", "not_an_object"),
        (b"9" * 4_000, "not_an_object"),
        (b'"place_order"', "not_an_object"),
        (b"{}", "no_type"),
        (b'{"type":["place_order"]}', "no_type"),
        (b'{"type":"replace_order"}', "unknown_type"),
        (b'{"type":"amend_order"}', "bad_field"),
        (b'{"type":"place_order"}', "bad_field"),
    ],
)
def test_order_record_that_is_poisoned_says_why(value: bytes | None, expected: str) -> None:
    assert reason(value) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"order_id": ...},
        {"order_id": None},
        {"order_id": ""},
        {"order_id": "x" * 129},
        {"order_id": "\udc00"},
        {"order_id": True},
        {"order_id": 2**64},
        {"order_id": 1.5},
        {"symbol": ...},
        {"symbol": "KCN"},
        {"symbol": 7},
        {"side": "buy"},
        {"side": []},
        {"order_type": "stop"},
        {"order_type": {}},
        {"price": None},
        {"price": "0"},
        {"price": "-1"},
        {"price": "NaN"},
        {"price": "1" * 39},
        {"price": []},
        {"order_type": "market", "price": "x"},
        {"quantity": ...},
        {"quantity": "0.0"},
        {"quantity": 0},
        {"quantity": True},
        {"quantity": 10**200},
    ],
)
def test_order_record_that_lacks_what_it_needs_is_poisoned(changes: dict[str, Any]) -> None:
    assert reason(encoded(**changes)) == "bad_field"


POSITIVE = st.decimals("0.00000001", "1e20", allow_nan=False).filter(lambda number: len(number.as_tuple().digits) < 30)


@settings(deadline=None)  # a busy machine is no defect
@given(
    st.sampled_from(Side),
    st.none() | POSITIVE,
    POSITIVE,
    st.none() | st.text(min_size=1, max_size=8),
    st.none() | st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True),
    st.uuids().map(str) | st.integers(0, 2**63).map(str),
)
def test_order_record_says_what_the_command_said(
    side: Side,
    price: Decimal | None,
    quantity: Decimal,
    user_id: str | None,
    client_order_id: str | None,
    order_id: str,
) -> None:
    order_type = OrderType.MARKET if price is None else OrderType.LIMIT
    placed = PlaceOrder("KCN/EUR", side, order_type, price, quantity, TimeInForce.IOC, client_order_id)
    record = read_order_record(placed.encode(order_id, user_id, 17))
    assert record == PlacedRecord(
        order_id,
        user_id,
        client_order_id,
        "KCN/EUR",
        side,
        order_type,
        TimeInForce.IOC,
        None if price is None else decimal_text(price),
        decimal_text(quantity),
        None if client_order_id is None else placed.terms_hash,
        17,
    )


@settings(deadline=None)  # a busy machine is no defect
@given(st.dictionaries(st.sampled_from(sorted(RECORD)), JSON_VALUES, max_size=3))
def test_order_record_with_any_values_is_read_or_poisoned(changes: dict[str, Any]) -> None:
    try:
        record = read_order_record(json.dumps(RECORD | changes).encode())
    except PoisonedRecord as error:
        assert error.reason in REASONS
    else:
        assert record is None or isinstance(record, PlacedRecord)


@settings(deadline=None)  # a busy machine is no defect
@given(st.binary(max_size=40) | JSON_LIKE.map(str.encode))
def test_order_record_of_any_bytes_is_read_or_poisoned(value: bytes) -> None:
    try:
        read_order_record(value)
    except PoisonedRecord as error:
        assert error.reason in REASONS


AMEND = {"type": "amend_order", "order_id": 17, "symbol": "KCN/EUR", "user_id": "alice", "price": "1.5", "quantity": 2}


@pytest.mark.parametrize(
    ("changes", "price", "quantity"),
    [({}, "1.5", "2"), ({"price": None}, None, "2"), ({"quantity": None, "user_id": None}, "1.5", None)],
)
def test_order_record_of_an_amend_tells_whose_and_what(
    changes: dict[str, Any], price: str | None, quantity: str | None
) -> None:
    amend = AMEND | changes
    assert read_order_record(json.dumps(amend).encode()) == AmendRecord(
        "17",
        amend["user_id"],
        "KCN/EUR",
        None if price is None else Decimal(price),
        None if quantity is None else Decimal(quantity),
    )


@pytest.mark.parametrize(
    "changes", [{"order_id": None}, {"symbol": "KCN"}, {"user_id": 7}, {"price": "0"}, {"quantity": "much"}]
)
def test_order_record_of_an_amend_that_cannot_be_read_is_poisoned(changes: dict[str, Any]) -> None:
    assert reason(json.dumps(AMEND | changes).encode()) == "bad_field"
