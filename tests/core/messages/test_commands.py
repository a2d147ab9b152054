from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from core.errors import FieldError, InvalidFields, NotJson
from core.messages.commands import CancelOrder, OrderRules, PlaceOrder, check_cancel, check_place, read_json
from core.messages.model import Instrument, OrderType, Side, TimeInForce, decimal_text
from tests.core.messages.test_events import JSON_LIKE, JSON_VALUES, is_rfc8259

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "commands.json").read_text("utf-8"))
RULES = {
    name: OrderRules(
        tuple(
            Instrument(row["symbol"], Decimal(row["tick"]), Decimal(row["lot"]), Decimal(row["min_quantity"]))
            for row in rules["instruments"]
        ),
        rules["default_symbol"],
    )
    for name, rules in VECTORS["rules"].items()
}
ANY = OrderRules()
LIMIT: dict[str, Any] = {"symbol": "KCN/EUR", "side": "bid", "order_type": "limit", "price": "1.5", "quantity": "2"}
ORDER_ID = "0b9b6c4e-8a1f-4f6e-9d51-2f4c1f2d7c11"

accepted = [vector for vector in VECTORS["place"] if "command" in vector]
refused = [vector for vector in VECTORS["place"] if "errors" in vector]
cancelled = [vector for vector in VECTORS["cancel"] if "errors" not in vector]
not_cancelled = [vector for vector in VECTORS["cancel"] if "errors" in vector]


def name_of(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def refusal(check: Callable[[object, OrderRules], object], body: object, rules: OrderRules = ANY) -> list[FieldError]:
    with pytest.raises(InvalidFields) as caught:
        check(body, rules)
    assert caught.value.errors
    return list(caught.value.errors)


def not_json(body: bytes) -> str:
    with pytest.raises(NotJson) as caught:
        read_json(body)
    return caught.value.reason


# read_json


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (
            b' \r\n\t[1, -0, 1.50, 1e5, "a", true, false, null]\n',
            [1, 0, Decimal("1.50"), Decimal("1e5"), "a", True, False, None],
        ),
        ('"ä\\u00e4\\ud83d\\ude00"'.encode(), "ää\U0001f600"),
        (b'"\\\\ud800 \\\\\\\\udc00 \\u005cud800"', "\\ud800 \\\\udc00 \\ud800"),
        (b'{"":{"a":1},"a":{"a":1}}', {"": {"a": 1}, "a": {"a": 1}}),
    ],
)
def test_read_json_reads(body: bytes, value: object) -> None:
    assert read_json(body) == value


def test_read_json_keeps_every_digit_of_a_number() -> None:
    number = read_json(b"0.10000000000000000000000000000000000010")
    assert isinstance(number, Decimal)
    assert decimal_text(number) == "0.10000000000000000000000000000000000010"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "character 0"),
        (b"{", "character 1"),
        (b"{}{}", "character 2"),
        (b"[01]", "character 2"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'"\n"', "character 1"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}", "character 0"),
        ('"a"'.encode("utf-16"), "not UTF-8"),
        ('"a"'.encode("utf-16-le"), "character"),
        ('"a"'.encode("utf-32-be"), "character 0"),
        (b'{"a":1,"a":1}', "the key 'a' is given twice"),
        (b'[{"b":{"x":1,"\\u0078":2}}]', "the key 'x' is given twice"),
        ('{"ä":1,"ä":2}'.encode(), "the key '\\xe4' is given twice"),
        (b"1" * 5_000, "a number is too long"),
        (b"[1e99999999999999999999]", "a number is too long"),
    ],
)
def test_read_json_refuses(body: bytes, detail: str) -> None:
    assert detail in not_json(body)


@pytest.mark.parametrize(
    "text",
    [
        '"\\ud800"',
        '"\\uDFFF"',
        '["\\udc00\\ud800"]',
        '{"\\ud83d":1}',
        '{"a":{"b":["\\ud83d\\u0041"]}}',
        '"\\ud83d\\\\ude00"',
        '"\\ud83d \\ude00"',
        '"\\ud83d\\ude00\\ude00"',
        '"\\\\\\ud800"',
        '"\\n\\ud83d\\ud83d\\ude00"',
    ],
)
def test_read_json_refuses_half_a_surrogate_pair(text: str) -> None:
    assert not_json(text.encode()) == "a string holds half of a surrogate pair"


@given(st.lists(st.sampled_from(["\\ud800", "\\uDBFF", "\\uDC00", "\\udfff", "\\\\", "\\n", "u", "d800", "\\u0041"])))
def test_read_json_refuses_exactly_the_strings_that_utf8_cannot_hold(parts: list[str]) -> None:
    text = '"' + "".join(parts) + '"'
    try:
        json.loads(text).encode("utf-8")
    except UnicodeEncodeError:
        assert not_json(text.encode()) == "a string holds half of a surrogate pair"
    else:
        assert read_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("depth", [5_000, 200_000])
def test_read_json_refuses_endless_nesting(opening: bytes, depth: int) -> None:
    assert not_json(opening * depth) == "nested too deeply"


def test_read_json_never_crashes_near_the_end_of_the_stack() -> None:
    outcomes = set()
    for depth in range(1, sys.getrecursionlimit() + 50, 7):
        try:
            read_json(b'{"a":' * depth + b"1" + b"}" * depth)
        except NotJson as error:
            outcomes.add(error.reason)
        else:
            outcomes.add("read")
    assert outcomes == {"read", "nested too deeply"}


def outcome(body: bytes) -> str:
    try:
        read_json(body)
    except NotJson as error:
        return error.reason
    return "read"


@given(JSON_LIKE)
@example('{"a":1,"a":2}')
@example('"\\ud800"')
@example("[01]")
def test_read_json_takes_exactly_the_grammar_without_what_is_ambiguous(text: str) -> None:
    detail = outcome(text.encode("utf-8"))
    ambiguous = detail.endswith(("given twice", "half of a surrogate pair", "too long"))
    # A key that is given twice is found before the end is seen, which may be cut off.
    assert ambiguous or (detail == "read") == is_rfc8259(text)


@given(st.binary())
def test_read_json_raises_nothing_but_not_json(body: bytes) -> None:
    outcome(body)


@given(JSON_VALUES)
def test_read_json_agrees_with_the_standard_library(value: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert read_json(text.encode("utf-8")) == json.loads(text, parse_float=Decimal)


# check_place and PlaceOrder.encode


@pytest.mark.parametrize("vector", accepted, ids=name_of)
def test_place_order_is_encoded_as_the_golden_command(vector: dict[str, Any]) -> None:
    order = check_place(read_json(vector["body"].encode()), RULES[vector["rules"]])
    command = order.encode(VECTORS["order_id"], VECTORS["user_id"], VECTORS["timestamp_ms"])
    assert command.decode("utf-8") == vector["command"]


@pytest.mark.parametrize("vector", refused, ids=name_of)
def test_check_place_names_every_broken_rule(vector: dict[str, Any]) -> None:
    errors = refusal(check_place, read_json(vector["body"].encode()), RULES[vector["rules"]])
    assert [list(error) for error in errors] == vector["errors"]


@pytest.mark.parametrize("vector", VECTORS["terms"], ids=name_of)
def test_terms_hash_is_the_hash_of_the_golden_terms(vector: dict[str, Any]) -> None:
    body = next(place for place in accepted if place["name"] == vector["name"])
    order = check_place(read_json(body["body"].encode()), RULES[body["rules"]])
    assert order.terms_hash() == hashlib.sha256(vector["terms"].encode()).hexdigest()


def test_check_place_takes_a_typed_order() -> None:
    body = {**LIMIT, "price": "1.50", "client_order_id": "c"}
    assert check_place(body, ANY) == PlaceOrder(
        "KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.50"), Decimal(2), TimeInForce.GTC, "c"
    )


@pytest.mark.parametrize(
    ("field", "bad_values"),
    [
        ("symbol", ["", "KCN", "KCN.X/EUR", 1, True, [], {}, "KCN/EUR "]),
        ("side", ["", "BID", "buy", 1, True, [], {}]),
        ("order_type", ["", "LIMIT", "stop", 1, [], {}]),
        ("price", ["", "0", 0, "-0", -1, "NaN", "1,5", Decimal("1e39"), Decimal("NaN"), 1.5, False, [], {}]),
        ("quantity", ["", "0", 0, "-0.0", -1, "inf", "0x1", Decimal("1e-39"), 1.5, False, [], {}]),
        ("client_order_id", ["", "x" * 65, "a b", "ä", "a\n", 1, True, [], {}]),
        ("time_in_force", ["", "gtc", "DAY", 1, True, [], {}]),
    ],
)
def test_check_place_blames_the_field_that_is_wrong_and_no_other(field: str, bad_values: list[object]) -> None:
    for bad_value in bad_values:
        errors = refusal(check_place, {**LIMIT, field: bad_value})
        assert [error.field for error in errors] == [field]
        assert "expected" in errors[0].message


@pytest.mark.parametrize("client_order_id", ["x", "x" * 64, "AZaz09._:-"])
def test_check_place_takes_every_client_order_id_of_the_contract(client_order_id: str) -> None:
    assert check_place({**LIMIT, "client_order_id": client_order_id}, ANY).client_order_id == client_order_id


def test_check_place_leaves_the_price_be_when_the_order_type_is_wrong() -> None:
    for price in (None, "1"):
        errors = refusal(check_place, {**LIMIT, "order_type": "stop", "price": price})
        assert [error.field for error in errors] == ["order_type"]


def test_check_place_names_so_many_unknown_fields_and_counts_the_rest() -> None:
    strange = {("x" * 100) + str(number): 1 for number in range(40)}
    errors = refusal(check_place, {**LIMIT, **strange})
    assert errors[:-1] == [FieldError("x" * 64, "unknown field")] * 16
    assert errors[-1] == FieldError("body", "24 more unknown fields")


@given(st.dictionaries(st.sampled_from([*LIMIT, "client_order_id", "time_in_force", "extra"]), JSON_VALUES))
def test_check_place_raises_nothing_but_invalid_fields(body: dict[str, object]) -> None:
    for rules in RULES.values():
        try:
            order = check_place({**LIMIT, **body}, rules)
        except InvalidFields as error:
            assert error.errors  # either outcome is right here
        else:
            json.loads(order.encode(ORDER_ID, None, 0))


@given(st.integers(1, 10**25), st.integers(0, 12), st.integers(1, 10**25), st.integers(0, 12))
def test_check_place_finds_the_multiples_of_tick_and_lot(
    price: int, tick_places: int, quantity: int, lot_places: int
) -> None:
    # Scaled integers as the reference: a price of `price` units of 1e-12 is on a tick of 10**-tick_places or not.
    def text(units: int) -> str:
        return f"{units // 10**12}.{units % 10**12:012}"

    tick, lot = 10 ** (12 - tick_places), 10 ** (12 - lot_places)
    rules = OrderRules((Instrument("A/B", Decimal(text(tick)), Decimal(text(lot)), Decimal(text(lot))),))
    body = {"side": "bid", "order_type": "limit", "price": text(price), "quantity": text(quantity)}
    try:
        check_place(body, rules)
        fields = set()
    except InvalidFields as error:
        fields = {field for field, _ in error.errors}
    assert ("price" in fields) == (price % tick != 0)
    assert ("quantity" in fields) == (quantity % lot != 0 or quantity < lot)


def test_check_place_finds_a_tick_of_38_places_under_a_price_of_38_digits() -> None:
    small = Decimal("1e-38")
    rules = OrderRules((Instrument("A/B", small, Decimal("3e-38"), small),))
    body = {"side": "bid", "order_type": "limit", "price": "9" * 38, "quantity": "9" * 38}
    assert check_place(body, rules).price == Decimal("9" * 38)
    assert refusal(check_place, {**body, "quantity": "1" * 38}, rules)[0].field == "quantity"


def test_order_rules_take_the_only_instrument_for_the_default() -> None:
    assert RULES["one"].default_symbol == "KCN/EUR"
    assert RULES["two"].default_symbol is None
    assert RULES["two with a default"].default_symbol == "BTC/EUR"
    assert OrderRules().default_symbol is None


def test_place_order_is_encoded_whatever_the_user_id_holds() -> None:
    order = check_place(LIMIT, ANY)
    for user_id in (None, "", "jürgen", '"\\\n', "\ud800", "\U0001f600"):
        assert json.loads(order.encode(ORDER_ID, user_id, 7))["user_id"] == user_id


@given(st.from_regex(r"(0|[1-9][0-9]{0,18})\.[0-9]{1,18}", fullmatch=True), st.booleans())
def test_place_order_carries_the_clients_own_digits(text: str, as_number: bool) -> None:
    assume(Decimal(text) > 0)
    body = read_json(json.dumps(LIMIT).replace('"2"', text if as_number else f'"{text}"').encode())
    assert json.loads(check_place(body, ANY).encode(ORDER_ID, None, 0))["quantity"] == text


# terms_hash


def terms(**changes: object) -> str:
    return check_place({**LIMIT, **changes}, RULES["default"]).terms_hash()


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


# Orders that need an account service.

WITH_ACCOUNTS = OrderRules(accounts=True)
MARKET: dict[str, Any] = {"symbol": "KCN/EUR", "side": "bid", "order_type": "market"}


def test_check_place_takes_a_market_order_by_amount_when_there_is_an_account_service() -> None:
    body = {**MARKET, "quote_amount": "100.50", "max_slippage_price": Decimal("1.20")}
    assert check_place(body, WITH_ACCOUNTS) == PlaceOrder(
        "KCN/EUR",
        Side.BID,
        OrderType.MARKET,
        None,
        None,
        TimeInForce.IOC,
        quote_amount=Decimal("100.50"),
        max_slippage_price=Decimal("1.20"),
    )


@pytest.mark.parametrize("order", [LIMIT, {**MARKET, "quantity": "2"}])
def test_check_place_takes_what_it_took_without_an_account_service(order: dict[str, Any]) -> None:
    for absent in ({}, {"quote_amount": None, "max_slippage_price": None}):
        assert check_place({**order, **absent}, WITH_ACCOUNTS) == check_place(order, ANY)


@pytest.mark.parametrize("value", ["1", None])
@pytest.mark.parametrize("field", ["quote_amount", "max_slippage_price"])
def test_check_place_refuses_fields_of_the_account_service_when_there_is_none(field: str, value: object) -> None:
    errors = refusal(check_place, {**MARKET, "quantity": "2", field: value})
    assert errors == [FieldError(field, "not supported: it needs an account service")]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (MARKET, FieldError("quantity", "required, unless quote_amount is given")),
        (
            {**MARKET, "quantity": None, "quote_amount": None},
            FieldError("quantity", "required, unless quote_amount is given"),
        ),
        ({**LIMIT, "quantity": None}, FieldError("quantity", "required")),
        (
            {**MARKET, "quantity": "1", "quote_amount": "1"},
            FieldError("quote_amount", "give either quantity or quote_amount, not both"),
        ),
        ({**LIMIT, "quote_amount": "1"}, FieldError("quote_amount", "is for market orders; leave it out")),
        ({**LIMIT, "max_slippage_price": "1"}, FieldError("max_slippage_price", "is for market orders; leave it out")),
    ],
)
def test_check_place_wants_exactly_one_of_quantity_and_amount(body: dict[str, Any], error: FieldError) -> None:
    assert refusal(check_place, body, WITH_ACCOUNTS) == [error]


def test_check_place_wants_the_quantity_of_a_limit_order_that_has_an_amount() -> None:
    errors = refusal(check_place, {**LIMIT, "quantity": None, "quote_amount": "1"}, WITH_ACCOUNTS)
    assert [error.field for error in errors] == ["quote_amount", "quantity"]


@pytest.mark.parametrize("field", ["quote_amount", "max_slippage_price"])
@pytest.mark.parametrize("value", ["", "0", 0, "-1", "NaN", "1e39", 1.5, True, [], {}])
def test_check_place_refuses_an_amount_that_is_no_number_above_zero(field: str, value: object) -> None:
    errors = refusal(check_place, {**MARKET, "quote_amount": "1", field: value}, WITH_ACCOUNTS)
    assert [error.field for error in errors] == [field]
    assert "expected" in errors[0].message


def test_check_place_blames_only_the_order_type_of_an_order_by_amount_when_that_is_wrong() -> None:
    errors = refusal(check_place, {**MARKET, "order_type": "stop", "quote_amount": "1"}, WITH_ACCOUNTS)
    assert [error.field for error in errors] == ["order_type"]


@given(st.dictionaries(st.sampled_from([*LIMIT, "quote_amount", "max_slippage_price"]), JSON_VALUES), st.booleans())
def test_check_place_raises_nothing_but_invalid_fields_with_accounts(body: dict[str, object], market: bool) -> None:
    try:
        order = check_place({**(MARKET if market else LIMIT), **body}, WITH_ACCOUNTS)
    except InvalidFields as error:
        assert error.errors
    else:
        assert (order.quantity is None) != (order.quote_amount is None)
        json.loads(order.encode(ORDER_ID, None, 0, Decimal(1)))


def test_place_order_is_encoded_with_the_quantity_that_was_reserved() -> None:
    by_amount = check_place({**MARKET, "quote_amount": "100", "client_order_id": "c"}, WITH_ACCOUNTS)
    command = json.loads(by_amount.encode(ORDER_ID, "u", 0, Decimal("0.10")))
    assert (command["quantity"], command["terms_hash"]) == ("0.10", by_amount.terms_hash())
    assert "quote_amount" not in command
    assert json.loads(check_place(LIMIT, ANY).encode(ORDER_ID, "u", 0, Decimal("1.5")))["quantity"] == "1.5"
    with pytest.raises(ValueError, match="reserved"):
        by_amount.encode(ORDER_ID, "u", 0)


def test_place_order_is_encoded_with_an_integer_id_like_its_cancel() -> None:
    assert json.loads(check_place(LIMIT, ANY).encode("17", None, 0))["order_id"] == 17


def test_terms_hash_covers_amount_and_protection_price() -> None:
    def hash_of(**fields: str) -> str:
        return check_place({**MARKET, **fields}, WITH_ACCOUNTS).terms_hash()

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


# check_cancel and CancelOrder.encode


@pytest.mark.parametrize("vector", cancelled, ids=name_of)
def test_check_cancel_takes_either_id(vector: dict[str, Any]) -> None:
    cancel = check_cancel(read_json(vector["body"].encode()), RULES[vector["rules"]])
    assert cancel == CancelOrder(vector["order_id"], vector["client_order_id"], vector["symbol"])


@pytest.mark.parametrize("vector", not_cancelled, ids=name_of)
def test_check_cancel_names_every_broken_rule(vector: dict[str, Any]) -> None:
    errors = refusal(check_cancel, read_json(vector["body"].encode()), RULES[vector["rules"]])
    assert [list(error) for error in errors] == vector["errors"]


@pytest.mark.parametrize(
    "order_id",
    [
        "",
        " ",
        "01",
        "-1",
        -1,
        "1.0",
        Decimal("1.0"),
        True,
        [],
        {},
        "1" * 21,
        10**20,
        ORDER_ID[:-1],
        ORDER_ID + "0",
        "{" + ORDER_ID + "}",
        ORDER_ID.replace("-", ""),
        "٣",
    ],
)
def test_check_cancel_refuses_what_is_no_order_id(order_id: object) -> None:
    errors = refusal(check_cancel, {"order_id": order_id})
    assert errors == [FieldError("order_id", "expected a UUID, or an integer")]


@given(st.dictionaries(st.sampled_from(["order_id", "client_order_id", "symbol", "extra"]), JSON_VALUES))
def test_check_cancel_raises_nothing_but_invalid_fields(body: dict[str, object]) -> None:
    try:
        cancel = check_cancel(body, ANY)
    except InvalidFields as error:
        assert error.errors
    else:
        assert (cancel.order_id is None) != (cancel.client_order_id is None)


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
    assert cancel.encode(17, "KCN/EUR", None, 0) == cancel.encode("17", "KCN/EUR", None, 0)
