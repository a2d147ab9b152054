"""What orders may carry besides, as the gateway tells it: in its documents and among the instruments."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from core.market.instrument_list import instrument_list
from core.messages.attributes import Attribute, Kind
from core.messages.model import Instrument
from handlers.documents import DOCS, with_attributes
from tests.core.messages.order_bodies import LIMIT, MARKET

DECLARED = (
    Attribute("post_only", Kind.BOOLEAN),
    Attribute("stp", Kind.ENUM, ("newest", "oldest"), "newest"),
    Attribute("note", Kind.STRING),
    Attribute("group", Kind.INTEGER),
    Attribute("stop", Kind.DECIMAL, default="1.50"),
    Attribute("label", Kind.STRING),
)
OPENAPI, ASYNCAPI = ((DOCS / name).read_bytes() for name in ("openapi.json", "asyncapi.json"))
GOOD: dict[str, Any] = {"post_only": True, "stp": "oldest", "note": "x", "group": 5, "stop": "0.1", "label": "y"}


def is_valid(document: bytes, schema: str, value: object) -> bool:
    whole = json.loads(document)
    return bool(Draft202012Validator({**whole, "$ref": f"#/components/schemas/{schema}"}).is_valid(value))


@pytest.mark.parametrize("document", [OPENAPI, ASYNCAPI], ids=["openapi", "asyncapi"])
def test_document_is_served_as_its_file_where_nothing_is_declared(document: bytes) -> None:
    assert with_attributes(document, ()) is document


@pytest.mark.parametrize("document", [OPENAPI, ASYNCAPI], ids=["openapi", "asyncapi"])
def test_document_says_nothing_else_where_something_is_declared(document: bytes) -> None:
    before = json.loads(document, parse_float=Decimal)
    after = json.loads(with_attributes(document, DECLARED), parse_float=Decimal)
    for schemas in (before["components"]["schemas"], after["components"]["schemas"]):
        for name in ("limitOrder", "marketOrder", "marketOrderByAmount", "placeOrder", "thalexInsert", "orderState"):
            for attribute in (*(one.name for one in DECLARED), "reject_post_only"):
                schemas.get(name, {}).get("properties", {}).pop(attribute, None)
    assert before == after
    # Numbers have the digits of the file, and what is declared is where readers look for it.
    assert str(after) == str(before)


@pytest.mark.parametrize(
    ("document", "schema"), [(OPENAPI, "order"), (ASYNCAPI, "placeOrder")], ids=["openapi", "asyncapi"]
)
@pytest.mark.parametrize("order", [LIMIT, {**MARKET, "quantity": "1"}], ids=["limit", "market"])
def test_document_knows_the_declared_attributes_and_no_other(
    document: bytes, schema: str, order: dict[str, Any]
) -> None:
    served = with_attributes(document, DECLARED)
    assert is_valid(served, schema, {**order, **GOOD})
    assert is_valid(served, schema, {**order, **dict.fromkeys(GOOD)})
    assert not is_valid(document, schema, {**order, "note": "x"})
    for name, wrong in (
        ("post_only", 1), ("stp", "x"), ("note", ""), ("note", "x" * 65), ("group", 1.5), ("group", 2**53), ("stop", True), ("other", 1),
    ):  # fmt: skip
        assert not is_valid(served, schema, {**order, name: wrong}), name


@pytest.mark.parametrize("document", [OPENAPI, ASYNCAPI], ids=["openapi", "asyncapi"])
def test_document_has_the_attributes_in_the_order_state(document: bytes) -> None:
    known: dict[str, Any] = {
        "order_id": "a", "client_order_id": None, "symbol": "A/B", "side": "bid", "order_type": "limit", "time_in_force": None,
        "price": "1", "quantity": "1", "filled_quantity": "0", "status": "open", "time": 1,
    }  # fmt: skip
    served = with_attributes(document, DECLARED)
    assert is_valid(served, "orderState", known) and is_valid(served, "orderState", {**known, **GOOD})
    assert not is_valid(served, "orderState", {**known, "stp": None})
    assert not is_valid(document, "orderState", {**known, "stp": "newest"})


def test_document_says_of_thalexs_orders_what_can_be_given_there() -> None:
    served = with_attributes(ASYNCAPI, DECLARED)
    order: dict[str, Any] = {"instrument_name": "A/B", "amount": 1, "price": 1, "direction": "buy"}
    assert is_valid(served, "thalexInsert", {**order, "post_only": True, "reject_post_only": True, "group": 5})
    assert not is_valid(ASYNCAPI, "thalexInsert", {**order, "post_only": True, "reject_post_only": True})
    schemas = (json.loads(document)["components"]["schemas"]["thalexInsert"] for document in (served, ASYNCAPI))
    assert len({json.dumps(schema["properties"]["label"]) for schema in schemas}) == 1


def test_instruments_tell_the_attributes_as_they_are_declared() -> None:
    told = instrument_list((), list, attributes=DECLARED)
    assert told == {
        "instruments": [],
        "attributes": {
            "post_only": {"type": "boolean"},
            "stp": {"type": "enum", "values": ["newest", "oldest"], "default": "newest"},
            "note": {"type": "string"},
            "group": {"type": "integer"},
            "stop": {"type": "decimal", "default": "1.50"},
            "label": {"type": "string"},
        },
    }
    assert instrument_list((), list) == {"instruments": []}
    limited = Instrument("A/B", *map(Decimal, ("0.10", "1", "1", "5.0", "1E+2", "2.5")))
    told = instrument_list((limited,), list, max_open_orders=7)
    assert told == {
        "instruments": [
            {
                "symbol": "A/B", "tick": "0.10", "lot": "1", "min_quantity": "1",
                "max_quantity": "5.0", "max_notional": "100", "price_band_percent": "2.5",
            }
        ],
        "max_open_orders": 7,
    }  # fmt: skip
    assert is_valid(OPENAPI, "instruments", told)
    assert is_valid(OPENAPI, "instruments", told)
