"""One client's protocol, without I/O: a message in, effects out (contract, section 3).

The session only reads and decides; the handler performs the effects in their order. Whatever a client sends within the
size limit gets an answer, but for the successes of the older dialects, which never had one. Those are translated here, at
the edge, message by message, into the same effects: a client may subscribe in one dialect and order in another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import ujson

from core.channels import ChannelName, parse_channel
from core.commands import OrderRules, PlaceOrder, check_place, read_json
from core.errors import InvalidFields, NotJson, RpcCode, RpcError


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this text."""

    text: bytes
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Add these channels; `since` is where the client wants to resume some of them, `objects` the older trade shape."""

    channels: tuple[ChannelName, ...]
    since: Mapping[str, object]
    objects: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Drop these channels."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlaceUnanswered:
    """Publish these orders of nobody's, without a word; so many more were bad and are only counted."""

    orders: tuple[PlaceOrder, ...]
    bad: int


Effect = Reply | Subscribe | Unsubscribe | PlaceUnanswered


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What a session decides by.

    `open_views` are the names of the channels that somebody listens to. `anonymous_orders` is None where orders need a
    token.
    """

    max_subscriptions: int
    max_views: int
    instruments: Callable[[], Mapping[str, object]]
    is_listed: Callable[[str], bool]
    has_tick: Callable[[str], bool]
    open_views: Callable[[], Collection[str]]
    anonymous_orders: OrderRules | None = None


def answer(request_id: object, result: object) -> Reply:
    """The answer to a request that succeeded."""
    return Reply(_encode(request_id, "result", result))


def refusal(request_id: object, error: RpcError) -> Reply:
    """The answer to a request that did not."""
    told: dict[str, object] = {"code": int(error.code), "message": error.message}
    if error.data is not None:
        told["data"] = error.data
    return Reply(_encode(request_id, "error", told), is_refusal=True)


def _encode(request_id: object, member: str, value: object) -> bytes:
    told = str(request_id) if isinstance(request_id, Decimal) else json.dumps(request_id)
    return f'{{"id":{told},"{member}":{ujson.dumps(value, escape_forward_slashes=False)}}}'.encode()


class Session:
    """The state of one connection's protocol: what it is subscribed to."""

    def __init__(self, rules: SessionRules) -> None:
        self._rules = rules
        self.subscribed: set[str] = set()
        self._methods: dict[str, Callable[[object, dict[str, Any]], list[Effect]]] = {
            "public/subscribe": self._subscribe,
            "public/unsubscribe": self._unsubscribe,
            "private/unsubscribe": self._unsubscribe,
            "unsubscribe": self._unsubscribe,
            "public/instruments": lambda request_id, _params: [answer(request_id, self._rules.instruments())],
            "public/ping": lambda request_id, _params: [answer(request_id, "pong")],
        }
        self._older: dict[str, Callable[[dict[str, Any]], list[Effect]]] = {
            "subscribe": self._subscribe_older,
            "unsubscribe": self._unsubscribe_older,
            "orders": self._place_older,
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
        return method, params

    # The present dialect.

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
            raise RpcError(
                RpcCode.TOO_MANY_REQUESTS,
                f"a connection has at most {rules.max_subscriptions} subscriptions; unsubscribe first",
                {"retry_after": 1},
            )
        views = rules.open_views()
        if len(views) + sum(name not in views for name in names) > rules.max_views:
            raise RpcError(
                RpcCode.TOO_MANY_REQUESTS, f"at most {rules.max_views} distinct views are kept", {"retry_after": 5}
            )
        self.subscribed.update(names)
        return channels

    def _read_channel(self, name: str) -> ChannelName:
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

    # The older dialects. The first says `action`, the second `type`; both have trades as objects.

    def _older_method(self, request: dict[str, Any]) -> Callable[[dict[str, Any]], list[Effect]] | None:
        name = request.get("type", request.get("action"))
        if not isinstance(name, str):
            return None
        method = self._older.get(name)
        if method is None:
            raise RpcError(RpcCode.NO_SUCH_METHOD, f"there is no message of type {name[:80]!r}")
        return method

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

    def _place_older(self, request: dict[str, Any]) -> list[Effect]:
        rules = self._rules.anonymous_orders
        if rules is None:
            raise RpcError(RpcCode.NOT_AUTHORISED, "orders need a token here")
        bodies = request.get("orders")
        if not isinstance(bodies, list):
            raise RpcError(RpcCode.BAD_PARAMS, "orders: expected a list of orders")
        orders = []
        for body in bodies:
            try:
                orders.append(check_place(body, rules))
            except InvalidFields:
                continue
        return [PlaceUnanswered(tuple(orders), len(bodies) - len(orders))]


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
