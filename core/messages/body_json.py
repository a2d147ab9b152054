"""JSON of bodies and messages from clients, and of what other services answer: read strictly, every digit kept.

Stricter than what is read off the bus (`core.messages.strict_json`): repeated keys and lone surrogates are refused.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import NoReturn

from core.errors import NotJson

# An answer is not to grow with what a client made up: so much of a name is told.
_MAX_NAME = 16

# One escape at a time, so that a pair of surrogates is taken whole and only a lone one is a group.
_escapes = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|u([dD][89a-fA-F])..|.)").finditer


def _refuse_constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise NotJson(f"the key {twice[:_MAX_NAME]!a} is given twice")
    return members


def _given(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = _unique(pairs)
    if None not in members.values():
        return members
    return {name: value for name, value in members.items() if value is not None}


def _decoder(hook: Callable[[list[tuple[str, object]]], object]) -> Callable[[str], object]:
    decoder = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=hook)
    scan = decoder.scan_once  # type: ignore[attr-defined]  # typeshed leaves it out, as the documentation does

    def decode(text: str) -> object:
        # Without a look for white space around it, where there is none.
        try:
            value, end = scan(text, 0)
        except StopIteration:
            return decoder.decode(text)
        return value if end == len(text) else decoder.decode(text)

    return decode


_decode = _decoder(_unique)
_decode_given = _decoder(_given)


def read_request(body: bytes) -> object:
    """The value of a client's body or message: as `read_json`, but without the members of objects that are null.

    So nobody behind it has to know that null is absent, and none can forget it.
    """
    return _read(body, _decode_given)


def read_json(body: bytes) -> object:
    """The value of a JSON document; numbers with a point or exponent become exact Decimals.

    Raises NotJson for what RFC 8259 does not allow (NaN, `01`, broken UTF-8, a byte order mark), and for what it
    allows but no two programs agree on: repeated keys, lone surrogates, numbers and nesting beyond any use.
    """
    return _read(body, _decode)


def _read(body: bytes, decode: Callable[[str], object]) -> object:
    try:
        text = body.decode("utf-8")
        value = decode(text)
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise NotJson("nested too deeply") from error
    except (ValueError, ArithmeticError, MemoryError) as error:
        raise NotJson("a number is too long") from error
    if "\\u" in text and any(escape[1] for escape in _escapes(text)):
        raise NotJson("a string holds half of a surrogate pair")
    return value
