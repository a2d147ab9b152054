"""What can go wrong, by its name in the contract (docs/contract.md#codes, #problems): one table of codes and problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class MExchangeError(Exception):
    """Whatever this library raises."""


class ConnectionLost(MExchangeError):
    """There was no connection in the time given, and nothing was sent."""


class StreamClosed(MExchangeError):
    """It was closed by this program. Who iterates over it comes to an end instead."""


class GatewayError(MExchangeError):
    """What the gateway answered in place of a result.

    Attributes:
        kind: the code (an int) or the problem's name (a str) that it came with; None for what only this side knows.
        data: what else the answer had.
        order_id: which order to ask about, where the answer names one.
        order_status: of an order that is closed already.
        retry_after: seconds, where the answer names them.
    """

    def __init__(self, message: str, kind: int | str | None = None, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.data = dict(data or {})

    @property
    def order_id(self) -> str | None:
        return self.data.get("order_id")

    @property
    def order_status(self) -> str | None:
        status = self.data.get("order_status", self.data.get("status"))
        return status if isinstance(status, str) else None

    @property
    def retry_after(self) -> float | None:
        seconds = self.data.get("retry_after")
        return None if seconds is None else float(seconds)


class BadRequest(GatewayError):
    """The gateway could not read what was sent, or does not take it so."""


class NoSuchMethod(GatewayError):
    """The method is unknown, or not offered here: amends, where `orders.amend` is off."""


class InvalidFields(GatewayError):
    """The terms break a rule. `errors` is a list of `{field, message}`, one for each broken rule."""

    @property
    def errors(self) -> list[dict[str, str]]:
        return list(self.data.get("errors", []))


class NotAuthorised(GatewayError):
    """No token where one is needed, or one that is not accepted (any more)."""


class Forbidden(GatewayError):
    """Known, and not allowed: by the token's scope, a block, a halt."""


class NotFound(GatewayError):
    """No such symbol, order or path."""


class OrderRefused(GatewayError):
    """The order was understood and refused: other terms under its client_order_id, or no funds."""


class CancelFailed(GatewayError):
    """There is nothing of the caller's to cancel or amend; `order_status` says what became of a closed order."""


class TooManyRequests(GatewayError):
    """A limit was reached, and `retry_after` is longer than the time that was given."""


class Unavailable(GatewayError):
    """Certainly not done, as often as it was tried in the time given. The same may be sent again."""


class OutcomeUnknown(GatewayError):
    """Perhaps done. The same may be sent again, under the same `client_order_id`; or look at `order_id`.

    `__cause__` is what the last attempt met.
    """

    client_order_id: str | None = None


class GatewayFault(GatewayError):
    """A fault of the gateway's own, or of what stands behind it."""


# Everything that the contract names, or that a later gateway does: codes of answers, and names of problems (HTTP).
ERRORS: dict[int | str, type[GatewayError]] = {
    -32700: BadRequest,
    -32600: BadRequest,
    -32601: NoSuchMethod,
    -32602: InvalidFields,
    -32603: GatewayFault,
    10000: NotAuthorised,
    10001: OrderRefused,
    10002: CancelFailed,
    10003: TooManyRequests,
    10004: Unavailable,
    10005: OutcomeUnknown,
    10006: Forbidden,
    "not-json": BadRequest,
    "bad-request": BadRequest,
    "unauthorised": NotAuthorised,
    "forbidden": Forbidden,
    "insufficient_scope": Forbidden,
    "blocked": Forbidden,
    "halted": Forbidden,
    "not-found": NotFound,
    "method-not-allowed": BadRequest,
    "request-timeout": BadRequest,
    "conflict": OrderRefused,
    "too-large": BadRequest,
    "target-too-long": BadRequest,
    "not-json-type": BadRequest,
    "invalid-fields": InvalidFields,
    "upgrade-required": BadRequest,
    "too-many-requests": TooManyRequests,
    "headers-too-large": BadRequest,
    "internal": GatewayFault,
    "bad-gateway": GatewayFault,
    "bus-unavailable": Unavailable,
    "unavailable": Unavailable,
    "outcome-unknown": OutcomeUnknown,
    "gateway-timeout": GatewayFault,
}

# Why a connection ended. After any of them this library connects again.
CLOSES: dict[int, str] = {
    1001: "going_away",
    1002: "protocol_error",
    1007: "bad_data",
    1008: "policy",
    1009: "too_big",
    1011: "internal_error",
    4008: "slow_consumer",
    4009: "ping_timeout",
}
TOO_BIG = 1009

# What a problem of a name that is not in the table means, by its status: a later gateway may have more names.
_BY_STATUS: dict[int, type[GatewayError]] = {
    401: NotAuthorised,
    403: Forbidden,
    404: NotFound,
    409: OrderRefused,
    422: InvalidFields,
    429: TooManyRequests,
    503: Unavailable,
    504: OutcomeUnknown,
}
_URN = "urn:mexchange:problem:"


def of_answer(error: Mapping[str, Any]) -> GatewayError:
    """The exception for an `error` member of an answer on the WebSocket."""
    code = error["code"]
    return ERRORS.get(code, GatewayError)(str(error.get("message", code)), code, error.get("data"))


def of_problem(status: int, body: object, retry_after: str | None) -> GatewayError:
    """The exception for an HTTP answer that is no success, whoever wrote it; `retry_after` is the header."""
    data = dict(body) if isinstance(body, Mapping) else {}
    name = str(data.get("type", "")).removeprefix(_URN)
    if retry_after is not None and retry_after.isdecimal():
        data["retry_after"] = int(retry_after)
    kind = ERRORS.get(name) or _BY_STATUS.get(status, GatewayFault if status >= 500 else GatewayError)
    data.pop("status", None)  # RFC 9457's number, and no order's
    return kind(str(data.get("detail") or data.get("error") or f"HTTP {status}"), name or status, data)
