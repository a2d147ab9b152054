"""Refusals before a message is served, in the dialect that it came in.

The session answers what it serves in the message's own dialect. What is turned away for being too much it does not look
into; but who speaks the second older dialect knows neither codes nor ids, and would wait for an `order_result` for ever.
"""

from __future__ import annotations

from typing import Any

from core.commands import read_json
from core.effects import OlderAnswer, Reply
from core.errors import NotJson, RpcError
from core.session import Session

# What has an answer of its own in the second older dialect, and what that is about.
_ANSWERS = {
    "auth": ("auth_result", "user_id"),
    "place_order": ("order_result", "order_id"),
    "cancel_order": ("cancel_result", "order_id"),
}


def refuse(session: Session, message: str | bytes, error: RpcError) -> Reply:
    """The answer to a message that is not to be served, in its own dialect; the present one's where that has none."""
    answer = _older_answer(message)
    return session.refuse(message, error) if answer is None else answer.failure(error)


def _older_answer(message: str | bytes) -> OlderAnswer | None:
    try:
        request: Any = read_json(message if isinstance(message, bytes) else message.encode("utf-8", "surrogatepass"))
    except NotJson:
        return None
    if not isinstance(request, dict) or "method" in request:
        return None
    name = request.get("type", request.get("action"))
    if not isinstance(name, str) or name not in _ANSWERS:
        return None
    kind, about = _ANSWERS[name]
    told = request.get("order_id") if name == "cancel_order" else None
    return OlderAnswer(kind, about, told if isinstance(told, str) else None)
