"""What a document of JSON schemas refers to: common to docs/openapi.json and docs/asyncapi.json."""

from __future__ import annotations

from collections.abc import Iterator


def references(value: object) -> Iterator[str]:
    """Every `$ref` in a document or a part of it, as often as it is there."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)
