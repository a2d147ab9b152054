"""One client's protocol, without I/O: a message in, effects out (contract, section 3).

The session only reads and decides; the handler performs the effects in their order. Whatever a client sends within the
size limit gets an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import ujson

from core.channels import Channel, parse_channel
from core.commands import read_json
from core.errors import NotJson, RpcCode, RpcError


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this text."""

    text: bytes
    is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Add these channels; `since` is where the client wants to resume each of some of them."""

    channels: tuple[Channel, ...]
    since: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Drop these channels."""

    names: tuple[str, ...]


Effect = Reply | Subscribe | Unsubscribe


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

    def __init__(
        self, max_subscriptions: int, instruments: Callable[[], Mapping[str, object]], is_listed: Callable[[str], bool]
    ) -> None:
        """`instruments` gives the answer of `public/instruments`; `is_listed` whether a symbol may be subscribed."""
        self._max_subscriptions = max_subscriptions
        self._instruments = instruments
        self._is_listed = is_listed
        self.subscribed: set[str] = set()
        self._methods: dict[str, Callable[[object, dict[str, Any]], list[Effect]]] = {
            "public/subscribe": self._subscribe,
            "public/unsubscribe": self._unsubscribe,
            "unsubscribe": self._unsubscribe,
            "public/instruments": lambda request_id, _params: [answer(request_id, self._instruments())],
            "public/ping": lambda request_id, _params: [answer(request_id, "pong")],
        }

    def receive(self, message: str | bytes) -> list[Effect]:
        """Effects of one message, a text (as str or its bytes) or a binary frame (`receive_binary`)."""
        request_id: object = None
        try:
            request = self._read(message)
            request_id = self._read_id(request)
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

    def _subscribe(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        names = self._read_names(params)
        channels = []
        for name in names:
            try:
                channel = parse_channel(name)
            except ValueError as error:
                raise RpcError(RpcCode.BAD_PARAMS, f"channels: {error}") from error
            if channel.symbol is not None and not self._is_listed(channel.symbol):
                raise RpcError(RpcCode.BAD_PARAMS, f"channels: {name!r}: the symbol is not listed")
            channels.append(channel)
        since = self._read_since(params)
        if len(self.subscribed.union(names)) > self._max_subscriptions:
            raise RpcError(
                RpcCode.TOO_MANY_REQUESTS,
                f"a connection has at most {self._max_subscriptions} subscriptions; unsubscribe first",
                {"retry_after": 1},
            )
        self.subscribed.update(names)
        return [answer(request_id, names), Subscribe(tuple(channels), since)]

    def _unsubscribe(self, request_id: object, params: dict[str, Any]) -> list[Effect]:
        dropped = [name for name in self._read_names(params) if name in self.subscribed]
        self.subscribed.difference_update(dropped)
        return [Unsubscribe(tuple(dropped)), answer(request_id, dropped)]

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


def _is_position(position: object, spans_partitions: bool) -> bool:
    """A seq, or `{epoch, seq}`; where a channel spans partitions the seq is an object of partition to seq."""
    if isinstance(position, dict) and "seq" in position:
        return isinstance(position.get("epoch", ""), str) and _is_seq(position["seq"], spans_partitions)
    return _is_seq(position, spans_partitions)


def _is_seq(seq: object, spans_partitions: bool) -> bool:
    if spans_partitions:
        return isinstance(seq, dict) and all(name.isdecimal() and _is_seq(at, False) for name, at in seq.items())
    return isinstance(seq, int) and not isinstance(seq, bool)
