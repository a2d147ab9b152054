"""The two older dialects, translated message by message into the effects of the present one.

The first says `action`, the second `type`; both have trades as objects. A client may subscribe in one dialect and order in
another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from core.client import Client
from core.commands import check_cancel, check_place
from core.effects import (
    Authenticate,
    Cancel,
    Effect,
    OlderAnswer,
    Place,
    PlaceUnanswered,
    Subscribe,
    Unsubscribe,
)
from core.errors import InvalidFields, RpcCode, RpcError

Request = dict[str, Any]
OlderMethod = Callable[[Client, Request], list[Effect]]


def older_method(request: Request) -> OlderMethod | None:
    """What a message without a `method` asks for; None if it is none of the older dialects'. Raises RpcError."""
    name = request.get("type", request.get("action"))
    if not isinstance(name, str):
        return None
    method = OLDER_METHODS.get(name)
    if method is None:
        raise RpcError(RpcCode.NO_SUCH_METHOD, f"there is no message of type {name[:80]!r}")
    return method


def _read_channel(request: Request) -> str:
    name = request.get("channel")
    if not isinstance(name, str):
        raise RpcError(RpcCode.BAD_PARAMS, "channel: expected a channel's name")
    return name


def _subscribe(client: Client, request: Request) -> list[Effect]:
    return [Subscribe(client.admit([_read_channel(request)], trades_as_objects=True), {})]


def _unsubscribe(client: Client, request: Request) -> list[Effect]:
    return [Unsubscribe(client.drop([_read_channel(request)]))]


def _place_unanswered(client: Client, request: Request) -> list[Effect]:
    if not client.rules.allows_anonymous:
        raise RpcError(RpcCode.NOT_AUTHORISED, "orders need a token here")
    bodies = request.get("orders")
    if not isinstance(bodies, list):
        raise RpcError(RpcCode.BAD_PARAMS, "orders: expected a list of orders")
    orders = []
    for body in bodies:
        try:
            orders.append(check_place(body, client.rules.orders))
        except InvalidFields:
            continue
    return [PlaceUnanswered(tuple(orders), len(bodies) - len(orders))]


def _authenticate(client: Client, request: Request) -> list[Effect]:
    told = OlderAnswer("auth_result", "user_id")
    token = request.get("token")
    if not isinstance(token, str):
        return [told.failure(RpcError(RpcCode.BAD_PARAMS, "token: expected a string"))]
    return [Authenticate(told, token)]


def _place(client: Client, request: Request) -> list[Effect]:
    told = OlderAnswer("order_result", "order_id")
    try:
        client.check_trader()
        return [Place(told, client.checked(check_place, _body_of(request)))]
    except RpcError as error:
        return [told.failure(error)]


def _cancel(client: Client, request: Request) -> list[Effect]:
    given = request.get("order_id")
    told = OlderAnswer("cancel_result", "order_id", given if isinstance(given, str) else None)
    try:
        client.check_trader()
        return [Cancel(told, client.checked(check_cancel, _body_of(request)))]
    except RpcError as error:
        return [told.failure(error)]


def _body_of(request: Request) -> Request:
    """An older message's order body: what is not its envelope."""
    return {name: value for name, value in request.items() if name not in ("type", "id")}


OLDER_METHODS: Final[Mapping[str, OlderMethod]] = {
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "orders": _place_unanswered,
    "auth": _authenticate,
    "place_order": _place,
    "cancel_order": _cancel,
}
