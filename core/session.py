"""One client's protocol, without I/O: a message in, effects out (contract, section 3).

The session only reads and decides; the handler performs the effects in their order. Whatever a client sends within the
size limit gets an answer, but for what never had one in the older dialects. Those are translated here, at the edge,
message by message, into the same effects: a client may subscribe in one dialect and order in another.

Who the client is, the handler tells (`principal`, `is_expired`): a token is checked outside, because its key may have to
be fetched first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

from core.channels import ChannelName, parse_channel
from core.commands import OrderRules, check_cancel, check_cancel_all, check_place, read_json
from core.effects import (
    Authenticate,
    Cancel,
    CancelAll,
    Effect,
    OlderAnswer,
    Place,
    PlaceUnanswered,
    Reply,
    RpcAnswer,
    SetCancelOnDisconnect,
    Subscribe,
    SubscribeAccount,
    Unsubscribe,
    answer,
    refusal,
)
from core.errors import InvalidFields, NotJson, RpcCode, RpcError
from core.private_feed import ACCOUNT_ORDERS

_Checked = TypeVar("_Checked")


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What a session decides by.

    `open_views` are the names of the channels that somebody listens to. `allows_anonymous` is false where orders need a
    token.
    """

    max_subscriptions: int
    max_views: int
    instruments: Callable[[], Mapping[str, object]]
    is_listed: Callable[[str], bool]
    has_tick: Callable[[str], bool]
    open_views: Callable[[], Collection[str]]
    orders: OrderRules
    allows_anonymous: bool = False


class Session:
    """The state of one connection's protocol: what it is subscribed to, and whether it has said who it is."""

    def __init__(self, rules: SessionRules) -> None:
        self._rules = rules
        self.subscribed: set[str] = set()
        self.user_id: str | None = None
        self.is_expired = False

    # By name and once for all: a table of bound methods would take 3 KB a connection.
    _methods: ClassVar[dict[str, str]] = {
        "public/subscribe": "_subscribe",
        "public/unsubscribe": "_unsubscribe",
        "private/unsubscribe": "_unsubscribe",
        "unsubscribe": "_unsubscribe",
        "public/auth": "_authenticate",
        "private/subscribe": "_subscribe_private",
        "private/place_order": "_place",
        "private/cancel_order": "_cancel",
        "private/cancel_all": "_cancel_all",
        "private/set_cancel_on_disconnect": "_set_cancel_on_disconnect",
        "public/instruments": "_instruments",
        "public/ping": "_ping",
    }
    _older: ClassVar[dict[str, str]] = {
        "subscribe": "_subscribe_older",
        "unsubscribe": "_unsubscribe_older",
        "orders": "_place_unanswered",
        "auth": "_authenticate_older",
        "place_order": "_place_older",
        "cancel_order": "_cancel_older",
    }

    def receive(self, message: str | bytes) -> list[Effect]:
        """Effects of one message, a text (as str or its bytes)."""
        request_id: object = None
        try:
            request = self._read(message)
            request_id = self._read_id(request)
            if "method" not in request:
                older = self._older_method(request)
                if older is not None:
                    return older(request)
            method, params = self._read_call(request)
            return method(request_id, params)
        except RpcError as error:
            return [refusal(request_id, error)]

    def refuse(self, message: str | bytes, error: RpcError) -> Reply:
        """The answer to a message that is not to be served, with its id if it has one."""
        try:
            return refusal(self._read_id(self._read(message)), error)
        except RpcError:
            return refusal(None, error)

    @staticmethod
    def receive_binary() -> list[Effect]:
        """Effects of a binary frame: there is no such message."""
        return [refusal(None, RpcError(RpcCode.NOT_JSON, "binary frames are not read; send JSON in text frames"))]

    @staticmethod
    def _read(message: str | bytes) -> dict[str, Any]:
        try:
            request = read_json(message if isinstance(message, bytes) else message.encode("utf-8", "surrogatepass"))
        except NotJson as error:
            raise RpcError(RpcCode.NOT_JSON, f"not JSON: {error.detail}") from error
        if not isinstance(request, dict):
            raise RpcError(RpcCode.NOT_A_REQUEST, "a request is an object with id, method and params")
        return request

    @staticmethod
    def _read_id(request: dict[str, Any]) -> object:
        request_id = request.get("id")
        if isinstance(request_id, bool) or not isinstance(request_id, str | int | Decimal | None):
            raise RpcError(RpcCode.NOT_A_REQUEST, "id: expected a string or a number")
        return request_id

    def _read_call(
        self, request: dict[str, Any]
    ) -> tuple[Callable[[object, dict[str, Any]], list[Effect]], dict[str, Any]]:
        name = request.get("method")
        if not isinstance(name, str):
            raise RpcError(RpcCode.NOT_A_REQUEST, "method: expected a string")
        method = self._methods.get(name)
        if method is None:
            raise RpcError(RpcCode.NO_SUCH_METHOD, f"there is no method {name[:80]!r}")
        params = request.get("params", {})
        if params is None:
            params = {}
        if not isinstance(params, dict):
            raise RpcError(RpcCode.BAD_PARAMS, "params: expected an object")
        call: Callable[[object, dict[str, Any]], list[Effect]] = getattr(self, method)
        return call, params

    # The present dialect.

    def _instruments(self, request_id: object, _params: dict[str, Any]) -> list[Effect]:
        return [answer(request_id, self._rules.instruments())]

    @staticmethod
    def _ping(request_id: object, _params: dict[str, Any]) -> list[Effect]:
        return [answer(request_id, "pong")]

    def _subscribe(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        names = self._read_names(params)
        since = self._read_since(params)
        return [answer(request_id, names), Subscribe(self._admit(names), since)]

    def _unsubscribe(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        dropped = self._drop(self._read_names(params))
        return [Unsubscribe(dropped), answer(request_id, list(dropped))]

    def _admit(self, names: list[str]) -> tuple[ChannelName, ...]:
        """Check all of a request's channels, and only then count them as subscribed. Raises `RpcError`."""
        rules = self._rules
        channels = tuple(self._read_channel(name) for name in names)
        if len(self.subscribed.union(names)) > rules.max_subscriptions:
            raise self._too_many_subscriptions()
        views = rules.open_views()
        if len(views) + sum(name not in views for name in names) > rules.max_views:
            raise RpcError(
                RpcCode.TOO_MANY_REQUESTS, f"at most {rules.max_views} distinct views are kept", {"retry_after": 5}
            )
        self.subscribed.update(names)
        return channels

    def _too_many_subscriptions(self) -> RpcError:
        return RpcError(
            RpcCode.TOO_MANY_REQUESTS,
            f"a connection has at most {self._rules.max_subscriptions} subscriptions; unsubscribe first",
            {"retry_after": 1},
        )

    def _read_channel(self, name: str) -> ChannelName:
        if name.startswith("account."):
            raise RpcError(RpcCode.BAD_PARAMS, f"channels: {name[:80]!r}: account channels need private/subscribe")
        try:
            channel = parse_channel(name)
        except ValueError as error:
            raise RpcError(RpcCode.BAD_PARAMS, f"channels: {error}") from error
        if channel.symbol is not None and not self._rules.is_listed(channel.symbol):
            raise RpcError(RpcCode.BAD_PARAMS, f"channels: {name!r}: the symbol is not listed")
        if channel.grouping is not None and channel.symbol is not None and not self._rules.has_tick(channel.symbol):
            raise RpcError(RpcCode.BAD_PARAMS, f"channels: {name!r}: no tick is configured to group by; use none")
        return channel

    def _drop(self, names: list[str]) -> tuple[str, ...]:
        dropped = tuple(name for name in names if name in self.subscribed)
        self.subscribed.difference_update(dropped)
        return dropped

    @staticmethod
    def _read_names(params: dict[str, Any]) -> list[str]:
        names = params.get("channels")
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise RpcError(RpcCode.BAD_PARAMS, "channels: expected a list of at least one channel name")
        return list(dict.fromkeys(names))

    @staticmethod
    def _read_since(params: dict[str, Any]) -> dict[str, object]:
        since = params.get("since")
        if since is None:
            return {}
        if not isinstance(since, dict):
            raise RpcError(RpcCode.BAD_PARAMS, "since: expected an object of channel to seq")
        for name, position in since.items():
            if not _is_position(position, spans_partitions=name == "events"):
                raise RpcError(
                    RpcCode.BAD_PARAMS, f"since: {name[:80]!r}: expected a seq, or an object with epoch and seq"
                )
        return since

    # Who, and orders.

    def _authenticate(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        token = params.get("token")
        if not isinstance(token, str):
            raise RpcError(RpcCode.BAD_PARAMS, "token: expected a string")
        return [Authenticate(RpcAnswer(request_id), token)]

    def _subscribe_private(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        self._check_user()
        names = self._read_names(params)
        self._read_since(params)
        for name in names:
            if name != ACCOUNT_ORDERS:
                raise RpcError(
                    RpcCode.BAD_PARAMS, f"channels: {name[:80]!r}: the only account channel is account.orders"
                )
        if len(self.subscribed.union(names)) > self._rules.max_subscriptions:
            raise self._too_many_subscriptions()
        self.subscribed.update(names)
        return [answer(request_id, names), SubscribeAccount()]

    def _place(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        self._check_trader()
        return [Place(RpcAnswer(request_id), _checked(check_place, params, self._rules.orders))]

    def _cancel(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        self._check_trader()
        return [Cancel(RpcAnswer(request_id), _checked(check_cancel, params, self._rules.orders))]

    def _cancel_all(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        self._check_user()
        return [CancelAll(RpcAnswer(request_id), _checked(check_cancel_all, params, self._rules.orders))]

    def _set_cancel_on_disconnect(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        self._check_trader()
        enabled = params.get("enabled")
        if not isinstance(enabled, bool):
            raise RpcError(RpcCode.BAD_PARAMS, "enabled: expected true or false")
        return [SetCancelOnDisconnect(enabled), answer(request_id, {"enabled": enabled})]

    def _check_user(self) -> None:
        if self.is_expired:
            raise RpcError(RpcCode.NOT_AUTHORISED, "the token has expired; send public/auth with another one")
        if self.user_id is None:
            raise RpcError(RpcCode.NOT_AUTHORISED, "send public/auth first")

    def _check_trader(self) -> None:
        """Whether this connection may order: a user, or anybody where orders need no token."""
        if self.is_expired or not self._rules.allows_anonymous:
            self._check_user()

    # The older dialects. The first says `action`, the second `type`; both have trades as objects.

    def _older_method(self, request: dict[str, Any]) -> Callable[[dict[str, Any]], list[Effect]] | None:
        name = request.get("type", request.get("action"))
        if not isinstance(name, str):
            return None
        method = self._older.get(name)
        if method is None:
            raise RpcError(RpcCode.NO_SUCH_METHOD, f"there is no message of type {name[:80]!r}")
        older: Callable[[dict[str, Any]], list[Effect]] = getattr(self, method)
        return older

    @staticmethod
    def _read_older_channel(request: dict[str, Any]) -> str:
        name = request.get("channel")
        if not isinstance(name, str):
            raise RpcError(RpcCode.BAD_PARAMS, "channel: expected a channel's name")
        return name

    def _subscribe_older(self, request: dict[str, Any]) -> list[Effect]:
        return [Subscribe(self._admit([self._read_older_channel(request)]), {}, objects=True)]

    def _unsubscribe_older(self, request: dict[str, Any]) -> list[Effect]:
        return [Unsubscribe(self._drop([self._read_older_channel(request)]))]

    def _place_unanswered(self, request: dict[str, Any]) -> list[Effect]:
        if not self._rules.allows_anonymous:
            raise RpcError(RpcCode.NOT_AUTHORISED, "orders need a token here")
        bodies = request.get("orders")
        if not isinstance(bodies, list):
            raise RpcError(RpcCode.BAD_PARAMS, "orders: expected a list of orders")
        orders = []
        for body in bodies:
            try:
                orders.append(check_place(body, self._rules.orders))
            except InvalidFields:
                continue
        return [PlaceUnanswered(tuple(orders), len(bodies) - len(orders))]

    def _authenticate_older(self, request: dict[str, Any]) -> list[Effect]:
        told = OlderAnswer("auth_result", "user_id")
        token = request.get("token")
        if not isinstance(token, str):
            return [told.failure(RpcError(RpcCode.BAD_PARAMS, "token: expected a string"))]
        return [Authenticate(told, token)]

    def _place_older(self, request: dict[str, Any]) -> list[Effect]:
        told = OlderAnswer("order_result", "order_id")
        try:
            self._check_trader()
            return [Place(told, _checked(check_place, _body_of(request), self._rules.orders))]
        except RpcError as error:
            return [told.failure(error)]

    def _cancel_older(self, request: dict[str, Any]) -> list[Effect]:
        given = request.get("order_id")
        told = OlderAnswer("cancel_result", "order_id", given if isinstance(given, str) else None)
        try:
            self._check_trader()
            return [Cancel(told, _checked(check_cancel, _body_of(request), self._rules.orders))]
        except RpcError as error:
            return [told.failure(error)]


def _checked(check: Callable[[object, OrderRules], _Checked], body: object, rules: OrderRules) -> _Checked:
    """What `check` makes of a body; a broken rule becomes -32602 with the same errors as over REST."""
    try:
        return check(body, rules)
    except InvalidFields as error:
        told = [{"field": one.field, "message": one.message} for one in error.errors]
        raise RpcError(RpcCode.BAD_PARAMS, str(error), {"errors": told}) from error


def _body_of(request: dict[str, Any]) -> dict[str, Any]:
    """An older message's order body: what is not its envelope."""
    return {name: value for name, value in request.items() if name not in ("type", "id")}


def _is_position(position: object, spans_partitions: bool) -> bool:
    """A seq, or `{epoch, seq}`; where a channel spans partitions the seq is an object of partition to seq."""
    if isinstance(position, dict) and "seq" in position:
        epoch = position.get("epoch")
        return (epoch is None or isinstance(epoch, str)) and _is_seq(position["seq"], spans_partitions)
    return _is_seq(position, spans_partitions)


def _is_seq(seq: object, spans_partitions: bool) -> bool:
    if spans_partitions:
        return isinstance(seq, dict) and all(_is_partition(name) and _is_seq(at, False) for name, at in seq.items())
    return isinstance(seq, int) and not isinstance(seq, bool) and -1 <= seq < 1 << 63


def _is_partition(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) <= 10
