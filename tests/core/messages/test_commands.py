from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.messages.body_json import read_json
from core.messages.order_rules import check_amend, check_cancel, check_place
from tests.core.messages.order_bodies import ANY, LIMIT, MARKET, ORDER_ID, RULES, VECTORS, WITH_ACCOUNTS, name_of

accepted = [vector for vector in VECTORS["place"] if "command" in vector]


@pytest.mark.parametrize("vector", accepted, ids=name_of)
def test_place_order_is_encoded_as_the_golden_command(vector: dict[str, Any]) -> None:
    order = check_place(read_json(vector["body"].encode()), RULES[vector["rules"]])
    command = order.encode(VECTORS["order_id"], VECTORS["user_id"], VECTORS["timestamp_ms"])
    assert command.decode("utf-8") == vector["command"]


@pytest.mark.parametrize("vector", VECTORS["terms"], ids=name_of)
def test_terms_hash_is_the_hash_of_the_golden_terms(vector: dict[str, Any]) -> None:
    body = next(place for place in accepted if place["name"] == vector["name"])
    order = check_place(read_json(body["body"].encode()), RULES[body["rules"]])
    assert order.terms_hash == hashlib.sha256(vector["terms"].encode()).hexdigest()


def test_place_order_is_encoded_whatever_the_user_id_holds() -> None:
    order = check_place(LIMIT, ANY)
    for user_id in (None, "", "jürgen", '"\\\n', "\ud800", "\U0001f600"):
        assert json.loads(order.encode(ORDER_ID, user_id, 7))["user_id"] == user_id


@given(st.from_regex(r"(0|[1-9][0-9]{0,18})\.[0-9]{1,18}", fullmatch=True), st.booleans())
def test_place_order_carries_the_clients_own_digits(text: str, as_number: bool) -> None:
    assume(Decimal(text) > 0)
    body = read_json(json.dumps(LIMIT).replace('"2"', text if as_number else f'"{text}"').encode())
    assert json.loads(check_place(body, ANY).encode(ORDER_ID, None, 0))["quantity"] == text


def terms(**changes: object) -> str:
    return check_place({**LIMIT, **changes}, RULES["default"]).terms_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"price": "1.50"},
        {"price": Decimal("1.5")},
        {"price": "15e-1"},
        {"quantity": 2},
        {"quantity": "2.000"},
        {"quantity": "0.2e1"},
        {"time_in_force": "GTC"},
        {"time_in_force": None},
        {"symbol": None},
        {"client_order_id": "other"},
    ],
)
def test_terms_hash_is_the_same_however_the_terms_are_written(changes: dict[str, object]) -> None:
    assert terms(**changes) == terms()


@pytest.mark.parametrize(
    "changes",
    [
        {"symbol": "BTC/EUR"},
        {"side": "ask"},
        {"order_type": "market", "price": None},
        {"price": "1.51"},
        {"price": "1.5000000000000000000000000000000000001"},
        {"price": "2", "quantity": "1.5"},
        {"quantity": "20"},
        {"time_in_force": "IOC"},
    ],
)
def test_terms_hash_differs_when_a_term_does(changes: dict[str, object]) -> None:
    assert terms(**changes) != terms()


@given(st.integers(1, 10**20), st.integers(0, 17), st.integers(1, 10**20))
def test_terms_hash_compares_quantities_by_value(units: int, zeros: int, other_units: int) -> None:
    def text(units: int) -> str:
        return f"{units // 10**9}.{units % 10**9:09}"

    padded = text(units) + "0" * zeros
    bare = text(units).rstrip("0").rstrip(".")
    assert terms(quantity=padded) == terms(quantity=bare)
    assert (terms(quantity=text(other_units)) == terms(quantity=padded)) == (other_units == units)


def test_place_order_is_encoded_with_the_quantity_that_was_reserved() -> None:
    by_amount = check_place({**MARKET, "quote_amount": "100", "client_order_id": "c"}, WITH_ACCOUNTS)
    command = json.loads(by_amount.encode(ORDER_ID, "u", 0, Decimal("0.10")))
    assert (command["quantity"], command["terms_hash"]) == ("0.10", by_amount.terms_hash)
    assert "quote_amount" not in command
    assert json.loads(check_place(LIMIT, ANY).encode(ORDER_ID, "u", 0, Decimal("1.5")))["quantity"] == "1.5"
    with pytest.raises(ValueError, match="reserved"):
        by_amount.encode(ORDER_ID, "u", 0)


def test_place_order_is_encoded_with_an_integer_id_like_its_cancel() -> None:
    assert json.loads(check_place(LIMIT, ANY).encode("17", None, 0))["order_id"] == 17


def test_terms_hash_covers_amount_and_protection_price() -> None:
    def hash_of(**fields: str) -> str:
        return check_place({**MARKET, **fields}, WITH_ACCOUNTS).terms_hash

    different = [
        {"quantity": "1"},
        {"quote_amount": "1"},
        {"quote_amount": "2"},
        {"quote_amount": "1", "max_slippage_price": "1"},
        {"quote_amount": "1", "max_slippage_price": "2"},
        {"quantity": "1", "max_slippage_price": "1"},
    ]
    assert len({hash_of(**fields) for fields in different}) == len(different)
    assert hash_of(quote_amount="1.0", max_slippage_price="2") == hash_of(quote_amount="1", max_slippage_price="2.00")
    golden = b'["KCN/EUR","bid","market",null,null,"IOC","1","2"]'
    assert hash_of(quote_amount="1", max_slippage_price="2") == hashlib.sha256(golden).hexdigest()


def test_cancel_order_is_encoded_with_the_id_that_the_directory_found() -> None:
    cancel = check_cancel({"client_order_id": "mine"}, ANY)
    assert cancel.encode(ORDER_ID, "KCN/EUR", "jürgen", 1700000000000) == (
        b'{"type":"cancel_order","order_id":"0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11","symbol":"KCN/EUR",'
        b'"user_id":"j\\u00fcrgen","timestamp":1700000000000}'
    )


@pytest.mark.parametrize("order_id", [17, "17"])
def test_cancel_order_is_encoded_with_an_integer_for_an_older_engine(order_id: str | int) -> None:
    cancel = check_cancel({"order_id": order_id}, ANY)
    assert cancel.order_id == "17"
    assert cancel.encode(cancel.order_id, "KCN/EUR", None, 0) == (
        b'{"type":"cancel_order","order_id":17,"symbol":"KCN/EUR","user_id":null,"timestamp":0}'
    )


@pytest.mark.parametrize("vector", [one for one in VECTORS["amend"] if "command" in one], ids=name_of)
def test_amend_order_is_encoded_as_the_golden_command(vector: dict[str, Any]) -> None:
    amend = check_amend(read_json(vector["body"].encode()), RULES[vector["rules"]])
    command = amend.encode(VECTORS["order_id"], "KCN/EUR", VECTORS["user_id"], VECTORS["timestamp_ms"])
    assert command.decode("utf-8") == vector["command"]
