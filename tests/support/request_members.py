"""Requests as the documents have them, and each of their members null or gone: what is not there yet is covered by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

Path = tuple[str | int, ...]


def members(schema: Any, resolve: Callable[[str], Any]) -> set[str]:
    """Every member that a schema speaks of, in whatever alternative."""
    if not isinstance(schema, dict):
        return set()
    found = set(schema.get("properties", ()))
    for name in ("anyOf", "oneOf", "allOf"):
        found |= {member for inner in schema.get(name, ()) for member in members(inner, resolve)}
    if "$ref" in schema:
        found |= members(resolve(schema["$ref"]), resolve)
    return found


def objects(value: Any, schema: Any, resolve: Callable[[str], Any], path: Path = ()) -> Iterator[tuple[Path, set[str]]]:
    """Every object in a request: where it is, and the members that it has or may have."""
    while isinstance(schema, dict) and "$ref" in schema:
        schema = resolve(schema["$ref"])
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(value, dict):
        yield path, set(value) | members(schema, resolve)
        for name, inner in value.items():
            yield from objects(inner, schema.get("properties", {}).get(name), resolve, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from objects(inner, schema.get("items"), resolve, (*path, place))


def with_member_null(request: Any, path: Path, member: str) -> tuple[Any, Any]:
    """The request with this member null, and without it."""
    null, without = copy.deepcopy(request), copy.deepcopy(request)
    for one in (null, without):
        inner = one
        for part in path:
            inner = inner[part]
        inner.pop(member, None)
        if one is null:
            inner[member] = None
    return null, without
