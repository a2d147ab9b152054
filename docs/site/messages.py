"""docs/asyncapi.json as a page of the site: Markdown, written while Sphinx reads the document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

Schema = dict[str, Any]

# A schema of these alone is told where it is used; any other that has a name has a place of its own, and links lead there.
PLAIN = {"type", "const", "enum", "minimum", "maximum", "description"}
# What the words and rows below tell of. Whatever else a schema says is shown as it stands.
TOLD = PLAIN | {
    "$ref", "properties", "patternProperties", "additionalProperties", "propertyNames", "required", "items",
    "additionalItems", "pattern", "exclusiveMinimum", "minLength", "minItems", "maxItems", "examples",
}  # fmt: skip
BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "minItems": "at least {} of them",
    "maxItems": "at most {} of them",
    "pattern": "`{}`",
}
WIDTH = 100


def page(text: str) -> str:
    """The page, of the text of an AsyncAPI 3.0 document. KeyError where the document refers to what it does not have."""
    return "\n\n".join(_Page(json.loads(text)).parts()) + "\n"


def code(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def prose(*texts: str) -> str:
    """Texts that are not Markdown, as one paragraph."""
    return re.sub(r"([\\`*_<\[\]])", r"\\\1", " ".join(filter(None, texts)))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def block(value: object) -> str:
    return f"```json\n{_lines(value)}\n```"


def _lines(value: object, indent: str = "") -> str:
    """JSON, in which what is short stays on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or len(indent) + len(line) <= WIDTH:
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        inner = [f"{deeper}{json.dumps(key)}: {_lines(one, deeper)}" for key, one in value.items()]
    else:
        inner = [f"{deeper}{_lines(one, deeper)}" for one in value]
    return "\n".join([line[0], ",\n".join(inner), indent + line[-1]])


class _Page:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._named: dict[str, Schema] = {}  # to be shown in a place of their own, as links lead there
        self._rest: list[tuple[str, Schema]] = []  # what a table did not tell, by field

    def parts(self) -> Iterator[str]:
        info, servers, components = (self._document[key] for key in ("info", "servers", "components"))
        yield "# Messages of the WebSocket"
        yield prose(info["description"])
        yield "[The same for machines](path:asyncapi.json)."
        yield table(
            ("Server", "Description"),
            ([f"`{one['protocol']}://{one['host']}`", prose(one["description"])] for one in servers.values()),
        )
        yield "## Channels"
        for channel in self._document["channels"].values():
            yield from self._channel(channel)
        for action, heading in (("receive", "What a client sends"), ("send", "What the gateway sends")):
            yield f"## {heading}"
            for name, operation in self._document["operations"].items():
                if operation["action"] == action:
                    yield from self._operation(name, operation)
        yield "## Messages"
        for tag in info["tags"]:
            yield f"### {prose(tag['description'].rstrip('.'))}"
            for name, message in components["messages"].items():
                if message["tags"][0]["name"] == tag["name"]:
                    yield from self._message(name, message)
        yield "## Types"
        shown = 0
        while shown < len(self._named):  # one may name others
            name = list(self._named)[shown]
            yield from self._type(name, self._named[name])
            shown += 1

    def _channel(self, channel: dict[str, Any]) -> Iterator[str]:
        yield f"### {prose(channel['address'])}"
        yield prose(channel["summary"], channel["description"])
        yield from self._fields(channel["bindings"]["ws"]["query"], "Parameter")
        for key, codes in channel.items():
            if key.startswith("x-"):
                yield f"#### {key.removeprefix('x-').replace('-', ' ').capitalize()}"
                yield table(codes[0], ([prose(str(cell)) for cell in row.values()] for row in codes))

    def _operation(self, name: str, operation: dict[str, Any]) -> Iterator[str]:
        yield f"(operation-{name.lower()})=\n### {prose(operation['title'])}"
        yield prose(operation["summary"], operation.get("description", ""))
        lines = [f"- Message: {self._links(operation['messages'])}"]
        if "reply" in operation:
            lines.append(f"- Answer: {self._links(operation['reply']['messages'])}")
        yield "\n".join(lines)

    def _links(self, references: list[dict[str, str]]) -> str:
        names = [reference["$ref"].rpartition("/")[2] for reference in references]
        messages = self._document["components"]["messages"]
        return ", ".join(f"[{prose(messages[name]['title'])}](#message-{name.lower()})" for name in names)

    def _message(self, name: str, message: dict[str, Any]) -> Iterator[str]:
        yield f"(message-{name.lower()})=\n#### {prose(message['title'])}"
        yield prose(message["summary"], message.get("description", ""))
        yield from self._fields(message["payload"], "Field")
        for example in message["examples"]:
            yield f"Example: {prose(example['summary'])}"
            yield block(example["payload"])

    def _type(self, name: str, schema: Schema) -> Iterator[str]:
        yield f"(type-{name.lower()})=\n### {prose(name)}"
        such_as = " or ".join(code(one) for one in schema.get("examples", []))
        told = (
            f"{self._words(schema, deep=True)}.",
            self._description(schema),
            such_as and f"Such as {such_as}.",
        )
        yield " ".join(filter(None, told))
        yield from self._fields(schema, "Field", deep=True)

    def _fields(self, schema: Schema, heading: str, deep: bool = False) -> Iterator[str]:
        """A table of an object's fields, and what it cannot tell of them."""
        self._rest.clear()
        if rows := list(self._inside("", schema, deep)):
            yield table((heading, "Type", "Required", "Description"), rows)
        for name, rest in self._rest:
            yield f"{f'Of `{name}` also' if name else 'Also'} holds, in the words of JSON Schema:"
            yield block(rest)

    def _inside(self, name: str, schema: Schema, deep: bool) -> Iterator[list[str]]:
        """The rows of what is inside a field. Named objects are opened where not `deep` inside of another one."""
        if "$ref" in schema:
            target = self._target(schema)
            if "properties" in target and not deep:
                yield from self._inside(name, target, True)
            return
        rest = {key: value for key, value in schema.items() if key not in TOLD}
        alternatives = self._alternatives(schema)
        if alternatives:
            del rest["anyOf"]
        for one in alternatives:
            yield from self._inside(name, one, deep or len(alternatives) > 1)
        bases = self._bases(schema)
        for base in bases:
            yield from self._inside(name, base, deep)
        if bases:
            rest["allOf"] = [one for one in schema["allOf"] if one not in bases]
        if rest:
            self._rest.append((name, rest))
        for key, fields in (("properties", "{}"), ("patternProperties", "/{}/")):
            for field, inner in schema.get(key, {}).items():
                path = f"{name}.{fields.format(field)}".removeprefix(".")
                required = "yes" if field in schema.get("required", []) else ""
                yield [f"`{path}`", self._words(inner, deep), required, self._description(inner)]
                yield from self._inside(path, inner, deep)
        if values := schema.get("additionalProperties"):
            path = f"{name}.*".removeprefix(".")
            names = f"Each named as {self._words(schema['propertyNames'], True)}." if "propertyNames" in schema else ""
            yield [f"`{path}`", self._words(values, deep), "", f"{self._description(values)} {names}".strip()]
            yield from self._inside(path, values, deep)
        if isinstance(items := schema.get("items"), dict):
            yield from self._inside(f"{name}[]", items, deep)

    def _alternatives(self, schema: Schema) -> list[Schema]:
        """Of a schema that is one of several; with fields of its own `anyOf` is a condition on them."""
        return [one for one in schema.get("anyOf", []) if one != {"type": "null"}] if "properties" not in schema else []

    def _bases(self, schema: Schema) -> list[Schema]:
        return [one for one in schema.get("allOf", []) if "$ref" in one]

    def _target(self, reference: Schema) -> Schema:
        schemas: dict[str, Schema] = self._document["components"]["schemas"]
        return schemas[reference["$ref"].removeprefix("#/components/schemas/")]

    def _description(self, schema: Schema) -> str:
        """A field's own, or that of what it is, or is an array of; of several named ones their own places tell."""
        if "description" in schema:
            return prose(schema["description"])
        if "$ref" in schema:
            return self._description(self._target(schema))
        items = [items] if isinstance(items := schema.get("items"), dict) else []
        inner: list[Schema] = self._alternatives(schema) or self._bases(schema) or items
        return " Or: ".join(
            filter(None, [self._description(one) for one in inner if len(inner) == 1 or "$ref" not in one])
        )

    def _words(self, schema: Schema, deep: bool) -> str:
        """What a value is, with its bounds."""
        if "$ref" in schema:
            target = self._target(schema)
            if target.keys() <= PLAIN or ("properties" in target and not deep):
                return self._words(target, True)
            name = schema["$ref"].rpartition("/")[2]
            self._named.setdefault(name, target)
            return f"[{prose(name)}](#type-{name.lower()})"
        if alternatives := self._alternatives(schema):
            words = [self._words(one, deep or len(alternatives) > 1) for one in alternatives]
            return " or ".join([*words, *(["null"] if {"type": "null"} in schema["anyOf"] else [])])
        if "const" in schema or "enum" in schema:
            return " or ".join(code(one) for one in schema.get("enum", [schema.get("const")]))
        kinds = schema.get("type", "object" if "properties" in schema or "allOf" in schema else [])
        what = kinds if isinstance(kinds, str) else " or ".join(kinds)
        bounds = [words.format(schema[key]) for key, words in BOUNDS.items() if key in schema]
        items = schema.get("items")
        if isinstance(items, list):
            return f"{what} of {len(items)}: {', '.join(self._words(one, True) for one in items)}"
        if items is not None:
            what += f" of {self._words(items, deep)}"
        return f"{what} ({', '.join(bounds)})" if what and bounds else what + "".join(bounds) or "anything"
