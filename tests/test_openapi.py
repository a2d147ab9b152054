"""docs/openapi.json: a right OpenAPI 3.1 document, and a true one. It has the routes, methods and problems of the code, and
examples that are what their schemas say; what a live gateway answers is held to it in tests/integration/test_openapi.py and
tests/integration/test_openapi_fuzz.py.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from tornado.web import RequestHandler

import gateway
import handlers.amends
import handlers.balance
import handlers.candles
import handlers.console
import handlers.documents
import handlers.fills
import handlers.health
import handlers.market_data
import handlers.orders
import handlers.passthrough
import handlers.status
import handlers.timers
import handlers.websocket
from core.errors import PROBLEMS, InvalidFields
from core.messages.batch_rules import check_batch
from core.messages.order_rules import (
    OrderRules,
    check_amend,
    check_cancel,
    check_cancel_all,
    check_cancel_all_after,
    check_place,
)
from handlers.problems import CORS_ANSWER_HEADERS
from tests.support.asyncapi import schema_validator
from tests.support.gateway import REPOSITORY
from tests.support.references import references

DOCUMENT_FILE = REPOSITORY / "docs" / "openapi.json"
DOCUMENT: dict[str, Any] = json.loads(DOCUMENT_FILE.read_bytes())
COMPONENTS = DOCUMENT["components"]
METHODS = ("get", "head", "post", "delete", "patch", "put", "options", "trace")
OPERATIONS = {
    (method, path): operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if method in METHODS
}
SYMBOL = "KCN/EUR"
_URI = "urn:openapi"
_REGISTRY = Registry().with_resource(_URI, Resource(contents=DOCUMENT, specification=DRAFT202012))


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """What a `$ref` stands for, or the value itself."""
    found: Any = {"#": DOCUMENT}
    for part in value.get("$ref", "").split("/") if "$ref" in value else ():
        found = found[part]
    return found if "$ref" in value else value


def faults(schema: dict[str, Any], value: object) -> list[str]:
    """What is wrong with a value by a schema that may refer to the document's others."""
    return [f"{error.json_path}: {error.message[:300]}" for error in _validator(json.dumps(schema)).iter_errors(value)]


@cache
def _validator(schema: str) -> Draft202012Validator:
    absolute = json.loads(schema.replace('"$ref": "#', f'"$ref": "{_URI}#'))
    return Draft202012Validator(absolute, registry=_REGISTRY)


def responses(operation: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {int(status): resolved(response) for status, response in operation["responses"].items()}


# The document as such.


def test_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_every_reference_resolves_and_every_component_is_used() -> None:
    used = set(references(DOCUMENT))
    for reference in used:
        assert resolved({"$ref": reference})
    used |= {f"#/components/securitySchemes/{name}" for o in OPERATIONS.values() for s in security(o) for name in s}
    components = [f"#/components/{kind}/{name}" for kind, named in COMPONENTS.items() for name in named]
    assert [component for component in components if component not in used] == []


def media() -> Iterator[Any]:
    """Every (where, schema, example)."""
    for (method, path), operation in OPERATIONS.items():
        parts = [("request", operation["requestBody"])] if "requestBody" in operation else []
        parts += [(str(status), response) for status, response in responses(operation).items()]
        for name, part in parts:
            for content in part.get("content", {}).values():
                for example, value in content.get("examples", {"": {"value": content.get("example")}}).items():
                    yield pytest.param(
                        content["schema"], value["value"], id=" ".join([method, path, name, example]).strip()
                    )
    for name, header in COMPONENTS["headers"].items():
        yield pytest.param(header["schema"], header["example"], id=f"header {name}")
    for item in [*DOCUMENT["paths"].values(), *OPERATIONS.values()]:
        for parameter in item.get("parameters", ()):
            yield pytest.param(parameter["schema"], parameter["example"], id=f"parameter {parameter['name']}")
    for name, schema in COMPONENTS["schemas"].items():
        for number, example in enumerate(schema.get("examples", ())):
            yield pytest.param({"$ref": f"#/components/schemas/{name}"}, example, id=f"schema {name} {number}")


@pytest.mark.parametrize(("schema", "example"), list(media()))
def test_example_is_what_its_schema_says(schema: dict[str, Any], example: object) -> None:
    assert faults(schema, example) == []


def test_schemas_refuse_what_the_gateway_refuses() -> None:
    order = {"side": "bid", "order_type": "limit", "price": "25.00", "quantity": "1.5"}
    market = {"side": "bid", "order_type": "market", "quantity": "1.5"}
    bad = [
        *({**order, "price": price} for price in (None, "", "0", "0.00", "-1", "01", "1.", ".5", True, 0, -1, "NaN")),
        *({**order, "quantity": text} for text in ("1" * 39, "0." + "1" * 39, "1" * 20 + "." + "1" * 19)),
        *({**order, "client_order_id": name} for name in ("", "a b", "a" * 65, 1)),
        *({**order, name: value} for name, value in (("side", "buy"), ("surplus", 1), ("symbol", "KCN"))),
        {**market, "price": "1"},
        {**market, "time_in_force": "GTC"},
        [order],
    ]
    good = [
        *(
            {**order, "price": price}
            for price in ("0.10", 1, 0.5, "1" * 38, "0." + "1" * 38, "1" * 19 + "." + "1" * 19)
        ),
        {**order, "symbol": None, "client_order_id": None, "time_in_force": None},
        market,
        {**market, "price": None, "time_in_force": "FOK"},
    ]
    rules = OrderRules(default_symbol=SYMBOL)
    schema = {"$ref": "#/components/schemas/order"}
    for body in bad:
        assert faults(schema, body), body
        with pytest.raises(InvalidFields):
            check_place(body, rules)
    for body in good:
        assert faults(schema, body) == [], body
        if not isinstance(body.get("price"), float):  # as which no body is read
            check_place(body, rules)


LEFT_OUT = object()
PLACES = {
    "side": ["bid"],
    "order_type": ["limit", "market"],
    "price": [LEFT_OUT, None, "1", "x"],
    "quantity": [LEFT_OUT, None, "0.10"],
    "quote_amount": [LEFT_OUT, None, 1, -1],
    "max_slippage_price": [LEFT_OUT, None, "1.50"],
    "time_in_force": [LEFT_OUT, None, "GTC", "FOK"],
}
CANCELS = {
    "order_id": [LEFT_OUT, None, "19D9E653-E8AB-5BA8-9a85-1fe06f35e85e", "815", 815, "-1", -1, "x"],
    "client_order_id": [LEFT_OUT, None, "A-1._:", "a b"],
    "symbol": [LEFT_OUT, None, SYMBOL, "KCN"],
    "surplus": [LEFT_OUT, None],
}


def bodies(members: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of these values."""
    for values in itertools.product(*members.values()):
        yield {name: value for name, value in zip(members, values, strict=True) if value is not LEFT_OUT}


def is_taken(check: Callable[[object, OrderRules], object], body: object) -> bool:
    try:
        check(body, OrderRules(default_symbol=SYMBOL, accounts=True))
    except InvalidFields:
        return False
    return True


def test_schema_of_an_order_takes_what_the_gateway_takes() -> None:
    """Where there is an account service: every member counts. The schema of the WebSocket says the same."""
    taken = 0
    for body in bodies(PLACES):
        wanted = is_taken(check_place, body)
        assert (faults({"$ref": "#/components/schemas/order"}, body) == []) is wanted, body
        assert schema_validator("placeOrder").is_valid(body) is wanted, body
        taken += wanted
    assert taken > 50


def test_schema_of_a_cancel_takes_what_the_gateway_takes() -> None:
    for body in bodies(CANCELS):
        wanted = is_taken(check_cancel, body)
        assert (faults({"$ref": "#/components/schemas/cancel"}, body) == []) is wanted, body
        if body.get("order_id") not in ("-1", "x", -1):  # ids of engines are not looked at so closely there
            assert schema_validator("cancelOrder").is_valid(body) is wanted, body


def test_example_requests_are_taken() -> None:
    rules = OrderRules(default_symbol=SYMBOL)
    checks: dict[str, Callable[[Any, OrderRules], Any]] = {
        "placeOrder": check_place,
        "cancelOrder": check_cancel,
        "amendOrder": check_amend,
        "batchOrders": check_batch,
        "cancelAllOrders": check_cancel_all,
        "cancelAllOrdersAfter": check_cancel_all_after,
    }
    for operation in OPERATIONS.values():
        if "requestBody" in operation:
            for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
                body = json.loads(json.dumps(example["value"]), parse_float=str)
                checks[operation["operationId"]](body, rules)


# The document and the code say the same.


def test_version_is_the_gateways() -> None:
    assert DOCUMENT["info"]["version"] == gateway.VERSION


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Every route but those that are passed through, in the order in which they are tried."""
    unset: Any = None
    tables = [
        handlers.websocket.routes(unset, unset, unset, unset, unset),
        handlers.amends.routes(unset, unset, unset, unset, unset),
        handlers.timers.routes(unset, unset, unset),
        handlers.orders.routes(unset, unset, unset, unset, unset),
        handlers.market_data.routes(unset, unset),
        handlers.candles.routes(unset, unset),
        handlers.fills.routes(unset, unset, unset, unset, unset),
        handlers.balance.routes(unset, unset),
        handlers.status.routes(unset, unset),
        handlers.health.routes(unset, unset, unset),
        handlers.health.metrics_routes(unset, unset),
        handlers.documents.routes(unset),
        handlers.console.routes(unset),
    ]
    return [(row[0], row[1]) for table in tables for row in table]


def test_every_room_is_looked_at() -> None:
    # What operators ask has a document of its own: tests/test_openapi_admin.py.
    rooms = {name for name in vars(handlers) if hasattr(vars(handlers)[name], "routes")} - {"admin"}
    assert rooms == {
        "amends",
        "timers",
        "websocket",
        "orders",
        "market_data",
        "candles",
        "fills",
        "balance",
        "status",
        "health",
        "documents",
        "console",
        "passthrough",
    }


def test_routes_and_methods_are_those_of_the_code() -> None:
    found = set()
    for path, item in DOCUMENT["paths"].items():
        target = re.sub(r"\{\w+\}", "x", path)
        pattern, handler = next(row for row in routes() if re.fullmatch(row[0], target))
        found.add(pattern)
        taken = {
            method for method in METHODS if getattr(handler, method, None) is not getattr(RequestHandler, method, None)
        }
        assert item.keys() & set(METHODS) == taken, path
    assert found == {pattern for pattern, _ in routes()}


def test_what_is_passed_through_is_told() -> None:
    text = DOCUMENT["info"]["description"]
    told = [
        "/auth/*", "/api/me and below", "/api/balances and below", "/api/orders and below", "/api/faucet/*",
        "/api/ohlcv and below",
    ]  # fmt: skip
    assert all(one in text for one in [*told, "1 MiB", "/internal", "bad-gateway", "gateway-timeout"])
    assert handlers.passthrough.PATHS == r"(?:/auth/.*|/api/(?:me|balances|orders|ohlcv)(?:/.*)?|/api/faucet/.*)"
    assert handlers.passthrough.MAX_BODY_BYTES == 1024 * 1024


def shown_problems() -> Iterator[tuple[int, dict[str, Any]]]:
    for operation in OPERATIONS.values():
        for status, response in responses(operation).items():
            for example in response.get("content", {}).get("application/problem+json", {}).get("examples", {}).values():
                yield status, example["value"]


def test_problems_are_the_public_table() -> None:
    schema = COMPONENTS["schemas"]["problem"]["properties"]
    assert schema["type"]["enum"] == [problem.type for problem in PROBLEMS.values()]
    by_type = {problem.type: problem for problem in PROBLEMS.values()}
    shown = set()
    for status, body in shown_problems():
        problem = by_type[body["type"]]
        assert (body["status"], body["title"]) == (problem.status, problem.title) == (status, problem.title)
        assert body["detail"] == body["error"]
        shown.add(problem.slug)
    # What only a route can be answered with that is passed through, and what any can before it is one, is in the description.
    passed_through, any_route = (
        {"bad-gateway", "gateway-timeout"},
        {"request-timeout", "target-too-long", "headers-too-large"},
    )
    assert PROBLEMS.keys() - shown == passed_through | any_route


def test_every_answer_has_the_request_id_and_every_error_is_a_problem() -> None:
    for name, operation in OPERATIONS.items():
        for status, response in responses(operation).items():
            assert response["headers"]["X-Request-Id"] == {"$ref": "#/components/headers/requestId"}
            is_bare = name[0] == "head" or status == 416 or name == ("get", "/ready")
            if status >= 400 and not is_bare:
                assert response["content"].keys() == {"application/problem+json"}, (name, status)
        assert {405, 500} <= responses(operation).keys(), name


def test_headers_that_pages_of_other_origins_may_read_are_told() -> None:
    told = {name for o in OPERATIONS.values() for r in responses(o).values() for name in r.get("headers", {})}
    assert set(CORS_ANSWER_HEADERS.split(", ")) <= told


def security(operation: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = operation.get("security", DOCUMENT["security"])
    return found


NEED_A_TOKEN = [key for key, operation in OPERATIONS.items() if any("bearer" in one for one in security(operation))]


def test_orders_fills_and_balances_alone_have_to_do_with_tokens() -> None:
    own = {path for path in DOCUMENT["paths"] if any(word in path for word in ("order", "fills", "balance"))}
    assert {path for _, path in NEED_A_TOKEN} == own | {"/ws"}
