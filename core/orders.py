"""Orders: how they are named."""

from __future__ import annotations

import json
from uuid import UUID, uuid4, uuid5

_encode = json.JSONEncoder(separators=(",", ":")).encode


def order_id_for(namespace: UUID, user_id: str | None, client_order_id: str | None) -> str:
    """The order id of a client's order: UUIDv5 (RFC 9562 section 5.5) of the JSON array `[user_id, client_order_id]`.

    So a repeat gets the id of the first attempt on every instance. Without `client_order_id` a random one (UUIDv4).
    """
    if client_order_id is None:
        return str(uuid4())
    return str(uuid5(namespace, _encode([user_id, client_order_id])))
