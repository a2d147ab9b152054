"""One client's protocol, without I/O: a message in, effects out (docs/contract.md#requests).

The session only reads and decides; the handler performs the effects in their order. Whatever a client sends within the
size limit gets an answer, but for what never had one in the older dialects, which `core.protocol.dialects` translates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Final

import msgspec

from core.access.scopes import CANCEL, READ, TRADE, check_command
from core.accounts.account_balances import ACCOUNT_BALANCES
from core.channels.client_position import Since, read_since
from core.channels.names import STATUS
from core.errors import RequestError, RpcCode, RpcError
from core.messages.batch_rules import check_batch
from core.messages.body_json import read_request
from core.messages.order_rules import check_amend, check_cancel, check_cancel_all, check_cancel_all_after, check_place
from core.orders.account_trades import ACCOUNT_TRADES
from core.orders.ahead import AccountPosition
from core.orders.private_feed import ACCOUNT_ORDERS
from core.protocol.client_state import ClientState
from core.protocol.dialects import older_answer, older_command, older_effects
from core.protocol.effects import (
    Amend,
    Answer,
    Authenticate,
    Batch,
    Cancel,
    CancelAll,
    CancelAllAfter,
    Effect,
    Place,
    RefusedCommand,
    Reply,
    RpcAnswer,
    SetCancelOnDisconnect,
    StampedId,
    Subscribe,
    SubscribeAccount,
    Unsubscribe,
    answer,
    refusal,
)
from core.protocol.thalex import THALEX_METHODS, THALEX_ORDER_METHODS
from core.telemetry.audit import names_in

# Longer than that nobody waits for a heartbeat.
MAX_TIMEOUT_SECONDS: Final = 86_400

# The last of them only where there is an account topic.
ACCOUNT_CHANNELS: Final = (ACCOUNT_ORDERS, ACCOUNT_TRADES, ACCOUNT_BALANCES)
# Whose seq is an object of partition to offset, besides those of all tickers.
_SPANNING: Final = frozenset({"events", ACCOUNT_ORDERS, ACCOUNT_TRADES})

Params = dict[str, Any]
Method = Callable[[ClientState, object, Params], list[Effect]]


class Session(ClientState):
    """A client whose messages are read."""

    __slots__ = ()

    def receive(self, message: str | bytes) -> list[Effect]:
        """Effects of one message, a text (as str or its bytes)."""
        us_in = self.rules.now_us()
        answer: Answer = RpcAnswer(None)
        request: dict[str, Any] = {}
        try:
            request = _read(message)
            answer = older_answer(request) or answer
            request_id = self._read_id(request, us_in)
            if isinstance(answer, RpcAnswer):
                answer = RpcAnswer(request_id)
            if "method" not in request:
                older = older_effects(self, request, answer)
                if older is not None:
                    return older
            method, params = _read_call(request)
            return method(self, request_id, params)
        except RequestError as error:
            return [_refused(request, answer.failure(error), error)]

    def refuse(self, message: str | bytes, error: RequestError) -> Reply:
        """The answer to a message that is not to be served: in its own dialect, with its id if it has one."""
        us_in = self.rules.now_us()
        try:
            request = _read(message)
            older = older_answer(request)
            reply = refusal(self._read_id(request, us_in), error) if older is None else older.failure(error)
            return _refused(request, reply, error)
        except RequestError:
            return refusal(None, error)

    def _read_id(self, request: dict[str, Any], us_in: int) -> object:
        request_id = request.get("id")
        if isinstance(request_id, bool) or not isinstance(request_id, str | int | Decimal | None):
            raise RpcError(RpcCode.NOT_A_REQUEST, "id: expected a string or a number")
        name = request.get("method")
        if isinstance(name, str) and name in ORDER_METHODS:
            return StampedId(request_id, us_in, self.rules.now_us)
        return request_id

    @staticmethod
    def receive_binary() -> list[Effect]:
        """Effects of a binary frame: there is no such message."""
        return [refusal(None, RpcError(RpcCode.NOT_JSON, "binary frames are not read; send JSON in text frames"))]


def _refused(request: dict[str, Any], reply: Reply, error: RequestError) -> Reply:
    """The same answer; that to a command says which one, for the audit."""
    name = request.get("method")
    command = COMMANDS.get(name) if isinstance(name, str) else older_command(request)
    if command is None:
        return reply
    return msgspec.structs.replace(
        reply, refused=RefusedCommand(command, error, names_in(request.get("params", request)))
    )


def _read(message: str | bytes) -> dict[str, Any]:
    request = read_request(message if isinstance(message, bytes) else message.encode("utf-8", "surrogatepass"))
    if not isinstance(request, dict):
        raise RpcError(RpcCode.NOT_A_REQUEST, "a request is an object with id, method and params")
    return request


def _read_call(request: dict[str, Any]) -> tuple[Method, Params]:
    name = request.get("method")
    if not isinstance(name, str):
        raise RpcError(RpcCode.NOT_A_REQUEST, "method: expected a string")
    method = METHODS.get(name)
    if method is None:
        raise RpcError(RpcCode.NO_SUCH_METHOD, f"there is no method {name[:80]!r}")
    params = request.get("params", {})
    if not isinstance(params, dict):
        raise RpcError(RpcCode.BAD_PARAMS, "params: expected an object")
    return method, params


def _instruments(client: ClientState, request_id: object, _params: Params) -> list[Effect]:
    return [answer(request_id, client.rules.instruments())]


def _ping(_client: ClientState, request_id: object, _params: Params) -> list[Effect]:
    return [answer(request_id, "pong")]


def _subscribe(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    names = _read_names(params)
    since = _read_since(params)
    return [answer(request_id, names), Subscribe(client.check_channels(names), since, STATUS in names)]


def _unsubscribe(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    dropped = client.unsubscribe(_read_names(params))
    return [Unsubscribe(dropped), answer(request_id, list(dropped))]


def _read_names(params: Params) -> list[str]:
    names = params.get("channels")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise RpcError(RpcCode.BAD_PARAMS, "channels: expected a list of at least one channel name")
    return list(dict.fromkeys(names))


def _read_since(params: Params) -> dict[str, Since]:
    given = params.get("since")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise RpcError(RpcCode.BAD_PARAMS, "since: expected an object of channel to seq")
    since = {}
    for name, position in given.items():
        try:
            since[name] = read_since(position, spans_partitions=name in _SPANNING or name.startswith("tickers."))
        except ValueError as error:
            raise RpcError(RpcCode.BAD_PARAMS, f"since: {name[:80]!r}: {error}") from error
    return since


# Who, and orders.


def _authenticate(_client: ClientState, request_id: object, params: Params) -> list[Effect]:
    token = params.get("token")
    if not isinstance(token, str):
        raise RpcError(RpcCode.BAD_PARAMS, "token: expected a string")
    return [Authenticate(RpcAnswer(request_id), token)]


def _subscribe_private(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_user(READ)
    names = _read_names(params)
    since = {name: _account_position(given) for name, given in _read_since(params).items() if name in ACCOUNT_CHANNELS}
    offered = ACCOUNT_CHANNELS if client.rules.has_balances else ACCOUNT_CHANNELS[:-1]
    for name in names:
        if name not in offered:
            known = " and ".join(offered)
            raise RpcError(RpcCode.BAD_PARAMS, f"channels: {name[:80]!r}: the account channels are {known}")
    client.check_room_for(names)
    return [SubscribeAccount(RpcAnswer(request_id), names, since)]


def _account_position(since: Since) -> AccountPosition:
    return AccountPosition({number: at for number, at in since.positions.items() if number is not None}, since.epoch)


def _place(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_trader(TRADE)
    return [Place(RpcAnswer(request_id), check_place(params, client.rules.orders))]


def _cancel(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_trader(CANCEL)
    return [Cancel(RpcAnswer(request_id), check_cancel(params, client.rules.orders))]


def _amend(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_amends()
    client.check_trader(TRADE)
    return [Amend(RpcAnswer(request_id), check_amend(params, client.rules.orders))]


def _batch(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_orders()
    return [
        Batch(RpcAnswer(request_id), check_batch(params, client.rules.orders, partial(check_command, client.allowed)))
    ]


def _cancel_all(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_user(CANCEL)
    return [CancelAll(RpcAnswer(request_id), check_cancel_all(params, client.rules.orders))]


def _cancel_all_after(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_user(CANCEL)
    return [CancelAllAfter(RpcAnswer(request_id), check_cancel_all_after(params, client.rules.orders))]


def _set_cancel_on_disconnect(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_trader(CANCEL)
    if "timeout_secs" in params and "enabled" not in params:
        return _set_timeout(client, request_id, params["timeout_secs"])
    enabled = params.get("enabled")
    if "timeout_secs" in params:
        raise RpcError(RpcCode.BAD_PARAMS, "enabled: give either enabled or timeout_secs, not both")
    if not isinstance(enabled, bool):
        raise RpcError(RpcCode.BAD_PARAMS, "enabled: expected true or false")
    return [SetCancelOnDisconnect(RpcAnswer(request_id), enabled, {"enabled": enabled})]


def _set_timeout(client: ClientState, request_id: object, seconds: object) -> list[Effect]:
    """As Thalex has it: a session that says nothing for so long is over; 0 sets it off."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | Decimal) or not 0 <= seconds <= MAX_TIMEOUT_SECONDS:
        raise RpcError(RpcCode.BAD_PARAMS, f"timeout_secs: expected 0 to {MAX_TIMEOUT_SECONDS} seconds")
    result = {"enabled": seconds > 0, "message_rate": client.rules.messages_per_second}
    return [SetCancelOnDisconnect(RpcAnswer(request_id), seconds > 0, result, float(seconds) or None)]


METHODS: Final[Mapping[str, Method]] = {
    "public/subscribe": _subscribe,
    "public/unsubscribe": _unsubscribe,
    "private/unsubscribe": _unsubscribe,
    "unsubscribe": _unsubscribe,
    "public/auth": _authenticate,
    "private/subscribe": _subscribe_private,
    "private/place_order": _place,
    "private/cancel_order": _cancel,
    "private/amend_order": _amend,
    "private/batch": _batch,
    "private/cancel_all": _cancel_all,
    "private/cancel_all_after": _cancel_all_after,
    "private/set_cancel_on_disconnect": _set_cancel_on_disconnect,
    "public/instruments": _instruments,
    "public/ping": _ping,
    **THALEX_METHODS,
}
# What methods that are commands are called in the audit.
COMMANDS: Final[Mapping[str, str]] = {
    "private/place_order": "place",
    "private/cancel_order": "cancel",
    "private/amend_order": "amend",
    "private/batch": "batch",
    "private/cancel_all": "cancel_all",
    "private/cancel_all_after": "cancel_all_after",
    "private/insert": "place",
    "private/buy": "place",
    "private/sell": "place",
    "private/cancel": "cancel",
    "private/amend": "amend",
}
# Those whose answers tell when they came and went.
ORDER_METHODS: Final = frozenset(
    {
        "private/place_order",
        "private/cancel_order",
        "private/amend_order",
        "private/batch",
        "private/cancel_all",
        "private/cancel_all_after",
        *THALEX_ORDER_METHODS,
    }
)
