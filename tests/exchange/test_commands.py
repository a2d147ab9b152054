from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.commands import (
    AmendOrder,
    CancelOrder,
    Malformed,
    OrderType,
    PlaceOrder,
    Refused,
    Side,
    TimeInForce,
    is_symbol,
    read_command,
    read_record,
)
from exchange.decimals import decimal_text, read_decimal

PLACE: dict[str, Any] = {
    "type": "place_order",
    "order_id": "o-1",
    "symbol": "KCN/EUR",
    "side": "bid",
    "order_type": "limit",
    "price": "0.10",
    "quantity": "1.500",
    "user_id": "alice",
    "client_order_id": None,
    "terms_hash": None,
    "time_in_force": "FOK",
    "timestamp": 1,
}
CANCEL: dict[str, Any] = {
    "type": "cancel_order",
    "order_id": "o-1",
    "symbol": "KCN/EUR",
    "user_id": None,
    "timestamp": 1,
}


def test_command_place_order_is_read_with_every_digit() -> None:
    command = read_command(PLACE)
    assert command == PlaceOrder(
        "o-1", "KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("0.10"), Decimal("1.5"), TimeInForce.FOK, "alice"
    )
    assert decimal_text(command.price or Decimal(0)) == "0.10"


@pytest.mark.parametrize(("price", "quantity"), [("1.50", None), (None, "2"), ("1.50", 2)])
def test_command_amend_order_is_read(price: object, quantity: object) -> None:
    command = read_command({**CANCEL, "type": "amend_order", "price": price, "quantity": quantity})
    assert isinstance(command, AmendOrder)
    assert command.order_id == read_command(CANCEL).order_id
    assert command.price == (None if price is None else Decimal("1.50"))
    assert command.quantity == (None if quantity is None else Decimal(2))


@pytest.mark.parametrize(
    "change", [{}, {"price": "0"}, {"quantity": "-1"}, {"price": "cheap"}, {"quantity": "1", "symbol": "KCN"}]
)
def test_command_amend_order_that_cannot_be_read_is_malformed(change: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        read_command({**CANCEL, "type": "amend_order", **change})


def test_command_cancel_order_is_read() -> None:
    assert read_command(CANCEL) == CancelOrder("o-1", "KCN/EUR", None)


@pytest.mark.parametrize(
    ("given", "order_id"),
    [
        (42, 42),
        ("42", 42),
        (-5, -5),
        ("042", "042"),
        (str(2**64), str(2**64)),
        ("0B9B6C4E-8a1f-4f6e-9d51-2f4c1f2d7c11", "0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11"),
        ("ORD-1", "ORD-1"),
    ],
)
def test_command_order_id_has_one_spelling(given: str | int, order_id: str | int) -> None:
    assert read_command({**CANCEL, "order_id": given}).order_id == order_id


@pytest.mark.parametrize(("order_type", "expected"), [("limit", TimeInForce.GTC), ("market", TimeInForce.IOC)])
def test_command_time_in_force_has_a_default(order_type: str, expected: TimeInForce) -> None:
    body = {**PLACE, "order_type": order_type, "time_in_force": None}
    if order_type == "market":
        body["price"] = None
    command = read_command(body)
    assert isinstance(command, PlaceOrder)
    assert command.time_in_force is expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"side": "buy"}, "side"),
        ({"order_type": "stop"}, "order_type"),
        ({"price": None}, "price"),
        ({"price": "0"}, "price"),
        ({"price": "-1"}, "price"),
        ({"price": 0.1}, "price"),
        ({"price": "NaN"}, "price"),
        ({"price": True}, "price"),
        ({"quantity": "01"}, "quantity"),
        ({"quantity": "1e99999999999"}, "quantity"),
        ({"quantity": "1" * 39}, "quantity"),
        ({"quantity": "0." + "0" * 38 + "1"}, "quantity"),
        ({"quantity": None}, "quantity"),
        ({"order_type": "market"}, "price"),
        ({"time_in_force": "GTD"}, "time_in_force"),
        ({"symbol": "KCN.EUR"}, "symbol"),
        ({"symbol": None}, "symbol"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 7}, "user_id"),
    ],
)
def test_command_is_refused_by_its_order_id_when_a_field_is_wrong(change: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as refusal:
        read_command({**PLACE, **change})
    assert refusal.value.order_id == "o-1"
    assert refusal.value.reason.startswith(f"{field}: ")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [PLACE],
        "place_order",
        {},
        {**PLACE, "type": "replace_order"},
        {**PLACE, "type": None},
        {**PLACE, "type": ["place_order"]},
        {**PLACE, "order_id": None},
        {**PLACE, "order_id": ""},
        {**PLACE, "order_id": "x" * 129},
        {**PLACE, "order_id": True},
        {**PLACE, "order_id": -(2**63) - 1},
        {**PLACE, "order_id": 2**64},
        {**CANCEL, "symbol": None},
        {**CANCEL, "user_id": 7},
    ],
)
def test_command_is_malformed_when_nobody_can_be_answered(body: object) -> None:
    with pytest.raises(Malformed):
        read_command(body)


@pytest.mark.parametrize(
    "value",
    [None, b"", b"\xff{}", b"{", b"NaN", b'{"a": Infinity}', b"[" * 100_000, b"1" * 5_000, b"\xef\xbb\xbf{}"],
)
def test_record_is_malformed_when_it_is_not_json(value: bytes | None) -> None:
    with pytest.raises(Malformed):
        read_record(value)


def test_record_numbers_stay_exact() -> None:
    assert read_record(b'{"quantity": 0.30000000000000000001}') == {"quantity": Decimal("0.30000000000000000001")}


@pytest.mark.parametrize("symbol", ["KCN/EUR", "a-1/b_2", "A" * 32 + "/" + "B" * 32])
def test_symbol_is_recognised(symbol: str) -> None:
    assert is_symbol(symbol)


@pytest.mark.parametrize(
    "symbol", ["KCN", "/EUR", "KCN/", "K/E/U", "K.N/EUR", "A" * 33 + "/B", "KCN/EUR\n", "É/EUR", 7]
)
def test_symbol_is_refused_when_of_another_form(symbol: object) -> None:
    assert not is_symbol(symbol)


@given(st.integers(0, 10**38 - 1), st.integers(0, 37))
def test_decimal_survives_reading_and_writing_digit_by_digit(digits: int, decimals: int) -> None:
    text = str(digits).rjust(decimals + 1, "0")
    text = text[:-decimals] + "." + text[-decimals:] if decimals else text
    if len(text.replace(".", "")) <= 38:
        assert decimal_text(read_decimal(json.loads(json.dumps(text)))) == text
