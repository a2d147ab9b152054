"""What an order id is, and the one spelling of it inside (docs/contract.md#order-ids).

In JSON it is text or an integer, on the topics, in bodies and in what other services answer; here it is always text:

- a UUID in lower case, whatever case it came in (RFC 9562 section 4: either is read, lower case is written),
- an integer as its decimal digits, so that `17` and `"17"` are one id; it goes out as the JSON integer of older engines,
- any other text as it is: of at most 128 characters, and such as UTF-8 can hold.

Whatever comes in goes through `read_order_id`, and whatever goes out to an engine or to clients of old through
`order_id_json`. In between two ids are the same if they are equal. `order_id_for` makes those of our clients' orders.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from hashlib import sha1
from typing import Final
from uuid import UUID, uuid4

from core.messages.strict_json import MAX_INTEGER, MIN_INTEGER, is_encodable

MAX_ORDER_ID_CHARACTERS: Final = 128

_is_uuid = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch
_is_integer = re.compile(r"0|-?[1-9][0-9]{0,19}").fullmatch

# ASCII only: a user id that holds a lone surrogate then still makes a valid record.
_encode = json.JSONEncoder(separators=(",", ":")).encode


def read_order_id(value: object) -> str | None:
    """The id that a value read from JSON, or a part of a path, names; None if there can be none of that form."""
    if type(value) is str:
        if not 0 < len(value) <= MAX_ORDER_ID_CHARACTERS:
            return None
        lower = value.lower()
        if lower != value and _is_uuid(value):
            return lower
        return value if value.isascii() or is_encodable(value) else None
    if type(value) is int and MIN_INTEGER <= value <= MAX_INTEGER:
        return str(value)
    return None


def integer_of(order_id: str) -> int | None:
    """The integer that an id is the text of; None for all others, those too that only look so (`007`, beyond 64 bits)."""
    if _is_integer(order_id):
        number = int(order_id)
        if MIN_INTEGER <= number <= MAX_INTEGER:
            return number
    return None


def order_id_json(order_id: str) -> str:
    """An id as JSON, in ASCII: integers as such, all else as a string."""
    return _encode(order_id) if integer_of(order_id) is None else order_id


@lru_cache(maxsize=4096)
def json_user_id(user_id: str | None) -> str:
    """A user id as JSON. The same users order again and again, and encoding costs ten times a look-up."""
    return _encode(user_id)


def order_id_for(namespace: UUID, user_id: str | None, client_order_id: str | None) -> str:
    """The order id of a client's order: UUIDv5 (RFC 9562 section 5.5) of the JSON array `[user_id, client_order_id]`.

    So a repeat gets the id of the first attempt on every instance. Without `client_order_id` a random one (UUIDv4).
    """
    if client_order_id is None:
        return str(uuid4())
    name = f"[{json_user_id(user_id)},{_encode(client_order_id)}]".encode()
    # As `uuid.uuid5`, at a third of its cost.
    octets = bytearray(sha1(namespace.bytes + name, usedforsecurity=False).digest()[:16])
    octets[6] = octets[6] & 0x0F | 0x50
    octets[8] = octets[8] & 0x3F | 0x80
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
