"""docs/openapi-admin.json: a right OpenAPI 3.1 document, with the routes and methods of the code, and bodies as it takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from tornado.web import RequestHandler

import gateway
import handlers.admin
from core.errors import PROBLEMS, InvalidFields
from core.messages.admin_rules import (
    check_announce,
    check_block,
    check_disconnect,
    check_halt,
    check_nothing,
    check_resume,
    check_unblock,
)
from core.messages.control_records import TradingState
from handlers.admin_server import document_routes, page_routes
from tests.support.gateway import REPOSITORY
from tests.support.references import references
from tests.test_openapi import METHODS

DOCUMENT: dict[str, Any] = json.loads((REPOSITORY / "docs" / "openapi-admin.json").read_bytes())
COMPONENTS = DOCUMENT["components"]
OPERATIONS = {
    (method, path): operation for path, item in DOCUMENT["paths"].items() for method, operation in item.items()
}
_URI = "urn:openapi-admin"
_REGISTRY = Registry().with_resource(_URI, Resource(contents=DOCUMENT, specification=DRAFT202012))
CHECKS: dict[str, Callable[[object], object]] = {
    "disconnect": check_disconnect,
    "block": check_block,
    "unblock": check_unblock,
    "halt": check_halt,
    "resume": check_resume,
    "announce": check_announce,
    "nothing": check_nothing,
}


def faults(schema: dict[str, Any], value: object) -> list[str]:
    """What is wrong with a value by a schema that may refer to the document's others."""
    absolute = json.loads(json.dumps(schema).replace('"$ref": "#', f'"$ref": "{_URI}#'))
    return [error.message[:300] for error in Draft202012Validator(absolute, registry=_REGISTRY).iter_errors(value)]


def responses(operation: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for status, response in operation["responses"].items():
        name = response.get("$ref", "").rpartition("/")[2]
        yield int(status), COMPONENTS["responses"][name] if name else response


def test_document_is_valid_openapi_3_1_of_this_version() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []
    assert DOCUMENT["info"]["version"] == gateway.VERSION


def test_every_component_is_used() -> None:
    used = set(references(DOCUMENT))
    components = {
        f"#/components/{kind}/{name}"
        for kind, named in COMPONENTS.items()
        if kind != "securitySchemes"
        for name in named
    }
    assert components == used


def media() -> Iterator[Any]:
    for (method, path), operation in OPERATIONS.items():
        parts = [*responses(operation), *([(0, operation["requestBody"])] if "requestBody" in operation else [])]
        for status, part in parts:
            for content in part.get("content", {}).values():
                for name, example in content["examples"].items():
                    yield pytest.param(content["schema"], example["value"], id=f"{method} {path} {status} {name}")


@pytest.mark.parametrize(("schema", "example"), list(media()))
def test_example_is_what_its_schema_says(schema: dict[str, Any], example: object) -> None:
    assert faults(schema, example) == []


def test_routes_and_methods_are_those_of_the_code() -> None:
    unset: Any = None
    table = [*handlers.admin.routes(unset, unset), *document_routes(unset), *page_routes(unset)]
    found = set()
    for path, item in DOCUMENT["paths"].items():
        pattern, handler = next((row[0], row[1]) for row in table if re.fullmatch(row[0], path))
        found.add(pattern)
        taken = {name for name in METHODS if getattr(handler, name, None) is not getattr(RequestHandler, name, None)}
        assert item.keys() == taken, path
    # What the page is made of, and the way to it.
    shared = {r"/(?:admin)?", r"/admin/page/(.+)", r"/console/((?:console\.css|dom\.js|favicon\.svg))"}
    assert found | shared == {row[0] for row in table}


def test_every_refusal_is_a_problem_of_the_public_table() -> None:
    by_type = {problem.type: problem for problem in PROBLEMS.values()}
    for operation in OPERATIONS.values():
        for status, response in responses(operation):
            assert "X-Request-Id" in response["headers"]
            if status >= 400:
                [example] = response["content"]["application/problem+json"]["examples"].values()
                problem = by_type[example["value"]["type"]]
                assert (problem.status, problem.title) == (status, example["value"]["title"])


def test_only_the_page_and_the_document_need_no_token() -> None:
    free = {path for (method, path), one in OPERATIONS.items() if one.get("security") == [] and method != "options"}
    assert free == {"/admin/", "/admin/openapi.json"}
    assert all(401 in dict(responses(one)) for one in OPERATIONS.values() if "security" not in one)


def test_announcement_has_the_states_there_are() -> None:
    assert COMPONENTS["schemas"]["announce"]["properties"]["state"]["enum"] == list(TradingState)


BODIES = [
    {}, [], {"user_id": "a"}, {"user_id": 1}, {"user_id": None}, {"client": "a-1"}, {"client": "a-1", "user_id": "a"},
    {"user_id": "a", "reason": "why"}, {"user_id": "a", "reason": 1}, {"user_id": "a", "cancel_open": True},
    {"user_id": "a", "cancel_open": "yes"}, {"user_id": "a", "surplus": 1}, {"symbol": None}, {"symbol": "KCN/EUR"},
    {"symbol": 1}, {"symbol": None, "reason": "why"}, {"symbol": None, "reason": []}, {"symbl": None},
    {"state": "halted"}, {"state": 1}, {"state": None}, {"state": "halted", "symbols": ["KCN/EUR"], "message": "m"},
    {"state": "halted", "symbols": "KCN/EUR"}, {"state": "halted", "symbols": [1]}, {"state": "halted", "from_ms": 1},
    {"state": "halted", "from_ms": 1.5}, {"state": "halted", "until_ms": "1"}, {"state": "halted", "until_ms": True},
]  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_schema_of_a_body_takes_what_the_gateway_takes(name: str) -> None:
    taken = 0
    for body in BODIES:
        try:
            CHECKS[name](body)
        except InvalidFields as error:
            assert error.errors
            assert faults({"$ref": f"#/components/schemas/{name}"}, body), body
        else:
            assert faults({"$ref": f"#/components/schemas/{name}"}, body) == [], body
            taken += 1
    assert 0 < taken < len(BODIES)
