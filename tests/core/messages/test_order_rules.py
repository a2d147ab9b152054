from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import FieldError, InvalidFields
from core.messages import order_rules
from core.messages.attributes import Attribute, Kind
from core.messages.body_json import read_json
from core.messages.commands import CancelOrder, PlaceOrder
from core.messages.model import Instrument, OrderType, Side, TimeInForce
from core.messages.order_rules import OrderRules, check_amend, check_cancel, check_place
from tests.core.messages.order_bodies import ANY, LIMIT, MARKET, ORDER_ID, RULES, VECTORS, WITH_ACCOUNTS, name_of
from tests.core.messages.test_events import JSON_VALUES

refused = [vector for vector in VECTORS["place"] if "errors" in vector]
cancelled = [vector for vector in VECTORS["cancel"] if "errors" not in vector]
not_cancelled = [vector for vector in VECTORS["cancel"] if "errors" in vector]


def refusal(check: Callable[[object, OrderRules], object], body: object, rules: OrderRules = ANY) -> list[FieldError]:
    with pytest.raises(InvalidFields) as caught:
        check(body, rules)
    assert caught.value.errors
    return list(caught.value.errors)


@pytest.mark.parametrize("vector", refused, ids=name_of)
def test_check_place_names_every_broken_rule(vector: dict[str, Any]) -> None:
    errors = refusal(check_place, read_json(vector["body"].encode()), RULES[vector["rules"]])
    assert [list(error) for error in errors] == vector["errors"]


def test_check_place_takes_a_typed_order() -> None:
    body = {**LIMIT, "price": "1.50", "client_order_id": "c"}
    assert check_place(body, ANY) == PlaceOrder(
        "KCN/EUR", Side.BID, OrderType.LIMIT, Decimal("1.50"), Decimal(2), TimeInForce.GTC, "c"
    )


GIVEN = {
    "symbol": ["KCN/EUR", "BTC/EUR", "no symbol", None],
    "side": ["bid", "ask", "buy", 1],
    "order_type": ["limit", "market", "stop"],
    "price": ["1.5", "1.50", "0.105", "0", "-0", "-1", "1e2", "01", "9" * 38, "9" * 39, Decimal("1.5"), 2, True],
    "quantity": ["2", "0.125", "0.0001", "0", "x", "", 1],
    "client_order_id": ["c-1", "a" * 64, "a" * 65, "a b", "", 5, None],
    "time_in_force": ["GTC", "IOC", "FOK", "DAY", None],
    "deadline_ms": [1, "x"],
    "validate_only": [True, False],
    "post_only": [True],
}
BODIES = st.fixed_dictionaries(
    {name: st.sampled_from(values) for name, values in list(GIVEN.items())[:5]},
    optional={name: st.sampled_from(values) for name, values in list(GIVEN.items())[5:]},
)


@given(
    BODIES,
    st.sampled_from(
        [*RULES.values(), ANY, WITH_ACCOUNTS, OrderRules(attributes=(Attribute("post_only", Kind.BOOLEAN),))]
    ),
)
def test_order_that_is_read_at_once_is_the_one_that_is_read_field_by_field(
    body: dict[str, object], rules: OrderRules
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_rules, "_plain_order", lambda _body, _rules: None)
        by_field = outcome_of(body, rules)
    assert outcome_of(body, rules) == by_field


def outcome_of(body: object, rules: OrderRules) -> object:
    try:
        order = check_place(body, rules)
    except InvalidFields as error:
        return error.errors
    # Decimals that are equal may have other digits, which go out as they came.
    return order, str(order.price), str(order.quantity)


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
        "x" * 129,
        "\ud800",
        2**64,
        -(2**63) - 1,
        Decimal("1.0"),
        True,
        [],
        {},
    ],
)
def test_check_cancel_refuses_what_is_no_order_id(order_id: object) -> None:
    errors = refusal(check_cancel, {"order_id": order_id})
    assert errors == [FieldError("order_id", "expected text of 1 to 128 characters, or an integer")]


@given(st.dictionaries(st.sampled_from(["order_id", "client_order_id", "symbol", "extra"]), JSON_VALUES))
def test_check_cancel_raises_nothing_but_invalid_fields(body: dict[str, object]) -> None:
    try:
        cancel = check_cancel(body, ANY)
    except InvalidFields as error:
        assert error.errors
    else:
        assert (cancel.order_id is None) != (cancel.client_order_id is None)


@pytest.mark.parametrize("vector", [one for one in VECTORS["amend"] if "errors" in one], ids=name_of)
def test_check_amend_names_every_broken_rule(vector: dict[str, Any]) -> None:
    errors = refusal(check_amend, read_json(vector["body"].encode()), RULES[vector["rules"]])
    assert [list(error) for error in errors] == vector["errors"]


def test_amends_are_off_where_the_engine_or_an_account_service_does_not_know_them() -> None:
    assert OrderRules(amends=True).why_no_amends() is None
    assert "account service" in (OrderRules(amends=True, accounts=True).why_no_amends() or "")
    assert OrderRules().why_no_amends() and OrderRules(accounts=True).why_no_amends()
