"""The two older dialects, translated message by message into the effects of the present one.

The first says `action`, the second `type`; both have trades as objects. A client may subscribe in one dialect and order in
another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.access.scopes import CANCEL, TRADE
from core.channels.names import STATUS
from core.errors import InvalidFields, RpcCode, RpcError
from core.messages.commands import PlaceOrder
from core.messages.order_ids import read_order_id
from core.messages.order_rules import check_cancel, check_place
from core.protocol.client_state import ClientState
from core.protocol.effects import (
    Answer,
    Authenticate,
    Cancel,
    Effect,
    OlderAnswer,
    OldestAnswer,
    Place,
    PlaceNobodys,
    Subscribe,
    Unsubscribe,
)

Request = dict[str, Any]

_COMMANDS: Final = {"place_order": "place", "cancel_order": "cancel", "orders": "place"}


def older_effects(client: ClientState, request: Request, answer: Answer) -> list[Effect] | None:
    """Effects of a message without a `method`; None if it is none of the older dialects'. Raises RequestError.

    `answer` is `older_answer` of it, or one of the present form.
    """
    name = _name_of(request)
    if name is None:
        return None
    if isinstance(answer, OlderAnswer):
        return ANSWERED[name].effects(client, request, answer)
    unanswered = UNANSWERED.get(name)
    if unanswered is None:
        raise RpcError(RpcCode.NO_SUCH_METHOD, f"there is no message of type {name[:80]!r}")
    return unanswered(client, request)


def older_answer(request: Request) -> OlderAnswer | None:
    """The form of the answer that a message waits for; None if it waits for none, or for one of the present dialect."""
    method = None if "method" in request else ANSWERED.get(_name_of(request) or "")
    if method is None:
        return None
    given = read_order_id(request.get("order_id")) if method.is_about_given_order else None
    return OlderAnswer(method.answer, method.about, given)


def older_command(request: Request) -> str | None:
    """What a message that orders or cancels is called in the audit."""
    return _COMMANDS.get(_name_of(request) or "")


def _name_of(request: Request) -> str | None:
    name = request.get("type", request.get("action"))
    return name if isinstance(name, str) else None


def _read_channel(request: Request) -> str:
    name = request.get("channel")
    if not isinstance(name, str):
        raise RpcError(RpcCode.BAD_PARAMS, "channel: expected a channel's name")
    return name


def _subscribe(client: ClientState, request: Request) -> list[Effect]:
    name = _read_channel(request)
    return [Subscribe(client.check_channels([name], trades_as_objects=True), {}, name == STATUS)]


def _unsubscribe(client: ClientState, request: Request) -> list[Effect]:
    return [Unsubscribe(client.unsubscribe([_read_channel(request)]))]


def _place_nobodys(client: ClientState, request: Request) -> list[Effect]:
    if not client.rules.allows_anonymous:
        raise RpcError(RpcCode.NOT_AUTHORISED, "orders need a token here")
    bodies = request.get("orders")
    if not isinstance(bodies, list):
        raise RpcError(RpcCode.BAD_PARAMS, "orders: expected a list of orders")
    return [PlaceNobodys(OldestAnswer(request.get("id")), tuple(_checked(body, client) for body in bodies))]


def _checked(body: object, client: ClientState) -> PlaceOrder | InvalidFields:
    try:
        return check_place(body, client.rules.orders)
    except InvalidFields as error:
        return error


def _authenticate(_client: ClientState, request: Request, answer: OlderAnswer) -> list[Effect]:
    token = request.get("token")
    if not isinstance(token, str):
        raise RpcError(RpcCode.BAD_PARAMS, "token: expected a string")
    return [Authenticate(answer, token)]


def _place(client: ClientState, request: Request, answer: OlderAnswer) -> list[Effect]:
    client.check_trader(TRADE)
    return [Place(answer, check_place(_body_of(request), client.rules.orders))]


def _cancel(client: ClientState, request: Request, answer: OlderAnswer) -> list[Effect]:
    client.check_trader(CANCEL)
    return [Cancel(answer, check_cancel(_body_of(request), client.rules.orders))]


def _body_of(request: Request) -> Request:
    """An older message's order body: what is not its envelope."""
    return {name: value for name, value in request.items() if name not in ("type", "id")}


@dataclass(frozen=True, slots=True)
class Answered:
    """A message that has an answer: of which type, and what that is about."""

    effects: Callable[[ClientState, Request, OlderAnswer], list[Effect]]
    answer: str
    about: str
    is_about_given_order: bool = False


ANSWERED: Final[Mapping[str, Answered]] = {
    "auth": Answered(_authenticate, "auth_result", "user_id"),
    "place_order": Answered(_place, "order_result", "order_id"),
    "cancel_order": Answered(_cancel, "cancel_result", "order_id", is_about_given_order=True),
}
UNANSWERED: Final[Mapping[str, Callable[[ClientState, Request], list[Effect]]]] = {
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "orders": _place_nobodys,
}
