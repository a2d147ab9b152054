"""docs/site/messages.py: everything that docs/asyncapi.json has is on the page that the site makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from docs.site.messages import page
from tests.support.asyncapi import CHANNEL, DOCUMENT, DOCUMENT_FILE, MESSAGES, OPERATIONS, message_names, read_json

PAGE = page(DOCUMENT_FILE.read_text(encoding="utf-8"))


def section(target: str) -> str:
    """From a link's target to the next heading."""
    [(heading, text)] = re.findall(rf"^\({target}\)=\n(#+) (.*?)(?=^#|^\(|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert heading in ("###", "####")
    return str(text)


def chapter(heading: str) -> str:
    [text] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


def plain(text: str) -> str:
    """Without Markdown's backslashes."""
    return re.sub(r"\\([\\`*_<\[\]|])", r"\1", text)


def texts(value: Any) -> Iterator[str]:
    """Every description within a part of the document."""
    if isinstance(value, dict) and isinstance(value.get("description"), str):
        yield value["description"]
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts(inner)


def field_rows(text: str) -> dict[str, list[str]]:
    """Of a table of fields: name to type, whether it is required, and description."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {name.strip("`"): rest for name, *rest in lines}


def small(payload: dict[str, Any], **schemas: dict[str, Any]) -> dict[str, list[str]]:
    """The rows of a document's only message."""
    message = {"title": "M", "summary": "S", "tags": [{"name": "t"}], "payload": payload, "examples": []}
    document = {
        "info": {"description": "", "tags": [{"name": "t", "description": "T"}]},
        "servers": {},
        "channels": {},
        "operations": {},
        "components": {"messages": {"m": message}, "schemas": schemas},
    }
    return field_rows(page(json.dumps(document)).partition("(message-m)=")[2].partition("## Types")[0])


def test_page_has_every_channel() -> None:
    channels = plain(chapter("Channels"))
    for channel in DOCUMENT["channels"].values():
        assert f"### {channel['address']}\n\n{channel['summary']} {channel['description']}\n" in channels
        for name, parameter in channel["bindings"]["ws"]["query"]["properties"].items():
            assert field_rows(channels)[name][-1].startswith(parameter["description"])
    for code in CHANNEL["x-error-codes"] + CHANNEL["x-close-codes"]:
        assert f"| {' | '.join(map(str, code.values()))} |" in channels


@pytest.mark.parametrize("name", OPERATIONS)
def test_page_has_an_operation(name: str) -> None:
    operation = OPERATIONS[name]
    own = section(f"operation-{name.lower()}")
    assert own in chapter({"receive": "What a client sends", "send": "What the gateway sends"}[operation["action"]])
    assert plain(own).startswith(f"{operation['title']}\n\n{operation['summary']}")
    assert operation.get("description", "") in plain(own)
    linked = message_names([*operation["messages"], *operation.get("reply", {"messages": []})["messages"]])
    assert re.findall(r"\(#message-(\w+)\)", own) == [message.lower() for message in linked]


@pytest.mark.parametrize("name", MESSAGES)
def test_page_has_a_message(name: str) -> None:
    message = MESSAGES[name]
    own = section(f"message-{name.lower()}")
    assert plain(own).startswith(f"{message['title']}\n\n{message['summary']}")
    assert message.get("description", "") in plain(own)
    fields = field_rows(own)
    required = message["payload"].get("required", [])
    for field in message["payload"].get("properties", {}):
        assert fields[field][1] == ("yes" if field in required else "")
    blocks = [read_json(block) for block in re.findall(r"```json\n(.*?)\n```", own, re.DOTALL)]
    for example in message["examples"]:
        assert f"Example: {example['summary']}" in plain(own)
        assert example["payload"] in blocks


def test_page_has_every_description_of_a_field_or_type() -> None:
    told = plain(PAGE)
    missing = {text for text in texts(DOCUMENT["components"]["schemas"]) if text not in told}
    assert sorted(missing | {text for name in MESSAGES for text in texts(MESSAGES[name]) if text not in told}) == []


def test_page_has_no_link_that_leads_nowhere_and_no_two_places_of_one_name() -> None:
    targets = re.findall(r"^\((.*)\)=$", PAGE, re.MULTILINE)
    assert len(targets) == len(set(targets))
    assert set(re.findall(r"\]\(#(.*?)\)", PAGE)) <= set(targets)


def test_page_has_the_fields_of_a_named_object_in_its_place_and_links_from_there() -> None:
    inner = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^a|b$"}}}
    outer = {"type": "object", "description": "Outer.", "required": ["in"], "properties": {"in": {"$ref": "#/components/schemas/inner"}}}  # fmt: skip
    payload = {"properties": {"a": {"type": "object", "properties": {"out": {"$ref": "#/components/schemas/outer"}}}}}
    rows = small(payload, inner=inner, outer=outer)
    assert rows == {
        "a": ["object", "", ""],
        "a.out": ["object", "", "Outer."],
        "a.out.in": ["[inner](#type-inner)", "yes", ""],
    }


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 5}, "integer (at least 1, at most 5)"),
        ({"type": "number", "exclusiveMinimum": 0}, "number (more than 0)"),
        ({"type": ["string", "null"], "pattern": "^(a|b)$"}, r"string or null (`^(a\|b)$`)"),
        ({"enum": ["bid", "ask", None]}, '`"bid"` or `"ask"` or `null`'),
        ({"const": False}, "`false`"),
        ({}, "anything"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 1}, "array of string (at least 1 of them)"),
        ({"type": "array", "items": [{"type": "number"}, {"const": 0}]}, "array of 2: number, `0`"),
        ({"anyOf": [{"$ref": "#/components/schemas/count"}, {"type": "null"}]}, "integer (at least 0) or null"),
        ({"anyOf": [{"$ref": "#/components/schemas/name"}, {"type": "boolean"}]}, "[name](#type-name) or boolean"),
    ],
)
def test_page_says_what_a_field_is(schema: dict[str, Any], words: str) -> None:
    named = {"count": {"type": "integer", "minimum": 0}, "name": {"type": "string", "pattern": "^a$"}}
    assert small({"properties": {"x": schema}}, **named)["x"][0] == words


def test_page_shows_as_it_stands_what_a_table_cannot_tell() -> None:
    conditions = MESSAGES["placeOrder"]["payload"]["properties"]["params"]["$ref"].rpartition("/")[2]
    schema = DOCUMENT["components"]["schemas"][conditions]
    blocks = re.findall(r"Of `params` also holds.*?```json\n(.*?)\n```", section("message-placeorder"), re.DOTALL)
    assert [read_json(block) for block in blocks] == [{key: schema[key] for key in ("if", "then", "else")}]
