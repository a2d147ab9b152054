"""Strict YAML, as settings are written in it: one document of plain maps, lists and scalars, and the line of each key.

It is YAML 1.2's core schema. Numbers come as int or Decimal, no key may be given twice, and nothing that is said of a
document ever quotes it, for the line may hold a secret.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

import yaml

MAX_NODES = 20_000
MAX_DEPTH = 16
MAX_NUMBER_LENGTH = 64

Path = tuple[str | int, ...]


class Refused(Exception):
    """A value that breaks its rule. `expected` fits one line; `where` is added to the setting's key (`[2].tick`)."""

    def __init__(self, expected: str, where: str = "", line: int | None = None) -> None:
        self.expected = expected
        self.where = where
        self.line = line
        super().__init__(expected)


_TAGS = {name: f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
# YAML 1.2's core schema, not 1.1's: `no` and `on` are words, 22:30 is no number in base sixty, and a day is no date.
_PLAIN = {
    _TAGS["null"]: re.compile(r"~|null|Null|NULL|"),
    _TAGS["bool"]: re.compile(r"true|True|TRUE|false|False|FALSE"),
    _TAGS["int"]: re.compile(r"[-+]?[0-9]+"),
    _TAGS["float"]: re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"),
}


class _Loader(yaml.SafeLoader):
    """Only its nodes are used; its constructors would make floats of prices and let a later key replace an earlier."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern.pattern})\Z"), None)


def read_yaml(text: str) -> tuple[object, dict[Path, int]]:
    """Give one document's value, its numbers as int or Decimal, and the line (from 1) of every key and item in it.

    Raises Refused, with the line where there is one, for anything else than one document of plain maps, lists and
    scalars. Its text never quotes the document, for the line may hold a secret.
    """
    lines: dict[Path, int] = {}
    try:
        node = yaml.compose(text, _Loader)
        return (None if node is None else _value(node, (), lines)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Refused(f"not YAML: {_without_content(error.problem)}", line=mark.line + 1 if mark else None) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise Refused("not YAML: a character that is not allowed", line=line) from error
    except RecursionError as error:
        raise Refused("not YAML: nested too deeply") from error
    except (ValueError, OverflowError) as error:
        # PyYAML does not catch these for an escape beyond Unicode and a directive's endless version number.
        raise Refused("not YAML: a number or an escape out of range") from error


def _without_content(problem: str | None) -> str:
    """Keep of PyYAML's message what it says of YAML, and drop what it quotes of the document."""
    shown = re.sub(r'"[^"]*"', "", problem or "not understood")
    shown = re.sub(r"'(?!<[a-z ]+>'|[],}:?-]')[^']*'", "", shown)
    return " ".join(shown.split())


def _value(node: yaml.Node, path: Path, lines: dict[Path, int]) -> object:
    line = node.start_mark.line + 1
    lines[path] = line
    if len(lines) > MAX_NODES or len(path) > MAX_DEPTH:
        raise Refused("not YAML for settings: too large or nested too deeply", line=line)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, line)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAGS["seq"]:
        return [_value(item, (*path, index), lines) for index, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode) or node.tag != _TAGS["map"]:
        raise Refused("a tag that settings do not use", line=line)
    result: dict[str, object] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _scalar(key_node, line) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise Refused("a key that is not a name", line=line)
        if key in result:
            raise Refused(f"{shown_key(key, value_node.value or None)} is given twice", line=line)
        result[key] = _value(value_node, (*path, key), lines)
        lines[*path, key] = line
    return result


def _scalar(node: yaml.ScalarNode, line: int) -> object:
    text = str(node.value)
    if node.tag == _TAGS["str"]:
        if not is_unicode(text):
            raise Refused("text that is not Unicode", line=line)
        return text
    pattern = _PLAIN.get(node.tag)
    if pattern is None or not pattern.fullmatch(text):
        raise Refused("a tag that settings do not use", line=line)
    if node.tag == _TAGS["null"]:
        return None
    if node.tag == _TAGS["bool"]:
        return text.lower() == "true"
    if len(text) > MAX_NUMBER_LENGTH:
        raise Refused(f"a number of more than {MAX_NUMBER_LENGTH} characters", line=line)
    try:
        return int(text) if node.tag == _TAGS["int"] else Decimal(text)
    except InvalidOperation as error:
        raise Refused("a number with too large an exponent", line=line) from error


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown_key(key: str, value: object) -> str:
    """Give a key as messages may show it.

    In `{sasl.password: one,two}` two is a key without a value: half a secret, and not shown.
    """
    named = re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", key) and value is not None
    return key if named else "a key that is not a name or has no value"
