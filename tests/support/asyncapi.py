"""docs/asyncapi.json as a thing to test with: which documented messages is this one, and what is wrong with it.

Everything is read with Decimal: notifications have more digits than doubles.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any

from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from tests.support.gateway import REPOSITORY

DOCUMENT_FILE = REPOSITORY / "docs" / "asyncapi.json"
_URI = "urn:asyncapi"


def read_json(text: bytes | str) -> Any:
    """JSON with every digit of its fractions."""
    return json.loads(text, parse_float=Decimal)


DOCUMENT: dict[str, Any] = read_json(DOCUMENT_FILE.read_bytes())
CHANNEL: dict[str, Any] = DOCUMENT["channels"]["ws"]
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
OPERATIONS: dict[str, Any] = DOCUMENT["operations"]
_REGISTRY = Registry().with_resource(_URI, Resource(contents=DOCUMENT, specification=DRAFT7))


def resolve(reference: str) -> Any:
    """What a `$ref` within the document points at. KeyError if there is no such thing."""
    found: Any = {"#": DOCUMENT}
    for part in reference.split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def message_names(references: list[dict[str, str]]) -> list[str]:
    """Names of the messages that an operation or reply refers to. Fails for one that is not the channel's."""
    prefix = "#/channels/ws/messages/"
    assert all(reference["$ref"].startswith(prefix) for reference in references)
    names = [reference["$ref"].removeprefix(prefix) for reference in references]
    assert all(CHANNEL["messages"][name] == {"$ref": f"#/components/messages/{name}"} for name in names)
    return names


SENT = sorted({name for o in OPERATIONS.values() if o["action"] == "send" for name in message_names(o["messages"])})
# What asks for something, and the first of the answers that it can get.
REPLIES = {
    message_names(o["messages"])[0]: message_names(o["reply"]["messages"])
    for o in OPERATIONS.values()
    if o["action"] == "receive"
}


@cache
def validator(name: str) -> Draft7Validator:
    """Holds payloads to the schema of a message."""
    return Draft7Validator({"$ref": f"{_URI}#/components/messages/{name}/payload"}, registry=_REGISTRY)


@cache
def schema_validator(name: str) -> Draft7Validator:
    """Holds values to one of the components' schemas."""
    return Draft7Validator({"$ref": f"{_URI}#/components/schemas/{name}"}, registry=_REGISTRY)


def faults(name: str, payload: object) -> list[str]:
    """What is wrong with a message, deepest first where a schema has alternatives."""
    return [
        f"{error.json_path}: {error.message[:300]}"
        for top in validator(name).iter_errors(payload)
        for error in (*_below(top), top)
    ]


def _below(error: Any) -> Iterator[Any]:
    for inner in error.context or ():
        yield from _below(inner)
        yield inner


def kinds(payload: object) -> list[str]:
    """Every message that the gateway sends unasked and that this payload is one of."""
    return [name for name in SENT if validator(name).is_valid(payload)]


def examples(names: list[str] | None = None) -> list[Any]:
    """(message, name, payload) of every example, of these messages or all."""
    return [
        (name, example["name"], example["payload"])
        for name in (MESSAGES if names is None else names)
        for example in MESSAGES[name]["examples"]
    ]


def code_of(message: Any) -> int:
    """The code of an error, which has to be one that is documented."""
    assert faults("error", message) == []
    return int(message["error"]["code"])
