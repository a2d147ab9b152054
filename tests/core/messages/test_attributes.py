"""Attributes that an operator declares: what may be given, and what becomes of it in terms, command and record."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidFields
from core.messages.attributes import MAX_WHOLE, RESERVED, Attribute, Kind, Value, attribute_values, attributes_of_record
from core.messages.commands import PlaceOrder
from core.messages.model import OrderType, Side, TimeInForce
from core.messages.order_records import PlacedRecord, read_order_record
from core.messages.order_rules import OrderRules, check_place
from core.orders.order import Order, Outcome, state
from tests.core.messages.order_bodies import ANY, LIMIT, MARKET, ORDER_ID

DECLARED = (
    Attribute("post_only", Kind.BOOLEAN),
    Attribute("stp", Kind.ENUM, ("newest", "oldest"), "newest"),
    Attribute("note", Kind.STRING),
    Attribute("group", Kind.INTEGER),
    Attribute("stop", Kind.DECIMAL, default="1.50"),
)
DEFAULTS = {"stp": "newest", "stop": "1.50"}
RULES = OrderRules(attributes=DECLARED)


def checked(rules: OrderRules = RULES, **given: object) -> PlaceOrder:
    return check_place({**LIMIT, "client_order_id": "mine", **given}, rules)


def command(order: PlaceOrder) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(order.encode(ORDER_ID, "ann", 7))
    return read


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("post_only", True, True),
        ("post_only", False, False),
        ("stp", "oldest", "oldest"),
        ("note", "x" * 64, "x" * 64),
        ("note", 'ä"\\\n\U0001f600', 'ä"\\\n\U0001f600'),
        ("group", 0, 0),
        ("group", -5, -5),
        ("stop", "0.10", "0.10"),
        ("stop", Decimal("-1e-7"), "-0.0000001"),
        ("stop", 3, "3"),
    ],
)
def test_attribute_is_in_the_command_as_it_was_given(name: str, value: object, kept: Value) -> None:
    made, plain = command(checked(**{name: value})), command(checked())
    assert (made[name], type(made[name])) == (kept, type(kept))
    assert {**plain, name: kept, "terms_hash": made["terms_hash"]} == made


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("post_only", [1, 0, "true", [], {}, Decimal(1)]),
        ("stp", ["", "Newest", True, 1, [], {}]),
        ("note", ["", "x" * 65, "\ud800", 1, True, [], {}]),
        ("group", [True, "1", Decimal("1.0"), MAX_WHOLE + 1, -MAX_WHOLE - 1, [], {}]),
        ("stop", ["", "1,5", True, "NaN", Decimal("NaN"), "1" * 39, [], {}]),
    ],
)
def test_attribute_that_does_not_fit_is_blamed_by_its_name(name: str, wrong: list[object]) -> None:
    for value in wrong:
        with pytest.raises(InvalidFields) as caught:
            checked(**{name: value})
        assert [error.field for error in caught.value.errors] == [name]


def test_attribute_of_an_enum_says_what_it_may_be() -> None:
    with pytest.raises(InvalidFields, match='expected "newest" or "oldest"'):
        checked(stp="both")


def test_attribute_that_is_not_declared_is_an_unknown_field() -> None:
    for rules in (ANY, OrderRules(attributes=DECLARED[:1]), OrderRules(attributes=DECLARED[:1], accounts=True)):
        with pytest.raises(InvalidFields) as caught:
            checked(rules, note="x")
        assert [tuple(error) for error in caught.value.errors] == [("note", "unknown field")]


def test_attributes_hold_for_market_orders_too() -> None:
    order = check_place({**MARKET, "quantity": 1, "group": 3}, RULES)
    assert command(order)["group"] == 3


def test_attribute_that_is_null_or_left_out_is_as_by_default() -> None:
    assert checked(post_only=None, stp=None) == checked() == checked(stp="newest", stop="1.50")
    made = command(checked())
    assert {name: made.get(name) for name in ("post_only", "stp", "note", "group", "stop")} == {
        "post_only": None, "stp": "newest", "note": None, "group": None, "stop": "1.50",
    }  # fmt: skip


# Terms.


def test_order_without_attributes_has_the_hash_and_the_command_that_it_always_had() -> None:
    plain = checked(ANY)
    declared = checked(OrderRules(attributes=DECLARED[:1]))
    assert declared == plain
    golden = b'["KCN/EUR","bid","limit","1.5","2","GTC"]'
    assert plain.terms_hash == hashlib.sha256(golden).hexdigest()
    assert declared.encode(ORDER_ID, "ann", 7) == plain.encode(ORDER_ID, "ann", 7)
    # So that an attribute can be declared while orders are being repeated.
    assert checked().terms_hash == plain.terms_hash


@pytest.mark.parametrize(
    "other",
    [{"post_only": True}, {"post_only": False}, {"stp": "oldest"}, {"note": "x"}, {"group": 1}, {"stop": "1.51"}],
)
def test_attributes_are_among_the_terms(other: dict[str, object]) -> None:
    assert checked(**other).terms_hash != checked().terms_hash


def test_terms_tell_attributes_of_like_values_apart() -> None:
    same_values: list[dict[str, object]] = [
        {"group": 1},
        {"post_only": True},
        {"note": "1"},
        {"note": "true"},
        {"stop": 1},
    ]
    assert len({checked(**each).terms_hash for each in same_values}) == len(same_values)


def test_terms_are_the_same_in_any_spelling_and_order_of_declarations() -> None:
    reverse = OrderRules(attributes=DECLARED[::-1])
    given: dict[str, object] = {"stop": "2.0", "post_only": True, "group": 4}
    assert checked(**given).terms_hash == checked(reverse, **{**given, "stop": Decimal("2.000")}).terms_hash
    assert checked(stop="1.5").terms_hash == checked().terms_hash


# Read back.


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "post_only": st.booleans(),
            "stp": st.sampled_from(["newest", "oldest"]),
            "note": st.text(st.characters(codec="utf-8"), min_size=1, max_size=64),
            "group": st.integers(-MAX_WHOLE, MAX_WHOLE),
            "stop": st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-1000, max_value=1000),
        },
    )
)
def test_record_says_of_attributes_what_the_command_said(given: dict[str, object]) -> None:
    order = checked(**given)
    record = read_order_record(order.encode(ORDER_ID, "ann", 7), DECLARED)
    assert isinstance(record, PlacedRecord)
    assert (record.attributes, record.terms_hash) == (order.attributes, order.terms_hash)
    told = json.loads(order.encode(ORDER_ID, "ann", 7))
    told.pop("terms_hash")
    again = read_order_record(json.dumps(told).encode(), DECLARED)
    assert isinstance(again, PlacedRecord) and again.terms_hash == order.terms_hash


def test_record_has_no_attribute_that_is_not_declared_or_cannot_be_read() -> None:
    value = json.dumps(
        command(checked(post_only=True)) | {"group": "x", "note": 5, "other": True, "stp": None}
    ).encode()
    for declared, expected in (((), {}), (DECLARED, {"post_only": True, "stop": "1.50"})):
        record = read_order_record(value, declared)
        assert isinstance(record, PlacedRecord)
        assert attribute_values(record.attributes) == expected


# What it is called.


def test_names_of_orders_commands_and_states_are_reserved() -> None:
    order = Order(
        "a", "u", None, "A/B", Side.BID, OrderType.LIMIT, TimeInForce.GTC, "1", "1", None, 1, 1, Outcome.ACCEPTED,
        reason="x",
    )  # fmt: skip
    used = {*OrderRules(accounts=True).place_fields, *command(checked(ANY)), *state(order), "reason", "type", "id"}
    assert used <= RESERVED
    assert {name for name in PlaceOrder.__struct_fields__ if not name.startswith("attribute")} <= RESERVED


def test_order_state_has_attributes_under_their_names() -> None:
    order = Order(
        "a", "u", None, "A/B", Side.BID, OrderType.LIMIT, TimeInForce.GTC, "1", "1", None, 1, 1, Outcome.ACCEPTED,
        attributes='{"post_only":true,"group":1}',
    )  # fmt: skip
    shown = state(order)
    assert (shown["post_only"], shown["group"]) == (True, 1)
    order.attributes = ""
    assert state(order) == {name: value for name, value in shown.items() if name not in ("post_only", "group")}


def test_record_without_attributes_has_none() -> None:
    assert attributes_of_record({"symbol": "KCN/EUR", "post_only": None}, DECLARED) == ("", "")
