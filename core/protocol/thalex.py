"""The methods of Thalex's clients for what this exchange has too, translated into the effects of the present dialect.

What is asked and answered is as Thalex documents it, as far as there is such a thing here (docs/contract.md#thalex). A
member that would change what becomes of an order and cannot be honoured is refused; one that changes nothing is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from core.access.scopes import CANCEL, READ, TRADE
from core.errors import FieldError, InvalidFields, NoSuchOrder, RequestError, RpcCode, RpcError
from core.messages.attributes import Attribute, Kind
from core.messages.model import EXACT, OrderType, Side, TimeInForce, decimal_text
from core.messages.order_rules import check_amend, check_cancel, check_place
from core.orders.order import Order, Status
from core.protocol.client_state import ClientState
from core.protocol.effects import Amend, Authenticate, Cancel, Effect, ListOrders, Place, Reply, encoded_answer, refusal

Params = dict[str, Any]

MAX_CLIENT_ORDER_ID: Final = 2**64 - 1
MAX_LABEL: Final = 128

_SIDES: Final = {"buy": "bid", "sell": "ask"}
_TIMES_IN_FORCE: Final = {"good_till_cancelled": "GTC", "immediate_or_cancel": "IOC"}
# A member of ours, and what it is called there.
_THEIRS: Final = {"symbol": "instrument_name", "side": "direction", "quantity": "amount"}
_OURS: Final = {theirs: ours for ours, theirs in _THEIRS.items()}
_SAME: Final = ("price", "order_type")
# What an order cannot have here: only what says that it is not wanted is taken.
_REFUSED_UNLESS: Final[Mapping[str, object]] = {
    "post_only": False,
    "reject_post_only": False,
    "reduce_only": False,
    "stp_level": "disabled",
    "stp_action": None,
    "legs": None,
}
_COLLARS: Final = ("ignore", "reject", "clamp")
_INSERT_MEMBERS: Final = frozenset(
    {*_OURS, *_SAME, *_REFUSED_UNLESS, "time_in_force", "client_order_id", "label", "collar"}
)
_AMEND_MEMBERS: Final = frozenset({"order_id", "client_order_id", "amount", "price", "collar"})
# An answer is not to grow with what a client made up.
_MAX_NAMED = 16
_MAX_NAME = 64

_local_name = re.compile(r"[0-9a-f]{12}:([0-9]{1,20})").fullmatch


# Requests.


def _login(_client: ClientState, request_id: object, params: Params) -> list[Effect]:
    token, account = params.get("token"), params.get("account")
    if not isinstance(token, str):
        raise RpcError(RpcCode.BAD_PARAMS, "token: expected a string")
    if account is not None and not isinstance(account, str):
        raise RpcError(RpcCode.BAD_PARAMS, "account: expected a string")
    return [Authenticate(LoginAnswer(request_id), token, account)]


def _insert(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    return _place(client, request_id, params)


def _buy(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    return _place_in_direction(client, request_id, params, "buy")


def _sell(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    return _place_in_direction(client, request_id, params, "sell")


def _place_in_direction(client: ClientState, request_id: object, params: Params, direction: str) -> list[Effect]:
    if "direction" in params:
        raise InvalidFields([FieldError("direction", f"is {direction}; leave it out")])
    return _place(client, request_id, {**params, "direction": direction})


def _place(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_trader(TRADE)
    errors: list[FieldError] = []
    body: dict[str, object] = {"order_type": OrderType.LIMIT.value}
    body.update({name: params[name] for name in _SAME if name in params})
    body.update({ours: params[theirs] for ours, theirs in _THEIRS.items() if theirs in params})
    if "direction" in params:
        body["side"] = _translated(params, "direction", _SIDES, errors)
    if "time_in_force" in params:
        body["time_in_force"] = _translated(params, "time_in_force", _TIMES_IN_FORCE, errors)
    if "client_order_id" in params:
        body["client_order_id"] = _check_number(client, params, errors)
    known = _check_attributes(client.rules.orders.attributes, params, body, errors)
    _check_extras(params, known, errors)
    _check_unknown(params, _INSERT_MEMBERS | known, errors)
    try:
        order = check_place(body, client.rules.orders)
    except InvalidFields as error:
        told = {one.field for one in errors}
        theirs = _in_their_words(error).errors
        raise InvalidFields([*errors, *(one for one in theirs if one.field not in told)]) from error
    if errors:
        raise InvalidFields(errors)
    answer = OrderAnswer(request_id, client, "insert", params.get("label"))
    return [Place(answer, order, awaits_engine=True)]


def _cancel(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_trader(CANCEL)
    errors: list[FieldError] = []
    _check_unknown(params, {"order_id", "client_order_id"}, errors)
    body = {name: params[name] for name in ("order_id",) if name in params}
    if "client_order_id" in params:
        body["client_order_id"] = _check_number(client, params, errors)
    if errors:
        raise InvalidFields(errors)
    answer = OrderAnswer(request_id, client, "cancel")
    return [Cancel(answer, check_cancel(body, client.rules.orders), awaits_engine=True)]


def _amend(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_trader(TRADE)
    errors: list[FieldError] = []
    _check_unknown(params, _AMEND_MEMBERS, errors)
    _check_collar(params, errors)
    body: dict[str, object] = {name: params[name] for name in ("order_id", "price") if name in params}
    if "amount" in params:
        body["quantity"] = params["amount"]
    if "client_order_id" in params:
        body["client_order_id"] = _check_number(client, params, errors)
    if errors:
        raise InvalidFields(errors)
    if (reason := client.rules.orders.why_no_amends()) is not None:
        raise RpcError(RpcCode.ORDER_REFUSED, reason)
    try:
        amend = check_amend(body, client.rules.orders)
    except InvalidFields as error:
        raise _in_their_words(error) from error
    return [Amend(OrderAnswer(request_id, client, "amend"), amend, awaits_engine=True)]


def _in_their_words(error: InvalidFields) -> InvalidFields:
    return InvalidFields([FieldError(_THEIRS.get(one.field, one.field), one.message) for one in error.errors])


def _open_orders(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    client.check_user(READ)
    return [ListOrders(OrdersAnswer(request_id, client), _read_instrument(params, is_required=False))]


def _ticker(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    return [_quoted(request_id, params, client.rules.ticker)]


def _book(client: ClientState, request_id: object, params: Params) -> list[Effect]:
    return [_quoted(request_id, params, client.rules.top_of_book)]


def _quoted(request_id: object, params: Params, quote: Callable[[str], str | None]) -> Reply:
    symbol = _read_instrument(params)
    assert symbol is not None
    text = quote(symbol)
    if text is None:
        raise InvalidFields([FieldError("instrument_name", "nothing is known of it")])
    return encoded_answer(request_id, text)


def _read_instrument(params: Params, *, is_required: bool = True) -> str | None:
    symbol = params.get("instrument_name")
    if isinstance(symbol, str) or (symbol is None and not is_required):
        return symbol
    raise InvalidFields([FieldError("instrument_name", "required" if symbol is None else "expected a string")])


def _translated(params: Params, name: str, words: Mapping[str, str], errors: list[FieldError]) -> str | None:
    word = params[name]
    ours = words.get(word) if isinstance(word, str) else None
    if ours is None:
        first, second = words
        errors.append(FieldError(name, f'expected "{first}" or "{second}"'))
    return ours


def _check_number(client: ClientState, params: Params, errors: list[FieldError]) -> str | None:
    """The name of the order that is numbered so within this session: another session begins to count anew."""
    number = params["client_order_id"]
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= MAX_CLIENT_ORDER_ID:
        return f"{client.session_id}:{number}"
    errors.append(FieldError("client_order_id", "expected an integer from 0 to 2^64 - 1"))
    return None


def _check_attributes(
    declared: Sequence[Attribute], params: Params, body: dict[str, object], errors: list[FieldError]
) -> frozenset[str]:
    """Which declared attributes can be given here, those that are put into `body`.

    What Thalex has a member for is that. An order that is `post_only` is moved there, unless `reject_post_only` says that it is
    to be refused: which is what `post_only` is among attributes.
    """
    known = {attribute.name for attribute in declared if attribute.name not in _INSERT_MEMBERS}
    body.update({name: params[name] for name in known if name in params})
    if any(attribute.name == "post_only" and attribute.kind is Kind.BOOLEAN for attribute in declared):
        known |= {"post_only", "reject_post_only"}
        refuses = params.get("reject_post_only", False)
        if type(refuses) is not bool:
            errors.append(FieldError("reject_post_only", "expected true or false"))
        elif params.get("post_only") is True and not refuses:
            errors.append(FieldError("reject_post_only", "expected true with post_only: no order is moved here"))
        if "post_only" in params:
            body["post_only"] = params["post_only"]
    return frozenset(known)


def _check_extras(params: Params, attributes: frozenset[str], errors: list[FieldError]) -> None:
    for name, harmless in _REFUSED_UNLESS.items():
        if name in attributes:
            continue
        if name in params and not (type(params[name]) is type(harmless) and params[name] == harmless):
            errors.append(FieldError(name, "is not supported here; leave it out"))
    _check_collar(params, errors)
    label = params.get("label")
    if label is not None and not (isinstance(label, str) and len(label) <= MAX_LABEL):
        errors.append(FieldError("label", f"expected text of at most {MAX_LABEL} characters"))


def _check_collar(params: Params, errors: list[FieldError]) -> None:
    if "collar" in params and params["collar"] not in _COLLARS:
        errors.append(FieldError("collar", 'expected "ignore", "reject" or "clamp"'))


def _check_unknown(params: Params, known: Iterable[str], errors: list[FieldError]) -> None:
    unknown = [name for name in params if name not in known]
    errors += [FieldError(name[:_MAX_NAME], "unknown field") for name in unknown[:_MAX_NAMED]]
    if len(unknown) > _MAX_NAMED:
        errors.append(FieldError("params", f"{len(unknown) - _MAX_NAMED} more unknown fields"))


THALEX_METHODS: Final[Mapping[str, Callable[[ClientState, object, Params], list[Effect]]]] = {
    "public/login": _login,
    "private/insert": _insert,
    "private/buy": _buy,
    "private/sell": _sell,
    "private/cancel": _cancel,
    "private/amend": _amend,
    "private/open_orders": _open_orders,
    "public/ticker": _ticker,
    "public/book": _book,
}
THALEX_ORDER_METHODS: Final = (
    "private/insert", "private/buy", "private/sell", "private/cancel", "private/amend", "private/open_orders",
)  # fmt: skip


# Answers.


@dataclass(frozen=True, slots=True)
class LoginAnswer:
    """Whose account the session is: a user has one, which is called as the user is."""

    request_id: object

    def success(self, result: Mapping[str, Any]) -> Reply:
        """Of `core.protocol.effects.Authenticate`."""
        return encoded_answer(self.request_id, json.dumps({"account_number": result["user_id"]}))

    def failure(self, error: RequestError) -> Reply:
        """Code, message and data."""
        return refusal(self.request_id, error)


@dataclass(frozen=True, slots=True)
class OrderAnswer:
    """One order's status, as the engine has said, or as it is known where that said nothing in time."""

    request_id: object
    client: ClientState = field(repr=False, compare=False)
    change_reason: str
    label: str | None = None

    def success(self, result: Mapping[str, Any]) -> Reply:
        """Of an order, cancel or amend, by its `order_id`; `amend_rejected` is why the engine refused an amend."""
        order = self.client.rules.find_order(result["order_id"])
        if order is None:
            return self.failure(NoSuchOrder())
        if "amend_rejected" in result:
            return self.failure(RpcError(RpcCode.ORDER_REFUSED, result["amend_rejected"]))
        if order.status is Status.REJECTED:
            return self.failure(RpcError(RpcCode.ORDER_REFUSED, order.reason or "the order was rejected"))
        persistent = not self.client.cancels_on_disconnect
        return encoded_answer(
            self.request_id, order_status(order, self.change_reason, label=self.label, persistent=persistent)
        )

    def failure(self, error: RequestError) -> Reply:
        """Code, message and data."""
        return refusal(self.request_id, error)


@dataclass(frozen=True, slots=True)
class OrdersAnswer:
    """The statuses of open orders."""

    request_id: object
    client: ClientState = field(repr=False, compare=False)

    def write(self, orders: Iterable[Order]) -> bytes:
        """Of `core.protocol.effects.ListAnswer`."""
        return ",".join([order_status(order, "existing") for order in orders]).encode()

    def around(self) -> tuple[bytes, bytes]:
        """Of `core.protocol.effects.ListAnswer`."""
        # The last brackets: an id may have some.
        before, _, behind = encoded_answer(self.request_id, "[]").text.rpartition(b"[]")
        return before + b"[", b"]" + behind

    def success(self, frame: bytes | memoryview) -> Reply:
        """The list as it is, in its frame."""
        return Reply(b"", frame=frame)

    def failure(self, error: RequestError) -> Reply:
        """Code, message and data."""
        return refusal(self.request_id, error)


_STATUSES: Final = {
    Status.PENDING: "open",
    Status.OPEN: "open",
    Status.PARTIALLY_FILLED: "partially_filled",
    Status.FILLED: "filled",
    Status.CANCELLED: "cancelled",
    Status.REJECTED: "cancelled",
}


def order_status(order: Order, change_reason: str, *, label: str | None = None, persistent: bool = True) -> str:
    """Thalex's order status as JSON text, amounts exact. Fills are not kept by order, so there are none in it.

    It knows no order that waits for the engine (`open`), nor a rejected one (`cancelled`), nor fill or kill.
    """
    quantity, filled = Decimal(order.quantity), Decimal(order.filled)
    remaining = "0" if order.is_closed else decimal_text(EXACT.subtract(quantity, filled))
    is_immediate = order.order_type is OrderType.MARKET or order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
    status = _STATUSES[order.status]
    if status == "cancelled" and filled:
        status = "cancelled_partially_filled"
    members = {
        "order_id": json.dumps(order.order_id),
        "order_type": f'"{order.order_type.value}"',
        "time_in_force": '"immediate_or_cancel"' if is_immediate else '"good_till_cancelled"',
        "instrument_name": json.dumps(order.symbol),
        "direction": '"buy"' if order.side is Side.BID else '"sell"',
        "price": order.price,
        "amount": order.quantity,
        "filled_amount": order.filled,
        "remaining_amount": remaining,
        "label": None if label is None else json.dumps(label),
        "client_order_id": _number_of(order.client_order_id),
        "status": f'"{status}"',
        "fills": "[]",
        "change_reason": f'"{change_reason}"',
        "delete_reason": _delete_reason(order, is_immediate),
        "insert_reason": '"client_request"',
        "create_time": repr(order.created_ms / 1000),
        "close_time": repr(order.time_ms / 1000) if order.is_closed else None,
        "persistent": "true" if persistent else "false",
    }
    told = ",".join(f'"{name}":{text}' for name, text in members.items() if text is not None)
    return f"{{{told}}}"


def _number_of(client_order_id: str | None) -> str | None:
    local = None if client_order_id is None else _local_name(client_order_id)
    return None if local is None else local[1]


def _delete_reason(order: Order, is_immediate: bool) -> str | None:
    if order.status is Status.FILLED:
        return '"filled"'
    if order.status is Status.CANCELLED:
        return '"immediate_cancel"' if is_immediate else '"client_cancel"'
    return None
